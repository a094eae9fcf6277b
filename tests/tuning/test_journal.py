"""`optuna.journal` says what the tables say: read back through Optuna, number by number."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune

from study.methods.sws.settings import SWSSettings
from study.records import paths, study_folder, timestamps
from study.records.identity import ids_elsewhere
from study.records.ledger import Ledger
from study.tuning.journal import BASELINES, Journal
from study.tuning.space import SearchSpace

OBJECTIVES = {"val_accuracy": "max", "file_bytes": "min"}
SPACE = SearchSpace.of(
    "sws", {"tau": tune.loguniform(0.01, 1.0), "components": tune.randint(4, 65)}, OBJECTIVES, {"paper": {"tau": 0.1}}
)
SETTINGS = SWSSettings()
CREATED = "2026-03-01T09:00:00+00:00"


def ledger_of(folder: Path) -> Ledger:
    """The folder of a study that has just started."""
    meta = {"schema": 1, "kind": "sws", "seed": 0, "created": CREATED, **SPACE.as_json()}
    study_folder.write_text(folder / paths.STUDY, json.dumps(meta))
    return Ledger(folder)


def ran(
    ledger: Ledger, trial_id: str, values: dict, metrics: dict, baseline: str = "", state: str = "complete"
) -> None:
    """A trial of two epochs that ends."""
    ledger.start(trial_id, values, baseline)
    for epoch in (1, 2):
        ledger.epoch(trial_id, {"epoch": epoch, "phase": "train", "val_accuracy": 40.0 + epoch / 3})
    ledger.finish(trial_id, state, "", metrics, seconds=2.5)


def filled(folder: Path) -> Ledger:
    """Two baselines, a complete trial, a pruned, a failed, one that was cut off, and a complete one after it."""
    ledger = ledger_of(folder)
    ran(ledger, "uncompressed", {}, {"val_accuracy": 97.0, "file_bytes": 9000}, "uncompressed")
    ran(ledger, "paper", {"tau": 0.1, "prior": "flat"}, {"val_accuracy": 96.0, "file_bytes": 900}, "paper")
    ran(
        ledger, "t001", {"tau": 0.02, "components": 5}, {"val_accuracy": 1 / 3, "file_bytes": 55, "sparsity": 0.1 + 0.2}
    )
    ran(ledger, "t002", {"tau": 0.3, "components": 64}, {"val_accuracy": 50.0}, state="pruned")
    ran(ledger, "t003", {"tau": 0.4, "components": 8}, {}, state="failed")
    ledger.start("t004", {"tau": 0.5, "components": 9})
    ran(ledger, "t005", {"tau": 0.6, "components": 10}, {"val_accuracy": 80.0, "file_bytes": 77})
    ledger.flush()
    return ledger


def optuna_study(folder: Path, baselines: bool = False) -> optuna.Study:
    name = BASELINES.format(folder.name) if baselines else folder.name
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(folder / paths.JOURNAL))))


def local(cell: str) -> datetime:
    instant = timestamps.parse(cell)
    assert instant is not None
    return instant.astimezone().replace(tzinfo=None)


def agrees(folder: Path) -> None:
    """Raise AssertionError unless every trial of the journal says what its rows say."""
    trials = study_folder.read_frame(folder / paths.TRIALS, []).set_index("trial_id")
    history = study_folder.read_frame(folder / paths.HISTORY, [])
    ids = [i for i in trials.index if not trials.baseline[i]]
    study = optuna_study(folder)
    assert study.metric_names == list(OBJECTIVES)
    assert [t.user_attrs["trial_id"] for t in study.trials] == ids
    assert [t.number + 1 for t in study.trials] == [int(i[1:]) for i in ids] == [t._trial_id + 1 for t in study.trials]
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "WAITING"}
    for trial, trial_id in zip(study.trials, ids, strict=True):
        row, epochs = trials.loc[trial_id], history[history.trial_id == trial_id]
        assert trial.state.name == names[row.state]
        assert trial.params == {"tau": row.tau, "components": row.components}
        assert trial.values == ([row[name] for name in OBJECTIVES] if row.state == "complete" else None)
        assert trial.intermediate_values == dict(zip(epochs.epoch, epochs.val_accuracy, strict=True))
        for name in ("val_accuracy", "file_bytes", "sparsity", "seconds"):
            assert trial.user_attrs.get(name) == (None if math.isnan(row[name]) else row[name])
        if row.state != "running":
            assert (trial.datetime_start, trial.datetime_complete) == (local(row.started), local(row.ended))


def test_the_journal_says_what_the_tables_say(tmp_path: Path) -> None:
    """Numbers, states, hyperparameters, objectives, epochs, metrics and times of every trial are those of trials.csv
    and history.csv to the last bit; one that was cut off waits at its number."""
    filled(tmp_path)
    Journal(Ledger.open(tmp_path), SPACE, SETTINGS)
    agrees(tmp_path)


def test_baselines_are_a_study_of_their_own(tmp_path: Path) -> None:
    """They have their objectives, epochs, and the hyperparameters that the space knows; others are attributes."""
    Journal(filled(tmp_path), SPACE, SETTINGS)
    first, paper = optuna_study(tmp_path, baselines=True).trials
    assert (first.user_attrs["trial_id"], first.params, first.values) == ("uncompressed", {}, [97.0, 9000])
    assert (paper.user_attrs["baseline"], paper.params, paper.user_attrs["prior"]) == ("paper", {"tau": 0.1}, "flat")
    assert first.intermediate_values == {1: 40.0 + 1 / 3, 2: 40.0 + 2 / 3}


def test_a_baseline_without_an_objective_is_left_out(tmp_path: Path) -> None:
    """Optuna has no complete trial without a value."""
    ledger = ledger_of(tmp_path)
    ran(ledger, "uncompressed", {}, {"val_accuracy": 97.0}, "uncompressed")
    Journal(ledger, SPACE, SETTINGS)
    assert not optuna_study(tmp_path, baselines=True).trials


def test_trials_that_run_are_in_the_journal_as_they_go(tmp_path: Path) -> None:
    """A trial is there when it starts, its epochs by its end, and then all that it ended with; one that was cut off
    goes on under its number; written again, all of it is the same but for milliseconds."""
    ledger = filled(tmp_path)
    journal = Journal(ledger, SPACE, SETTINGS)
    for trial_id, values in (("t004", {"tau": 0.5, "components": 9}), ("t006", {"tau": 0.7, "components": 11})):
        ledger.start(trial_id, values)
        journal.start(ledger.trials[trial_id])
    assert [t.state.name for t in optuna_study(tmp_path).trials[3:]] == ["RUNNING", "COMPLETE", "RUNNING"]
    for trial_id in ("t006", "t004"):
        row = {"epoch": 1, "phase": "train", "val_accuracy": 1 / 7}
        ledger.epoch(trial_id, row)
        journal.epoch(trial_id, row)
        ledger.finish(trial_id, "complete", metrics={"val_accuracy": 91.0, "file_bytes": 66}, seconds=1.0)
        journal.end(ledger.trials[trial_id])
    ledger.flush()
    live = optuna_study(tmp_path).trials
    assert [t.number for t in live] == list(range(6)) and live[3].values == live[5].values == [91.0, 66.0]
    Journal(ledger, SPACE, SETTINGS)
    agrees(tmp_path)
    for before, after in zip(live, optuna_study(tmp_path).trials, strict=True):
        assert before.user_attrs == after.user_attrs and before.intermediate_values == after.intermediate_values
        assert before.params == after.params
        assert before.datetime_complete is not None and after.datetime_complete is not None
        assert abs((before.datetime_complete - after.datetime_complete).total_seconds()) < 1


def test_what_was_tested_has_its_test_accuracy(tmp_path: Path) -> None:
    """Of the network that the search left, not of one that was trained again with a fresh seed."""
    ledger = filled(tmp_path)
    tested = "trial_id,baseline,seed,test_accuracy\nt001,,0,33.25\nt001,,1,12.0\nuncompressed,uncompressed,0,96.5\n"
    (tmp_path / paths.CONFIRMED).write_text(tested)
    Journal(ledger, SPACE, SETTINGS)
    accuracies = [t.user_attrs.get("test_accuracy") for t in optuna_study(tmp_path).trials]
    assert accuracies == [33.25, None, None, None, None]
    assert optuna_study(tmp_path, baselines=True).trials[0].user_attrs["test_accuracy"] == 96.5


def test_what_is_too_inaccurate_has_a_constraint(tmp_path: Path) -> None:
    """With --min-accuracy Optuna's own tools know which trials are allowed; also of one that ended just now."""
    ledger = filled(tmp_path)
    journal = Journal(ledger, SPACE, SETTINGS.changed(min_accuracy=79.0))
    ledger.start("t006", {"tau": 0.7, "components": 11})
    journal.start(ledger.trials["t006"])
    ledger.finish("t006", "complete", metrics={"val_accuracy": 91.0, "file_bytes": 66})
    journal.end(ledger.trials["t006"])
    constraints = [t.constraints.get("min_accuracy") for t in optuna_study(tmp_path).trials]
    assert constraints == [79.0 - 1 / 3, None, None, None, -1.0, -12.0]


def test_an_older_table_has_durations(tmp_path: Path) -> None:
    """Without start and end a trial ends as its study was created, and took the seconds of its row."""
    ledger = filled(tmp_path)
    for row in ledger.trials.values():
        row.pop("started", None), row.pop("ended", None)
    ledger.flush()
    Journal(Ledger.open(tmp_path), SPACE, SETTINGS)
    trial = optuna_study(tmp_path).trials[0]
    assert trial.datetime_complete == local(CREATED)
    assert trial.duration is not None and trial.duration.total_seconds() == 2.5


@pytest.mark.parametrize("created", ["yesterday", "2026-03-01T09:00:00", "0001-01-01T00:00:00+14:00", ""])
def test_a_start_that_is_no_instant_is_none(created: str, tmp_path: Path) -> None:
    """What a hand wrote into study.json as the study's start ends no command: the trials have their own times."""
    ledger = filled(tmp_path)
    study_folder.write_text(
        tmp_path / paths.STUDY, json.dumps({**study_folder.read_meta(tmp_path), "created": created})
    )
    assert Journal(ledger, SPACE, SETTINGS).created is None
    agrees(tmp_path)


@pytest.mark.parametrize("rest", ['{"op_code": 4, "study', "no journal at all\n"])
def test_a_damaged_journal_is_written_again(rest: str, tmp_path: Path) -> None:
    """Whatever is in the file, the next command writes it from the ledger; its ids are still evidence of trials."""
    ledger = filled(tmp_path)
    (tmp_path / paths.JOURNAL).write_text(rest)
    Journal(ledger, SPACE, SETTINGS)
    agrees(tmp_path)
    assert {"t001", "t005"} <= set(ids_elsewhere(tmp_path))


def test_a_full_disk_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is a copy: the ledger decides when to stop, and what is written at the end has everything."""
    ledger = filled(tmp_path)
    journal = Journal(ledger, SPACE, SETTINGS)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        journal.start(ledger.trials["t004"])
    Journal(ledger, SPACE, SETTINGS)
    agrees(tmp_path)

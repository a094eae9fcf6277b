"""What Tune's callbacks do to the ledger, without Ray running."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from study.methods.sws.settings import SWSSettings
from study.records.ledger import Ledger
from study.tuning.display import Display
from study.tuning.recorder import FEW, FULL_DISK, Recorder
from study.tuning.trainable import plain_values

OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}


class Searcher:
    stopped = ""

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason


def recorder(folder: Path) -> tuple[Recorder, Ledger, Searcher]:
    ledger, searcher = Ledger(folder), Searcher()
    display = Display(ledger, OBJECTIVES, 9, "")
    display.console.quiet = True
    made = Recorder(ledger, display, OBJECTIVES, SWSSettings(), folder)
    made.searcher = searcher  # type: ignore[assignment]
    return made, ledger, searcher


def end(made: Recorder, ledger: Ledger, trial_id: str, result: dict[str, Any], error: str = "") -> None:
    ledger.start(trial_id, {"tau": 0.1})
    file = made.folder / f"{trial_id}.txt"
    file.write_text(error)
    trial = SimpleNamespace(config={"trial_id": trial_id}, last_result=result, error_file=str(file))
    if error:
        made.on_trial_error(0, [], trial)
    else:
        made.on_trial_complete(0, [], trial)


GOOD = {
    "finished": True,
    "reported": "val_accuracy,sparsity",
    "val_accuracy": 90.0,
    "sparsity": 50.0,
    "spent": 3.0,
    "training_iteration": 7,  # of Tune's own
}


def test_most_trials_failing_stops_the_study(tmp_path: Path) -> None:
    """Few failures do not stop it, nor do as many as half; when more than half failed, it names the commonest."""
    made, ledger, searcher = recorder(tmp_path)
    for i in range(FEW):
        end(made, ledger, f"t{i}", GOOD)
        end(made, ledger, f"f{i}", {}, "Failure # 1\nTraceback\nValueError: too small\n")
    assert searcher.stopped == ""
    end(made, ledger, "t9", {"failure": "every weight was pruned"})
    assert searcher.stopped == f"{FEW + 1} of {2 * FEW + 1} trials failed, {FEW} of them with: ValueError: too small"
    assert ledger.trials["f0"]["reason"] == "ValueError: too small" and ledger.trials["t0"]["seconds"] == 3.0


def test_what_a_trial_reports_is_recorded_and_what_tune_adds_is_not(tmp_path: Path) -> None:
    """Epochs and the final row have a metric that no column declares, and nothing of Tune's; a searched value is not
    overwritten by what the trial says, and what says something of an epoch alone is not in the final row."""
    made, ledger, _ = recorder(tmp_path)
    ledger.start("t001", {"tau": 0.1})
    tune = {"training_iteration": 1, "time_total_s": 3.0, "date": "today", "spent": 3.0}
    epoch = {"epoch": 1, "phase": "cluster", "val_accuracy": 90.0, "sparsity": 50.0, "rounding_error": 0.25}
    last = {**epoch, "tau": 0.7, "entropy_bytes": 9.0, "rounding_error": 0.125}
    trial = SimpleNamespace(config={"trial_id": "t001"}, last_result={}, error_file="")
    made.on_trial_result(0, [], trial, {**epoch, **tune, "reported": ",".join(epoch)})
    trial.last_result = {**last, **tune, "reported": ",".join(last), "finished": True}
    made.on_trial_result(0, [], trial, trial.last_result)
    made.on_trial_complete(0, [], trial)
    assert ledger.history["t001"] == [{"trial_id": "t001", **epoch}]
    times = {name: ledger.trials["t001"].pop(name) for name in ("started", "ended")}
    assert times["started"] <= times["ended"]
    assert ledger.trials["t001"] == {
        "trial_id": "t001", "state": "complete", "reason": "", "baseline": "", "tau": 0.1, "seconds": 3.0, "epochs": 1,
        "val_accuracy": 90.0, "sparsity": 50.0, "rounding_error": 0.125,
    }  # fmt: skip


@pytest.mark.parametrize(("baseline", "reported", "state"), [
    ("uncompressed", {"val_accuracy": 90.0}, "complete"),
    ("uncompressed", {"sparsity": 0.0}, "failed"),
    ("paper mixture", {"val_accuracy": 90.0}, "failed"),
    ("", {"val_accuracy": 90.0}, "failed"),
    ("", {"val_accuracy": 90.0, "sparsity": 50.0}, "complete"),
])  # fmt: skip
def test_shared_work_needs_no_more_than_an_accuracy(
    baseline: str, reported: dict[str, float], state: str, tmp_path: Path
) -> None:
    """Every other trial, and every other baseline, has failed if it ends without one of the objectives; the reason
    names the one."""
    made, ledger, _ = recorder(tmp_path)
    ledger.start("t001", {}, baseline)
    result = {**reported, "finished": True, "reported": ",".join(reported)}
    made.on_trial_complete(0, [], SimpleNamespace(config={"trial_id": "t001"}, last_result=result, error_file=""))
    row = ledger.trials["t001"]
    assert row["state"] == state
    missing = [name for name in OBJECTIVES if name not in reported]
    assert (state == "complete") == (row["reason"] == "") and (state == "complete" or missing[0] in row["reason"])


def test_a_full_disk_stops_the_study_and_loses_no_trial(tmp_path: Path) -> None:
    """A trial that could not write runs again."""
    made, ledger, searcher = recorder(tmp_path)
    end(made, ledger, "t001", {}, "Failure # 1\nOSError: [Errno 28] No space left on device: 'x'\n")
    assert searcher.stopped == FULL_DISK and ledger.trials["t001"]["state"] == "running"


def test_a_table_that_cannot_be_written_stops_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for trials.csv: the ledger keeps what happened, and `flush` says so at the end."""
    made, ledger, _ = recorder(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("study.records.ledger.write_rows", full)
    end(made, ledger, "t001", GOOD)
    assert ledger.full and made.stopped == FULL_DISK and ledger.trials["t001"]["state"] == "complete"
    with pytest.raises(OSError, match="No space"):
        made.close()


def test_a_trial_that_cannot_reach_the_study_folder_has_not_failed(tmp_path: Path) -> None:
    """One that was made read-only, or a mount that was lost: the study stops, and the trial runs again."""
    made, ledger, searcher = recorder(tmp_path)
    reason = f"OSError: [Errno 30] Read-only file system: '{tmp_path}/checkpoints/.t001.pt.1.tmp'"
    end(made, ledger, "t001", {}, f"Failure # 1\n{reason}\n")
    assert searcher.stopped == reason and ledger.trials["t001"]["state"] == "running"


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    """A part of a study would be taken for one: the ledger writes nothing, and says what happened."""
    made, ledger, _ = recorder(tmp_path / "study")
    end(made, ledger, "t001", GOOD)
    ledger.anchor = tmp_path / "study" / "study.json"
    ledger.anchor.touch()
    made.close()
    shutil.rmtree(tmp_path / "study")
    with pytest.raises(FileNotFoundError, match="removed or moved while the study ran: .*study"):
        ledger.start("t002", {})
    with pytest.raises(FileNotFoundError):
        made.close()
    assert not list(tmp_path.iterdir())


def test_weights_of_dominated_trials_are_removed(tmp_path: Path) -> None:
    """Only the front's weights stay while the study runs."""
    from study.artifacts import checkpoints

    made, ledger, _ = recorder(tmp_path)
    paths = {}
    for trial_id, accuracy in (("t001", 90.0), ("t002", 95.0), ("t003", 80.0)):
        paths[trial_id] = checkpoints.weights_of(checkpoints.path_of(tmp_path, trial_id))
        paths[trial_id].parent.mkdir(exist_ok=True)
        paths[trial_id].touch()
        end(made, ledger, trial_id, {**GOOD, "val_accuracy": accuracy})
    assert [i for i, path in paths.items() if path.exists()] == ["t002"]


def test_the_display_counts_what_is_confirmed(tmp_path: Path) -> None:
    """While it confirms, it counts the trainings with fresh seeds, baselines among them; then the search's again."""
    made, ledger, _ = recorder(tmp_path)
    end(made, ledger, "t001", GOOD)
    own = Ledger(tmp_path / "confirm")
    own.folder.mkdir()
    for name in ("t001 seed 1", "uncompressed seed 1"):
        own.start(name, {}, "uncompressed")
        own.finish(name, "complete")
    with made.display.confirming(own, 4):
        assert (made.display._done(), made.display.wanted) == (2, 4)
    assert (made.display._done(), made.display.wanted) == (1, 9)


def test_numbers_of_numpy_are_reported_as_numbers() -> None:
    """They would make a checkpoint unreadable; what is no number, text or truth is refused by its name."""
    row = plain_values(
        {"epoch": np.int64(3), "val_accuracy": np.float32(50.0), "phase": "train", "good": np.bool_(True)}
    )
    assert row == {"epoch": 3, "val_accuracy": 50.0, "phase": "train", "good": True}
    assert [type(value) for value in row.values()] == [int, float, str, bool]
    with pytest.raises(TypeError, match="reported weights as ndarray"):
        plain_values({"weights": np.zeros(2)})

"""The ledger and the study folder: whole files, and a memory of what is owed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from study.errors import UserError
from study.records import columns, paths
from study.records.ledger import Ledger, epochs_reported, history_row
from study.records.study_folder import load, read_frame, write_meta, write_text
from study.records.tables import MISSING


def filled(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.start("t001", {"tau": 0.1})
    ledger.epoch("t001", {"epoch": 1, "phase": "cluster", "val_accuracy": 50.0})
    ledger.finish("t001", "complete", metrics={"val_accuracy": 51.0}, seconds=2.5)
    ledger.start("t002", {"tau": 0.2})
    ledger.epoch("t002", {"epoch": 1, "phase": "cluster", "val_accuracy": 40.0})
    return ledger


def test_a_ledger_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Finished rows come back whole; an unfinished one comes back as owed, without its epochs."""
    before, after = filled(tmp_path), Ledger.open(tmp_path)
    assert after.trials["t001"] == before.trials["t001"]
    assert [r["trial_id"] for r in after.of_state("running")] == ["t002"]
    assert list(after.history) == ["t001"]


def test_history_has_all_that_a_trial_reports_and_nothing_of_tunes() -> None:
    """A metric that no column declares is there; what Tune adds to a report, such as a date or its own count of
    iterations, is not, whatever it is called, and neither are the names themselves."""
    report = {
        "reported": "trial_id,epoch,phase,val_accuracy,rounding_error,spent_on_lunch",
        "trial_id": "7a3f_00001",  # Tune's
        "epoch": 3,
        "phase": "round",
        "val_accuracy": 91.5,
        "rounding_error": 0.25,
        "spent": 2.0,
        "seconds": 9.0,
        "training_iteration": 3,
        "time_total_s": 1.5,
        "date": "2025-01-01",
        "config/tau": 0.1,
    }
    assert "rounding_error" not in columns.COLUMNS and "seconds" in columns.COLUMNS
    row = {"epoch": 3, "phase": "round", "val_accuracy": 91.5, "rounding_error": 0.25}
    assert history_row(report) == row
    assert history_row({"failure": "the loss became nan", "spent": 1.0, "training_iteration": 3}) == {}


def test_a_metric_that_no_column_declares_is_in_every_table(tmp_path: Path) -> None:
    """It is written after those that are declared, and read back as the number it was."""
    ledger = filled(tmp_path)
    ledger.epoch("t002", {"epoch": 2, "phase": "cluster", "rounding_error": 0.1 + 0.2})
    ledger.finish("t002", "complete", metrics={"rounding_error": 1 / 3})
    ledger.flush()
    again = Ledger.open(tmp_path)
    assert again.trials["t002"]["rounding_error"] == 1 / 3
    assert [row.get("rounding_error") for row in again.history["t002"]] == [None, 0.1 + 0.2]
    assert (tmp_path / paths.HISTORY).read_text().splitlines()[0] == "trial_id,epoch,phase,val_accuracy,rounding_error"


def test_a_retried_trial_tells_its_epochs_anew(tmp_path: Path) -> None:
    """Epochs that a retry repeats replace the earlier ones, so none stands twice."""
    ledger = filled(tmp_path)
    for epoch in (2, 3, 2):
        ledger.epoch("t002", {"epoch": epoch, "phase": "cluster"})
    assert [r["epoch"] for r in ledger.history["t002"]] == [1, 2]


def test_a_reason_is_one_line(tmp_path: Path) -> None:
    """A failure's reason is stored on one line, and comes back as text beside empty reasons."""
    ledger = filled(tmp_path)
    ledger.finish("t002", "failed", "loss became\n nan")
    assert list(read_frame(tmp_path / paths.TRIALS, ()).reason) == ["", "loss became nan"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the old file is whole and nothing lies beside it."""
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, "{", '{"schema": 99}', "[]"])
def test_what_is_no_study_is_refused_in_one_line(content: str | None, tmp_path: Path) -> None:
    """A folder without, with a damaged, or with a newer study.json gives one line that names it."""
    if content is not None:
        (tmp_path / paths.STUDY).write_text(content)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_an_owed_trial_keeps_its_configuration(tmp_path: Path) -> None:
    """A row that was running comes back with its values; its history goes from disk when its next run is written."""
    ledger = filled(tmp_path)
    ledger.flush()
    again = Ledger.open(tmp_path)
    assert again.trials["t002"]["tau"] == 0.2 and again.trials["t002"]["state"] == "running"
    again.start("t002", {"tau": 0.2})
    again.epoch("t002", {"epoch": 1, "phase": "cluster", "val_accuracy": 45.0})
    again.finish("t002", "pruned")
    history = read_frame(tmp_path / paths.HISTORY, columns.HISTORY_COLUMNS)
    assert list(history[history.trial_id == "t002"].val_accuracy) == [45.0]
    assert again.count("complete") == again.count("pruned") == 1 and again.trials["t002"]["epochs"] == 1


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    """A cut-off trial has its very configuration after a restart, so that it goes on from its checkpoint."""
    values = np.random.default_rng(0).uniform(1.0, 20.0, 100).tolist()
    ledger = Ledger(tmp_path)
    for i, value in enumerate(values):
        ledger.start(f"t{i:03d}", {"tau": value})
    assert [row["tau"] for row in Ledger.open(tmp_path).trials.values()] == values


@pytest.mark.parametrize(
    ("version", "told"),
    [("2.2.0", True), ("2.3.3", True), ("3.0.6", True), ("3.1.0rc0", False), ("3.1.1", False), ("4.0.0", False)],
)
def test_pandas_is_told_to_be_exact(version: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pandas that reads numbers fast unless told is told, and one in which telling it is deprecated is not."""
    filled(tmp_path)
    read, given = pd.read_csv, {}
    monkeypatch.setattr(pd, "__version__", version)
    monkeypatch.setattr(pd, "read_csv", lambda path, *, dtype, **rest: given.update(rest) or read(path, dtype=dtype))
    Ledger.open(tmp_path)
    assert given.pop("keep_default_na") is given.pop("low_memory") is False and given.pop("na_values") == MISSING
    assert given == ({"float_precision": "round_trip"} if told else {})


def test_baselines_are_told_apart(tmp_path: Path) -> None:
    """A baseline is counted with baselines alone, and columns that it lacks stay absent."""
    ledger = filled(tmp_path)
    ledger.start("paper", {}, "paper")
    ledger.finish("paper", "complete", metrics={"val_accuracy": 60.0})
    again = Ledger.open(tmp_path)
    assert again.count("complete") == 1
    (baseline,) = again.of_state("complete", baseline=True)
    assert baseline["trial_id"] == "paper" and "tau" not in baseline


def study_folder(folder: Path) -> Path:
    write_meta(folder, {"kind": "sws", "seed": 0, "objectives": {"val_accuracy": "max"}, "space": {"tau": {}}})
    return folder


def test_a_study_without_tables_is_an_empty_one(tmp_path: Path) -> None:
    """Before its first trial a study has its columns and no rows."""
    study = load(study_folder(tmp_path))
    assert study.trials.empty and list(study.trials.columns) == list(columns.TRIAL_COLUMNS)
    assert study.objectives == {"val_accuracy": "max"} and study.hyperparameters == ["tau"]


def test_a_slip_of_a_hand_is_refused_by_its_name(tmp_path: Path) -> None:
    """A doubled row, an accuracy that is no percentage, text in place of a score, numbers of epochs and seeds that are
    none, and an id that no search gives give one line with the file and the trial."""
    study_folder(tmp_path)
    head, tested = "trial_id,state,reason,baseline,seconds,epochs,val_accuracy", "trial_id,baseline,seed,test_accuracy"
    rows = "trial_id,epoch,phase,val_accuracy"
    for table, lines in (
        (paths.TRIALS, [head, *["t2,complete,,,1,1,91"] * 2]),
        (paths.TRIALS, [head, "t1,complete,,,1,1,90", "t2,complete,,,1,1,103"]),
        (paths.TRIALS, [head, "t2,complete,,,1,1,-inf"]),
        (paths.TRIALS, [head, "t1,complete,,,1,1,90", "t2,complete,,,1,1,n/a%"]),
        (paths.TRIALS, [head, "t2,complete,,,1,-1,90"]),
        (paths.TRIALS, [head, "t2,complete,,,1,1.5,90"]),
        (paths.TRIALS, [head, "t2,complete,,,inf,1,90"]),
        (paths.TRIALS, [head, "t2,complete,,,1,,90"]),
        (paths.TRIALS, [head, "'t2',complete,,,1,1,90"]),
        (paths.HISTORY, [rows, "t2,1,train,90", "t2,1,train,91"]),
        (paths.HISTORY, [rows, "t2,-1,train,90"]),
        (paths.HISTORY, [rows, "t2,1,train,True"]),
        (paths.CONFIRMED, [tested, "t1,,0,90", "t2,,0,101.5"]),
        (paths.CONFIRMED, [tested, "t2,,inf,90"]),
        (paths.CONFIRMED, [tested, "t2,,0,90", "t2,,0,90"]),
    ):
        (tmp_path / table).write_text("\n".join([*lines, ""]))
        with pytest.raises(UserError, match=r"\A[^\n]*'t2'[^\n]*\Z") as refused:
            load(tmp_path)
        assert str(tmp_path / table) in str(refused.value)
        (tmp_path / table).unlink()


@pytest.mark.parametrize("table", [paths.TRIALS, paths.HISTORY, paths.CONFIRMED])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'"', (b"trial_id\na\na,b\n")])
def test_a_damaged_table_is_refused_in_one_line(content: bytes, table: str, tmp_path: Path) -> None:
    """Empty, foreign, binary or ragged, a table gives one line that names its file."""
    (study_folder(tmp_path) / table).write_bytes(content)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    assert str(tmp_path / table) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda text: text.replace("t002,complete", "t002;complete"), "has 16 cells, and the head 17"),
        (lambda text: text.replace("t002,complete", "t002,done"), "trial 't002' has the state 'done'"),
    ],
)
def test_a_damaged_row_is_refused(cut: Any, said: str, tmp_path: Path) -> None:
    """A row without a state that there is, by reading and by the command that would go on."""
    folder = synthetic.write_sws(tmp_path / "sws", epochs=2)
    text = (folder / paths.TRIALS).read_text()
    assert text != cut(text)
    (folder / paths.TRIALS).write_text(cut(text))
    for read in (load, Ledger.open):
        with pytest.raises(UserError, match=f"trials.csv: damaged .*{said}"):
            read(folder)


def test_a_lost_table_is_not_begun_anew(tmp_path: Path) -> None:
    """Other trials would get the ids of those whose epochs, weights and test results are there still."""
    folder = synthetic.write_sws(tmp_path / "sws", epochs=2)
    (folder / paths.TRIALS).unlink()
    with pytest.raises(UserError, match="trials.csv: missing, though history.csv is there"):
        Ledger.open(folder)


def test_a_searched_number_of_epochs_stays_what_was_searched(tmp_path: Path) -> None:
    """Where `epochs` is a hyperparameter the count of those reported has a name of its own, then and after reading."""
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"epochs": 30, "tau": 0.1})
    for epoch in (1, 2, 3):
        ledger.epoch("t001", {"epoch": epoch, "phase": "train", "val_accuracy": 50.0})
    ledger.finish("t001", "pruned", metrics={"val_accuracy": 50.0, "seconds": 1e9, "state": "running"}, seconds=2.0)
    ledger.start("t002", {"tau": 0.2})
    ledger.finish("t002", "complete")
    ledger.flush()
    first, second = Ledger.open(tmp_path).trials.values()
    assert first["epochs"] == 30 and epochs_reported(first) == 3 and epochs_reported(second) == 0
    assert first["state"] == "pruned" and first["seconds"] == 2.0  # a trial's own report does not replace these


@pytest.mark.parametrize("word", ["None", "NA", "null"])
def test_words_that_mean_nothing_elsewhere_are_values(tmp_path: Path, word: str) -> None:
    """A choice among words may have one that pandas takes for a missing cell."""
    write_text(tmp_path / "trials.csv", f"trial_id,state,augment\nt001,complete,{word}\nt002,complete,\n")
    frame = read_frame(tmp_path / "trials.csv", ["trial_id", "state"])
    assert frame["augment"].tolist()[0] == word and pd.isna(frame["augment"]).tolist() == [False, True]


def test_a_newer_study_may_search_what_an_older_one_called_otherwise(tmp_path: Path) -> None:
    """`kept` is renamed in tables of schema 1 and of no study that searches something of that name itself."""
    table = "trial_id,state,kept\nt001,complete,0.5\n"
    for schema, name in ((1, "density"), (2, "kept")):
        meta = {"schema": schema, "kind": "mine", "space": {"kept": {}}, "objectives": {}}
        write_text(tmp_path / "study.json", json.dumps(meta))
        write_text(tmp_path / "trials.csv", table)
        assert name in read_frame(tmp_path / "trials.csv", ["trial_id", "state"])

"""Tables that were cut or come from strangers: what is wrong is one line, and no name in them leaves the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic

from study.artifacts import checkpoints
from study.errors import UserError
from study.records import paths
from study.records.ledger import Ledger
from study.records.study_folder import load, read_frame

Change = Callable[[bytes], bytes]


def line(number: int, change: Change) -> Change:
    """A change of one line alone."""

    def changed(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join([*lines[:number], change(lines[number]), *lines[number + 1 :]])

    return changed


CUT: dict[str, Change] = {
    "in the last line": lambda content: content[:-1],
    "in the last cell": lambda content: content[:-3],
    "between two cells": lambda content: content[: content.rindex(b",")] + b"\n",
    "a NUL": lambda content: (
        content.replace(b"complete", b"comp\0ete", 1) if b"complete" in content else content + b"\0\n"
    ),
    "not UTF-8": lambda content: content[:-1] + b"\xff\n",
    "a column twice": line(0, lambda head: head.replace(b"val_loss", b"val_accuracy").replace(b"baseline", b"seed")),
    "a column without a name": line(0, lambda head: head.replace(b"val_accuracy", b"")),
    "a cell more": line(2, lambda row: row.replace(b"\n", b",1\n")),
    "a cell more in every row": lambda content: b"".join(
        row if i == 0 else row.replace(b"\n", b",1\n") for i, row in enumerate(content.splitlines(keepends=True))
    ),
    "an open quote": line(2, lambda row: row.replace(b",", b',"', 1)),
}


@pytest.mark.parametrize("table", [paths.TRIALS, paths.HISTORY, paths.CONFIRMED])
@pytest.mark.parametrize("case", CUT)
def test_a_table_that_was_cut_is_refused(case: str, table: str, tmp_path: Path) -> None:
    """One line has the file; the file stays as it is."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    content = (folder / table).read_bytes()
    changed = CUT[case](content)
    assert changed != content
    (folder / table).write_bytes(changed)
    for read in (load, Ledger.open):
        with pytest.raises(UserError) as refused:
            read(folder)
        assert str(refused.value).startswith(f"{folder / table}: damaged (") and str(refused.value).isprintable()
    assert (folder / table).read_bytes() == changed


@pytest.mark.parametrize("change", [lambda c: c.replace(b"\n", b"\r\n"), lambda c: b"\xef\xbb\xbf" + c])
def test_line_ends_and_a_mark_of_another_system_are_read(change: Change, tmp_path: Path) -> None:
    """A table that an editor has saved with them has lost nothing."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    before = load(folder)
    for table in (paths.TRIALS, paths.HISTORY, paths.CONFIRMED):
        (folder / table).write_bytes(change((folder / table).read_bytes()))
    after = load(folder)
    assert after.trials.equals(before.trials) and after.history.equals(before.history)
    assert after.confirmed.equals(before.confirmed)


HOSTILE = [
    "/home/me/victim",
    "../../victim",
    "..",
    ".",
    ".hidden",
    "t\x1b[31m",
    "t²",
    "t" + "9" * 400,
    "a\\b",
    "victim",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_an_id_that_no_study_gives_is_refused(name: str, tmp_path: Path) -> None:
    """It would become a path, by which files are removed; a baseline's name likewise."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    text = (folder / paths.TRIALS).read_text()
    other = [text.replace("t003,", f"{name},")]
    if name not in ("victim", "t²"):  # a baseline may be called so
        other.append(text.replace("uncompressed", name))
    for changed in other:
        assert changed != text
        (folder / paths.TRIALS).write_text(changed)
        for read in (load, Ledger.open):
            with pytest.raises(UserError, match="trials.csv: ") as refused:
                read(folder)
            assert str(refused.value).isprintable()


def test_no_path_leads_out_of_the_study(tmp_path: Path) -> None:
    """Whoever asks for the file of such a trial is refused, and nothing is removed."""
    victim = tmp_path / "victim.pt"
    victim.touch()
    for name in (str(tmp_path / "victim"), "../../victim", "..", "", "a" * 300, "\0"):
        for ask in (paths.trace_of, paths.model_of, checkpoints.path_of, checkpoints.delete_checkpoint):
            with pytest.raises(UserError):
                ask(tmp_path / "study", name)
    assert victim.exists()


def test_a_folder_of_a_study_is_no_link(tmp_path: Path) -> None:
    """What is removed from a study's folder would be removed from where the link leads."""
    (tmp_path / "study").mkdir()
    paths.check_folders(tmp_path / "study")
    (tmp_path / "study" / paths.CHECKPOINTS).symlink_to(tmp_path)
    with pytest.raises(UserError, match="checkpoints: is a link"):
        paths.check_folders(tmp_path / "study")


def test_a_reason_loses_what_a_terminal_would_obey(tmp_path: Path) -> None:
    """Errors may have colours; what is read of them is written out."""
    (tmp_path / "t.csv").write_text("trial_id,state,reason,baseline\nt001,failed,\x1b[31mbad\x1b[0m,\n")
    assert read_frame(tmp_path / "t.csv", ())["reason"].tolist() == [r"\x1b[31mbad\x1b[0m"]


def test_a_searched_value_is_one_that_was_searched(tmp_path: Path) -> None:
    """One outside of its range, or that is no whole number, is refused; a baseline's may be anything."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    good = read_frame(folder / paths.TRIALS, ())
    for name, value in (("tau", 5.0), ("tau", float("inf")), ("components", 4.5), ("components", 999)):
        frame = good.astype({name: float})
        frame.loc[frame["trial_id"] == "t003", name] = value
        frame.to_csv(folder / paths.TRIALS, index=False)
        with pytest.raises(UserError, match=f"{name} .* of trial 't003' is not what the study searched"):
            load(folder)
    frame = good.copy()
    frame.loc[frame["baseline"] == "uncompressed", "tau"] = 77.0
    frame.to_csv(folder / paths.TRIALS, index=False)
    assert load(folder).trials["tau"].max() == 77.0


def test_a_hyperparameter_may_be_a_word(tmp_path: Path) -> None:
    """A distillation loss by its name, in a table of trials and in one of fresh seeds, is read; others are not."""
    table = tmp_path / paths.CONFIRMED
    table.write_text("trial_id,baseline,seed,loss,alpha\nalone,alone,0,,0.0\nt001,,0,dist,0.5\n")
    assert read_frame(table, ())["loss"].tolist()[1] == "dist"
    table.write_text("trial_id,baseline,seed,loss,alpha\nt001,,0,dist,much\n")
    with pytest.raises(UserError, match="alpha 'much' of trial 't001' is not a number"):
        read_frame(table, ())

"""The log between two writings of `trials.csv`: nothing is lost, and every reader sees all rows."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.page import live
from study.errors import UserError
from study.records import ledger as ledger_module
from study.records import paths, snapshot, trial_log
from study.records.ledger import Ledger
from study.records.study_folder import load, read_frame, write_meta
from study.records.trial_log import merged


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(ledger_module, "time", stopped)
    return stopped


def end(ledger: Ledger, trial_id: str, **metrics: float) -> None:
    ledger.start(trial_id, {"tau": 0.1})
    ledger.finish(trial_id, "complete", metrics=metrics or {"val_accuracy": 90.0})


def states(folder: Path) -> dict[str, str]:
    frame = read_frame(folder / paths.TRIALS, ())
    return dict(zip(frame["trial_id"], frame["state"], strict=True))


def log_of(folder: Path) -> Path:
    return folder / paths.TRIAL_LOG


def test_every_reader_sees_the_rows_of_the_log(tmp_path: Path, clock: Clock) -> None:
    """Rows that only the log has are read as if the table had them: new trials, new states, new columns, numbers to the
    last bit, reasons with commas and quotes."""
    ledger = Ledger(tmp_path)
    end(ledger, "t001", val_accuracy=1 / 3)
    ledger.start("t002", {"tau": 0.1 + 0.2})
    ledger.finish("t002", "failed", 'ValueError: "a", b\nc')
    end(ledger, "t003", rounding_error=1e-17)
    ledger.start("t004", {"tau": 0.4})
    assert (tmp_path / paths.TRIALS).read_text().count("\n") == 2 and log_of(tmp_path).exists()
    before, opened = read_frame(tmp_path / paths.TRIALS, ()), Ledger.open(tmp_path).trials
    assert opened["t002"] == ledger.trials["t002"] and opened["t002"]["tau"] == 0.1 + 0.2
    ledger.flush()
    after = read_frame(tmp_path / paths.TRIALS, ())
    assert set(before) == set(after) and before.equals(after[before.columns])
    assert Ledger.open(tmp_path).trials == opened


def test_the_log_is_gone_after_a_flush_and_at_a_pause(tmp_path: Path, clock: Clock) -> None:
    """`trials.csv` is then complete by itself."""
    for write in (Ledger.flush, Ledger.pause):
        folder = tmp_path / write.__name__
        ledger = Ledger(folder)
        for number in range(1, 4):
            end(ledger, f"t{number:03d}")
        assert log_of(folder).exists()
        write(ledger)
        assert not log_of(folder).exists()
        text = (folder / paths.TRIALS).read_text()
        assert text.count("complete") == 3 and "running" not in text
        Ledger.open(folder).pause()  # where nothing waits, nothing is written
        assert (folder / paths.TRIALS).read_text() == text


def test_a_trial_writes_as_many_bytes_as_any_other(tmp_path: Path, clock: Clock) -> None:
    """Trials 1 to 100 and 901 to 1,000 write the same, and the table stays as it is meanwhile."""
    ledger = Ledger(tmp_path)
    ledger.start("t1000", {"tau": 0.1})
    table = (tmp_path / paths.TRIALS).stat()
    sizes = [0]
    for number in range(1001, 2001):
        end(ledger, f"t{number}")
        sizes.append(log_of(tmp_path).stat().st_size)
    assert sizes[100] - sizes[0] == sizes[1000] - sizes[900] < 100 * 500
    assert (tmp_path / paths.TRIALS).stat() == table


def test_the_table_takes_a_fortieth_of_the_time(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its writing takes: here two seconds. Where trials are slow, each writes it."""
    write_rows, spent = ledger_module.write_rows, []

    def slow(*arguments: Any, **named: Any) -> None:
        clock.now += 2.0
        spent.append(2.0)
        write_rows(*arguments, **named)

    monkeypatch.setattr(ledger_module, "write_rows", slow)
    ledger, start = Ledger(tmp_path), clock.now
    for number in range(1, 501):
        clock.now += 1.0
        end(ledger, f"t{number:03d}")
    assert 0.02 < sum(spent) / (clock.now - start) <= 0.028
    for number in range(501, 505):
        clock.now += 100.0
        end(ledger, f"t{number:03d}")
        assert states(tmp_path)[f"t{number:03d}"] == "complete"
    clock.now += 100.0
    ledger.epoch("t504", {"epoch": 1, "phase": "train"})
    assert not log_of(tmp_path).exists(), "an epoch is time enough, too"


def test_a_kill_at_any_moment_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process says to have recorded is there after a kill -9, whether it appends or writes the table, and the
    next command goes on from there."""
    monkeypatch.setattr(ledger_module, "SHORTEST", 0.002)
    monkeypatch.setattr(ledger_module, "SHARE", 0)
    generator = random.Random(0)
    tables = 0
    for life in range(12):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                ledger = Ledger.open(tmp_path)
                while True:
                    trial_id = ledger.new_id()
                    end(ledger, trial_id)
                    os.write(writer, f"{trial_id}\n".encode())
            finally:
                os._exit(1)
        os.close(writer)
        time.sleep(generator.uniform(0.1, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        recorded = os.fdopen(reader).read().split("\n")[:-1]
        now = states(tmp_path)
        assert all(now[trial_id] == "complete" for trial_id in recorded), life
        assert Ledger.open(tmp_path).trials.keys() == now.keys()
        tables += log_of(tmp_path).exists()
    assert len(now) > 12 and tables, "no kill left a log"


def test_a_kill_between_the_table_and_the_end_of_its_log_changes_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is still there and the table has its rows. A trial that has gone on since is not set back by it."""
    ledger = Ledger(tmp_path)
    end(ledger, "t001")
    ledger.start("t002", {"tau": 0.2})
    killed = tmp_path.with_name("killed")

    def die(folder: Path) -> None:
        shutil.copytree(folder, killed)

    with monkeypatch.context() as changed:
        changed.setattr(ledger_module, "remove_log", die)
        ledger.flush()
    assert log_of(killed).exists()
    assert states(killed) == {"t001": "complete", "t002": "running"}
    again = Ledger.open(killed)
    again.finish("t002", "complete", metrics={"val_accuracy": 1.0})
    assert states(killed) == {"t001": "complete", "t002": "complete"} and not log_of(killed).exists()


def test_a_last_line_that_is_cut_has_not_happened(tmp_path: Path, clock: Clock) -> None:
    """Wherever a kill cuts it; what came before counts, and the next command writes no line behind half a one."""
    ledger = Ledger(tmp_path)
    end(ledger, "t001")
    ledger.start("t002", {"tau": 0.2})
    content = log_of(tmp_path).read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(last, len(content)):
        log_of(tmp_path).write_bytes(content[:cut])
        assert states(tmp_path) == {"t001": "complete"}
    again = Ledger.open(tmp_path)
    again.start("t003", {"tau": 0.3})
    again.start("t004", {"tau": 0.3})
    assert states(tmp_path) == {"t001": "complete", "t003": "running", "t004": "running"}
    assert [json.loads(line)["trial_id"] for line in log_of(tmp_path).read_text().splitlines()] == ["t004"]


@pytest.mark.parametrize(
    "line", [b"x", b"[]", b"{}", b'{"trial_id":1}', b"", b"\0\0", b'{"trial_id":"t001"', b"[" * 9999]
)
def test_a_damaged_line_is_refused(line: bytes, tmp_path: Path, clock: Clock) -> None:
    """In one line that names the log, by readers and by the command that would go on."""
    write_meta(tmp_path, {"kind": "sws", "seed": 0, "objectives": {"val_accuracy": "max"}, "space": {"tau": {}}})
    ledger = Ledger(tmp_path)
    end(ledger, "t001")
    end(ledger, "t002")
    content = log_of(tmp_path).read_bytes()
    log_of(tmp_path).write_bytes(line + b"\n" + content)
    for read in (load, Ledger.open):
        with pytest.raises(UserError, match=r"trials.log: damaged \(line 1 is no row of a trial\); restore it from a"):
            read(tmp_path)


def test_a_log_hides_no_damage_of_its_table(tmp_path: Path, clock: Clock) -> None:
    """Doubled rows, lines of another length and a cut end are refused as without a log; so are values in the log that
    no row of a table may have, and a table that is gone."""
    folder = synthetic.write_bare(tmp_path / "sws", "sws", "failed", trials=3)
    ledger = Ledger.open(folder)
    ledger.flush()
    ledger.start("t007", {name: ledger.trials["t001"][name] for name in load(folder).hyperparameters})
    assert log_of(folder).exists() and "t007" in states(folder)
    good = (folder / paths.TRIALS).read_text()
    rows = good.splitlines(keepends=True)
    for damaged, reason in (
        (good + rows[1], "has two rows"),
        (good.replace("t001", "t001,"), "cells, and the head"),
        (good[:-1], "its last line is cut"),
        ("", "it is empty"),
        (good.replace("t002", "t00\0"), "no text"),
    ):
        (folder / paths.TRIALS).write_text(damaged)
        with pytest.raises(UserError, match=rf"trials.csv: .*{reason}"):
            load(folder)
    (folder / paths.TRIALS).write_text(good)
    row = json.loads(log_of(folder).read_text())
    for cell, reason in (({"state": "done"}, "has the state 'done'"), ({"trial_id": "../t"}, "a name has no")):
        log_of(folder).write_text(json.dumps(row | cell) + "\n")
        with pytest.raises(UserError, match=reason):
            load(folder)
    log_of(folder).write_text(json.dumps(row) + "\n")
    (folder / paths.TRIALS).unlink()
    for read in (load, Ledger.open):
        with pytest.raises(UserError, match=r"trials.csv: missing, though (trials.log|history.csv) is there"):
            read(folder)


def test_a_reader_that_a_writer_overtakes_reads_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is replaced and the log removed between the two looks of a reader, or before the first: it sees all
    rows, none in an older state."""
    content_of, races = trial_log._content_of, []

    def overtaken(log: Path, before: bool) -> bytes | None:
        if len(races) < 3:
            races.append(log)
            if before:
                ledger.flush()
            content = content_of(log)
            end(ledger, f"t{len(races) + 2:03d}")
            ledger.flush()
            return content
        return content_of(log)

    for before in (False, True):
        ledger = Ledger(tmp_path / str(before))
        end(ledger, "t001")
        end(ledger, "t002")
        races.clear()
        monkeypatch.setattr(trial_log, "_content_of", lambda log, before=before: overtaken(log, before))
        assert states(ledger.folder) == {f"t{n:03d}": "complete" for n in range(1, 6)} and len(races) == 3


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line that found room is taken back, the ledger says that it is full, and `flush` writes all once there is
    room again."""
    ledger = Ledger(tmp_path)
    end(ledger, "t001")
    before, write = log_of(tmp_path).read_bytes(), os.write

    def nearly_full(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as changed:
        changed.setattr(os, "write", nearly_full)
        ledger.start("t002", {"tau": 0.2})
    assert ledger.full and log_of(tmp_path).read_bytes() == before
    ledger.flush()
    assert states(tmp_path) == {"t001": "complete", "t002": "running"}


def test_a_removed_folder_is_not_made_again(tmp_path: Path, clock: Clock) -> None:
    """By neither writing: the study says that it was removed."""
    folder = tmp_path / "study"
    write_meta(folder, {"kind": "sws", "seed": 0, "objectives": {"val_accuracy": "max"}, "space": {"tau": {}}})
    ledger = Ledger.open(folder)
    ledger.anchor = folder / paths.STUDY
    end(ledger, "t001")
    shutil.rmtree(folder)
    for seconds in (0.0, 60.0):
        clock.now += seconds
        with pytest.raises(FileNotFoundError, match="removed or moved while the study ran"):
            ledger.start("t002", {"tau": 0.2})
    ledger.pause()
    assert not folder.exists()


def test_a_snapshot_has_the_table_with_its_log(tmp_path: Path, clock: Clock) -> None:
    """A bucket gets one table with all rows, and no log. An added row changes its stamp, as another table does."""
    folder, staging = tmp_path / "study", tmp_path / "staging"
    staging.mkdir()
    write_meta(folder, {"kind": "sws", "seed": 0, "objectives": {"val_accuracy": "max"}, "space": {"tau": {}}})
    ledger, fresh = Ledger.open(folder), Ledger(folder / paths.CONFIRM)
    stamps: set[snapshot.Stamp] = set()
    for number in range(1, 4):
        end(ledger, f"t{number:03d}")
        end(fresh, f"t{number:03d} seed 1")
        shot = snapshot.take(folder, {}, staging)
        assert shot.files.keys() == {paths.STUDY, paths.TRIALS, f"{paths.CONFIRM}/{paths.TRIALS}"}
        for name in snapshot.LEDGERS:
            assert set(snapshot.states_of(shot.files[name].read_bytes()).values()) == {"complete"}
            assert len(snapshot.states_of(shot.files[name].read_bytes())) == number
        assert snapshot.take(folder, shot.stamps, staging).files == {}
        stamps.add(shot.stamps[paths.TRIALS])
        for path in staging.iterdir():
            path.unlink()
    ledger.flush()
    assert len({*stamps, snapshot.scan(folder)[paths.TRIALS]}) == 4


def test_a_live_page_sees_the_log(tmp_path: Path, clock: Clock) -> None:
    """A row that only the log has is a change."""
    ledger = Ledger(tmp_path)
    end(ledger, "t001")
    before = live.stamps(tmp_path)
    ledger.start("t002", {"tau": 0.2})
    assert live.stamps(tmp_path) != before


def test_a_table_merged_by_hand() -> None:
    """Changed rows keep their place, new ones follow, new columns come last; a quoted line end harms nothing, and a
    damaged table comes back as it was."""
    table = b'trial_id,state,x\nt001,running,1\nt002,failed,"a\nb"\n\n'
    rows = {"t001": {"trial_id": "t001", "state": "complete", "y": "2"}, "t003": {"trial_id": "t003", "x": "a,b"}}
    assert merged(table, rows) == b'trial_id,state,x,y\nt001,complete,,2\nt002,failed,"a\nb",\nt003,,"a,b",\n'
    for damaged in (b"", b"x\n1\n", b"trial_id,x\nt001\n", b"trial_id,x\nt001,1", b'trial_id,x\nt001,"1\n'):
        assert merged(damaged, rows) == damaged

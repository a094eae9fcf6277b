"""One command at a time on a study folder, whatever its file system knows of locks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest

from study.errors import UserError
from study.records.folder_lock import HOLDER, LOCK, locked


def unknown(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("kinds", [(), ("flock",), ("flock", "lockf")])
def test_a_second_command_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]) -> None:
    """With both kinds of locks, with one, and with none; afterwards the folder is free again."""
    for kind in kinds:
        monkeypatch.setattr(fcntl, kind, unknown)
    folder = tmp_path / "study"
    with locked(folder):
        (folder / "trials.csv").touch()
        child = os.fork()  # locks of the second kind are a process's
        if not child:
            try:
                with locked(folder):
                    os._exit(0)
            except UserError as error:
                os._exit(2 if "another command" in str(error) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    with locked(folder):
        pass
    assert not (folder / HOLDER).exists()


def test_a_command_that_was_killed_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, a process of this machine that is no more is passed over; one of another machine is not."""
    monkeypatch.setattr(fcntl, "flock", unknown)
    monkeypatch.setattr(fcntl, "lockf", unknown)
    (tmp_path / HOLDER).write_text(f"{socket.gethostname()} 4194305")  # above the largest process number
    with locked(tmp_path):
        assert (tmp_path / HOLDER).read_text() == f"{socket.gethostname()} {os.getpid()}"
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / HOLDER).write_text("elsewhere 1")
    with pytest.raises(UserError, match=f"delete {tmp_path / HOLDER}"), locked(tmp_path):
        pass


def test_nothing_is_left_of_bad_input(tmp_path: Path) -> None:
    """A folder in which nothing was written goes again; one that was removed meanwhile is no error."""
    with pytest.raises(UserError, match="bad"), locked(tmp_path / "study"):
        raise UserError("bad")
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "study"):
        shutil.rmtree(tmp_path / "study")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """As where a file is in its place."""
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match=f"--results-dir {tmp_path}/results: cannot be written"):
        with locked(tmp_path / "results" / "study"):
            pass
    assert LOCK not in os.listdir(tmp_path)

"""Files that commands write: complete or not at all, through what is no regular file, and harmless to open."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path

import pandas as pd
import pytest

from study.errors import UserError, printable
from study.records.atomic_files import write_bytes
from study.records.outputs import csv_text, is_stdout, json_text, make_folder, write_output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_regular_file_is_replaced_and_a_new_one_made(tmp_path: Path) -> None:
    """Whoever has the old file open still reads it complete; nothing else is left in the folder."""
    path = tmp_path / "new" / "file"
    write_bytes(path, b"old")
    with path.open("rb") as reader:
        write_bytes(path, b"newer")
        assert reader.read() == b"old" and path.read_bytes() == b"newer"
    assert names(path.parent) == ["file"]


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    """The link stays, also one in a row of links, and one to a file that is not there yet."""
    folder = tmp_path / "there"
    folder.mkdir()
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    for data in (b"1", b"2"):
        write_bytes(tmp_path / "second", data)
        assert (folder / "file").read_bytes() == data
    assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
    assert names(tmp_path) == ["link", "second", "there"] and names(folder) == ["file"]


def test_a_fifo_is_written_through(tmp_path: Path) -> None:
    """Its reader gets the bytes, and it is still a FIFO; the same through a link."""
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to(fifo)
    for path in (fifo, tmp_path / "link"):
        reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
        reader.start()
        write_bytes(path, b"through")
        reader.join(5)
    assert read == [b"through"] * 2 and stat.S_ISFIFO(fifo.stat().st_mode) and names(tmp_path) == ["fifo", "link"]


def test_a_device_is_written_through(tmp_path: Path) -> None:
    """One of our own, so that a mistake does not replace the machine's."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.open("wb").close()
    except OSError:
        pytest.skip("a device cannot be made here")
    write_bytes(device, b"gone")
    assert stat.S_ISCHR(device.stat().st_mode) and names(tmp_path) == ["null"]


def test_an_open_file_is_continued(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """/dev/stdout and /dev/fd/N are this process's open files: what was written there before stays."""
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as file:
        file.write(b"before ")
        write_bytes(Path(f"/dev/fd/{file.fileno()}"), b"then ")
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        write_bytes(tmp_path / "link", b"last")
    assert log.read_bytes() == b"before then last" and names(tmp_path) == ["link", "log"]
    print("printed")
    write_bytes(Path("/dev/stdout"), b"written\n")
    assert capfd.readouterr().out == "printed\nwritten\n"
    assert is_stdout("-") and is_stdout("/dev/stdout") and is_stdout(Path("/dev/fd/1")) and not is_stdout("out.csv")


def test_what_cannot_be_written_is_one_line_with_its_flag(tmp_path: Path) -> None:
    """A folder, a file where a folder must be, a socket, a link to itself, a full disk; nothing is left behind."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (*(tmp_path / name for name in ("folder", "file/x", "socket", "loop", "x" * 300)), "/dev/full"):
            with pytest.raises(UserError, match=r"\A--out [^\n]* cannot be written \([^\n]*\Z"):
                write_output("--out", path, "text")
    with pytest.raises(UserError, match=r"--png .*cannot be made"):
        make_folder("--png", tmp_path / "file")
    assert names(tmp_path) == ["file", "folder", "loop", "socket"] and (tmp_path / "file").read_text() == "kept"
    write_output("--out", tmp_path / ("y" * 250), "a long name")


def test_cells_that_a_spreadsheet_would_run_are_made_harmless() -> None:
    """OWASP's list, in words and in headings; numbers stay, also those that are written as words."""
    bad = ["=1+1", "+cmd", "-cmd|x", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-2+3"]
    good = ["-2.5", "+1e-3", "3", "plain", "a=b", "", "-5%"]
    frame = pd.DataFrame({"=x": bad + good, "n": [-1.5] * len(bad + good)})
    lines = csv_text(frame).splitlines()
    assert lines[0] == "'=x,n" and all(line.startswith("'") for line in lines[1 : len(bad) + 1])
    assert lines[len(bad) + 1 :] == [f"{word},-1.5" for word in good]


def test_json_has_no_constants_of_its_own() -> None:
    """What is not finite is null, at any depth, and all of it is ASCII."""
    text = json_text({"a": [float("nan"), {"b": float("inf")}, (1.5, -float("inf"))], "c": "é\x1b\x9b"})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, {"b": None}, [1.5, None]], "c": "é\x1b\x9b"}
    assert text.isascii() and "\x1b" not in text


def test_nothing_printed_moves_the_terminal() -> None:
    """Escapes, titles, bells, line ends, marks that turn the writing and lone surrogates are written out."""
    assert printable("plain 8×8 é \u00a0") == "plain 8×8 é \u00a0"
    assert printable("\x1b[31m\x07\n\u202e\x9b\ud800\u2028\x7f") == r"\x1b[31m\x07\n\u202e\x9b\ud800\u2028\x7f"

"""Writing files so that a reader, or a crash at any instant, sees either the old one or the new one, complete.

What is no regular file (a device, a FIFO, standard output) is never replaced: it is written through.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_LONGEST_NAME = 200  # bytes of a file's name that its temporary one has as well; file systems allow 255 in all
_LINKS = 40  # that follow one another, as in Linux
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


_TEMPORARY = re.compile(r"\..+\.([1-9][0-9]*)\.tmp")
"""Names that `atomic_replacement` gives."""


@contextlib.contextmanager
def atomic_replacement(path: Path) -> Iterator[Path]:
    """A path in the same folder, which then exists, to write to; at the end it is renamed over `path`, or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:  # a machine that loses power must not rename what it has not written
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, older_than: float = 0.0) -> None:
    """Remove what processes that are gone were writing when they died: half a file each, of no use to anyone.

    Args:
        older_than: seconds since it was last written; where others write too, a process of another machine, that
            counts as gone here, may still be writing.
    """
    for path in folder.rglob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # somebody else removed it
            if match and not _is_alive(int(match[1])) and time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file: a regular or a new one is replaced at once, and of a link what it points to; anything else is
    opened and written through.

    Raises:
        OSError: a folder, a file that may not be written, a disk that is full.
    """
    path = _final_target(path)
    if (descriptor := _number_of(path)) is not None:
        sys.stdout.flush()  # what was printed comes first
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(data)
    elif _is_special(path):
        with path.open("wb") as file:
            file.write(data)
    else:
        with atomic_replacement(path) as temporary:
            temporary.write_bytes(data)


def open_descriptor(path: Path) -> int | None:
    """The number of this process's open file that a path such as /dev/stdout or /dev/fd/63 stands for, or a link to
    it; None for any other path."""
    return _number_of(_final_target(path))


def _final_target(path: Path) -> Path:
    """Where links end, or at an open file of this process, which must not be opened again: that would empty it where
    it is a regular one, and forget the place in it."""
    for _ in range(_LINKS):
        if _number_of(path) is not None or not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return path


def _number_of(path: Path) -> int | None:
    name = os.path.normpath(path)
    if name in _STREAMS:
        return _STREAMS[name]
    number = re.fullmatch(rf"(?:/dev|/proc/(?:self|{os.getpid()}))/fd/(\d{{1,9}})", name)
    return int(number[1]) if number else None


def _is_special(path: Path) -> bool:
    """Whether there is something that a rename must not replace."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode)

"""Writing files so that a reader, or a crash at any instant, sees either the old one or the new one, complete."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.([1-9][0-9]*)\.tmp")
"""Names that `atomic_replacement` gives."""


@contextlib.contextmanager
def atomic_replacement(path: Path) -> Iterator[Path]:
    """A path in the same folder, which then exists, to write to; at the end it is renamed over `path`, or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    with atomic_replacement(path) as temporary:
        temporary.write_bytes(data)

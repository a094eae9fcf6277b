"""A lock between the processes of a machine, or of several with the same disk: who has it makes an entry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from study.records.folder_lock import take_lock


@contextlib.contextmanager
def lock_file(path: Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Lock this file, which is made for it and removed at the end. A process that is killed has no lock any more.

    Args:
        on_wait: called where another process has the lock, before it is waited for.
    Returns: whether there is a lock: False where the file system knows none.
    Raises:
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    while (is_locked := take_lock(file, on_wait)) and not _is_same(path, file):
        file.close()  # whoever had the lock has removed its file
        file = path.open("a")
    with file:
        try:
            yield is_locked
        finally:
            path.unlink(missing_ok=True)


def _is_same(path: Path, file: IO[str]) -> bool:
    """Whether there is a file under this path, and it is the one that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

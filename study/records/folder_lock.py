"""One command at a time on a study folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

from study.errors import UserError

LOCK = ".lock"
HOLDER = ".holder"
"""Where the file system knows no locks: a file that says which process holds the folder."""

_LOCKS: tuple[Callable[[IO[str], int], object], ...] = (
    lambda file, how: fcntl.flock(file, how),
    lambda file, how: fcntl.lockf(file, how),  # NFS, Lustre and others may know one kind alone
)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study folder, so that a second command on it stops instead of writing over the first.

    Raises:
        UserError: another command holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
        holder = None if take_lock(file, lambda: _refuse(file, folder)) else _hold(folder / HOLDER)
    except OSError as error:
        raise UserError(
            f"--results-dir {folder.parent}: cannot be written ({error.strerror}); give a folder that you may write to"
        ) from error
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it may have been removed meanwhile
                if holder:
                    holder.unlink(missing_ok=True)
                if {path.name for path in folder.iterdir()} <= {LOCK}:  # bad input: leave nothing behind
                    (folder / LOCK).unlink(missing_ok=True)
                    folder.rmdir()


def take_lock(file: IO[str], on_held: Callable[[], None]) -> bool:
    """Lock this file.

    Args:
        on_held: called where another process has the lock; that is waited for unless this raises.
    Returns: False where the file system knows no locks.
    """
    for lock in _LOCKS:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                continue
        on_held()
        lock(file, fcntl.LOCK_EX)
        return True
    return False


def _refuse(file: IO[str], folder: Path) -> NoReturn:
    file.close()
    raise _held(folder)


def _hold(holder: Path) -> Path:
    """Write who holds the folder, unless somebody does: a process of another machine, or a living one of this."""
    for _ in range(2):
        try:
            with holder.open("x") as file:
                file.write(f"{socket.gethostname()} {os.getpid()}")
            return holder
        except FileExistsError:
            host, _, number = holder.read_text().partition(" ")
            if host != socket.gethostname() or not number.isdigit() or Path("/proc", number).exists():
                raise _held(holder.parent, f", or one was killed: then delete {holder}") from None
            holder.unlink(missing_ok=True)
    raise _held(holder.parent)


def _held(folder: Path, more: str = "") -> UserError:
    return UserError(f"{folder}: another command is running this study{more}; wait for it, or choose --name")

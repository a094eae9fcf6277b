"""What Ray wants of a machine before it starts: a folder for its sockets, a token that nobody else reads, workers that
find Python's own modules first, and signals that are left to the command."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ray.job_config import JobConfig

from study.errors import UserError
from study.process import kept_handlers

SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest name that Ray gives to a socket, in its folder."""
LONGEST = 107
"""Bytes of a socket's path, which the kernel bounds."""


def temporary_folder() -> str:
    """Where Ray keeps its session: $RAY_TMPDIR, $TMPDIR or /tmp, or another folder if that one cannot hold sockets.

    Raises:
        UserError: none can.
    """
    named = [(name, os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)][:1]
    places = [*(folder for _, folder in named), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    for folder in (f"{os.path.abspath(place)}/{name}" for place in places if place for name in _names()):
        if _holds_sockets(folder):
            return folder
    name, value = named[0] if named else ("TMPDIR", places[0])
    raise UserError(
        f"{name} {value}: Ray cannot keep its sockets and links there, nor in /tmp; set TMPDIR to a folder that you "
        f"may write to, on a local disk, of at most {LONGEST - len(SOCKET) - len('/ray/')} letters"
    )


def _names() -> tuple[str, ...]:
    return "ray", f"ray-{os.getuid()}"  # another user's Ray may have made the first


def _holds_sockets(folder: str) -> bool:
    """Whether Ray can work in this folder, which may not exist yet; a socket and a link in it are tried."""
    if len(os.fsencode(f"{folder}/{SOCKET}")) > LONGEST:
        return False
    try:
        if not os.path.isdir(os.path.dirname(folder)):
            return False
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="try") as tried, socket.socket(socket.AF_UNIX) as opened:
            opened.bind(f"{tried}/socket")
            os.symlink(tried, f"{tried}/link")
    except OSError:
        return False
    return True


def secure_token(create: bool) -> None:
    """See that nobody else can read Ray's token: who has it can run code as this user.

    Args:
        create: write one if there is none, before Ray writes one that all users of the machine can read. Where the home
            folder cannot be written, this process and those that it starts have one of their own.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    try:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(named) if named else Path.home() / ".ray" / "auth_token"
        if create and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another study has written it just now
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_hex(32))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        if path.read_text().strip():
            return
    except (OSError, RuntimeError):  # RuntimeError: no home folder at all
        pass
    if create:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def token() -> str:
    """Ray's token, which opens the dashboard, as this process has it; "" where there is none."""
    if own := os.environ.get("RAY_AUTH_TOKEN"):
        return own
    with contextlib.suppress(OSError, RuntimeError):
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        return (Path(named) if named else Path.home() / ".ray" / "auth_token").read_text().strip()
    return ""


class OwnPath(JobConfig):
    """Ray would put the current folder first on its workers' path, where a file `random.py` hides Python's."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def put_last(folders: list[str]) -> Callable[[], None]:
    """What a worker does first: it looks into these folders for modules, but after all others."""

    def look_there_last() -> None:  # a function within one travels by value, so nothing is imported for it
        import sys

        sys.path[:] = [path for path in sys.path if path not in folders] + folders

    return look_there_last


def last_folders() -> list[str]:
    """The current folder, where a user's network may lie, and the one that this package lies in."""
    ours = str(Path(__file__).resolve().parents[2])
    return list(dict.fromkeys([os.getcwd(), *([ours] if ours in sys.path else [])]))


@contextlib.contextmanager
def replaced(owner: Any, **others: object) -> Iterator[None]:
    """An object with these attributes in place of its own; those that another version of Ray lacks are left out."""
    own = {name: getattr(owner, name) for name in others if hasattr(owner, name)}
    for name in own:
        setattr(owner, name, others[name])
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(owner, name, value)


@contextlib.contextmanager
def job_listed_as(title: str) -> Iterator[None]:
    """Start Ray so that its dashboard lists the job under this title, with the command behind it.

    Ray has no name for the job of a driver: it shows the command line, which is often too long to see the study in it.
    """
    utils: Any = importlib.import_module("ray._private.utils")
    command = utils.get_entrypoint_name
    with replaced(utils, get_entrypoint_name=lambda: f"{title}  ({command()})"):
        yield


@contextlib.contextmanager
def signals_left_alone() -> Iterator[None]:
    """Start Ray so that signals mean what they did.

    Its daemons get a process group of their own: a signal to the command's group, as from `timeout` or a terminal that
    closes, would end them first. Ray's handlers of the driver, which print a trace, are replaced by those before.
    """
    services: Any = importlib.import_module("ray._private.services")
    try:
        with replaced(services, ConsolePopen=partial(services.ConsolePopen, process_group=0)), kept_handlers():
            yield
    except SystemExit as error:  # a SIGTERM meanwhile: Ray's handler exits with its number
        if error.code != signal.SIGTERM:
            raise
        signal.raise_signal(signal.SIGTERM)

"""What Ray finds on machines that are not as it expects."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from study.errors import UserError
from study.process import stop_signals
from study.tuning import ray_home, ray_start


@pytest.mark.parametrize("kind", ["short", "long", "missing", "a file"])
def test_ray_gets_a_folder_that_holds_sockets(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$TMPDIR where its paths are short enough for the kernel and it can be written, otherwise another one."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    place = tmp_path / ("x" * 90 if kind == "long" else "x")
    if kind != "missing":
        place.touch() if kind == "a file" else place.mkdir()
    monkeypatch.setattr(ray_home, "LONGEST", len(f"{tmp_path}/x/ray-{os.getuid()}/{ray_home.SOCKET}"))
    monkeypatch.setenv("TMPDIR", str(place))
    folder = ray_home.temporary_folder()
    assert (folder == f"{place}/ray") == (kind == "short")
    assert os.path.isdir(folder) and len(f"{folder}/{ray_home.SOCKET}") <= ray_home.LONGEST
    assert not [name for name in os.listdir(folder) if name.startswith("try") and kind == "short"]


def test_a_machine_without_links_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable to set."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match=f"^TMPDIR {tmp_path}: .*set TMPDIR to a folder"):
        ray_home.temporary_folder()


def token_of(home: Path, monkeypatch: pytest.MonkeyPatch, create: bool = True) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what the function sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    ray_home.secure_token(create)
    return home / ".ray" / "auth_token"


def test_nobody_else_reads_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is the user's alone, as is its folder; one that all could read is closed, and stays the same. None is
    made to join a cluster, which may want none."""
    assert not token_of(tmp_path, monkeypatch, create=False).exists() and "RAY_AUTH_TOKEN" not in os.environ
    path = token_of(tmp_path, monkeypatch)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)
    assert token_of(tmp_path, monkeypatch).stat().st_mode & 0o777 == 0o600
    assert path.read_text() == token and "RAY_AUTH_TOKEN" not in os.environ


def test_a_home_that_cannot_be_written_needs_no_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of the study have a token of their own, new each time."""
    (tmp_path / "file").touch()
    token_of(tmp_path / "file", monkeypatch)
    first = os.environ["RAY_AUTH_TOKEN"]
    token_of(tmp_path / "file", monkeypatch)
    assert len(first) == 64 and os.environ["RAY_AUTH_TOKEN"] != first


def test_workers_look_into_the_current_folder_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file random.py in it hides nothing; a network of one's own is found there nevertheless."""
    monkeypatch.setattr(sys, "path", ["/here", "/lib", "/here", "/more"])
    ray_home.put_last(["/here"])()
    assert sys.path == ["/lib", "/more", "/here"]
    assert ray_home.OwnPath()._runtime_env_has_working_dir()  # so that Ray adds none


def test_a_signal_while_ray_starts_stops_the_command() -> None:
    """Ray's handler would exit with status 15; the handlers before it are back afterwards."""
    with stop_signals() as received:
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), ray_home.signals_left_alone():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is ours and received == [signal.SIGTERM]


def test_rays_daemons_are_in_a_process_group_of_their_own() -> None:
    """A signal to the command's group does not reach them; afterwards, also after an error, Ray starts processes as
    before."""
    services: Any = importlib.import_module("ray._private.services")
    before = services.ConsolePopen
    with pytest.raises(RuntimeError), ray_home.signals_left_alone():
        with services.ConsolePopen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as daemon:
            group = os.getpgid(daemon.pid)
            daemon.communicate(b"\n")
        assert group == daemon.pid != os.getpgrp() and daemon.returncode == 0
        raise RuntimeError
    assert services.ConsolePopen is before


def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, without a traceback."""
    from study.methods.sws.settings import SWSSettings
    from study.settings import resolve

    def fail(**_: object) -> None:
        raise RuntimeError("Failed to start\n  the GCS")

    monkeypatch.setattr(ray_start.ray, "init", fail)
    monkeypatch.setattr(ray_home, "secure_token", lambda create: None)
    with pytest.raises(UserError, match=r"Ray could not be started on this machine \(Failed to start the GCS\)"):
        ray_start.start_ray(resolve(SWSSettings()))

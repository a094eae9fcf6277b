"""Ray that starts in the background while a command loads and checks what it needs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from study import run
from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.records import paths
from study.settings import Settings, resolve
from study.tuning import ray_start

ROOT = Path(__file__).parents[2]
SETTINGS = resolve(SWSSettings())


def daemons_of(pid: int) -> list[str]:
    """Ray's processes of a driver, whose session has its number; given a moment to end."""
    until = time.monotonic() + 10
    while True:
        names = []
        for process in psutil.process_iter(["cmdline", "status", "name"]):
            if f"_{pid}/" in " ".join(process.info["cmdline"] or []) and process.info["status"] != "zombie":
                names.append(process.info["name"])
        if not names or time.monotonic() > until:
            return names
        time.sleep(0.2)


def test_a_start_in_the_background_is_waited_for_and_lives_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's daemons end with the thread that started them."""
    begin, ended = threading.Event(), list[str]()

    def start(settings: Settings) -> str:
        begin.wait(10)
        return "http://127.0.0.1:8265"

    monkeypatch.setattr(ray_start, "_start", start)
    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: ended.append(ours().name if ours() else "nobody"))

    def ours() -> Any:
        return next((t for t in threading.enumerate() if t.name == "start of Ray"), None)

    ray_start.begin_ray(SETTINGS)
    threading.Timer(0.2, begin.set).start()
    assert ray_start.start_ray(SETTINGS) == "http://127.0.0.1:8265" and begin.is_set()
    assert ours().is_alive()
    ray_start.stop_ray()
    assert ended[0] == "start of Ray" and ours() is None
    assert ray_start.start_ray(SETTINGS) == "http://127.0.0.1:8265", "the next start is one of its own"


def test_a_start_that_fails_is_said_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> str:
        raise UserError("Ray could not be started on this machine (no room)")

    monkeypatch.setattr(ray_start, "_start", fail)
    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: None)
    ray_start.begin_ray(SETTINGS)
    with pytest.raises(UserError, match="no room"):
        ray_start.start_ray(SETTINGS)
    ray_start.stop_ray()


@pytest.mark.parametrize(
    ("flags", "begins"),
    [
        ({}, True),
        ({"dry_run": True}, False),
        ({"show_space": True}, False),
        ({"address": "127.0.0.1:6379"}, False),
        ({"monitor": True}, False),  # Ray reads its addresses at the start
    ],
)
def test_ray_begins_early_only_for_a_new_study_on_this_machine(
    flags: dict[str, Any], begins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that continues a study may have nothing to do, and a call from Python is none of the command line."""
    calls: list[str] = []
    monkeypatch.setattr(ray_start, "begin_ray", lambda settings: calls.append("begin"))
    monkeypatch.setattr(ray_start, "stop_ray", lambda: calls.append("stop"))
    monkeypatch.setattr(run, "_study", lambda settings: calls.append("study") or 0)
    settings = resolve(SWSSettings.of(results_dir=tmp_path, **flags))
    run._run(settings, early=True)
    assert calls == (["begin", "study", "stop"] if begins else ["study"])
    calls.clear()
    run._run(settings, early=False)
    settings.folder.mkdir(parents=True)
    (settings.folder / paths.STUDY).write_text("{}")
    run._run(settings, early=True)
    assert calls == ["study", "study"]


def test_what_is_wrong_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.run", "sws", "--checkpoint", "none.pt", "--results-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "") and err.startswith(f"error: --checkpoint {ROOT}/none.pt: no such file")
    assert err.count("\n") == 1 and not daemons_of(process.pid)


def test_ctrl_c_while_ray_starts_ends_the_command_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.run", "kd", "--results-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not any("gcs_server" in child.name() for child in psutil.Process(process.pid).children()):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "") and err.startswith("Stopped.") and err.count("\n") == 1
    assert not daemons_of(process.pid)

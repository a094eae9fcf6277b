"""What a command leaves behind that ends while Ray starts, or before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


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

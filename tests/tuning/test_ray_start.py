"""That Ray starts while a command loads, and what a command leaves behind that ends meanwhile."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from study import run
from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.tuning import ray_start
from study.tuning.worker.compression_study_worker import environment

ROOT = Path(__file__).parents[2]


def daemons_of(pid: int, patience: float = 10) -> list[str]:
    """Ray's processes of a driver, whose session has its number; given a moment to end."""
    until = time.monotonic() + patience
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


def test_a_start_is_taken_over_and_ends_in_any_case() -> None:
    """What `begun` has started is what `start_ray` connects to; where it comes to no study, its processes end."""
    settings = resolve(SWSSettings.of(dashboard=False))
    with pytest.raises(UserError, match="no such file"), ray_start.begun(settings):
        raise UserError("no such file")
    assert not daemons_of(os.getpid()) and not ray.is_initialized()
    with ray_start.begun(settings):
        node: Any = importlib.import_module("ray._private.worker")._global_node
        assert not ray.is_initialized() and "raylet" in daemons_of(os.getpid(), patience=0)
        assert ray_start.start_ray(settings) == "" and ray.is_initialized()
        assert importlib.import_module("ray._private.worker")._global_node is node
        assert ray.get(ray.remote(lambda: 3).remote()) == 3
    assert not daemons_of(os.getpid()) and not ray.is_initialized()


@pytest.mark.parametrize(
    ("flags", "begins"),
    [
        *[("", True), ("--dry-run", False), ("--show-space", False), ("--name there", False)],
        *[("--address auto", False), ("--monitor", False)],
    ],
)
def test_ray_starts_early_only_for_a_new_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, begins: bool
) -> None:
    """A study that is there may have nothing to do; one in a cluster finds Ray running."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "study.json").touch()
    settings = resolve(run.parse(["kd", "--results-dir", str(tmp_path), *flags.split()]))
    assert not run._begins_study(settings)  # torch is loaded here, so there is nothing to wait for
    monkeypatch.delitem(sys.modules, "torch")
    assert run._begins_study(settings) == begins


def test_what_a_process_for_trials_loads_leaves_gpus_alone() -> None:
    """Which of them it may see is said when it is given a trial; CUDA looks once."""
    code = (
        "import torch; refuse = lambda *_: exit('CUDA was asked for'); torch._C._cuda_getDeviceCount = refuse; "
        "torch.cuda.device_count = torch.cuda.is_available = torch.cuda.current_device = refuse; "
        "import study.tuning.trainable"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_for_trials_find_the_modules_that_the_command_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that is not installed too, whatever its name; but no file there hides one of Python's own modules."""
    here = tmp_path / "runs 16:52"
    here.mkdir()
    (here / "random.py").write_text("raise SystemExit('hidden')")
    (here / "nets.py").touch()
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    variables = environment([str(here), str(ROOT)], "colorsys")
    first, own = variables["PYTHONPATH"].split(os.pathsep)
    assert first == "/theirs" and sorted(Path(own).glob("*.py")) == [
        Path(own) / "__init__.py", Path(own) / "compression_study_worker.py"
    ]  # fmt: skip
    code = (
        f"import sys; import {variables['RAY_preload_python_modules']}; import random, nets, study; "
        "print(sys.path[-2:], 'colorsys' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {own!r}); {code}"],
        cwd="/", env={**os.environ, **variables}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"{[str(here), str(ROOT)]} True\n", done.stderr


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

"""Seconds from Enter to the first training step of a study, and what is loaded until then:

    python tests/benchmarks/start_time.py            # five starts with the dashboard, five without
    python tests/benchmarks/start_time.py --imports  # CPU time of the driver's imports, by package

The study is `kd` on digits, whose teacher is trained first. A network of the benchmark's own, with the teacher's
layers, says when it is run; the step of the rehearsal, in the driver, is told from the first of the training.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = """
import os, time
import torch
from study.models.registry import build

def teacher(input_shape, classes):
    model = build("vgg13", input_shape, classes, width=0.25)
    def note(*_):
        if model.training and torch.is_grad_enabled():
            with open(os.environ["STEPS"], "a") as file:
                file.write(f"{os.getpid()} {time.time()}\\n")
    model.register_forward_pre_hook(note)
    return model
"""
COMMAND = "kd --teacher noting:teacher --num-samples 1 --results-dir results"
DRIVER = "import study.run; from study.pipeline import driver, cost_estimate; from study.tuning.trackers import tracker"


def start(flags: list[str]) -> tuple[float, float]:
    """Seconds to the step of the rehearsal, and to the first one of the training; the study is stopped then."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "noting.py").write_text(NETWORK)
        steps = Path(folder) / "steps"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "STEPS": str(steps)}
        began = time.time()
        command = [sys.executable, "-m", "study.run", *COMMAND.split(), *flags]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        seen: dict[bool, float] = {}
        while True not in seen and process.poll() is None:
            time.sleep(0.02)
            for line in steps.read_text().splitlines() if steps.exists() else ():
                pid, when = line.split()
                seen.setdefault(int(pid) != process.pid, float(when) - began)
        process.send_signal(signal.SIGINT)
        process.wait()
    return seen[False], seen[True]


def imports() -> None:
    """What the driver loads before it reads the data: seconds by package, the longest first."""
    command = [sys.executable, "-X", "importtime", "-c", DRIVER]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stderr.splitlines()
    seconds: collections.Counter[str] = collections.Counter()
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            seconds[".".join(name.strip().split(".")[: 2 if name.strip().startswith("ray.") else 1])] += int(own) / 1e6
    print(f"all: {sum(seconds.values()):.2f} s")
    for package, spent in seconds.most_common(15):
        print(f"  {package:24} {spent:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.imports:
        imports()
        return
    for name, flags in {"without the dashboard": ["--no-dashboard"], "with it": []}.items():
        rehearsals, steps = zip(*(start(flags) for _ in range(arguments.runs)), strict=True)
        print(
            f"{name}: first training step after {statistics.median(steps):.1f} s ({min(steps):.1f} to {max(steps):.1f})"
            f", rehearsal in the driver after {statistics.median(rehearsals):.1f} s"
        )


if __name__ == "__main__":
    main()

"""How long studies take, against what `--dry-run` says of them, and what it would say of larger ones:

    python tests/benchmarks/study_time.py                       # three studies of kd on digits, some six minutes
    python tests/benchmarks/study_time.py --trials 8,16 --flags "magnitude --epochs 20"
    python tests/benchmarks/study_time.py --table --trial 24.4  # 1, 8 and 64 GPUs; seconds of a trial on one

Each study is a command in a folder of its own, from Enter to its report. It needs a quiet machine: what is said rests
on steps that are timed before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pandas as pd

from study.pipeline import cost_estimate, preflight
from study.pipeline.cost_estimate import Estimate
from study.run import parse
from study.settings import resolve
from study.tuning.space import SearchSpace

MEMORY = 6.7e-3
"""MB of the driver for each trial: tests/benchmarks/scaling.py --nodes "" --searcher random --trials 10000."""


def said(arguments: list[str]) -> Estimate:
    settings = resolve(parse(arguments))
    space = SearchSpace.of_study(settings)
    settings, recorded = preflight.resume(settings, space)
    return cost_estimate.estimate(settings, space, preflight.load_inputs(settings, space, recorded).data)


def measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Seconds from Enter to the first trial's start, of the search, from then to the end, and of all."""
    began = time.time()
    subprocess.run([sys.executable, "-m", "study.run", *arguments], check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    (table,) = folder.glob("*/trials.csv")
    trials = pd.read_csv(table)
    at = {name: trials[name].dropna().map(lambda when: datetime.fromisoformat(when).timestamp())
          for name in ("started", "ended")}  # fmt: skip
    shared = trials["baseline"].isin(["teacher", "uncompressed"])
    first = at["started"][~shared].min()
    return {
        "start": at["started"].min() - began,
        "shared": first - at["started"].min(),
        "search": at["ended"].max() - first,
        "end": ended - at["ended"].max(),
        "all": ended - began,
        "epochs": trials["epochs"][~shared].sum(),
    }


def compare(flags: str, trials: list[int]) -> None:
    print("| trials | start | shared work | search | end | all | said | measured ÷ said |\n|" + "---|" * 8)
    for number in trials:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [*flags.split(), "--num-samples", str(number), "--results-dir", folder]
            before, now = said(arguments), measured(arguments, Path(folder))
        parts = {"start": cost_estimate.START, "shared": before.shared, "search": before.search,
                 "end": cost_estimate.END}  # fmt: skip
        cells = [f"{now[name]:.1f} ({part:.1f})" for name, part in parts.items()]
        print(f"| {number} | {' | '.join(cells)} | {now['all']:.1f} s | {before.total:.1f} s | "
              f"{now['all'] / before.total:.2f} |", flush=True)  # fmt: skip


def table(trial: float, shared: float, kept: float) -> None:
    print("| trials | GPUs | all | a driver alone | its memory | what holds it up |\n|" + "---|" * 6)
    for number in (64, 1_000, 100_000):
        for gpus in (1, 8, 64):
            cost = Estimate(shared, trial, number + 2, 0, 0, gpus, gpus, kept=kept, unstopped=2)
            slow = "the driver" if cost.driving >= cost.search else "the trials"
            print(f"| {number:,} | {gpus} | {cost.total / 3600:.2f} h | {cost.driving / 3600:.2f} h | "
                  f"{MEMORY * number:,.0f} MB | {slow} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="8,32,96")
    parser.add_argument("--flags", default="kd")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--trial", type=float, default=24.4, help="seconds on one GPU, which it has alone")
    parser.add_argument("--shared", type=float, default=60.0, help="seconds of the shared work")
    parser.add_argument("--kept", type=float, default=0.44, help="share of the epochs that halving leaves")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.trial, arguments.shared, arguments.kept)
    else:
        compare(arguments.flags, [int(number) for number in arguments.trials.split(",")])


if __name__ == "__main__":
    main()

"""What the driver of a study costs from its first trial to its 10,000th, without Ray:

    python tests/benchmarks/ledger_growth.py                            # a few minutes
    python tests/benchmarks/ledger_growth.py --searcher tpe --trials 2000

Trials that do nothing go through the real ledger, journal, searcher, recorder, display and metrics, on a real disk, in
the order in which Tune calls them. The complete driver, with Tune: `scaling.py --nodes "" --searcher random`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from study.methods.kd.settings import KDSettings
from study.records.ledger import Ledger
from study.records.study_folder import load, write_meta
from study.settings import Settings, resolve
from study.tuning.display import Display
from study.tuning.journal import Journal
from study.tuning.recorder import Recorder
from study.tuning.searcher import LedgerSearch, make_sampler, optuna_study
from study.tuning.space import SearchSpace

COMPARED = 500
"""Trials at the start and at the end that are compared."""
WARM = 50
"""Trials before those, in which Python and Optuna load what they need."""


@dataclass
class Growth:
    """What was measured.

    Attributes:
        seconds: of the driver, for each trial.
        cpu: the same, of the processor.
        memory: (trials that have ended, the driver's memory in MB), after every hundred.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)


def memory_now() -> float:
    """Of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def meta_of(space: SearchSpace) -> dict:
    """As much of a `study.json` as readers need."""
    return {"kind": "kd", "seed": 0, "objectives": space.objectives, "space": {name: {} for name in space.domains}}


def run(settings: Settings, space: SearchSpace, epochs: int) -> Growth:
    """A study of trials that do nothing but report so many epochs."""
    folder, trials = settings.folder, settings.budget.num_samples
    folder.mkdir(parents=True)
    write_meta(folder, meta_of(space))
    ledger = Ledger.open(folder)
    study = optuna_study(ledger, space, sampler=make_sampler(settings.search.searcher, 0, 0))
    with Display(ledger, space.objectives, trials, "") as display:
        display.console.quiet = True
        recorder = Recorder(ledger, display, space.objectives, settings, folder)
        recorder.journal = Journal(ledger, space, settings)
        recorder.searcher = LedgerSearch(ledger, study, space, [], trials, lambda: 1, on_start=recorder.on_start)
        growth, luck = Growth(), random.Random(0)
        for number in range(1, trials + 1):
            start, cpu = time.perf_counter(), time.process_time()
            one_trial(recorder, str(number), epochs, luck)
            growth.seconds.append(time.perf_counter() - start)
            growth.cpu.append(time.process_time() - cpu)
            if number % 100 == 0:
                growth.memory.append((number, memory_now()))
        recorder.close()
    return growth


def one_trial(recorder: Recorder, tune_id: str, epochs: int, luck: random.Random) -> None:
    """What Tune calls for a trial, in its order."""
    searcher = recorder.searcher
    assert searcher is not None
    config = searcher.suggest(tune_id)
    trial = SimpleNamespace(config=config, last_result={}, error_file="")
    recorder.on_trial_start(0, [], trial)
    for epoch in range(1, epochs + 1):
        report = {"epoch": epoch, "phase": "train", "train_loss": 1 / epoch, "val_accuracy": luck.uniform(0, 100)}
        recorder.on_trial_result(0, [], trial, {**report, "reported": ",".join(report)})
    last = {"val_loss": 0.5, "val_accuracy": luck.uniform(0, 100)}
    trial.last_result = {**last, "reported": ",".join(last), "finished": True, "spent": 0.01}
    recorder.on_trial_result(0, [], trial, trial.last_result)
    searcher.on_trial_complete(tune_id, trial.last_result)
    recorder.on_trial_complete(0, [], trial)


def report(growth: Growth) -> None:
    """Print the tables."""
    print("| | first | last | last / first |\n|---|---|---|---|")
    for name, times in (("ms from a trial to the next", growth.seconds), ("of them CPU", growth.cpu)):
        for kind, average in (("median", statistics.median), ("mean", statistics.fmean)):
            first, last = average(times[WARM : WARM + COMPARED]), average(times[-COMPARED:])
            print(f"| {name}, {kind} of {COMPARED} | {1000 * first:.2f} | {1000 * last:.2f} | {last / first:.2f} |")
    (few, before), (many, after) = growth.memory[len(growth.memory) // 10], growth.memory[-1]
    print(f"\nThe driver's memory: {before:.0f} MB at {few:,} trials, {after:.0f} MB at {many:,}: "
          f"{1000 * (after - before) / (many - few):.1f} MB a thousand.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1, help="that each trial reports")
    parser.add_argument("--searcher", default="random", help="tpe takes longer the more trials there are, by nature")
    options = parser.parse_args()
    space = SearchSpace.load("kd")
    with tempfile.TemporaryDirectory() as folder:
        settings = resolve(
            KDSettings.of(
                num_samples=options.trials, searcher=options.searcher, results_dir=Path(folder), name="growth"
            )
        )
        growth = run(settings, space, options.epochs)
        study = load(settings.folder)
        assert len(study.trials) == options.trials and set(study.trials["state"]) == {"complete"}
    report(growth)
    print(f"\n{options.trials:,} trials of {options.epochs} epochs, searcher {options.searcher}; "
          f"{os.cpu_count()} cores; Python {sys.version.split()[0]}")  # fmt: skip


if __name__ == "__main__":
    main()

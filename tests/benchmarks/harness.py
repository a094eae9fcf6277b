"""What the harness costs besides its trials: against a plain Optuna loop with two worker processes, in one run:

    python tests/benchmarks/harness.py                    # 64 trials of one second, 200 that do nothing
    python tests/benchmarks/harness.py --trials 2000      # memory and time a trial as a study grows

The trials are of the real harness (ledger, journal, checkpoint, display, Ray Tune with Optuna's searcher); only the
training is replaced, by a wait. The plain loop is what Optuna's tutorials show: `study.optimize` in two processes on
one journal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

WORKERS = 2


def waiting(seconds: float) -> Any:
    """A trial of one epoch that waits, in the place of one that trains."""
    from study.methods.method import TrialResult

    def run(values: dict, s: Any, data: Any, shared: Any, on_epoch: Any, progress: Any) -> TrialResult:
        time.sleep(seconds)
        on_epoch({"epoch": 1, "phase": "train", "train_loss": 0.0, "val_accuracy": 100 * values["alpha"]})
        return TrialResult({"val_loss": 0.0}, {"weights": np.zeros(1, np.float32)})

    return run


@dataclass
class Timed:
    """A study of waiting trials.

    Attributes:
        start: seconds from the command's start to the first trial.
        ends: seconds from the first trial to the end of each.
        whole: seconds from the first trial to the end of the search.
        memory: (finished trials, the driver's memory in MB), now and then.
    """

    start: float
    ends: list[float]
    whole: float
    memory: list[tuple[int, float]]


def harness(seconds: float, trials: int, folder: Path, address: str | None = None, searcher: str = "tpe") -> Timed:
    """A study of so many trials that wait so long, on this machine or on the cluster at an address."""
    began = time.perf_counter()
    import ray

    from study.artifacts.cache import SharedWork
    from study.methods.kd.settings import KDSettings
    from study.pipeline import preflight
    from study.records import columns
    from study.records.ledger import Ledger
    from study.settings import resolve
    from study.tuning import ray_start, tune_run
    from study.tuning.display import Display
    from study.tuning.recorder import Recorder
    from study.tuning.space import SearchSpace
    from study.tuning.tune_run import Job, Work

    space = SearchSpace.load("kd")
    settings = resolve(KDSettings.of(num_samples=trials, scheduler="none", searcher=searcher, dashboard=False,
                          results_dir=folder, name="waiting", address=address,
                          max_concurrent=None if address else WORKERS))  # fmt: skip
    data, _ = preflight.load_data(settings)
    ray_start.start_ray(settings)
    ledger = Ledger.open(settings.folder)
    settings.folder.mkdir(parents=True)
    ends: list[float] = []
    memory: list[tuple[int, float]] = []

    class Watched(Recorder):
        started = 0.0

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self.started = self.started or time.perf_counter()

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            super().on_trial_complete(iteration, trials, trial, **info)
            ends.append(time.perf_counter() - self.started)
            if len(ends) % max(1, settings.budget.num_samples // 10) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                memory.append((len(ends), pages * resource.getpagesize() / 1e6))

    with Display(ledger, space.objectives, trials, "") as display:
        display.console.quiet = True
        recorder = Watched(ledger, display, space.objectives, settings, settings.folder)
        job = Job(settings, space, settings.folder, recorder)
        work = Work(waiting(seconds), data, {settings.seed: SharedWork({})})
        tune_run.run_trials(job, work, [], trials, searching=True)
        recorder.close()
        ended = time.perf_counter()
    ray.shutdown()
    assert len(ledger.of_state(*columns.FINAL_STATES)) == trials
    # The clock runs from the first trial on, as that of the plain loop does; the start has a figure of its own.
    return Timed(recorder.started - began, ends, ended - recorder.started, memory)


def _plain_worker(file: str, seconds: float, trials: int, seed: int, start: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.load_study(study_name="plain", storage=JournalStorage(JournalFileBackend(file)), sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("temperature", 1.0, 20.0, log=True)
        alpha = trial.suggest_float("alpha", 0.0, 1.0)
        time.sleep(seconds)
        return 100 * alpha

    start.wait()
    study.optimize(objective, n_trials=trials)


def plain(seconds: float, trials: int, folder: Path) -> float:
    """Seconds of the plain loop, its processes' start left out."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = str(folder / "plain.journal")
    optuna.create_study(study_name="plain", storage=JournalStorage(JournalFileBackend(file)), direction="maximize")
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(WORKERS + 1)
    arguments = [(file, seconds, trials // WORKERS, seed, start) for seed in range(WORKERS)]
    processes = [spawn.Process(target=_plain_worker, args=a) for a in arguments]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="trials that do nothing")
    parser.add_argument("--waiting", type=int, default=64, help="trials of one second")
    options = parser.parse_args()
    print("| trials | harness, s | twice its second half | plain Optuna, s | harness / plain | second half / plain | "
          "second half, ms a trial beyond its wait |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for seconds, trials in ((1.0, options.waiting), (0.0, options.trials)):
        with tempfile.TemporaryDirectory() as folder:
            theirs = plain(seconds, trials, Path(folder))
            ours = harness(seconds, trials, Path(folder))
        # Without the start of its workers, which the plain loop's clock leaves out: the second half of the trials.
        later = 2 * (ours.ends[-1] - ours.ends[trials // 2 - 1])
        beyond = 1000 * (later * WORKERS / trials - seconds)
        cells = [f"{trials} of {seconds:g} s", *(f"{t:.1f}" for t in (ours.whole, later, theirs))]
        print("|", " | ".join([*cells, f"{ours.whole / theirs:.3f}", f"{later / theirs:.3f}", f"{beyond:.0f}"]), "|")
    print(f"\nFrom the start of the harness to its first trial: {ours.start:.1f} s.")
    if len(ours.memory) > 1:
        (few, before), (many, after) = ours.memory[0], ours.memory[-1]
        growth = 1000 * (after - before) / (many - few)
        print(f"The driver's memory: {before:.0f} MB at {few} trials, {after:.0f} MB at {many}: "
              f"{growth:.0f} MB a thousand trials.")  # fmt: skip


if __name__ == "__main__":
    main()

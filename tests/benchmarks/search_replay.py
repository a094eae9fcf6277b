"""Which search finds the front in the fewest epochs: searchers and halving, replayed on recorded random searches:

    python tests/benchmarks/search_replay.py                          # the tables, as Markdown
    python tests/benchmarks/search_replay.py --tables sws_digits --strategies random tpe --orders 5
    python tests/benchmarks/search_replay.py --record results/NAME --to kd_digits --reference val_accuracy=50 …

A search draws on the recorded trials alone: what a searcher suggests becomes the nearest recorded trial, in the unit
cube of the hyperparameters, that has not run. So every configuration is a real trial with its own learning curve, no
end is modelled, and every search without a rule that stops trials finds all of the front in the end.

A row says how many epochs are spent until the trials that ran to their end have 95 and 99 % of the hypervolume of all
recorded trials. Points not better than the table's reference in every objective add nothing, and sizes count by their
logarithm. A search that never gets there counts with all epochs of the table, since that is what certainty costs.
Trials run `--workers` at a time, in step, and an epoch costs the same in every trial.

The limits of that: a searcher can refine a good trial no further than the recorded ones lie dense, so its gain over
random order is a lower bound. All trials share one seed of the network, so nothing here says what several would give.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch, which gp imports: its tensors are small
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import optuna
from benchmarks.recorded_studies import FOLDER, Recorded, record, write
from benchmarks.search_strategies import STRATEGIES, Order, Rule, Strategy, order
from optuna.trial import TrialState
from scipy import stats

from study import commandline
from study.errors import UserError
from study.tuning.prediction import PredictedFront

SHARES = (0.95, 0.99)
SLOW_ORDERS = 5  # of strategies whose replay takes minutes


@dataclass(frozen=True)
class Search:
    """A search that was replayed.

    Attributes:
        spent, volumes: epochs spent when a trial ended, and the hypervolume from then on; both (steps,).
        started, finished: trials, counted.
        epochs: spent in all.
    """

    spent: np.ndarray
    volumes: np.ndarray
    started: int
    finished: int
    epochs: int

    def reached(self, volume: float) -> float:
        """Epochs spent until the hypervolume was so large; infinity if it never was."""
        there = np.flatnonzero(self.volumes >= volume * (1 - 1e-9))
        return float(self.spent[there[0]]) if len(there) else math.inf


@dataclass(eq=False)
class Running:
    """A trial under way."""

    trial: int
    epoch: int = 0


def replay(
    recorded: Recorded, source: Order, rule: Rule | None = None, workers: int = 2, until: float = math.inf
) -> Search:
    """Run trials until there are no more, or the hypervolume is `until`; `rule` may stop them early."""
    running: list[Running] = []
    ends: list[np.ndarray] = []
    steps, epochs, started = [(0, 0.0)], 0, 0
    while steps[-1][1] < until:
        while len(running) < workers and (trial := source.ask()) is not None:
            started += 1
            running.append(Running(trial))
        if not running:
            break
        for now in list(running):
            now.epoch += 1
            epochs += 1
            if (state := state_of(recorded, now, rule)) == TrialState.RUNNING:
                continue
            running.remove(now)
            source.tell(now.trial, state)
            if state == TrialState.COMPLETE:
                if isinstance(rule, PredictedFront):
                    rule.finish(trial_name(now.trial))
                ends.append(recorded.ends[now.trial])
                steps.append((epochs, recorded.volume(ends)))
    spent, volumes = np.array(steps).T
    return Search(spent, volumes, started, len(ends), epochs)


def trial_name(trial: int) -> str:
    return f"t{trial:04d}"


def state_of(recorded: Recorded, now: Running, rule: Rule | None) -> TrialState:
    """What a trial is after this epoch."""
    values = recorded.curves[now.trial, now.epoch - 1]
    goes_on = True
    if rule and np.isfinite(values).all():
        metrics = dict(zip(recorded.measured, values.tolist(), strict=True))
        goes_on = rule.judge(trial_name(now.trial), now.epoch, metrics)
    if now.epoch < recorded.lengths[now.trial]:
        return TrialState.RUNNING if goes_on else TrialState.PRUNED
    return TrialState.COMPLETE if np.isfinite(recorded.ends[now.trial]).all() else TrialState.FAIL


# --- the table


def epochs_until(search: Search, recorded: Recorded, share: float) -> float:
    """Epochs until a share of the best hypervolume; all epochs of the table if the search never gets there."""
    reached = search.reached(share * recorded.best())
    return reached if math.isfinite(reached) else float(recorded.lengths.sum())


def run(job: tuple[Path, str, int, int]) -> Search:
    """One strategy in one order. Made for a process of its own: all that it needs is in the arguments."""
    path, name, seed, workers = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    recorded, strategy = Recorded.read(path), STRATEGIES[name]
    source, rule = order(strategy.searcher, recorded, seed), strategy.rule(recorded, seed)
    return replay(recorded, source, rule, workers, until=recorded.best() * SHARES[-1])


def orders_of(strategy: Strategy, orders: int) -> int:
    return min(orders, SLOW_ORDERS) if strategy.slow else orders


def table(recorded: Recorded, rows: Mapping[str, Sequence[Search]]) -> str:
    """Markdown: mean epochs over the orders at each share, and against the first row's in the same orders."""
    heads = ["search", "orders", *(f"epochs to {share:.0%}, against random" for share in SHARES), "never at 99 %"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    first = next(iter(rows.values()))
    for name, searches in rows.items():
        cells = [name, str(len(searches))]
        for share in SHARES:
            own = np.array([epochs_until(search, recorded, share) for search in searches])
            base = np.array([epochs_until(search, recorded, share) for search in first[: len(searches)]])
            cells.append(f"{own.mean():,.0f}" + (f" ({difference(own, base)})" if searches is not first else ""))
        never = sum(not math.isfinite(search.reached(SHARES[-1] * recorded.best())) for search in searches)
        lines.append(f"| {' | '.join([*cells, str(never)])} |")
    return "\n".join(lines)


def difference(own: np.ndarray, base: np.ndarray) -> str:
    """Mean paired difference and the half width of its 95 % interval (Student's t), in % of the mean of `base`."""
    paired = 100 * (own - base) / base.mean()
    half = stats.t.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / math.sqrt(len(paired))
    return f"{paired.mean():+.0f} ± {half:.0f} %".replace("-", "−")


def describe(recorded: Recorded) -> str:
    over = ", ".join(f"{metric} {value:g}" for metric, value in recorded.reference.items())
    return f"{recorded.note}; {recorded.epochs} epochs a trial; hypervolume from {over}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="study folder to write a table from")
    parser.add_argument("--to", help="name of the table that --record writes")
    parser.add_argument("--reference", nargs="+", default=[], help="with --record: OBJECTIVE=VALUE of no use, each")
    parser.add_argument("--tables", nargs="+", default=sorted(path.stem for path in FOLDER.glob("*.csv")))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--orders", type=int, default=20, help="2 or more")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.record and not options.to:
        raise UserError("--record needs --to NAME")
    return options


def main() -> int:
    options = parsed()
    if options.record:
        reference = {name: float(value) for name, value in (pair.split("=") for pair in options.reference)}
        note, search, trials = record(options.record, reference)
        write(FOLDER / f"{options.to}.csv", note, search, trials)
        print(f"{options.to}: {note}")
        return 0
    start = time.perf_counter()
    print(f"`python {shlex.join(sys.argv)}`, {options.workers} trials at a time\n")
    with ProcessPoolExecutor(options.processes) as pool:
        for name in options.tables:
            path = FOLDER / f"{name}.csv"
            recorded = Recorded.read(path)
            results = {}
            for strategy in options.strategies:
                seeds = range(orders_of(STRATEGIES[strategy], options.orders))
                results[strategy] = list(pool.map(run, [(path, strategy, seed, options.workers) for seed in seeds]))
            print(f"{name}: {describe(recorded)}\n\n{table(recorded, results)}\n", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(commandline.status(main))

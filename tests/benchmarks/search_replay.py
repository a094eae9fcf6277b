"""Halving and searchers, replayed on recorded trials of soft weight-sharing, without training:

    python tests/benchmarks/search_replay.py                          # the tables, as Markdown; a minute or two
    python tests/benchmarks/search_replay.py --record results/NAME    # record another study, run with --scheduler none

How much of the front is found, against the epochs spent: the hypervolume of the trials that ran to their end, in
percent of that of all recorded trials together. Points not better than `REFERENCE` in every objective add nothing.
Trials run at `--workers` at a time, in step, and an epoch costs the same in every trial.

Halving is judged twice. With recorded trials in random order, each drawn once, nothing is modelled: if the recorded
study was a random search, this is random search. With a searcher, a surrogate answers what was not recorded: a
suggestion gets the curve of the recorded trial nearest to it in the hyperparameters' unit cube (logarithmic where the
space is), or with `--neighbours` k the mean of k curves weighted by 1 / distance.

The limits of that: every hyperparameter counts the same in a distance, whatever it does to the network. Between
recorded trials the landscape is flat, with steps (k = 1), so a searcher gains nothing from refining a good trial, and
no front can be better than the recorded one; means (k > 1) may lie beyond any real trial. How far off the surrogate is
for a recorded trial that it may not look at is printed. All trials share one seed of the network. So read the order of
the searchers, and no small difference; nothing here says what they would do in another study. gp has fewer seeds and
a smaller budget, and no halving, because it takes most of a second a suggestion.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import moocore
import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from study import commandline
from study.errors import UserError
from study.records import columns, study_folder
from study.tuning.halving import Rungs
from study.tuning.searcher import make_sampler
from study.tuning.space import SearchSpace

SPACE = SearchSpace.load("sws")
OBJECTIVES = SPACE.objectives
TABLE = Path(__file__).parent / "recorded" / "sws_digits.csv"
# Worse than this in either is of no use on digits: 17 points of accuracy lost, or over a tenth of the weights left.
REFERENCE = {"val_accuracy": 80.0, "sparsity": 90.0}
SEARCHERS = ("random", "tpe", "nsga2", "gp")
BUDGETS = (16, 24, 32, 64)  # in whole trials; the first ten suggestions of tpe and gp, and twenty of nsga2, are random
SLOW_SEEDS, SLOW_BUDGET = 5, 24  # of gp


# --- the recorded trials


def record(folder: Path) -> tuple[str, pd.DataFrame]:
    """The searched trials of a study, one row each: hyperparameters, `state`, `file_bytes`, and METRIC@EPOCH columns.

    Returns: where it comes from, in one line, and the table.
    Raises:
        UserError: no such study, or one whose trials a scheduler stopped, so that their ends are not known.
    """
    study = study_folder.load(folder)
    trials = study.trials[(study.trials["baseline"] == "") & study.trials["state"].isin(columns.FINAL_STATES)]
    if (trials["state"] == "pruned").any():
        raise UserError(f"{folder}: trials were stopped early; record a study run with --scheduler none")
    curves = study.history.pivot(index="trial_id", columns="epoch", values=list(OBJECTIVES))
    curves.columns = pd.Index([f"{metric}@{epoch}" for metric, epoch in curves.columns])
    # A failed trial of this kind ends before its last epoch, or without one.
    first = trials.reindex(columns=["trial_id", "state", *SPACE.domains, "file_bytes"])
    table = first.join(curves, on="trial_id").dropna(axis=1, how="all")
    commit = str(study.meta.get("git_commit", ""))[:12]
    return f"{len(table)} trials of `{study.meta.get('command', folder)}` at commit {commit}", table


def write(path: Path, note: str, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    study_folder.write_text(path, f"# {note}\n" + table.to_csv(index=False, float_format="%.6g"))


@dataclass(frozen=True)
class Recorded:
    """Recorded trials.

    Attributes:
        note: where they come from.
        places: in the unit cube of the hyperparameters, (trials, hyperparameters).
        curves: objectives after each epoch, (trials, epochs, objectives); not a number from a failure on.
    """

    note: str
    places: np.ndarray
    curves: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Raises: UserError, where there is no table."""
        if not path.is_file():
            raise UserError(f"{path}: not there; write it with --record results/NAME")
        with path.open(encoding="utf-8") as file:
            note = file.readline().lstrip("# ").rstrip()
        return cls.of(note, pd.read_csv(path, comment="#"))

    @classmethod
    def of(cls, note: str, table: pd.DataFrame) -> Recorded:
        space = SPACE.distributions()
        epochs = max(int(column.split("@")[1]) for column in table.columns if "@" in column)
        values = [[table[f"{metric}@{epoch}"] for metric in OBJECTIVES] for epoch in range(1, epochs + 1)]
        curves = np.array(values, dtype=float).transpose(2, 0, 1)
        curves[(table["state"] == "failed").to_numpy(), -1] = np.nan
        return cls(note, np.array([place(row, space) for row in table.to_dict("records")]), curves)

    def volume(self) -> float:
        """Hypervolume of all of them, at their ends."""
        ends = self.curves[:, -1]
        return volume(ends[np.isfinite(ends).all(axis=1)])

    def answer(self, where: np.ndarray, neighbours: int, without: int | None = None) -> np.ndarray:
        """The surrogate: a curve for any place, (epochs, objectives); `without` leaves one recorded trial out."""
        distance = np.linalg.norm(self.places - where, axis=1)
        if without is not None:
            distance[without] = np.inf
        near = distance.argsort(kind="stable")[:neighbours]
        weights = 1 / np.maximum(distance[near], 1e-9)
        return np.tensordot(weights / weights.sum(), self.curves[near], axes=1)

    def errors(self, neighbours: int) -> dict[str, float]:
        """Mean absolute error of the surrogate's final objectives, each trial left out in turn."""
        ends = [self.answer(where, neighbours, without=i)[-1] for i, where in enumerate(self.places)]
        return dict(zip(OBJECTIVES, np.nanmean(np.abs(np.array(ends) - self.curves[:, -1]), axis=0), strict=True))


def place(values: Mapping[Any, Any], space: Mapping[str, BaseDistribution]) -> np.ndarray:
    """Where a configuration lies in the unit cube of its space, (hyperparameters,)."""
    found = []
    for name, domain in space.items():
        assert isinstance(domain, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution), name
        low, high, value = domain.low, domain.high, values[name]
        if domain.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        found.append((value - low) / (high - low))
    return np.array(found)


def volume(points: Sequence[np.ndarray] | np.ndarray) -> float:
    """Hypervolume of points, each (objectives,), over `REFERENCE`; in percent of accuracy times percent of sparsity."""
    corner = [REFERENCE[metric] for metric in OBJECTIVES]
    maximise = [direction == "max" for direction in OBJECTIVES.values()]
    return float(moocore.hypervolume(np.array(points), ref=corner, maximise=maximise)) if len(points) else 0.0


# --- one search


class Source(Protocol):
    """Says which trial is next, and learns how it ended."""

    def ask(self) -> tuple[Any, np.ndarray] | None:
        """A trial and its curve, (epochs, objectives); None if there are no more."""

    def tell(self, trial: Any, state: TrialState, values: np.ndarray) -> None: ...


class Drawn:
    """The recorded trials in random order, each once."""

    def __init__(self, recorded: Recorded, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(recorded.curves))
        self.left: Iterator[tuple[Any, np.ndarray]] = ((i, recorded.curves[i]) for i in order)

    def ask(self) -> tuple[Any, np.ndarray] | None:
        return next(self.left, None)

    def tell(self, trial: Any, state: TrialState, values: np.ndarray) -> None:
        """Random search does not learn."""


class Suggested:
    """One of the study's samplers: it hears what `study.tuning.searcher` reports, and the surrogate answers it."""

    def __init__(self, recorded: Recorded, searcher: str, seed: int, neighbours: int) -> None:
        self.recorded, self.neighbours = recorded, neighbours
        self.space = SPACE.distributions()
        best = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
        directions = [best[direction] for direction in OBJECTIVES.values()]
        self.study = optuna.create_study(sampler=make_sampler(searcher, seed, 0), directions=directions)

    def ask(self) -> tuple[Any, np.ndarray]:
        trial = self.study.ask(self.space)
        return trial, self.recorded.answer(place(trial.params, self.space), self.neighbours)

    def tell(self, trial: Any, state: TrialState, values: np.ndarray) -> None:
        self.study.tell(trial, values.tolist() if state == TrialState.COMPLETE else None, state=state)


@dataclass(frozen=True)
class Search:
    """A search that was replayed.

    Attributes:
        spent, found: epochs spent when a trial ended, and the hypervolume from then on; both (steps,).
        started, finished: trials, counted.
        epochs: spent in all; fewer than the budget if there were no more trials.
    """

    spent: np.ndarray
    found: np.ndarray
    started: int
    finished: int
    epochs: int

    def at(self, epochs: float) -> float:
        """The hypervolume when so many epochs are spent; not a number where the trials were not enough for that."""
        if epochs > self.epochs:
            return math.nan
        return float(self.found[np.searchsorted(self.spent, epochs, side="right") - 1])


@dataclass(eq=False)
class Running:
    """A trial under way."""

    trial: Any
    name: str
    curve: np.ndarray
    epoch: int = 0


def replay(source: Source, budget: int, rungs: Rungs | None = None, workers: int = 2) -> Search:
    """Run trials until `budget` epochs are spent; `rungs` may stop them early."""
    running: list[Running] = []
    ends: list[np.ndarray] = []
    steps, epochs, started = [(0, 0.0)], 0, 0
    while epochs < budget:
        while len(running) < workers and (asked := source.ask()) is not None:
            started += 1
            running.append(Running(asked[0], f"t{started:03d}", asked[1]))
        if not running:
            break
        for now in list(running):
            values = now.curve[now.epoch]
            now.epoch += 1
            epochs += 1
            if (state := state_of(now, values, rungs)) == TrialState.RUNNING:
                continue
            running.remove(now)
            source.tell(now.trial, state, values)
            if state == TrialState.COMPLETE:
                ends.append(values)
                steps.append((epochs, volume(ends)))
    spent, found = np.array(steps).T
    return Search(spent, found, started, len(ends), epochs)


def state_of(now: Running, values: np.ndarray, rungs: Rungs | None) -> TrialState:
    """What a trial is after this epoch's values."""
    if not np.isfinite(values).all():
        return TrialState.FAIL
    if now.epoch == len(now.curve):
        return TrialState.COMPLETE
    goes_on = rungs is None or rungs.judge(now.name, now.epoch, dict(zip(OBJECTIVES, values, strict=True)))
    return TrialState.RUNNING if goes_on else TrialState.PRUNED


# --- the tables


def halvings(epochs: int, grace: int) -> dict[str, Rungs | None]:
    """Name → fresh rungs of each way of halving; none first."""
    first, direction = next(iter(OBJECTIVES.items()))
    return {
        "none": None,
        "halving": Rungs(OBJECTIVES, epochs, grace),
        "halving, first front not protected": Rungs(OBJECTIVES, epochs, grace, keep_front=False),
        f"halving by {first} alone": Rungs({first: direction}, epochs, grace),
    }


def table(rows: Mapping[str, Sequence[Search]], epochs: int, best: float) -> str:
    """Markdown: mean ± standard deviation over seeds at each budget, and in brackets the ratio to the first row."""
    name, first = next(iter(rows.items()))
    budgets = [n * epochs for n in BUDGETS if math.isfinite(found(first, n * epochs).mean())]
    heads = ["", "trials started, finished", *(f"{n:,d} epochs" for n in budgets), f"epochs to reach {name}'s last"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, runs in rows.items():
        counts = ", ".join(f"{np.mean([getattr(s, count) for s in runs]):.0f}" for count in ("started", "finished"))
        cells = [cell(found(runs, budget), found(first, budget)[: len(runs)], best) for budget in budgets]
        goal = found(first, budgets[-1]).mean()
        grid = range(0, budgets[-1] + 1, max(1, epochs // 10))
        reached = next((f"{e:,d}" for e in grid if found(runs, e).mean() >= goal), "–")
        lines.append(f"| {' | '.join([name, counts, *cells, reached])} |")
    return "\n".join(lines)


def cell(values: np.ndarray, first: np.ndarray, best: float) -> str:
    if not math.isfinite(values.mean()):  # in some seed there were too few trials for that budget
        return "–"
    percent = 100 * values / best
    return f"{percent.mean():.1f} ± {percent.std(ddof=1):.1f} ({values.mean() / first.mean():.3f})"


def found(runs: Sequence[Search], epochs: int) -> np.ndarray:
    """Hypervolumes when so many epochs are spent, (seeds,)."""
    return np.array([search.at(epochs) for search in runs])


def halving_rows(recorded: Recorded, orders: int, grace: int, workers: int) -> dict[str, list[Search]]:
    """The recorded trials in random orders, with each way of halving."""
    trials, epochs, _ = recorded.curves.shape
    rows: dict[str, list[Search]] = {name: [] for name in halvings(epochs, grace)}
    for seed in range(orders):
        for name, rungs in halvings(epochs, grace).items():
            rows[name].append(replay(Drawn(recorded, seed), max(BUDGETS) * epochs, rungs, workers))
    return rows


def searcher_rows(
    recorded: Recorded, searchers: Sequence[str], seeds: int, grace: int, neighbours: int, workers: int
) -> dict[str, list[Search]]:
    """Each searcher without halving, then with it."""
    epochs = recorded.curves.shape[1]

    def run(searcher: str, seed: int, budget: int, halving: bool) -> Search:
        rungs = Rungs(OBJECTIVES, epochs, grace) if halving else None
        return replay(Suggested(recorded, searcher, seed, neighbours), budget, rungs, workers)

    rows = {}
    for halving in (False, True):
        for searcher in searchers:
            slow = searcher == "gp"
            if slow and halving:
                continue
            name = f"{searcher}, {SLOW_SEEDS} seeds" if slow and seeds > SLOW_SEEDS else searcher
            many = range(min(seeds, SLOW_SEEDS) if slow else seeds)
            budget = (SLOW_BUDGET if slow else max(BUDGETS)) * epochs
            rows[f"{name}, halving" if halving else name] = [run(searcher, seed, budget, halving) for seed in many]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="study folder to write the table from")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=10, help="of each searcher, 2 or more; orders are 5 times as many")
    parser.add_argument("--searchers", nargs="+", choices=SEARCHERS, default=list(SEARCHERS))
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--grace", type=int, help="epoch of the first rung; default half of all, as in studies")
    options = parser.parse_args()
    if options.record:
        note, recorded_table = record(options.record)
        write(options.table, note, recorded_table)
        print(f"{options.table}: {note}")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch, which gp imports later: its tensors are small
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    start = time.perf_counter()
    recorded = Recorded.read(options.table)
    trials, epochs, _ = recorded.curves.shape
    grace, orders, best = options.grace or max(1, epochs // 2), 5 * options.seeds, recorded.volume()
    over = ", ".join(f"{metric} {value:g}" for metric, value in REFERENCE.items())
    off = ", ".join(f"{metric} by {error:.2f}" for metric, error in recorded.errors(options.neighbours).items())
    print(f"`python {shlex.join(sys.argv)}`: {recorded.note}; {epochs} epochs a trial, {options.workers} trials at a "
          f"time, halving from epoch {grace}. Hypervolume over {over}, in % of that of all {trials} trials "
          f"({best:.1f}): mean ± standard deviation (ratio of the mean to the first row's).\n")  # fmt: skip
    rows = halving_rows(recorded, orders, grace, options.workers)
    print(f"Recorded trials in {orders} random orders, no surrogate:\n\n{table(rows, epochs, best)}\n", flush=True)
    rows = searcher_rows(recorded, options.searchers, options.seeds, grace, options.neighbours, options.workers)
    print(f"Searchers, {options.seeds} seeds, answered by the {options.neighbours} nearest of the recorded trials (off "
          f"in {off} on average, each trial left out in turn):\n\n{table(rows, epochs, best)}\n")  # fmt: skip
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(commandline.status(main))

"""Asynchronous successive halving, in one or several objectives: which trials are worth the rest of their epochs.

Li et al. (2020), https://arxiv.org/abs/1810.05934; by non-dominated rank as in Schmucker et al. (2021),
https://arxiv.org/abs/2106.12639, and Syne Tune's MOASHA.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import moocore
import numpy as np

from study.records.columns import Row
from study.tuning.costs import costs_of, signs_of


class Rungs:
    """What trials had reached at the epochs at which they are judged, and the verdicts.

    A trial goes on from a rung if fewer than ceil(n / reduction) of the n trials recorded there, itself included, rank
    before it. So the first one always goes on, and trials equal to the last one that goes on do so too. Rungs are
    asynchronous: nobody waits, and an early verdict rests on few trials.

    Trials rank by the number of their non-dominated front, then within a front in the order of `spread`; with one
    objective this is the order of its values. A trial with a value that is no finite number ranks behind all others.

    Args:
        objectives: metric → "max" or "min".
        epochs: that a complete trial takes.
        grace: first epoch at which a trial may be stopped.
        reduction: one in so many of the trials at a rung goes on; also the ratio of a rung's epoch to the one before.
        keep_front: never stop a trial that none recorded at its rung dominates, even when these are more than go on.
            With one objective this changes nothing. Not in the papers; `tests/benchmarks/search_replay.py` measures it.
    Attributes:
        levels: epochs of the rungs, ascending: grace, grace · reduction, … below `epochs`, since reaching the last
            epoch is finishing, not being stopped.
    Raises:
        ValueError: no objective, a direction that is neither "max" nor "min", or a number that cannot be meant.
    """

    def __init__(
        self, objectives: Mapping[str, str], epochs: int, grace: int, reduction: int = 3, keep_front: bool = True
    ) -> None:
        self.signs = signs_of(objectives, "halving")
        if grace < 1 or reduction < 2:
            raise ValueError(f"grace {grace} must be 1 or more, reduction {reduction} 2 or more")
        self.reduction, self.keep_front = reduction, keep_front
        self.levels: list[int] = []
        while grace < epochs:
            self.levels.append(grace)
            grace *= reduction
        self._recorded = {level: _Recorded(len(self.signs)) for level in self.levels}
        self._reached: dict[str, int] = {}
        self._stopped: set[str] = set()

    def judge(self, trial_id: str, epoch: int, metrics: Row) -> bool:
        """Whether the trial goes on after this report; records it if it has newly reached a rung.

        A trial is judged once at each rung, so epochs that are reported again change nothing, and one that was stopped
        stays so. One that reports less often than the rungs lie is judged at the last that it has passed, since its
        values would be unfair to those who were recorded at the earlier ones.

        Args:
            epoch: finished epochs of this trial, from 1.
            metrics: this epoch's, of which the objectives are read; a report without one of them (a phase that cannot
                measure it) is not judged, and the trial is judged at the next report that has them all.
        """
        level = self._record(trial_id, epoch, metrics)
        if level and not self._last_goes_on(self._recorded[level].costs):
            self._stopped.add(trial_id)
        return trial_id not in self._stopped

    def _last_goes_on(self, costs: np.ndarray) -> bool:
        """The verdict on the last row. Ranking takes long where there are thousands of rows, and is needed only where
        it does not follow from how many rows dominate that one, or are dominated by it: those are before and behind it.

        Args:
            costs: (trials, objectives), less is better. Rows that are not finite come last.
        """
        last, limit = costs[-1], math.ceil(len(costs) / self.reduction)
        if np.isfinite(last).all():
            before = int(((costs <= last).all(axis=1) & (costs < last).any(axis=1)).sum())
            not_behind = int((~((last <= costs).all(axis=1) & (last < costs).any(axis=1)) & _finite(costs)).sum()) - 1
            if before == 0 and self.keep_front or not_behind < limit:
                return True
            if before >= limit:
                return False
        front, ahead = standing(costs)
        return ahead < limit or (self.keep_front and front == 0)

    def recall(self, trial_id: str, history: Iterable[Row]) -> None:
        """Record what a trial had reported before this process started, so that others are measured by it. Its verdicts
        were given then: it is not judged again.

        Args:
            history: its reports, each with its `epoch`, in order.
        """
        for row in history:
            self._record(trial_id, row["epoch"], row)

    def _record(self, trial_id: str, epoch: int, metrics: Row) -> int:
        """The rung that the trial has newly reached, where it is recorded; 0 if there is none."""
        level = max((rung for rung in self.levels if rung <= epoch), default=0)
        if level <= self._reached.get(trial_id, 0) or trial_id in self._stopped:
            return 0
        costs = costs_of(metrics, self.signs)
        if costs is None:
            return 0
        self._reached[trial_id] = level
        self._recorded[level].add(costs)
        return level


class _Recorded:
    """The costs of the trials at a rung, in an array that has room for more."""

    def __init__(self, objectives: int) -> None:
        self._rows = np.empty((16, objectives))
        self._count = 0

    @property
    def costs(self) -> np.ndarray:
        """(trials, objectives)."""
        return self._rows[: self._count]

    def add(self, costs: np.ndarray) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = costs if np.isfinite(costs).all() else np.nan  # it ranks behind all others
        self._count += 1


def _finite(costs: np.ndarray) -> np.ndarray:
    return np.isfinite(costs).all(axis=1)


def standing(costs: np.ndarray) -> tuple[int, int]:
    """Where the last row stands among all of them.

    Args:
        costs: (trials, objectives), less is better. Rows that are not finite come last.
    Returns: the number of its non-dominated front, from 0, and how many rows rank before it; equal rows share a place.
    """
    finite = _finite(costs)
    if not finite[-1]:
        return len(costs), len(costs) - 1
    points, which, counts = np.unique(costs[finite], axis=0, return_inverse=True, return_counts=True)
    last = which.reshape(-1)[-1]
    fronts = moocore.pareto_rank(points)
    mine = np.flatnonzero(fronts == fronts[last])
    order = mine[spread(points[mine])]
    before = order[: int(np.flatnonzero(order == last)[0])]
    return int(fronts[last]), int(counts[fronts < fronts[last]].sum() + counts[before].sum())


def spread(points: np.ndarray) -> np.ndarray:
    """An order of the points of a front in which any beginning covers it well: an ε-net.

    The best in the first objective, then always the one farthest from all before it, as in Syne Tune's MOASHA in place
    of NSGA-II's crowding distance (Salinas et al. 2021, "A multi-objective perspective on jointly tuning hardware and
    hyperparameters"). Distances are Euclidean and, unlike there, in units of the front's range in each objective.

    Args:
        points: (points, objectives), less is better, no two equal.
    Returns: indices, (points,).
    """
    extent = np.ptp(points, axis=0)
    scaled = points / np.where(extent > 0, extent, 1.0)
    order = [int(points[:, 0].argmin())]
    nearest = np.full(len(points), np.inf)
    while len(order) < len(points):
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        nearest[order] = -1.0
        order.append(int(nearest.argmax()))
    return np.array(order)

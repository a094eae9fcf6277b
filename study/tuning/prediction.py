"""Stopping trials that cannot end on the front, as far as the trials that finished before them tell.

To stop a run that will hardly beat the best one is the rule of Domhan, Springenberg & Hutter (2015), "Speeding up
automatic hyperparameter optimization of deep neural networks by extrapolation of learning curves", sec. 4. In place of
their families of curves the study's own finished trials extrapolate, as in Chandrashekaran & Lane (2017), "Speeding up
hyper-parameter optimization by extrapolation of learning curves using previous builds"; and the best one is a front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from study.records.columns import Row
from study.tuning.costs import costs_of, dominated, signs_of

DONORS = 8
"""Finished trials that a prediction rests on: tests/benchmarks/search_replay.py."""
CHECKS = 10
"""Times that a trial would be judged if its first check came at once."""


class PredictedFront:
    """Which trials could still end on the front.

    A trial is judged every tenth of its epochs. The `donors` finished trials that were most like it at that epoch each
    predict its end: its values now, plus what the donor gained from there to its own end. The trial is stopped if
    finished trials dominate all of these ends. So the spread of the gains is the uncertainty of the prediction: early,
    when donors gained very different amounts, hardly any trial is stopped. Until so many trials have finished, none is.

    Most like it are those whose objectives were closest at that epoch, in units of their standard deviation then.

    Args:
        objectives: metric → "max" or "min".
        epochs: that a complete trial takes.
        grace: first epoch at which a trial may be stopped.
        donors: finished trials that predict an end.
    Attributes:
        levels: epochs at which trials are judged, ascending, below `epochs`.
    Raises:
        ValueError: no objective, a direction that is neither "max" nor "min", or a number that cannot be meant.
    """

    def __init__(self, objectives: Mapping[str, str], epochs: int, grace: int, donors: int = DONORS) -> None:
        self.signs = signs_of(objectives, "a predicted front")
        if grace < 1 or donors < 1:
            raise ValueError(f"grace {grace} and donors {donors} must be 1 or more")
        self.epochs, self.donors = epochs, donors
        self.levels = list(range(grace, epochs, math.ceil(epochs / CHECKS)))
        self._curves: dict[str, dict[int, np.ndarray]] = {}
        self._judged: dict[str, int] = {}
        self._finished: list[str] = []
        self._stopped: set[str] = set()

    def judge(self, trial_id: str, epoch: int, metrics: Row) -> bool:
        """Whether the trial goes on after this report.

        It is judged once at each level, so epochs that are reported again change nothing, and one that was stopped
        stays so. One that passes over a level is judged at its next report.

        Args:
            epoch: finished epochs of this trial, from 1.
            metrics: this epoch's, of which the objectives are read; a report without one of them (a phase that cannot
                measure it) is not judged.
        """
        costs = self._record(trial_id, epoch, metrics)
        level = max((level for level in self.levels if level <= epoch < self.epochs), default=0)
        if costs is not None and level > self._judged.get(trial_id, 0):
            self._judged[trial_id] = level
            if not self._may_reach_the_front(epoch, costs):
                self._stopped.add(trial_id)
        return trial_id not in self._stopped

    def finish(self, trial_id: str) -> None:
        """The trial has run to its end, which was its last report."""
        if trial_id in self._curves and trial_id not in self._finished:
            self._finished.append(trial_id)

    def recall(self, trial_id: str, history: Iterable[Row], finished: bool) -> None:
        """Record what a trial had reported before this process started, so that it predicts others. Its verdicts were
        given then: it is not judged again at levels that it had passed.

        Args:
            history: its reports, each with its `epoch`, in order.
            finished: whether it ran to its end.
        """
        for row in history:
            if self._record(trial_id, row["epoch"], row) is not None:
                self._judged[trial_id] = row["epoch"]
        if finished:
            self.finish(trial_id)

    def _record(self, trial_id: str, epoch: int, metrics: Row) -> np.ndarray | None:
        """The costs of a new epoch, (objectives,); None where it is not new, or has not all objectives."""
        costs = costs_of(metrics, self.signs)
        if trial_id in self._stopped or costs is None:
            return None
        curve = self._curves.setdefault(trial_id, {})
        if epoch <= max(curve, default=0):
            return None
        curve[epoch] = costs
        return costs

    def _may_reach_the_front(self, epoch: int, costs: np.ndarray) -> bool:
        """Whether any donor's gain would bring a trial with these costs to an end that no finished trial dominates."""
        curves = [self._curves[name] for name in self._finished if min(self._curves[name]) <= epoch]
        if len(curves) < self.donors:
            return True
        if not np.isfinite(costs).all():
            return False
        then = np.array([curve[max(known for known in curve if known <= epoch)] for curve in curves])
        ends = np.array([curve[max(curve)] for curve in curves])
        predicted = costs + nearest_gains(costs, then, ends, self.donors)
        return not dominated(predicted, ends).all()


def nearest_gains(costs: np.ndarray, then: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """What those of the finished trials gained that were most like a trial.

    Args:
        costs: of the trial at an epoch, (objectives,).
        then, ends: of the finished trials, at that epoch and at their ends, (trials, objectives).
    Returns: changes from then to the end, (count, objectives).
    """
    spread = then.std(axis=0)
    distances = np.linalg.norm((then - costs) / np.where(spread > 0, spread, 1.0), axis=1)
    nearest = distances.argsort(kind="stable")[:count]
    return ends[nearest] - then[nearest]

"""When a search is over before `--num-samples`: after `--time`, or `--until stalled`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from study.records.columns import FINAL_STATES, Row, column
from study.records.ledger import Ledger, NewlyComplete
from study.settings import Settings
from study.tuning.nondominated import Nondominated
from study.tuning.searcher import constraint_violation

FEWEST = 20
"""Trials that must bring nothing before a search counts as stalled."""
LOOKS = 200
"""Trials of which one more is enough to look again; of ten times as many, ten more."""
LEAST_GAIN = 0.005
"""Share of the front's hypervolume that they must add."""


class Ending:
    """Says why a search is over, or "".

    Args:
        objectives: metric → "max" or "min".
        deadline: `time.monotonic()` after which no further trial starts.
    """

    def __init__(self, settings: Settings, ledger: Ledger, objectives: Mapping[str, str], deadline: float) -> None:
        self.settings, self.ledger, self.objectives, self.deadline = settings, ledger, objectives, deadline
        self.before = {row["trial_id"] for row in ledger.of_state(*FINAL_STATES)}
        """Trials of earlier commands: they are no reason for this one to end before it has tried."""
        self._next_look = 0
        """Trials that must have ended before the search is looked at again: that takes longer the more there are."""

    def __call__(self) -> str:
        budget = self.settings.budget
        if time.monotonic() >= self.deadline:
            return f"--time {budget.time} is over"
        ended = len(self.ledger.ended)
        if not budget.until or ended < self._next_look:
            return ""
        self._next_look = ended + max(1, ended // LOOKS)
        rows = sorted(self.ledger.of_state(*FINAL_STATES), key=lambda row: str(row.get("ended", "")))
        tried = sum(row["trial_id"] not in self.before for row in rows)
        if last := last_without_gain(rows, self.objectives, self.settings.search.min_accuracy):
            return f"--until stalled: the last {last} trials brought nothing" if tried >= FEWEST else ""
        return ""


def last_without_gain(rows: Sequence[Row], objectives: Mapping[str, str], min_accuracy: float | None = None) -> int:
    """How many of the last trials were to bring something and did not; 0 while the search has not stalled.

    Args:
        rows: of finished trials, in the order in which they ended; those that were stopped or failed brought nothing.
    """
    last = max(FEWEST, len(rows) // 3)
    if len(rows) < 2 * last:
        return 0
    costs = np.array([_costs(row, objectives, min_accuracy) for row in rows])
    return 0 if _gain(costs, len(rows) - last) > LEAST_GAIN * (len(objectives) > 1) else last


def _costs(row: Row, objectives: Mapping[str, str], min_accuracy: float | None) -> list[float]:
    """Less is better; not finite where a trial has no place on the front."""
    if row["state"] != "complete" or (min_accuracy is not None and constraint_violation(row, min_accuracy) > 0):
        return [math.inf] * len(objectives)
    costs = []
    for metric, direction in objectives.items():
        value = float(row[metric])
        if column(metric).scale == "log" and value > 0:
            value = math.log(value)
        costs.append(-value if direction == "max" else value)
    return costs


def _gain(costs: np.ndarray, before: int) -> float:
    """What the rows behind the first so many add: of one objective to the best, otherwise as a share of the
    hypervolume that all dominate, within the range of all."""
    finite = np.isfinite(costs).all(axis=1)
    if not finite[:before].any():
        return math.inf
    if costs.shape[1] == 1:
        return float(costs[:before][finite[:before]].min() - costs[finite].min())
    scaled = _scaled(costs, costs[finite])
    now, then = _volume(scaled[finite]), _volume(scaled[:before][finite[:before]])
    return float((now - then) / now)


class RunningHypervolume:
    """What the complete trials of a ledger dominate, as a share of what a trial would that is best in every objective;
    0 without any. Each look reads only the trials that have ended since the last one.

    Each objective is scaled to the range of these trials, so the share may fall when a new one widens it.
    """

    def __init__(self, ledger: Ledger, objectives: Mapping[str, str], min_accuracy: float | None = None) -> None:
        self.newly_complete = NewlyComplete(ledger)
        self.objectives, self.min_accuracy = objectives, min_accuracy
        self._front = Nondominated(len(objectives))
        self._range = np.array([[np.inf], [-np.inf]]).repeat(len(objectives), axis=1)  # lowest and highest costs

    def value(self) -> float:
        """The share now."""
        for row in self.newly_complete.rows():
            costs = np.array(_costs(row, self.objectives, self.min_accuracy))
            if np.isfinite(costs).all():
                self._front.add(row["trial_id"], costs)
                self._range = np.array([np.minimum(self._range[0], costs), np.maximum(self._range[1], costs)])
        if not self._front.names:
            return 0.0
        return _volume(_scaled(self._front.costs, self._range)) / FURTHEST ** len(self.objectives)


FURTHEST = 1.1
"""Cost of the reference point, where the range of all is 0 to 1, so that the ends of the front count."""


def _scaled(costs: np.ndarray, among: np.ndarray) -> np.ndarray:
    low, high = among.min(axis=0), among.max(axis=0)
    return (costs - low) / np.where(high > low, high - low, 1.0)


def _volume(scaled: np.ndarray) -> float:
    return float(moocore.hypervolume(scaled, ref=np.full(scaled.shape[1], FURTHEST)))

"""A front that grows: what no other point dominates, brought up to date point by point."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from study.records.ledger import Ledger, NewlyComplete
from study.tuning.costs import costs_of, signs_of
from study.tuning.searcher import constraint_violation


class Nondominated:
    """The points that no other one dominates; equal ones all stay.

    Attributes:
        names: of the members, in the order in which they came.
        costs: of the members, (members, objectives); less is better.
    """

    def __init__(self, objectives: int) -> None:
        self.names: list[str] = []
        self.costs = np.empty((0, objectives))

    def add(self, name: str, costs: np.ndarray) -> None:
        """Add a point, unless a member dominates it; the members that it dominates go.

        Args:
            costs: (objectives,), finite.
        """
        if ((self.costs <= costs).all(axis=1) & (self.costs < costs).any(axis=1)).any():
            return
        worse = (costs <= self.costs).all(axis=1) & (costs < self.costs).any(axis=1)
        stay = np.flatnonzero(~worse)
        self.names = [*(self.names[member] for member in stay), name]
        self.costs = np.vstack([self.costs[stay], costs])


class RunningFront:
    """The front of a ledger's complete trials, as `searcher.front` has it. Each call looks only at the trials that have
    ended since the last one."""

    def __init__(self, ledger: Ledger, objectives: Mapping[str, str], min_accuracy: float | None = None) -> None:
        self.newly_complete, self.min_accuracy = NewlyComplete(ledger), min_accuracy
        self.signs = signs_of(objectives, "a front")
        self._front = Nondominated(len(objectives))

    def members(self) -> set[str]:
        """Ids of its trials."""
        for row in self.newly_complete.rows():
            costs = costs_of(row, self.signs)
            assert costs is not None, row  # what lacks an objective has not completed
            if self.min_accuracy is None or constraint_violation(row, self.min_accuracy) <= 0:
                self._front.add(row["trial_id"], costs)
        return set(self._front.names)

"""Which trials of a study are in which state, without looking at all of them each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from study.records.columns import FINAL_STATES, Row


class TrialStates:
    """Counts of trials by state, those that run, and the order in which trials ended.

    Attributes:
        running: trial id → row.
        ended: rows in the order in which their trials ended; those of earlier commands come first, in the order of the
            table. A row stays when its trial is started again, so whoever has read the list up to some place goes on
            from there.
    """

    def __init__(self) -> None:
        self.running: dict[str, Row] = {}
        self.ended: list[Row] = []
        self._states: dict[str, tuple[str, bool]] = {}
        self._counts: Counter[tuple[str, bool]] = Counter()

    def count(self, state: str, baseline: bool = False) -> int:
        """Trials in this state: the searched ones, or the baselines."""
        return self._counts[state, baseline]

    def note(self, trial_id: str, row: Row) -> None:
        """A trial is new, or has another row or another state."""
        state = row["state"], bool(row["baseline"])
        before = self._states.get(trial_id)
        if before is not None:
            self._counts[before] -= 1
        self._states[trial_id] = state
        self._counts[state] += 1
        self.running.pop(trial_id, None)
        if state[0] == "running":
            self.running[trial_id] = row
        elif state[0] in FINAL_STATES and state != before:
            self.ended.append(row)

    def note_new(self, trials: Mapping[str, Row]) -> None:
        """Note those that are not known yet.

        Args:
            trials: id → row, of all trials.
        """
        if len(self._states) < len(trials):
            for trial_id, row in trials.items():
                if trial_id not in self._states:
                    self.note(trial_id, row)

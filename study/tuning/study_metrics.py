"""The study as time series: what Ray exports of it to Prometheus, under names that begin with `ray_`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import ray
from ray.util.metrics import Counter, Gauge

from study.records.columns import COLUMNS, FINAL_STATES, Row
from study.records.ledger import Ledger, NewlyComplete
from study.tuning.ending import RunningHypervolume

OF_TRIALS = ("val_accuracy", "train_loss", "sparsity", "entropy_bytes")
"""What of every epoch is exported, by study and trial, where the method reports it."""


SECONDS = 1.0
"""Between two exports of what all trials came to, which takes longer the more there are."""


AGAIN = 5.0
"""Seconds after which every gauge is set again; Ray exports every 10 s what was set since."""


class Series(NamedTuple):
    """A metric.

    Attributes:
        tags: that tell its series apart.
        counter: whether it only grows; Prometheus then has it as `NAME_total`.
    """

    description: str
    tags: tuple[str, ...]
    counter: bool = False


SERIES = {
    **{f"study_{name}": Series(COLUMNS[name].label, ("study", "trial")) for name in OF_TRIALS},
    "study_best": Series("best value of an objective among finished trials", ("study", "objective")),
    "study_front_size": Series("members of the Pareto front", ("study",)),
    "study_hypervolume": Series("share that the front dominates, within the range of all trials so far", ("study",)),
    "study_trials": Series("trials in each state", ("study", "state")),
    "study_epochs": Series("epochs that have ended", ("study",), counter=True),
}


def exported_names() -> list[str]:
    """Names of the series as Prometheus has them."""
    return [f"ray_{name}{'_total' * series.counter}" for name, series in SERIES.items()]


class StudyMetrics:
    """Exports what the ledger of a study says. Ray forgets a gauge that nobody sets for a while, so a thread sets all
    of them again, which would otherwise have gaps.

    Args:
        study: its name.
        objectives: metric → "max" or "min".
    """

    def __init__(
        self, study: str, ledger: Ledger, objectives: Mapping[str, str], min_accuracy: float | None = None
    ) -> None:
        self.study, self.ledger, self.objectives = study, ledger, objectives
        self.newly_complete = NewlyComplete(ledger)
        self.hypervolume = RunningHypervolume(ledger, objectives, min_accuracy)
        self.best: dict[str, float] = {}
        """Objective → best value so far."""
        self.metrics: dict[str, Gauge | Counter] = {}
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.next = 0.0
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None

    def epoch(self, trial_id: str, row: Row) -> None:
        """A trial has reported an epoch."""
        for name in OF_TRIALS:
            if name in row:
                self._set(f"study_{name}", row[name], trial=trial_id)
        self._metric("study_epochs").inc(1, {"study": self.study})  # type: ignore[union-attr]

    def ended(self, trial_id: str) -> None:
        """A trial has ended: its own series end, too."""
        for key in [key for key in self.values if ("trial", trial_id) in key[1]]:
            del self.values[key]

    def trials(self, front_size: int, last: bool = False) -> None:
        """A trial has started or ended. What came within a second of the last call is exported with the next one."""
        if time.monotonic() < self.next and not last:
            return
        self.next = time.monotonic() + SECONDS
        for state in ("running", *FINAL_STATES):
            self._set("study_trials", self.ledger.count(state), state=state)
        self._set("study_front_size", front_size)
        self._update_best()
        for objective, value in self.best.items():
            self._set("study_best", value, objective=objective)
        if len(self.objectives) > 1 and self.best:
            self._set("study_hypervolume", self.hypervolume.value())
        if self.thread is None and ray.is_initialized():
            self.thread = threading.Thread(target=self._set_again, daemon=True)
            self.thread.start()

    def _update_best(self) -> None:
        for row in self.newly_complete.rows():
            for objective, direction in self.objectives.items():
                if objective in row:
                    value = float(row[objective])
                    better = max if direction == "max" else min
                    self.best[objective] = better(value, self.best.get(objective, value))

    def close(self) -> None:
        """Nothing is exported from now on."""
        self.closed.set()

    def _set_again(self) -> None:
        while not self.closed.wait(AGAIN) and ray.is_initialized():
            for (name, tags), value in list(self.values.items()):
                self.metrics[name].set(value, dict(tags))  # type: ignore[union-attr]

    def _set(self, name: str, value: object, **tags: str) -> None:
        tags = {"study": self.study, **tags}
        number = self.values[name, tuple(tags.items())] = float(str(value))
        self._metric(name).set(number, tags)  # type: ignore[union-attr]

    def _metric(self, name: str) -> Gauge | Counter:
        if name not in self.metrics:
            series = SERIES[name]
            self.metrics[name] = (Counter if series.counter else Gauge)(name, series.description, series.tags)
        return self.metrics[name]

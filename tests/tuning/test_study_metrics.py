"""What of a study becomes a time series, without Ray running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.records.ledger import Ledger
from study.tuning.study_metrics import StudyMetrics

OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}


def finished(ledger: Ledger, trial_id: str, state: str = "complete", **metrics: float) -> None:
    ledger.start(trial_id, {"tau": 0.1})
    ledger.finish(trial_id, state, "", metrics, 1.0)


def value(metrics: StudyMetrics, name: str, **tags: str) -> float:
    return metrics.values[name, tuple({"study": "s", **tags}.items())]


def test_series_say_what_the_ledger_has(tmp_path: Path) -> None:
    """Trials by state, the best of each objective, the front, and what it dominates; of trials that failed nothing."""
    ledger = Ledger(tmp_path)
    metrics = StudyMetrics("s", ledger, OBJECTIVES)
    finished(ledger, "t001", val_accuracy=90.0, sparsity=99.0)
    finished(ledger, "t002", val_accuracy=95.0, sparsity=80.0)
    finished(ledger, "t003", "failed")
    ledger.start("t004", {"tau": 0.2})
    metrics.trials(2)
    states = {state: value(metrics, "study_trials", state=state) for state in ("running", "complete", "failed")}
    assert states == {"running": 1, "complete": 2, "failed": 1}
    assert value(metrics, "study_best", objective="val_accuracy") == 95
    assert value(metrics, "study_best", objective="sparsity") == 99
    assert value(metrics, "study_front_size") == 2
    # Each is best in one objective and worst in the other: two strips of 0.1 by 1.1, of 1.1 by 1.1 in all.
    assert value(metrics, "study_hypervolume") == pytest.approx((2 * 0.11 - 0.01) / 1.21)


def test_a_trial_that_ended_has_no_series(tmp_path: Path) -> None:
    """Its last epoch is not exported for the rest of the study; those of others are."""
    metrics = StudyMetrics("s", Ledger(tmp_path), OBJECTIVES)
    for trial in ("t001", "t002"):
        row: dict[str, Any] = {"epoch": 1, "val_accuracy": 50.0, "phase": "train"}
        metrics.epoch(trial, row)
    metrics.ended("t001")
    assert [dict(tags)["trial"] for _, tags in metrics.values] == ["t002"]


def test_one_objective_has_no_hypervolume(tmp_path: Path) -> None:
    """Its best value says all. What comes within a second waits, but for the last."""
    ledger = Ledger(tmp_path)
    metrics = StudyMetrics("s", ledger, {"val_accuracy": "max"})
    metrics.trials(0)
    finished(ledger, "t001", val_accuracy=90.0)
    metrics.trials(1)
    assert value(metrics, "study_front_size") == 0
    metrics.trials(1, last=True)
    assert value(metrics, "study_front_size") == 1
    assert not any(name == "study_hypervolume" for name, _ in metrics.values)

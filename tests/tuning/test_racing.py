"""Further seeds are for trials that could still end on the front, by as much as seeds differ and no more."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from study.methods.kd.settings import KDSettings
from study.records.ledger import Ledger
from study.settings import Settings, resolve
from study.tuning.halving import Rungs
from study.tuning.racing import Race
from study.tuning.scheduler import HalvingScheduler, make_race

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
BOTH = {"val_accuracy": "max", "weight_bytes": "min"}


def end(accuracy: float, size: float = 100.0, spread: float | None = 0.5) -> dict[str, Any]:
    return {"val_accuracy": accuracy, "weight_bytes": size, "val_accuracy_sd": spread}


def race(*ends: dict[str, Any], seeds: int = 3) -> Race:
    now = Race(BOTH, seeds)
    for one in ends:
        now.finish(one)
    return now


def test_the_first_trial_has_all_its_seeds() -> None:
    assert race().judge(end(10.0))


def test_the_margin_is_students_interval_for_the_mean_of_all_seeds_given_the_first() -> None:
    """t(0.975, 4) = 2.776 from two trials of three seeds; s = √((0.3² + 0.5²) / 2), pooled."""
    now = race(end(90.0, spread=0.3), end(91.0, spread=0.5))
    assert now.margin() == pytest.approx(2.776445 * math.sqrt(0.17) * math.sqrt(2 / 3), rel=1e-6)


def test_a_trial_goes_on_while_luck_could_bring_it_to_the_front() -> None:
    now = race(end(90.0), end(90.0))
    margin = now.margin()
    assert now.judge(end(90.0 - margin + 0.01))
    assert not now.judge(end(90.0 - margin - 0.01))


def test_a_smaller_network_goes_on_however_far_it_is_behind() -> None:
    now = race(end(90.0, 100.0), end(80.0, 50.0))
    assert now.judge(end(10.0, 49.0))
    assert not now.judge(end(10.0, 50.0))  # as small as one that is better
    assert not now.judge(end(75.0, 70.0))


def test_what_has_no_spread_or_no_number_teaches_nothing() -> None:
    now = race(end(99.0, spread=None), end(math.nan))
    assert now.judge(end(10.0))
    assert race(end(90.0)).judge({"val_accuracy": 10.0})


def test_another_mean_over_seeds_is_not_raced_for() -> None:
    now = Race({"val_accuracy": "max", "val_loss": "min"}, 3)
    now.finish({"val_accuracy": 90.0, "val_loss": 0.1, "val_accuracy_sd": 0.1})
    assert now.judge({"val_accuracy": 10.0, "val_loss": 9.0})


def test_a_trial_whose_mean_would_win_is_rarely_stopped() -> None:
    """Trials of equal worth, seeds with a standard deviation of 0.6: of those whose mean ends above the best finished
    one at most 1 in 40 may be stopped, as the quantile says."""
    random = np.random.default_rng(0)
    lost = won = 0
    for _ in range(400):
        scores = random.normal(90.0, 0.6, (12, 3))
        now = race(*(end(row.mean(), spread=row.std(ddof=1)) for row in scores[:8]))
        best = max(row.mean() for row in scores[:8])
        for row in scores[8:]:
            if row.mean() > best:
                won += 1
                lost += not now.judge(end(row[0]))
    assert won > 100
    assert lost / won < 0.025


def ask(scheduler: HalvingScheduler, trial_id: str, report: dict[str, Any]) -> str:
    trial: Any = SimpleNamespace(config={"trial_id": trial_id})
    return scheduler.on_trial_result(None, trial, report)


def test_the_scheduler_asks_after_the_last_epoch_alone() -> None:
    """A trial that is behind is not raced before, and one that has finished is what others race against."""
    scheduler = HalvingScheduler(Rungs(BOTH, 9, 8), {"student alone"}, lambda config: 9, Race(BOTH, 3))
    for trial in ("t001", "t002"):
        assert ask(scheduler, trial, {"epoch": 9, **end(90.0, spread=None)}) == CONTINUE
        assert ask(scheduler, trial, {"epoch": 9, "finished": True, **end(90.0)}) == CONTINUE
    assert ask(scheduler, "t003", {"epoch": 7, **end(20.0, spread=None)}) == CONTINUE
    assert ask(scheduler, "t003", {"epoch": 9, **end(20.0, spread=None)}) == STOP
    assert ask(scheduler, "student alone", {"epoch": 9, **end(20.0, spread=None)}) == CONTINUE


def kd(**search: Any) -> Settings:
    return resolve(KDSettings().changed(**search))


def test_a_study_that_goes_on_races_against_its_finished_trials(tmp_path: Path) -> None:
    """Baselines, and trials that were stopped, are not what one races against."""
    ledger = Ledger(tmp_path)
    row = {"epochs": 9, "reason": ""}
    ledger.trials["student alone"] = {"state": "complete", "baseline": "student alone", **row, **end(99.0)}
    ledger.trials["t001"] = {"state": "stopped", "baseline": None, **row, **end(99.0)}
    ledger.trials["t002"] = {"state": "complete", "baseline": None, **row, **end(90.0)}
    ledger.trials["t003"] = {"state": "complete", "baseline": None, **row, **end(90.0)}
    now = make_race(kd(seeds_per_trial=3), BOTH, ledger)
    assert now is not None
    assert now.judge(end(89.9))
    assert not now.judge(end(80.0))
    assert make_race(kd(), BOTH, ledger) is None

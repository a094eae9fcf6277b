"""What Ray Tune is answered after a report: baselines and last epochs are not the business of halving."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from study.methods.kd.method import METHOD
from study.methods.kd.settings import KDSettings
from study.records.ledger import Ledger
from study.settings import resolve
from study.tuning.halving import Rungs
from study.tuning.scheduler import HalvingScheduler, make_rule, measured_objectives
from study.tuning.searcher import make_sampler

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
ACCURACY = {"val_accuracy": "max"}


def answers(scheduler: HalvingScheduler, trial_id: str, *reports: dict[str, Any]) -> list[str]:
    trial: Any = SimpleNamespace(config={"trial_id": trial_id})
    return [scheduler.on_trial_result(None, trial, report) for report in reports]


def halving(baselines: tuple[str, ...] = (), last_epoch: int = 9) -> HalvingScheduler:
    return HalvingScheduler(Rungs(ACCURACY, 9, 1), baselines, lambda config: last_epoch)


def report(epoch: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "val_accuracy": accuracy, **more}


def test_a_trial_that_is_behind_is_stopped() -> None:
    """The second of two, and only the second."""
    scheduler = halving()
    assert answers(scheduler, "t001", report(1, 90.0)) == [CONTINUE]
    assert answers(scheduler, "t002", report(1, 80.0)) == [STOP]


def test_a_baseline_is_neither_stopped_nor_a_measure() -> None:
    """The worst one goes on; and the best one stops nobody."""
    scheduler = halving(("teacher", "student alone"))
    assert answers(scheduler, "teacher", report(1, 99.0), report(3, 99.0)) == [CONTINUE, CONTINUE]
    assert answers(scheduler, "t001", report(1, 90.0), report(3, 90.0)) == [CONTINUE, CONTINUE]
    assert answers(scheduler, "student alone", report(1, 10.0), report(3, 10.0)) == [CONTINUE, CONTINUE]


@pytest.mark.parametrize("last", [{"finished": True}, {"failure": "out of memory"}])
def test_the_end_of_a_trial_is_not_judged(last: dict[str, Any]) -> None:
    """A report that ends a trial, and one without an epoch, is no reason to stop it, nor recorded at a rung."""
    scheduler = halving()
    assert answers(scheduler, "t001", report(1, 90.0)) == [CONTINUE]
    assert answers(scheduler, "t002", report(1, 10.0, **last), {"val_accuracy": 10.0}) == [CONTINUE, CONTINUE]
    assert answers(scheduler, "t003", report(1, 89.0)) == [STOP]  # the second of two, not the second of three
    assert answers(scheduler, "t002", report(1, 95.0)) == [CONTINUE]


def test_a_trial_in_its_last_epoch_has_nothing_left_to_stop() -> None:
    """Where its own number of epochs is searched, a trial may be through before the study's last rung."""
    scheduler = halving(last_epoch=3)
    assert answers(scheduler, "t001", report(1, 90.0), report(3, 90.0)) == [CONTINUE, CONTINUE]
    assert answers(scheduler, "t002", report(3, 10.0)) == [CONTINUE]
    assert answers(halving(last_epoch=4), "t001", report(3, 90.0)) == [CONTINUE]


@pytest.mark.parametrize(
    ("epochs", "objectives", "first"), [(40, 1, 10), (40, 2, 20), (41, 2, 20), (7, 1, 1), (2, 1, 1), (2, 2, 1)]
)
def test_a_quarter_of_the_epochs_is_grace_and_half_with_a_size(
    tmp_path: Path, epochs: int, objectives: int, first: int
) -> None:
    """The first rung, which is never before the first epoch."""
    searched = dict(list({"val_accuracy": "max", "parameters": "min"}.items())[:objectives])
    settings = resolve(KDSettings.of(epochs=epochs))
    assert make_rule(METHOD, settings, searched, Ledger(tmp_path), tmp_path).levels[0] == first


def test_baselines_are_not_recalled(tmp_path: Path) -> None:
    """On continuing, a searched trial measures the others and a baseline does not."""
    ledger = Ledger(tmp_path)
    ledger.start("student alone", {}, "student alone")
    ledger.epoch("student alone", report(2, 99.0))
    ledger.finish("student alone", "complete")
    settings = resolve(KDSettings.of(epochs=8))
    assert make_rule(METHOD, settings, ACCURACY, ledger, tmp_path).judge("t001", 2, report(2, 50.0))
    ledger.start("t001", {"temperature": 2.0, "alpha": 0.5})
    ledger.epoch("t001", report(2, 60.0))
    ledger.finish("t001", "complete")
    rungs = make_rule(METHOD, settings, ACCURACY, ledger, tmp_path)
    assert not rungs.judge("t002", 2, report(2, 50.0)) and rungs.judge("t003", 2, report(2, 70.0))


def test_what_only_a_finished_trial_has_is_stood_in_for() -> None:
    """A file's bytes by the entropy bound; what every epoch has, by nothing."""
    objectives = {"val_accuracy": "max", "file_bytes": "min"}
    assert measured_objectives(objectives) == {"val_accuracy": "max", "entropy_bytes": "min"}


def test_tpe_looks_at_all_hyperparameters_at_once() -> None:
    """And takes trials that still run for bad ones, so that those that run at one time differ."""
    sampler: Any = make_sampler("tpe", 0, 0)
    assert sampler._multivariate and sampler._constant_liar

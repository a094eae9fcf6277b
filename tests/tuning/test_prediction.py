"""Which trials a predicted front lets go on, against hand-computed cases."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from study.methods.kd.method import METHOD as KD
from study.methods.kd.settings import KDSettings
from study.records.ledger import Ledger
from study.settings import resolve
from study.tuning.prediction import PredictedFront, nearest_gains
from study.tuning.scheduler import HalvingScheduler, make_rule

ACCURACY = {"val_accuracy": "max"}
BOTH = {"val_accuracy": "max", "weight_bytes": "min"}
EPOCHS = 10


def row(*values: float) -> dict[str, float]:
    return dict(zip(BOTH, values, strict=False))


def run(rule: PredictedFront, trial_id: str, curve: list[tuple[float, ...]]) -> bool:
    """Report a trial's epochs until it is stopped; whether it ran to its end."""
    for epoch, values in enumerate(curve, start=1):
        if not rule.judge(trial_id, epoch, row(*values)):
            return False
    rule.finish(trial_id)
    return True


def steady(start: float, gain: float, *rest: float) -> list[tuple[float, ...]]:
    """A curve that gains as much in every epoch."""
    return [(start + gain * epoch, *rest) for epoch in range(1, EPOCHS + 1)]


def test_one_objective_by_hand() -> None:
    """Donors end at 60 and 70, and gained 5 and 10 from half of their epochs on. At 55 one gain is at best 65, below
    the best end: stopped. At 60 the larger gain would equal it: not dominated, so it goes on."""
    rule = PredictedFront(ACCURACY, EPOCHS, 5, donors=2)
    assert run(rule, "a", steady(50, 1)) and run(rule, "b", steady(50, 2))
    assert not rule.judge("c", 5, row(55.0))
    assert rule.judge("d", 5, row(60.0))


def test_nobody_is_stopped_before_there_are_donors() -> None:
    """However bad, while fewer trials than that have finished; one that runs is no donor, however far it is."""
    rule = PredictedFront(ACCURACY, EPOCHS, 5, donors=2)
    assert run(rule, "a", steady(50, 1))
    for epoch in range(1, EPOCHS + 1):
        assert rule.judge("b", epoch, row(90.0))
    assert rule.judge("c", 5, row(1.0))
    rule.finish("b")
    assert not rule.judge("d", 5, row(1.0))


def test_a_front_stops_what_it_dominates_alone() -> None:
    """Two objectives. A small network that is worse than a large one goes on; one that is worse and as large does
    not."""
    rule = PredictedFront(BOTH, EPOCHS, 5, donors=2)
    assert run(rule, "large", steady(80, 1, 1000.0)) and run(rule, "small", steady(60, 1, 100.0))
    assert rule.judge("smaller", 5, row(10.0, 90.0))
    assert rule.judge("between", 5, row(70.0, 500.0))
    assert not rule.judge("as large", 5, row(70.0, 1000.0))
    assert not rule.judge("worse than the small one", 5, row(60.0, 100.0))


def test_an_uncertain_prediction_stops_nobody() -> None:
    """One donor among several that gained enough keeps a trial alive: the spread of the gains is the uncertainty."""
    rule = PredictedFront(ACCURACY, EPOCHS, 5, donors=3)
    jump = [(50.0,)] * 5 + [(70.0,)] * 5
    assert all(run(rule, name, curve) for name, curve in (("a", steady(50, 1)), ("b", steady(50, 1)), ("c", jump)))
    assert rule.judge("d", 5, row(51.0))  # 51 + 20 is above 70
    assert not rule.judge("e", 5, row(49.0))


def test_the_nearest_trials_predict() -> None:
    """Gains are those of the trials that were closest, each objective in units of its own spread."""
    then = np.array([[0.0, 0.0], [1.0, 1000.0], [2.0, 2000.0]])
    ends = then + np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(nearest_gains(np.array([1.9, 1900.0]), then, ends, 2), [[3.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(nearest_gains(np.array([0.1, 100.0]), then, ends, 1), [[1.0, 0.0]])
    same = nearest_gains(np.array([5.0, 5.0]), np.ones((2, 2)), np.ones((2, 2)), 2)
    np.testing.assert_allclose(same, 0)  # no spread at all


@pytest.mark.parametrize("direction", ["max", "min"])
def test_directions_are_heeded(direction: str) -> None:
    """Minimising is maximising the negative."""
    sign = 1 if direction == "max" else -1
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(40, EPOCHS)).cumsum(axis=1)
    rules = PredictedFront({"val_accuracy": direction}, EPOCHS, 2, 4), PredictedFront(ACCURACY, EPOCHS, 2, 4)
    ran = [
        [run(rule, str(i), [(s * v,) for v in curve]) for i, curve in enumerate(curves)]
        for rule, s in zip(rules, (sign, 1), strict=True)
    ]
    assert ran[0] == ran[1] and len(set(ran[0])) == 2


def test_what_is_no_number_is_stopped() -> None:
    """A value that is not finite cannot end on the front."""
    rule = PredictedFront(BOTH, EPOCHS, 5, donors=1)
    assert run(rule, "a", steady(50, 1, 100.0))
    assert not rule.judge("b", 5, row(math.nan, 1.0))


def test_levels_are_tenths_from_the_grace_on() -> None:
    assert PredictedFront(ACCURACY, 70, 17).levels == [17, 24, 31, 38, 45, 52, 59, 66]
    assert PredictedFront(ACCURACY, 5, 2).levels == [2, 3, 4]
    assert PredictedFront(ACCURACY, 1, 1).levels == []


def test_epochs_reported_again_change_nothing() -> None:
    """Neither a verdict nor what a trial predicts for others; a level that was passed over is judged at once."""
    rule = PredictedFront(ACCURACY, EPOCHS, 5, donors=1)
    assert run(rule, "a", steady(50, 1))
    assert rule.judge("b", 5, row(56.0)) and rule.judge("b", 5, row(1.0)) and rule.judge("b", 4, row(1.0))
    assert not rule.judge("b", 7, row(1.0))
    assert not rule.judge("b", 7, row(99.0)) and not rule.judge("b", 8, row(99.0))
    assert not rule.judge("late", 9, row(1.0))


def test_a_report_without_an_objective_is_not_judged() -> None:
    """A phase that cannot measure an objective is not judged; the next report with all of them is."""
    rule = PredictedFront(BOTH, EPOCHS, 5, donors=1)
    assert run(rule, "a", steady(50, 1, 100.0))
    assert rule.judge("b", 5, {"val_accuracy": 1.0})
    assert rule.judge("b", 5, {"val_accuracy": 1.0, "weight_bytes": None})
    assert not rule.judge("b", 6, row(1.0, 200.0))


def test_a_continued_study_judges_as_one_that_was_not_cut_off() -> None:
    """Finished trials that are recalled predict as before; a trial that was running keeps its verdicts."""
    rng = np.random.default_rng(1)
    curves = [[(v,) for v in curve] for curve in rng.normal(size=(40, EPOCHS)).cumsum(axis=1)]
    uninterrupted, continued = PredictedFront(ACCURACY, EPOCHS, 2, 4), PredictedFront(ACCURACY, EPOCHS, 2, 4)
    for i, curve in enumerate(curves[:20]):
        complete = run(uninterrupted, str(i), curve)
        history = [{"epoch": epoch, **row(*values)} for epoch, values in enumerate(curve, start=1)]
        continued.recall(str(i), history if complete else history[:2], finished=complete)
    ran = [[run(rule, str(i), c) for i, c in enumerate(curves[20:], 20)] for rule in (uninterrupted, continued)]
    assert ran[0] == ran[1] and len(set(ran[0])) == 2
    continued.recall("running", [{"epoch": e, **row(-99.0)} for e in (1, 2)], finished=False)
    assert continued.judge("running", 2, row(-99.0)) and not continued.judge("running", 4, row(-99.0))


@pytest.mark.parametrize(
    ("objectives", "numbers"),
    [({}, (9, 1, 3)), ({"loss": "minimise"}, (9, 1, 3)), (ACCURACY, (9, 0, 3)), (ACCURACY, (9, 1, 0))],
)
def test_what_cannot_be_meant_is_refused(objectives: dict[str, str], numbers: tuple[int, int, int]) -> None:
    """No objective, an unknown direction, a grace below one epoch, and no donors are errors."""
    with pytest.raises(ValueError):
        PredictedFront(objectives, *numbers)


def test_the_scheduler_passes_on_ends(tmp_path: Path) -> None:
    """A trial is a donor once its final report says that it finished. One of fewer epochs is compared at the same
    share of its training; a baseline predicts nobody."""
    settings = resolve(KDSettings.of(epochs=EPOCHS, scheduler="predicted"))
    rule = make_rule(KD, settings, ACCURACY, Ledger(tmp_path), tmp_path)
    assert isinstance(rule, PredictedFront) and rule.levels == list(range(2, EPOCHS))
    scheduler = HalvingScheduler(rule, {"baseline"}, lambda config: config.get("epochs", EPOCHS))

    def report(trial_id: str, epochs: int, *reports: dict[str, object]) -> list[str]:
        trial = SimpleNamespace(config={"trial_id": trial_id, "epochs": epochs})
        return [scheduler.on_trial_result(None, trial, dict(r)) for r in reports]

    curve = [{"epoch": epoch + 1, **row(50.0 + epoch)} for epoch in range(EPOCHS)]
    for i in range(rule.donors):
        report(f"t{i}", EPOCHS, *curve, {"finished": True})
    report("baseline", EPOCHS, {"epoch": 1, **row(99.0)}, {"epoch": EPOCHS, **row(99.0)}, {"finished": True})
    assert report("good", EPOCHS, {"epoch": 5, **row(55.0)}) == [scheduler.CONTINUE]
    assert report("bad", EPOCHS, {"epoch": 5, **row(53.0)}) == [scheduler.STOP]
    assert report("short", 5, {"epoch": 2, **row(54.0)}) == [scheduler.CONTINUE]  # at 4 of 10 others were at 53
    assert report("short and bad", 5, {"epoch": 2, **row(52.0)}) == [scheduler.STOP]
    assert report("failed", EPOCHS, {"failure": "it did", "epoch": 5, **row(1.0)}) == [scheduler.CONTINUE]


def test_a_study_goes_on_with_its_donors(tmp_path: Path) -> None:
    """The trials of an earlier command predict those of this one: complete ones as donors, while a failed one and one
    that was stopped predict nobody."""
    settings = resolve(KDSettings.of(epochs=EPOCHS, scheduler="predicted"))
    ledger = Ledger(tmp_path)
    states = ["complete"] * 20 + ["failed"] * 20
    for i, state in enumerate(states):
        ledger.start(f"t{i:03d}", {"temperature": 2.0, "alpha": 0.5})
        for epoch in range(1, EPOCHS + 1):
            ledger.epoch(f"t{i:03d}", {"epoch": epoch, **row(50.0 + epoch + 30 * (state == "failed"))})
        ledger.finish(f"t{i:03d}", state)
    rule = make_rule(KD, settings, ACCURACY, ledger, tmp_path)
    assert rule.judge("new", 5, row(55.0))
    assert not rule.judge("worse", 5, row(54.0))

"""What a dry run says a study would cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import synthetic

from study.data import registry
from study.data.splits import Splits
from study.errors import UserError
from study.methods.kd.settings import KDSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws.settings import SWSSettings
from study.pipeline import cost_estimate
from study.records import study_folder
from study.settings import as_json, resolve
from study.tuning.space import SearchSpace

CORES = 8
START, PROCESS, BETWEEN, DRIVER, END = 100.0, 16.0, 0.25, 0.5, 30.0
STARTING = PROCESS * (CORES - 1) / CORES
KD, SWS, MAGNITUDE = (SearchSpace.load(name) for name in ("kd", "sws", "magnitude"))


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """Eight cores and no GPU; an epoch takes a second on one thread, and half of that more for a teacher that runs in
    every step. No trial is trained to time it."""

    def epoch(training: Any, data: Any, threads: int, teacher: Any = None) -> float:
        return (1 + 0.5 * (teacher is not None)) / threads

    monkeypatch.setattr(cost_estimate, "seconds_an_epoch", epoch)
    monkeypatch.setattr(cost_estimate, "AFFORDABLE", 0.0)
    for name, seconds in {
        "START": START,
        "PROCESS": PROCESS,
        "BETWEEN": BETWEEN,
        "REPORT": 0.0,
        "DRIVER": DRIVER,
        "END": END,
    }.items():
        monkeypatch.setattr(cost_estimate, name, seconds)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(CORES))
    monkeypatch.setattr(cost_estimate.torch.cuda, "device_count", lambda: 0)
    return registry.load("digits", None)[0]


def test_shared_work_trials_and_confirmation_add_up(digits: Splits) -> None:
    """The shared work has all cores, a trial its own; as many trials run at one time as the cores hold."""
    settings = KDSettings.of(num_samples=62, epochs=10, teacher_epochs=16, confirm=2, seeds=3, scheduler="none")
    settings = resolve(settings)
    cost = cost_estimate.estimate(settings, KD, digits)
    assert (cost.at_once, cost.lanes, cost.trials) == (CORES, CORES, 64)
    assert (cost.shared, cost.trial) == (16 / CORES, 10)
    assert cost.search == STARTING + (10 + BETWEEN) * 64 / CORES + DRIVER * 64 / CORES, (
        "the driver has a core of theirs"
    )
    assert cost.confirmation == 3 * 16 / CORES + (10 + BETWEEN) * 3 * (2 + 2) / CORES
    assert cost.total == START + cost.shared + cost.search + cost.confirmation + END
    given = settings.changed(teacher_checkpoint="teacher.safetensors", confirm=0)
    assert cost_estimate.estimate(given, KD, digits).total == START + cost.search + END


def test_what_halving_leaves_is_counted(digits: Splits) -> None:
    """Baselines run to their end; of the trials, those that are stopped at the first rung have a quarter of it."""
    settings = resolve(KDSettings.of(num_samples=62, epochs=40))
    cost = cost_estimate.estimate(settings, KD, digits)
    assert settings.search.scheduler == "asha" and cost.unstopped == 2
    assert 0.25 + 0.75 / 3 * 0.5 < cost.kept < 0.6
    whole = cost_estimate.estimate(settings.changed(scheduler="none"), KD, digits)
    assert whole.kept == 1
    assert whole.search - cost.search == pytest.approx(40 * 62 * (1 - cost.kept) / CORES)


def test_a_driver_that_cannot_keep_up_holds_up_the_study() -> None:
    """It starts and records one trial after another, however many machines there are."""
    few = cost_estimate.Estimate(0, 20.0, 1000, 0, 0, 8, 8)
    many = cost_estimate.Estimate(0, 20.0, 1000, 0, 0, 4096, 4096)
    assert few.search > few.driving == cost_estimate.DRIVER * 1000
    assert many.search == many.driving


def test_several_seeds_are_trained_in_the_search_alone(digits: Splits) -> None:
    """Fresh seeds of the confirmation train each configuration once."""
    settings = resolve(KDSettings.of(num_samples=62, epochs=10, teacher_epochs=16, confirm=2, seeds=3))
    once = cost_estimate.estimate(settings, KD, digits)
    cost = cost_estimate.estimate(settings.changed(seeds_per_trial=3), KD, digits)
    assert (cost.shared, cost.confirmation) == (once.shared, once.confirmation)
    trained = once.search - STARTING - (BETWEEN + DRIVER) * once.trials / CORES
    assert cost.search - once.search == pytest.approx(2 * trained)


@pytest.mark.parametrize(
    ("flags", "network", "options"),
    [
        ({}, "minivgg", {"width": 0.25}),
        ({"student": "lenet_300_100"}, "lenet_300_100", {}),
        ({"range": ("student_width=0.05:0.5",)}, "minivgg", {"width": 0.5}),
        ({"fix": ("student_width=0.75",)}, "minivgg", {"width": 0.75}),
        ({"fix": ("student=lenet_300_100",)}, "lenet_300_100", {}),
        ({"choice": ("student=minivgg,lenet_300_100",)}, "lenet_300_100", {}),
        (
            {"choice": ("student=lenet_300_100,minivgg",), "range": ("student_width=0.1:1.0",),
             "when": ("student_width:student=minivgg",)},
            "minivgg", {},
        ),
    ],
)  # fmt: skip
def test_the_largest_network_that_is_searched_is_timed(flags: dict, network: str, options: dict) -> None:
    """By its parameters, of the names and widths that a trial may have."""
    settings = resolve(KDSettings.of(**flags))
    data = registry.load("digits", None, size=32)[0]
    training = cost_estimate.largest_network(settings, SearchSpace.of_study(settings), data)
    assert (training.network, dict(training.options)) == (network, options)


@pytest.mark.parametrize(
    ("flags", "at_once", "lanes"),
    [
        ({"max_concurrent": 3}, 3, 3),
        ({"max_concurrent": 64}, CORES, CORES),  # more than there is room for
        ({"cpus_per_trial": 4.0}, 2, 2),
        ({"cpus_per_trial": 0.5}, 2 * CORES, CORES),  # two share a core
    ],
)
def test_trials_at_one_time(flags: dict, at_once: int, lanes: int, digits: Splits) -> None:
    """As a study would hold them, and no more at full speed than there are cores."""
    cost = cost_estimate.estimate(resolve(KDSettings.of(**flags)), KD, digits)
    assert (cost.at_once, cost.lanes) == (at_once, lanes)


def test_a_trial_that_the_machine_cannot_hold_is_refused(digits: Splits) -> None:
    """As the study itself would refuse it."""
    with pytest.raises(UserError, match="--cpus-per-trial 9: the largest machine has 8 CPUs"):
        cost_estimate.estimate(resolve(KDSettings.of(cpus_per_trial=9.0)), KD, digits)
    with pytest.raises(UserError, match="--gpus-per-trial 1: there is no GPU here"):
        cost_estimate.estimate(resolve(KDSettings.of(gpus_per_trial=1.0)), KD, digits)


def test_packed_trials_run_all_at_one_time(digits: Splits) -> None:
    """As many as a pack holds, in one process after another on CPUs; the shared work has the cores."""
    cost = cost_estimate.estimate(resolve(SWSSettings.of(variant="soft", pack=64, pretrain_epochs=16)), SWS, digits)
    assert (cost.at_once, cost.lanes, cost.shared) == (64, CORES, 16 / CORES)


def test_a_study_that_was_started_otherwise_is_refused(tmp_path: Path) -> None:
    """As the study itself would refuse it, from what its folder says."""
    settings = resolve(KDSettings.of(results_dir=tmp_path))
    settings.folder.mkdir()
    study_folder.write_meta(settings.folder, {**synthetic.meta_of("kd", 64), "settings": as_json(settings)})
    with pytest.raises(UserError, match=r"was started with other settings: --seed 5 \(the study has 0\)"):
        cost_estimate.dry_run(settings.changed(seed=5))


def test_a_teacher_in_every_step_has_its_price(digits: Splits) -> None:
    """Where augmentation leaves no logits to keep. Epochs of all phases count."""
    shared = resolve(SWSSettings.of(variant="soft", epochs=10, codebook_epochs=4))
    assert cost_estimate.trial_seconds(shared, SWS, digits) == 14
    hard = resolve(SWSSettings.of(epochs=10, codebook_epochs=4))
    assert cost_estimate.trial_seconds(hard, SearchSpace.load("sws_hard"), digits) == 10  # quantised training ends it
    assert cost_estimate.trial_seconds(resolve(KDSettings.of(epochs=10, augment="flip")), KD, digits) == 10
    assert cost_estimate.trial_seconds(resolve(KDSettings.of(epochs=10, augment="crop")), KD, digits) == 15
    assert cost_estimate.trial_seconds(resolve(KDSettings.of(epochs=10, mixup=0.2)), KD, digits) == 15
    before = resolve(MagnitudeSettings.of(epochs=10, codebook_epochs=4, mixup=0.2, teacher="self"))
    assert cost_estimate.trial_seconds(before, MAGNITUDE, digits) == 14  # images are mixed before compression alone
    for teacher, seconds in (("none", 14), ("self", 21), ("lenet5", 21)):
        taught = resolve(MagnitudeSettings.of(epochs=10, codebook_epochs=4, augment="shift", teacher=teacher))
        assert cost_estimate.trial_seconds(taught, MAGNITUDE, digits) == seconds


def test_a_trial_that_is_short_is_trained(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seconds count then, not those of its steps, if it can be trained."""
    settings, space = resolve(SWSSettings.of(epochs=10)), SearchSpace.load("sws_hard")
    monkeypatch.setattr(cost_estimate, "AFFORDABLE", 11.0)
    for seconds, counted in ((3.5, 3.5), (None, 10.0)):
        monkeypatch.setattr(cost_estimate, "seconds_of_trial", lambda *_, seconds=seconds: seconds)
        assert cost_estimate.trial_seconds(settings, space, digits) == counted

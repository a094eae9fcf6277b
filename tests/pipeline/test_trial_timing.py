"""A trial that is trained to learn how long it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from study.data import registry as data_registry
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods import registry
from study.pipeline import trial_timing
from study.run import parse
from study.settings import Settings, resolve
from study.tuning.space import SearchSpace


@pytest.fixture(scope="module")
def digits() -> Splits:
    return data_registry.load("digits", None)[0]


def timed(settings: Settings, data: Splits, **networks: Any) -> float | None:
    return trial_timing.seconds_of_trial(settings, SearchSpace.of_study(settings), data, networks)


@pytest.mark.parametrize(
    "command",
    [
        "kd --teacher lenet_300_100 --student lenet_300_100",
        "sws",
        "sws --variant soft --codebook-epochs 1 --fix tau=0.00001",
        "magnitude --codebook-epochs 1",
        "kd_sws --teacher lenet_300_100 --student lenet_300_100 --cluster-epochs 2 --fix tau=0.00001",
    ],
)
def test_every_kind_of_trial_is_trained(command: str, digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its epochs, with values in the middle of the search space; the shared work takes no epoch. Of the soft
    variant it may be clustering alone, which prunes this network whole."""
    settings = resolve(parse([*command.split(), "--epochs", "2"]))
    method, seen = registry.method(settings.kind), []
    train, stage = method.trial, method.shared_work.run

    def trial(values: Any, settings: Any, data: Any, shared: Any, on_epoch: Any, progress: Any) -> Any:
        def heard(row: Any) -> None:
            seen.append(row["epoch"])
            on_epoch(row)

        seen.append(set(values))
        return train(values, settings, data, shared, heard, progress)

    def shared_work(values: Any, settings: Any, data: Any, shared: Any, on_epoch: Any, progress: Any) -> Any:
        return stage(values, settings, data, shared, lambda row: pytest.fail("the shared work was trained"), progress)

    monkeypatch.setattr(trial_timing, "method_of", lambda kind: replaced(method, trial, shared_work))
    assert (timed(settings, digits) or 0) > 0
    values, *epochs = seen
    assert values == set(SearchSpace.of_study(settings).domains)
    assert epochs[-1] == method.epochs(settings) or ("soft" in command and epochs[-1] == 2)


def replaced(method: Any, trial: Any, shared_work: Any) -> Any:
    return replace(method, trial=trial, shared_work=replace(method.shared_work, run=shared_work))


def test_images_cost_and_the_rest_does_not(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs tell the one from the other where there are many images; where there are few, one run has all."""
    settings, sizes = resolve(parse(["sws", "--epochs", "3"])), []

    def seconds(method: Any, values: Any, settings: Any, data: Splits, *_: Any) -> float:
        sizes.append(len(data.train))
        return 5 + 0.01 * len(data.train)

    monkeypatch.setattr(trial_timing, "_seconds", seconds)
    for few, more, expected in ((200, 500, [200, 500]), (1024, 4096, [len(digits.train)])):
        monkeypatch.setattr(trial_timing, "FEW", few)
        monkeypatch.setattr(trial_timing, "MORE", more)
        sizes.clear()
        assert timed(settings, digits) == pytest.approx(5 + 0.01 * len(digits.train))
        assert sizes == expected
    assert trial_timing.extrapolated([(10, 3.0), (20, 2.9)], 1000) == 2.9  # noise makes no time negative


@pytest.mark.parametrize(("more", "timed_at_all"), [(100, True), (99, False)])
def test_students_that_see_some_images_are_timed_with_all_of_them(
    more: int, timed_at_all: bool, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred, from which no line could be drawn to more; where that is too many, nothing is said."""
    settings, sizes = resolve(parse("kd --teacher lenet_300_100 --student lenet_300_100".split())), []

    def seconds(method: Any, values: Any, settings: Any, data: Splits, *_: Any) -> float:
        sizes.append(len(data.train))
        return 2.5

    monkeypatch.setattr(trial_timing, "_seconds", seconds)
    monkeypatch.setattr(trial_timing, "FEW", 50)
    monkeypatch.setattr(trial_timing, "MORE", more)
    assert (timed(settings, digits), sizes) == ((2.5, [100]) if timed_at_all else (None, []))


def test_a_trial_that_fails_counts_by_its_epochs(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was not trained may be one that all weights of are pruned: the phases after that are taken to be
    like those before. One that fails before its first epoch is not timed."""
    settings = resolve(parse(["sws", "--variant", "soft", "--epochs", "3", "--codebook-epochs", "1"]))
    method, ticks = registry.method("sws"), iter((10.0, 16.0))

    def pruned(epoch: int) -> Any:
        def trial(values: Any, settings: Any, data: Any, shared: Any, on_epoch: Any, progress: Any) -> Any:
            for number in range(1, epoch + 1):
                on_epoch({"epoch": number})
            raise TrialFailed("every weight was pruned")

        return lambda kind: replaced(method, trial, method.shared_work.run)

    monkeypatch.setattr(trial_timing, "method_of", pruned(0))
    assert timed(settings, digits) is None
    monkeypatch.setattr(trial_timing, "method_of", pruned(3))
    monkeypatch.setattr(trial_timing.time, "perf_counter", lambda: next(ticks))
    assert timed(settings, digits) == (16.0 - 10.0) * 4 / 3

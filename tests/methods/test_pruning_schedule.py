"""When the pruning of a trial is through, in steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from study.data import registry
from study.methods.common import pinning
from study.methods.magnitude.pruning import Hparams
from study.training import distillation
from study.training.distillation import Targets


@pytest.mark.parametrize(("ramp", "last"), [(0.0, 1), (1e-6, 1), (0.5, 24), (1.0, 48)])
def test_pruning_ends_where_the_ramp_does(ramp: float, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two epochs of 24 steps: before that step there is more than the density asks for, after it exactly so much.
    Without a ramp it is the first step."""
    data = registry.load("digits", None)[0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    batch_size = -(-len(data.train) // 24)
    left: list[int] = []

    def train(model: nn.Module, *rest: Any, before_step: Any, **more: Any) -> None:
        for step in range(49):
            before_step(step)
            left.append(sum(int((p != 0).sum()) for p in model.parameters()))

    monkeypatch.setattr(pinning, "train", train)
    hparams = Hparams(density=0.1, ramp=ramp, epochs=2, batch_size=batch_size)
    loss = distillation.accuracy_loss(Targets(), 1.0, 0.0)
    torch.manual_seed(0)
    survives, _ = pinning.prune(network, hparams, data, loss, lambda row: None)
    assert int(survives.sum()) == 65 and set(left[last:]) == {65}
    assert left[0] == 650 and left[3 * last // 4] > 65 and sorted(left, reverse=True) == left


def test_a_long_ramp_prunes_a_hundred_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 250 steps every second one, and the last: sorting all weights in each step would take longer than training."""
    data = registry.load("digits", None)[0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    left: list[int] = []

    def train(model: nn.Module, *rest: Any, before_step: Any, **more: Any) -> None:
        for step in range(251):
            before_step(step)
            left.append(sum(int((p != 0).sum()) for p in model.parameters()))

    monkeypatch.setattr(pinning, "train", train)
    monkeypatch.setattr(pinning, "steps_per_epoch", lambda examples, batch_size: 250)
    loss = distillation.accuracy_loss(Targets(), 1.0, 0.0)
    pinning.prune(network, Hparams(density=0.1, ramp=1.0, epochs=1), data, loss, lambda row: None)
    changes = [step for step in range(1, 251) if left[step] != left[step - 1]]
    assert changes[:3] == [2, 4, 6] and all(step % 2 == 0 for step in changes)

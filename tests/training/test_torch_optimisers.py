"""Our optimisers are torch's, without the compiler that torch's load."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from study.training import torch_optimisers

TRAINING = """
import sys
from study.pipeline.preflight import load_inputs
from study.pipeline.trial_timing import seconds_of_trial
from study.run import parse
from study.settings import resolve
from study.tuning.space import SearchSpace

settings = resolve(parse(sys.argv[1:]))
space = SearchSpace.of_study(settings)
inputs = load_inputs(settings, space, None)
assert seconds_of_trial(settings, space, inputs.data, {}) is not None
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize(
    ("name", "options"),
    [("Adam", {"fused": True}), ("AdamW", {"weight_decay": 0.1}), ("SGD", {"momentum": 0.9, "nesterov": True})],
)
def test_they_compute_what_torchs_compute_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    """With hooks around the step, gradients that are set to zero, and a state that is saved and restored."""
    trained = []
    for module in (torch_optimisers, torch.optim):
        torch.manual_seed(0)
        model, hooks = nn.Linear(5, 3), []
        kind = getattr(module, name)
        optimiser = kind(model.parameters(), lr=0.1, **options)
        optimiser.register_step_pre_hook(lambda *_, hooks=hooks: hooks.append("before"))
        optimiser.register_step_post_hook(lambda *_, hooks=hooks: hooks.append("after"))
        for _ in range(3):
            optimiser.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimiser.step()
            state = optimiser.state_dict()
            again = kind(model.parameters(), lr=0.7, **options)
            again.load_state_dict(state)
            assert str(again.state_dict()) == str(state)
        assert hooks == ["before", "after"] * 3
        trained.append(model.weight.detach())
    assert torch.equal(*trained)


def test_a_training_process_does_not_load_the_compiler() -> None:
    """A second of every start: of the rehearsal in the driver, and of the trial's process."""
    command = "kd --epochs 1 --teacher-epochs 1".split()
    subprocess.run([sys.executable, "-c", TRAINING, *command], check=True, timeout=120)

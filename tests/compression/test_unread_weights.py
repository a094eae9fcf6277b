"""Weights without a use: which they are, and that no output changes without them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from study.compression.quantised_weights import flatten, shared_parameters
from study.compression.unread_weights import unread
from study.models.registry import build


def without(model: nn.Module, weights: Tensor) -> nn.Module:
    """A copy in which these weights, (weights,), are zero."""
    model = copy.deepcopy(model)
    parameters = shared_parameters(model)
    with torch.no_grad():
        for p, part in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
            p.masked_fill_(part.view_as(p), 0.0)
    return model


def chain() -> nn.Sequential:
    """4 inputs, 3 units, 2 outputs, with no weight at zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.sign() * (p.abs() + 0.1))
    return model


def marked(model: nn.Module, shape: tuple[int, ...] = (1, 2, 2)) -> dict[str, list]:
    """Name of each shared parameter → which of its weights are without a use."""
    parameters = shared_parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    parts = unread(model, shape).split([p.numel() for p in parameters])
    return {names[id(p)]: part.view_as(p).tolist() for p, part in zip(parameters, parts, strict=True)}


def test_a_unit_that_nobody_reads_loses_all_its_weights() -> None:
    """Its inputs and its bias; nothing else is without a use."""
    model = chain()
    with torch.no_grad():
        model[3].weight[:, 1] = 0
    marks = marked(model)
    assert marks["1.weight"] == [[False] * 4, [True] * 4, [False] * 4] and marks["1.bias"] == [False, True, False]
    assert not any(map(any, marks["3.weight"])) and not any(marks["3.bias"])


def test_a_unit_that_is_always_zero_is_read_for_nothing() -> None:
    """Without an input and a bias it is zero; with a bias alone it is a constant, which readers need."""
    model = chain()
    with torch.no_grad():
        model[1].weight[2] = 0
        model[1].bias[2] = 0.5
    assert not unread(model, (1, 2, 2))[12:].any()  # the first twelve are the weights of the units
    with torch.no_grad():
        model[1].bias[2] = 0
    assert marked(model)["3.weight"] == [[False, False, True]] * 2


def test_a_sigmoid_of_nothing_is_not_zero() -> None:
    """A unit without a weight gives one half behind a sigmoid, so its readers stay."""
    model = chain()
    model[2] = nn.Sigmoid()
    with torch.no_grad():
        model[1].weight[2] = 0
        model[1].bias[2] = 0
    assert not unread(model, (1, 2, 2)).flatten()[-8:].any()


@pytest.mark.parametrize(("name", "shape"), [("lenet_300_100", (1, 28, 28)), ("lenet5", (1, 28, 28)),
                                             ("minivgg", (1, 32, 32)), ("resnet20", (3, 32, 32)),
                                             ("resnet8x4", (1, 8, 8)), ("wrn_16_2", (1, 8, 8)), ("vgg8", (1, 8, 8)),
                                             ("shufflenetv1", (1, 8, 8)), ("shufflenetv2", (1, 8, 8)),
                                             ("mobilenetv2", (1, 8, 8))])  # fmt: skip
def test_outputs_stay(name: str, shape: tuple[int, int, int]) -> None:
    """A network with 2 % of its weights has some without a use; in evaluation mode all outputs stay without them."""
    torch.manual_seed(1)
    model = build(name, shape, 10).eval()
    parameters = shared_parameters(model)
    flat = flatten(parameters).detach()
    sparse = without(model, torch.rand_like(flat) > 0.02)
    useless = unread(sparse, shape)
    nonzero = flatten(shared_parameters(sparse)).detach() != 0
    assert name != "lenet_300_100" or int((useless & nonzero).sum()) > 0
    images = torch.randn(16, *shape)
    torch.testing.assert_close(without(sparse, useless)(images), sparse(images), rtol=1e-5, atol=1e-6)


def test_shared_layers_and_unknown_code_lose_nothing() -> None:
    """A weight of two layers is not judged by one of them, and a network that cannot be traced keeps all."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[3].weight = model[1].weight
    with torch.no_grad():
        model[5].weight.zero_()
    assert not unread(model, (1, 2, 2))[: 4 * 4].any()

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)) if x.sum() > 0 else self.layer(-x.flatten(1))

    assert not unread(Branching(), (1, 2, 2)).any()

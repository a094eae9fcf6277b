"""Layers with few weights left compute with a block of them, and nothing but the time changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from study.compression.quantised_weights import flatten, shared_parameters
from study.training.batches import Batch
from study.training.sparse_layers import SparseLayers

CASES = {
    "linear": (lambda: nn.Linear(300, 120), (300,)),
    "linear without a bias": (lambda: nn.Linear(300, 120, bias=False), (300,)),
    "linear on tokens": (lambda: nn.Linear(300, 120), (7, 300)),
    "convolution": (lambda: nn.Conv2d(40, 60, 3, padding=1), (40, 8, 8)),
    "strided, dilated": (lambda: nn.Conv2d(40, 60, 3, stride=2, dilation=2, padding="valid", bias=False), (40, 9, 9)),
}


def pruned(model):
    """The parameters, and which weights are left: some, of every third output and input. All others are at zero."""
    parameters, left = shared_parameters(model), []
    generator = torch.Generator().manual_seed(0)
    for p in parameters:
        mask = torch.ones(p.shape, dtype=torch.bool)
        if p.dim() > 1:
            mask = torch.rand(p.shape, generator=generator) < 0.3
            mask[1::3], mask[2::3], mask[:, 1::3], mask[:, 2::3] = False, False, False, False
        left.append(mask)
        with torch.no_grad():
            p.mul_(mask)
    return parameters, flatten(left)


def batch_of(shape, images=16):
    images = torch.randn(images, *shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    index = torch.arange(len(images))
    return Batch(index, index, images, index)


def loss(model, batch):
    return (model(batch.images).square()).mean()


@pytest.mark.parametrize("case", CASES)
def test_a_block_gives_the_same_loss_and_the_same_gradients_of_what_is_left(case):
    build, shape = CASES[case]
    torch.manual_seed(0)
    model, batch = build(), batch_of(shape)
    parameters, left = pruned(model)
    sparse = SparseLayers(model, parameters, lambda: left)

    whole, narrow = loss(model, batch), sparse.of(loss)(model, batch)
    assert sparse.blocks.keys() == {model}, "this case has no block, so it says nothing"
    torch.testing.assert_close(narrow, whole)
    wanted = torch.autograd.grad(whole, [batch.images, *parameters])
    have = torch.autograd.grad(narrow, [batch.images, *parameters])
    torch.testing.assert_close(have[0], wanted[0])
    assert bool((flatten(list(wanted[1:]))[~left] != 0).any()), "weights that are pinned have a gradient otherwise"
    torch.testing.assert_close(flatten(list(have[1:]))[left], flatten(list(wanted[1:]))[left])


def test_lower_precision_stays_lower_precision():
    model = nn.Linear(300, 120)
    parameters, left = pruned(model)
    seen = []

    def under_autocast(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(batch.images)
        seen.append(outputs.dtype)
        return F.mse_loss(outputs.float(), torch.zeros_like(outputs, dtype=torch.float32))

    batch = batch_of((300,))
    sparse = SparseLayers(model, parameters, lambda: left)
    torch.testing.assert_close(
        sparse.of(under_autocast)(model, batch), under_autocast(model, batch), rtol=1e-2, atol=1e-3
    )
    assert seen == [torch.bfloat16, torch.bfloat16]


def test_only_layers_that_gain_by_it_have_a_block():
    class Own(nn.Linear):
        """A user's layer may do anything with its weight."""

    model = nn.Sequential(
        nn.Linear(200, 300), Own(300, 200), nn.Linear(200, 300), nn.Linear(300, 10), nn.Conv2d(64, 64, 3, groups=2)
    )
    parameters, left = pruned(model)
    parts = left.split([p.numel() for p in parameters])
    names = [name for name, _ in model.named_parameters()]
    parts[names.index("2.weight")][:] = True  # not pruned
    assert SparseLayers(model, parameters, lambda: left).blocks.keys() == {model[0]}


def test_a_change_is_seen_in_the_next_step_and_the_layers_are_as_they_were_after_an_error():
    model, batch = nn.Linear(300, 120), batch_of((300,))
    parameters, left = pruned(model)
    sparse = SparseLayers(model, parameters, lambda: left)
    rows = len(sparse.blocks[model][0])
    left[: 60 * 300] = False
    assert len(sparse.blocks[model][0]) == rows
    sparse.changed()
    assert len(sparse.blocks[model][0]) < rows

    def fails(model, batch):
        assert "forward" in vars(model)
        raise ValueError

    with pytest.raises(ValueError):
        sparse.of(fails)(model, batch)
    assert "forward" not in vars(model)

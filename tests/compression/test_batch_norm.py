"""Batch-norm statistics of a quantised network are those of its own activations."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from study.compression.batch_norm import recalibrate, round_batch_norm
from study.data import registry
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.methods.magnitude import pruning
from study.training.loop import evaluate


@pytest.fixture(scope="module")
def few() -> Splits:
    """Digits of which 256 are trained on, in four batches of one size."""
    splits, _ = registry.load("digits", None)
    return dataclasses.replace(splits, train=Part(splits.train.images[:256], splits.train.labels[:256]))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 10)
    )


def test_statistics_are_those_over_the_training_part(few: Splits) -> None:
    """Mean over all images, and the mean of the batches' variances; modes and momentum stay."""
    model = network()
    model[3].eval()
    others = {name: tensor.clone() for name, tensor in model.state_dict().items() if "running" not in name}
    assert recalibrate(model, few, batch_size=64)
    with torch.no_grad():
        found = model[0](normalise(few.train.images, few.mean, few.std))
    torch.testing.assert_close(model[1].running_mean, found.mean((0, 2, 3)))
    variances = torch.stack([part.var((0, 2, 3)) for part in found.split(64)])
    torch.testing.assert_close(model[1].running_var, variances.mean(0))
    assert model.training and model[1].training and not model[3].training and model[1].momentum == 0.1
    del others["1.num_batches_tracked"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in others.items())


def test_it_is_the_same_every_time(few: Splits) -> None:
    """Bit for bit, whatever the statistics were before; a network without batch-norm is left alone."""
    model, other = network(), network()
    other[1].running_mean.fill_(7.0)
    recalibrate(model, few)
    recalibrate(other, few)
    assert torch.equal(model[1].running_var, other[1].running_var)
    assert torch.equal(model[1].running_mean, other[1].running_mean)
    assert not recalibrate(nn.Linear(2, 2), few)


@pytest.mark.parametrize("hparams", [{"bits": 2}, {"density": 0.2, "codebook_size": 4, "codebook_epochs": 0}])
def test_a_quantised_network_is_scored_with_its_own(few: Splits, hparams: dict[str, float]) -> None:
    """Where nothing trains after quantising, the metrics are those of a network with the statistics of its values, as
    its file has them."""
    model = network()
    values = {"epochs": 1, "batch_size": 64, **hparams}
    _, metrics = pruning.fit(model, pruning.Hparams(**values), few, lambda row: None)  # type: ignore[arg-type]
    before = model[1].running_var.clone()
    recalibrate(model, few)
    round_batch_norm(model)
    torch.testing.assert_close(model[1].running_var, before, rtol=0, atol=0)
    assert evaluate(model, few.validation, few).accuracy == metrics["val_accuracy"]


def test_batch_norm_is_rounded_where_that_loses_nothing() -> None:
    """Numbers become float16's; a tensor with one that is too large stays, and so do variances too small for it."""
    layer = nn.BatchNorm1d(2, eps=1e-5)
    exact = nn.BatchNorm1d(2, eps=1e-12)
    for norm in (layer, exact):
        norm.weight.data, norm.bias.data = torch.tensor([0.1, 0.2]), torch.tensor([0.1, 1e5])
        norm.running_mean, norm.running_var = torch.tensor([0.1, 1e-9]), torch.tensor([0.3, 1e-9])
        round_batch_norm(nn.Sequential(norm))
        assert norm.weight.tolist() == torch.tensor([0.1, 0.2]).half().tolist()
        assert norm.bias.tolist() == torch.tensor([0.1, 1e5]).tolist()
        assert norm.running_mean.tolist() == torch.tensor([0.1, 0.0]).half().tolist()
    assert layer.running_var.tolist() == [torch.tensor(0.3).half().item(), 0]  # next to ε, nothing
    assert exact.running_var.tolist() == torch.tensor([0.3, 1e-9]).tolist()
    round_batch_norm(nn.BatchNorm1d(2, affine=False, track_running_stats=False))

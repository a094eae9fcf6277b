"""Clustering and quantising: codebook values, what counts, and trials that fail with their reason."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from study import data, kd, sws
from study.data import Splits
from study.errors import TrialFailed

HPARAMS = sws.Hparams(
    tau=1e-3, components=6, pi_zero=0.9, epochs=3, batch_size=32, sigma=0.02, precision_rate=0.05, codebook_epochs=2
)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return data.load("digits", None)[0]


@pytest.fixture(scope="module")
def pretrained(digits: Splits) -> nn.Module:
    return sws.pretrain(
        kd.Training("lenet_300_100", epochs=3, batch_size=32, weight_decay=0.0), digits, lambda row: None
    )


def test_every_weight_is_a_codebook_value(digits: Splits, pretrained: nn.Module) -> None:
    """After all phases each weight and bias equals its component's value bit for bit, and component 0 is zero."""
    model = copy.deepcopy(pretrained)
    rows: list[dict] = []
    quantised, metrics = sws.fit(model, HPARAMS, digits, rows.append)
    weights = sws.flatten(sws.shared_parameters(model))
    assert torch.equal(weights, quantised.values[quantised.assignment])
    assert float(quantised.values[0]) == 0
    assert metrics["sparsity"] == pytest.approx(100 * float((weights == 0).double().mean()))
    assert [row["phase"] for row in rows] == ["cluster"] * 3 + ["codebook"] * 2
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert all({"val_accuracy", "sparsity"} <= row.keys() for row in rows)


def test_provisional_score_leaves_the_network_alone(digits: Splits, pretrained: nn.Module) -> None:
    """Quantising for a provisional score does not touch the weights that clustering goes on with."""
    seen = []
    model = copy.deepcopy(pretrained)
    sws.cluster(
        model, HPARAMS, digits, lambda row: seen.append(sws.flatten(sws.shared_parameters(model)).unique().numel())
    )
    assert min(seen) > 10_000  # thousands of distinct values: not a codebook of six


def test_training_the_codebook_keeps_the_assignment(digits: Splits, pretrained: nn.Module) -> None:
    """Only values move: the same assignment, zero still zero, the number of values unchanged."""
    model = copy.deepcopy(pretrained)
    before = sws.quantise(model, sws.cluster(model, HPARAMS, digits, lambda row: None))
    after = sws.train_codebook(model, before, HPARAMS, digits, lambda row: None)
    assert torch.equal(before.assignment, after.assignment)
    assert float(after.values[0]) == 0 and not torch.equal(before.values, after.values)
    assert torch.equal(sws.flatten(sws.shared_parameters(model)), after.weights())


def test_a_seed_repeats_bit_for_bit(digits: Splits, pretrained: nn.Module) -> None:
    """Two runs of one configuration end with the same weights and metrics."""
    runs = []
    for _ in range(2):
        model = copy.deepcopy(pretrained)
        quantised, metrics = sws.fit(model, HPARAMS, digits, lambda row: None)
        runs.append((quantised.weights(), metrics))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_batch_norm_takes_no_part() -> None:
    """Of MiniVGG, the weights and biases of convolutions and the linear layer take part, each once; batch-norm not."""
    model = kd.models.build("minivgg", (1, 32, 32), 10, width=0.25)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    taken = [id(p) for p in sws.shared_parameters(model)]
    assert norms and norms.isdisjoint(taken)
    assert sorted(taken) == sorted({id(p) for p in model.parameters()} - norms)


def test_sizes_by_hand() -> None:
    """Of eight weights four zero, two and two: sparsity 50 %, 1/nonzero 2, 12 bits and three float32 values."""
    quantised = sws.Quantised(torch.tensor([0, 0, 0, 0, 1, 1, 3, 3]), torch.tensor([0.0, 1, 2, 3]))
    metrics = sws.size_metrics(quantised)
    assert metrics["sparsity"] == 50 and metrics["nonzero_ratio"] == 2 and metrics["components_used"] == 3
    assert metrics["entropy_ratio"] == pytest.approx(8 * 32 / (12 + 3 * 32))


@pytest.mark.parametrize(
    ("assignment", "values", "reason"),
    [([0, 0, 0], [0.0, 1.0], "every weight was pruned"), ([1, 1, 1], [0.0, 1.0], "collapsed"),
     ([0, 1, 1], [0.0, math.nan], "not finite")],
)  # fmt: skip
def test_nothing_left_is_a_failed_trial(assignment: list[int], values: list[float], reason: str) -> None:
    """All pruned, one shared value, or values that are not numbers: TrialFailed with that reason."""
    with pytest.raises(TrialFailed, match=reason):
        sws.check(sws.Quantised(torch.tensor(assignment), torch.tensor(values)))


def test_a_loss_that_is_not_a_number_is_a_failed_trial(digits: Splits, pretrained: nn.Module) -> None:
    """An absurd learning rate ends in TrialFailed, not in a network."""
    absurd = dataclasses.replace(HPARAMS, precision_rate=1e4, weight_rate=1e4)
    with pytest.raises(TrialFailed):
        sws.fit(copy.deepcopy(pretrained), absurd, digits, lambda row: None)

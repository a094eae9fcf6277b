"""Clustering and quantising: codebook values, what counts, and trials that fail with their reason."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study import data, kd, sws
from study.data import Splits
from study.errors import TrialFailed
from study.training import batches

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


@pytest.mark.parametrize("values", [{"tau": math.nan}, {"tau": math.inf}, {"weight_rate": 1e30}])
def test_clustering_that_diverges_is_a_failed_trial(
    values: dict[str, float], digits: Splits, pretrained: nn.Module
) -> None:
    """A tau that is no finite number, or a rate that overflows, ends clustering itself as TrialFailed."""
    with pytest.raises(TrialFailed, match="training loss became"):
        sws.cluster(copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, **values), digits, lambda row: None)


def test_a_codebook_value_gets_the_sum_of_its_weights_gradients(
    digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient that trains a value is the sum over the weights that share it; the zero component has none."""
    model = copy.deepcopy(pretrained)
    parameters = sws.shared_parameters(model)
    flat = sws.flatten(parameters).detach()
    values = torch.tensor([0.0, -0.1, 0.05, 0.2])
    quantised = sws.Quantised((flat[:, None] - values).abs().argmin(dim=1), values)
    batch = next(batches(digits, 32, "none", torch.Generator().manual_seed(0)))
    found: list[Tensor] = []

    def one_step(
        model: nn.Module, data: Splits, loss: object, optimiser: torch.optim.Optimizer, **rest: object
    ) -> None:
        assert callable(loss)
        found.extend(torch.autograd.grad(loss(model, batch), optimiser.param_groups[0]["params"]))

    monkeypatch.setattr(sws, "train", one_step)
    sws.train_codebook(model, quantised, HPARAMS, digits, lambda row: None)
    sws._write(parameters, quantised)
    gradients = torch.autograd.grad(F.cross_entropy(model(batch.images), batch.labels), parameters)
    sums = torch.zeros(4).index_add(0, quantised.assignment, sws.flatten(gradients))
    torch.testing.assert_close(found[0], sums[1:], rtol=1e-4, atol=1e-6)


def test_batch_norm_is_not_quantised() -> None:
    """Quantising MiniVGG leaves batch-norm's weights, biases and statistics as they were; all the rest is quantised."""
    model = kd.models.build("minivgg", (1, 32, 32), 10, width=0.125)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [t.clone() for m in norms for t in m.state_dict().values()]
    flat = sws.flatten(sws.shared_parameters(model)).detach()
    quantised = sws.quantise(model, sws.Mixture(sws.even_means(flat, 4), 0.5, 0.05, (5e3, 2.0), (250.0, 0.1)))
    after = [t for m in norms for t in m.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(quantised.assignment) == flat.numel()
    assert set(sws.flatten(sws.shared_parameters(model)).tolist()) <= set(quantised.values.tolist())


def test_a_shared_parameter_counts_once() -> None:
    """A weight that two layers share is one parameter; their biases are two."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[1].weight
    assert sum(p.numel() for p in sws.shared_parameters(model)) == 2 * 36 + 3 * 6


@pytest.mark.parametrize(
    "whole",
    [
        False,
        True,
    ],
)
def test_a_network_with_shared_layers_goes_through_all_phases(whole: bool, digits: Splits) -> None:
    """Two layers that share a weight, or one layer used twice, stay so, each weight a codebook value of the result."""
    side = digits.shape[1] * digits.shape[2]
    third = nn.Linear(32, 32)
    fifth = third if whole else nn.Linear(32, 32)
    fifth.weight = third.weight
    model = nn.Sequential(nn.Flatten(), nn.Linear(side, 32), nn.ReLU(), third, nn.ReLU(), fifth, nn.Linear(32, 10))
    once = dataclasses.replace(HPARAMS, epochs=1, codebook_epochs=1)
    quantised, _ = sws.fit(model, once, digits, lambda row: None)
    assert model[3].weight is model[5].weight
    assert len(quantised.assignment) == sum(p.numel() for p in model.parameters())
    assert torch.equal(sws.flatten(sws.shared_parameters(model)), quantised.weights())


def test_all_pruned_has_no_nonzero_ratio() -> None:
    """When every weight is zero, 1/nonzero is left out rather than infinite, and sparsity is 100 %."""
    metrics = sws.size_metrics(sws.Quantised(torch.zeros(8, dtype=torch.int64), torch.tensor([0.0, 1.0])))
    assert metrics == {"sparsity": 100.0, "entropy_ratio": 8.0, "components_used": 1}

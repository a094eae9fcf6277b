"""Weights that share values: what counts, sizes by hand, training the values, and networks with nothing left."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from shown import batches
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from study.compression import codebook_training
from study.compression.codebook_training import ensure_usable
from study.compression.quantised_weights import QuantisedWeights, flatten, leave_out_as_version_1, shared_parameters
from study.compression.size_metrics import size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.models.registry import build
from study.training import distillation
from study.training.distillation import Targets

CROSS_ENTROPY = distillation.accuracy_loss(Targets(), 1.0, 0.0)


def some(assignment: list[int], values: list[float], tensors: int = 1) -> QuantisedWeights:
    return QuantisedWeights(torch.tensor(assignment), torch.tensor(values), torch.ones(tensors))


def test_batch_norm_takes_no_part() -> None:
    """Of MiniVGG, the weights and biases of convolutions and the linear layer take part, each once; batch-norm not."""
    model = build("minivgg", (1, 32, 32), 10, width=0.25)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    taken = [id(p) for p in shared_parameters(model)]
    assert norms and norms.isdisjoint(taken)
    assert sorted(taken) == sorted({id(p) for p in model.parameters()} - norms)


def test_version_1_left_out_all_but_layers_own_parameters() -> None:
    """Of the first compressed files: weights and biases of linear and convolution layers take part, of attention its
    output layer's alone, of a layer with weight_norm its bias alone."""
    attention = nn.MultiheadAttention(4, 2)
    model = nn.ModuleList([nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), attention, weight_norm(nn.Linear(4, 4))])
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for p in shared_parameters(leave_out_as_version_1(model))}
    assert taken == {"0.weight", "0.bias", "2.out_proj.weight", "2.out_proj.bias", "3.bias"}


def test_a_shared_parameter_counts_once() -> None:
    """A weight that two layers share is one parameter; their biases are two."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[1].weight
    assert sum(p.numel() for p in shared_parameters(model)) == 2 * 36 + 3 * 6


def test_a_weight_is_its_tensors_scale_times_its_value() -> None:
    """Written weights, by hand: two tensors with the scales 1 and 2 on one codebook."""
    layer = nn.Linear(2, 2)
    QuantisedWeights(torch.tensor([0, 1, 2, 1, 2, 0]), torch.tensor([0.0, 0.5, -3.0]), torch.tensor([1.0, 2.0])).write(
        [layer.weight, layer.bias]
    )
    assert layer.weight.tolist() == [[0, 0.5], [-3, 0.5]] and layer.bias.tolist() == [-6, 0]


def test_sizes_by_hand() -> None:
    """Of eight weights four zero, two and two: sparsity 50 %, 1/nonzero 2, 12 bits and three float32 values."""
    metrics = size_metrics(some([0, 0, 0, 0, 1, 1, 3, 3], [0.0, 1, 2, 3]))
    assert metrics["sparsity"] == 50 and metrics["nonzero_ratio"] == 2 and metrics["codebook_values_used"] == 3
    assert metrics["entropy_ratio"] == pytest.approx(8 * 32 / (12 + 3 * 32))
    assert metrics["entropy_bytes"] == pytest.approx((12 + 3 * 32) / 8)


def test_all_pruned_has_no_nonzero_ratio() -> None:
    """When every weight is zero, 1/nonzero is left out rather than infinite, and sparsity is 100 %."""
    metrics = size_metrics(some([0] * 8, [0.0, 1.0]))
    assert metrics == {"sparsity": 100.0, "entropy_ratio": 8.0, "entropy_bytes": 4.0, "codebook_values_used": 1}


@pytest.mark.parametrize(
    ("assignment", "values", "reason"),
    [([0, 0, 0], [0.0, 1.0], "every weight was pruned"), ([1, 1, 1], [0.0, 1.0], "collapsed"),
     ([0, 1, 1], [0.0, math.nan], "not finite")],
)  # fmt: skip
def test_nothing_left_is_a_failed_trial(assignment: list[int], values: list[float], reason: str) -> None:
    """All pruned, one shared value, or values that are not numbers: TrialFailed with that reason."""
    with pytest.raises(TrialFailed, match=reason):
        ensure_usable(some(assignment, values))


def test_a_hint_ends_the_message_of_a_trial_that_pruned_everything() -> None:
    """`ensure_usable` says what happened; what to change is added by the method, and only where all is pruned."""
    with pytest.raises(TrialFailed) as plain:
        ensure_usable(some([0, 0, 0], [0.0, 1.0]))
    assert str(plain.value) == "every weight was pruned"
    with pytest.raises(TrialFailed) as hinted:
        ensure_usable(some([0, 0, 0], [0.0, 1.0]), "density is too small")
    assert str(hinted.value) == "every weight was pruned: density is too small"
    with pytest.raises(TrialFailed) as collapsed:
        ensure_usable(some([1, 1, 1], [0.0, 1.0]), "density is too small")
    assert "density" not in str(collapsed.value)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_value_gets_the_sum_of_its_weights_gradients(
    scale: float, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient that trains a value is the scaled sum over the weights that share it; zero has none. With layer
    scales, a scale's gradient is that of its tensor along itself."""
    torch.manual_seed(0)
    model = build("lenet_300_100", digits.shape, 10)
    parameters = shared_parameters(model)
    values = torch.tensor([0.0, -0.1, 0.05, 0.2])
    found: list[Tensor] = []
    batch = next(batches(digits, 32, "none", torch.Generator().manual_seed(0)))

    def one_step(
        model: nn.Module, data: Splits, loss: object, optimiser: torch.optim.Optimizer, **rest: object
    ) -> None:
        assert callable(loss)
        found.extend(torch.autograd.grad(loss(model, batch), optimiser.param_groups[0]["params"]))

    nearest = (flatten(parameters).detach()[:, None] - values).abs().argmin(dim=1)
    start = QuantisedWeights(nearest, values, torch.full((len(parameters),), scale))
    monkeypatch.setattr(codebook_training, "train", one_step)
    codebook_training.train_values(
        model, start, CROSS_ENTROPY, digits, lambda row: None, epochs=1, learning_rate=1e-3, batch_size=32, seed=0
    )
    start.write(parameters)
    gradients = torch.autograd.grad(F.cross_entropy(model(batch.images), batch.labels), parameters)
    sums = torch.zeros(4).index_add(0, nearest, scale * flatten(gradients))
    torch.testing.assert_close(found[0], sums[1:], rtol=1e-4, atol=1e-6)
    assert len(found) == (1 if scale == 1 else 2)
    if scale != 1:
        along = torch.stack([(p * g).sum() for p, g in zip(parameters, gradients, strict=True)])
        torch.testing.assert_close(found[1], along, rtol=1e-4, atol=1e-6)


def test_training_the_values_keeps_the_assignment(digits: Splits) -> None:
    """Only values move: the same assignment, zero still zero, the network's weights the trained values."""
    torch.manual_seed(0)
    model = build("lenet_300_100", digits.shape, 10)
    parameters = shared_parameters(model)
    values = torch.tensor([0.0, -0.1, 0.05, 0.2])
    before = QuantisedWeights(
        (flatten(parameters).detach()[:, None] - values).abs().argmin(dim=1), values, torch.ones(6)
    )
    rows: list[dict] = []
    after = codebook_training.train_values(
        model, before, CROSS_ENTROPY, digits, rows.append, epochs=2, learning_rate=1e-2, batch_size=64, seed=0,
        first_epoch=5,
    )  # fmt: skip
    assert torch.equal(before.assignment, after.assignment)
    assert float(after.values[0]) == 0 and not torch.equal(before.values, after.values)
    assert all(torch.equal(p, w) for p, w in zip(parameters, after.tensors(parameters), strict=True))
    assert [(row["phase"], row["epoch"]) for row in rows] == [("codebook", 5), ("codebook", 6)]
    assert rows[1]["val_loss"] < rows[0]["val_loss"]


class Spare(nn.Module):
    """A network with a frozen layer, and one that its forward pass does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare, self.head = nn.Linear(64, 10), nn.Linear(10, 10), nn.Linear(10, 10)
        self.body.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images.flatten(1)).relu())
        return out


def test_frozen_and_unused_layers_have_no_say(digits: Splits) -> None:
    """The values are trained by the layers that are in use and not frozen; one that only others have stays."""
    torch.manual_seed(0)
    model = Spare()
    parameters = shared_parameters(model)
    owners = {id(model.body.weight): 1, id(model.body.bias): 1, id(model.spare.weight): 2, id(model.spare.bias): 2}
    assignment = torch.cat([torch.full((p.numel(),), owners.get(id(p), 0)) for p in parameters])
    start = sum(p.numel() for p in parameters[: [id(p) for p in parameters].index(id(model.head.weight))])
    assignment[start : start + 10] = 3  # of one class alone: of all classes the gradients would cancel out
    values = torch.tensor([0.0, 0.125, 0.25, 0.375])  # which float16 has
    before = QuantisedWeights(assignment, values, torch.ones(len(parameters)))
    after = codebook_training.train_values(
        model, before, CROSS_ENTROPY, digits, lambda row: None, epochs=1, learning_rate=1e-2, batch_size=64, seed=0
    )
    assert (after.values == before.values).tolist() == [True, True, True, False]

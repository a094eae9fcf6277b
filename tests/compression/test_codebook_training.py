"""The last phase of every method: its epochs' numbers, its defaults, its table; and sizes by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.artifacts.weight_trace import Trace
from study.compression import codebook_training
from study.compression.codebook_training import CodebookHparams, finish, score_if_quantised, train_values
from study.compression.compressed_file import Network
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.compression.size_metrics import TensorRow, csr_bits, tensor_table
from study.data.splits import Splits
from study.training import distillation
from study.training.distillation import Targets

CROSS_ENTROPY = distillation.accuracy_loss(Targets(), 1.0, 0.0)


def linear(digits: Splits) -> tuple[nn.Module, QuantisedWeights]:
    """A layer of 650 weights, each with the nearest of four values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    values = torch.tensor([0.0, -0.1, 0.05, 0.1])
    parameters = shared_parameters(model)
    nearest = (flatten(parameters).detach()[:, None] - values).abs().argmin(dim=1)
    quantised = QuantisedWeights(nearest, values, torch.ones(2))
    quantised.write(parameters)
    return model, quantised


def test_epochs_are_counted_from_one(digits: Splits) -> None:
    """Unless a phase came before."""
    model, quantised = linear(digits)
    rows: list[dict[str, Any]] = []
    train_values(
        model, quantised, CROSS_ENTROPY, digits, rows.append, epochs=2, learning_rate=1e-3, batch_size=256, seed=0
    )
    assert [row["epoch"] for row in rows] == [1, 2]


def test_the_last_phase_follows_the_phase_before(digits: Splits) -> None:
    """After four epochs, two of the codebook are the fifth and sixth, and what they end with is what is returned."""
    model, quantised = linear(digits)
    rows: list[dict[str, Any]] = []
    hparams = CodebookHparams(codebook_epochs=2, codebook_rate=1e-2, batch_size=256)
    trained, metrics = finish(model, quantised, CROSS_ENTROPY, hparams, digits, rows.append, seed=0, first_epoch=5)
    assert [row["epoch"] for row in rows] == [5, 6]
    assert {key: rows[-1][key] for key in metrics} == metrics
    assert not torch.equal(trained.values, quantised.values)


def test_without_codebook_epochs_nothing_is_trained(digits: Splits) -> None:
    """The network is scored as it was quantised, with values that its file stores in two bytes."""
    model, quantised = linear(digits)
    rows: list[dict[str, Any]] = []
    hparams = CodebookHparams(codebook_epochs=0)
    same, metrics = finish(model, quantised, CROSS_ENTROPY, hparams, digits, rows.append, seed=0, first_epoch=5)
    assert same.assignment is quantised.assignment and not rows
    assert same.values.tolist() == quantised.values.half().tolist()
    quantised.rounded().write(shared_parameters(model))
    assert metrics == codebook_training.score(model, same, digits)


def test_the_scored_network_is_the_one_in_the_file(digits: Splits) -> None:
    """Bit for bit: values, scales and batch-norm are float16 numbers before the network is scored."""
    model, quantised = linear(digits)
    model = nn.Sequential(*model, nn.BatchNorm1d(10))
    quantised = QuantisedWeights(quantised.assignment, quantised.values, torch.tensor([0.3, 0.7]))
    quantised.write(shared_parameters(model))
    hparams = CodebookHparams(codebook_epochs=1, batch_size=256)
    trained, metrics = finish(model, quantised, CROSS_ENTROPY, hparams, digits, lambda row: None, seed=0, first_epoch=1)
    for tensor in (trained.values, trained.scales, *model[-1].state_dict().values()):
        assert tensor.dtype == torch.int64 or torch.equal(tensor, tensor.half().float())
    assert metrics == codebook_training.score(model, trained, digits)
    trained.write(shared_parameters(model))
    assert metrics == codebook_training.score(model, trained, digits)


def test_values_that_float16_lacks_stay_as_they_are() -> None:
    """Where one of them would overflow, vanish, or lose more than its last bit, all of them stay."""
    ones, index = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    for value in (1e5, 1e-8, 1.2345e-7):
        values = torch.tensor([0.0, 0.1, value])
        assert torch.equal(QuantisedWeights(index, values, ones).rounded().values, values)
    rounded = QuantisedWeights(index, torch.tensor([0.0, 0.1, -6e4]), ones).rounded()
    assert rounded.values.tolist() == torch.tensor([0.0, 0.1, -6e4]).half().tolist()


@pytest.mark.parametrize(("epochs", "last"), [(0, 4), (2, 6)])
def test_a_trace_ends_at_the_last_epoch(
    epochs: int, last: int, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the quantised weights, each over its tensor's scale, in layers that have names and sizes."""
    model, quantised = linear(digits)
    scaled = QuantisedWeights(quantised.assignment, quantised.values, torch.tensor([2.0, 0.5]))
    scaled.write(shared_parameters(model))
    ends: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Trace, "end", lambda self, *what: ends.append(what))
    progress = Progress()
    progress.trace = Trace.__new__(Trace)
    hparams = CodebookHparams(codebook_epochs=epochs, batch_size=256)
    trained, _ = finish(
        model, scaled, CROSS_ENTROPY, hparams, digits, lambda row: None, seed=0, first_epoch=5, progress=progress
    )
    ((epoch, weights, values, assignment, layers),) = ends
    assert epoch == last and layers == [("1.weight", 640), ("1.bias", 10)]
    assert torch.equal(assignment, quantised.assignment) and torch.equal(values, trained.values)
    torch.testing.assert_close(weights.detach(), trained.values[trained.assignment])


def test_a_temperature_alone_changes_nothing() -> None:
    """By default the loss is cross-entropy; with alpha alone it is Hinton's at temperature 1, a plain KL divergence."""
    hparams = CodebookHparams()
    student, teacher, labels = torch.randn(6, 4), torch.randn(6, 4), torch.randint(0, 4, (6,))

    def loss(alpha: float) -> Tensor:
        return distillation.distillation_loss(student, teacher, labels, hparams.temperature, alpha)

    assert hparams.alpha == 0
    torch.testing.assert_close(loss(hparams.alpha), nn.functional.cross_entropy(student, labels))
    p, q = teacher.softmax(1), student.softmax(1)
    torch.testing.assert_close(loss(1.0), (p * (p / q).log()).sum(1).mean())


def test_a_score_of_what_would_be_changes_nothing(digits: Splits) -> None:
    """The network has its weights again, and both accuracies are reported: with them, and quantised."""
    model, quantised = linear(digits)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    nothing = QuantisedWeights(quantised.assignment, torch.zeros(4), torch.ones(2))

    def quantise() -> QuantisedWeights:
        nothing.write(shared_parameters(model))
        return nothing

    metrics = score_if_quantised(model, quantise, digits)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert metrics["unquantised_val_accuracy"] == codebook_training.score(model, quantised, digits)["val_accuracy"]
    assert metrics["val_loss"] == pytest.approx(2.302585, rel=1e-5)  # ln 10: every class is as likely


def test_steps_that_fit_need_no_filler() -> None:
    """Of three steps of 17 none is longer than 32, so three weights are stored; a step of 65 takes two fillers."""
    layer = nn.Linear(200, 1, bias=False)
    index = torch.zeros(200, dtype=torch.int64)
    index[[16, 33, 50]] = 1
    quantised = QuantisedWeights(index, torch.tensor([0.0, 1.0]), torch.ones(1))
    assert csr_bits(quantised, [layer.weight]) == 3 * (5 + 1) + 32 * 2
    index[115] = 1
    assert csr_bits(quantised, [layer.weight]) == (4 + 2) * (5 + 1) + 32 * 2


def test_scales_are_counted_where_there_are_any() -> None:
    """32 bits for each of two scales, if one of them is not 1."""
    layer = nn.Linear(4, 2)
    index = torch.tensor([1] * 10)
    bits = [csr_bits(QuantisedWeights(index, torch.tensor([0.0, 1.0]), torch.tensor([1.0, scale])),
                     [layer.weight, layer.bias]) for scale in (1.0, 2.0)]  # fmt: skip
    assert bits == [10 * (5 + 1) + 32 * 2, 10 * (5 + 1) + 32 * (2 + 2)]


def test_a_row_of_the_table_by_hand() -> None:
    """Weights, nonzeros, sparsity and how many values a tensor has, the zero included."""
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2, bias=False))
    assignment = torch.tensor([0, 0, 0, 0, 0, 0, 1, 3, 1, 1, 2, 2, 2, 0])
    network = Network("own:net", {}, (4,), 2, (0.0,), (1.0,), "own:data")
    rows = tensor_table(model, QuantisedWeights(assignment, torch.arange(4.0), torch.ones(3)), network)
    assert [(r.name, r.shape, r.weights, r.nonzero, r.values) for r in rows] == [
        ("0.weight", (2, 4), 8, 2, 3), ("0.bias", (2,), 2, 2, 1), ("1.weight", (2, 2), 4, 3, 2),
    ]  # fmt: skip
    assert [r.sparsity for r in rows] == [75, 0, 25]
    assert TensorRow("w", (3,), 3, 0, 1, 4).sparsity == 100

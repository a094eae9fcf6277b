"""Quantised training: one step by hand, what is dropped, and what the network is at the end."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.compression import quantised_training
from study.compression.codebook_training import CodebookHparams
from study.compression.quantised_training import SharedValues, straight_through, train_quantised
from study.compression.quantised_weights import flatten, shared_parameters
from study.data.splits import Splits
from study.errors import TrialFailed
from study.training import distillation
from study.training.batches import Batch
from study.training.distillation import Targets

CROSS_ENTROPY = distillation.accuracy_loss(Targets(), 1.0, 0.0)
HPARAMS = CodebookHparams(batch_size=32)


def weights_of(model: nn.Module) -> Tensor:
    return flatten(shared_parameters(model)).detach().clone()


def largest(model: nn.Module, count: int) -> Tensor:
    """Mark so many weights of largest magnitude."""
    flat = weights_of(model).abs()
    return flat >= flat.topk(count).values.min()


def in_float64(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy that is never rounded to float32."""
    return nn.functional.cross_entropy(model(batch.images), batch.labels)


def tiny() -> tuple[nn.Sequential, Batch]:
    """Two inputs, two outputs in float64, and three examples."""
    model = nn.Sequential(nn.Linear(2, 2).double())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, -0.2], [-1.1, 1.3]]))
        model[0].bias.copy_(torch.tensor([0.4, 0.0]))
    images = torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.7, -1.2]]).double()
    index = torch.arange(3)
    return model, Batch(index, torch.zeros_like(index), images, torch.tensor([0, 1, 0]))


def test_a_step_by_hand() -> None:
    """In float64: with values −1, 0 and 1 the outputs are those of the rounded weights; a weight's gradient is that of
    its rounded weight, a value's the sum over its weights, and zero has none."""
    model, batch = tiny()
    survives = torch.tensor([True, True, True, True, True, False])
    shared = SharedValues(shared_parameters(model), survives, torch.tensor([-1.0, 1.0]))
    assert shared.weights.dtype == torch.float64
    loss = straight_through(in_float64, shared)(model, batch)
    loss.backward()
    # 0.9 → 1, −0.2 → 0, −1.1 → −1, 1.3 → 1; the bias 0.4 → 0.
    rounded = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double()
    logits = batch.images @ rounded.T
    errors = (logits.softmax(dim=1) - nn.functional.one_hot(batch.labels, 2)) / 3
    by_weight = errors.T @ batch.images
    expected = torch.cat([by_weight.flatten(), errors.sum(dim=0)[:1]])
    assert float(loss.detach()) == pytest.approx(float(nn.functional.cross_entropy(logits, batch.labels)), rel=1e-12)
    torch.testing.assert_close(shared.weights.grad, expected, rtol=1e-12, atol=1e-12)
    value_gradients = torch.stack([expected[2], expected[0] + expected[3]])
    torch.testing.assert_close(shared.values.grad, value_gradients, rtol=1e-12, atol=1e-12)


def test_other_parameters_have_their_own_gradient() -> None:
    """What is not shared, such as batch-norm's scale, is trained as always, at the rounded weights."""
    model, batch = tiny()
    with_norm = nn.Sequential(model[0], nn.BatchNorm1d(2).double())
    shared = SharedValues(shared_parameters(with_norm), torch.ones(6, dtype=torch.bool), torch.tensor([-1.0, 1.0]))
    straight_through(in_float64, shared)(with_norm, batch).backward()
    reference = copy.deepcopy(with_norm)
    reference.zero_grad()
    in_float64(reference, batch).backward()  # `with_norm` has its rounded weights now
    assert with_norm[1].weight.grad is not None and with_norm[1].weight.grad.any()
    torch.testing.assert_close(with_norm[1].weight.grad, reference[1].weight.grad)
    torch.testing.assert_close(with_norm[1].bias.grad, reference[1].bias.grad)


def test_every_weight_has_one_of_the_values(digits: Splits, pretrained: nn.Module) -> None:
    """Every epoch, and the end: survivors have one of five values or zero, all others zero; weights and values both
    have moved."""
    model = copy.deepcopy(pretrained)
    survives = largest(model, 20_000)
    start = quantised_training.kmeans(weights_of(model)[survives], 5)
    seen: list[Tensor] = []
    rows: list[dict] = []

    def on_epoch(row: dict) -> None:
        rows.append(row)
        seen.append(weights_of(model))

    quantised = train_quantised(
        model, survives, 6, CROSS_ENTROPY, HPARAMS, digits, on_epoch, epochs=3, first_epoch=5, seed=0
    )
    assert [(row["epoch"], row["phase"]) for row in rows] == [(5, "quantise"), (6, "quantise"), (7, "quantise")]
    for weights in seen:
        assert len(weights.unique()) <= 6 and not weights[~survives].any()
    assert torch.equal(weights_of(model), quantised.values[quantised.assignment])
    assert float(quantised.values[0]) == 0 and bool((torch.bincount(quantised.assignment) > 0).all())
    assert not torch.isin(quantised.values[1:], start.float()).any()
    assert float((seen[0] != seen[-1])[survives].double().mean()) > 0.9
    assert rows[-1]["val_accuracy"] > 90


def test_zeros_are_dropped_for_good_after_three_fifths(
    digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A survivor that is zero at 60 % of the steps is zero at the end; before that it may leave zero."""
    model = copy.deepcopy(pretrained)
    survives = largest(model, 20_000)
    zeros: list[tuple[str, Tensor]] = []
    drop_zeros = SharedValues.drop_zeros
    monkeypatch.setattr(
        SharedValues,
        "drop_zeros",
        lambda shared: (zeros.append(("drop", shared.quantised().assignment == 0)), drop_zeros(shared)),
    )

    def on_epoch(row: dict) -> None:
        zeros.append(("epoch", weights_of(model) == 0))

    train_quantised(model, survives, 6, CROSS_ENTROPY, HPARAMS, digits, on_epoch, epochs=5, first_epoch=1, seed=0)
    assert [name for name, _ in zeros] == ["epoch"] * 3 + ["drop"] + ["epoch"] * 2
    dropped = zeros[3][1]
    assert int((dropped & survives).sum()) > 0
    assert all(bool(after[dropped].all()) for _, after in zeros[4:])
    assert any(
        bool((~after[before & survives]).any()) for (_, before), (_, after) in zip(zeros, zeros[1:3], strict=False)
    )


def test_moments_are_carried_over(digits: Splits, pretrained: nn.Module) -> None:
    """The survivors start with Adam's moments and step count from before, each weight with its own."""
    model = copy.deepcopy(pretrained)
    parameters = shared_parameters(model)
    before = torch.optim.Adam(model.parameters(), fused=True)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    before.step()
    survives = largest(model, 500)
    shared = SharedValues(parameters, survives, torch.tensor([1.0]))
    state: Any = quantised_training._adam(model, shared, HPARAMS, before).state[shared.weights]
    gradient = flatten([p.grad for p in parameters if p.grad is not None])[survives]
    assert float(state["step"]) == 1
    torch.testing.assert_close(state["exp_avg"], 0.1 * gradient)
    torch.testing.assert_close(state["exp_avg_sq"], 0.001 * gradient.square())


def test_nothing_left_is_a_failed_trial(digits: Splits) -> None:
    """Survivors that no output depends on leave no network."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(digits.shape[1] * digits.shape[2], 8), nn.ReLU(), nn.Linear(8, 10))
    nn.init.zeros_(model[3].weight)
    survives = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.bool)
    survives[1024:1074] = True  # inputs of the second unit, which nobody reads
    with pytest.raises(TrialFailed, match="every weight was pruned"):
        train_quantised(
            model, survives, 6, CROSS_ENTROPY, HPARAMS, digits, lambda row: None, epochs=1, first_epoch=1, seed=0
        )

"""The distillation loss by hand, targets that belong to their views, and runs that repeat."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from study import data, kd
from study.data import Splits
from study.errors import TrialFailed
from study.training import AUGMENTATIONS, batches, train

TINY = kd.Training("minivgg", {"width": 0.125}, epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def digits() -> Splits:
    splits, _ = data.load("digits", None, size=32)
    return dataclasses.replace(splits, train=data.subset_per_class(splits.train, 4, 0))


def test_loss_by_hand() -> None:
    """Two classes, T = 2: α T² KL + (1 − α) cross-entropy, computed with `math` alone."""
    p, q = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))
    soft = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    hard = math.log(1 + math.exp(1.0))
    loss = kd.distillation_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 2.0, 0.3)
    assert float(loss) == pytest.approx(0.3 * 4 * soft + 0.7 * hard, rel=1e-5)


def test_alpha_zero_is_cross_entropy_and_equal_logits_cost_nothing() -> None:
    """α = 0 is plain cross-entropy whatever the teacher; α = 1 on the teacher's own logits, shifted, is zero."""
    student, teacher = torch.randn(2, 8, 5).unbind()
    labels = torch.arange(8) % 5
    torch.testing.assert_close(kd.distillation_loss(student, teacher, labels, 3, 0), F.cross_entropy(student, labels))
    assert float(kd.distillation_loss(teacher + 7, teacher, labels, 3, 1)) == pytest.approx(0, abs=1e-5)


def test_gradient_keeps_its_size_as_temperature_rises() -> None:
    """For large T the soft term's gradient is that of matching centred logits, Hinton et al. (2015), eq. 4."""
    student, teacher = torch.randn(2, 4, 10, dtype=torch.float64).unbind()
    student.requires_grad_()
    loss = kd.distillation_loss(student, teacher, torch.zeros(4, dtype=torch.int64), 1e3, 1)
    (gradient,) = torch.autograd.grad(loss, [student])
    gap = student - teacher
    expected = (gap - gap.mean(dim=1, keepdim=True)) / (10 * 4)
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(
    "values", [{"alpha": 1.5}, {"alpha": 0.5, "temperature": 0}, {"alpha": 0.5, "label_smoothing": 0.1}]
)
def test_values_that_cannot_be_meant_are_refused(values: dict[str, float]) -> None:
    """α beyond [0, 1], T of zero, and smoothing beside a teacher raise ValueError; so does a misspelt name."""
    with pytest.raises(ValueError):
        kd.Hparams(student=TINY, **values)
    with pytest.raises(TypeError):
        kd.Hparams(student=TINY, alpha=0.1, temprature=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_kept_logits_are_those_of_the_view(augment: str, digits: Splits) -> None:
    """Cached targets equal the teacher run on the very images of the batch, mirrored ones included."""
    teacher = kd.build(TINY, digits).eval()
    kept = kd.Targets(kd.teacher_logits(teacher, digits.train, digits, augment))
    flips = 0
    for batch in batches(digits, 16, augment, torch.Generator().manual_seed(3)):
        torch.testing.assert_close(kept.of(batch), kd.Targets(teacher=teacher).of(batch), rtol=1e-4, atol=1e-4)
        flips += int(batch.flipped.sum())
    assert (flips > 0) == (augment == "flip")


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_an_epoch_shows_each_image_once(augment: str, digits: Splits) -> None:
    """Every training row appears exactly once, in batches whose sizes differ by one at most, of the same shape."""
    shown = list(batches(digits, 15, augment, torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([b.index for b in shown]).tolist()) == list(range(len(digits.train)))
    assert len({len(b.index) for b in shown} - {13, 14}) == 0
    assert all(b.images.shape[1:] == (1, 32, 32) for b in shown)


def test_a_seed_repeats_bit_for_bit(digits: Splits) -> None:
    """The same seed gives the same weights, another seed others."""

    def weights(seed: int) -> torch.Tensor:
        hparams = kd.Hparams(dataclasses.replace(TINY, seed=seed, augment="crop"), alpha=0.0)
        return torch.cat([p.flatten() for p in kd.fit(hparams, digits, kd.Targets(), lambda row: None).parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))


def test_training_that_diverges_is_a_failed_trial(digits: Splits) -> None:
    """A loss that is not a number ends the run as TrialFailed, with the epoch in its reason."""
    model = kd.build(TINY, digits)
    with pytest.raises(TrialFailed, match="nan in epoch 1"):
        train(
            model,
            digits,
            lambda m, b: m(b.images).sum() * math.nan,
            torch.optim.SGD(model.parameters(), lr=0.1),
            epochs=3,
            batch_size=16,
            generator=torch.Generator().manual_seed(0),
            after_epoch=lambda epoch, loss: None,
        )


def test_learning_rate_ends_at_zero(digits: Splits) -> None:
    """Half a cosine: the peak at the first step, zero after the last."""
    model = kd.build(TINY, digits)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    train(
        model,
        digits,
        lambda m, b: m(b.images).square().mean(),
        optimiser,
        epochs=2,
        batch_size=16,
        generator=torch.Generator().manual_seed(0),
        after_epoch=lambda epoch, loss: None,
    )
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)

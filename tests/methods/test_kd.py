"""The distillation loss by hand, targets that belong to their views, and runs that repeat."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shown import batches
from torch import Tensor, nn

from study.artifacts.cache import SharedWork
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.methods.kd.student import Hparams, dark_knowledge, fit_student
from study.training import distillation, loop, network
from study.training.distillation import Targets
from study.training.loop import logits_of
from study.training.network import Training

HPARAMS = Hparams(student="minivgg", student_width=0.125, alpha=0.0, epochs=2, batch_size=16)
TINY = HPARAMS.training


@pytest.fixture(scope="module")
def digits() -> Splits:
    splits, _ = registry.load("digits", None, size=32)
    return dataclasses.replace(splits, train=subset_per_class(splits.train, 4, 0))


def test_loss_by_hand() -> None:
    """Two classes, T = 2: α T² KL + (1 − α) cross-entropy, computed with `math` alone."""
    p, q = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))
    soft = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    hard = math.log(1 + math.exp(1.0))
    loss = distillation.distillation_loss(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 2.0, 0.3
    )
    assert float(loss) == pytest.approx(0.3 * 4 * soft + 0.7 * hard, rel=1e-5)


def test_alpha_zero_is_cross_entropy_and_equal_logits_cost_nothing() -> None:
    """α = 0 is plain cross-entropy whatever the teacher; α = 1 on the teacher's own logits, shifted, is zero."""
    student, teacher = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0)).unbind()
    labels = torch.arange(8) % 5
    torch.testing.assert_close(
        distillation.distillation_loss(student, teacher, labels, 3, 0), F.cross_entropy(student, labels)
    )
    assert float(distillation.distillation_loss(teacher + 7, teacher, labels, 3, 1)) == pytest.approx(0, abs=1e-5)


def test_gradient_keeps_its_size_as_temperature_rises() -> None:
    """For large T the soft term's gradient is that of matching centred logits, Hinton et al. (2015), eq. 4."""
    student, teacher = torch.randn(2, 4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    student.requires_grad_()
    loss = distillation.distillation_loss(student, teacher, torch.zeros(4, dtype=torch.int64), 1e3, 1)
    (gradient,) = torch.autograd.grad(loss, [student])
    gap = student - teacher
    expected = (gap - gap.mean(dim=1, keepdim=True)) / (10 * 4)
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 1.5},
        {"alpha": math.nan},
        {"alpha": 0.5, "temperature": 0},
        {"alpha": 0.5, "temperature": -1},
        {"alpha": 0.5, "label_smoothing": 1.0},
    ],
)
def test_values_that_cannot_be_meant_are_refused(values: dict[str, float]) -> None:
    """α beyond [0, 1], T of zero, and labels that are smoothed away raise ValueError; so does a misspelt name."""
    with pytest.raises(ValueError):
        Hparams(student="minivgg", **values)
    with pytest.raises(TypeError):
        Hparams(student="minivgg", alpha=0.1, temprature=2)  # type: ignore[call-arg]


def test_what_is_trained_follows_from_the_hyperparameters() -> None:
    """`Hparams.training` has the student's name, width and training under their names in `Training`."""
    numbers = {"epochs": 7, "batch_size": 9, "learning_rate": 0.5, "weight_decay": 0.25, "augment": "flip", "seed": 3}
    hparams = Hparams(student="vgg11", student_width=0.5, alpha=0.1, precision="float32", **numbers)
    assert hparams.training == Training("vgg11", {"width": 0.5}, precision="float32", **numbers)
    assert Hparams(student="lenet5", alpha=0.1).training == Training("lenet5")


def test_gradient_has_one_size_at_every_temperature() -> None:
    """From T = 2 to T = 1000 the soft term's gradient stays within a factor of two: T² makes up for it."""
    student, teacher = torch.randn(2, 16, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    student.requires_grad_()
    sizes = []
    for temperature in (2.0, 5.0, 20.0, 1000.0):
        loss = distillation.distillation_loss(student, teacher, torch.zeros(16, dtype=torch.int64), temperature, 1)
        sizes.append(float(torch.autograd.grad(loss, [student])[0].norm()))
    assert max(sizes) < 2 * min(sizes)


def test_logits_may_be_shifted() -> None:
    """A constant added to all logits of an example, the student's or the teacher's, changes neither term."""
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).unbind()
    labels, by = torch.arange(8) % 5, torch.arange(8.0).double()[:, None]
    plain = distillation.distillation_loss(student, teacher, labels, 3, 0.4)
    torch.testing.assert_close(distillation.distillation_loss(student + by, teacher - 2 * by, labels, 3, 0.4), plain)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_kept_logits_are_those_of_the_view(augment: str, digits: Splits) -> None:
    """Cached targets equal the teacher run on the very images of the batch, mirrored ones included."""
    teacher = network.build_network(TINY, digits).eval()
    kept = Targets(distillation.teacher_logits(teacher, digits.train, digits, augment))
    flips = 0
    for batch in batches(digits, 16, augment, torch.Generator().manual_seed(3)):
        torch.testing.assert_close(kept.of(batch), Targets(teacher=teacher).of(batch, "float32"), rtol=1e-4, atol=1e-4)
        flips += int(batch.view.sum())
    assert (flips > 0) == (augment == "flip")


def test_a_seed_repeats_bit_for_bit(digits: Splits) -> None:
    """The same seed gives the same weights, another seed others."""

    def weights(seed: int) -> torch.Tensor:
        hparams = dataclasses.replace(HPARAMS, seed=seed, augment="crop")
        return torch.cat([p.flatten() for p in fit_student(hparams, digits, Targets(), lambda row: None).parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))


class Counting(nn.Module):
    """A teacher that keeps the images that it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        assert not torch.is_grad_enabled()
        return images.mean(dim=(2, 3)) * torch.arange(10.0)


def fitted(hparams: Hparams, splits: Splits, targets: Targets) -> tuple[Tensor, list[dict]]:
    """All of the student's weights and buffers as one vector, and the rows that it reported."""
    rows: list[dict] = []
    model = fit_student(hparams, splits, targets, rows.append)
    return torch.cat([t.flatten().double() for t in model.state_dict().values()]), rows


def test_distilling_repeats_bit_for_bit(digits: Splits) -> None:
    """With kept logits of both views, two runs end with the same weights, statistics and reports."""
    teacher = network.build_network(dataclasses.replace(TINY, seed=5), digits)
    targets = Targets(distillation.teacher_logits(teacher, digits.train, digits, "flip"))
    hparams = dataclasses.replace(HPARAMS, augment="flip", alpha=0.7, temperature=4.0)
    (first, rows), (second, again) = (fitted(hparams, digits, targets) for _ in range(2))
    assert torch.equal(first, second) and rows == again
    assert [row["epoch"] for row in rows] == [1, 2]


def test_alpha_zero_does_not_ask_the_teacher(digits: Splits) -> None:
    """With α = 0 any teacher, or none, gives the same student bit for bit; with α > 0 it does not."""
    teacher = Counting()
    hparams = dataclasses.replace(HPARAMS, temperature=5.0)
    alone, _ = fitted(hparams, digits, Targets())
    beside, _ = fitted(hparams, digits, Targets(teacher=teacher))
    assert torch.equal(alone, beside) and not teacher.seen
    taught, _ = fitted(dataclasses.replace(hparams, alpha=0.5), digits, Targets(teacher=teacher))
    assert not torch.equal(alone, taught)


def test_crop_asks_the_teacher_about_every_batch(digits: Splits) -> None:
    """The live teacher sees the very images of each of the student's batches, without gradients."""
    teacher = Counting()
    hparams = dataclasses.replace(HPARAMS, augment="crop", seed=3, alpha=0.5)
    fitted(hparams, digits, Targets(teacher=teacher))
    generator = torch.Generator().manual_seed(3)
    shown = [b.images for _ in range(TINY.epochs) for b in batches(digits, TINY.batch_size, "crop", generator)]
    assert len(shown) == len(teacher.seen)
    assert all(torch.equal(a, b) for a, b in zip(shown, teacher.seen, strict=True))


def test_a_shared_teacher_is_logits_or_for_crop_the_network(digits: Splits) -> None:
    """`targets_from` keeps logits for flip, and for crop rebuilds the teacher in evaluation mode, weights frozen."""
    teacher = network.build_network(dataclasses.replace(TINY, seed=5), digits).eval()
    logits = distillation.teacher_logits(teacher, digits.train, digits, "flip")
    shared = SharedWork({**network.state_arrays(teacher), "logits": logits.numpy()})
    kept = distillation.targets_from(shared, TINY, digits, "flip")
    assert kept.teacher is None and kept.logits is not None and torch.equal(kept.logits, logits)
    live = distillation.targets_from(shared, TINY, digits, "crop").teacher
    assert live is not None and not live.training and not any(p.requires_grad for p in live.parameters())
    torch.testing.assert_close(loop.logits_of(live, digits.train.images, digits), logits[0])


@pytest.mark.parametrize("stored", ["none", "crop"])
def test_a_view_without_stored_logits_is_asked_of_the_teacher(stored: str, digits: Splits) -> None:
    """Where logits were stored for fewer views than the student sees, or for none, the teacher answers every step with
    the logits of exactly those images; the view that is stored is still read."""
    teacher = network.build_network(dataclasses.replace(TINY, seed=5), digits).eval()
    arrays = distillation.stored_logits(teacher, digits.train, digits, stored)
    shared = SharedWork({**network.state_arrays(teacher), **arrays})
    targets = distillation.targets_from(shared, TINY, digits, "flip")
    assert targets.logits is None and targets.teacher is not None and not targets.teacher.training
    for batch in batches(digits, 16, "flip", torch.Generator().manual_seed(3)):
        torch.testing.assert_close(targets.of(batch, "float32"), Targets(teacher=teacher).of(batch, "float32"))
    plain = distillation.targets_from(shared, TINY, digits, "none")
    assert (plain.logits is None) == (stored == "crop")


def test_dark_knowledge_shows_each_class_of_images_that_come_class_by_class(digits: Splits) -> None:
    """As those of a folder do: none is left out since others come first."""
    order = digits.validation.labels.argsort(descending=True)
    part = digits.validation[torch.cat([order] * 20)]  # 720 of the first class
    splits = dataclasses.replace(digits, validation=part)
    found = dark_knowledge(network.build_network(TINY, digits), splits)
    assert found["labels"].tolist() == list(range(10)) and found["logits"].shape == (10, 10)


def test_dark_knowledge_shows_each_class_where_the_teacher_was_closest_to_another(digits: Splits) -> None:
    """One validation image of each class with its own logits, and of those the teacher gets right the one with the
    smallest lead."""
    teacher = network.fit_teacher(TINY, digits, lambda row: None)
    found = dark_knowledge(teacher, digits)
    assert found["images"].dtype == np.uint8 and found["labels"].tolist() == list(range(10))
    again = logits_of(teacher, torch.from_numpy(found["images"]), digits)
    torch.testing.assert_close(again, torch.from_numpy(found["logits"]))
    everything = logits_of(teacher, digits.validation.images, digits)
    for label, logits in enumerate(found["logits"]):
        mine = everything[digits.validation.labels == label]
        top = mine.topk(2).values
        right = mine.argmax(dim=1) == label
        if right.any():
            shown = np.sort(logits)[-1] - np.sort(logits)[-2]
            assert shown == pytest.approx(float((top[:, 0] - top[:, 1])[right].min()), abs=1e-5)

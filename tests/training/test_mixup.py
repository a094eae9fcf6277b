"""Mixed images and smoothed labels against their equations written out, with and without a teacher."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shown import batches
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.training.batches import Batch, EpochBatches, Mixed
from study.training.distillation import Targets, accuracy_loss, distillation_loss, targets_from
from study.training.labels import label_loss
from study.training.network import Training, build_network, state_arrays

TINY = Training("minivgg", {"width": 0.125}, epochs=3, batch_size=16, precision="float32", augment="flip")


@pytest.fixture(scope="module")
def digits() -> Splits:
    splits, _ = registry.load("digits", None, size=32)
    return dataclasses.replace(splits, train=subset_per_class(splits.train, 4, 0))


@pytest.mark.parametrize("members", [0, 2])
def test_images_and_labels_are_mixed_by_one_share(members: int, digits: Splits) -> None:
    """Every image is λ of its own and 1 − λ of its partner's, whose label comes along; λ is one number a batch."""
    plain, mixed = (EpochBatches(digits, "flip", members, mixup) for mixup in (0.0, 0.4))
    for one in (plain, mixed):
        one.shuffle(*(torch.Generator().manual_seed(n) for n in range(max(1, members))))
    shares = []
    for index, same in zip(plain.split(16), mixed.split(16), strict=True):
        assert torch.equal(index, same)
        own, both = plain.batch(index), mixed.batch(index)
        assert both.mixed is not None and own.mixed is None and torch.equal(both.labels, own.labels)
        share = both.mixed.share
        assert share.shape == index.shape[:-1] and bool((0 <= share).all() and (share <= 1).all())
        shares += share.view(-1).tolist()
        by = share[(...,) + (None,) * 4]
        partner = own.images.roll(1, -4)
        torch.testing.assert_close(both.images, by * own.images + (1 - by) * partner)
        assert torch.equal(both.mixed.labels, digits.train.labels[index.roll(1, -1)])
    assert len(set(shares)) == len(shares)


@pytest.mark.parametrize("parameter", [1e-4, 0.2, 1.0, 8.0])
def test_shares_are_from_beta(parameter: float, digits: Splits) -> None:
    """Mean ½ and the variance 1 / (4 (2a + 1)) of Beta(a, a), without NaN for small a; a seed repeats them."""
    many = registry.load("digits", None)[0]
    epochs = [EpochBatches(many, "none", mixup=parameter) for _ in range(2)]
    for epoch in epochs:
        epoch.shuffle(torch.Generator().manual_seed(3))
    (shares,), (again,) = (epoch._shares for epoch in epochs)
    assert torch.equal(shares, again) and bool(shares.isfinite().all())
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * parameter + 1)), rel=0.1, abs=1e-3)


def test_the_labels_term_by_hand() -> None:
    """Smoothed cross-entropy against the smoothed target written out, and mixed as λ of one plus 1 − λ of the other."""
    student = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, others = torch.arange(6) % 5, (torch.arange(6) + 2) % 5
    nothing = torch.zeros(6)

    def smoothed(labels: Tensor) -> Tensor:
        target = 0.9 * F.one_hot(labels, 5).double() + 0.1 / 5
        return -(target * student.log_softmax(dim=1)).sum(dim=1).mean()

    plain = Batch(nothing, nothing, nothing, labels)
    torch.testing.assert_close(label_loss(student, plain), F.cross_entropy(student, labels))
    torch.testing.assert_close(label_loss(student, plain, 0.1), smoothed(labels))
    mixed = dataclasses.replace(plain, mixed=Mixed(torch.tensor(0.3).double(), others))
    torch.testing.assert_close(label_loss(student, mixed, 0.1), 0.3 * smoothed(labels) + 0.7 * smoothed(others))


def test_smoothing_is_of_the_labels_term_alone(digits: Splits) -> None:
    """With a teacher, α T² KL is as it is, and (1 − α) weighs the smoothed cross-entropy."""
    student, teacher = torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(0)).unbind()
    batch = next(iter(batches(digits, 40, "none", torch.Generator().manual_seed(0))))
    loss = accuracy_loss(Targets(teacher[None]), 4.0, 0.7, 0.1, student_logits=lambda *_: student)
    plain = distillation_loss(student, teacher[batch.index], batch.labels, 4.0, 0.7)
    change = label_loss(student, batch, 0.1) - label_loss(student, batch)
    torch.testing.assert_close(loss(nn.Identity(), batch), plain + 0.3 * change)


class Remembering(nn.Module):
    """A network that keeps the images that it was asked about."""

    def __init__(self, answers: nn.Module) -> None:
        super().__init__()
        self.answers, self.seen = answers, list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return self.answers(images)


def test_teacher_and_student_see_the_same_mixed_image(digits: Splits) -> None:
    """With mixup the teacher runs, though its logits are stored, on the very images of the student."""
    teacher = build_network(TINY, digits)
    arrays = {**state_arrays(teacher), LOGITS: np.zeros((1, 40, 10), dtype=np.float32)}
    assert targets_from(SharedWork(arrays), TINY, digits, "none").teacher is None
    targets = targets_from(SharedWork(arrays), TINY, digits, "none", mixup=0.2)
    assert targets.teacher is not None and targets.logits is None
    both = Remembering(targets.teacher), Remembering(build_network(TINY, digits))
    epoch = EpochBatches(digits, "none", mixup=0.2)
    epoch.shuffle(torch.Generator().manual_seed(0))
    batch = epoch.batch(epoch.split(16)[0])
    accuracy_loss(Targets(teacher=both[0]), 4.0, 0.5, precision="float32")(both[1], batch).backward()
    assert torch.equal(both[0].seen[0], both[1].seen[0]) and torch.equal(both[0].seen[0], batch.images)
    with pytest.raises(AssertionError, match="stored logits"):
        Targets(torch.zeros(1, 40, 10)).of(batch)

"""Every distillation loss against its paper's equation, written out one number at a time, and at its edges."""

from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from losses_by_hand import BY_HAND, pearson, softmax
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from study.compression.codebook_training import CodebookHparams
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.methods.kd.student import Hparams, fit_student
from study.settings import DistillationLoss
from study.training import distillation
from study.training.distillation import Targets
from study.training.distillation_losses import SOFT_TERMS, SoftTerm

NAMES = tuple(SOFT_TERMS)
SHIFTED = tuple(name for name in NAMES if name != "mse")
OPTIONS = {"dkd_beta": 5.0, "dist_gamma": 0.7}


def soft(name: str) -> SoftTerm:
    return SOFT_TERMS[name].with_options(OPTIONS)


def random_logits(batch: int, classes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + classes)
    student, teacher = (3 * torch.randn(2, batch, classes, dtype=dtype, generator=generator)).unbind()
    return student, teacher, torch.randint(classes, (batch,), generator=generator)


def gradient(name: str, student: Tensor, teacher: Tensor, labels: Tensor, t: float) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    loss = distillation.distillation_loss(student, teacher, labels, t, 1.0, soft(name))
    return loss.detach(), torch.autograd.grad(loss, [student])[0]


def test_flags_and_losses_have_the_same_names() -> None:
    """`--loss` takes exactly the losses that there are, and each has an equation here."""
    assert typing.get_args(DistillationLoss) == NAMES == tuple(BY_HAND)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(16, 10), (3, 2), (5, 100)])
@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_papers_equation(name: str, shape: tuple[int, int], temperature: float) -> None:
    """α · soft term + (1 − α) cross-entropy, in float64 to 1e-9 and in float32 to 1e-4."""
    student, teacher, labels = random_logits(*shape)
    soft_by_hand = BY_HAND[name](student.tolist(), teacher.tolist(), labels.tolist(), temperature)
    hard = np.mean([-math.log(softmax(z, 1)[y]) for z, y in zip(student.tolist(), labels.tolist(), strict=True)])
    expected = 0.3 * soft_by_hand + 0.7 * hard
    loss = distillation.distillation_loss(student, teacher, labels, temperature, 0.3, soft(name))
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    single = distillation.distillation_loss(student.float(), teacher.float(), labels, temperature, 0.3, soft(name))
    assert float(single) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_options_that_are_not_given_are_the_hyperparameters_defaults(name: str) -> None:
    """A loss taken from the registry is that of a trial that names no more than the loss."""
    logits = random_logits(8, 5)
    trial = Hparams(student="minivgg", alpha=1.0, loss=name).soft_term
    torch.testing.assert_close(
        distillation.distillation_loss(*logits, 2.0, 1.0, SOFT_TERMS[name]),
        distillation.distillation_loss(*logits, 2.0, 1.0, trial),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """Of every loss, in float64."""
    student, teacher, labels = random_logits(4, 6)
    student.requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        return distillation.distillation_loss(logits, teacher, labels, 3.0, 0.6, soft(name))

    assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_keeps_its_size_at_every_temperature(name: str, classes: int) -> None:
    """From T = 2 to T = 20 the gradient of the soft term stays within a factor of two, of every loss."""
    student, teacher, labels = (x / 3 if x.is_floating_point() else x for x in random_logits(64, classes))
    sizes = [float(gradient(name, student, teacher, labels, t)[1].norm()) for t in (2.0, 5.0, 20.0)]
    assert max(sizes) < 2 * min(sizes)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ttm", "wttm")])
def test_a_student_with_the_teachers_logits_loses_nothing(name: str) -> None:
    """The soft term is zero, and so is its gradient."""
    _, teacher, labels = random_logits(6, 7)
    loss, slope = gradient(name, teacher, teacher, labels, 3.0)
    assert float(loss) == pytest.approx(0, abs=1e-12) and float(slope.abs().max()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["ttm", "wttm"])
def test_a_student_with_the_teachers_softened_logits_loses_nothing(name: str) -> None:
    """Only the teacher has a temperature: its logits over T are what is matched."""
    _, teacher, labels = random_logits(6, 7)
    loss, slope = gradient(name, teacher / 3, teacher, labels, 3.0)
    assert float(loss) == pytest.approx(0, abs=1e-12) and float(slope.abs().max()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", SHIFTED)
def test_a_constant_added_to_an_examples_logits_changes_nothing(name: str) -> None:
    """Of the student and of the teacher; squared error alone matches the logits themselves."""
    student, teacher, labels = random_logits(8, 5)
    by = torch.arange(8.0, dtype=torch.float64)[:, None]
    plain = distillation.distillation_loss(student, teacher, labels, 3, 0.4, soft(name))
    shifted = distillation.distillation_loss(student + by, teacher - 2 * by, labels, 3, 0.4, soft(name))
    torch.testing.assert_close(shifted, plain)


def test_standardised_logits_have_no_scale() -> None:
    """Logits twice as large, of the student or of the teacher, cost the same."""
    student, teacher, labels = random_logits(8, 5)
    plain = distillation.distillation_loss(student, teacher, labels, 2, 1, soft("kd-standardised"))
    scaled = distillation.distillation_loss(2 * student, 5 * teacher, labels, 2, 1, soft("kd-standardised"))
    torch.testing.assert_close(scaled, plain)


def test_decoupled_is_hintons_with_the_teachers_own_weight() -> None:
    """Zhao et al. (2022): KD = TCKD + (1 − p of the label) NCKD, of one example."""
    student, teacher, labels = random_logits(1, 6)
    p_label = float(F.softmax(teacher / 3, dim=1)[0, labels[0]])
    term = SOFT_TERMS["dkd"].with_options({"dkd_beta": 1 - p_label})
    torch.testing.assert_close(
        distillation.distillation_loss(student, teacher, labels, 3.0, 1.0, term),
        distillation.distillation_loss(student, teacher, labels, 3.0, 1.0),
    )


def test_squared_error_is_hintons_limit() -> None:
    """Hinton et al. (2015), eq. 4: at large T, of logits whose means are zero."""
    student, teacher, labels = random_logits(8, 10)
    student, teacher = (x - x.mean(dim=1, keepdim=True) for x in (student, teacher))
    limit = distillation.distillation_loss(student, teacher, labels, 1e4, 1.0)
    torch.testing.assert_close(
        distillation.distillation_loss(student, teacher, labels, 2.0, 1.0, soft("mse")), limit, rtol=1e-3, atol=0
    )


def edge_cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Student's and teacher's logits, float32, at which a loss may divide by zero, overflow or underflow."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 10, generator=generator).unbind()
    one_hot = 1e3 * F.one_hot(torch.arange(8) % 10, 10).float()
    zeros, large = torch.zeros(8, 10), 1e3 * student.sign()
    return {
        "constant student": (zeros, teacher),
        "constant teacher": (student, zeros),
        "both constant": (zeros + 5, zeros - 3),
        "large": (1e3 * student, 1e3 * teacher),
        "large and sure of other classes": (one_hot, -one_hot),
        "large with ties": (large, -large),
        "large student, constant teacher": (one_hot, zeros),
        "constant student, large teacher": (zeros, one_hot),
        "large, some classes never": (1e2 * student, 1e2 * teacher),
        "some classes hardly ever": (10 * student, 10 * teacher),
        "tiny differences": (1e-6 * student, 1e-6 * teacher),
        "one example": (student[:1], teacher[:1]),
        "one constant example": (zeros[:1], zeros[:1]),
        "one example, large": (one_hot[:1], -one_hot[:1]),
        "two classes": (student[:, :2], teacher[:, :2]),
        "two classes, large": (1e3 * student[:, :2], -1e3 * student[:, :2]),
        "two classes, constant": (zeros[:, :2], teacher[:, :2]),
        "one example of two classes": (student[:1, :2], teacher[:1, :2]),
        "all examples alike": (student[:1].expand(8, 10), teacher[:1].expand(8, 10)),
    }


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("case", edge_cases())
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_finite_at_the_edges(name: str, case: str, temperature: float) -> None:
    """Float32: constant logits, logits of a thousand, one example, two classes, and all of these together."""
    student, teacher = edge_cases()[case]
    for label in (0, student.shape[1] - 1):
        labels = torch.full((len(student),), label)
        loss, slope = gradient(name, student, teacher, labels, temperature)
        assert loss.dtype == torch.float32 and float(loss) > -1e-5
        assert bool(loss.isfinite()) and bool(slope.isfinite().all())
        assert float(slope.abs().max()) <= 2e4


def test_correlation_of_one_example_is_that_within_it() -> None:
    """Over a batch of one nothing correlates: that part is the constant γ, and has no gradient."""
    student, teacher, labels = random_logits(1, 6)
    within = 1 - pearson(softmax(student[0].tolist(), 2.0), softmax(teacher[0].tolist(), 2.0))
    loss, slope = gradient("dist", student, teacher, labels, 2.0)
    assert float(loss) == pytest.approx(within + 0.7)
    alone = SOFT_TERMS["dist"].with_options({"dist_gamma": 0.0})
    student.requires_grad_()
    of_part = distillation.distillation_loss(student, teacher, labels, 2.0, 1.0, alone)
    torch.testing.assert_close(slope, torch.autograd.grad(of_part, [student])[0])


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_several_students_are_those_of_each(name: str) -> None:
    """(members, batch, classes), each with its own temperature and α, as in a pack."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 3, 8, 5, generator=generator).unbind()
    labels = torch.randint(5, (3, 8), generator=generator)
    temperature, alpha = torch.tensor([0.5, 2.0, 9.0]), torch.tensor([0.0, 0.4, 1.0])
    together = distillation.distillation_loss(student, teacher, labels, temperature, alpha, soft(name))
    own = zip(student, teacher, labels, temperature.tolist(), alpha.tolist(), strict=True)
    each = torch.stack([distillation.distillation_loss(*one, soft(name)) for one in own])
    torch.testing.assert_close(together, each)


@pytest.mark.parametrize("name", NAMES)
def test_no_loss_reads_a_tensor_on_the_host(name: str) -> None:
    """A GPU records it: with tensors that have no numbers, loss and gradient are computed all the same."""
    with FakeTensorMode():
        student, teacher, labels = torch.randn(8, 5), torch.randn(8, 5), torch.zeros(8, dtype=torch.int64)
        loss, slope = gradient(name, student, teacher, labels, 2.0)
    assert loss.shape == () and slope.shape == (8, 5)


@pytest.mark.parametrize("name", NAMES)
def test_alpha_zero_is_cross_entropy(name: str) -> None:
    """Whatever the loss; with label smoothing as well, which `accuracy_loss` has in a baseline."""
    student, teacher, labels = random_logits(8, 5)
    plain = distillation.distillation_loss(student, teacher, labels, 3.0, 0.0, soft(name))
    torch.testing.assert_close(plain, F.cross_entropy(student, labels))


@pytest.mark.parametrize(
    "values",
    [{"loss": "hinton"}, {"dkd_beta": -1.0}, {"dkd_beta": math.inf}, {"dist_gamma": -0.1}, {"dist_gamma": math.nan}],
)
def test_values_that_cannot_be_meant_are_refused(values: dict[str, typing.Any]) -> None:
    """An unknown loss, and weights below zero or not finite, of distillation and of compression under a teacher."""
    with pytest.raises(ValueError, match=next(iter(values))):
        Hparams(student="minivgg", alpha=0.5, **values)
    with pytest.raises(ValueError, match=next(iter(values))):
        CodebookHparams(**values)


@pytest.fixture(scope="module")
def digits() -> Splits:
    splits, _ = registry.load("digits", None, size=32)
    return dataclasses.replace(splits, train=subset_per_class(splits.train, 4, 0))


@pytest.mark.parametrize("name", NAMES)
def test_a_student_trains_on_stored_logits(name: str, digits: Splits) -> None:
    """Under every loss a student learns from the teacher's stored logits alone, without a label."""
    sure = 4 * F.one_hot(digits.train.labels, 10).float()
    hparams = Hparams(student="lenet_300_100", alpha=1.0, temperature=2.0, loss=name, epochs=12, batch_size=16)
    rows: list[dict[str, typing.Any]] = []
    fit_student(hparams, digits, Targets(sure[None]), rows.append)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"] and rows[-1]["val_accuracy"] > 40

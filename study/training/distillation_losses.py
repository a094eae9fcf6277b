"""What a student is to match of its teacher's logits: the soft term of every distillation loss.

All take raw float32 logits of a batch, (batch, classes), or of several students, (members, batch, classes), and return
the mean over the batch, scalar or (members,). `distillation.distillation_loss` adds the labels' cross-entropy.

Every term is finite, and so is its gradient, for constant logits, a batch of one and two classes. Nothing is decided on
the host, so that a GPU can record it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SPREAD = 1e-3
"""What numbers count as spreading at least: logits in their standard deviation when they are standardised, and
probabilities as a share of their size when they are correlated. It bounds the gradient of numbers that are all equal,
such as the logits of a network whose last layer starts at zero."""

LEAST_NORM = 1e-12
"""Length of a centred vector of probabilities below which it correlates with nothing: its square has no float32."""


def soft_targets(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)): Hinton et al. (2015), sec. 2, https://arxiv.org/abs/1503.02531.

    Multiplied by T², its gradient keeps its size as T varies.
    """
    divisor = _divisor(temperature)
    return divergence(F.log_softmax(student / divisor, dim=-1), F.log_softmax(teacher / divisor, dim=-1))


def standardised(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """`soft_targets` of standardised logits: Sun et al. (CVPR 2024), algorithm 1, https://arxiv.org/abs/2403.01427.

    Each example's logits lose their mean and are divided by their standard deviation, the student's and the teacher's
    alike: only their order and relative distances are matched. Multiplied by T², its gradient keeps its size as T
    varies. The authors train with T = 2 and weights 9 and 0.1, which is α = 0.99.

    The variance is the mean square over the classes. The authors' code divides the sum by classes − 1 instead, so that
    the same T softens its logits by a factor √(classes / (classes − 1)) more. Logits that are all equal become zeros.
    """
    return soft_targets(_z_scores(student), _z_scores(teacher), labels, temperature)


def decoupled(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor, dkd_beta: float = 8.0
) -> Tensor:
    """Decoupled knowledge distillation: Zhao et al. (CVPR 2022), https://arxiv.org/abs/2203.08679.

    KL(b_teacher ‖ b_student) + β KL(p̂_teacher ‖ p̂_student). Here b is the probability of the label against all other
    classes, (2,), and p̂ is the softmax over the other classes alone, (classes − 1,); both at temperature T. Multiplied
    by T², its gradient keeps its size as T varies. With two classes the second part is zero.

    The authors raise the term's weight from zero over the first 20 epochs; here it has its weight from the start.

    Args:
        dkd_beta: β; the weight of the first part, the authors' α, is 1, as in their recipes.
    """
    divisor = _divisor(temperature)
    is_label = labels[..., None] == torch.arange(student.shape[-1], device=labels.device)
    q_binary, q_others = _decouple(student / divisor, is_label)
    p_binary, p_others = _decouple(teacher / divisor, is_label)
    return divergence(q_binary, p_binary) + dkd_beta * divergence(q_others, p_others)


def correlated(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor, dist_gamma: float = 1.0
) -> Tensor:
    """DIST: Huang et al. (NeurIPS 2022), https://arxiv.org/abs/2205.10536.

    mean over examples of (1 − ρ(p_teacher, p_student)) + γ · mean over classes of (1 − ρ(p_teacher, p_student)).

    p is softmax(logits / T). ρ is Pearson's correlation: first over the classes of an example, then over the batch's
    examples of a class. It does not depend on the scale of p, so its gradient keeps its size as T varies without a
    factor. The authors' code has a factor T² all the same: its CIFAR-100 recipe, T = 4 with weights 2 and 1, is
    α = 32/33 here.

    Probabilities that are all equal correlate with nothing, so that ρ is 0. The second part of a batch of one is
    therefore the constant γ.

    Args:
        dist_gamma: γ; the weight of the first part is 1.
    """
    divisor = _divisor(temperature)
    q, p = (student / divisor).softmax(dim=-1), (teacher / divisor).softmax(dim=-1)
    return _decorrelation(q, p, over=-1) + dist_gamma * _decorrelation(q, p, over=-2)


def transformed_teacher(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """TTM: Zheng & Yang (ICLR 2024), sec. 3, https://arxiv.org/abs/2402.11148.

    KL(softmax(teacher / T) ‖ softmax(student)): only the teacher has a temperature, 1/γ in the paper. Its gradient with
    respect to the student's logits is softmax(student) − softmax(teacher / T), which keeps its size as T varies without
    a factor.
    """
    log_p = F.log_softmax(teacher / _divisor(temperature), dim=-1)
    return divergence(F.log_softmax(student, dim=-1), log_p)


def weighted_transformed_teacher(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor
) -> Tensor:
    """WTTM, `transformed_teacher` with a weight for each example: Zheng & Yang (ICLR 2024), sec. 4.

    mean over examples of w · KL(softmax(teacher / T) ‖ softmax(student)), with w = Σ p^(1/T) / classes^(1 − 1/T) and
    p = softmax(teacher). Examples of which the teacher is unsure weigh more.

    The paper's weight is the power sum Σ p^(1/T) alone, which lies between 1 and classes^(1 − 1/T). It is divided by
    the latter here, so that weights are at most 1 and the gradient keeps about its size as T varies. For T below 1 the
    power sum itself is at most 1 and is not divided.
    """
    divisor, power = _divisor(temperature), 1 - 1 / temperature
    power = power.clamp_min(0)[..., None] if isinstance(power, Tensor) else max(power, 0.0)
    log_power_sum = (F.log_softmax(teacher, dim=-1) / divisor).logsumexp(dim=-1)
    weights = (log_power_sum - power * math.log(teacher.shape[-1])).exp()
    log_q, log_p = F.log_softmax(student, dim=-1), F.log_softmax(teacher / divisor, dim=-1)
    return (weights * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)).mean(dim=-1)


def squared_error(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """½ · mean over classes of (student − teacher)²: Ba & Caruana (2014), https://arxiv.org/abs/1312.6184.

    T has no effect. The mean over classes makes it the limit of T² · `soft_targets` for large T, of logits whose means
    are zero (Hinton et al. 2015, eq. 4). Its gradient therefore has the size of theirs.
    """
    return F.mse_loss(student, teacher, reduction="none").mean(dim=(-2, -1)) / 2


@dataclass(frozen=True)
class SoftTerm:
    """The soft term of a loss.

    Attributes:
        of: (student, teacher, labels, temperature, and the options by name) → scalar or (members,).
        power: of T, by which the term is multiplied, so that its gradient keeps its size as T varies.
        options: names of the further hyperparameters that it has.
    """

    of: Callable[..., Tensor]
    power: int = 0
    options: tuple[str, ...] = ()

    def with_options(self, values: Mapping[str, float]) -> SoftTerm:
        """The term with these hyperparameters, of which it takes its own."""
        return replace(self, of=partial(self.of, **{name: values[name] for name in self.options}))


SOFT_TERMS: Mapping[str, SoftTerm] = {
    "kd": SoftTerm(soft_targets, power=2),
    "kd-standardised": SoftTerm(standardised, power=2),
    "dkd": SoftTerm(decoupled, power=2, options=("dkd_beta",)),
    "dist": SoftTerm(correlated, options=("dist_gamma",)),
    "ttm": SoftTerm(transformed_teacher),
    "wttm": SoftTerm(weighted_transformed_teacher),
    "mse": SoftTerm(squared_error),
}
"""`--loss` → its soft term. `study.settings.DistillationLoss` has the same names."""


def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p ‖ q) of each member: (batch, classes) or (members, batch, classes) → scalar or (members,), in nats."""
    if log_q.dim() == 2:  # apart, since one call is faster than two
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=(-2, -1)) / log_q.shape[-2]


def _divisor(temperature: float | Tensor) -> float | Tensor:
    """The temperature, a number or (members,), as logits are divided by it."""
    return temperature[..., None, None] if isinstance(temperature, Tensor) else temperature


def _z_scores(logits: Tensor) -> Tensor:
    """Each example's logits with mean 0 and standard deviation 1, of the same shape; zeros where all are equal."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / variance.clamp_min(LEAST_SPREAD**2).sqrt()


def _decouple(logits: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the label against all other classes, (…, 2), and among the other classes, (…, classes).

    The latter is 0 at the label, the student's and the teacher's alike, where it adds nothing to their divergence.
    """
    log_p = F.log_softmax(logits, dim=-1)
    label = log_p.masked_fill(~is_label, 0).sum(dim=-1)
    others = log_p.masked_fill(is_label, -torch.inf).logsumexp(dim=-1)  # not log(1 − p), which underflows
    among_others = F.log_softmax(logits.masked_fill(is_label, -torch.inf), dim=-1).masked_fill(is_label, 0)
    return torch.stack([label, others], dim=-1), among_others


def _decorrelation(q: Tensor, p: Tensor, over: int) -> Tensor:
    """1 − Pearson's correlation along an axis of (…, batch, classes), its mean over the other axis: (…)."""
    return 1 - (_unit(q, over) * _unit(p, over)).sum(dim=over).mean(dim=-1)


def _unit(p: Tensor, over: int) -> Tensor:
    """Probabilities, centred along an axis and divided by their length there; zeros where all are equal."""
    centred = p - p.mean(dim=over, keepdim=True)
    size = p.detach().square().sum(dim=over, keepdim=True)
    least = (LEAST_SPREAD**2 * size).clamp_min(LEAST_NORM**2)
    return centred / torch.maximum(centred.square().sum(dim=over, keepdim=True), least).sqrt()

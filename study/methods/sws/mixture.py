"""The Gaussian-mixture prior over weights of soft weight-sharing: maths on tensors only.

Nowlan & Hinton (1992), "Simplifying Neural Networks by Soft Weight-Sharing"; Ullrich, Meeds & Welling (2017),
https://arxiv.org/abs/1702.04008.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.methods.sws.mixture_autograd import BlockNLL, FusedNLL, block_size, has_kernel


def negative_log_likelihood(weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> Tensor:
    """Negative log-likelihood of weights under a mixture of Gaussians, Ullrich et al. (2017), eq. 5.

    −Σᵢ log Σⱼ πⱼ N(wᵢ | μⱼ, 1/λⱼ). Value and gradients come from one pass over the weights, on a GPU in one kernel
    (`study.methods.sws.mixture_kernel`), on a CPU from a table (`study.methods.sws.mixture_table`) or in blocks, so no
    weights × components tensor is stored for the backward pass.

    Args:
        weights: (weights,), float32, or float64 on a CPU; or (members, weights), each with a mixture of its own.
        means: μ, (components,) or (members, components), and so the others.
        log_precisions: log λ.
        log_proportions: log π; the proportions must sum to one. With −inf a component takes no part.
    Returns: nats, summed over weights: scalar, or (members,). Differentiable once, in all four arguments.
    Raises:
        ValueError: the arguments do not fit together.
    """
    mixture = (means, log_precisions, log_proportions)
    if weights.dim() not in (1, 2) or any(t.shape[:-1] != weights.shape[:-1] for t in mixture):
        raise ValueError(f"negative_log_likelihood takes 1-D tensors, or 2-D ones of as many members, not "
                         f"{', '.join(str(tuple(t.shape)) for t in (weights, *mixture))}")  # fmt: skip
    if not means.shape == log_precisions.shape == log_proportions.shape:
        raise ValueError(f"means, log_precisions, log_proportions differ in length: "
                         f"{', '.join(str(t.shape[-1]) for t in mixture)}")  # fmt: skip
    value: Tensor
    if weights.is_cuda and weights.dtype == torch.float32 and has_kernel():
        value = FusedNLL.apply(*(torch.atleast_2d(t) for t in (weights, *mixture)))
        return value.view(weights.shape[:-1])
    if weights.dim() == 2:
        return torch.stack([negative_log_likelihood(*member) for member in zip(weights, *mixture, strict=True)])
    value = BlockNLL.apply(weights, *mixture)
    return value


_FILLINGS = {
    "free_means": 0.0, "free_logits": -math.inf, "log_precisions": 0.0, "gamma_shape": 1.0, "gamma_rate": 0.0,
    "zero_logit": None, "beta": None,
}  # fmt: skip
"""Tensor of a mixture → its entry for a component that takes no part; None where entries are not of components."""


class Mixture(nn.Module):
    """The prior's parameters: component 0 sits at mean zero, everything else is learned.

    Args:
        means: of the components 1, 2, …, (components − 1,).
        pi_zero: proportion of component 0, in (0, 1).
        sigma: initial standard deviation of every component, in units of weight.
        gamma_zero, gamma_rest: shape and rate of the Gamma hyper-prior on the precision of component 0 and of the
            others (Ullrich et al. 2017, sec. 4); its mode is (shape − 1) / rate.
        pi_zero_strength: 0 keeps π₀ fixed. Above it π₀ is learned under a Beta prior with its mode at `pi_zero`, worth
            this many weights: Beta(1 + s π₀, 1 + s (1 − π₀)).
    """

    gamma_shape: Tensor
    gamma_rate: Tensor
    beta: Tensor

    def __init__(
        self,
        means: Tensor,
        pi_zero: float,
        sigma: float,
        gamma_zero: tuple[float, float],
        gamma_rest: tuple[float, float],
        pi_zero_strength: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < pi_zero < 1:
            raise ValueError(f"pi_zero {pi_zero} must be between 0 and 1")
        self.free_means = nn.Parameter(means.clone())
        self.log_precisions = nn.Parameter(means.new_full((len(means) + 1,), -2 * math.log(sigma)))
        self.free_logits = nn.Parameter(torch.zeros_like(means))
        self.zero_logit = nn.Parameter(
            means.new_tensor(math.log(pi_zero / (1 - pi_zero))), requires_grad=pi_zero_strength > 0
        )
        shape, rate = zip(gamma_zero, *[gamma_rest] * len(means), strict=True)
        self.register_buffer("gamma_shape", means.new_tensor(shape))
        self.register_buffer("gamma_rate", means.new_tensor(rate))
        self.register_buffer("beta", means.new_tensor([pi_zero_strength * pi_zero, pi_zero_strength * (1 - pi_zero)]))

    @property
    def means(self) -> Tensor:
        """(components,); the first is zero."""
        return torch.cat([torch.zeros_like(self.free_means[..., :1]), self.free_means], dim=-1)

    @property
    def log_proportions(self) -> Tensor:
        """(components,); the first is log π₀, the others share 1 − π₀ by a softmax of their logits."""
        odds = self.zero_logit.unsqueeze(-1)
        rest = F.logsigmoid(-odds) + torch.log_softmax(self.free_logits, dim=-1)
        return torch.cat([F.logsigmoid(odds), rest], dim=-1)

    def shape(self) -> dict[str, Tensor]:
        """Means, standard deviations and proportions of the components, (components,) each, outside the gradient."""
        sigmas = (-0.5 * self.log_precisions).exp()
        named = {"means": self.means, "sigmas": sigmas, "proportions": self.log_proportions.exp()}
        return {name: tensor.detach() for name, tensor in named.items()}

    def complexity(self, weights: Tensor) -> Tensor:
        """Negative log of prior times hyper-prior, up to a constant: scalar, nats, summed over weights (weights,)."""
        prior = negative_log_likelihood(weights, self.means, self.log_precisions, self.log_proportions)
        precisions = self.log_precisions.exp()
        hyper = (self.gamma_rate * precisions - (self.gamma_shape - 1) * self.log_precisions).sum(dim=-1)
        odds = self.zero_logit
        zero = -self.beta[..., 0] * F.logsigmoid(odds) - self.beta[..., 1] * F.logsigmoid(-odds)
        return prior + hyper + zero

    @classmethod
    @torch.no_grad()
    def stacked(cls, mixtures: Sequence[Mixture]) -> Mixture:
        """One mixture of several members, every tensor with an axis of members in front.

        Members with fewer components than others get some at the end that take no part.
        """
        stack = copy.deepcopy(mixtures[0])
        for name, filling in _FILLINGS.items():
            tensors = [getattr(m, name) for m in mixtures]
            if filling is not None:
                most = max(len(t) for t in tensors)
                tensors = [F.pad(t, (0, most - len(t)), value=filling) for t in tensors]
            stack._put(name, torch.stack(tensors))
        return stack

    @torch.no_grad()
    def member(self, index: int, components: int) -> Mixture:
        """One of the mixtures that were stacked, which had so many components."""
        member = copy.deepcopy(self)
        for name, filling in _FILLINGS.items():
            tensor = getattr(self, name)[index]
            if filling is not None:
                tensor = tensor[: components - name.startswith("free")]
            member._put(name, tensor.clone())
        return member

    def _put(self, name: str, tensor: Tensor) -> None:
        """Replace a parameter or a buffer."""
        old = getattr(self, name)
        trained = isinstance(old, nn.Parameter)
        setattr(self, name, nn.Parameter(tensor, requires_grad=old.requires_grad) if trained else tensor)

    @torch.no_grad()
    def assign(self, weights: Tensor) -> Tensor:
        """Component of the largest responsibility for each weight: (weights,) → (weights,), int64; or with members."""
        peak = self.log_proportions + 0.5 * self.log_precisions
        mixture = (self.means, self.log_precisions.exp(), peak)
        if weights.dim() > 1:
            return torch.stack([_most_responsible(*member) for member in zip(weights, *mixture, strict=True)])
        return _most_responsible(weights, *mixture)

    @torch.no_grad()
    def merged(self, threshold: float) -> Mixture:
        """A mixture in which no two components are closer than `threshold`, in nats of symmetric KL divergence.

        The closest two become one with their joint proportion, mean and variance, until none are that close; one that
        merges with component 0 keeps mean zero. The result can be learned further.
        """
        merged = copy.deepcopy(self)
        while len(merged.means) > 2:
            distance = symmetric_kl(merged.means, merged.log_precisions)
            distance.fill_diagonal_(math.inf)
            i, j = sorted(divmod(int(distance.argmin()), len(distance)))
            if float(distance[i, j]) >= threshold:
                break
            merged._merge(i, j)
        return merged

    def _merge(self, i: int, j: int) -> None:
        """Moment matching of components i < j, into i."""
        proportions, means, variances = self.log_proportions.exp(), self.means, (-self.log_precisions).exp()
        share = proportions[[i, j]] / proportions[[i, j]].sum()
        mean = (share * means[[i, j]]).sum() if i else means[0]
        variance = (share * (variances[[i, j]] + (means[[i, j]] - mean) ** 2)).sum()
        proportions[i] += proportions[j]
        means[i], variances[i] = mean, variance
        keep = torch.arange(len(means), device=means.device) != j
        proportions, means, variances = proportions[keep], means[keep], variances[keep]
        learned = self.zero_logit.requires_grad
        self.free_means = nn.Parameter(means[1:])
        self.log_precisions = nn.Parameter(-variances.log())
        self.free_logits = nn.Parameter(proportions[1:].log())
        odds = proportions[0] / proportions[1:].sum()  # torch.logit of a π₀ near 1 would lose digits in float32
        self.zero_logit = nn.Parameter(odds.log(), requires_grad=learned)
        self.gamma_shape, self.gamma_rate = self.gamma_shape[keep], self.gamma_rate[keep]


def _most_responsible(weights: Tensor, means: Tensor, precisions: Tensor, peak: Tensor) -> Tensor:
    means, precisions, peak = means.unsqueeze(1), precisions.unsqueeze(1), peak.unsqueeze(1)
    blocks = weights.split(max(1, block_size(weights) // len(means)))
    return torch.cat([(peak - 0.5 * precisions * (w - means) ** 2).argmax(dim=0) for w in blocks])


def symmetric_kl(means: Tensor, log_precisions: Tensor) -> Tensor:
    """KL(i ‖ j) + KL(j ‖ i) of every pair of Gaussians, in nats.

    ½ (λᵢ / λⱼ + λⱼ / λᵢ − 2) + ½ (λᵢ + λⱼ) (μᵢ − μⱼ)².

    Args:
        means, log_precisions: (components,).
    Returns: (components, components), zero on the diagonal.
    """
    precisions = log_precisions.exp()
    ratio = torch.cosh(log_precisions[:, None] - log_precisions) - 1
    return ratio + 0.5 * (precisions[:, None] + precisions) * (means[:, None] - means) ** 2


def even_means(weights: Tensor, components: int) -> Tensor:
    """Means of all components but the zero one, evenly over the weights' range (Ullrich et al. 2017, sec. 6.1).

    Args:
        weights: (weights,).
        components: counts the zero component too; at least 2.
    Returns: (components − 1,).
    """
    low, high = weights.aminmax()
    if components == 2:
        return torch.stack([high if high > -low else low])
    return torch.linspace(float(low), float(high), components - 1, dtype=weights.dtype, device=weights.device)

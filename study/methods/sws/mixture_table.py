"""The mixture prior on a CPU at a cost that hardly depends on the number of components.

All weights of a network share one mixture, so its log-density is a smooth function of one number. It is evaluated at
evenly spaced nodes, far fewer than there are weights; between them the slope is interpolated for every weight, and
sums over weights become sums over nodes, to which every weight is spread. Components are met at the nodes alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_TWO = math.log(2)
LOG_TWO_PI = math.log(2 * math.pi)

NODES = 16
"""Nodes in the smallest standard deviation, at least, on the first attempt: mostly enough with some 20 components."""
TOLERANCE = 2e-6
"""Bound on the error of the interpolated slope, as a share of the largest slope. Errors are half of it at most where
weights lie, no more than float32 itself leaves where components are met at every weight."""
SHARE = 8
"""Weights for each node, at least: with fewer, the direct way is as fast."""
FEWEST = 8
"""Components from which on it pays."""
CHUNK = 1 << 16
"""Weights at one time, so that what is computed of them stays in the cache."""
MARGIN = 4
"""Nodes beyond the outermost weights: three for the differences, one for rounding."""
LANES = 4
"""Sums that take turns at every node. Later in a trial half of all weights are at the node of zero, and additions to
one number would wait for one another."""


def moments(
    weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Negative log-likelihood of the weights, and all that its gradients are made of; None where tabulating does not
    pay, or is not exact to float32.

    The step between nodes is a power of two, so a weight's place between them is exact. It is halved until the fourth
    differences of the slope, which bound the error of its interpolation, are small enough. It depends on the arguments
    alone: a call repeats bit for bit.

    Args:
        weights: (weights,), float32.
        means, log_precisions, log_proportions: μ, log λ and log π, (components,), float32. With log π of −inf a
            component takes no part.
    Returns:
        value: scalar, float64, nats, summed over weights.
        weight_grad: ∂ value / ∂ weights, (weights,), float32.
        statistics: Σr, Σrw and Σrw² with the responsibilities r, (3, components), float64.
    """
    if weights.dtype != torch.float32 or len(means) < FEWEST:
        return None
    low, high = (float(end) for end in weights.aminmax())
    narrowest = float((-0.5 * log_precisions[log_proportions > -math.inf]).exp().min())
    if not (math.isfinite(high - low) and 0 < narrowest < math.inf):
        return None
    step = 2.0 ** math.floor(math.log2(narrowest / NODES))
    while True:
        first = math.floor(low / step) - MARGIN
        count = math.ceil(high / step) + MARGIN + 1 - first
        if count * SHARE > len(weights):
            return None
        nodes = step * torch.arange(first, first + count, dtype=torch.float32)
        responsibilities, slope, bits = _at(nodes, means, log_precisions, log_proportions)
        error = float(slope.diff(n=4).abs().max()) / 384  # t⁴ / 24 with t up to a half
        if error <= TOLERANCE * float(slope.abs().max()):
            break
        step /= 2
    weight_grad, spread = _interpolate(weights, step, first, slope)
    at = nodes.double()
    statistics = torch.stack([spread, spread * at, spread * at * at]) @ responsibilities.double()
    return -LOG_TWO * (spread @ bits.double()), weight_grad, statistics


def _at(nodes: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Responsibilities at the nodes, (nodes, components), the slope of −log density, and log₂ of it, (nodes,)."""
    precisions = log_precisions.exp()
    distance = nodes[:, None] - means
    logits = (log_proportions + 0.5 * (log_precisions - LOG_TWO_PI)) / LOG_TWO  # in bits: exp2 is faster than exp
    logits = torch.addcmul(logits, distance.square(), precisions, value=-0.5 / LOG_TWO)
    shift = logits.amax(dim=1, keepdim=True)
    responsibilities = logits.sub_(shift).exp2_()
    evidence = responsibilities.sum(dim=1, keepdim=True)
    responsibilities /= evidence
    slope = distance.mul_(responsibilities) @ precisions
    return responsibilities, slope, (shift + evidence.log2_()).squeeze(1)


def _derivatives(slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of t, t² and t³ in the Taylor series at each node, from three neighbours on either side; (nodes,)."""
    here = slope[3:-3]
    (sum1, odd1), (sum2, odd2), (sum3, odd3) = (
        (right + left, right - left)
        for left, right in ((slope[3 - i : len(slope) - 3 - i], slope[3 + i : len(slope) - 3 + i]) for i in (1, 2, 3))
    )
    inner = (
        (45 * odd1 - 9 * odd2 + odd3) / 60,
        (270 * sum1 - 27 * sum2 + 2 * sum3 - 490 * here) / 360,
        (8 * odd2 - 13 * odd1 - odd3) / 48,
    )
    rise, bend, twist = (F.pad(factor, (3, 3)) for factor in inner)
    return rise, bend, twist


def _interpolate(weights: Tensor, step: float, first: int, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The slope at every weight, (weights,), by a Taylor series of third order from the nearest node; and how much of
    the weights every node stands for, (nodes,), float64, which integrates what such a series can.

    Args:
        first: number of the first node, which lies at `first` times `step`.
        slope: at the nodes, (nodes,).
    """
    rise, bend, twist = _derivatives(slope)
    weight_grad = torch.empty_like(weights)
    powers = torch.zeros(4, LANES * len(slope))  # sums of 1, t, t² and t³ over the weights next to a node
    size = min(CHUNK, len(weights))
    lane = len(slope) * torch.arange(LANES, dtype=torch.int32).repeat(size // LANES + 1)
    one, *floats = torch.ones(4, size)
    *narrow, wide_buffer = *torch.empty(2, size, dtype=torch.int32), torch.empty(size, dtype=torch.int64)
    for w, out in zip(weights.split(CHUNK), weight_grad.split(CHUNK), strict=True):
        t, number, at_node, ones = (buffer[: len(w)] for buffer in (*floats, one))
        node, turn, wide = (buffer[: len(w)] for buffer in (*narrow, wide_buffer))
        torch.mul(w, 1 / step, out=t)
        torch.round(t, out=number)
        t.sub_(number)
        node.copy_(number.sub_(first))
        wide.copy_(torch.add(node, lane[: len(w)], out=turn))  # to int64 by way of int32 is faster
        power = ones
        for sums in powers:
            sums.scatter_add_(0, wide, power)
            power = torch.mul(power, t, out=at_node)
        torch.index_select(twist, 0, node, out=out)
        for derivative in (bend, rise, slope):
            torch.addcmul(torch.index_select(derivative, 0, node, out=at_node), out, t, out=out)
    count, linear, square, cube = powers.view(4, LANES, -1).sum(dim=1, dtype=torch.float64)
    # Every sum is shared out as the differences of five nodes are weighted that estimate its derivative.
    spread = count - 1.25 * square
    for distance, even, odd in (
        (1, square * (2 / 3), linear * (2 / 3) - cube / 6),
        (2, square / -24, (cube - linear) / 12),
    ):
        spread[distance:] += (even + odd)[:-distance]
        spread[:-distance] += (even - odd)[distance:]
    return weight_grad, spread

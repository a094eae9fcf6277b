"""The mixture prior on a CPU at a cost that hardly depends on the number of components.

All weights of a network share one mixture, so its log-density is a smooth function of one number. Around the component
that has most weights it is evaluated at evenly spaced nodes, far fewer than there are weights; between them the slope
is interpolated for every weight, and sums over weights become sums over nodes, to which every weight is spread. The few
weights further out are points of their own. Components are met at nodes and points alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LOG_TWO = math.log(2)
LOG_TWO_PI = math.log(2 * math.pi)

REACH = 4.0
"""Standard deviations of the component with the largest proportion on either side of its mean that the table covers.
Most weights are there; the whole range would take up to twenty times as many nodes once components are narrow."""
NODES = 96
"""Nodes in the smallest standard deviation, at least, on the first attempt: mostly enough with some 20 components."""
TOLERANCE = 1e-6
"""Largest error of the interpolated slope, as a share of the largest slope. Float32 itself leaves 7e-7 in a block."""
SHARE = 8
"""Weights for each node and point, at least: with fewer, the direct way is as fast."""
FEWEST = 8
"""Components from which on it pays."""
CHUNK = 1 << 16
"""Weights at one time, so that what is computed of them stays in the cache."""
MARGIN = 3
"""Nodes beyond those that weights belong to: the first takes the weights outside, two more are for the differences."""
LANES = 8
"""Sums that take turns at every node. Later in a trial half of all weights are at the node of zero, and additions to
one number would wait for one another."""


def moments(
    weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Negative log-likelihood of the weights, and all that its gradients are made of; None where tabulating does not
    pay, or is not exact to float32.

    The step between nodes is a power of two, so a weight's place between them is exact. It is halved until the third
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
    sigmas = (-0.5 * log_precisions).exp()
    narrowest = float(sigmas[log_proportions > -math.inf].min())
    if not (math.isfinite(high - low) and 0 < narrowest < math.inf):
        return None
    main = int(log_proportions.argmax())
    mean, reach = float(means[main]), REACH * float(sigmas[main])
    mixture = means, log_precisions, log_proportions
    near = _tabulated(weights, max(low, mean - reach), min(high, mean + reach), narrowest, *mixture)
    return near or _tabulated(weights, low, high, narrowest, *mixture)


def _tabulated(
    weights: Tensor,
    low: float,
    high: float,
    narrowest: float,
    means: Tensor,
    log_precisions: Tensor,
    log_proportions: Tensor,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`moments` with a table from `low` to `high`; None where that does not pay.

    Args:
        narrowest: smallest standard deviation.
    """
    if low > high:
        return None
    step = 2.0 ** math.floor(math.log2(narrowest / NODES))
    while True:
        # Both are even: a weight halfway between two nodes goes to the even one, and so to one of these.
        first, last = 2 * math.floor(low / (2 * step)), 2 * math.ceil(high / (2 * step))
        count = last - first + 1 + 2 * MARGIN
        if count * SHARE > len(weights):
            return None
        nodes = step * torch.arange(first - MARGIN, last + MARGIN + 1, dtype=torch.float32)
        at_nodes = _at(nodes, means, log_precisions, log_proportions)
        _, slope, _ = at_nodes
        error = float(slope.diff(n=3).abs().max()) / 48  # t³ / 6 with t up to a half
        if error <= TOLERANCE * float(slope.abs().max()):
            break
        step /= 2
    outside = _outside(weights, (first - 0.5) * step, (last + 0.5) * step)
    if (count + len(outside)) * SHARE > len(weights):
        return None
    points = weights.index_select(0, outside)
    at_points = _at(points, means, log_precisions, log_proportions)
    weight_grad, spread = _interpolate(weights, step, first, slope)
    weight_grad.index_copy_(0, outside, at_points[1])
    places = torch.cat([nodes, points]).double()
    responsibilities, _, bits = (torch.cat(pair).double() for pair in zip(at_nodes, at_points, strict=True))
    spread = torch.cat([spread, torch.ones_like(points, dtype=torch.float64)])
    statistics = torch.stack([spread, spread * places, spread * places * places]) @ responsibilities
    return -LOG_TWO * (spread @ bits), weight_grad, statistics


def _outside(weights: Tensor, low: float, high: float) -> Tensor:
    """Indices of the weights that do not lie between these, int64. NumPy finds them in a quarter of torch's time."""
    values = weights.detach().numpy()
    return torch.from_numpy(np.flatnonzero((values < low) | (values > high)))


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


def _interpolate(weights: Tensor, step: float, first: int, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The slope at every weight, (weights,), by a Taylor series of second order from the nearest node; and how much of
    the weights every node stands for, (nodes,), float64, which integrates what a parabola through three nodes can.

    Of weights beyond the nodes the first is meaningless, and the second has nothing.

    Args:
        first: number of the first node that weights belong to, which lies at `first` times `step`.
        slope: at the nodes, (nodes,), with `MARGIN` more at both ends.
    """
    before, left, here, right, after = (slope[i : len(slope) - 4 + i] for i in range(5))
    rise, bend = torch.zeros_like(slope), torch.zeros_like(slope)
    rise[2:-2] = (before - after + 8 * (right - left)) / 12
    bend[2:-2] = (16 * (left + right) - before - after - 30 * here) / 24
    weight_grad = torch.empty_like(weights)
    beyond = MARGIN - 1, len(slope) - MARGIN  # the nodes of the weights that lie there
    count, linear, square = powers = torch.zeros(3, LANES * len(slope))  # of 1, t and t² over the weights at a node
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
        node.copy_(number.sub_(first - MARGIN).clamp_(*beyond))
        wide.copy_(torch.add(node, lane[: len(w)], out=turn))  # to int64 by way of int32 is faster
        count.scatter_add_(0, wide, ones)
        linear.scatter_add_(0, wide, t)
        square.scatter_add_(0, wide, torch.mul(t, t, out=at_node))
        torch.index_select(bend, 0, node, out=out)
        torch.addcmul(torch.index_select(rise, 0, node, out=at_node), out, t, out=out)
        torch.addcmul(torch.index_select(slope, 0, node, out=at_node), out, t, out=out)
    powers = powers.view(3, LANES, -1).sum(dim=1, dtype=torch.float64)
    powers[:, beyond] = 0
    count, linear, square = powers
    spread = count - square
    spread[1:] += 0.5 * (square + linear)[:-1]
    spread[:-1] += 0.5 * (square - linear)[1:]
    return weight_grad, spread

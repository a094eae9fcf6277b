"""The mixture prior of `study.methods.sws.mixture` on an NVIDIA GPU: one kernel reads every weight once, for many
networks at a time.

Imported only where a CUDA device is used: not every platform has Triton. Under TRITON_INTERPRET=1 it runs on a CPU.
"""

from __future__ import annotations

import math

import torch
import triton  # type: ignore
import triton.language as tl  # type: ignore
from torch import Tensor

TILE = 1 << 12
"""Responsibilities that a program has in registers at one time: 32 in each thread of four warps."""

BLOCKS = 8
"""Blocks of weights that a program takes one after the other, and adds up in float32. Reasoned, not measured."""

SLOTS: tl.constexpr = tl.constexpr(8)
"""Components in one thread; neighbouring lanes have the others. More of them would mean fewer shuffles in sums over
components, but each takes three registers for μ, λ and π. At 8 nothing spills: 216 to 254 registers, for sm_90."""

LOG_TWO: tl.constexpr = tl.constexpr(math.log(2))
LOG_TWO_PI: tl.constexpr = tl.constexpr(math.log(2 * math.pi))
EXPONENT: tl.constexpr = tl.constexpr(0.5 / math.log(2))
SCALE: tl.constexpr = tl.constexpr(math.sqrt(0.5 / math.log(2)))


def moments(
    weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Negative log-likelihood of each member's weights under its own mixture, and all that its gradients are made of.

    −Σᵢ log Σⱼ πⱼ N(wᵢ | μⱼ, 1/λⱼ); with responsibilities r its gradients are −λ Σr(w − μ) for μ,
    ½ (λ Σr(w − μ)² − Σr) for log λ and −Σr for log π. The order of every sum is fixed: a call repeats bit for bit. (How
    many members there are can change it, but only where the sum is in float64.) Three launches, none of which waits for
    the host: a CUDA graph can capture them, after one call outside it that compiles.

    Args:
        weights: (members, weights), float32, contiguous.
        means, log_precisions, log_proportions: μ, log λ and log π, (members, components), float32. A component whose
            log π is −inf takes no part, whatever its μ and λ; every member has one that does.
    Returns:
        value: (members,), float32, nats, summed over weights.
        weight_grad: ∂ value / ∂ weights, (members, weights), float32.
        statistics: Σr, Σr(w − μ) and Σr(w − μ)², (members, 3, components), float64.
    Raises:
        ValueError: an argument is not a float32 matrix, or they differ in shape; or the weights are not contiguous.
    """
    mixture = (means, log_precisions, log_proportions)
    if any(t.dim() != 2 or t.dtype != torch.float32 or len(t) != len(weights) for t in (weights, *mixture)):
        raise ValueError("moments takes float32 tensors, (members, weights) and three times (members, components)")
    if not means.shape == log_precisions.shape == log_proportions.shape:
        raise ValueError("means, log_precisions and log_proportions differ in shape")
    if not weights.is_contiguous():
        raise ValueError("moments takes contiguous weights")
    (members, count), components = weights.shape, means.shape[1]
    lanes = max(2, triton.next_power_of_2(triton.cdiv(components, SLOTS.value)))
    block = TILE // (SLOTS.value * lanes)
    programs = triton.cdiv(count, block * BLOCKS)
    weight_grad = torch.empty_like(weights)
    # In float64, although summed in float32 so far: torch would convert float32 in a launch of its own.
    partials = weights.new_empty(members, programs, 3 * components + 1, dtype=torch.float64)
    _moments[(programs, members)](
        weights, *(t.contiguous() for t in mixture), weight_grad, partials, count, components, lanes, block, BLOCKS,
        num_warps=4,
    )  # fmt: skip
    sums = partials.sum(dim=1)
    return sums[:, -1].float(), weight_grad, sums[:, :-1].unflatten(1, (3, components))


@triton.jit
def _moments(
    weights: tl.tensor,
    means: tl.tensor,
    log_precisions: tl.tensor,
    log_proportions: tl.tensor,
    weight_grad: tl.tensor,
    partials: tl.tensor,
    count: tl.tensor,
    components: tl.tensor,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """Tiles are (SLOTS, BLOCK, LANES), components along both ends. Triton spreads the last axis over a warp's lanes,
    then the middle one, and leaves the first within a thread; a sum over components so never leaves its warp.

    z is w − μ in units in which z² are bits, as in `exp2`; the square is not expanded: no cancellation.
    """
    program, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    component = tl.arange(0, SLOTS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    present, at = component < components, member * components + component
    log_proportion = tl.load(log_proportions + at, mask=present, other=float("-inf"))
    alive = log_proportion > float("-inf")  # what others hold is not read: it could be infinite, and 0 · inf is NaN
    log_precision = tl.load(log_precisions + at, mask=alive, other=0.0)
    mu = tl.load(means + at, mask=alive, other=0.0)
    exponent = log_precision * EXPONENT
    lost = tl.fma(log_precision, EXPONENT, -exponent)  # in rounding: as much as 3e-7 of the root where log λ is 12
    root = (lost * LOG_TWO + 1.0) * tl.exp2(exponent) * SCALE
    peak = (log_proportion + 0.5 * (log_precision - LOG_TWO_PI)) / LOG_TWO

    # Tiles of sums, each thread to itself: across threads they are added once, after the last block.
    r_sum = tl.zeros((SLOTS, BLOCK, LANES), tl.float32)
    rz_sum = tl.zeros((SLOTS, BLOCK, LANES), tl.float32)
    rzz_sum = tl.zeros((SLOTS, BLOCK, LANES), tl.float32)
    bits = tl.zeros((BLOCK,), tl.float32)
    for k in range(BLOCKS):
        i = (program * BLOCKS + k) * BLOCK + tl.arange(0, BLOCK)
        inside = i < count
        w = tl.load(weights + member * count + i, mask=inside, other=0.0)
        z = (w[None, :, None] - mu[:, None, :]) * root[:, None, :]
        logits = peak[:, None, :] - z * z
        shift = tl.max(tl.max(logits, axis=0), axis=1)
        r = tl.exp2(logits - shift[None, :, None])  # responsibilities, before the division by `evidence`
        evidence = tl.sum(tl.sum(r, axis=0), axis=1)
        r *= tl.where(inside, 1.0 / evidence, 0.0)[None, :, None]
        rz = r * z
        slope = tl.sum(tl.sum(rz * root[:, None, :], axis=0), axis=1)
        tl.store(weight_grad + member * count + i, slope * (2 * LOG_TWO), mask=inside)
        bits += tl.where(inside, shift + tl.log2(evidence), 0.0)
        r_sum += r
        rz_sum += rz
        rzz_sum += rz * z

    row = partials + (member * tl.num_programs(0) + program) * (3 * components + 1)
    tl.store(row + component, tl.sum(r_sum, axis=1), mask=present)
    tl.store(row + components + component, tl.sum(rz_sum, axis=1) / root, mask=present)
    tl.store(row + 2 * components + component, tl.sum(rzz_sum, axis=1) / (root * root), mask=present)
    tl.store(row + 3 * components, tl.sum(bits) * -LOG_TWO)

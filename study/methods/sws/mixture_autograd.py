"""Value and gradients of the mixture's negative log-likelihood in one pass over the weights: from a table, in blocks
or by a kernel.

`study.methods.sws.mixture.negative_log_likelihood` chooses between the two.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Protocol

import torch
from torch import Tensor

from study.methods.sws import mixture_table
from study.methods.sws.mixture_table import LOG_TWO, LOG_TWO_PI

BLOCK = 1 << 19
"""Responsibilities of one block (components × weights), 2 MB in float32.

Measured on one core with 4, 17 and 64 components: smaller blocks pay for calls, larger ones leave the cache.
"""

GPU_BLOCK = 1 << 24
"""The same on a GPU, 64 MB, where calls cost more. It serves what the kernel does not do."""

RUN = 1 << 10
"""Weights whose statistics are summed in their own precision, before float64 takes over; a block is a number of runs.

In one product over a block of float32, rounding grows to 1e-4 of the sum; runs cost no time.
"""

FLOOR = -100.0
"""Logits, in bits, are clamped here before `exp2`. 2**-100 and its products are still normal float32; further down the
responsibilities become denormal numbers, which cost 2 to 20 times as much in every operation after."""

FAINT = 2.0**-64
"""Above this evidence, what `FLOOR` adds is less than float32 resolves. A weight with less is some nine standard
deviations from every component; its logits must be shifted by their largest first."""


class Context(Protocol):
    """What autograd hands from a forward pass to its backward pass."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


@functools.cache
def has_kernel() -> bool:
    """Whether Triton is installed and finds the C compiler that it needs; without them the prior is far slower."""
    try:
        from study.methods.sws.mixture_kernel import moments

        moments(*(torch.zeros(1, 2, device="cuda") for _ in range(4)))
    except Exception as error:  # whatever a missing or broken compiler makes of it
        reason = " ".join(str(error).split())[:200]
        print(f"the mixture prior runs without its GPU kernel, which is slower: {reason}", file=sys.stderr)
        return False
    return True


class FusedNLL(torch.autograd.Function):
    """The same as `BlockNLL` of every member at once, by one kernel on a GPU."""

    @staticmethod
    def forward(
        ctx: Context, weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor
    ) -> Tensor:
        from study.methods.sws.mixture_kernel import moments

        value, weight_grad, statistics = moments(weights.contiguous(), means, log_precisions, log_proportions)
        ctx.save_for_backward(weight_grad, statistics, log_precisions.double().exp())
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, ...]:
        grad = grads[0].unsqueeze(1)
        weight_grad, statistics, precision = ctx.saved_tensors
        r, first, second = statistics.unbind(1)  # Σr, Σr(w − μ), Σr(w − μ)²
        small = (-precision * first, 0.5 * (precision * second - r), -r)
        return (grad * weight_grad, *(grad * g.to(grad.dtype) for g in small))


def block_size(weights: Tensor) -> int:
    """Responsibilities (components × weights) that are computed at one time on these weights' device."""
    return GPU_BLOCK if weights.is_cuda else BLOCK


class BlockNLL(torch.autograd.Function):
    """Every gradient is a function of the responsibilities r through Σr, Σrw and Σrw² (per component) and
    Σⱼ rⱼλⱼ(w − μⱼ) (per weight), each of which is a small matrix product with the block in cache. On a CPU they come
    from `mixture_table` where that is as exact.

    Logits are in bits, not nats: on a CPU `torch.exp2` takes little more than half the time of `torch.exp`.
    """

    @staticmethod
    def forward(
        ctx: Context, weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor
    ) -> Tensor:
        precisions = log_precisions.exp()
        if not weights.is_cuda and (table := mixture_table.moments(weights, means, log_precisions, log_proportions)):
            value, weight_grad, sums = table
            ctx.save_for_backward(weight_grad, sums, means, precisions)
            return value.to(weights.dtype)
        mu, root = means.unsqueeze(1), (0.5 * precisions / LOG_TWO).sqrt().unsqueeze(1)
        peak = ((log_proportions + 0.5 * (log_precisions - LOG_TWO_PI)) / LOG_TWO).unsqueeze(1)
        sums = torch.stack([torch.ones_like(means), -precisions * means, precisions])

        count = len(means)
        runs = max(1, min(block_size(weights) // count // RUN, math.ceil(len(weights) / RUN)))
        block = runs * RUN
        buffer = weights.new_empty(count + 6, block)
        z, products, features = buffer.split([count, 3, 3])
        left, right = (t.unflatten(1, (runs, RUN)).transpose(0, 1) for t in (features, z))
        views = [z, products, *products, *features]
        weight_grad = torch.empty_like(weights)
        statistics, bits = [], []
        # Most mixtures need no shift, and are an eighth faster without. On a GPU, finding out would wait for the host.
        shifted = weights.is_cuda
        for w, out in zip(weights.split(block), weight_grad.split(block), strict=True):
            if len(w) < block:  # the last block: the rest of its runs counts for nothing
                buffer[:, len(w) :] = 0
                views = [t[..., : len(w)] for t in views]
            z, products, evidence, rate_mean, rate, r, rw, rww = views
            while True:
                torch.sub(w, mu, out=z).mul_(root)  # the square is not expanded: no cancellation
                torch.addcmul(peak, z, z, value=-1, out=z)
                shift = z.amax(dim=0) if shifted else None
                if shift is not None:
                    z.sub_(shift)
                z.clamp_(min=FLOOR).exp2_()  # responsibilities, before the division by `evidence`
                torch.mm(sums, z, out=products)
                if shifted or bool((evidence > FAINT).all()):
                    break
                shifted = True  # this block again, and all that follow
            torch.reciprocal(evidence, out=r)
            torch.mul(r, w, out=rw)
            torch.mul(rw, w, out=rww)
            statistics.append(torch.bmm(left, right.transpose(1, 2)))
            torch.addcmul(rate_mean, rate, w, out=out).mul_(r)
            evidence.log2_()
            bits.append((evidence if shift is None else shift.add_(evidence)).sum())
        ctx.save_for_backward(weight_grad, torch.cat(statistics).sum(dim=0, dtype=torch.float64), means, precisions)
        return (-LOG_TWO * torch.stack(bits).sum(dtype=torch.float64)).to(weights.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, ...]:
        (grad,) = grads
        weight_grad, statistics, means, precisions = ctx.saved_tensors
        r, rw, rww = statistics  # Σr, Σrw, Σrw²
        mu, precision = means.double(), precisions.double()
        first = rw - mu * r  # Σr(w − μ)
        second = rww - mu * (rw + first)  # Σr(w − μ)²
        small = (-precision * first, 0.5 * (precision * second - r), -r)
        return (grad * weight_grad, *(grad * g.to(means.dtype) for g in small))

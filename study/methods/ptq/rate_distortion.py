"""Rounding a layer's weights to a grid, column by column, at the least loss and rate together.

Each weight takes the multiple of its step at which curvature × squared error + price × bits is smallest, and the
columns after it are corrected for its error: Optimal Brain Surgeon on a grid, as in Frantar et al. (2023), "OPTQ",
https://arxiv.org/abs/2210.17323, with a rate as in Conzelmann & Bamler (2025), "CERWU",
https://arxiv.org/abs/2505.18758.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.methods.ptq.calibration import Sensitivity

LEVELS = 127
"""Largest integer of a grid: with their negatives and zero, 255 values, which one byte tells apart."""
DAMPING = 0.01
"""Added to the diagonal of a layer's correlations; Frantar et al. (2023), sec. 4, has the same share."""
LEAST = 1e-4
"""Least curvature of an input or output, as a share of the layer's mean: that of one that is always zero."""
UNSEEN = 0.1
"""Occurrences of a level that no weight of its tensor has, so that its bits are finite."""
BLOCK = 64
"""Columns that are corrected together, and after which the bits of each level are counted again."""
ROUNDS = 5
"""Times that levels and their bits are found in turn before the first column is corrected."""


@dataclass(frozen=True)
class Problem:
    """One layer, its tensors in units in which their root mean square is 1.

    The loss of a change Δ in a row is factor of the row × |Δ R|², in units that all layers of a network share.

    Attributes:
        weights: (groups, rows, columns), float32; a bias is the last column.
        triangle: R, upper, (groups, columns, columns); None for the identity.
        factors: of each row, (groups, rows).
        tensor_of: which tensor of the layer a column belongs to, (columns,), int64.
        units: root mean square of each tensor, (tensors,).
    """

    weights: Tensor
    triangle: Tensor | None
    factors: Tensor
    tensor_of: Tensor
    units: Tensor

    def curvature(self) -> Tensor:
        """Of each weight, given the ones before it and free to correct by the ones after it, (groups, rows, columns).

        The ones after it are corrected for its error, so that only its own part in |Δ R|² stays.
        """
        if self.triangle is None:
            return self.factors.unsqueeze(2).expand(self.weights.shape)
        diagonal = self.triangle.diagonal(dim1=1, dim2=2)
        return self.factors.unsqueeze(2) * diagonal.square().unsqueeze(1)

    def mean_of_each(self, values: Tensor) -> Tensor:
        """Mean over each tensor's weights, (groups, rows, columns) → (tensors,)."""
        return torch.stack([values[:, :, self.tensor_of == t].mean() for t in range(len(self.units))])


@dataclass(frozen=True)
class Rounded:
    """A layer on its grid: weight = step of its tensor × level.

    Attributes:
        levels: integers, (groups, rows, columns), float32.
        steps: in units of weight, (tensors,).
        tensor_of: as in `Problem`.
    """

    levels: Tensor
    steps: Tensor
    tensor_of: Tensor

    def level_tensors(self) -> list[Tensor]:
        """The levels of each tensor, as vectors in the order of its weights."""
        return [self.levels[:, :, self.tensor_of == t].reshape(-1) for t in range(len(self.steps))]


def problem_of(sensitivity: Sensitivity, power: float) -> Problem:
    """A layer with the curvature to a power: 1 takes it as it is, 0 a curvature of 1 in every weight.

    In between, the diagonal of the inputs' moments and the outputs are raised to the power, and the correlations of
    the inputs multiplied by it. A zero bias is in the units of a weight of 1.
    """
    matrix = _grouped(sensitivity.weight.detach(), sensitivity.groups)
    parts = [matrix]
    if sensitivity.bias is not None:
        parts.append(_grouped(sensitivity.bias.detach(), sensitivity.groups))
    units = torch.stack([part.square().mean().sqrt() for part in parts])
    units = torch.where(units > 0, units, 1.0)
    tensor_of = torch.arange(len(parts), device=matrix.device).repeat_interleave(
        torch.tensor([part.shape[2] for part in parts], device=matrix.device)
    )
    triangle = None
    if sensitivity.inputs is not None:
        triangle = _triangle(sensitivity.inputs, units[tensor_of], power).float()
    factors = _floored(sensitivity.outputs.double()).pow(power).float().view(matrix.shape[:2])
    return Problem(torch.cat(parts, dim=2) / units[tensor_of], triangle, factors, tensor_of, units)


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    return tensor.float().reshape(groups, len(tensor) // groups, -1)


def _triangle(moments: Tensor, units: Tensor, power: float) -> Tensor:
    """R of the moments to a power, M = R Rᵀ, upper and float64, (groups, columns, columns)."""
    moments = moments.double() * (units.unsqueeze(1) * units.unsqueeze(0))
    sizes = _floored(moments.diagonal(dim1=1, dim2=2))
    roots = sizes.sqrt()
    mixed = moments / (roots.unsqueeze(2) * roots.unsqueeze(1)) * power
    mixed.diagonal(dim1=1, dim2=2).fill_(1 + DAMPING)
    roots = sizes.pow(power / 2)
    mixed *= roots.unsqueeze(2) * roots.unsqueeze(1)
    return torch.linalg.cholesky(mixed.flip(1, 2)).flip(1, 2)  # Cholesky's factor is lower; upper in reverse order


def _floored(values: Tensor) -> Tensor:
    """At least `LEAST` of their mean; ones where all are zero."""
    mean = values.mean()
    return values.clamp(min=LEAST * mean) if mean > 0 else torch.ones_like(values)


def round_layer(problem: Problem, step: float, rate_weight: float) -> Rounded:
    """Round one layer.

    Args:
        step: where a tensor's mean curvature is 1, in its units; elsewhere it is divided by the curvature's root, so
            that a step costs the same loss in all tensors. It is widened where a tensor would need more than `LEVELS`.
        rate_weight: what a bit costs in the loss of a mean weight's error of one step; 0 asks for no rate.
    """
    curvature = problem.curvature()
    widest = torch.stack([problem.weights[:, :, problem.tensor_of == t].abs().max() for t in range(len(problem.units))])
    steps = torch.maximum(step / problem.mean_of_each(curvature).sqrt(), widest / LEVELS)
    wide = steps[problem.tensor_of]
    targets = problem.weights / wide
    prices = _Prices(problem.tensor_of, rate_weight)
    curvature = curvature * (wide / step).square()
    levels = _without_correction(targets, curvature, prices)
    if problem.triangle is not None:
        feedback = problem.triangle * wide.unsqueeze(1)
        feedback = feedback / feedback.diagonal(dim1=1, dim2=2).unsqueeze(1)
        levels = _with_correction(targets, levels, curvature, feedback, prices)
    return Rounded(levels, steps * problem.units, problem.tensor_of)


class _Prices:
    """What each level costs, by how often the tensor has it, (tensors, 2 × LEVELS + 1)."""

    def __init__(self, tensor_of: Tensor, rate_weight: float) -> None:
        self.tensor_of, self.rate_weight = tensor_of, rate_weight
        self.table = torch.zeros(int(tensor_of.max()) + 1, 2 * LEVELS + 1, device=tensor_of.device)

    def count(self, levels: Tensor) -> None:
        """Take the bits from these levels, (groups, rows, columns)."""
        if self.rate_weight:
            for tensor in range(len(self.table)):
                index = (levels[:, :, self.tensor_of == tensor] + LEVELS).long().reshape(-1)
                counts = torch.bincount(index, minlength=2 * LEVELS + 1) + UNSEEN
                self.table[tensor] = self.rate_weight * (counts.sum() / counts).log2()

    def of(self, levels: Tensor, tensors: Tensor) -> Tensor:
        """Of these levels, (…, columns), whose columns belong to these tensors, (columns,)."""
        return self.table[tensors.expand(levels.shape), (levels + LEVELS).long()]


def _best(targets: Tensor, curvature: Tensor, tensors: Tensor, prices: _Prices) -> Tensor:
    """The level of least cost among the nearest one, two towards zero, and zero; more bits lie in no other direction.

    Args:
        targets, curvature: (…, columns).
        tensors: (columns,).
    """
    best = targets.round().clamp(-LEVELS, LEVELS)
    if not prices.rate_weight:
        return best
    inwards = best.sign()
    cost = curvature * (targets - best).square() + prices.of(best, tensors)
    for level in (best - inwards, best - 2 * inwards, torch.zeros_like(best)):
        its = curvature * (targets - level).square() + prices.of(level, tensors)
        best, cost = torch.where(its < cost, level, best), torch.minimum(its, cost)
    return best


def _without_correction(targets: Tensor, curvature: Tensor, prices: _Prices) -> Tensor:
    """Levels of least loss and rate where each weight's error stays its own; the bits follow from them."""
    levels = targets.round().clamp(-LEVELS, LEVELS)
    prices.count(levels)
    for _ in range(ROUNDS if prices.rate_weight else 0):
        levels = _best(targets, curvature, prices.tensor_of, prices)
        prices.count(levels)
    return levels


def _with_correction(targets: Tensor, levels: Tensor, curvature: Tensor, feedback: Tensor, prices: _Prices) -> Tensor:
    """Levels of which each makes up for the errors of the columns before it.

    |Δ R|² is a sum over columns k of (Σ_{j ≤ k} Δ_j R_jk)². So the best target of column k is its weight plus what the
    errors so far, times R_jk ÷ R_kk, ask for; and what it misses costs R_kk² times its square. This gives OPTQ's levels
    without an inverse.

    Args:
        levels: what columns to come will have, as far as the bits are concerned.
        feedback: R_jk ÷ R_kk in units of steps, (groups, columns, columns).
    """
    levels, errors, columns = levels.clone(), torch.zeros_like(targets), targets.shape[2]
    for start in range(0, columns, BLOCK):
        stop = min(columns, start + BLOCK)
        asked = targets[:, :, start:stop] + errors[:, :, :start] @ feedback[:, :start, start:stop]
        for k in range(start, stop):
            target = asked[:, :, k - start : k - start + 1] + errors[:, :, start:k] @ feedback[:, start:k, k : k + 1]
            level = _best(target, curvature[:, :, k : k + 1], prices.tensor_of[k : k + 1], prices)
            levels[:, :, k : k + 1] = level
            errors[:, :, k : k + 1] = targets[:, :, k : k + 1] - level
        prices.count(levels)
    return levels


def entropy_bits(levels: Sequence[Tensor]) -> float:
    """Bits of an ideal coder that knows how often each level occurs in each tensor, and nothing else."""
    bits = 0.0
    for tensor in levels:
        counts = torch.bincount((tensor + LEVELS).long()).double()
        counts = counts[counts > 0]
        bits += float((counts * (counts.sum() / counts).log2()).sum())
    return bits

"""Entropy-constrained post-training quantisation of a network: a step for all layers that meets a number of bits.

The grid of every layer follows from one step, see `rate_distortion.round_layer`; the step is found at which the
weights take the bits that were asked for.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.compression import batch_norm
from study.compression.codebook_training import ensure_usable, score
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters, with_integers
from study.data.splits import Splits
from study.methods.magnitude.pruning import post_training
from study.methods.ptq.calibration import BATCH, Sensitivity, calibration_part, sensitivities
from study.methods.ptq.rate_distortion import Problem, Rounded, entropy_bits, problem_of, round_layer

PASSES = 12
"""Steps that are tried at most."""
USUAL_PASSES = 4
"""Steps that are tried until the bits are met, as a rule."""
TOLERANCE = 0.01
"""Share of the bits that were asked for by which they may be missed."""


@dataclass(frozen=True, kw_only=True)
class Hparams:
    """One trial: the searched values first.

    Attributes:
        bits_per_weight: entropy of the levels, tensor by tensor, over the number of weights, above 0. Met to within a
            hundredth, where steps of at most 255 levels a tensor allow it.
        sensitivity_power: 0 to 1. 1 weighs errors by the loss's curvature and corrects them for each other, 0 takes all
            weights of a tensor as equal, and steps in proportion to its root mean square.
        rate_weight: what a bit costs, in the loss of a mean weight's error of one step; 0 rounds to the nearest level.
            A larger one has a finer grid and more zeros at equal bits.
        bits: 0, or plain rounding of every tensor to this many bits instead of all the rest.
        calibration_examples: of the training part.
    """

    bits_per_weight: float = 4.0
    sensitivity_power: float = 1.0
    rate_weight: float = 0.01
    bits: int = 0
    calibration_examples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.bits_per_weight > 0:
            raise ValueError(f"bits_per_weight {self.bits_per_weight} must be above 0")
        if not 0 <= self.sensitivity_power <= 1:
            raise ValueError(f"sensitivity_power {self.sensitivity_power} must be between 0 and 1")
        if not self.rate_weight >= 0:
            raise ValueError(f"rate_weight {self.rate_weight} must be at least 0")
        if not (self.bits == 0 or 2 <= self.bits <= 16):
            raise ValueError(f"bits {self.bits} must be 2 to 16, or 0 for bits_per_weight")
        if self.calibration_examples < 1:
            raise ValueError(f"calibration_examples {self.calibration_examples} must be at least 1")


def fit(model: nn.Module, hparams: Hparams, data: Splits) -> tuple[QuantisedWeights, dict[str, float]]:
    """Quantise a trained network, which is changed in place, and score it on the validation part.

    Args:
        data: of its training part only the calibration examples are read.
    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: what is left is no network.
    """
    examples = calibration_part(data, hparams.calibration_examples, hparams.seed)
    calibration = dataclasses.replace(data, train=examples)
    statistics = batch_norm.measure(model, calibration)
    if hparams.bits:
        quantised = post_training(model, hparams.bits)
    else:
        quantised = quantise(model, sensitivities(model, examples, data, hparams.seed), hparams)
    ensure_usable(quantised, "bits_per_weight is too small")
    batch_norm.follow(model, calibration, statistics)
    batch_norm.round_batch_norm(model)
    return quantised, score(model, quantised, data)


def quantise(model: nn.Module, layers: Sequence[Sensitivity], hparams: Hparams) -> QuantisedWeights:
    """Round all shared tensors so that they take `bits_per_weight`. The model is changed in place.

    Args:
        layers: as `sensitivities` gives them.
    """
    problems = [problem_of(layer, hparams.sensitivity_power) for layer in layers]
    rounded = round_to_rate(problems, hparams.bits_per_weight, hparams.rate_weight)
    levels: dict[nn.Parameter, Tensor] = {}
    steps: dict[nn.Parameter, Tensor] = {}
    for layer, its in zip(layers, rounded, strict=True):
        tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        levels |= zip(tensors, its.level_tensors(), strict=True)
        steps |= zip(tensors, its.steps, strict=True)
    parameters = shared_parameters(model)
    quantised = with_integers(flatten([levels[p] for p in parameters]), torch.stack([steps[p] for p in parameters]))
    quantised.write(parameters)
    return quantised


def round_to_rate(problems: Sequence[Problem], bits_per_weight: float, rate_weight: float) -> list[Rounded]:
    """Every layer on the grid of the step at which their weights take so many bits, by the secant method."""
    weights = sum(problem.weights.numel() for problem in problems)
    at = _first_step(problems) - bits_per_weight
    tried: list[tuple[float, float]] = []  # logarithms of steps, and bits above those that were asked for
    best: tuple[float, list[Rounded]] = (math.inf, [])
    for _ in range(PASSES):
        rounded = [round_layer(problem, 2**at, rate_weight) for problem in problems]
        excess = sum(entropy_bits(layer.level_tensors()) for layer in rounded) / weights - bits_per_weight
        if abs(excess) < best[0]:
            best = abs(excess), rounded
        if abs(excess) <= TOLERANCE * bits_per_weight:
            break
        # A step of twice the width saves one bit while bits are many, and less where they are few.
        slope = (excess - tried[-1][1]) / (at - tried[-1][0]) if tried else -1.0
        tried.append((at, excess))
        at -= excess / min(-0.2, max(-2.0, slope))
    return best[1]


def _first_step(problems: Sequence[Problem]) -> float:
    """Logarithm of the step at which Gaussian weights would take no bits if the law for many bits held for few."""
    logarithms = [float(p.curvature().mean().log2()) / 2 * p.weights.numel() for p in problems]
    return sum(logarithms) / sum(p.weights.numel() for p in problems) + math.log2(2 * math.pi * math.e) / 2


def seconds_of(model: nn.Module, examples: int, data: Splits) -> float:
    """Seconds that quantising takes, without the evaluation: from a few of its examples, and one pass over all layers.

    Args:
        model: fresh weights will do.
        examples: of calibration.
    """
    count = min(examples, len(data.train))
    few = calibration_part(data, min(2 * BATCH, count), seed=0)
    start = time.perf_counter()
    layers = sensitivities(model, few, data, seed=0)
    calibrated = time.perf_counter()
    problems = [problem_of(layer, power=0.5) for layer in layers]
    prepared = time.perf_counter()
    for problem in problems:
        round_layer(problem, 2 ** (_first_step(problems) - 3), rate_weight=0.01)
    rounded = time.perf_counter()
    return (calibrated - start) * count / len(few) + prepared - calibrated + (rounded - prepared) * USUAL_PASSES

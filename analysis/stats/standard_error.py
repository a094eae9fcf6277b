"""How much a score can be trusted that was measured on few images, or with few seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.special import stdtrit


def standard_error(accuracy: float, examples: int) -> float:
    """Binomial standard error of an accuracy, both in percentage points.

    √(p (1 − p) / n) with two successes and two failures added to the count, so that 100 % on few images does not
    claim to be certain.

    Reference: Agresti & Coull 1998, The American Statistician 52(2), 119–126.
    """
    n = examples + 4
    p = (accuracy / 100 * examples + 2) / n
    return 100 * math.sqrt(p * (1 - p) / n)


def redrawn(accuracies: np.ndarray, examples: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Accuracies as other samples of as many examples might give them, each by itself, in percent: binomial, with the
    four examples of `standard_error` added, so that their spread is that error.

    Args:
        accuracies: in percent, (n,), none missing.
    Returns: (draws, n).
    """
    n = examples + 4
    order = np.argsort(accuracies, kind="stable")
    levels, starts = np.unique(accuracies[order], return_index=True)
    samples = np.empty((draws, len(accuracies)))
    # One call for each accuracy that occurs: few images give few, and a call with many probabilities is slow.
    for level, those in zip(levels, np.split(order, starts[1:]), strict=True):
        samples[:, those] = rng.binomial(n, (level / 100 * examples + 2) / n, (draws, len(those)))
    return 100 * samples / n


def half_width(values: pd.Series, confidence: float = 0.95) -> float:
    """Half the width of Student's t interval of a mean: t · s / √n, t the quantile at (1 + confidence) / 2 with n − 1
    degrees of freedom, s the standard deviation with n − 1 in its denominator.

    Args:
        values: independent measurements, (n,), one a seed; missing ones do not count.
    Returns: in the unit of `values`; NaN for fewer than two of them, and where all are equal but for rounding: scores
        that are multiples of one image's share tie easily, and a width of zero would call any difference certain.
    Reference: Student 1908, Biometrika 6(1), 1–25.
    """
    n = int(values.count())
    if n < 2 or values.max() - values.min() <= 1e-9 * max(1.0, values.abs().max()):
        return np.nan
    return float(stdtrit(n - 1, (1 + confidence) / 2) * values.std() / math.sqrt(n))

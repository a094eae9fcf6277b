"""How far the front of one study is from that of another, and how surely. Every draw has a fixed seed, so a number
comes out the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from analysis.stats.names import ACCURACY, FILE_SIZE
from analysis.stats.uncertainty import DRAWS

FEWEST = 10
"""Trials below which resampling them shows nothing: one trial is always itself."""


@dataclass(frozen=True)
class Epsilon:
    """How far one front is behind another: a factor, and the range that it has in most resamples, see `epsilon`."""

    value: float
    low: float
    high: float


def epsilon(a: pd.DataFrame, b: pd.DataFrame, images: int) -> Epsilon:
    """Multiplicative epsilon indicator of two studies on validation error (%) and bytes of the file: each member of b's
    front is matched by one of a with at most `value` times its error and `value` times its bytes.

    It has no unit. 1 or less says that a is nowhere behind. An error of zero counts as half an image, since a multiple
    of nothing is nothing.

    `low` and `high` bound the middle 95 % of the factors after the trials of each study are resampled: how much depends
    on a few of them. That is no 95 % interval of what another search would give, which lies below more often than
    that: a resample has fewer different trials, and so a front that lies behind.

    Args:
        a, b: complete trials of each study, with `val_accuracy` (%) and `file_bytes`.
        images: in the validation part.
    Returns: NaN throughout where one of the studies has no trial; no `low` and `high` where one has fewer than
        `FEWEST`.
    Reference: Zitzler, Thiele, Laumanns, Fonseca & Grunert da Fonseca 2003, IEEE Trans. Evol. Comput. 7(2), 117–132.
    """
    return epsilon_between(resampled_fronts(a, images, seed=0), resampled_fronts(b, images, seed=1))


def resampled_fronts(trials: pd.DataFrame, images: int, seed: int) -> list[np.ndarray]:
    """The front of these trials, and then of `DRAWS` resamples of as many of them, for `epsilon_between`.

    Only the first 16 non-dominated ranks are drawn: a trial behind them is on the front of a resample when at least 16
    others that beat it are missing, once in e^16.

    Returns: (members, 2) each, error in percent and bytes; none without a trial, the first alone with fewer than
        `FEWEST`.
    """
    costs = _costs(trials, images)
    n = len(costs)
    if not n:
        return []
    if n < FEWEST:
        return [costs[moocore.is_nondominated(costs)]]
    near = costs[moocore.pareto_rank(costs) < 16]
    chances = np.full(len(near) + 1, 1 / n)
    chances[-1] = max(0.0, 1 - len(near) / n)
    times = np.random.default_rng(seed).multinomial(n, chances, size=DRAWS)[:, :-1]
    samples = [near, *(near[row > 0] for row in times if row.any())]
    return [sample[moocore.is_nondominated(sample)] for sample in samples]


def epsilon_between(a: list[np.ndarray], b: list[np.ndarray]) -> Epsilon:
    """`epsilon` of two studies whose `resampled_fronts` these are, drawn with different seeds."""
    factors = [moocore.epsilon_mult(mine, ref=theirs) for mine, theirs in zip(a, b, strict=False)]
    if not factors:
        return Epsilon(np.nan, np.nan, np.nan)
    low, high = np.percentile(factors[1:], [2.5, 97.5]) if len(factors) > 1 else (np.nan, np.nan)
    return Epsilon(float(factors[0]), float(low), float(high))


def _costs(trials: pd.DataFrame, images: int) -> np.ndarray:
    """Error in percent, at least half an image's worth, and bytes, of the trials that have both: (trials, 2)."""
    least = 50 / images if images else 1e-9
    error = (100 - trials[ACCURACY].astype(float)).clip(lower=least)
    costs = np.column_stack([error, trials[FILE_SIZE].astype(float)])
    return costs[np.isfinite(costs).all(axis=1) & (costs[:, 1] > 0)]

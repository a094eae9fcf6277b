"""Racing over seeds: the further seeds of `--seeds-per-trial` only for trials that could still end on the front.

Maron & Moore (1994), "Hoeffding races", drop a candidate once its interval lies below the best one's, and Birattari et
al. (2002), "A racing algorithm for configuring metaheuristics", race over seeds. Here a trial's first seed is its first
round, and the intervals are Student's, from the spread over seeds that finished trials of the study had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from study.records.columns import ACCURACY, SPREAD, Row
from study.tuning.costs import costs_of, dominated, signs_of
from study.tuning.repeats import SCORES

CONFIDENCE = 0.975
"""That the mean of a trial which is stopped would have been dominated, as far as one objective's seeds tell."""


class Race:
    """Which trials are worth their further seeds.

    A trial whose first seed has ended is stopped if a finished trial dominates it even where its accuracy is taken to
    be higher by t · s · √((n − 1) / n): the mean of n seeds lies so far from the first one's value, with s the pooled
    standard deviation of the finished trials and t Student's quantile for its degrees of freedom. Sizes are those of
    the first seed anyway, and count as they are. The first trial has all its seeds; so have all where another mean over
    seeds than the accuracy is an objective, whose spread nobody records.

    Args:
        objectives: metric → "max" or "min".
        seeds: n, those of one trial, at least 2.
    """

    def __init__(self, objectives: Mapping[str, str], seeds: int) -> None:
        self.signs = signs_of(objectives, "a race")
        self.seeds = seeds
        self._ends: list[np.ndarray] = []
        self._variances: list[float] = []

    def finish(self, metrics: Row) -> None:
        """A trial has ended with all its seeds; of others nothing is learnt."""
        if (costs := self._costs(metrics)) is not None and metrics.get(SPREAD) is not None:
            self._ends.append(costs)
            self._variances.append(float(metrics[SPREAD]) ** 2)

    def judge(self, metrics: Row) -> bool:
        """Whether a trial goes on from its first seed, by what that one came to."""
        costs = self._costs(metrics)
        if costs is None or not self._ends or any(metric in SCORES and metric != ACCURACY for metric in self.signs):
            return True
        best = costs - np.array([self.margin() if metric == ACCURACY else 0.0 for metric in self.signs])
        return not dominated(best[None], np.array(self._ends))[0]

    def margin(self) -> float:
        """By how much the mean may be above the first seed's accuracy, in percentage points."""
        from scipy import special  # which a study with one seed a trial need not load

        freedom = len(self._variances) * (self.seeds - 1)
        spread = math.sqrt(math.fsum(self._variances) / len(self._variances))
        return float(special.stdtrit(freedom, CONFIDENCE)) * spread * math.sqrt((self.seeds - 1) / self.seeds)

    def _costs(self, metrics: Row) -> np.ndarray | None:
        costs = costs_of(metrics, self.signs)
        return costs if costs is not None and np.isfinite(costs).all() else None

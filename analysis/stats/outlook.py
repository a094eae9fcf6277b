"""What more trials would probably bring."""

from __future__ import annotations

import numpy as np

from analysis.stats.progress import scaled_costs, volumes
from analysis.stats.search_space import Array
from analysis.stats.summary import Summary
from study.records.columns import FINAL_STATES

FEWEST = 16
"""Trials that may answer, below which the course of a search says nothing of how it goes on."""
ORDERS = 40
MOST = 1024
"""Trials that are looked at; of more the last ones."""


def gain_of_doubling(s: Summary) -> float | None:
    """What as many trials again would probably add: of one objective in its own unit, otherwise as a share of the
    front's hypervolume; at least 0. None where there are too few trials to tell.

    The trials are read in random orders. From half of them to all of them the value rose by so much, from a quarter to
    half by so much more; the next doubling is taken to bring the same share again of the one before.
    """
    ended = s.trials[(s.trials["baseline"] == "") & s.trials["state"].isin(FINAL_STATES)].iloc[-MOST:]
    if len(s.feasible) < FEWEST:
        return None
    costs, reference = scaled_costs(s, ended)
    costs[~ended["trial_id"].isin(s.feasible["trial_id"])] = np.nan
    return doubling(costs, reference)


def doubling(costs: Array, reference: Array) -> float:
    """`gain_of_doubling` of costs, (trials, objectives), less is better; rows that are not finite add nothing."""
    rng = np.random.default_rng(0)
    counts = np.array([len(costs) // 4, len(costs) // 2, len(costs)])
    reached = np.array([_reached(costs[rng.permutation(len(costs))], reference)[counts - 1] for _ in range(ORDERS)])
    quarter, half, full = np.nanmean(reached, axis=0)
    before, last = half - quarter, full - half
    gain = last * min(1.0, last / before) if before > 0 else 0.0
    scale = full if costs.shape[1] > 1 else 1.0
    return float(gain / scale) if scale > 0 else 0.0


def _reached(costs: Array, reference: Array) -> Array:
    """What is reached after each row, more is better."""
    if costs.shape[1] > 1:
        return volumes(costs, reference)
    return -np.asarray(np.fmin.accumulate(costs[:, 0]))

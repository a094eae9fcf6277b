"""Objectives as costs, less being better in each, as the rules that stop trials compare them."""

from __future__ import annotations

from collections.abc import Mapping

import moocore
import numpy as np

from study.records.columns import Row


def signs_of(objectives: Mapping[str, str], rule: str) -> dict[str, float]:
    """What each objective is multiplied by to be a cost.

    Args:
        objectives: metric → "max" or "min".
        rule: who asks, as a message names it.
    Raises:
        ValueError: no objective, or a direction that is neither "max" nor "min".
    """
    if not objectives:
        raise ValueError(f"{rule} needs at least one objective")
    for metric, direction in objectives.items():
        if direction not in ("max", "min"):
            raise ValueError(f"objective {metric!r}: direction {direction!r} is neither 'max' nor 'min'")
    return {metric: -1.0 if direction == "max" else 1.0 for metric, direction in objectives.items()}


def costs_of(metrics: Row, signs: Mapping[str, float]) -> np.ndarray | None:
    """The costs of a report, (objectives,); None where it lacks an objective. They need not be finite."""
    if any(metrics.get(metric) is None for metric in signs):
        return None
    return np.array([sign * float(metrics[metric]) for metric, sign in signs.items()])


def dominated(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which points some end dominates: it is no worse in every cost, and better in one.

    Args:
        points, ends: (points, objectives) and (ends, objectives), finite.
    Returns: (points,), bool.
    """
    front = ends[moocore.is_nondominated(ends)]
    no_worse = (front[None] <= points[:, None]).all(axis=2)
    better = (front[None] < points[:, None]).any(axis=2)
    return np.asarray((no_worse & better).any(axis=1))

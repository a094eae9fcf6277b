"""Which trials no other trial beats, and how much of the objective space they cover. The geometry is moocore's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import moocore
import numpy as np
import pandas as pd

from analysis.stats.guessing import told_from_guessing
from analysis.stats.names import ACCURACY


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Searched trials that ran to their end. A pruned or broken one has no final score, and a baseline was not
    searched, so none of these may enter a front."""
    return trials[(trials["state"] == "complete") & (trials["baseline"] == "")]


def feasible(trials: pd.DataFrame, meta: Mapping[str, Any]) -> pd.DataFrame:
    """Trials that may answer: told apart from guessing, see `guessing.told_from_guessing`, and within the study's
    constraint, a validation accuracy of at least `least_accuracy`, in percent. One without a score is neither.

    Args:
        trials: see `finished`; the bound of guessing depends on how many there are.
        meta: `study.json`.
    """
    scores = pd.to_numeric(trials.reindex(columns=[ACCURACY])[ACCURACY], errors="coerce")
    told, least = told_from_guessing(scores, meta), least_accuracy(meta)
    return trials[told if least is None else told & (scores >= least)]


def least_accuracy(meta: Mapping[str, Any]) -> float | None:
    """The setting `min_accuracy`, in percent; None where the study had no such constraint."""
    least = meta.get("settings", {}).get("min_accuracy")
    return None if least is None else float(least)


def pareto_front(trials: pd.DataFrame, objectives: Mapping[str, str]) -> pd.DataFrame:
    """Rows that no other row dominates; order and index are those of `trials`.

    A row dominates another when it is at least as good in every objective and better in one, so equal rows all stay.

    Args:
        trials: one row a trial, every state; filter with `finished` and `feasible` first.
        objectives: column → "min" or "max".
    Returns: the front. Rows whose objective is missing, not a number or infinite are left out.
    Raises:
        ValueError: no objective, or a direction that is neither "min" nor "max".
    """
    maximise = _maximise(objectives)
    points = _points(trials, objectives)
    scored = np.isfinite(points).all(axis=1)
    keep = scored.copy()
    if scored.any():
        keep[scored] = moocore.is_nondominated(points[scored], maximise=maximise, keep_weakly=True)
    return trials[keep]


def hypervolume(trials: pd.DataFrame, objectives: Mapping[str, str], reference: Mapping[str, float]) -> float:
    """Volume of objective space that `trials` dominate and that is better than `reference` in every objective.

    Its unit is the product of the objectives' units. Rows with a missing objective, and rows that are not better
    than the reference in every objective, add nothing.

    Raises:
        ValueError: a bad direction, or an objective that `reference` does not give.
    """
    maximise = _maximise(objectives)
    absent = [column for column in objectives if column not in reference]
    if absent:
        raise ValueError(f"the reference point has no value for {absent[0]!r}")
    points = _points(trials, objectives)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 0.0
    corner = np.array([float(reference[column]) for column in objectives])
    return float(moocore.hypervolume(points, ref=corner, maximise=maximise))


def knee(front: pd.DataFrame, objectives: Mapping[str, str]) -> pd.Series | None:
    """The member of a front from which a gain in one objective costs most in another: the one that lies farthest,
    towards the better side, from the line (plane, hyperplane) through the extremes.

    The front is scaled to the unit cube first: in each objective 0 for the best value on the front and 1 for the worst.
    The hyperplane goes through the corners that are worst in one objective and best in all others, which for two
    objectives are the two ends of the front. The distance is then (1 − sum of scaled costs) / √objectives. It depends
    on the scale of an objective: give the logarithm of a size to find the knee that a logarithmic axis shows.

    Args:
        front: see `pareto_front`. Of equal members the first counts.
    Returns: its row; None for fewer than three different members, and where none lies before the hyperplane, as on a
        front that bends away from the ideal point.
    Raises:
        ValueError: see `pareto_front`.
    Reference: Das 1999, Structural Optimization 18, 107–115, whose hyperplane goes through each objective's own
        optimum; the two agree for two objectives.
    """
    costs = np.where(_maximise(objectives), -1.0, 1.0) * _points(front, objectives)
    if len(np.unique(costs, axis=0)) < 3 or not np.isfinite(costs).all():
        return None
    best, spread = costs.min(axis=0), np.ptp(costs, axis=0)
    before = 1 - ((costs - best) / np.where(spread > 0, spread, 1.0)).sum(axis=1)
    return front.iloc[int(before.argmax())] if before.max() > 1e-9 else None


def _maximise(objectives: Mapping[str, str]) -> list[bool]:
    if not objectives:
        raise ValueError("a front needs at least one objective")
    for column, direction in objectives.items():
        if direction not in ("min", "max"):
            raise ValueError(f"objective {column!r}: direction {direction!r} is neither 'min' nor 'max'")
    return [direction == "max" for direction in objectives.values()]


def _points(trials: pd.DataFrame, objectives: Mapping[str, str]) -> np.ndarray:
    """Objectives as floats, (trials, objectives); a column the table does not have yet is all missing."""
    columns = trials.reindex(columns=list(objectives))
    return columns.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)

"""What hyperparameters may move, and hyperparameters on the scale of their search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import capitalise, column_label, format_cell
from analysis.stats.functional_anova import Array
from analysis.stats.summary import Summary, size_of
from study.records.columns import COLUMNS


@dataclass(frozen=True)
class Target:
    """What hyperparameters may move.

    Attributes:
        key: an objective's column, `hypervolume` or `given`.
        title: for people, with its condition; `detail` is a sentence more, or "".
        direction: "min" or "max".
        values: by row of the trials that count; log10 of them where `log`.
        pulled: trials whose value lay beyond the fence and was pulled to it, see `fenced`.
    """

    key: str
    title: str
    direction: str
    values: pd.Series
    log: bool = False
    pulled: int = 0
    detail: str = ""

    def shown(self, values: Array) -> Array:
        """From the scale of `values` to the target's own unit."""
        return np.asarray(10.0**values) if self.log else values


def targets(s: Summary, rows: pd.DataFrame, bound: float | None = None, epoch: int = 0) -> list[Target]:
    """The objectives; where there are two or more their hypervolume; where one of them is a size, accuracy among the
    small networks.

    A trial's hypervolume is that of the box between the reference point and its own objectives, so it depends on its
    configuration alone. What a trial adds to the front's volume is no target: it is zero for nearly all of them and
    hangs on which others happened to be drawn. The reference point is chance accuracy, a sparsity of 0 and, for other
    objectives, the worst complete trial.

    Args:
        epoch: after which the rows' accuracy is; 0 for their end.
    """
    size = size_of(s.study.objectives)
    after = f" after epoch {epoch}" if epoch else ""
    found = [
        _target(column, capitalise(column_label(column)) + after, direction, rows[column], column == "file_bytes")
        for column, direction in s.study.objectives.items()
    ]
    if len(s.study.objectives) > 1:
        corner = {column: _reference(s, rows, column, direction) for column, direction in s.study.objectives.items()}
        sides = [(rows[c] - corner[c]) * (1 if better == "max" else -1) for c, better in s.study.objectives.items()]
        said = " and ".join(
            f"{COLUMNS[c].label} {v:,.6g} {COLUMNS[c].unit}" if c in COLUMNS else f"{c} {v:.6g}"
            for c, v in corner.items()
        )
        volume = pd.concat(sides, axis=1).clip(lower=0).prod(axis=1, skipna=False)
        found.append(
            _target(
                "hypervolume",
                "Hypervolume of each trial alone",
                "max",
                volume,
                detail=f"Its reference point is {said}.",
            )
        )
    if size and "val_accuracy" in s.study.objectives:
        limit = float(rows[size].median()) if bound is None else bound
        small = rows[rows[size] >= limit] if size == "sparsity" else rows[rows[size] <= limit]
        sign = "≥" if size == "sparsity" else "≤"
        condition = f"{COLUMNS[size].label} {sign} {format_cell(size, limit)} {COLUMNS[size].unit}"
        found.append(
            _target(
                "given",
                f"{capitalise(column_label('val_accuracy'))}, given {condition}",
                s.study.objectives["val_accuracy"],
                small["val_accuracy"],
            )
        )
    return found


def to_unit(values: Array, domain: Mapping[str, Any]) -> Array:
    """A hyperparameter on the scale it was searched on, its range as [0, 1]."""
    scale, _ = _scale(domain)
    low, high = scale(float(domain["low"])), scale(float(domain["high"]))
    return np.asarray((scale(values) - low) / (high - low))


def from_unit(unit: Array, domain: Mapping[str, Any]) -> Array:
    scale, inverse = _scale(domain)
    low, high = scale(float(domain["low"])), scale(float(domain["high"]))
    return np.asarray(inverse(low + unit * (high - low)))


def searched_range(domain: Mapping[str, Any]) -> bool:
    """Whether a hyperparameter is a number that was searched over a range."""
    return "low" in domain and "high" in domain and float(domain["low"]) < float(domain["high"])


def fenced(values: pd.Series) -> pd.Series:
    """Values beyond Tukey's fences, 1.5 interquartile ranges outside the quartiles, pulled to them.

    A network that collapsed to chance is tens of points away from all others; a variance would be about it alone.

    Reference: Tukey 1977, Exploratory Data Analysis, ch. 2.
    """
    low, high = values.quantile([0.25, 0.75])
    return values.clip(low - 1.5 * (high - low), high + 1.5 * (high - low))


def _target(key: str, title: str, direction: str, values: pd.Series, log: bool = False, detail: str = "") -> Target:
    numbers = values.astype(float)
    numbers = np.log10(numbers[numbers > 0]) if log else numbers
    numbers = numbers[np.isfinite(numbers)]
    kept = fenced(numbers)
    return Target(key, title, direction, kept, log, int((kept != numbers).sum()), detail)


def _reference(s: Summary, rows: pd.DataFrame, column: str, direction: str) -> float:
    if column == "val_accuracy" and np.isfinite(s.chance):
        return s.chance
    if column == "sparsity":
        return 0.0
    return float(rows[column].min() if direction == "max" else rows[column].max())


def _scale(domain: Mapping[str, Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The scale a hyperparameter was searched on, growing with it, and its inverse."""
    if domain.get("log"):
        return np.log, np.exp
    return (lambda v: v), (lambda u: u)

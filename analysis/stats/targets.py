"""What hyperparameters may move: the objectives of a study, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import capitalise, format_cell
from analysis.stats.names import ACCURACY
from analysis.stats.search_space import Array
from analysis.stats.summary import Summary


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
    """The objectives; where there are two or more, their hypervolume; where accuracy is traded for something, accuracy
    among the trials that are good in that.

    Args:
        rows: the trials.
        bound: what such a trial reaches in `Summary.cost`; without it the trials' median.
        epoch: after which the rows' accuracy is; 0 for their end.
    """
    after = f" after epoch {epoch}" if epoch else ""
    members = [
        _target(
            name, capitalise(s.column(name).label) + after, direction, rows[name], log=s.column(name).scale == "log"
        )
        for name, direction in s.study.objectives.items()
    ]
    if len(members) > 1:
        members.append(_hypervolume(s, rows))
    if s.cost and ACCURACY in s.study.objectives:
        members.append(_accuracy_given_cost(s, rows, bound))
    return members


def _hypervolume(s: Summary, rows: pd.DataFrame) -> Target:
    """A trial's hypervolume is that of the box between the reference point and its own objectives, so it depends on its
    configuration alone.

    What a trial adds to the front's volume is no target: it is zero for nearly all of them and depends on which others
    happened to be sampled.
    """
    corner = {name: worst(s, rows, name, direction) for name, direction in s.study.objectives.items()}
    sides = [(rows[c] - corner[c]) * (1 if better == "max" else -1) for c, better in s.study.objectives.items()]
    words = " and ".join(f"{s.column(c).label} {v:,.6g} {s.column(c).unit}".rstrip() for c, v in corner.items())
    volume = pd.concat(sides, axis=1).clip(lower=0).prod(axis=1, skipna=False)
    return _target(
        "hypervolume", "Hypervolume of each trial alone", "max", volume, detail=f"Its reference point is {words}."
    )


def worst(s: Summary, rows: pd.DataFrame, name: str, direction: str) -> float:
    """The reference point in one objective: chance accuracy, 0 % where 100 % is the best, or the worst trial."""
    if name == ACCURACY and np.isfinite(s.chance):
        return s.chance
    if s.column(name).scale == "complement" and direction == "max":
        return 0.0
    return float(rows[name].min() if direction == "max" else rows[name].max())


def _accuracy_given_cost(s: Summary, rows: pd.DataFrame, bound: float | None) -> Target:
    column, direction = s.column(s.cost), s.study.objectives[s.cost]
    limit = float(s.sets_axis(rows)[s.cost].median()) if bound is None else bound  # no network that guesses sets it
    good = rows[rows[s.cost] >= limit] if direction == "max" else rows[rows[s.cost] <= limit]
    sign = "≥" if direction == "max" else "≤"
    condition = f"{column.label} {sign} {format_cell(column, limit)} {column.unit}".rstrip()
    title = f"{capitalise(s.column(ACCURACY).label)}, given {condition}"
    return _target("given", title, s.study.objectives[ACCURACY], good[ACCURACY])


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
    pulled = fenced(numbers)
    return Target(key, title, direction, pulled, log, int((pulled != numbers).sum()), detail)

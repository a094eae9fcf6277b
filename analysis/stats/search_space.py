"""Hyperparameters on the scale of their search. A domain is an entry of `space` in `study.json`: a range with `low` and
`high`, perhaps `log` or `step`, or a choice among `values`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.records.search_domains import Choice

Domain = Mapping[str, Any]
Array = NDArray[np.float64]

LEVELS = 40
"""Points of a range that stand for all of it when a response is averaged over it."""


def choices(domain: Domain) -> list[Any]:
    """What a choice is among; [] for a range."""
    return list(domain.get("values", []))


def searched_networks(space: Mapping[str, Domain], role: str) -> list[str]:
    """Names of the networks that trials have in a role, or that they all have where it is fixed; [] where neither."""
    return [str(name) for name in choices(space.get(role, {}))]


def is_words(domain: Domain) -> bool:
    """Whether a choice is among words, or yes and no, rather than among numbers."""
    return any(not _is_number(value) for value in choices(domain))


def is_whole(domain: Domain) -> bool:
    """Whether a hyperparameter takes whole numbers only."""
    values = choices(domain)
    return domain.get("type") == "int" or bool(values) and all(_is_number(v) and float(v).is_integer() for v in values)


def varies(domain: Domain) -> bool:
    """Whether a hyperparameter was searched over more than one value."""
    if choices(domain):
        return len(choices(domain)) > 1
    return "low" in domain and "high" in domain and float(domain["low"]) < float(domain["high"])


def as_words(values: pd.Series, domain: Domain) -> pd.Series:
    """The values of a choice among words as its words, whatever a table made of them; missing ones stay missing."""
    return pd.Series(
        [np.nan if pd.isna(value) else str(_choice(value, choices(domain))) for value in values],
        index=values.index,
        dtype=object,
    )


def to_unit(values: Any, domain: Domain) -> Array:
    """A hyperparameter on the scale it was searched on, its range as [0, 1]; choices stand at equal distances.

    Returns: as many as `values`; NaN for what is none of the choices.
    """
    if among := choices(domain):
        places = [_place(value, among) for value in np.atleast_1d(np.asarray(values, dtype=object))]
        return np.asarray(places, dtype=float) / max(len(among) - 1, 1)
    scale, _ = _scale(domain)
    low, high = scale(float(domain["low"])), scale(float(domain["high"]))
    return np.asarray((scale(values) - low) / (high - low))


def from_unit(unit: Array, domain: Domain) -> NDArray[Any]:
    """The values at places in [0, 1], the inverse of `to_unit`; of choices the nearest, words as in `as_words`."""
    if among := choices(domain):
        values = [str(value) for value in among] if is_words(domain) else [float(value) for value in among]
        places = np.clip(np.rint(np.asarray(unit) * (len(among) - 1)), 0, len(among) - 1).astype(int)
        return np.asarray(values)[places]
    scale, inverse = _scale(domain)
    low, high = scale(float(domain["low"])), scale(float(domain["high"]))
    return np.asarray(inverse(low + unit * (high - low)))


def levels(domain: Domain) -> Array:
    """Places in [0, 1] that stand for the complete domain, with equal weight: its members, where those are few."""
    if among := choices(domain):
        return np.linspace(0.0, 1.0, len(among))
    if domain.get("step") and varies(domain):
        members = round((float(domain["high"]) - float(domain["low"])) / float(domain["step"])) + 1
        if members <= LEVELS:
            return np.linspace(0.0, 1.0, members)
    return np.asarray((np.arange(LEVELS) + 0.5) / LEVELS)


def grid(domain: Domain, points: int) -> Array:
    """Places in [0, 1] to show a response at: so many evenly spaced ones, or each choice."""
    return np.linspace(0.0, 1.0, len(choices(domain)) or points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choice(value: Any, among: Sequence[Any]) -> Any:
    """The one of these that a cell of a table means; the cell itself if it means none."""
    place = _place(value, among)
    return value if np.isnan(place) else among[int(place)]


def _place(value: Any, among: Sequence[Any]) -> float:
    """Which of these a cell of a table means; NaN for none."""
    index = Choice(tuple(among)).index(value)
    return np.nan if index is None else float(index)


def _scale(domain: Domain) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The scale that a range was searched on, growing with it, and its inverse."""
    if domain.get("log"):
        return np.log, np.exp
    return (lambda v: v), (lambda u: u)

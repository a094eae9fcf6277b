"""Which columns of a table are metrics that accuracy is traded for, and the scale on which a metric is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.names import ACCURACY
from analysis.stats.search_space import Array
from study.records.columns import COLUMNS, COST_COLUMNS, EPOCH_ONLY, TRIAL_COLUMNS, Column
from study.records.study_folder import Study

CLOSEST = 1e-3
"""Where the full 100 % stands on a complement scale, whose logarithm has no place for a distance of zero."""


def settings_of_baselines(study: Study) -> list[str]:
    """Hyperparameters that baselines set and the search does not."""
    names = [name for values in study.meta.get("baselines", {}).values() for name in values]
    return [name for name in dict.fromkeys(names) if name not in study.hyperparameters]


def cost_metrics(study: Study, frame: pd.DataFrame) -> list[str]:
    """Metrics of a table that say what a network costs: objectives other than accuracy, those declared on a logarithmic
    or complement scale, and numbers that nobody declared.

    Args:
        frame: `trials` or `confirmed` of the study.
    Returns: in the order of their declaration, undeclared ones last.
    """
    return [
        name
        for name in _metrics(study, frame)
        if name in study.objectives or name not in COLUMNS or study.column(name).scale != "linear"
    ]


def network_facts(study: Study, frame: pd.DataFrame) -> list[str]:
    """`cost_metrics`, and those that are neither better nor worse for being large, such as the number of different
    values that a network's weights have."""
    costs = cost_metrics(study, frame)
    return [name for name in _metrics(study, frame) if name in costs or not study.column(name).direction]


def scaled(values: Any, column: Column) -> Array:
    """Values on the scale that their column declares.

    Returns: on a logarithmic scale their logarithms, on that of a complement minus the logarithm of the distance from
        100, so that larger values stay larger; NaN for what has no place on its scale.
    """
    numbers = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        if column.scale == "log":
            return np.asarray(np.where(numbers > 0, np.log(numbers), np.nan))
        if column.scale == "complement":
            return np.asarray(-np.log(np.maximum(100 - numbers, CLOSEST)))
    return numbers


def _metrics(study: Study, frame: pd.DataFrame) -> list[str]:
    """Columns with numbers that trials were measured by, accuracy left out."""
    given = {*TRIAL_COLUMNS, *COST_COLUMNS, *EPOCH_ONLY, "seed", *study.hyperparameters, *settings_of_baselines(study)}
    names = [*COLUMNS, *(str(name) for name in frame.columns if name not in COLUMNS)]
    return [
        name
        for name in names
        if name in frame and name not in given and name != ACCURACY and (name in COLUMNS or _has_numbers(frame[name]))
    ]


def _has_numbers(values: pd.Series) -> bool:
    """Whether every cell that has something has a number."""
    there = values.notna()
    return bool(there.any() and pd.to_numeric(values[there], errors="coerce").notna().all())

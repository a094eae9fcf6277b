"""How a search went: what it had reached after each trial, and when its trials ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from analysis.stats.search_space import Array
from analysis.stats.summary import Summary
from analysis.stats.targets import worst
from study.records.columns import FINAL_STATES, TIME_COLUMNS, Column

BREAK = 600.0
"""Seconds without any trial from which on a study counts as interrupted rather than busy."""
FULL, CLOSEST = 100.0, 1e-3
"""Of a complement scale: what it measures the distance from, and where the full 100 % stands, in percent."""


@dataclass(frozen=True)
class Schedule:
    """When trials ran, on a clock that stands still while none does for longer than `BREAK`.

    Attributes:
        rows: trials with both times, in the order of their starts: `trial_id`, `state`, `baseline`, `start` and `end`
            in hours on that clock since the first start, and `lane`, the lowest number that no trial at the same time
            has.
        breaks: where the clock stood still, in its hours → hours that each break took.
    """

    rows: pd.DataFrame
    breaks: Mapping[float, float]

    @property
    def hours(self) -> float:
        """From the first start to the last end, without breaks."""
        return float(self.rows["end"].max()) if len(self.rows) else 0.0


def schedule(trials: pd.DataFrame) -> Schedule:
    """Read `started` and `ended` of a table of trials; rows without them, as older folders have, are left out."""
    times = trials.reindex(columns=list(TIME_COLUMNS)).apply(
        lambda cells: pd.to_datetime(cells.replace("", None), utc=True, errors="coerce", format="ISO8601")
    )
    known = times.notna().all(axis=1)
    rows = trials.loc[known, ["trial_id", "state", "baseline"]].assign(
        start=times.loc[known, "started"], end=times.loc[known].max(axis=1)
    )
    rows = rows.sort_values(["start", "end"], kind="stable").reset_index(drop=True)
    if rows.empty:
        return Schedule(rows.assign(start=0.0, end=0.0, lane=0), {})
    first = rows["start"].iloc[0]
    start, end = ((rows[side] - first).dt.total_seconds().to_numpy() for side in ("start", "end"))
    busy_until = np.maximum.accumulate(end)
    gaps = np.append(0.0, start[1:] - busy_until[:-1])
    skipped = np.cumsum(np.where(gaps > BREAK, gaps, 0.0))
    rows = rows.assign(start=(start - skipped) / 3600, end=(end - skipped) / 3600)
    breaks = {float(rows["start"].iloc[i]): float(gaps[i] / 3600) for i in np.flatnonzero(gaps > BREAK)}
    return Schedule(rows.assign(lane=_lanes(rows["start"].to_numpy(), rows["end"].to_numpy())), breaks)


def _lanes(start: Array, end: Array) -> list[int]:
    """For intervals in the order of their starts the lowest lane that is free."""
    free_from: list[float] = []
    lanes = []
    for begins, ends in zip(start, end, strict=True):
        lane = next((i for i, free in enumerate(free_from) if free <= begins), len(free_from))
        free_from[lane : lane + 1] = [float(ends)]
        lanes.append(lane)
    return lanes


def progress(s: Summary) -> pd.DataFrame:
    """What the search had reached after each trial: one row a searched trial that ended, in the order of their ends.

    Returns: `trial_id`; `number` from 1; `hours` on the clock of `schedule`, NaN where a time is missing; `value`, the
        best objective so far or, of several objectives, the hypervolume of the front so far, see `volume_of`, NaN until
        a trial may answer; and `improved`, whether this trial changed it.
    """
    ended = s.trials[(s.trials["baseline"] == "") & s.trials["state"].isin(FINAL_STATES)]
    order = pd.to_datetime(ended["ended"].replace("", None), utc=True, errors="coerce", format="ISO8601")
    ended = ended.loc[order.sort_values(kind="stable", na_position="first").index]
    hours = schedule(s.trials).rows.drop_duplicates("trial_id").set_index("trial_id")["end"]
    costs, reference = scaled_costs(s, ended)
    costs[~ended["trial_id"].isin(s.feasible["trial_id"])] = np.nan
    values = volumes(costs, reference) if len(s.study.objectives) > 1 else _best(costs[:, 0])
    if len(s.study.objectives) == 1:
        values = values * (-1 if "max" in s.study.objectives.values() else 1)
    changed = np.isfinite(values) & (values != np.append(np.nan, values[:-1])[: len(values)])
    return pd.DataFrame(
        {
            "trial_id": ended["trial_id"].to_numpy(),
            "number": np.arange(1, len(ended) + 1),
            "hours": ended["trial_id"].map(hours).to_numpy(dtype=float),
            "value": values,
            "improved": changed,
        }
    )


def reference_point(s: Summary) -> dict[str, float]:
    """Objective → what hypervolume is measured from, in the objective's own unit: chance accuracy, 0 % where 100 % is
    the best, else the worst trial that may answer."""
    return {name: worst(s, s.feasible, name, direction) for name, direction in s.study.objectives.items()}


def scaled_costs(s: Summary, rows: pd.DataFrame) -> tuple[Array, Array]:
    """Objectives of trials as costs, (trials, objectives), and those of `reference_point`, (objectives,). Of several
    each is on the scale of its axis, so that halving a file counts the same wherever it happens."""
    corner = reference_point(s) if len(s.study.objectives) > 1 else {}
    columns, reference = [], []
    for name, direction in s.study.objectives.items():
        column = s.column(name) if corner else Column(name)
        columns.append(_cost(column, direction, rows[name].to_numpy(dtype=float)))
        reference.append(float(_cost(column, direction, np.array([corner.get(name, np.nan)]))[0]))
    return np.stack(columns, axis=1), np.array(reference)


def _cost(column: Column, direction: str, values: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        if column.scale == "complement":
            distance = np.log10(np.maximum(FULL - values, CLOSEST))
            return distance if direction == "max" else -distance
        numbers = np.log10(values) if column.scale == "log" else values
    return -numbers if direction == "max" else numbers


def _best(costs: Array) -> Array:
    """The least cost so far; NaN before the first."""
    least = np.fmin.accumulate(costs)
    return np.asarray(least)


def volumes(costs: Array, reference: Array) -> Array:
    """Hypervolume of the front after each row.

    Args:
        costs: (trials, objectives), smaller is better; a row that is not finite adds nothing.
        reference: (objectives,).
    Returns: (trials,), NaN before the first finite row.
    """
    front = np.empty((0, costs.shape[1]))
    volume, result = np.nan, np.full(len(costs), np.nan)
    for i, row in enumerate(costs):
        if np.isfinite(row).all() and not (front <= row).all(axis=1).any():
            front = np.vstack([front[~(row <= front).all(axis=1)], row])
            volume = float(moocore.hypervolume(front, ref=reference))
        result[i] = volume
    return result

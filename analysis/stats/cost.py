"""What a study took: how long it ran, and the time of its trials on processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.summary import Summary, numeric
from study.errors import UserError
from study.records.columns import TRIAL_COLUMNS
from study.records.paths import CONFIRM, TRIALS
from study.records.tables import read_frame

KINDS = ("searched trials", "baselines", "fresh seeds")
LONGEST = 1e11
"""Seconds of a training, or its threads, that a damaged table cannot exceed; the sums stay finite."""


def retrained(s: Summary) -> pd.DataFrame:
    """Trainings with fresh seeds, one row each; none where the study has no table of them, or a damaged one."""
    try:
        rows = read_frame(s.study.folder / CONFIRM / TRIALS, TRIAL_COLUMNS)
    except UserError:
        return s.trials.iloc[:0]
    return numeric(rows, [*s.trials.columns], {})


def cost(s: Summary) -> pd.DataFrame:
    """One row a kind of training: `kind`, `trainings`, `seconds` in all, `cpu_hours` and `gpu_hours`.

    A training's CPU time is its seconds times the threads that it had, or those of the settings where the table does
    not say; both are NaN for trials that one process trained together, whose seconds overlap. A training without a time
    counts with none, a network from the cache with the time it once took.
    """
    settings: dict[str, Any] = s.study.meta.get("settings", {})
    baselines = s.trials["baseline"] != ""
    ended = s.trials["state"] != "running"
    groups = (s.trials[~baselines & ended], s.trials[baselines & ended], retrained(s))
    gpus, rows = _number(settings, "gpus_per_trial", 0.0), []
    for kind, group in zip(KINDS, groups, strict=True):
        seconds = group["seconds"].fillna(0.0).clip(0.0, LONGEST)
        threads = (
            group.reindex(columns=["threads"])["threads"]
            .fillna(_number(settings, "cpus_per_trial", 1.0))
            .clip(0.0, LONGEST)
        )
        packed = kind != "fresh seeds" and _number(settings, "pack", 1.0) > 1
        if len(group):
            rows.append(
                {
                    "kind": kind,
                    "trainings": len(group),
                    "seconds": float(seconds.sum()),
                    "cpu_hours": np.nan if packed else float((seconds * threads).sum() / 3600),
                    "gpu_hours": np.nan if packed else float(seconds.sum() * gpus / 3600),
                }
            )
    return pd.DataFrame(rows, columns=["kind", "trainings", "seconds", "cpu_hours", "gpu_hours"])


def _number(settings: dict[str, Any], name: str, default: float) -> float:
    value = settings.get(name)
    return float(value) if isinstance(value, int | float) else default

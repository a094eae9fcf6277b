"""Recorded random searches, as tables that `search_replay.py` replays: their configurations, learning curves and ends.

A table is a CSV file below two comment lines: where it comes from, and as JSON its objectives, its search space and the
corner of its hypervolume. It has one row a trial, with METRIC@EPOCH columns of what epochs report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution

from study.errors import UserError
from study.records import columns, study_folder
from study.records.search_domains import domain_from_json
from study.tuning.scheduler import measured_objectives
from study.tuning.tune_domains import to_optuna

FOLDER = Path(__file__).parent / "recorded"


def record(folder: Path, reference: Mapping[str, float]) -> tuple[str, dict[str, Any], pd.DataFrame]:
    """The searched trials of a study: hyperparameters, `state`, objectives at the end, and METRIC@EPOCH columns.

    Args:
        reference: objective → a value of no use, the corner of the hypervolume.
    Returns: where it comes from, in one line; what `Recorded` needs to know of its search; and the table.
    Raises:
        UserError: no such study, or one whose trials a scheduler stopped, so that their ends are not known.
    """
    study = study_folder.load(folder)
    objectives, space = study.objectives, study.meta["space"]
    if set(reference) != set(objectives):
        raise UserError(f"--reference must name a value of each of {', '.join(objectives)}")
    trials = study.trials[(study.trials["baseline"] == "") & study.trials["state"].isin(columns.FINAL_STATES)]
    if (trials["state"] == "pruned").any():
        raise UserError(f"{folder}: trials were stopped early; record a study run with --scheduler none")
    curves = study.history.pivot(index="trial_id", columns="epoch", values=list(measured_objectives(objectives)))
    curves.columns = pd.Index([f"{metric}@{epoch}" for metric, epoch in curves.columns])
    ends = [metric for metric in objectives if metric not in space]
    first = trials.reindex(columns=["trial_id", "state", *space, *ends])
    table = first.join(curves, on="trial_id").dropna(axis=1, how="all")
    commit = str(study.meta.get("git_commit", ""))[:12]
    note = f"{len(table)} trials of `{study.meta.get('command', folder)}` at commit {commit}"
    return note, {"objectives": objectives, "space": space, "reference": dict(reference)}, table


def write(path: Path, note: str, search: Mapping[str, Any], table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table.to_csv(index=False, float_format="%.6g")
    study_folder.write_text(path, f"# {note}\n# {json.dumps(search)}\n{rows}")


@dataclass(frozen=True)
class Recorded:
    """Recorded trials.

    Attributes:
        note: where they come from.
        objectives: metric → "max" or "min", at the end of a trial.
        measured: what epochs report in their place; see `measured_objectives`.
        reference: objective → a value of no use, the corner of the hypervolume.
        space: hyperparameter → where it was searched.
        configurations: of each trial.
        places: in the unit cube of the hyperparameters, (trials, hyperparameters).
        curves: measured objectives after each epoch, (trials, epochs, objectives); not a number where none is reported.
        ends: objectives at the end, (trials, objectives); not a number for a trial that failed.
        lengths: epochs that each trial ran, (trials,).
    """

    note: str
    objectives: Mapping[str, str]
    measured: Mapping[str, str]
    reference: Mapping[str, float]
    space: Mapping[str, BaseDistribution]
    configurations: Sequence[Mapping[str, Any]]
    places: np.ndarray
    curves: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Raises: UserError, where there is no table."""
        if not path.is_file():
            raise UserError(f"{path}: not there; write it with --record results/NAME")
        with path.open(encoding="utf-8") as file:
            note, search = (file.readline().removeprefix("# ").rstrip() for _ in range(2))
        return cls.of(note, json.loads(search), pd.read_csv(path, comment="#"))

    @classmethod
    def of(cls, note: str, search: Mapping[str, Any], table: pd.DataFrame) -> Recorded:
        """From what `record` returns."""
        domains = {name: domain_from_json(domain) for name, domain in search["space"].items()}
        space = {name: to_optuna(domain) for name, domain in domains.items()}
        measured = measured_objectives(search["objectives"])
        epochs = max(int(column.split("@")[1]) for column in table.columns if "@" in column)
        cells = table.reindex(columns=[f"{metric}@{e + 1}" for e in range(epochs) for metric in measured])
        curves = cells.to_numpy(dtype=float).reshape(len(table), epochs, len(measured))
        reported = np.isfinite(curves).any(axis=2)
        lengths = epochs - reported[:, ::-1].argmax(axis=1)
        ends = table[list(search["objectives"])].to_numpy(dtype=float, copy=True)
        ends[(table["state"] != "complete").to_numpy()] = np.nan
        rows = [{name: domain.cast(row[name]) for name, domain in domains.items()} for row in table.to_dict("records")]
        places = np.array([place(row, space) for row in rows])
        return cls(
            note, search["objectives"], measured, search["reference"], space, rows, places, curves, ends, lengths
        )

    @property
    def epochs(self) -> int:
        """That a complete trial takes."""
        return self.curves.shape[1]

    def volume(self, ends: Sequence[np.ndarray] | np.ndarray) -> float:
        """Hypervolume of ends, each (objectives,), above the reference; sizes count by their logarithm. With one
        objective it is the distance of the best value from the reference."""
        if not len(ends):
            return 0.0
        rows = np.array([*ends, [self.reference[metric] for metric in self.objectives]])
        for i, metric in enumerate(self.objectives):
            if columns.column(metric).scale == "log":
                rows[:, i] = np.log10(rows[:, i])
        maximise = [direction == "max" for direction in self.objectives.values()]
        return float(moocore.hypervolume(rows[:-1], ref=rows[-1], maximise=maximise))

    def best(self) -> float:
        """Hypervolume of all of them."""
        return self.volume(self.ends[np.isfinite(self.ends).all(axis=1)])


def place(values: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> np.ndarray:
    """Where a configuration lies in the unit cube of its space, logarithmic where that is, (hyperparameters,)."""
    coordinates = []
    for name, domain in space.items():
        assert isinstance(domain, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution), name
        low, high, value = domain.low, domain.high, values[name]
        if domain.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        coordinates.append((value - low) / (high - low))
    return np.array(coordinates)

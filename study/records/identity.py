"""Which trial a row or a file belongs to.

An id is given to one configuration and never again. What was tested, and what is stored, also carries the hash of its
configuration, so that nothing passes to another trial where rows of `trials.csv` were lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from study.errors import UserError
from study.records.columns import CONFIRMED_COLUMNS, HISTORY_COLUMNS, TRIAL_COLUMNS
from study.records.paths import (
    CHECKPOINTS,
    CONFIRM,
    CONFIRMED,
    HISTORY,
    JOURNAL,
    MODELS,
    RAY,
    TRACES,
    TRIAL_ID,
    TRIALS,
    trial_folder,
)
from study.records.tables import read_frame, recorded_study

Evidence = dict[str, Path]
"""Trial id → a file that has something of that trial."""


def configuration_hash(
    kind: str, settings: Mapping[str, object], baseline: str, values: Mapping[str, object], seed: int
) -> str:
    """Hash of all that makes a trial what it is: 16 hexadecimal digits.

    Args:
        settings: those that define the study, as JSON values; one that is not given counts as if it did not exist.
        values: searched, or those of a baseline.
        seed: with which it was trained.
    """
    given = {name: value for name, value in settings.items() if value is not None and name != "seed"}
    numbers = {name: float(v) if isinstance(v, int | float) else v for name, v in values.items()}
    text = json.dumps([kind, given, baseline, numbers, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ids_in_tables(history: pd.DataFrame, confirmed: pd.DataFrame, folder: Path) -> Evidence:
    """Ids of trials that other tables than `trials.csv` name."""
    tables = ((HISTORY, history), (CONFIRMED, confirmed))
    return {str(i): folder / name for name, table in tables for i in table["trial_id"].unique()}


def ids_elsewhere(folder: Path) -> Evidence:
    """Ids of all trials of which something is in a study folder, `trials.csv` left aside.

    Raises:
        UserError: a table is damaged.
    """
    history = read_frame(folder / HISTORY, HISTORY_COLUMNS)
    confirmed = read_frame(folder / CONFIRMED, CONFIRMED_COLUMNS)
    retrained = read_frame(folder / CONFIRM / TRIALS, TRIAL_COLUMNS)["baseline"].unique()
    found = {name: folder / CONFIRM / TRIALS for name in retrained}
    found |= dict(_journalled(folder / JOURNAL))
    names = _baselines(folder)
    for part in (CHECKPOINTS, TRACES, MODELS):
        for path in sorted((folder / part).glob("[!.]*")):
            trial_id = names.get(path.stem, path.stem)
            if TRIAL_ID.fullmatch(trial_id) or path.stem in names:
                found[trial_id] = path
    return found | ids_in_tables(history, confirmed, folder)


def check_none_lost(folder: Path, known: Iterable[str], elsewhere: Evidence) -> None:
    """Refuse a `trials.csv` that lacks a trial of which other files have something.

    Its row is written before anything else of a trial, so no interruption leaves such a study.

    Raises:
        UserError: with the file and the trial.
    """
    have = set(known)
    for trial_id, path in elsewhere.items():
        if trial_id not in have:
            raise UserError(
                f"{path}: has something of trial {trial_id}, whose row {folder / TRIALS} has lost; restore that table "
                f"from a copy, or remove what is left of {trial_id}"
            )


def highest_number(folder: Path, ids: Iterable[str]) -> int:
    """The highest number of a trial that has ever been given out here; 0 before the first."""
    started = [path.name for path in (folder / RAY).glob("t*")]  # Tune's folders, one a trial
    return max((int(i[1:]) for i in (*ids, *started) if TRIAL_ID.fullmatch(i)), default=0)


def check_same_values(path: Path, rows: pd.DataFrame, trials: pd.DataFrame, searched: Iterable[str]) -> None:
    """Refuse tested rows whose hyperparameters are not those of the trial of that name.

    Args:
        searched: names of the hyperparameters.
    Raises:
        UserError: with the first.
    """
    of_trial = trials.drop_duplicates("trial_id").set_index("trial_id")
    for name in searched:
        if name not in rows or name not in of_trial:
            continue
        tested, own = rows[name], rows["trial_id"].map(of_trial[name])
        numbers = pd.to_numeric(tested, errors="coerce"), pd.to_numeric(own, errors="coerce")
        same = (tested.astype(str) == own.astype(str)) | np.isclose(*numbers, rtol=1e-12, atol=0) | tested.isna()
        if not same.all():
            raise UserError(
                f"{path}: trial {rows['trial_id'][~same].iloc[0]!r} has another {name} than in {TRIALS}; restore both "
                "from one copy"
            )


def _journalled(path: Path) -> Iterator[tuple[str, Path]]:
    """Ids in Optuna's journal, which is written again from `trials.csv`, so it may be cut anywhere."""
    try:
        text = path.read_bytes()
    except OSError:
        return
    for match in re.findall(rb'"trial_id": ?"(t[0-9]{1,9})"', text):
        yield match.decode(), path


def _baselines(folder: Path) -> dict[str, str]:
    """Name of the file → name, of each baseline that `study.json` has."""
    recorded = recorded_study(folder)
    baselines = recorded.get("baselines")
    names = [*(baselines if isinstance(baselines, dict) else ()), recorded.get("shared_baseline")]
    return {file: name for name in names if isinstance(name, str) and name for file in (name, trial_folder(name))}

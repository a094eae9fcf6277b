"""What the page shows of a single trial, when a reader opens it: curve, test results, files and commands."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.summary import Summary, history_of
from study.records.paths import MODELS, TRACES

MOST_VALUES = 20_000
"""Epochs of all trials together that a page has; of more an even sample of each trial's, with its last."""
SUFFIXES = (".safetensors", ".codebook", ".layers.csv")
FEWEST_VALUES = 8
"""Epochs of a trial, below which its curve says nothing: then most trials of the study have none in the page."""


def trial_details(s: Summary) -> dict[str, Any]:
    """By trial id what a page has of single trials besides the table of all trials, as JSON values.

    Returns: `curves`: two lists, epochs and validation accuracies (%); the epochs are [] where they are 1, 2, …;
        `tests`: sentences; `files`: in the study folder. `reproduce` and `export` are commands that a trial's id ends,
        `column` is the heading of a curve's values, and `partial` says that many trials have no curve here.
    """
    folder = shlex.quote(str(s.study.folder))
    return {
        "curves": curves(s),
        "tests": _tests(s),
        "files": _files(s),
        "reproduce": f"python -m study.reproduce {folder}",
        "export": f"python -m study.export {folder} --trial",
        "column": s.column(ACCURACY).heading,
        "partial": len(s.trials) * FEWEST_VALUES > MOST_VALUES,
    }


def curves(s: Summary, most: int = MOST_VALUES) -> dict[str, list[list[float]]]:
    """Trial id → its learning curve, see `trial_details`. Of a study with more trials than `most` has room for, those
    of the front and of the baselines have one."""
    history = history_of(s.study)
    history = history[history[ACCURACY].notna()].sort_values(["trial_id", "epoch"], kind="stable")
    ids = list(dict.fromkeys(history["trial_id"]))
    if len(ids) * FEWEST_VALUES > most:
        wanted = {*s.front["trial_id"], *s.trials.loc[s.trials["baseline"] != "", "trial_id"]}
        ids = [i for i in ids if i in wanted][: most // FEWEST_VALUES]
        history = history[history["trial_id"].isin(ids)]
    each = most if len(history) <= most else max(2, most // max(1, len(ids)))
    return {str(trial_id): _curve(rows, each) for trial_id, rows in history.groupby("trial_id", sort=False)}


def _curve(rows: pd.DataFrame, most: int) -> list[list[float]]:
    if len(rows) > most:
        rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]
    epochs = rows["epoch"].astype(int).tolist()
    accuracies = [round(float(value), 2) for value in rows[ACCURACY]]
    return [[] if epochs == list(range(1, len(epochs) + 1)) else epochs, accuracies]


def _tests(s: Summary) -> dict[str, list[str]]:
    """Trial id → what the test part said of it."""
    sentences: dict[str, list[str]] = {}
    for row in s.tested.to_dict("records"):
        if np.isfinite(row[TEST_ACCURACY]):
            text = f"{row[TEST_ACCURACY]:.2f} % test accuracy, the network that the search found"
            sentences.setdefault(str(row["trial_id"]), []).append(text)
    for row in s.fresh.to_dict("records"):
        if np.isfinite(row[TEST_ACCURACY]):
            text = f"{row[TEST_ACCURACY]:.2f} % test accuracy, mean over {int(row['seeds'])} fresh seeds"
            sentences.setdefault(str(row["trial_id"]), []).append(text)
    return sentences


def _files(s: Summary) -> dict[str, list[str]]:
    """Trial id → files that the study folder has of it."""
    folder, files = s.study.folder, dict[str, list[str]]()
    for path in sorted((folder / MODELS).glob("[!.]*")):
        suffix = next((end for end in SUFFIXES if path.name.endswith(end)), None)
        if suffix:
            files.setdefault(path.name.removesuffix(suffix), []).append(f"{MODELS}/{path.name}")
    traces = {path.name for path in (folder / TRACES).glob("[!.]*.npz")}
    for trial_id in s.trials["trial_id"] if traces else ():
        if (name := f"{trial_id.replace(' ', '-')}.npz") in traces:
            files.setdefault(trial_id, []).append(f"{TRACES}/{name}")
    return files

"""File names of a study folder, `results/NAME/`."""

from __future__ import annotations

from pathlib import Path

STUDY = "study.json"
TRIALS = "trials.csv"
HISTORY = "history.csv"
CONFIRMED = "confirmed.csv"
JOURNAL = "optuna.journal"
MODELS = "models"
RAY = "ray"
CACHE = ".cache"
"""Next to the study folders: work that studies share."""
CONFIRM = "confirm"
REPORT = "report.html"
TRACES = "traces"


def trial_folder(trial_id: str) -> str:
    """Name of a trial, and of its folder, inside Tune's: its id without spaces."""
    return trial_id.replace(" ", "-")


def trace_of(folder: Path, trial_id: str) -> Path:
    """Where the weights of a trial, epoch by epoch, lie in a study folder, if they do; see
    `study.artifacts.weight_trace`."""
    return folder / TRACES / f"{trial_folder(trial_id)}.npz"

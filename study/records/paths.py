"""File names of a study folder, `results/NAME/`, and what names may become part of a path in it."""

from __future__ import annotations

import re
from pathlib import Path

from study.errors import UserError

STUDY = "study.json"
TRIALS = "trials.csv"
TRIAL_LOG = "trials.log"
"""While a study runs: rows of `trials.csv` that have changed since that table was written; see `trial_log`."""
HISTORY = "history.csv"
CONFIRMED = "confirmed.csv"
JOURNAL = "optuna.journal"
MODELS = "models"
SENSITIVITY = "models/sensitivity.csv"
RAY = "ray"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
LOCAL_FOLDERS = (RAY, TENSORBOARD, WANDB)
"""What Tune and trackers write, which is not copied to a bucket."""
CACHE = ".cache"
"""Next to the study folders: work that studies share."""
CONFIRM = "confirm"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"
TRACES = "traces"
FOLDERS = (MODELS, TRACES, CHECKPOINTS, CONFIRM, RAY)
"""Folders of a study, from which files are removed as well."""

LONGEST_NAME = 100
"""Letters of a name that is part of a file's name."""

TRIAL_ID = re.compile("t[0-9]{1,9}")
"""Ids that searched trials get."""


def name_problem(name: str) -> str:
    """Why a name may not be part of a file's name, or ""."""
    if not name or len(name) > LONGEST_NAME:
        return f"a name has 1 to {LONGEST_NAME} letters"
    if "/" in name or "\\" in name or name.startswith("."):
        return "a name has no / or \\, and does not begin with ."
    return "" if name.isprintable() else "a name has no control characters"


def trial_folder(trial_id: str) -> str:
    """Name of a trial, and of its folder, inside Tune's: its id without spaces.

    Raises:
        UserError: an id that would leave the folder that it is to lie in.
    """
    if problem := name_problem(trial_id):
        raise UserError(f"trial {trial_id[:LONGEST_NAME]!r}: {problem}; correct its id in {TRIALS}")
    return trial_id.replace(" ", "-")


def trace_of(folder: Path, trial_id: str) -> Path:
    """Where the weights of a trial, epoch by epoch, lie in a study folder, if they do; see
    `study.artifacts.weight_trace`."""
    return folder / TRACES / f"{trial_folder(trial_id)}.npz"


def model_of(folder: Path, trial_id: str, suffix: str = ".safetensors") -> Path:
    """Where a study keeps a network that it tested."""
    trial_folder(trial_id)  # refuses what leaves the folder
    return folder / MODELS / f"{trial_id}{suffix}"


def layers_of(folder: Path, trial_id: str) -> Path:
    """Where a study keeps what compression did to each layer of a network that it tested."""
    return model_of(folder, trial_id, ".layers.csv")


def check_folders(folder: Path) -> None:
    """Refuse a study one of whose folders is a link: what it writes and removes would be elsewhere.

    Raises:
        UserError: with the link.
    """
    for name in FOLDERS:
        if (folder / name).is_symlink():
            raise UserError(f"{folder / name}: is a link, and a study removes files there; replace it by the folder")

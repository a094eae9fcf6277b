"""What each process that Ray starts on this machine does before it is given a trial: Ray imports this module there. The
process looks for modules as the command does, and loads what trials need."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from study.tuning.ray_home import put_last

FOLDERS = "COMPRESSION_STUDY_FOLDERS"
"""The environment's name for the folders in which modules are looked for last."""
LOADS = "COMPRESSION_STUDY_LOADS"
"""And for the module that is loaded before the first trial; "" for none."""
PATIENCE = 600_000
"""Milliseconds after which a process without work ends: a trial may have to wait for data that are downloaded."""


def environment(folders: Sequence[str], loads: str) -> dict[str, str]:
    """The environment of processes that start like this.

    Args:
        folders: in which modules are looked for last.
        loads: the module that is loaded; "" for none.
    """
    root = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # A checkout that is not installed would not be found. Python's own modules must stay before site-packages.
    paths = [*found, root] if root in folders else found
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "RAY_preload_python_modules": __name__,
        "RAY_idle_worker_killing_time_threshold_ms": str(PATIENCE),
        FOLDERS: os.pathsep.join(folders),
        LOADS: loads,
    }


if FOLDERS in os.environ:
    put_last(os.environ[FOLDERS].split(os.pathsep))()
    if os.environ.get(LOADS):
        importlib.import_module(os.environ[LOADS])

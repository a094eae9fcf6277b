"""What each process that Ray starts on this machine does before it is given a trial: Ray imports this module there. The
process then looks for modules as the command does, and loads what trials need."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDERS = "COMPRESSION_STUDY_FOLDERS"
"""The environment's name for the folders in which modules are looked for last, as JSON."""
LOADS = "COMPRESSION_STUDY_LOADS"
"""And for the module that is loaded before the first trial; "" for none."""
PATIENCE = 600_000
"""Milliseconds after which a process without work ends: a trial may have to wait for data that are downloaded."""


def environment(folders: Sequence[str], loads: str) -> dict[str, str]:
    """The environment of processes that start like this.

    Args:
        folders: in which modules are looked for last, so that a file `random.py` there hides nothing.
        loads: the module that is loaded; "" for none.
    """
    here, found = Path(__file__).resolve(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [*found, str(here.parent)])),
        "RAY_preload_python_modules": here.stem,
        "RAY_idle_worker_killing_time_threshold_ms": str(PATIENCE),
        FOLDERS: json.dumps(list(folders)),
        LOADS: loads,
    }


if FOLDERS in os.environ:
    _last = json.loads(os.environ[FOLDERS])
    sys.path[:] = [path for path in sys.path if path not in _last] + _last
    if os.environ.get(LOADS):
        importlib.import_module(os.environ[LOADS])

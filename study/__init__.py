"""Hyperparameter studies of neural-network compression. README.md says what lives where.

    from study import SWS, launch

    study = launch(SWS(dataset="mnist", num_samples=16))

Folders `study` elsewhere on Python's path belong to this package too: a method of one's own needs no change here.
"""

import importlib
import os
import sys
from contextlib import suppress
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# A command, `python -m`, looks for every module in the current folder first. A file there that happens to be called
# random.py or analysis.py must not stand in for Python's or ours: the folder comes last.
with suppress(FileNotFoundError):  # the current folder may have been removed
    if sys.argv[:1] == ["-m"] and sys.path[0] == os.getcwd() and not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))

__path__ = extend_path(__path__, __name__)

# OpenMP reads them when torch is imported. By default a thread that waits for another one spins for milliseconds; where
# the machine does something else as well, as it often does, two threads then take many times as long as one. GCC's
# OpenMP spins for some 30 µs here: a thread that sleeps takes about as long to wake up.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

if TYPE_CHECKING:
    from study.errors import UserError as UserError
    from study.from_python import LaunchedStudy as LaunchedStudy
    from study.from_python import StudyKind
    from study.from_python import launch as launch

    KD: StudyKind
    SWS: StudyKind
    MAGNITUDE: StudyKind
    KD_SWS: StudyKind
    PTQ: StudyKind

_FROM_PYTHON = {"launch": "study.from_python", "LaunchedStudy": "study.from_python", "UserError": "study.errors"}
"""Name → the module that has it. They are read when they are asked for: a command loads no more than it needs."""


def __getattr__(name: str) -> Any:
    """`from study import SWS, launch`: what `_FROM_PYTHON` has, and every kind of study in capital letters."""
    if name in _FROM_PYTHON:
        return getattr(importlib.import_module(_FROM_PYTHON[name]), name)
    if name.isupper() and name.lower() in importlib.import_module("study.methods.registry").names():
        return importlib.import_module("study.from_python").StudyKind(name.lower())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    kinds = importlib.import_module("study.methods.registry").names()
    return [*globals(), *_FROM_PYTHON, *(kind.upper() for kind in kinds)]

"""A study before it runs: its data and networks, and what `study.json` records of them."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from study.data.fingerprint import fingerprint, identity
from study.data.splits import Part, Splits
from study.methods.registry import KINDS
from study.settings import OPERATIONAL, Settings, as_json
from study.tuning.space import searched

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "plotly", "scikit-learn")


def fingerprints(data: Splits, test: Part) -> dict[str, str]:
    """Part → hash of its images and labels, by which a study that continues knows its data."""
    return {**identity(data), "test": fingerprint(test)}


def study_metadata(
    settings: Any, spaces: Any, data: Splits, test: Part, described: dict[str, dict[str, Any]], argv: list[str]
) -> dict[str, Any]:
    """Everything that `study.json` holds beside its schema version."""
    few = getattr(settings, "student_examples", 0)
    return {
        "kind": settings.kind,
        "name": settings.folder.name,
        "settings": as_json(settings),
        "data": {
            "name": data.name,
            "title": data.title,
            "shape": list(data.shape),
            "classes": list(data.classes),
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(test),
            "split_seed": data.split_seed,
            "mean": list(data.mean),
            "std": list(data.std),
            "fingerprints": fingerprints(data, test),
            "note": f"Students see {few} training images of each class, the teacher all." if few else "",
        },
        "models": described,
        **searched(spaces),
        "seed": settings.seed,
        **_run(settings, argv),
        "counts_over": KINDS[settings.kind].counts_over,
    }


def continued_metadata(recorded: dict[str, Any], settings: Settings, argv: list[str]) -> dict[str, Any]:
    """What `study.json` holds once another command goes on with a study: how much of it is wanted now, and that run."""
    how = {k: v for k, v in as_json(settings).items() if k in OPERATIONAL and v is not None}
    runs = [*recorded.get("continued", []), _run(settings, argv)]
    return {**recorded, "settings": {**recorded["settings"], **how}, "continued": runs}


def _run(settings: Settings, argv: list[str]) -> dict[str, Any]:
    """One command, and what it ran with."""
    return {
        "command": "python -m study.run " + " ".join(shlex.quote(a) for a in argv[1:]),
        "versions": {"python": platform.python_version(), **installed(PACKAGES)},
        "git_commit": _commit(),
        "device": _device(settings),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Version of each of these packages that is there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _device(settings: Any) -> str:
    if settings.gpus_per_trial:
        share = f"{settings.gpus_per_trial:g} of it a trial"
        packed = f"{settings.pack} packed trials on each"
        # The nodes of a cluster may have them where the driver has none.
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
        return f"{name}, {packed if settings.pack > 1 else share}"
    return f"CPU {platform.machine()}, {settings.cpus_per_trial:g} core a trial"

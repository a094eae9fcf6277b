"""A study before it runs: its data and networks, and what `study.json` records of them."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from ray.tune.search.sample import Domain, Integer, LogUniform
from torch import nn

from study import codebook, kd, models
from study import data as datasets
from study.cache import fingerprint, identity
from study.commandline import data_folder
from study.data import Part, Splits
from study.errors import UserError
from study.settings import OPERATIONAL, Common, as_json
from study.trainables import KINDS, least_size, student_training

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "plotly", "scikit-learn")


def networks(settings: Any, spaces: Any, data: Splits) -> dict[str, dict[str, Any]]:
    """Role → name, options, parameter count, and the hash of a user's own code. Building them checks their names
    and options.

    Raises:
        UserError: one that is not built, or not over the whole range of widths that is searched.
    """
    if widths := spaces.SPACE.get("student_width"):
        for width in (widths.lower, widths.upper):
            try:
                kd.build(student_training(replace(settings, student_width=width)), data)
            except UserError as error:
                raise UserError(
                    f"--student {settings.student}: {settings.kind} searches its width from {widths.lower:g} to "
                    f"{widths.upper:g}, and at {width:g}: {error}; give one of the VGG kinds"
                ) from error
    return {role: _described(role, t, data) for role, t in KINDS[settings.kind].networks(settings).items()}


def _described(role: str, training: kd.Training, data: Splits) -> dict[str, Any]:
    model, name = _built(role, training, data), training.network
    code = {"code": models.identity(name, model)} if codebook.is_custom(name) else {}
    return {"name": name, "options": training.options, "parameters": models.parameter_count(model), **code}


def _built(role: str, training: kd.Training, data: Splits) -> nn.Module:
    try:
        return kd.build(training, data)
    except UserError as error:
        if "width" not in training.options:
            raise
        kd.build(replace(training, options={}), data)  # its own error, if the width is not to blame
        raise UserError(f"--{role}-width {training.options['width']:g}: {error}; leave it out") from error


def fingerprints(data: Splits, test: Part) -> dict[str, str]:
    """Part → hash of its images and labels, by which a study that continues knows its data."""
    return {**identity(data), "test": fingerprint(test)}


def meta(
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


def continued(recorded: dict[str, Any], settings: Common, argv: list[str]) -> dict[str, Any]:
    """What `study.json` holds once another command goes on with a study: how much of it is wanted now, and that run."""
    how = {k: v for k, v in as_json(settings).items() if k in OPERATIONAL and v is not None}
    runs = [*recorded.get("continued", []), _run(settings, argv)]
    return {**recorded, "settings": {**recorded["settings"], **how}, "continued": runs}


def _run(settings: Common, argv: list[str]) -> dict[str, Any]:
    """One command, and what it ran with."""
    return {
        "command": "python -m study.run " + " ".join(shlex.quote(a) for a in argv[1:]),
        "versions": {"python": platform.python_version(), **installed(PACKAGES)},
        "git_commit": _commit(),
        "device": _device(settings),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def searched(spaces: Any) -> dict[str, dict[str, Any]]:
    """What `search_spaces` says of a kind of study, as JSON values."""
    return {
        "objectives": dict(spaces.OBJECTIVES),
        "space": {name: _domain(domain) for name, domain in spaces.SPACE.items()},
        "baselines": dict(spaces.BASELINES),
    }


def _domain(domain: Domain) -> dict[str, Any]:
    integer = isinstance(domain, Integer)
    high = domain.upper - 1 if integer else domain.upper  # type: ignore[attr-defined]
    log = isinstance(domain.get_sampler(), LogUniform)
    return {"type": "int" if integer else "float", "low": domain.lower, "high": high, "log": log}  # type: ignore[attr-defined]


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


def last_error(trial: Any) -> str:
    """One line from the error that ended a Tune trial: its last line is what was raised."""
    path = trial.error_file  # where Tune has it first; the copy in the study folder comes later
    text = Path(path).read_text(errors="replace") if path and Path(path).exists() else ""
    if "ActorDiedError" in text.rpartition("Failure #")[2]:
        return "the trial's process died, as it does when the machine runs out of memory or someone kills it"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "the trial's process died"


def load_data(settings: Common) -> tuple[Splits, Part]:
    """The study's data set: what the search may see, and the test part for confirmation alone."""
    folder = data_folder(settings.dataset, settings.data_dir)
    return datasets.load(settings.dataset, folder, split_seed=settings.seed, size=least_size(settings))

"""A study before it runs: its data and networks, and what `study.json` records of them."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from study.data.fingerprint import fingerprint, identity
from study.data.repeated_images import repeated_images
from study.data.splits import Part, Splits
from study.errors import printable
from study.methods import registry
from study.records.schema import Meta, column_as_json
from study.settings import Settings, as_json
from study.tuning.space import SearchSpace

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "plotly", "scikit-learn")


def fingerprints(data: Splits, test: Part) -> dict[str, str]:
    """Part → hash of its images and labels, by which a study that continues knows its data; and that of a user's code
    that gave them, under "code"."""
    code = {"code": data.code} if data.code else {}
    return {**identity(data), "test": fingerprint(test), **code}


def largest_class(part: Part) -> int:
    """Images of the most frequent class: what a network gets right that always answers the same."""
    return int(torch.bincount(part.labels).max()) if len(part) else 0


def study_metadata(
    settings: Settings, space: SearchSpace, data: Splits, test: Part, networks: dict[str, Meta], argv: list[str]
) -> Meta:
    """Everything that `study.json` holds of a new study; see `study.records.schema`."""
    method = registry.method(settings.kind)
    return {
        "kind": settings.kind,
        "name": settings.folder.name,
        **method.facts(settings),
        "settings": as_json(settings),
        "data": {
            "name": data.name,
            "title": data.title,
            "shape": list(data.shape),
            "classes": list(data.classes),
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(test),
            "largest_class": {"validation": largest_class(data.validation), "test": largest_class(test)},
            "split_seed": data.split_seed,
            "mean": list(data.mean),
            "std": list(data.std),
            "fingerprints": fingerprints(data, test),
            "repeated": repeated_images(data, test),
            "links_left_out": data.links_left_out,
            "damaged_left_out": data.damaged_left_out,
            "note": method.data_note(settings),
        },
        "models": networks,
        **space.as_json(),
        "columns": {name: column_as_json(name) for name in (*space.domains, *space.objectives)},
        "seed": settings.seed,
        **_run(settings, argv),
    }


def changed_roles(recorded: Meta, networks: dict[str, Meta], fact: str) -> list[str]:
    """Roles of networks of which a fact is not what `study.json` records; one that either does not know is left out."""
    known = recorded.get("models", {})
    pairs = ((role, known.get(role, {}).get(fact), network.get(fact)) for role, network in networks.items())
    return [role for role, before, now in pairs if before and now and before != now]


def data_warnings(meta: Meta) -> list[str]:
    """What whoever starts a study should know of its data, from its `study.json`: a line each."""
    data, settings = meta["data"], meta["settings"]
    lines = []
    repeated = {part: count for part, count in data.get("repeated", {}).items() if count}
    if repeated:
        counts = ", ".join(f"{count:,} of {data[part]:,} {part} images" for part, count in repeated.items())
        lines.append(f"Warning: also in an earlier part of the data, pixel for pixel: {counts}")
    if data.get("links_left_out"):
        lines.append(f"Links left out, since they lead to what is read anyway or was hidden: {data['links_left_out']}")
    if data.get("damaged_left_out"):
        lines.append(f"Warning: damaged images left out (--skip-damaged): {data['damaged_left_out']:,}")
    for name, whose in (("teacher_checkpoint", "teacher"), ("checkpoint", "network"), ("weights", "network")):
        if settings.get(name):
            lines.append(
                f"Warning: the {whose} of --{name.replace('_', '-')} may have seen the validation or test images when "
                "it was trained"
            )
    return lines


def continued_metadata(recorded: Meta, settings: Settings, argv: list[str]) -> Meta:
    """What `study.json` holds once another command goes on with a study: how much of it is wanted now, and that run."""
    how = {k: v for k, v in settings.operational().items() if v is not None}
    runs = [*recorded.get("continued", []), _run(settings, argv)]
    return {**recorded, "settings": {**recorded["settings"], **how}, "continued": runs}


def _run(settings: Settings, argv: list[str]) -> Meta:
    """One command, and what it ran with."""
    return {
        "command": printable("python -m study.run " + " ".join(shlex.quote(a) for a in argv[1:])),
        "versions": {"python": platform.python_version(), **installed(PACKAGES)},
        "git_commit": _commit(),
        "device": _device(settings),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Version of each of these packages that is there."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _device(settings: Settings) -> str:
    if settings.resources.gpus_per_trial:
        share = f"{settings.resources.gpus_per_trial:g} of it a trial"
        packed = f"{settings.resources.pack} packed trials on each"
        # The nodes of a cluster may have them where the driver has none.
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
        return f"{name}, {packed if settings.resources.pack > 1 else share}"
    return f"CPU {platform.machine()}, {settings.resources.cpus_per_trial:g} core a trial"

"""What a user can set, as typed dataclasses: the command line, `study.json` and the trials all read these.

A field that is None on the command line depends on the data set; `resolve` fills it from `DEFAULTS`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from study.errors import UserError

Searcher = Literal["tpe", "nsga2", "gp", "random"]
Scheduler = Literal["asha", "none"]
Augment = Literal["none", "flip", "shift", "crop"]
Precision = Literal["float32", "bfloat16"]

OPERATIONAL = frozenset(
    "num_samples name results_dir data_dir max_concurrent cpus_per_trial gpus_per_trial pack memory_per_trial "
    "trial_timeout max_failures warm_start confirm seeds address dashboard prometheus verbose dry_run".split()
)
"""Settings that may differ between two commands on one study: they say how much and where, not what."""

UNPACKED = ("merge", "layer_scales", "retrain_epochs")
"""What soft weight-sharing leaves out while it is packed: these would give trials different programs."""

MOST_SEED = 2**32 - 1
"""Largest seed: it, and those that follow from it, fit every generator."""
OLDER_PRECISION = "float32"
"""Of studies that were begun before there was a choice."""
LONGEST = 10**9
"""Seconds that a trial may go without an epoch at most, 31 years: the watch takes no more than ten times that."""

WIDEST = 16
"""Largest width: a VGG's layer has 8,192 channels then, and 2.4 GB of weights."""

WITH_WIDTH = frozenset("minivgg vgg11 vgg13 vgg16 vgg19".split())
"""Networks of `study.models` whose channels a width multiplies; a default other than 1 is meant for them alone."""

SettingsT = TypeVar("SettingsT", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Settings of every kind of study."""

    kind: ClassVar[str]
    DEFAULTS: ClassVar[dict[str, dict[str, Any]]]
    pack = 1  # not a setting, but of `SWSSettings`

    num_samples: int = 64
    """Trials that the study has when the command ends, baselines not counted. Run again to continue or to add."""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, or folder (your own images, see --data-dir)."""
    data_dir: Path | None = None
    """Where the data set lies, or is downloaded to; with --dataset folder, DIR/train/CLASS/* and DIR/test/CLASS/*.
    Default: ~/.cache/compression-study for what can be downloaded; digits needs none."""
    name: str | None = None
    """Name of the study, and of its folder under --results-dir. Default: the kind and the data set, as in kd-digits."""
    searcher: Searcher = "tpe"
    """Optuna's sampler: tpe, nsga2, gp (Gaussian process) or random."""
    seed: int = 0
    """Seed of the split, the search, and every network."""
    precision: Precision | None = None
    """In which networks with convolutions compute their layers while they train (on a GPU, float32 convolutions run as
    TF32); others train in float32. Default: bfloat16 where the processor has it (GPUs since Ampere, CPUs with
    AVX512_BF16 or AMX); that of the study where it was begun before."""
    max_concurrent: int | None = None
    """Trials at one time. Default: as many as the CPUs, or GPUs, hold."""
    cpus_per_trial: float = 1.0
    """CPU cores, and threads, of each trial."""
    gpus_per_trial: float | None = None
    """GPUs of each trial; a fraction shares one. Default: 0.25 where there is a GPU, otherwise 0."""
    memory_per_trial: float | None = None
    """Gigabytes of main memory of each trial; one that asks for more fails. Default: no limit."""
    trial_timeout: float | None = None
    """Seconds a trial may go without ending an epoch (or, before the first one, without ending it); then its process is
    taken for hung and ended. Default: no limit."""
    max_failures: int = 2
    """Times that a trial whose process fails is tried again, from its last epoch, before it counts as failed."""
    min_accuracy: float | None = None
    """Validation accuracy (%) below which a trial is of no use: a constraint for the searcher, and the front has none
    below it. Default: none."""
    warm_start: Path | None = None
    """Folder of another study, whose front is tried first. Default: none."""
    confirm: int = 0
    """After the search, retrain up to this many members of the front (the best trials where accuracy is the only
    objective), and the baselines, with --seeds fresh seeds. Default: 0; the front is then tested as it was found."""
    seeds: int = 5
    """With --confirm: fresh seeds."""
    address: str | None = None
    """Address of a running Ray cluster to join, or "auto". Default: this machine alone."""
    results_dir: Path = Path("results")
    """Folder that holds the study folders."""
    dashboard: bool = True
    """Start the Ray dashboard on 127.0.0.1 and print its address."""
    prometheus: bool = False
    """Print where Prometheus finds the study's metrics."""
    verbose: bool = False
    """Show Ray's own messages."""
    dry_run: bool = False
    """Print what would run and what it would cost (steps are timed), then stop."""

    @property
    def folder(self) -> Path:
        return self.results_dir / (self.name or f"{self.kind}-{self.dataset}")

    @property
    def threads(self) -> int:
        """CPU threads of each trial."""
        return max(1, int(self.cpus_per_trial))

    def defining(self) -> dict[str, Any]:
        """The settings that make this study what it is, as JSON values."""
        return {k: v for k, v in as_json(self).items() if k not in OPERATIONAL}


def resolve(settings: SettingsT) -> SettingsT:
    """Fill what depends on the data set, and refuse values that cannot be meant.

    Raises:
        UserError: one line that names the flag.
    """
    defaults = settings.DEFAULTS[""] | settings.DEFAULTS.get(settings.dataset, {})
    filled = {k: v for k, v in defaults.items() if getattr(settings, k) is None}
    for role in ("teacher", "student"):
        if f"{role}_width" in filled and getattr(settings, role) not in WITH_WIDTH:
            filled[f"{role}_width"] = 1.0
    settings = dataclasses.replace(
        settings, **filled, name=settings.folder.name if not settings.name else settings.name
    )
    if checkpoint := getattr(settings, "teacher_checkpoint", None):  # study.json is read from other folders, too
        settings = dataclasses.replace(settings, teacher_checkpoint=_resolved(checkpoint))  # type: ignore[call-arg]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", settings.name or ""):
        raise UserError(
            f"--name {settings.name!r}: use letters, digits, '.', '_' and '-', and begin with a letter or digit"
        )
    _at_least(settings, 1, "num_samples epochs cluster_epochs batch_size teacher_epochs max_concurrent seeds pack")
    _at_least(
        settings,
        0,
        "seed student_examples pretrain_epochs retrain_epochs codebook_epochs gpus_per_trial weight_decay "
        "pi_zero_strength merge max_failures confirm",
    )
    _at_most(settings, MOST_SEED, "seed")
    _at_most(settings, LONGEST, "trial_timeout")
    _above_zero(
        settings,
        "cpus_per_trial memory_per_trial trial_timeout "
        "learning_rate weight_rate codebook_rate precision_rate sigma temperature teacher_width "
        "student_width network_width",
    )
    _at_most(settings, WIDEST, "teacher_width student_width network_width")
    _share(settings, "anneal alpha")
    for name in (*UNPACKED, "trial_timeout", "memory_per_trial") if settings.pack > 1 else ():
        if getattr(settings, name):
            flag = name.replace("_", "-")
            raise UserError(f"--pack {settings.pack}: does not go with --{flag}; leave out one of them")
    if settings.min_accuracy is not None and not 0 <= settings.min_accuracy < 100:
        raise UserError(f"--min-accuracy {settings.min_accuracy}: it is a percentage; give 0 or more and below 100")
    return settings


def _at_least(settings: Settings, least: float, names: str) -> None:
    for name in names.split():
        value = getattr(settings, name, None)
        if value is not None and not least <= value < float("inf"):
            wanted = "a finite number" if value == float("inf") else f"{least} or more"
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")


def _at_most(settings: Settings, most: float, names: str) -> None:
    for name in names.split():
        value = getattr(settings, name, None)
        if value is not None and value > most:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {most} or less")


def _share(settings: Settings, names: str) -> None:
    for name in names.split():
        value = getattr(settings, name, None)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"--{name} {value}: must be within 0 and 1")


def _above_zero(settings: Settings, names: str) -> None:
    for name in names.split():
        value = getattr(settings, name, None)
        if value is not None and not 0 < value < float("inf"):
            wanted = "above 0" if value <= 0 else "a finite number"
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")


def as_json(settings: Settings) -> dict[str, Any]:
    """Every setting as a JSON value."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if values["data_dir"]:  # study.json is read from other folders, too
        values["data_dir"] = _resolved(values["data_dir"])
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def contradiction(settings: Settings, recorded: dict[str, Any]) -> str:
    """How these settings differ from those a study was begun with: `--epochs 40 (the study has 30)`, or ""."""
    recorded = {"precision": OLDER_PRECISION, **recorded}
    now, had = settings.defining(), dict(recorded)
    if path := had.get("teacher_checkpoint"):
        had["teacher_checkpoint"] = str(_resolved(Path(path)))  # older studies have it as it was given
    return ", ".join(
        f"--{k.replace('_', '-')} {v} (the study has {recorded.get(k)})" for k, v in now.items() if had.get(k) != v
    )


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()

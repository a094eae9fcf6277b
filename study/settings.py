"""What a user can set, as typed dataclasses: the command line, `study.json` and the trials all read these.

The groups `Budget`, `Files`, `Resources`, `Watching` and `Measuring` say how much is done, where, and what is looked
at. They may differ between two commands on one study; everything else makes the study what it is. A field that is None
on the command line depends on the data set or the machine; `resolve` fills what `DEFAULTS` has for the data set.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import tyro

from study.errors import UserError
from study.normalisation import parse as parse_normalisation
from study.path_arguments import LONGEST_NAME, Folder
from study.records.search_domains import Value
from study.setting_bounds import Above, AtLeast, Between, Bound, Percentage, Within

Searcher = Literal["tpe", "nsga2", "gp", "random"]
Scheduler = Literal["asha", "none"]
Augment = Literal["none", "flip", "shift1", "shift", "crop", "resized-crop", "resized-crop-jitter"]
Precision = Literal["float32", "bfloat16"]
Values = Mapping[str, Value]

MAX_SEED = 2**32 - 1
"""Largest seed: it, and those that follow from it, fit every generator."""
OLDER_PRECISION = "float32"
"""Of studies that were started before there was a choice."""
_OLDER: dict[str, Value] = {"precision": OLDER_PRECISION, "skip_damaged": False}
"""What was so in studies that do not record it."""
MAX_TRIAL_TIMEOUT = 10**9
"""Seconds that a trial may go without an epoch at most, 31 years: the watch takes no more than ten times that."""

MAX_WIDTH = 16
"""Largest width: a VGG's layer has 8,192 channels then, and 2.4 GB of weights."""

CHECKPOINTS = ("checkpoint", "teacher_checkpoint")
"""Settings that are files of trained networks."""

WITH_WIDTH = frozenset("minivgg vgg11 vgg13 vgg16 vgg19".split())
"""Networks of `study.models` whose channels a width multiplies; a default other than 1 is meant for them alone."""


Width = Annotated[float, Above(0, MAX_WIDTH)]
Rate = Annotated[float, Above(0)]
Epochs = Annotated[int, AtLeast(1)]
Alpha = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class Budget:
    """How much is tried. May differ between two commands on one study."""

    num_samples: Annotated[int, AtLeast(1)] = 64
    """Trials that the study has when the command ends, baselines not counted. Run again to continue or to add."""
    confirm: Annotated[int, AtLeast(0)] = 0
    """After the search, retrain up to this many members of the front (the best trials where accuracy is the only
    objective), and the baselines, with --seeds fresh seeds. Default: 0; the front is then tested as it was found."""
    seeds: Annotated[int, AtLeast(1)] = 5
    """With --confirm: fresh seeds."""
    warm_start: Folder | None = None
    """Folder of another study, whose front is tried first. Default: none."""
    trial_timeout: Annotated[float | None, Above(0, MAX_TRIAL_TIMEOUT)] = None
    """Seconds that an epoch may take, the start before the first one included. After that the process counts as hung:
    it is ended, and the trial is tried again. Default: no limit."""
    max_failures: Annotated[int, AtLeast(0)] = 2
    """Times that a trial whose process fails is tried again, from its last epoch, before it counts as failed."""
    dry_run: bool = False
    """Print what would run and what it would cost (steps are timed), then stop."""


@dataclass(frozen=True)
class Search:
    """What is searched for, and how. Fixed for a study."""

    searcher: Searcher = "tpe"
    """Optuna's sampler: tpe, nsga2, gp (Gaussian process) or random."""
    scheduler: Scheduler | None = None
    """asha stops trials that fall behind (see study.tuning.halving), in validation accuracy or, with several
    objectives, by non-dominated rank. none lets every trial finish. Default: asha for kd, otherwise none."""
    min_accuracy: Annotated[float | None, Percentage()] = None
    """Validation accuracy (%) below which a trial is of no use: a constraint for the searcher, and the front has none
    below it. Default: none."""


@dataclass(frozen=True)
class FolderImages:
    """How --dataset folder is read. Fixed for a study."""

    image_size: Annotated[int | None, AtLeast(1, 4096)] = None
    """Pixels: the shorter side of every image is resized to it, and the centre is cropped to a square. Default: images
    stay as they are, and must have one size."""
    test_fraction: Annotated[float | None, Between(0, 1)] = None
    """Share of the training images that becomes the test part of a folder without test/, the same in every study.
    Default: none."""
    skip_damaged: bool = False
    """Leave out images that are damaged, rather than refuse them all by name."""


@dataclass(frozen=True)
class Files:
    """Where things lie. May differ between two commands on one study."""

    name: str | None = None
    """Name of the study, and of its folder under --results-dir. Default: the kind and the data set, as in kd-digits."""
    results_dir: Folder = Path("results")
    """Folder that holds the study folders."""
    data_dir: Folder | None = None
    """Where the data set lies, or is downloaded to; with --dataset folder, DIR/train/CLASS/* and DIR/test/CLASS/*, and
    DIR/val/CLASS/* where validation images are given. With a module:function, what it takes as data_dir.
    Default: ~/.cache/compression-study for what can be downloaded; digits needs none."""


@dataclass(frozen=True)
class Resources:
    """What a trial gets of the machines. May differ between two commands on one study."""

    max_concurrent: Annotated[int | None, AtLeast(1)] = None
    """Trials at one time. Default: as many as the CPUs, or GPUs, hold."""
    cpus_per_trial: Annotated[float, Above(0)] = 1.0
    """CPU cores, and threads, of each trial."""
    gpus_per_trial: Annotated[float | None, AtLeast(0)] = None
    """GPUs of each trial; a fraction shares one. Default: 0.25 where there is a GPU, otherwise 0."""
    memory_per_trial: Annotated[float | None, AtLeast(0.1)] = None
    """Gigabytes of main memory of each trial; one that asks for more fails. Default: no limit."""
    address: str | None = None
    """Address of a running Ray cluster to join, or "auto". Default: this machine alone."""

    @property
    def threads(self) -> int:
        """CPU threads of each trial."""
        return max(1, int(self.cpus_per_trial))

    @property
    def pack(self) -> int:
        """Trials trained together as one program; more than one only where a method has a flag for it."""
        return 1


@dataclass(frozen=True)
class Watching:
    """What can be seen meanwhile. May differ between two commands on one study."""

    dashboard: bool = True
    """Start the Ray dashboard on 127.0.0.1 and print its address."""
    prometheus: bool = False
    """Print where Prometheus finds the study's metrics."""
    verbose: bool = False
    """Show Ray's own messages."""


@dataclass(frozen=True)
class Measuring:
    """What is measured of networks in addition. No trial trains otherwise for it."""

    measure: Literal["none", "latency"] = "none"
    """latency measures what each trial's network costs when it runs: it is shrunk exactly and run by onnxruntime on one
    CPU thread, in turn with the network that the study starts from (columns latency_ms, latency_p95_ms, latency_ratio,
    multiply_adds, peak_memory_mb; an objective may name them). Fixed for a study."""
    latency_batch: Annotated[int | None, AtLeast(1, 65_536)] = None
    """With --measure latency: also for this many images at a time (batch_latency_ms, batch_latency_ratio). Fixed for a
    study. Default: single images alone."""
    sensitivity: bool = False
    """After the search, prune each layer of the network that the study starts from, the others left as they are, and
    show the accuracies in the report. May be added to a study later."""


OPERATIONAL = (Budget, Files, Resources, Watching, Measuring)
"""Groups of settings that make no trial another one: they say how much, where, and what is looked at. They may differ
between two commands on one study, but for `FIXED`."""

FIXED: Values = {"measure": "none", "latency_batch": None}
"""Of those groups the settings that add columns to a study's tables, and what they are in studies older than they."""


@dataclass(frozen=True)
class Settings:
    """Settings of every kind of study. Each group is a field; `of`, `changed` and `flat` take every name as it is."""

    kind: Annotated[str, tyro.conf.Suppress] = ""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, folder (your own images, see --data-dir), or module:function
    (your own arrays: it returns (train, test) or (train, validation, test), each a pair (inputs, labels))."""
    normalise: str | None = None
    """What images are normalised by, in all networks of the study, since a trained network expects the constants that
    it was trained with: data (those of the training part), imagenet, or MEAN/STD for pixels of 0 to 1, such as
    0.485,0.456,0.406/0.229,0.224,0.225. Default: those of --weights, where given; otherwise data."""
    seed: Annotated[int, AtLeast(0, MAX_SEED)] = 0
    """Seed of the split, the search, and every network."""
    precision: Precision | None = None
    """Precision in which networks with convolutions train (on a GPU, float32 convolutions run as TF32); other networks
    train in float32. Default: that of the study if it already exists; otherwise bfloat16 where the processor has it
    (GPUs since Ampere, CPUs with AVX512_BF16 or AMX)."""
    contiguous: Annotated[str | None, tyro.conf.Suppress] = None
    """Networks that train in torch's ordinary memory layout, by name with commas, since they cannot in channels last.
    What is tried before a study starts finds them; no flag of the command line."""
    budget: Budget = field(default_factory=Budget)
    search: Search = field(default_factory=Search)
    folder_images: FolderImages = field(default_factory=FolderImages)
    files: Files = field(default_factory=Files)
    resources: Resources = field(default_factory=Resources)
    watching: Watching = field(default_factory=Watching)
    measuring: Measuring = field(default_factory=Measuring)

    DEFAULTS: ClassVar[Mapping[str, Values]] = {"": {"scheduler": "none"}}
    """Data set → what a setting is that the command line leaves at None; "" for all other data sets."""
    WITH_WEIGHTS: ClassVar[Values] = {}
    """The same of settings that depend on whether the network is one that was trained before."""
    OLDER: ClassVar[Values] = _OLDER
    """What was so in studies that do not record it."""

    @classmethod
    def of(cls, **values: object) -> Self:
        """Settings of this kind with these values, whichever group each belongs to."""
        return cls().changed(**values)

    def changed(self, **values: object) -> Self:
        """A copy with other values, whichever group each belongs to."""
        own = {name: value for name, value in values.items() if name in _own_names(type(self))}
        for group in _groups(self):
            names = {f.name for f in dataclasses.fields(getattr(self, group))}
            if inside := {name: value for name, value in values.items() if name in names}:
                own[group] = dataclasses.replace(getattr(self, group), **inside)
        if unknown := values.keys() - self.flat().keys() - own.keys():
            raise TypeError(f"{type(self).__name__} has no setting {', '.join(sorted(unknown))}")
        return dataclasses.replace(self, **own)  # type: ignore[arg-type]

    def flat(self) -> dict[str, Any]:
        """Every setting by its name, which is unique over the groups."""
        return {name: value for _, name, value in _leaves(self)}

    def own(self) -> dict[str, Any]:
        """The settings that stand in no group, by name: those that a trial may depend on."""
        return {name: value for group, name, value in _leaves(self) if group is self}

    @classmethod
    def problem(cls, name: str, value: Value) -> str:
        """What the setting of this name must be, or "" where this value is, or where there is no such setting."""
        if name not in _own_names(cls):
            return ""
        words = _words_of(typing.get_type_hints(cls)[name])
        if words and value not in words:
            return f"{', '.join(words[:-1])} or {words[-1]}"
        bound = bounds_of(cls).get(name)
        return bound.problem(value) if bound and isinstance(value, int | float) else ""

    def defaults(self) -> dict[str, Value]:
        """What each setting is that the command line leaves at None, with this data set."""
        return {**Settings.DEFAULTS[""], **self.DEFAULTS.get("", {}), **self.DEFAULTS.get(self.dataset, {})}

    @property
    def folder(self) -> Path:
        """The study folder."""
        return self.files.results_dir / (self.files.name or f"{self.kind}-{self.dataset.replace(':', '.')}")

    def defining(self) -> dict[str, Value]:
        """The settings that make this study what it is, as JSON values."""
        operational = {name for group, name, _ in _leaves(self) if isinstance(group, OPERATIONAL)}
        return {name: value for name, value in as_json(self).items() if name not in operational}

    def operational(self) -> dict[str, Value]:
        """The settings that may differ between two commands on this study, as JSON values."""
        return {name: value for name, value in as_json(self).items() if name not in self.defining()}

    def check(self) -> None:
        """Refuse what does not go together. A kind of study adds its own.

        Raises:
            UserError: one line that names the flag.
        """


SettingsT = TypeVar("SettingsT", bound=Settings)


def _words_of(hint: object) -> tuple[str, ...]:
    """The words that a type allows, itself or as one part of a union; () where it is not about words."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Literal:
            return typing.get_args(part)
    return ()


def _own_names(kind: type[Settings]) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)}


def _groups(settings: Settings) -> list[str]:
    return [f.name for f in dataclasses.fields(settings) if dataclasses.is_dataclass(getattr(settings, f.name))]


def _leaves(settings: Settings) -> Iterator[tuple[object, str, Any]]:
    """(the settings or the group that it stands in, name, value) of every setting but the kind."""
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if dataclasses.is_dataclass(value):
            yield from ((value, inner.name, getattr(value, inner.name)) for inner in dataclasses.fields(value))
        elif f.name != "kind":
            yield settings, f.name, value


def bounds_of(kind: type[Settings]) -> dict[str, Bound]:
    """Setting → its bound, of those that have one."""
    bounds: dict[str, Bound] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            hints = typing.get_type_hints(hint, include_extras=True)
        else:
            hints = {name: hint}
        for inner, annotated in hints.items():
            for part in (annotated, *typing.get_args(annotated)):  # an optional alias is a union with one inside
                for mark in getattr(part, "__metadata__", ()):
                    if isinstance(mark, Bound):
                        bounds[inner] = mark
    return bounds


def resolve(settings: SettingsT) -> SettingsT:
    """Fill what depends on the data set, and refuse values that cannot be meant.

    Raises:
        UserError: one line that names the flag.
    """
    given = settings.flat()
    parse_normalisation(settings.normalise)
    defaults = settings.defaults()
    if given.get("checkpoint") or given.get("weights"):
        defaults |= settings.WITH_WEIGHTS
    filled: dict[str, object] = {k: v for k, v in defaults.items() if given[k] is None}
    for role in ("teacher", "student"):
        if f"{role}_width" in filled and given[role] not in WITH_WIDTH:
            filled[f"{role}_width"] = 1.0
    filled["name"] = settings.files.name or settings.folder.name
    for checkpoint in CHECKPOINTS:
        if given.get(checkpoint):  # study.json is read from other folders, too
            filled[checkpoint] = _resolved(given[checkpoint])
    settings = settings.changed(**filled)
    name = settings.files.name or ""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", name):
        raise UserError(f"--name {name!r}: use letters, digits, '.', '_' and '-', and begin with a letter or digit")
    if len(name) > LONGEST_NAME:
        raise UserError(f"--name {name[:50]}…: is too long; give {LONGEST_NAME} letters at most")
    check_bounds(settings)
    _check_folder_images(settings)
    if settings.measuring.latency_batch is not None and settings.measuring.measure == "none":
        raise UserError(f"--latency-batch {settings.measuring.latency_batch}: has no effect without --measure latency")
    settings.check()
    return settings


def _check_folder_images(settings: Settings) -> None:
    """Refuse flags of a folder of images with other data."""
    images = settings.folder_images
    for name in (f.name for f in dataclasses.fields(images)):
        if settings.dataset != "folder" and getattr(images, name) not in (None, False):
            raise UserError(
                f"{flag(name)}: is for --dataset folder, not --dataset {settings.dataset}; leave one of them out"
            )


def check_bounds(settings: Settings) -> None:
    """Refuse a number outside of its bound.

    Raises:
        UserError: the first one, by its flag.
    """
    values = settings.flat()
    for name, bound in bounds_of(type(settings)).items():
        if values[name] is not None and (problem := bound.problem(values[name])):
            raise UserError(f"{flag(name)} {values[name]}: must be {problem}")


def check_types(settings: Settings) -> None:
    """Refuse a value of another type than its setting has: those of `study.json` have not come through the flags.

    Raises:
        UserError: the first one, by its name.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # which flags can do without

    for group, name, value in _leaves(settings):
        hint = typing.get_type_hints(type(group))[name]
        try:
            TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
            raise UserError(f"settings.{name}: {message[:1].lower()}{message[1:]}") from error


def flag(name: str) -> str:
    """A setting as it is typed: `--num-samples`."""
    return f"--{name.replace('_', '-')}"


def as_json(settings: Settings) -> dict[str, Value]:
    """Every setting as a JSON value."""
    values = settings.flat()
    if values["data_dir"]:  # study.json is read from other folders, too
        values["data_dir"] = _resolved(values["data_dir"])
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def from_json(kind: type[SettingsT], name: str, recorded: Values) -> SettingsT:
    """Settings of a study as `study.json` has them; what that lacks is as it was before there was a choice."""
    known = kind().flat()
    values = {k: v for k, v in {**kind.OLDER, **recorded}.items() if k in known}
    paths = ("data_dir", "results_dir", *CHECKPOINTS, "warm_start")
    return kind.of(kind=name, **{k: Path(str(v)) if k in paths and v is not None else v for k, v in values.items()})


def contradiction(settings: Settings, recorded: Values) -> str:
    """How these settings differ from those a study was started with: `--epochs 40 (the study has 30)`, or ""."""
    recorded = {**settings.OLDER, **FIXED, **recorded}
    had = dict(recorded)
    if path := had.get("teacher_checkpoint"):
        had["teacher_checkpoint"] = str(_resolved(Path(str(path))))  # older studies have it as it was given
    return ", ".join(
        f"{flag(k)} {v} (the study has {recorded.get(k)})"
        for k, v in {**settings.defining(), **{name: settings.flat()[name] for name in FIXED}}.items()
        if had.get(k) != v
    )


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()

"""What a user can set, as typed dataclasses: the command line, `study.json` and the trials all read these.

A field that is None on the command line depends on the data set or the machine; `resolve` fills what `DEFAULTS` has
for the data set.
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

from study.durations import seconds_of
from study.errors import UserError
from study.flag_marks import Common, Heading, Rare, marks
from study.normalisation import parse as parse_normalisation
from study.path_arguments import LONGEST_NAME
from study.records.search_domains import Value
from study.setting_bounds import Above, AtLeast, Bound, Within
from study.settings_groups import (
    FIXED,
    OPERATIONAL,
    Budget,
    Files,
    FolderImages,
    Measuring,
    Resources,
    Search,
    SpaceFlags,
    Tracking,
    Values,
    Watching,
)

Augment = Literal["none", "flip", "shift1", "shift", "crop", "resized-crop", "resized-crop-jitter"]
Precision = Literal["float32", "bfloat16"]
DistillationLoss = Literal["kd", "kd-standardised", "dkd", "dist", "ttm", "wttm", "mse"]

MAX_SEED = 2**32 - 1
"""Largest seed: it, and those that follow from it, fit every generator."""
OLDER_PRECISION = "float32"
"""Of studies that were started before there was a choice."""
_OLDER: dict[str, Value] = {"precision": OLDER_PRECISION, "skip_damaged": False}
"""What was so in studies that do not record it."""
MAX_WIDTH = 16
"""Largest width: a VGG's layer has 8,192 channels then, and 2.4 GB of weights."""

CHECKPOINTS = ("checkpoint", "teacher_checkpoint")
"""Settings that are files of trained networks."""

WITH_WIDTH = frozenset("minivgg vgg8 vgg11 vgg13 vgg13_3pools vgg16 vgg19".split())
"""Networks of `study.models` whose channels a width multiplies; a default other than 1 is meant for them alone."""


Width = Annotated[float, Above(0, MAX_WIDTH)]
Rate = Annotated[float, Above(0)]
Epochs = Annotated[int, AtLeast(1)]
Alpha = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class Settings:
    """Settings of every kind of study. Each group is a field; `of`, `changed` and `flat` take every name as it is."""

    HEADING: ClassVar[Heading] = "Data"

    kind: Annotated[str, tyro.conf.Suppress] = ""
    dataset: Annotated[str, Common()] = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, folder or module:function. The images of a folder are your own,
    see --data-dir. A function returns your own arrays: (train, test) or (train, validation, test), each a pair (inputs,
    labels)."""
    normalise: Annotated[str | None, Rare("CONSTANTS")] = None
    """What images are normalised by, in all networks of the study, since a trained network expects the constants that
    it was trained with: data (those of the training part), imagenet, or MEAN/STD for pixels of 0 to 1, such as
    0.485,0.456,0.406/0.229,0.224,0.225. Default: those of --weights, where given; otherwise data."""
    seed: Annotated[int, AtLeast(0, MAX_SEED), Common(heading="Study")] = 0
    """Seed of split, search, and every network."""
    precision: Annotated[Precision | None, Rare(heading="Training")] = None
    """Precision in which networks with convolutions train (on a GPU, float32 convolutions run as TF32); other networks
    train in float32. Default: that of the study if it already exists; otherwise bfloat16 where the processor has it
    (GPUs since Ampere, CPUs with AVX512_BF16 or AMX)."""
    contiguous: Annotated[str | None, tyro.conf.Suppress] = None
    """Networks that train in torch's ordinary memory layout, by name with commas, since they cannot in channels last.
    What is tried before a study starts finds them; no flag of the command line."""
    budget: Budget = field(default_factory=Budget)
    search: Search = field(default_factory=Search)
    searched: SpaceFlags = field(default_factory=SpaceFlags)
    folder_images: FolderImages = field(default_factory=FolderImages)
    files: Files = field(default_factory=Files)
    resources: Resources = field(default_factory=Resources)
    watching: Watching = field(default_factory=Watching)
    tracking: Tracking = field(default_factory=Tracking)
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

    def without_effect(self) -> dict[str, str]:
        """Flags that do nothing for the networks which a trial trains or starts from, and why, as the end of a
        sentence. A kind of study adds its own."""
        return {}

    def used_by_teacher(self) -> frozenset[str]:
        """Those of these flags that a teacher uses all the same."""
        return frozenset()

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
            bounds.update((inner, mark) for mark in marks(annotated) if isinstance(mark, Bound))
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
    filled["default_rate"] = settings.searched.default_rate or "learning_rate" in filled
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
    seconds_of(settings.budget.time)
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


def flag_with_value(name: str, value: object) -> str:
    """A setting and its value as they are typed: `--num-samples 8`, `--layer-scales`, `--no-layer-scales`."""
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {value}"


def as_json(settings: Settings) -> dict[str, Value]:
    """Every setting as a JSON value, but for the flags of the search space, which is recorded itself, and trackers."""
    values = {name: value for group, name, value in _leaves(settings) if not isinstance(group, SpaceFlags | Tracking)}
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
    given = {**settings.defining(), **{name: settings.flat()[name] for name in FIXED}}
    different = {name: value for name, value in given.items() if had.get(name) != value}
    if "variant" in different:  # from which other defaults follow
        different = {"variant": different["variant"]}
    return ", ".join(f"{flag_with_value(k, v)} (the study has {recorded.get(k)})" for k, v in different.items())


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()

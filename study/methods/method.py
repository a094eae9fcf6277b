"""What a kind of study is: its shared work, its trials, and what the other rooms need to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from study.artifacts.cache import SharedWork
from study.artifacts.weight_trace import Trace
from study.data.splits import Splits
from study.records.search_domains import Value
from study.settings import WITH_WIDTH, Settings, SettingsT, Values
from study.training.loop import Report
from study.training.network import Training

Arrays = dict[str, np.ndarray]
HparamsT = TypeVar("HparamsT")

ONE_MINUS = "one_minus_"
"""Before a hyperparameter's name in a search space: what is searched is its distance from 1, which has a scale where
the hyperparameter itself crowds against 1."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves behind: its final metrics, its arrays, and the compressed file if it wrote one."""

    metrics: Mapping[str, Value]
    arrays: Arrays
    file: bytes = b""


TrialFunction = Callable[..., TrialResult]
"""`(values, settings, data, shared, on_epoch, progress)`: the searched values, settings in which they are set already,
the data, the shared work (for the stage itself: None, or the weights that the user gave, each under its role as
`cache.NETWORK`), what hears of every epoch, and how far the trial is."""


@dataclass(frozen=True)
class Stage:
    """The work that all trials of a study share, itself run as a trial.

    Attributes:
        name: of the stage, and of its baseline row.
        run: see `TrialFunction`.
        key: (settings, data, the weights that the user gave) → what determines it, as JSON values.
        networks: settings → role → training, of every network that it trains.
        role: the role of the network that it leaves.
        trace: (settings, data, shared work) → arrays for the report's figures of it.
        further: shared work → other networks that it leaves, by the name of a baseline row of their own: weights, with
            their metrics and history in the record.
        further_names: settings → the names of these rows.
    """

    name: str
    run: TrialFunction
    key: Callable[..., Mapping[str, object]]
    networks: Callable[..., dict[str, Training]]
    role: str
    trace: Callable[..., Arrays] | None = None
    further: Callable[[SharedWork], Mapping[str, SharedWork]] = lambda shared: {}
    further_names: Callable[..., Sequence[str]] = lambda settings: ()


@dataclass
class PackMember:
    """One trial of a pack.

    Attributes:
        values: the searched ones.
        on_epoch: hears of every epoch; what it raises ends this member alone.
        on_failure: hears why the member ended early.
        is_scored: whether a trial alone would report an epoch, by its number from 1. The last one is reported always.
        trace: of its weights, once the pack has been trained.
    """

    values: Values
    on_epoch: Report
    on_failure: Callable[[Exception], None]
    is_scored: Callable[[int], bool] = lambda epoch: True
    trace: Trace = field(default_factory=Trace)


class PackTrainer(Protocol):
    """Trains several trials of one study as one program.

    Attributes:
        shrinks: whether a program goes on without the trials that have ended, as soon as they are half of it.
    """

    shrinks: bool

    def programs(self, trials: Sequence[Values]) -> list[list[int]]:
        """Which trials one program can train: their places among these, together. `train` takes those of one."""

    def train(self, members: Sequence[PackMember]) -> list[Callable[[], TrialResult] | Exception]:
        """For each member what makes its result, or why it ended early."""


@dataclass(frozen=True)
class Packing:
    """How a method trains several trials as one program.

    Attributes:
        check: (settings, data, searched names) raises what cannot be packed, whatever torch raises. Where networks are
            searched it is called with the settings of each.
        trainer: (settings, data, shared work) → the trainer, in the process that trains.
    """

    check: Callable[..., None]
    trainer: Callable[..., PackTrainer]


@dataclass(frozen=True)
class Method:
    """One kind of study.

    Attributes:
        title: what it is called for people.
        reference: name of the baseline that trials are measured against.
        hparams: dataclass of all that a trial depends on; each of its fields can be searched.
        shared_work: what all trials share.
        trial: see `TrialFunction`.
        epochs: settings → most epochs that a trial reports.
        subject: what a trial yields, in a sentence.
        student: settings → the network that a trial trains, where the shared work leaves another one.
        trial_data: (settings, data) → the splits as the searched trials see them.
        data_note: settings → a sentence about them for the report, or "".
        epochs_before: settings → epochs of a trial before the network begins to be compressed.
        replaced: baselines that a trial is to replace, and so does not rival: a teacher.
        dense: baseline, or "" for every searched trial → role of the network that it leaves as float32.
        headings: column → its heading, where it means something else than in other kinds of study.
        counts_over: which weights sizes and ratios count, as a sentence.
        without_effect: settings → hyperparameter that does nothing with them → why, as the end of a sentence. Flags of
            these names are refused as well, where no trial uses them; see `study.tuning.idle_flags`.
        fixed: settings → hyperparameter that is not searched with them → why, as a sentence.
        untrained_seconds: (settings, data) → seconds of a trial that trains nothing, from parts of it that are run;
            None where trials train.
        packing: None where trials are always trained alone.
        search_space: settings → the module of `search_spaces` that says what is searched.
        hyperparameters: (settings, searched values) → those of a trial; `hparams_from` of `hparams` if none.
        metrics: what every finished trial reports, and can be an objective; () where the method does not say.
    """

    title: str
    reference: str
    hparams: type
    shared_work: Stage
    trial: TrialFunction
    epochs: Callable[..., int]
    subject: str = "the compressed network"
    student: Callable[..., Training] | None = None
    trial_data: Callable[..., Splits] = lambda settings, data: data
    data_note: Callable[..., str] = lambda settings: ""
    epochs_before: Callable[..., int] = lambda settings: 0
    replaced: Sequence[str] = ()
    dense: Mapping[str, str] = field(default_factory=lambda: {"uncompressed": "network"})
    headings: Mapping[str, str] = field(default_factory=dict)
    counts_over: str = ""
    without_effect: Callable[..., dict[str, str]] = lambda settings: {}
    fixed: Callable[..., dict[str, str]] = lambda settings: {}
    untrained_seconds: Callable[..., float] | None = None
    packing: Packing | None = None
    search_space: Callable[..., str] = lambda settings: settings.kind
    hyperparameters: Callable[..., object] | None = None
    metrics: Sequence[str] = ()

    def networks(self, settings: Settings) -> dict[str, Training]:
        """Role → training, of every network of a study."""
        networks = self.shared_work.networks(settings)
        return {**networks, "student": self.student(settings)} if self.student else networks

    def searched_network(self, settings: Settings) -> Training:
        """The network that a searched trial trains."""
        return self.networks(settings)["student" if self.student else self.shared_work.role]

    def trained_network(self, settings: Settings, baseline: str) -> Training:
        """The network whose weights a finished trial, or a baseline, left."""
        role = self.shared_work.role
        return self.networks(settings)[role] if baseline == self.shared_work.name else self.searched_network(settings)

    def searchable(self) -> list[str]:
        """Names that a search space may have. A study has one seed, and confirmation seeds of its own."""
        names = [f.name for f in dataclasses.fields(self.hparams) if f.name not in ("seed", "contiguous")]
        return [*names, *(ONE_MINUS + name for name in names)]

    def facts(self, settings: Settings) -> dict[str, object]:
        """What `study.json` states of it; see `study.records.schema`."""
        further = dict.fromkeys(self.shared_work.further_names(settings), self.shared_work.role)
        return {
            "title": self.title,
            "subject": self.subject,
            "reference": self.reference,
            "shared_baseline": self.shared_work.name,
            "replaced": list(self.replaced),
            "dense": {**self.dense, **further},
            "headings": dict(self.headings),
            "counts_over": self.counts_over,
        }


def hparams_from(cls: type[HparamsT], settings: Settings, values: Values, **fixed: Value) -> HparamsT:
    """A method's hyperparameters: the searched value, else the setting of that name, else the field's default.

    Args:
        values: searched ones, by the names of the search space: `one_minus_pi_zero` sets `pi_zero`.
        fixed: fields that follow from something else, and neither from a value nor from a setting.
    Raises:
        TypeError: a value that no field takes, or a field without any value.
    """
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = [name for name in values if name.removeprefix(ONE_MINUS) not in names]
    if unknown:
        raise TypeError(f"{cls.__name__} has no hyperparameter {', '.join(unknown)}")
    given = settings.own()
    chosen: dict[str, Value] = {}
    for name in names:
        if name in fixed:
            chosen[name] = fixed[name]
        elif name in values:
            chosen[name] = values[name]
        elif isinstance(away := values.get(ONE_MINUS + name), int | float):
            chosen[name] = 1 - away
        elif given.get(name) is not None:
            chosen[name] = given[name]
    return cls(**chosen)


def settings_with(settings: SettingsT, values: Values) -> SettingsT:
    """The settings of a trial: those of the study, with what it searches in place of the flags of these names.

    A network that is searched has the study's width only if it has one: see `WITH_WIDTH`.
    """
    known = settings.own()
    own = {name: value for name, value in values.items() if name in known}
    for role in ("network", "student"):
        if role in own and f"{role}_width" not in own and own[role] not in WITH_WIDTH:
            own[f"{role}_width"] = 1.0
    return settings.changed(**own)


def shift_epochs(epochs: int, on_epoch: Report) -> Report:
    """Reports epochs that come after so many others."""
    return lambda row: on_epoch({**row, "epoch": epochs + int(row["epoch"])})

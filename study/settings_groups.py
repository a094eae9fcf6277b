"""Groups of settings that every kind of study has; `study.settings.Settings` has each as a field.

The groups `Budget`, `Files`, `Resources`, `Watching`, `Tracking` and `Measuring` say how much is done, where, and what
is looked at. They may differ between two commands on one study; everything else makes the study what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from study.flag_marks import Common, Heading, Rare
from study.path_arguments import File, Folder, ResultsFolder, StudyFolder
from study.records.search_domains import Value
from study.setting_bounds import Above, AtLeast, Between, Percentage

Values = Mapping[str, Value]

Searcher = Literal["tpe", "nsga2", "gp", "random"]
Scheduler = Literal["predicted", "asha", "none"]
TrackerName = Literal["mlflow", "wandb", "tensorboard"]

MAX_TRIAL_TIMEOUT = 10**9
"""Seconds that a trial may go without an epoch at most, 31 years: the watch takes no more than ten times that."""


@dataclass(frozen=True)
class Budget:
    """How much is tried. May differ between two commands on one study."""

    HEADING: ClassVar[Heading] = "Study"

    num_samples: Annotated[int, AtLeast(1), Common()] = 64
    """Trials that the study has at the end. Baselines are not counted. Run again to continue or to add."""
    time: Annotated[str | None, Common("TIME")] = None
    """Start no further trial after so long, such as 90m, 2h or 1d. The study ends with what there is; the same command
    goes on with it. Default: no limit."""
    until: Annotated[Literal["stalled"] | None, Common("stalled")] = None
    """End the study once the front no longer grows. That is when the last 20 trials, or the last third of all if that
    is more, added less than 0.5 % to the front's hypervolume (or nothing to the best value); a command tries 20 at
    least. Default: --num-samples."""
    confirm: Annotated[int, AtLeast(0), Common()] = 0
    """Retrain up to N of the front, and the baselines, with fresh seeds. They are retrained after the search, with
    --seeds seeds each; where accuracy is the only objective the best trials are taken. Default: 0. The front is then
    tested as it was found."""
    seeds: Annotated[int, AtLeast(1), Common()] = 5
    """With --confirm: fresh seeds."""
    warm_start: Annotated[StudyFolder | None, Common(heading="Search")] = None
    """Folder of another study, whose front is tried first. Default: none."""
    trial_timeout: Annotated[float | None, Above(0, MAX_TRIAL_TIMEOUT), Rare("SECONDS")] = None
    """Seconds that an epoch may take, the start before the first one included. After that the process counts as hung:
    it is ended, and the trial is tried again. Default: no limit."""
    max_failures: Annotated[int, AtLeast(0)] = 2
    """Times that a trial whose process fails is tried again, from its last epoch, before it counts as failed."""
    dry_run: Annotated[bool, Common()] = False
    """Print what would run and its cost, then stop. Steps are timed."""


@dataclass(frozen=True)
class Search:
    """What is searched for, and how. Fixed for a study."""

    HEADING: ClassVar[Heading] = "Search"

    searcher: Annotated[Searcher, Common("NAME")] = "tpe"
    """Optuna's sampler: tpe, nsga2, gp (Gaussian process) or random."""
    scheduler: Annotated[Scheduler | None, Common("NAME")] = None
    """Which trials are stopped early: predicted, asha or none. The first stops trials that would not end on the front
    even if they gained what the most similar finished trials gained (see study.tuning.prediction). asha stops those
    that fall behind (see study.tuning.halving), in validation accuracy or, with several objectives, by non-dominated
    rank. none lets every trial finish. Default: asha for kd, otherwise none."""
    seeds_per_trial: Annotated[int | None, AtLeast(2, 100)] = None
    """Train every trial with so many seeds from the same shared work: its accuracies and losses are means,
    val_accuracy_sd the spread. Its network, which is tested, and its sizes are those of the first. Default: one
    seed."""
    min_accuracy: Annotated[float | None, Percentage(), Common("PERCENT")] = None
    """Validation accuracy below which a trial is of no use. It is a constraint for the searcher, and the front has none
    below it. Default: none."""


Words = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
"""A flag that may be given several times."""


@dataclass(frozen=True)
class SpaceFlags:
    """What is searched, where it is not what search_spaces/ has: every hyperparameter of a trial (--show-space lists
    them). Fixed for a study."""

    HEADING: ClassVar[Heading] = "Search"

    range: Annotated[Words, Common("NAME=LOW:HIGH")] = ()
    """Search a number between LOW and HIGH. Both are included; :log, :int or :step=S may stand behind them. May be
    given several times, as the next four: --range temperature=2:8 --range learning_rate=1e-4:1e-2:log."""
    choice: Annotated[Words, Common("NAME=A,B")] = ()
    """Search one of several values: loss=kd,dkd. Values that have commas themselves, such as those of
    milestones, cannot be typed: they need --space FILE."""
    fix: Annotated[Words, Common("NAME=VALUE")] = ()
    """Do not search it, as in alpha=0.9. Of what has a flag of its own, in trials and baselines alone."""
    when: Annotated[Words, Rare("NAME:OTHER=A,B")] = ()
    """Search NAME only where OTHER has one of these values."""
    objective: Annotated[Words, Common("NAME:max")] = ()
    """Add an objective, NAME:max or :min, or drop one, NAME:none. One to four in all."""
    space: Annotated[File | None, Common()] = None
    """A search space of your own, a Python file. It takes the place of the one in search_spaces/. Default: none."""
    show_space: Annotated[bool, Common()] = False
    """Print what is or could be searched, then stop."""
    default_rate: Annotated[bool, tyro.conf.Suppress] = field(default=False, compare=False)
    """Whether --learning-rate was left at its default, which trials with another optimizer do not share. `resolve`
    finds out; no flag of the command line."""


@dataclass(frozen=True)
class FolderImages:
    """How --dataset folder is read. Fixed for a study."""

    HEADING: ClassVar[Heading] = "Data"

    image_size: Annotated[int | None, AtLeast(1, 4096), Common("PIXELS")] = None
    """With --dataset folder: crop and resize images to this. The shorter side is resized, and the centre cropped to a
    square. Default: as they are. They must then have one size."""
    test_fraction: Annotated[float | None, Between(0, 1), Rare("SHARE")] = None
    """Share of the training images that becomes the test part of a folder without test/, the same in every study.
    Default: none."""
    skip_damaged: bool = False
    """Leave out images that are damaged, rather than refuse them all by name."""


@dataclass(frozen=True)
class Files:
    """Where things lie. May differ between two commands on one study."""

    HEADING: ClassVar[Heading] = "Output"

    name: Annotated[str | None, Common(heading="Study")] = None
    """Name of the study, and of its folder. Default: kind and data set, as in kd-digits."""
    results_dir: Annotated[ResultsFolder, Common()] = Path("results")
    """Folder of studies, or s3://BUCKET/DIR. gs:// and az:// are buckets, too."""
    data_dir: Annotated[Folder | None, Common(heading="Data")] = None
    """Where the data set lies, or is downloaded to. With --dataset folder, DIR/train/CLASS/* and DIR/test/CLASS/*, and
    DIR/val/CLASS/* where validation images are given. With a module:function, what it takes as data_dir.
    Default: ~/.cache/compression-study. digits needs none."""


@dataclass(frozen=True)
class Resources:
    """What a trial gets of the machines. May differ between two commands on one study."""

    HEADING: ClassVar[Heading] = "Resources"

    max_concurrent: Annotated[int | None, AtLeast(1), Common()] = None
    """Trials at one time. Default: as many as the CPUs, or GPUs, hold."""
    cpus_per_trial: Annotated[float, Above(0), Common("N")] = 1.0
    """CPU cores, and threads, of each trial."""
    gpus_per_trial: Annotated[float | None, AtLeast(0), Common("N")] = None
    """GPU of each trial, 1 or a fraction that shares it. Default: 0.25 where there is a GPU, otherwise 0."""
    memory_per_trial: Annotated[float | None, AtLeast(0.1), Rare("GB")] = None
    """Gigabytes of main memory of each trial; one that asks for more fails. Default: no limit."""
    address: Annotated[str | None, Common("HOST:PORT")] = None
    """A running Ray cluster to join, or "auto". Default: this machine alone."""

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

    HEADING: ClassVar[Heading] = "Output"

    dashboard: bool = True
    """Start the Ray dashboard on 127.0.0.1 and print its address, on a terminal with its token."""
    prometheus: bool = False
    """Print where Prometheus finds the study's metrics."""
    monitor: bool = False
    """Start Prometheus, if installed, on 127.0.0.1 while the study runs, for the dashboard's time series and the
    study's own."""
    verbose: bool = False
    """Show Ray's own messages."""


@dataclass(frozen=True)
class Tracking:
    """Experiment trackers that hear of the trials. May differ between two commands on one study."""

    HEADING: ClassVar[Heading] = "Output"

    track: Annotated[tuple[TrackerName, ...], tyro.conf.UseAppendAction, Common("NAME")] = ()
    """Log trials to mlflow, wandb or tensorboard. May be given several times; each needs its package."""


@dataclass(frozen=True)
class Measuring:
    """What is measured of networks in addition. No trial trains otherwise for it."""

    HEADING: ClassVar[Heading] = "Output"

    measure: Annotated[Literal["none", "latency"], Common("latency")] = "none"
    """Measure what each trial's network costs when it runs. It is shrunk exactly and run by onnxruntime on one
    CPU thread, in turn with the network that the study starts from (columns latency_ms, latency_p95_ms, latency_ratio,
    multiply_adds, peak_memory_mb; an objective may name them). Fixed for a study."""
    latency_batch: Annotated[int | None, AtLeast(1, 65_536)] = None
    """With --measure latency: also for this many images at a time (batch_latency_ms, batch_latency_ratio). Fixed for a
    study. Default: single images alone."""
    sensitivity: bool = False
    """After the search, prune each layer of the network that the study starts from, the others left as they are, and
    show the accuracies in the report. May be added to a study later."""


OPERATIONAL = (Budget, Files, Resources, Watching, Tracking, Measuring, SpaceFlags)
"""Groups of settings that make no trial another one: they say how much, where, and what is looked at. They may differ
between two commands on one study, but for `FIXED`. Of `SpaceFlags` the search space that follows is compared."""

FIXED: Values = {"measure": "none", "latency_batch": None}
"""Of those groups the settings that add columns to a study's tables, and what they are in studies older than they."""

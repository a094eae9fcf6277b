"""One run of Ray Tune: over a queue of trials, and over what Optuna suggests."""

from __future__ import annotations

import errno
import math
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.trainable import FunctionTrainable
from ray.tune.trainable.function_trainable import wrap_function

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork
from study.data.splits import Splits
from study.errors import NO_SPACE
from study.methods import registry
from study.methods.method import Method, TrialFunction, settings_with
from study.records import paths
from study.records.columns import FINAL_STATES, Row
from study.records.ledger import Ledger, epochs_reported
from study.settings import Settings
from study.tuning import cluster, pack_trial, packs, ray_waits
from study.tuning.cluster import Capacity
from study.tuning.ended_trials import ForgetEndedTrials, forget_closed_writers
from study.tuning.ending import Ending
from study.tuning.journal import Journal
from study.tuning.recorder import FULL_DISK, Recorder
from study.tuning.scheduler import HalvingScheduler, make_race, make_rule
from study.tuning.searcher import LedgerSearch, Queued, make_sampler, optuna_study
from study.tuning.space import SearchSpace
from study.tuning.trainable import make_trainable
from study.tuning.trial_tasks import TrialTasks


@dataclass(frozen=True)
class Job:
    """What a stage of a study needs to know.

    Attributes:
        space: what is searched.
        folder: of the study.
        recorder: hears of the trials.
        deadline: `time.monotonic()` after which no further trial starts.
    """

    settings: Settings
    space: SearchSpace
    folder: Path
    recorder: Recorder
    deadline: float = math.inf

    @property
    def ledger(self) -> Ledger:
        """The tables of the study."""
        return self.recorder.ledger

    @property
    def study(self) -> str:
        """By which Ray's dashboard knows it."""
        return self.folder.parent.name if self.folder.name == paths.CONFIRM else self.folder.name

    @property
    def method(self) -> Method:
        """The kind of study."""
        return registry.method(self.settings.kind)


@dataclass(frozen=True)
class Work:
    """What a trial is, and what it gets in addition to its configuration, its settings and the folder.

    Attributes:
        shared: seed → the shared work.
    """

    run: TrialFunction
    data: Splits
    shared: Mapping[int, SharedWork | None]


def run_trials(job: Job, work: Work, queue: Sequence[Queued], wanted: int = 0, searching: bool = False) -> bool:
    """One run of Ray Tune over a queue and `wanted` suggestions.

    Args:
        searching: among trials that are to be compared, so with the scheduler that the settings name.
    Returns: False after Ctrl-C, even where it came with the last trial's end.
    """
    if not queue and not wanted:
        return True
    baselines = {trial.trial_id for trial in queue if trial.baseline}
    settings = job.settings if searching else job.settings.changed(seeds_per_trial=None)
    scheduler = _scheduler(job, settings, baselines) if searching and settings.search.scheduler != "none" else None
    rungs = scheduler.rule.levels if scheduler else ()
    packers: list[ActorHandle] = []
    if searching and settings.resources.pack > 1:
        # Room for the baselines too, or the last trial would have to wait.
        settings = settings.changed(pack=settings.resources.pack + len(baselines))
        packers = packs.start_packs(settings)
        join_arguments = packs.join_arguments(settings, work.data, _complete(work.shared), rungs)
        settings = packs.settings_of_packed_trials(settings)
        trainable = tune.with_parameters(
            pack_trial.make_pack_trainable(job.study), folder=job.folder, packers=packers, join_arguments=join_arguments
        )
    else:
        trainable = tune.with_parameters(
            make_trainable(work.run, job.study),
            folder=job.folder,
            settings=settings,
            data=work.data,
            shared=work.shared,
            working_folder=Path.cwd(),
            rungs=rungs,
        )
    if (job.folder / paths.STUDY).exists():  # fresh seeds have a ledger, but no search to look at
        job.recorder.journal = Journal(job.ledger, job.space, settings)
    if settings.watching.dashboard:
        job.recorder.tasks = job.recorder.tasks or TrialTasks(job.study)
    job.recorder.searcher = _searcher(job, settings, queue, wanted, searching)
    try:
        return _fit(job, _tuner(job, settings, trainable, scheduler, len(queue) + wanted))
    finally:
        job.ledger.pause()
        for packer in packers:
            ray.kill(packer)


def _scheduler(job: Job, settings: Settings, baselines: Collection[str]) -> HalvingScheduler:
    """What stops searched trials early."""
    rule = make_rule(job.method, job.space.largest(settings), job.space.objectives, job.ledger, job.folder)

    def last_epoch(config: Row) -> int:
        return job.method.epochs(settings_with(settings, config))

    return HalvingScheduler(rule, baselines, last_epoch, make_race(settings, job.space.objectives, job.ledger))


def _complete(shared: Mapping[int, SharedWork | None]) -> dict[int, SharedWork]:
    return {seed: work for seed, work in shared.items() if work is not None}


def _searcher(job: Job, settings: Settings, queue: Sequence[Queued], wanted: int, searching: bool) -> LedgerSearch:
    """What hands out the configurations, with all that the ledger knows."""
    known = len(job.ledger.of_state("running", *FINAL_STATES))  # those that were cut off have been suggested, too
    study = optuna_study(
        job.ledger,
        job.space,
        min_accuracy=settings.search.min_accuracy,
        sampler=make_sampler(settings.search.searcher, settings.seed, known, bool(job.space.conditions)),
    )
    return LedgerSearch(
        job.ledger,
        study,
        job.space,
        queue,
        wanted,
        Capacity(settings),
        settings.search.min_accuracy,
        seed=settings.seed,
        on_start=job.recorder.on_start,
        ending=Ending(settings, job.ledger, job.space.objectives, job.deadline) if searching else None,
    )


def _tuner(
    job: Job, settings: Settings, trainable: Callable[..., None], scheduler: HalvingScheduler | None, trials: int
) -> tune.Tuner:
    def name(trial: Trial) -> str:
        return paths.trial_folder(trial.config["trial_id"])

    forget_closed_writers()
    forgetting = [] if settings.watching.verbose else [ForgetEndedTrials()]  # Tune's own output lists all trials
    return tune.Tuner(
        _named_trainable(tune.with_resources(trainable, cluster.placement(settings)), job.study),
        tune_config=tune.TuneConfig(
            search_alg=job.recorder.searcher,
            scheduler=scheduler,
            num_samples=trials,
            reuse_actors=True,
            trial_name_creator=name,
            trial_dirname_creator=name,
        ),
        run_config=tune.RunConfig(
            name=paths.RAY,
            storage_path=str(job.folder),
            callbacks=[job.recorder, TBXLoggerCallback(), *forgetting],
            failure_config=tune.FailureConfig(max_failures=settings.budget.max_failures),
            verbose=2 if settings.watching.verbose else 0,
        ),
    )


def _named_trainable(trainable: Callable[..., None], study: str) -> type[FunctionTrainable]:
    """Tune's class of a function, under the study's name in place of Tune's own.

    What Tune asks of such an actor are tasks of Ray's, one for every epoch. They are not listed, or nobody would find
    the trials among them.
    """
    base = wrap_function(trainable, study)

    class Trials(base):  # type: ignore[misc, valid-type]
        def __repr__(self) -> str:
            return f"{study}, from {self.config['trial_id']} on"

        @ray.method(enable_task_events=False)
        def train(self) -> Any:
            return super().train()

        @ray.method(enable_task_events=False)
        def reset(self, *arguments: Any, **named: Any) -> Any:
            return super().reset(*arguments, **named)

        @ray.method(enable_task_events=False)
        def stop(self) -> Any:
            return super().stop()

        @ray.method(enable_task_events=False)
        def get_auto_filled_metrics(self, *arguments: Any, **named: Any) -> Any:
            return super().get_auto_filled_metrics(*arguments, **named)

    Trials.__name__ = Trials.__qualname__ = f"{study} trials"
    return Trials


def _fit(job: Job, tuner: tune.Tuner) -> bool:
    """Run Tune to its end; returns False after Ctrl-C.

    Raises:
        OSError: the disk is full, or the folder was removed or cannot be written.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        here = nullcontext() if job.settings.resources.address else ray_waits.environment_of_the_node()
        with ray_waits.callbacks_uncounted(), here:
            tuner.fit()
        # Tune listens for the first Ctrl-C itself, and puts the handler back when it comes.
        return signal.getsignal(signal.SIGINT) is not handler
    except Exception as error:  # Tune trips over its own files when they could not be written
        if job.ledger.full or job.recorder.stopped == FULL_DISK:
            raise OSError(errno.ENOSPC, NO_SPACE) from error
        job.ledger.flush()  # which says so, where the folder was removed or can no longer be written
        raise
    finally:
        signal.signal(signal.SIGINT, handler)  # where none came Tune would go on listening, and swallow the next


def recover_history(ledger: Ledger, folder: Path) -> None:
    """Take the history of trials that had just ended, when the last command was cut off, from their checkpoints."""
    for trial_id in [i for i, row in ledger.trials.items() if row["state"] in FINAL_STATES]:
        path = checkpoints.path_of(folder, trial_id)
        if not path.exists():
            continue
        row = ledger.trials[trial_id]
        if ledger.last_epoch(trial_id) < epochs_reported(row):
            for epoch in checkpoints.rows_of(path):
                if int(epoch["epoch"]) <= epochs_reported(row):
                    ledger.epoch(trial_id, epoch)
    if ledger.unwritten:
        ledger.flush()
    for trial_id, row in ledger.trials.items():
        if row["state"] in FINAL_STATES:
            checkpoints.delete_checkpoint(folder, trial_id)

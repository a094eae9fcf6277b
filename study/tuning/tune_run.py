"""One stage of a study: Ray Tune over a queue of trials and what Optuna suggests, and work that a stage shares."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback

from study.artifacts import checkpoints
from study.errors import NO_SPACE
from study.records import columns, paths
from study.records.ledger import Ledger, history_row
from study.tuning import cluster, pack_trial, packs
from study.tuning import searcher as tuning_searcher
from study.tuning.cluster import Capacity
from study.tuning.recorder import FULL_DISK, Recorder
from study.tuning.scheduler import HalvingScheduler, rungs_of
from study.tuning.searcher import LedgerSearch
from study.tuning.trainable import make_trainable

Queue = list[tuple[str, dict[str, Any], str]]
"""Configurations to run before Optuna is asked: trial id, hyperparameters, baseline's name or ""."""


@dataclass(frozen=True)
class Job:
    """What a stage of a study needs to know: settings, what is searched, its folder, and who hears of its trials."""

    settings: Any
    spaces: Any
    folder: Path
    recorder: Recorder

    @property
    def ledger(self) -> Ledger:
        return self.recorder.ledger


def run_trials(
    job: Job, run: Any, parameters: dict[str, Any], queue: Queue, wanted: int = 0, searching: bool = False
) -> bool:
    """One run of Ray Tune over a queue and `wanted` suggestions.

    Args:
        run, parameters: what a trial is, and what it is given beside its configuration, settings and folder.
        searching: among trials that are to be compared, so with the scheduler that the settings name.
    Returns: False after Ctrl-C, even where it came with the last trial's end.
    """
    if not queue and not wanted:
        return True
    settings, spaces, ledger, objectives = job.settings, job.spaces, job.ledger, job.spaces.OBJECTIVES
    baselines = {name for name, _, baseline in queue if baseline}
    packers: list[Any] = []
    if searching and settings.pack > 1:
        settings = replace(settings, pack=settings.pack + len(baselines))  # or the last trial would have to wait
        packers = packs.start_packs(settings)
        given: dict[str, Any] = {"packers": packers, "joining": packs.join_arguments(settings, **parameters)}
        settings, trainable = packs.settings_of_packed_trials(settings), pack_trial.make_pack_trainable(job.folder.name)
    else:
        given, trainable = {"settings": settings, **parameters}, make_trainable(run, job.folder.name)
    known = len(ledger.of_state("running", *columns.FINAL_STATES))  # those that were cut off have been suggested, too
    sampler = tuning_searcher.sampler(settings.searcher, settings.seed, known)
    study = tuning_searcher.optuna_study(
        ledger,
        spaces.SPACE,
        objectives,
        min_accuracy=settings.min_accuracy,
        storage=tuning_searcher.fresh_journal(job.folder / paths.JOURNAL),
        chosen=sampler,
        name=job.folder.name,
    )
    searcher = LedgerSearch(
        ledger,
        study,
        spaces.SPACE,
        objectives,
        queue,
        wanted,
        Capacity(settings),
        settings.min_accuracy,
        seed=settings.seed,
    )
    job.recorder.searcher = searcher
    scheduler = None
    if searching and settings.scheduler == "asha":
        rungs = rungs_of(settings, objectives, ledger, job.folder)
        scheduler = HalvingScheduler(rungs, baselines)
    bound = tune.with_parameters(trainable, folder=job.folder, **given)
    tuner = tune.Tuner(
        tune.with_resources(bound, cluster.placement(settings)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=len(queue) + wanted,
            reuse_actors=True,
            trial_name_creator=lambda t: paths.trial_folder(t.config["trial_id"]),
            trial_dirname_creator=lambda t: paths.trial_folder(t.config["trial_id"]),
        ),
        run_config=tune.RunConfig(
            name=paths.RAY,
            storage_path=str(job.folder),
            callbacks=[job.recorder, TBXLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            verbose=2 if settings.verbose else 0,
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
        # Tune listens for the first Ctrl-C itself, and puts the handler back when it comes.
        return signal.getsignal(signal.SIGINT) is not handler
    except Exception as error:  # Tune trips over its own files when they could not be written
        if ledger.full or job.recorder.stopped == FULL_DISK:
            raise OSError(errno.ENOSPC, NO_SPACE) from error
        raise
    finally:
        for packer in packers:
            ray.kill(packer)
        signal.signal(signal.SIGINT, handler)  # where none came Tune would go on listening, and swallow the next


def recover_history(ledger: Ledger, folder: Path) -> None:
    """Take the history of trials that had just ended, when the last command was cut off, from their checkpoints."""
    for trial_id in [i for i, row in ledger.trials.items() if row["state"] in columns.FINAL_STATES]:
        path = checkpoints.path_of(folder, trial_id)
        if not path.exists():
            continue
        row = ledger.trials[trial_id]
        if len(ledger.history.get(trial_id, [])) < row["epochs"]:
            for epoch in checkpoints.rows_of(path)[: int(row["epochs"])]:
                ledger.epoch(trial_id, history_row(epoch))
    if ledger.unwritten:
        ledger.flush()
    for trial_id, row in ledger.trials.items():
        if row["state"] in columns.FINAL_STATES:
            checkpoints.delete_checkpoint(folder, trial_id)

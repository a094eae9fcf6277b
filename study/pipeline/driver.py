"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna learn from it, and are never restored.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study import addresses
from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, digest
from study.commandline import say_stage
from study.data.splits import Splits
from study.durations import seconds_of
from study.errors import UserError, no_memory, no_space, system_error
from study.methods import registry
from study.pipeline import metadata, preflight
from study.pipeline.configurations import check_results
from study.pipeline.final_test import confirm, record_sensitivity
from study.pipeline.fresh_seeds import announced, has_unconfirmed, means_over_seeds, retrain
from study.pipeline.preflight import Inputs
from study.pipeline.shared_work import study_shared_work
from study.records import object_store, paths, study_folder
from study.records.atomic_files import sweep
from study.records.columns import FINAL_STATES, Row
from study.records.folder_lock import locked
from study.records.ledger import Ledger
from study.records.schema import Meta
from study.settings import Settings
from study.tuning import cluster, ray_start
from study.tuning.display import Display
from study.tuning.journal import Journal
from study.tuning.monitor import Monitor, check_monitor
from study.tuning.node_data import prepare_nodes
from study.tuning.recorder import FULL_DISK, Recorder
from study.tuning.searcher import Queued, front
from study.tuning.space import SearchSpace
from study.tuning.trackers.tracker import check_installed, open_trackers
from study.tuning.tune_run import Job, Work, recover_history, run_trials

DAY = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """What a command left behind.

    Attributes:
        finished, wanted: trials in a final state, and how many were asked for.
        complete: whether all that was asked for is there, the confirmation too.
        stopped: why it stopped before that, if it did so by itself.
        ended: why the search ended with fewer trials, as the command asked for.
    """

    folder: Path
    finished: int
    wanted: int
    complete: bool
    stopped: str = ""
    ended: str = ""


def run(settings: Settings) -> Outcome:
    """Bring a study to `--num-samples` finished trials, test its front, and say where everything lies.

    Raises:
        UserError: bad settings, a study folder that was started with other ones, or no space left on the disk.
    """
    space = SearchSpace.of_study(settings)
    folder = settings.folder.resolve()
    check_installed(settings)
    with object_store.mirrored(folder):
        return _run(settings, space, folder)


def _run(settings: Settings, space: SearchSpace, folder: Path) -> Outcome:
    """`run`, with the folder as it is in the bucket, if the results lie in one."""
    settings, recorded = preflight.resume(settings, space)
    with locked(folder):
        paths.check_folders(folder)
        ledger = Ledger.open(folder)
        try:
            sweep(folder)
            sweep(folder.parent / paths.CACHE, older_than=DAY)
            check_results(settings, space, folder, ledger)
            recover_history(ledger, folder)
            stopped = ended = ""
            if is_complete(ledger, settings, space, folder):
                finished = len(ledger.of_state(*FINAL_STATES))
                there = f"{addresses.shown(folder)} has {finished} trials"
                print(f"Nothing to do: {there}. A larger --num-samples adds to them.")
                if recorded and recorded["settings"]["num_samples"] > finished:
                    wanted = {**recorded["settings"], "num_samples": settings.budget.num_samples}
                    study_folder.write_meta(folder, {**recorded, "settings": wanted})
            else:
                stopped, ended = _search(settings, space, folder, ledger, recorded)
        except Exception as error:
            if ledger.anchor and not ledger.anchor.exists():
                _remove_remains(folder)
                raise UserError(f"{folder}: removed or moved while the study ran") from error
            if reason := _what_happened(error, folder):
                raise UserError(reason) from error
            raise
        complete = is_complete(ledger, settings, space, folder)
        finished = len(ledger.of_state(*FINAL_STATES))
        return Outcome(folder, finished, settings.budget.num_samples, complete, stopped, ended)


def _remove_remains(folder: Path) -> None:
    """Remove what trials, Tune and Optuna wrote after the study folder was gone; there is no study that it is of."""
    for name in (checkpoints.FOLDER, paths.RAY):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / paths.JOURNAL).unlink(missing_ok=True)


def _what_happened(error: Exception, folder: Path) -> str:
    """What ended a study, where it is the disk, the memory or the folder; "" for all else."""
    if no_space(error):  # Tune wraps what its callbacks raise
        return f"{folder}: {FULL_DISK}, and the same command continues"
    if no_memory(error):
        return (
            f"{folder}: there is not enough memory; give a smaller --max-concurrent, fewer or smaller images, or a "
            "smaller network"
        )
    return system_error(error)


def is_complete(ledger: Ledger, settings: Settings, space: SearchSpace, folder: Path) -> bool:
    """Whether the study has all that the command asks for."""
    if remaining_trials(ledger, settings, space) or not (folder / paths.CONFIRMED).exists():
        return False
    if checkpoints.has_untested_results(folder):
        return False
    if settings.measuring.sensitivity and not (folder / paths.SENSITIVITY).exists():
        return False
    return not has_unconfirmed(settings, space, folder, ledger)


def remaining_trials(ledger: Ledger, settings: Settings, space: SearchSpace) -> int:
    """Trials still to run, baselines included."""
    baselines = {registry.method(settings.kind).shared_work.name, *space.baselines}
    have = {r["baseline"] for r in ledger.of_state(*FINAL_STATES, baseline=True)}
    searched = settings.budget.num_samples - len(ledger.of_state(*FINAL_STATES))
    return max(0, searched) + len(baselines - have)


def _search(
    settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger, recorded: Meta | None
) -> tuple[str, str]:
    """All stages of a study; returns why it stopped by itself, and why it ended early as the command asked, or "".

    Args:
        recorded: its `study.json`, if it was started before.
    """
    deadline = time.monotonic() + seconds_of(settings.budget.time)
    cluster.check_limits(settings)
    check_monitor(settings)
    inputs = preflight.load_inputs(settings, space, recorded)
    settings = inputs.settings
    monitor = Monitor(settings)
    trackers = open_trackers(settings, folder)
    say_stage("Starting Ray ...")
    try:
        dashboard = ray_start.start_ray(settings)
        monitor.start()
        cluster.check_shared(folder)
        prepare_nodes(inputs.data)
        gpus, concurrent = cluster.resources(settings, cluster.alive_nodes())
        settings = settings.changed(gpus_per_trial=gpus)
        settings = settings.changed(precision=settings.precision or cluster.best_precision_of_trials(settings))
        meta = _record(settings, space, folder, inputs, recorded)
        ledger.anchor = folder / paths.STUDY
        _announce(settings, folder, ledger, inputs, concurrent, dashboard)
        for line in [*monitor.addresses(), *metadata.data_warnings(meta)]:
            print(line)
        with _display(settings, space, ledger, concurrent, dashboard) as display:
            recorder = Recorder(ledger, display, space.objectives, settings, folder)
            recorder.trackers = trackers
            job = Job(settings, space, folder, recorder, deadline)
            best, confirmed, stopped, ended = _stages(job, display, inputs)
        display.summary(best[:10], confirmed, space.domains, means_over_seeds(folder))
        return stopped, ended
    finally:
        trackers.close()
        monitor.stop()
        ray_start.stop_ray()


def _record(settings: Settings, space: SearchSpace, folder: Path, inputs: Inputs, recorded: Meta | None) -> Meta:
    """Write `study.json`, and return it: of a new study all of it, of an old one this command."""
    if recorded is not None:
        meta = metadata.continued_metadata(recorded, settings, sys.argv)
        study_folder.write_meta(folder, meta)
        return meta
    key = registry.method(settings.kind).shared_work.key(settings, inputs.data, inputs.initial_weights)
    meta = metadata.study_metadata(settings, space, inputs.data, inputs.test, inputs.networks, sys.argv)
    meta["shared_work"] = digest(key)
    study_folder.write_meta(folder, meta)
    return meta


def _display(settings: Settings, space: SearchSpace, ledger: Ledger, at_once: int, dashboard: str) -> Display:
    return Display(
        ledger,
        space.objectives,
        settings.budget.num_samples,
        dashboard,
        at_once=at_once,
        shared_work=registry.method(settings.kind).shared_work.name,
        front_size=len(front(ledger, space.objectives, settings.search.min_accuracy)),
        afterwards=announced(settings),
    )


def _announce(
    settings: Settings, folder: Path, ledger: Ledger, inputs: Inputs, concurrent: int, dashboard: str
) -> None:
    remaining = max(0, settings.budget.num_samples - len(ledger.of_state(*FINAL_STATES)))
    seen = inputs.trial_data
    what = "images" if seen.has_images else "examples"
    images = f"{len(seen.train):,} training and {len(seen.validation):,} validation {what}"
    print(f"{folder.name}: {remaining} trials to run, {concurrent} at a time; {inputs.data.title}, {images}")
    for line in cluster.addresses(settings, dashboard):
        print(line)


def _stages(job: Job, display: Display, inputs: Inputs) -> tuple[list[str], dict[str, Row], str, str]:
    """Shared work, search, test, fresh seeds.

    Returns: ids of the front, its tested rows, why the study stopped by itself, and why its search ended early as the
        command asked, or "".
    """
    settings, space, ledger = job.settings, job.space, job.ledger
    shared = study_shared_work(job, inputs.data, inputs.initial_weights)
    searched = shared is not None and _search_trials(job, inputs.trial_data, shared, inputs.warm_start)
    job.recorder.close()
    best = front(ledger, space.objectives, settings.search.min_accuracy)
    confirmed: dict[str, Row] = {}
    stopped = job.recorder.stopped
    ended = job.recorder.searcher.ended if searched and job.recorder.searcher and not stopped else ""
    if shared is not None and searched and (ended or remaining_trials(ledger, settings, space) == 0):
        record_sensitivity(settings, job.folder, shared, inputs.data)
        confirmed = confirm(settings, space, job.folder, ledger, best, inputs.data, inputs.test)
        stopped = retrain(job, display, inputs) or stopped
    Journal(ledger, space, settings)  # now with test accuracies, and with what was cut off as waiting
    return best, confirmed, stopped, ended


def _search_trials(job: Job, data: Splits, shared: SharedWork, warm_start: Sequence[Row]) -> bool:
    """Stage two: the baselines, the trials that were cut off, another study's front, and then new ones.

    Returns: False after Ctrl-C.
    """
    settings, space, ledger = job.settings, job.space, job.ledger
    queue = [
        Queued(name, dict(values), name)
        for name, values in space.baselines.items()
        if ledger.trials.get(name, {}).get("state") not in FINAL_STATES
    ]
    remaining = max(0, settings.budget.num_samples - len(ledger.of_state(*FINAL_STATES)))
    interrupted = ledger.of_state("running")[:remaining]
    queue += [Queued(row["trial_id"], space.configuration(row), "") for row in interrupted]
    known = [space.configuration(row) for row in ledger.of_state("running", *FINAL_STATES)]
    fresh = [values for values in warm_start if values not in known][: remaining - len(interrupted)]
    queue += [Queued("", values, "") for values in fresh]
    wanted = remaining - len(interrupted) - len(fresh)
    work = Work(job.method.trial, data, {settings.seed: shared})
    return run_trials(job, work, queue, wanted, searching=True)

"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna learn from it, and are never restored.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, digest
from study.data.splits import Splits
from study.errors import UserError, no_space
from study.methods import registry
from study.pipeline import metadata, preflight
from study.pipeline.configurations import check_results
from study.pipeline.final_test import confirm
from study.pipeline.fresh_seeds import has_unconfirmed, retrain
from study.pipeline.preflight import Inputs
from study.pipeline.shared_work import study_shared_work
from study.records import paths, study_folder
from study.records.atomic_files import sweep
from study.records.columns import FINAL_STATES, Row
from study.records.ledger import Ledger
from study.records.schema import Meta
from study.settings import Settings
from study.tuning import cluster
from study.tuning.display import Display
from study.tuning.recorder import FULL_DISK, Recorder
from study.tuning.searcher import Queued, front
from study.tuning.space import SearchSpace
from study.tuning.tune_run import Job, Work, recover_history, run_trials

DAY = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """What a command left behind.

    Attributes:
        finished, wanted: trials in a final state, and how many were asked for.
        complete: whether all that was asked for is there, the confirmation too.
        stopped: why it stopped before that, if it did so by itself.
    """

    folder: Path
    finished: int
    wanted: int
    complete: bool
    stopped: str = ""


def run(settings: Settings) -> Outcome:
    """Bring a study to `--num-samples` finished trials, test its front, and say where everything lies.

    Raises:
        UserError: bad settings, a study folder that was started with other ones, or no space left on the disk.
    """
    space = SearchSpace.load(settings.kind)
    folder = settings.folder.resolve()
    settings, recorded = preflight.resume(settings, space)
    with _locked(folder):
        try:
            paths.check_folders(folder)
            sweep(folder)
            sweep(folder.parent / paths.CACHE, older_than=DAY)
            ledger = Ledger.open(folder)
            check_results(settings, space, folder, ledger)
            recover_history(ledger, folder)
            stopped = ""
            if is_complete(ledger, settings, space, folder):
                finished = len(ledger.of_state(*FINAL_STATES))
                print(f"Nothing to do: {folder} has {finished} trials. A larger --num-samples adds to them.")
                if recorded and recorded["settings"]["num_samples"] > finished:
                    wanted = {**recorded["settings"], "num_samples": settings.budget.num_samples}
                    study_folder.write_meta(folder, {**recorded, "settings": wanted})
            else:
                stopped = _search(settings, space, folder, ledger, recorded)
        except Exception as error:  # Tune wraps those of its callbacks
            if not no_space(error):
                raise
            raise UserError(f"{folder}: {FULL_DISK}, and the same command continues") from error
        complete = is_complete(ledger, settings, space, folder)
        return Outcome(folder, len(ledger.of_state(*FINAL_STATES)), settings.budget.num_samples, complete, stopped)


def is_complete(ledger: Ledger, settings: Settings, space: SearchSpace, folder: Path) -> bool:
    """Whether the study has all that the command asks for."""
    if remaining_trials(ledger, settings, space) or not (folder / paths.CONFIRMED).exists():
        return False
    if checkpoints.has_untested_results(folder):
        return False
    return not has_unconfirmed(settings, space, folder, ledger)


def remaining_trials(ledger: Ledger, settings: Settings, space: SearchSpace) -> int:
    """Trials still to run, baselines included."""
    baselines = {registry.method(settings.kind).shared_work.name, *space.baselines}
    have = {r["baseline"] for r in ledger.of_state(*FINAL_STATES, baseline=True)}
    searched = settings.budget.num_samples - len(ledger.of_state(*FINAL_STATES))
    return max(0, searched) + len(baselines - have)


def _search(settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger, recorded: Meta | None) -> str:
    """All stages of a study; returns why it stopped early, or "".

    Args:
        recorded: its `study.json`, if it was started before.
    """
    inputs = preflight.load_inputs(settings, space, recorded)
    dashboard = cluster.start_ray(settings)
    try:
        cluster.check_shared(folder)
        gpus, concurrent = cluster.resources(settings, cluster.alive_nodes())
        settings = settings.changed(gpus_per_trial=gpus)
        settings = settings.changed(precision=settings.precision or cluster.best_precision_of_trials(settings))
        _record(settings, space, folder, inputs, recorded)
        _announce(settings, folder, ledger, inputs, concurrent, dashboard)
        with Display(ledger, space.objectives, settings.budget.num_samples, dashboard) as display:
            job = Job(settings, space, folder, Recorder(ledger, display, space.objectives, settings, folder))
            best, confirmed, stopped = _stages(job, display, inputs)
        display.summary(best[:10], confirmed, space.domains)
        return stopped
    finally:
        cluster.stop_ray()


def _record(settings: Settings, space: SearchSpace, folder: Path, inputs: Inputs, recorded: Meta | None) -> None:
    """Write `study.json`: of a new study all of it, of an old one this command."""
    if recorded is not None:
        study_folder.write_meta(folder, metadata.continued_metadata(recorded, settings, sys.argv))
        return
    key = registry.method(settings.kind).shared_work.key(settings, inputs.data, inputs.initial_teacher)
    meta = metadata.study_metadata(settings, space, inputs.data, inputs.test, inputs.networks, sys.argv)
    study_folder.write_meta(folder, {**meta, "shared_work": digest(key)})


def _announce(
    settings: Settings, folder: Path, ledger: Ledger, inputs: Inputs, concurrent: int, dashboard: str
) -> None:
    remaining = max(0, settings.budget.num_samples - len(ledger.of_state(*FINAL_STATES)))
    seen = inputs.trial_data
    images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
    print(f"{folder.name}: {remaining} trials to run, {concurrent} at a time; {inputs.data.title}, {images}")
    for line in cluster.addresses(settings, dashboard):
        print(line)


def _stages(job: Job, display: Display, inputs: Inputs) -> tuple[list[str], dict[str, Row], str]:
    """Shared work, search, test, fresh seeds.

    Returns: ids of the front, its tested rows, and why the study stopped early, or "".
    """
    settings, space, ledger = job.settings, job.space, job.ledger
    shared = study_shared_work(job, inputs.data, inputs.initial_teacher)
    searched = shared is not None and _search_trials(job, inputs.trial_data, shared, inputs.warm_start)
    job.recorder.close()
    best = front(ledger, space.objectives, settings.search.min_accuracy)
    confirmed: dict[str, Row] = {}
    stopped = job.recorder.stopped
    if searched and remaining_trials(ledger, settings, space) == 0:
        confirmed = confirm(settings, space, job.folder, ledger, best, inputs.data, inputs.test)
        stopped = retrain(job, display, inputs) or stopped
    return best, confirmed, stopped


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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a study folder, so that a second command on it stops instead of writing over the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--results-dir {folder.parent}: cannot be written ({error.strerror}); give a folder that you may write to"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another command is running this study; wait for it, or choose --name") from None
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # bad input: leave nothing behind
                (folder / ".lock").unlink()
                folder.rmdir()

"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna are told, and never restored.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, digest
from study.data.splits import Splits
from study.errors import UserError, no_space
from study.methods.registry import KINDS
from study.pipeline import metadata, preflight
from study.pipeline.final_test import confirm
from study.pipeline.fresh_seeds import has_unconfirmed, retrain
from study.pipeline.shared_work import study_shared_work
from study.records import columns, paths, study_folder
from study.records.ledger import Ledger
from study.settings import Settings
from study.tuning import cluster, searcher, space
from study.tuning.display import Display
from study.tuning.recorder import FULL_DISK, Recorder
from study.tuning.tune_run import Job, Queue, recover_history, run_trials


@dataclass(frozen=True)
class Outcome:
    """What a command left behind.

    Attributes:
        finished, wanted: trials in a final state, and how many were asked for.
        whole: whether all that was asked for is there, the confirmation too.
        stopped: why it stopped before that, if it did so by itself.
    """

    folder: Path
    finished: int
    wanted: int
    whole: bool
    stopped: str = ""


def run(settings: Any) -> Outcome:
    """Bring a study to `settings.num_samples` finished trials, test its front, and say where everything lies.

    Raises:
        UserError: bad settings, a study folder that was begun with other ones, or no space left on the disk.
    """
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    folder = settings.folder.resolve()
    settings, recorded = preflight.resume(settings, spaces)
    with _locked(folder):
        try:
            ledger = Ledger.open(folder)
            recover_history(ledger, folder)
            stopped = ""
            if _whole(ledger, settings, spaces, folder):
                finished = len(ledger.of_state(*columns.FINAL_STATES))
                print(f"Nothing to do: {folder} has {finished} trials. A larger --num-samples adds to them.")
                if recorded and recorded["settings"]["num_samples"] > finished:
                    wanted = {**recorded["settings"], "num_samples": settings.num_samples}  # no longer what it was
                    study_folder.write_meta(folder, {**recorded, "settings": wanted})
            else:
                stopped = _search(settings, spaces, folder, ledger, recorded)
        except Exception as error:  # Tune wraps those of its callbacks
            if not no_space(error):
                raise
            raise UserError(f"{folder}: {FULL_DISK}, and the same command continues") from error
        finished, whole = len(ledger.of_state(*columns.FINAL_STATES)), _whole(ledger, settings, spaces, folder)
        return Outcome(folder, finished, settings.num_samples, whole, stopped)


def _whole(ledger: Ledger, settings: Any, spaces: Any, folder: Path) -> bool:
    """Whether the study is what the command says it shall be."""
    if (
        _missing(ledger, settings, spaces)
        or not (folder / paths.CONFIRMED).exists()
        or checkpoints.has_untested_results(folder)
    ):
        return False
    return not has_unconfirmed(settings, spaces, folder, ledger)


def _missing(ledger: Ledger, settings: Settings, spaces: Any) -> int:
    """Trials still to run, baselines included."""
    final = columns.FINAL_STATES
    baselines = {KINDS[settings.kind].first, *spaces.BASELINES}
    have = {r["baseline"] for r in ledger.of_state(*final, baseline=True)}
    return max(0, settings.num_samples - len(ledger.of_state(*final))) + len(baselines - have)


def _search(settings: Any, spaces: Any, folder: Path, ledger: Ledger, recorded: dict[str, Any] | None) -> str:
    """All stages of a study; returns why it stopped early, or "".

    Args:
        recorded: its `study.json`, if it was begun before.
    """
    brought = preflight.load_inputs(settings, spaces, recorded)
    data, test, seen, given = brought.data, brought.test, brought.seen, brought.given
    dashboard = cluster.start_ray(settings)
    try:
        cluster.check_shared(folder)
        gpus, concurrent = cluster.resources(settings, cluster.alive_nodes())
        settings = replace(settings, gpus_per_trial=gpus)
        settings = replace(settings, precision=settings.precision or cluster.best_precision_of_trials(settings))
        if recorded is not None:
            study_folder.write_meta(folder, metadata.continued_metadata(recorded, settings, sys.argv))
        else:
            key = KINDS[settings.kind].key(settings, data, given)
            meta = metadata.study_metadata(settings, spaces, data, test, brought.networks, sys.argv)
            study_folder.write_meta(folder, {**meta, "shared_work": digest(key)})
        left = max(0, settings.num_samples - len(ledger.of_state(*columns.FINAL_STATES)))
        images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {images}")
        for line in cluster.addresses(settings, dashboard):
            print(line)
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            job = Job(settings, spaces, folder, Recorder(ledger, display, spaces.OBJECTIVES, settings, folder))
            shared = study_shared_work(job, data, given)
            ended = shared is not None and _search_trials(job, seen, shared, brought.warm)
            job.recorder.close()
            best = searcher.front(ledger, spaces.OBJECTIVES, settings.min_accuracy)
            confirmed: dict[str, dict[str, Any]] = {}
            stopped = job.recorder.stopped
            if ended and _missing(ledger, settings, spaces) == 0:
                confirmed = confirm(settings, folder, ledger, best, data, test)
                stopped = retrain(job, display, data, test, seen, given) or stopped
        display.summary(best[:10], confirmed, spaces.SPACE)
        return stopped
    finally:
        cluster.stop_ray()


def _search_trials(job: Job, data: Splits, shared: SharedWork, warm: Sequence[dict[str, Any]]) -> bool:
    """Stage two: the baselines, the trials that were cut off, another study's front, and then new ones.

    Returns: False after Ctrl-C.
    """
    settings, spaces, ledger = job.settings, job.spaces, job.ledger
    final = columns.FINAL_STATES
    queue: Queue = [
        (name, values, name)
        for name, values in spaces.BASELINES.items()
        if ledger.trials.get(name, {}).get("state") not in final
    ]
    left = settings.num_samples - len(ledger.of_state(*final))
    owed = ledger.of_state("running")[: max(0, left)]
    queue += [(r["trial_id"], {k: space.cast_value(k, r[k], spaces) for k in spaces.SPACE}, "") for r in owed]
    known = [{k: r[k] for k in spaces.SPACE} for r in ledger.of_state("running", *final)]
    fresh = [values for values in warm if values not in known][: max(0, left - len(owed))]
    queue += [("", values, "") for values in fresh]
    wanted = max(0, left - len(owed) - len(fresh))
    parameters = {"data": data, "shared": {settings.seed: shared}}
    return run_trials(job, KINDS[settings.kind].search, parameters, queue, wanted, searching=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a study folder, so that a second command on it stops instead of writing over the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--results-dir {folder.parent}: cannot write there ({error.strerror})") from error
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

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

from study import machine  # isort: skip  (first of all: it sets what Ray reads when it is imported)

import ray

from study import checkpoints, describe, inputs, kd, results, search
from study.cache import Shared, digest, kept, read_arrays, same_arrays, write_arrays
from study.confirm import confirm
from study.data import Splits
from study.display import Display
from study.errors import UserError, no_space
from study.files import write_bytes
from study.recorder import FULL_DISK, Recorder
from study.results import Ledger
from study.retraining import retrain, unconfirmed
from study.settings import Common
from study.stage import Job, Queue, prepared, recover, run_trials
from study.trace import pack
from study.trainables import KINDS, trained_network


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
    settings, recorded = inputs.begun(settings, spaces)
    with _locked(folder):
        try:
            ledger = Ledger.open(folder)
            recover(ledger, folder)
            stopped = ""
            if _whole(ledger, settings, spaces, folder):
                finished = len(ledger.of_state(*results.FINAL_STATES))
                print(f"Nothing to do: {folder} has {finished} trials. A larger --num-samples adds to them.")
                if recorded and recorded["settings"]["num_samples"] > finished:
                    wanted = {**recorded["settings"], "num_samples": settings.num_samples}  # no longer what it was
                    results.write_meta(folder, {**recorded, "settings": wanted})
            else:
                stopped = _search(settings, spaces, folder, ledger, recorded)
        except Exception as error:  # Tune wraps those of its callbacks
            if not no_space(error):
                raise
            raise UserError(f"{folder}: {FULL_DISK}, and the same command continues") from error
        finished, whole = len(ledger.of_state(*results.FINAL_STATES)), _whole(ledger, settings, spaces, folder)
        return Outcome(folder, finished, settings.num_samples, whole, stopped)


def _whole(ledger: Ledger, settings: Any, spaces: Any, folder: Path) -> bool:
    """Whether the study is what the command says it shall be."""
    if _missing(ledger, settings, spaces) or not (folder / results.CONFIRMED).exists() or checkpoints.waiting(folder):
        return False
    return not unconfirmed(settings, spaces, folder, ledger)


def _missing(ledger: Ledger, settings: Common, spaces: Any) -> int:
    """Trials still to run, baselines included."""
    final = results.FINAL_STATES
    baselines = {KINDS[settings.kind].first, *spaces.BASELINES}
    have = {r["baseline"] for r in ledger.of_state(*final, baseline=True)}
    return max(0, settings.num_samples - len(ledger.of_state(*final))) + len(baselines - have)


def _search(settings: Any, spaces: Any, folder: Path, ledger: Ledger, recorded: dict[str, Any] | None) -> str:
    """All stages of a study; returns why it stopped early, or "".

    Args:
        recorded: its `study.json`, if it was begun before.
    """
    brought = inputs.brought(settings, spaces, recorded)
    data, test, seen, given = brought.data, brought.test, brought.seen, brought.given
    dashboard = machine.start_ray(settings)
    try:
        machine.check_shared(folder)
        gpus, concurrent = machine.resources(settings, machine.living())
        settings = replace(settings, gpus_per_trial=gpus)
        settings = replace(settings, precision=settings.precision or machine.fitting_precision(settings))
        if recorded is not None:
            results.write_meta(folder, describe.continued(recorded, settings, sys.argv))
        else:
            key = KINDS[settings.kind].key(settings, data, given)
            meta = describe.meta(settings, spaces, data, test, brought.networks, sys.argv)
            results.write_meta(folder, {**meta, "shared_work": digest(key)})
        left = max(0, settings.num_samples - len(ledger.of_state(*results.FINAL_STATES)))
        images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {images}")
        for line in machine.addresses(settings, dashboard):
            print(line)
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            job = Job(settings, spaces, folder, Recorder(ledger, display, spaces.OBJECTIVES, settings, folder))
            shared = _shared(job, data, given)
            ended = shared is not None and _search_trials(job, seen, shared, brought.warm)
            job.recorder.close()
            best = search.front(ledger, spaces.OBJECTIVES, settings.min_accuracy)
            confirmed: dict[str, dict[str, Any]] = {}
            stopped = job.recorder.stopped
            if ended and _missing(ledger, settings, spaces) == 0:
                confirmed = confirm(settings, folder, ledger, best, data, test)
                stopped = retrain(job, display, data, test, seen, given) or stopped
        display.summary(best[:10], confirmed, spaces.SPACE)
        return stopped
    finally:
        ray.shutdown()


def _shared(job: Job, data: Splits, given: Shared | None) -> Shared | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off.

    Raises:
        UserError: the study's trials began from another one, which is in the cache no more.
    """
    kind, ledger, folder = KINDS[job.settings.kind], job.ledger, job.folder
    cache, seed = folder.parent / results.CACHE, job.settings.seed
    row, told = ledger.trials.get(kind.first), ledger.history.get(kind.first, [])
    # By what the study was begun with: another version of torch would train another one.
    shared = kept(cache, kind.first, results.read_meta(folder).get("shared_work", ""))
    if shared is None:
        found = prepared(job, data, given, {seed: kind.first}, cache)
        if found is None:
            return None
        shared = found[seed]
    path, weights = folder / results.MODELS / f"{kind.first}.safetensors", shared.weights()
    if row and path.exists() and not same_arrays(read_arrays(path), weights.arrays):
        ledger.trials[kind.first], ledger.history[kind.first] = row, told
        ledger.flush()
        raise UserError(
            f"{folder}: its trials began from another {kind.first} than comes out now, and that one is no longer in "
            f"{cache}; bring that folder back as it was, or choose another --name"
        )
    if ledger.trials.get(kind.first, {}).get("state") != "complete":  # it was in the cache
        row = {k: v for k, v in shared.record["metrics"].items() if k not in results.TRIAL_COLUMNS}
        ledger.start(kind.first, {}, kind.first)
        ledger.history[kind.first] = shared.record["history"]
        ledger.finish(kind.first, "complete", "", row, shared.record["metrics"]["seconds"])
        ledger.flush()
    write_arrays(path, weights.arrays)
    if kind.first == "teacher" and not results.trace_of(folder, kind.first).exists():
        teacher = kd.load(weights.tensors(), trained_network(job.settings, kind.first), data)
        write_bytes(results.trace_of(folder, kind.first), pack(kd.dark_knowledge(teacher, data)))
    return shared


def _search_trials(job: Job, data: Splits, shared: Shared, warm: Sequence[dict[str, Any]]) -> bool:
    """Stage two: the baselines, the trials that were cut off, another study's front, and then new ones.

    Returns: False after Ctrl-C.
    """
    settings, spaces, ledger = job.settings, job.spaces, job.ledger
    final = results.FINAL_STATES
    queue: Queue = [
        (name, values, name)
        for name, values in spaces.BASELINES.items()
        if ledger.trials.get(name, {}).get("state") not in final
    ]
    left = settings.num_samples - len(ledger.of_state(*final))
    owed = ledger.of_state("running")[: max(0, left)]
    queue += [(r["trial_id"], {k: search.typed(k, r[k], spaces) for k in spaces.SPACE}, "") for r in owed]
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

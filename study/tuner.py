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

from study import describe, inputs, kd, results, search
from study.cache import Shared, write_arrays
from study.confirm import confirm
from study.data import Splits
from study.display import Display
from study.errors import UserError, no_space
from study.files import write_bytes
from study.recorder import FULL_DISK, Recorder
from study.results import Ledger
from study.retraining import retrain, unconfirmed
from study.settings import OLDER_PRECISION, Common, contradiction
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
    recorded = results.read_meta(folder) if (folder / results.STUDY).exists() else None
    if recorded and recorded["kind"] != settings.kind:
        raise UserError(f"--name {folder.name}: that study is of kind {recorded['kind']}; choose another --name")
    if recorded and settings.precision is None:
        settings = replace(settings, precision=recorded["settings"].get("precision", OLDER_PRECISION))
    if recorded and (difference := contradiction(settings, recorded["settings"])):
        raise UserError(f"{folder} was begun with other settings: {difference}; choose another --name")
    if recorded:
        inputs.check_spaces(recorded, spaces, folder)
    with _locked(folder):
        try:
            ledger = Ledger.open(folder)
            recover(ledger, folder)
            stopped = ""
            if _whole(ledger, settings, spaces, folder):
                print(
                    f"Nothing to do: {folder} has its {settings.num_samples} trials. "
                    "A larger --num-samples adds to them."
                )
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
    if _missing(ledger, settings, spaces) or not (folder / results.CONFIRMED).exists():
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
    data, test = describe.load_data(settings)
    # Wrong names, widths and numbers of examples fail here, before anything starts.
    networks, seen = describe.networks(settings, spaces, data), KINDS[settings.kind].trial_data(settings, data)
    if recorded:
        inputs.check_data(recorded, settings, data, test)
        inputs.check_code(recorded, settings, networks)
    inputs.check_packing(settings, data)
    given, warm = inputs.given_teacher(settings, data), inputs.warm_start(settings, spaces)
    dashboard = machine.start_ray(settings)
    try:
        machine.check_shared(folder)
        gpus, concurrent = machine.resources(settings, machine.living())
        settings = replace(settings, gpus_per_trial=gpus)
        settings = replace(settings, precision=settings.precision or machine.fitting_precision(settings))
        if recorded is None:
            results.write_meta(folder, describe.meta(settings, spaces, data, test, networks, sys.argv))
        left = max(0, settings.num_samples - len(ledger.of_state(*results.FINAL_STATES)))
        images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {images}")
        for line in machine.addresses(settings, dashboard):
            print(line)
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            job = Job(settings, spaces, folder, Recorder(ledger, display, spaces.OBJECTIVES, settings, folder))
            shared = _shared(job, data, given)
            ended = shared is not None and _search_trials(job, seen, shared, warm)
            job.recorder.close()
            best = search.front(ledger, spaces.OBJECTIVES, settings.min_accuracy)
            confirmed: dict[str, dict[str, Any]] = {}
            if ended and _missing(ledger, settings, spaces) == 0:
                confirmed = confirm(settings, folder, ledger, best, data, test)
                retrain(job, display, data, test, seen, given)
        display.summary(best[:10], confirmed, spaces.SPACE)
        return job.recorder.stopped
    finally:
        ray.shutdown()


def _shared(job: Job, data: Splits, given: Shared | None) -> Shared | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off."""
    kind, ledger, folder = KINDS[job.settings.kind], job.ledger, job.folder
    first = prepared(job, data, given, {job.settings.seed: kind.first}, folder.parent / results.CACHE)
    if first is None:
        return None
    shared = first[job.settings.seed]
    if ledger.trials.get(kind.first, {}).get("state") != "complete":  # it was in the cache
        row = {k: v for k, v in shared.record["metrics"].items() if k not in results.TRIAL_COLUMNS}
        ledger.start(kind.first, {}, kind.first)
        ledger.history[kind.first] = shared.record["history"]
        ledger.finish(kind.first, "complete", "", row, shared.record["metrics"]["seconds"])
        ledger.flush()
    weights = shared.weights()
    write_arrays(folder / results.MODELS / f"{kind.first}.safetensors", weights.arrays)
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

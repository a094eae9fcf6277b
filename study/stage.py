"""One stage of a study: Ray Tune over a queue of trials and what Optuna suggests, and work that a stage shares."""

from __future__ import annotations

import errno
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study import machine  # isort: skip  (first of all: it sets what Ray reads when it is imported)

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import FIFOScheduler

from study import checkpoints, packed_trial, packing, results, search
from study.cache import Shared, read_arrays, remember
from study.data import Splits
from study.errors import NO_SPACE, UserError
from study.halving import Rungs
from study.recorder import FULL_DISK, Recorder
from study.results import Ledger
from study.trainables import KINDS, trial

Queue = list[tuple[str, dict[str, Any], str]]
"""Configurations to run before Optuna is asked: trial id, hyperparameters, baseline's name or ""."""

IN_PLACE_OF = {"file_bytes": "entropy_bytes"}
"""Objective that only a finished trial has → what every epoch that quantises reports, by which trials are judged."""


class Halving(FIFOScheduler):
    """Successive halving among the searched trials: a baseline is neither stopped nor the measure for others."""

    def __init__(self, rungs: Rungs, baselines: Collection[str]) -> None:
        super().__init__()
        self.rungs, self.baselines = rungs, baselines

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        trial_id = trial.config["trial_id"]
        reported = "epoch" in result and not result.get("finished") and not result.get("failure")
        if trial_id in self.baselines or not reported or self.rungs.judge(trial_id, result["epoch"], result):
            return str(self.CONTINUE)
        return str(self.STOP)


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


def rungs_of(settings: Any, objectives: Mapping[str, str], ledger: Ledger, folder: Path) -> Rungs:
    """The rungs of a study, where its trials are recorded with what they had reported before this command."""
    measured = {IN_PLACE_OF.get(metric, metric): direction for metric, direction in objectives.items()}
    kind = KINDS[settings.kind]
    epochs, before = kind.epochs(settings), kind.before(settings)
    # Early on, what quantising would give says little of what it will: tests/benchmarks/search_replay.py.
    rungs = Rungs(measured, epochs, grace=max(1, before + (epochs - before) // (2 if len(objectives) > 1 else 4)))
    for trial_id, row in ledger.trials.items():
        if not row["baseline"]:
            told = ledger.history.get(trial_id) or checkpoints.rows_of(checkpoints.path_of(folder, trial_id))
            # The last epoch of one that was cut off may have had no verdict yet: it is told again, and judged then. A
            # trial begins no epoch before its verdict on the one before.
            rungs.recall(trial_id, told[:-1] if row["state"] == "running" else told)
    return rungs


class _Missing(Exception):
    """A piece of shared work is not in the cache."""


def prepared(
    job: Job, data: Splits, given: Shared | None, names: Mapping[int, str], cache: Path
) -> dict[int, Shared] | None:
    """The shared work for each of these seeds, from the cache or from trials that run side by side; None if cut off.

    Args:
        names: seed → trial id.
    Raises:
        UserError: it failed now. What failed in an earlier command is tried again, since its cause may be gone.
    """
    kind, ledger = KINDS[job.settings.kind], job.ledger

    def take(seed: int) -> Shared:
        """From the trial that did it."""
        row = ledger.trials.get(names[seed], {"state": "running"})
        path = checkpoints.weights_of(checkpoints.path_of(job.folder, names[seed]))
        if row["state"] != "complete" or not path.exists():
            raise _Missing
        return Shared(read_arrays(path), {"metrics": row, "history": ledger.history.get(names[seed], [])})

    def collect() -> tuple[dict[int, Shared], list[int]]:
        found, missing = {}, []
        for seed in names:
            key = kind.key(replace(job.settings, seed=seed), data, given)
            try:
                found[seed] = remember(cache, kind.first, key, lambda seed=seed: take(seed))[0]  # type: ignore[misc]
            except _Missing:
                missing.append(seed)
        return found, missing

    found, missing = collect()
    ended = True
    if missing:
        queue: Queue = [
            (names[seed], {} if seed == job.settings.seed else {"seed": seed}, kind.first) for seed in missing
        ]
        for trial_id, values, baseline in queue:
            ledger.start(trial_id, values, baseline)  # one that failed in an earlier command is owed again
        parameters = {"data": data, "shared": dict.fromkeys(names, given)}
        settings = machine.for_shared_work(job.settings, len(names))
        ended = run_trials(replace(job, settings=settings), kind.prepare, parameters, queue)
        found, missing = collect()
        for row in (ledger.trials.get(names[seed], {}) for seed in missing):
            if row.get("state") == "failed":
                raise UserError(f"the {kind.first} could not be trained: {row['reason']}")
    for seed in names:
        checkpoints.discard(job.folder, names[seed])
    return found if ended and not missing else None


def run_trials(
    job: Job,
    run: Any,
    parameters: dict[str, Any],
    queue: Queue,
    wanted: int = 0,
    searching: bool = False,
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
        packers = packing.packers(settings)
        given: dict[str, Any] = {"packers": packers, "joining": packing.joining(settings, **parameters)}
        settings, trainable = packing.of_trials(settings), packed_trial.trial(job.folder.name)
    else:
        given, trainable = {"settings": settings, **parameters}, trial(run, job.folder.name)
    known = len(ledger.of_state("running", *results.FINAL_STATES))  # those that were cut off have been suggested, too
    sampler = search.sampler(settings.searcher, settings.seed, known)
    study = search.study_of(
        ledger,
        spaces.SPACE,
        objectives,
        min_accuracy=settings.min_accuracy,
        storage=search.fresh_journal(job.folder / results.JOURNAL),
        chosen=sampler,
        name=job.folder.name,
    )
    searcher = search.LedgerSearch(
        ledger,
        study,
        spaces.SPACE,
        objectives,
        queue,
        wanted,
        machine.Capacity(settings),
        settings.min_accuracy,
        seed=settings.seed,
    )
    job.recorder.searcher = searcher
    scheduler = None
    if searching and settings.scheduler == "asha":
        rungs = rungs_of(settings, objectives, ledger, job.folder)
        scheduler = Halving(rungs, baselines)
    bound = tune.with_parameters(trainable, folder=job.folder, **given)
    tuner = tune.Tuner(
        tune.with_resources(bound, machine.request(settings)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=len(queue) + wanted,
            reuse_actors=True,
            trial_name_creator=lambda t: results.trial_folder(t.config["trial_id"]),
            trial_dirname_creator=lambda t: results.trial_folder(t.config["trial_id"]),
        ),
        run_config=tune.RunConfig(
            name=results.RAY,
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


def recover(ledger: Ledger, folder: Path) -> None:
    """Take the history of trials that had just ended, when the last command was cut off, from their checkpoints."""
    for trial_id in [i for i, row in ledger.trials.items() if row["state"] in results.FINAL_STATES]:
        path = checkpoints.path_of(folder, trial_id)
        if not path.exists():
            continue
        row = ledger.trials[trial_id]
        if len(ledger.history.get(trial_id, [])) < row["epochs"]:
            for epoch in checkpoints.rows_of(path)[: int(row["epochs"])]:
                ledger.epoch(trial_id, results.history_row(epoch))
    if ledger.unwritten:
        ledger.flush()
    for trial_id, row in ledger.trials.items():
        if row["state"] in results.FINAL_STATES:
            checkpoints.forget(folder, trial_id)

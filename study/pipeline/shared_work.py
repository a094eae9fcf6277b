"""The work that all trials share (a teacher, a trained network): from the cache, or from a trial of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, get, get_or_compute, read_arrays, same_arrays, write_arrays
from study.artifacts.finite import not_finite
from study.artifacts.weight_trace import npz_bytes
from study.data.splits import Splits
from study.errors import UserError
from study.pipeline.configurations import configuration_of
from study.records import paths, study_folder
from study.records.atomic_files import write_bytes
from study.records.columns import CONFIGURATION, TIME_COLUMNS, TRIAL_COLUMNS
from study.records.ledger import Ledger
from study.tuning import cluster, measuring
from study.tuning.searcher import Queued
from study.tuning.tune_run import Job, Work, run_trials


class _Missing(Exception):
    """A piece of shared work is not in the cache."""


def load_or_train(
    job: Job, data: Splits, initial_weights: SharedWork | None, names: Mapping[int, str], cache: Path
) -> dict[int, SharedWork] | None:
    """The shared work for each of these seeds, from the cache or from trials that run side by side; None if cut off.

    Args:
        names: seed → trial id.
    Raises:
        UserError: it failed now. What failed in an earlier command is tried again, since its cause may be gone.
    """
    stage, ledger = job.method.shared_work, job.ledger
    shared, missing = _collect(job, data, initial_weights, names, cache)
    completed = True
    if missing:
        own = job.settings.seed
        queue = [Queued(names[seed], {} if seed == own else {"seed": seed}, stage.name) for seed in missing]
        for trial in queue:
            ledger.start(*trial)  # one that failed in an earlier command is tried again
        settings = cluster.for_shared_work(job.settings, len(names)).changed(measure="none")  # see `study_shared_work`
        work = Work(stage.run, data, dict.fromkeys(names, initial_weights))
        completed = run_trials(replace(job, settings=settings), work, queue)
        shared, missing = _collect(job, data, initial_weights, names, cache)
        for row in (ledger.trials.get(names[seed], {}) for seed in missing):
            if row.get("state") == "failed":
                noun = _in_words(stage.name)
                raise UserError(f"training the {noun} failed: {row['reason']}; the same command tries again")
    for name in names.values():
        checkpoints.delete_result(job.folder, name)
    return shared if completed and not missing else None


def _collect(
    job: Job, data: Splits, initial_weights: SharedWork | None, names: Mapping[int, str], cache: Path
) -> tuple[dict[int, SharedWork], list[int]]:
    """By seed what is in the cache, or was just trained and goes there; and the seeds of what is not."""
    stage = job.method.shared_work
    shared, missing = {}, []
    for seed, name in names.items():
        key = stage.key(job.settings.changed(seed=seed), data, initial_weights)
        try:
            shared[seed], _ = get_or_compute(cache, stage.name, key, partial(_from_trial, job, name))
        except _Missing:
            missing.append(seed)
    return shared, missing


def _from_trial(job: Job, trial_id: str) -> SharedWork:
    """What the trial left that did the work."""
    row = job.ledger.trials.get(trial_id, {"state": "running"})
    path = checkpoints.weights_of(checkpoints.path_of(job.folder, trial_id))
    if row["state"] != "complete" or not path.exists():
        raise _Missing
    arrays = read_arrays(path)
    if not_finite(arrays):  # an earlier version of the harness took that for complete
        raise _Missing
    return SharedWork(arrays, {"metrics": row, "history": job.ledger.history.get(trial_id, [])})


def study_shared_work(job: Job, data: Splits, initial_weights: SharedWork | None) -> SharedWork | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off.

    Raises:
        UserError: the study's trials started from another one, which is no longer in the cache.
    """
    stage, ledger, folder = job.method.shared_work, job.ledger, job.folder
    cache, seed, name = folder.parent / paths.CACHE, job.settings.seed, stage.name
    row, history = ledger.trials.get(name), ledger.history.get(name, [])
    # By what the study was started with: another version of torch would train another one.
    shared = get(cache, name, study_folder.read_meta(folder).get("shared_work", ""))
    if shared is None:
        trained = load_or_train(job, data, initial_weights, {seed: name}, cache)
        if trained is None:
            return None
        shared = trained[seed]
    path, weights = paths.model_of(folder, name), shared.weights()
    if row and path.exists() and not same_arrays(read_arrays(path), weights.arrays):
        ledger.trials[name], ledger.history[name] = row, history
        ledger.flush()
        raise UserError(
            f"{folder}: its trials started from another {_in_words(name)} than comes out now, and that one is no "
            f"longer in {cache}; restore that folder from a copy, or choose another --name"
        )
    for baseline, work in {name: SharedWork(weights.arrays, shared.record), **stage.further(shared)}.items():
        if ledger.trials.get(baseline, {}).get("state") != "complete":  # it was in the cache, or has no trial
            _record(ledger, baseline, work)
        if baseline == name and job.settings.measuring.measure != "none" and "latency_ms" not in ledger.trials[name]:
            ledger.trials[name] |= measuring.first_cost(job.settings, data)
            ledger.flush()
        configuration = configuration_of(job.settings, job.space, ledger.trials[baseline], seed)
        write_arrays(paths.model_of(folder, baseline), work.arrays, {CONFIGURATION: configuration})
    if stage.trace and not paths.trace_of(folder, name).exists():
        if arrays := stage.trace(job.settings, data, shared):
            write_bytes(paths.trace_of(folder, name), npz_bytes(arrays))
    return shared


def _record(ledger: Ledger, baseline: str, work: SharedWork) -> None:
    """Give a network of the shared work its row."""
    metrics = {k: v for k, v in work.record["metrics"].items() if k not in TRIAL_COLUMNS}
    ledger.start(baseline, {}, baseline)
    ledger.history[baseline] = [{**row, "trial_id": baseline} for row in work.record["history"]]
    ledger.finish(baseline, "complete", "", metrics, work.record["metrics"]["seconds"])
    for column in TIME_COLUMNS:  # it was trained before, by another study
        del ledger.trials[baseline][column]
    ledger.flush()


def _in_words(name: str) -> str:
    """The shared work as a noun: "teacher", "uncompressed network"."""
    return f"{name} network" if name == "uncompressed" else name

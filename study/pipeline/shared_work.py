"""The work that all trials share (a teacher, a pretrained network): from the cache, or from a trial of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, get, get_or_compute, read_arrays, same_arrays, write_arrays
from study.artifacts.weight_trace import pack
from study.data.splits import Splits
from study.errors import UserError
from study.methods.kd import student
from study.methods.registry import KINDS, trained_network
from study.records import columns, paths, study_folder
from study.records.atomic_files import write_bytes
from study.training import network
from study.tuning import cluster
from study.tuning.tune_run import Job, Queue, run_trials


class _Missing(Exception):
    """A piece of shared work is not in the cache."""


def load_or_train(
    job: Job, data: Splits, given: SharedWork | None, names: Mapping[int, str], cache: Path
) -> dict[int, SharedWork] | None:
    """The shared work for each of these seeds, from the cache or from trials that run side by side; None if cut off.

    Args:
        names: seed → trial id.
    Raises:
        UserError: it failed now. What failed in an earlier command is tried again, since its cause may be gone.
    """
    kind, ledger = KINDS[job.settings.kind], job.ledger

    def take(seed: int) -> SharedWork:
        """From the trial that did it."""
        row = ledger.trials.get(names[seed], {"state": "running"})
        path = checkpoints.weights_of(checkpoints.path_of(job.folder, names[seed]))
        if row["state"] != "complete" or not path.exists():
            raise _Missing
        return SharedWork(read_arrays(path), {"metrics": row, "history": ledger.history.get(names[seed], [])})

    def collect() -> tuple[dict[int, SharedWork], list[int]]:
        found, missing = {}, []
        for seed in names:
            key = kind.key(replace(job.settings, seed=seed), data, given)
            try:
                found[seed] = get_or_compute(cache, kind.first, key, lambda seed=seed: take(seed))[0]  # type: ignore[misc]
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
        settings = cluster.for_shared_work(job.settings, len(names))
        ended = run_trials(replace(job, settings=settings), kind.prepare, parameters, queue)
        found, missing = collect()
        for row in (ledger.trials.get(names[seed], {}) for seed in missing):
            if row.get("state") == "failed":
                raise UserError(f"the {kind.first} could not be trained: {row['reason']}")
    for seed in names:
        checkpoints.delete_result(job.folder, names[seed])
    return found if ended and not missing else None


def study_shared_work(job: Job, data: Splits, given: SharedWork | None) -> SharedWork | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off.

    Raises:
        UserError: the study's trials began from another one, which is in the cache no more.
    """
    kind, ledger, folder = KINDS[job.settings.kind], job.ledger, job.folder
    cache, seed = folder.parent / paths.CACHE, job.settings.seed
    row, told = ledger.trials.get(kind.first), ledger.history.get(kind.first, [])
    # By what the study was begun with: another version of torch would train another one.
    shared = get(cache, kind.first, study_folder.read_meta(folder).get("shared_work", ""))
    if shared is None:
        found = load_or_train(job, data, given, {seed: kind.first}, cache)
        if found is None:
            return None
        shared = found[seed]
    path, weights = folder / paths.MODELS / f"{kind.first}.safetensors", shared.weights()
    if row and path.exists() and not same_arrays(read_arrays(path), weights.arrays):
        ledger.trials[kind.first], ledger.history[kind.first] = row, told
        ledger.flush()
        raise UserError(
            f"{folder}: its trials began from another {kind.first} than comes out now, and that one is no longer in "
            f"{cache}; bring that folder back as it was, or choose another --name"
        )
    if ledger.trials.get(kind.first, {}).get("state") != "complete":  # it was in the cache
        row = {k: v for k, v in shared.record["metrics"].items() if k not in columns.TRIAL_COLUMNS}
        ledger.start(kind.first, {}, kind.first)
        ledger.history[kind.first] = shared.record["history"]
        ledger.finish(kind.first, "complete", "", row, shared.record["metrics"]["seconds"])
        ledger.flush()
    write_arrays(path, weights.arrays)
    if kind.first == "teacher" and not paths.trace_of(folder, kind.first).exists():
        teacher = network.load_network(weights.tensors(), trained_network(job.settings, kind.first), data)
        write_bytes(paths.trace_of(folder, kind.first), pack(student.dark_knowledge(teacher, data)))
    return shared

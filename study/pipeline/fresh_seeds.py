"""The confirmation that retrains what a search chose with fresh seeds, from the first stage on."""

from __future__ import annotations

from pathlib import Path

from analysis import selection
from analysis.formatting import mean_and_half
from analysis.stats import held_out_results
from analysis.stats.names import TEST_ACCURACY
from study.methods import registry
from study.pipeline.final_test import confirm_fresh
from study.pipeline.preflight import Inputs
from study.pipeline.shared_work import load_or_train
from study.records import paths, study_folder
from study.records.columns import CONFIRMED_COLUMNS, FINAL_STATES
from study.records.ledger import Ledger
from study.settings import Settings
from study.tuning.display import Display
from study.tuning.recorder import Recorder
from study.tuning.searcher import Queued
from study.tuning.space import SearchSpace
from study.tuning.tune_run import Job, Work, recover_history, run_trials


def announced(settings: Settings) -> str:
    """What `--confirm` does after the search, in a few words, or ""."""
    if not settings.budget.confirm:
        return ""
    return f"confirmation of {settings.budget.confirm} trials and the baselines, {settings.budget.seeds} seeds each"


def means_over_seeds(folder: Path) -> dict[str, str]:
    """Trial id → mean of its test accuracy over fresh seeds, and the 95 % interval, as text."""
    table = held_out_results.mean_over_seeds(study_folder.load(folder), "")
    if table.empty:
        return {}
    numbers = zip(table["trial_id"], table[TEST_ACCURACY], table["test_half"], strict=True)
    return {trial_id: mean_and_half(TEST_ACCURACY, mean, half) for trial_id, mean, half in numbers}


def _wanted(settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger) -> dict[str, tuple[str, int]]:
    """Trials of the confirmation that retrains: their id → (the trial or baseline that is retrained, seed)."""
    if not settings.budget.confirm:
        return {}
    originals = [*space.baselines, *selection.to_confirm(study_folder.load(folder), settings.budget.confirm)]
    originals = [name for name in originals if ledger.trials.get(name, {}).get("state") == "complete"]
    shared = _of_shared_work(settings, space, ledger)
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.budget.seeds)
    return {f"{name} seed {seed}": (name, seed) for seed in seeds for name in (*shared, *originals)}


def _of_shared_work(settings: Settings, space: SearchSpace, ledger: Ledger) -> list[str]:
    """Baselines that the shared work leaves, and no trial: itself, and other networks of `Stage.further`."""
    first = registry.method(settings.kind).shared_work.name
    rows = ledger.of_state("complete", baseline=True)
    return [first, *(row["baseline"] for row in rows if row["baseline"] not in (first, *space.baselines))]


def has_unconfirmed(settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger) -> bool:
    """Whether a trial that `--confirm` asks for has no row yet."""
    frame = study_folder.read_frame(folder / paths.CONFIRMED, CONFIRMED_COLUMNS)
    have = set(zip(frame["trial_id"], frame["seed"], strict=True))
    failed = {r["trial_id"] for r in Ledger.open(folder / paths.CONFIRM).trials.values() if r["state"] == "failed"}
    wanted = _wanted(settings, space, folder, ledger)
    return any(pair not in have for name, pair in wanted.items() if name not in failed)


def retrain(job: Job, display: Display, inputs: Inputs) -> str:
    """Retrain what the search chose, and the baselines, with fresh seeds from the first stage on, and test each once.

    These trials have a ledger of their own, in a folder of the study's, so that they are continued as others are.

    Returns: why it stopped by itself, or "".
    """
    settings, space, folder = job.settings, job.space, job.folder / paths.CONFIRM
    wanted = _wanted(settings, space, job.folder, job.ledger)
    if not wanted or not has_unconfirmed(settings, space, job.folder, job.ledger):
        return ""
    folder.mkdir(exist_ok=True)
    own = Ledger.open(folder)
    own.anchor = job.ledger.anchor
    recover_history(own, folder)
    display.say(f"confirming: {len(wanted)} trainings with fresh seeds")
    retraining = Job(settings, space, folder, Recorder(own, display, space.objectives, settings, folder))
    first = job.method.shared_work.name
    shared_names = {seed: name for name, (original, seed) in wanted.items() if original == first}
    with display.confirming(own, len(shared_names)):
        cache = job.folder.parent / paths.CACHE
        shared = load_or_train(retraining, inputs.data, inputs.initial_weights, shared_names, cache)
    if shared is None:
        return retraining.recorder.stopped
    queue = _queue(job, wanted, own)
    finished = sum(row["state"] in FINAL_STATES for row in own.trials.values())
    with display.confirming(own, finished + len(queue)):
        completed = run_trials(retraining, Work(job.method.trial, inputs.trial_data, shared), queue)
    retraining.recorder.close()
    if completed:
        confirm_fresh(settings, space, job.folder, own, wanted, shared, inputs.data, inputs.test)
    return retraining.recorder.stopped


def _queue(job: Job, wanted: dict[str, tuple[str, int]], own: Ledger) -> list[Queued]:
    """The trainings that are still to do."""
    queue = []
    for name, (original, seed) in wanted.items():
        done = own.trials.get(name, {}).get("state") in FINAL_STATES
        if original not in _of_shared_work(job.settings, job.space, job.ledger) and not done:
            values = job.space.baselines.get(original)
            if values is None:
                values = job.space.configuration(job.ledger.trials[original])
            queue.append(Queued(name, {**values, "seed": seed}, original))
    return queue

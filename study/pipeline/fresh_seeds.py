"""The confirmation that retrains what a search chose with fresh seeds, from the first stage on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis import selection
from study.artifacts.cache import SharedWork
from study.data.splits import Part, Splits
from study.methods.registry import KINDS
from study.pipeline.final_test import confirm_fresh
from study.pipeline.shared_work import load_or_train
from study.records import columns, paths, study_folder
from study.records.ledger import Ledger
from study.tuning.display import Display
from study.tuning.recorder import Recorder
from study.tuning.space import cast_value
from study.tuning.tune_run import Job, Queue, recover_history, run_trials


def _wanted(settings: Any, spaces: Any, folder: Path, ledger: Ledger) -> dict[str, tuple[str, int]]:
    """Trials of the confirmation that retrains: their id → (the trial or baseline that is retrained, seed)."""
    if not settings.confirm:
        return {}
    what = [*spaces.BASELINES, *selection.to_confirm(study_folder.load(folder), settings.confirm)]
    what = [w for w in what if ledger.trials.get(w, {}).get("state") == "complete"]
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.seeds)
    return {f"{w} seed {seed}": (w, seed) for seed in seeds for w in (KINDS[settings.kind].first, *what)}


def has_unconfirmed(settings: Any, spaces: Any, folder: Path, ledger: Ledger) -> bool:
    """Whether a trial that `--confirm` asks for has no row yet."""
    frame = study_folder.read_frame(folder / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    have = set(zip(frame["trial_id"], frame["seed"], strict=True))
    failed = {r["trial_id"] for r in Ledger.open(folder / paths.CONFIRM).trials.values() if r["state"] == "failed"}
    wanted = _wanted(settings, spaces, folder, ledger)
    return any(pair not in have for name, pair in wanted.items() if name not in failed)


def retrain(job: Job, display: Display, data: Splits, test: Part, seen: Splits, given: SharedWork | None) -> str:
    """Retrain what the search chose, and the baselines, with fresh seeds from the first stage on, and test each once.

    These trials have a ledger of their own, in a folder of the study's, so that they are continued as others are.

    Returns: why it stopped by itself, or "".
    """
    settings, spaces, ledger, kind = job.settings, job.spaces, job.ledger, KINDS[job.settings.kind]
    wanted = _wanted(settings, spaces, job.folder, ledger)
    folder = job.folder / paths.CONFIRM
    if not wanted or not has_unconfirmed(settings, spaces, job.folder, ledger):
        return ""
    folder.mkdir(exist_ok=True)
    own = Ledger.open(folder)
    recover_history(own, folder)
    display.say(f"confirming: {len(wanted)} trainings with fresh seeds")
    retrained = Job(settings, spaces, folder, Recorder(own, display, spaces.OBJECTIVES, settings, folder))
    firsts = {seed: name for name, (what, seed) in wanted.items() if what == kind.first}
    with display.confirming(own, len(firsts)):
        shared = load_or_train(retrained, data, given, firsts, job.folder.parent / paths.CACHE)
    if shared is None:
        return retrained.recorder.stopped
    queue: Queue = []
    for name, (what, seed) in wanted.items():
        if what == kind.first or own.trials.get(name, {}).get("state") in columns.FINAL_STATES:
            continue
        row = ledger.trials[what]
        values = spaces.BASELINES.get(what) or {k: cast_value(k, row[k], spaces) for k in spaces.SPACE}
        queue.append((name, {**values, "seed": seed}, what))
    with display.confirming(own, sum(row["state"] in columns.FINAL_STATES for row in own.trials.values()) + len(queue)):
        ended = run_trials(retrained, kind.search, {"data": seen, "shared": shared}, queue)
    retrained.recorder.close()
    if ended:
        confirm_fresh(settings, job.folder, own, wanted, shared, data, test)
    return retrained.recorder.stopped

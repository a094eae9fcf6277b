"""Successive halving as a Ray Tune scheduler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from study.artifacts import checkpoints
from study.methods.registry import KINDS
from study.records.ledger import Ledger
from study.tuning.halving import Rungs

IN_PLACE_OF = {"file_bytes": "entropy_bytes"}
"""Objective that only a finished trial has → what every epoch that quantises reports, by which trials are judged."""


class HalvingScheduler(FIFOScheduler):
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

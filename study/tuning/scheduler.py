"""Successive halving as a Ray Tune scheduler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from study.artifacts import checkpoints
from study.methods.method import Method
from study.records.columns import ACCURACY, MEASURED, Row, column
from study.records.ledger import Ledger
from study.settings import Settings
from study.tuning.halving import Rungs


class HalvingScheduler(FIFOScheduler):
    """Successive halving among the searched trials: a baseline is neither stopped nor the measure for others.

    Args:
        last_epoch: searched values → the last epoch of such a trial, at which there is nothing left to stop.
    """

    def __init__(self, rungs: Rungs, baselines: Collection[str], last_epoch: Callable[[Row], int]) -> None:
        super().__init__()
        self.rungs, self.baselines, self.last_epoch = rungs, baselines, last_epoch

    def on_trial_result(self, tune_controller: object, trial: Trial, result: Row) -> str:
        """Tune's question after every report: whether the trial goes on."""
        trial_id = trial.config["trial_id"]
        reported = "epoch" in result and not result.get("finished") and not result.get("failure")
        if trial_id in self.baselines or not reported or self.rungs.judge(trial_id, result["epoch"], result):
            return str(self.CONTINUE)
        return str(self.STOP if result["epoch"] < self.last_epoch(trial.config) else self.CONTINUE)


def measured_objectives(objectives: Mapping[str, str]) -> dict[str, str]:
    """Objectives as epochs can report them: in place of one that only a finished trial has, what stands in for it.
    What a network costs when it runs has no such thing; accuracy is judged where there is nothing else."""
    known = {metric: direction for metric, direction in objectives.items() if metric not in MEASURED}
    return {column(metric).stands_in or metric: direction for metric, direction in (known or {ACCURACY: "max"}).items()}


def make_rungs(
    method: Method, settings: Settings, objectives: Mapping[str, str], ledger: Ledger, folder: Path
) -> Rungs:
    """The rungs of a study, where its trials are recorded with what they had reported before this command.

    Args:
        settings: with the largest number of epochs that a trial may have.
    """
    epochs, before = method.epochs(settings), method.epochs_before(settings)
    # Early on, what quantising would give says little of what it will: tests/benchmarks/search_replay.py.
    grace = max(1, before + (epochs - before) // (2 if len(objectives) > 1 else 4))
    rungs = Rungs(measured_objectives(objectives), epochs, grace=grace)
    for trial_id, row in ledger.trials.items():
        if not row["baseline"]:
            rows = ledger.history.get(trial_id) or checkpoints.rows_of(checkpoints.path_of(folder, trial_id))
            # The last epoch of one that was cut off may have had no verdict yet: it is reported again, and judged
            # then. A trial starts no epoch before its verdict on the one before.
            rungs.recall(trial_id, rows[:-1] if row["state"] == "running" else rows)
    return rungs

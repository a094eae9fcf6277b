"""Stopping trials early as a Ray Tune scheduler: by halving or a predicted front, and before their further seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from study.artifacts import checkpoints
from study.methods.method import Method, settings_with
from study.records.columns import ACCURACY, MEASURED, Row, column
from study.records.ledger import Ledger
from study.settings import Settings
from study.tuning.halving import Rungs
from study.tuning.prediction import PredictedFront
from study.tuning.racing import Race

SIMULATED = 500
"""Trials with which `share_of_epochs` is found; it hardly changes beyond them."""


class HalvingScheduler(FIFOScheduler):
    """Stops searched trials early: a baseline is neither stopped nor the measure for others.

    Args:
        rule: which trials go on.
        last_epoch: searched values → the last epoch of such a trial, from which on only further seeds can be stopped.
        race: which trials go on to further seeds, if they have any.
    """

    def __init__(
        self,
        rule: Rungs | PredictedFront,
        baselines: Collection[str],
        last_epoch: Callable[[Row], int],
        race: Race | None = None,
    ) -> None:
        super().__init__()
        self.rule, self.baselines, self.last_epoch, self.race = rule, baselines, last_epoch, race

    def on_trial_result(self, tune_controller: object, trial: Trial, result: Row) -> str:
        """Tune's question after every report: whether the trial goes on."""
        trial_id, epoch = trial.config["trial_id"], result.get("epoch")
        if trial_id in self.baselines or result.get("failure"):
            return str(self.CONTINUE)
        if result.get("finished"):
            if isinstance(self.rule, PredictedFront):
                self.rule.finish(trial_id)
            if self.race:
                self.race.finish(result)
            return str(self.CONTINUE)
        if epoch is None:
            return str(self.CONTINUE)
        last = self.last_epoch(trial.config)
        goes_on = self.rule.judge(trial_id, comparable_epoch(self.rule, epoch, last), result)
        if epoch >= last:
            goes_on = self.race is None or self.race.judge(result)
        return str(self.CONTINUE if goes_on else self.STOP)


def comparable_epoch(rule: Rungs | PredictedFront, epoch: int, last: int) -> int:
    """The epoch at which a rule judges a trial: an end is predicted from the share of the training that is done, so
    that trials of different length predict one another."""
    return max(1, rule.epochs * epoch // last) if isinstance(rule, PredictedFront) else epoch


def measured_objectives(objectives: Mapping[str, str]) -> dict[str, str]:
    """Objectives as epochs can report them: in place of one that only a finished trial has, what stands in for it.
    What a network costs when it runs has no such thing; accuracy is judged where there is nothing else."""
    known = {metric: direction for metric, direction in objectives.items() if metric not in MEASURED}
    return {column(metric).stands_in or metric: direction for metric, direction in (known or {ACCURACY: "max"}).items()}


def new_rule(method: Method, settings: Settings, objectives: Mapping[str, str]) -> Rungs | PredictedFront:
    """The rule of a study that knows no trial yet; the arguments are those of `make_rule`."""
    epochs, before = method.epochs(settings), method.epochs_before(settings)
    measured = measured_objectives(objectives)
    if settings.search.scheduler == "predicted":
        return PredictedFront(measured, epochs, grace=max(1, before + (epochs - before) // 4))
    # Early on, what quantising would give says little of what it will: tests/benchmarks/search_replay.py.
    return Rungs(measured, epochs, grace=max(1, before + (epochs - before) // (2 if len(objectives) > 1 else 4)))


def share_of_epochs(rule: Rungs, epochs: int, trials: int) -> float:
    """Of the epochs of so many trials the share that halving lets them train, if what they are worth is random and does
    not change: the rule is asked, as in a study.

    Args:
        rule: that knows no trial yet; it does afterwards.
        epochs: of each trial.
    """
    chance, trained = np.random.default_rng(0), 0
    for number in range(count := min(trials, SIMULATED)):
        values = dict(zip(rule.signs, chance.random(len(rule.signs)), strict=True))
        stops = (level for level in rule.levels if not rule.judge(str(number), level, values))
        trained += next(stops, epochs)
    return trained / (count * epochs)


def make_rule(
    method: Method, settings: Settings, objectives: Mapping[str, str], ledger: Ledger, folder: Path
) -> Rungs | PredictedFront:
    """The rule of a study, which knows its trials with what they had reported before this command.

    Args:
        settings: with the largest number of epochs that a trial may have.
    """
    rule = new_rule(method, settings, objectives)
    for trial_id, row in ledger.trials.items():
        if not row["baseline"]:
            rows = ledger.history.get(trial_id) or checkpoints.rows_of(checkpoints.path_of(folder, trial_id))
            # The last epoch of one that was cut off may have had no verdict yet: it is reported again, and judged
            # then. A trial starts no epoch before its verdict on the one before.
            rows = rows[:-1] if row["state"] == "running" else rows
            if isinstance(rule, Rungs):
                rule.recall(trial_id, rows)
            elif row["state"] == "complete":
                rule.recall(trial_id, comparable(rule, rows, int(rows[-1]["epoch"]) if rows else 1), finished=True)
            elif row["state"] == "running":
                last = method.epochs(settings_with(settings, row))
                rule.recall(trial_id, comparable(rule, rows, last), finished=False)
    return rule


def comparable(rule: PredictedFront, rows: Sequence[Row], last: int) -> list[Row]:
    """Reports of a trial with so many epochs, at the epochs at which the rule compares them."""
    return [{**row, "epoch": comparable_epoch(rule, row["epoch"], last)} for row in rows]


def make_race(settings: Settings, objectives: Mapping[str, str], ledger: Ledger) -> Race | None:
    """The race of a study whose trials have several seeds, which knows the trials that have finished before."""
    if settings.search.seeds_per_trial is None:
        return None
    race = Race(measured_objectives(objectives), settings.search.seeds_per_trial)
    for row in ledger.of_state("complete"):
        race.finish(row)
    return race

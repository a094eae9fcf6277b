"""What `search_replay.py` compares: which recorded trial a search runs next, and which running trial it stops.

Searchers and rules of others are the published packages themselves: Optuna's samplers, OptunaHub's AutoSampler and
multi_metric_pruner, and Syne Tune's MOASHA. The last three are no dependencies of this project.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from benchmarks.recorded_studies import Recorded, place
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.tuning.halving import Rungs
from study.tuning.prediction import PredictedFront
from study.tuning.searcher import give_generations, make_sampler

REGISTRY = "OPTUNAHUB_REGISTRY"
"""Environment variable: a checkout of optuna/optunahub-registry, where the hub itself cannot be reached."""

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


class Order(Protocol):
    """Says which trial is next, and learns how it ended."""

    def ask(self) -> int | None:
        """The number of a recorded trial; None if there are no more."""

    def tell(self, trial: int, state: TrialState) -> None: ...


class RandomOrder:
    """The recorded trials in random order, each once."""

    def __init__(self, recorded: Recorded, seed: int) -> None:
        self.remaining = iter(np.random.default_rng(seed).permutation(len(recorded.ends)).tolist())

    def ask(self) -> int | None:
        return next(self.remaining, None)

    def tell(self, trial: int, state: TrialState) -> None:
        """Random search does not learn."""


class SuggestedOrder:
    """An Optuna sampler over the recorded trials: what it suggests becomes the nearest one that has not run, and it
    learns the configuration and the objectives of that one."""

    def __init__(self, recorded: Recorded, sampler: BaseSampler) -> None:
        self.recorded = recorded
        self.remaining = np.ones(len(recorded.ends), dtype=bool)
        directions = [DIRECTIONS[direction] for direction in recorded.objectives.values()]
        self.study = optuna.create_study(sampler=sampler, directions=directions)
        self.complete: list[FrozenTrial] = []

    def ask(self) -> int | None:
        if not self.remaining.any():
            return None
        wish = self.study.ask(dict(self.recorded.space))
        self.study.tell(wish, state=TrialState.FAIL)  # samplers pass over it: the one that runs is added when it ends
        distances = np.linalg.norm(self.recorded.places - place(wish.params, self.recorded.space), axis=1)
        trial = int(np.where(self.remaining, distances, np.inf).argmin())
        self.remaining[trial] = False
        return trial

    def tell(self, trial: int, state: TrialState) -> None:
        ended = create_trial(
            state=state,
            params=dict(self.recorded.configurations[trial]),
            distributions=dict(self.recorded.space),
            values=self.recorded.ends[trial].tolist() if state == TrialState.COMPLETE else None,
        )
        if isinstance(self.study.sampler, NSGAIISampler) and state == TrialState.COMPLETE:
            self.complete.append(ended)
            give_generations(self.complete, self.study.sampler)
        self.study.add_trial(ended)


class Rule(Protocol):
    """Says which trials go on."""

    def judge(self, trial_id: str, epoch: int, metrics: dict[str, Any]) -> bool: ...


class Moasha:
    """Syne Tune's MOASHA, as it comes: non-dominated sorting, reduction 3."""

    def __init__(self, recorded: Recorded, grace: int, seed: int) -> None:
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        np.random.seed(seed)  # it breaks ties by the global generator
        self.signs = {metric: -1.0 if d == "max" else 1.0 for metric, d in recorded.measured.items()}
        names = list(self.signs)
        self.scheduler = MOASHA({}, names, time_attr="epoch", max_t=recorded.epochs, grace_period=grace)
        self.trials: dict[str, SimpleNamespace] = {}

    def judge(self, trial_id: str, epoch: int, metrics: dict[str, Any]) -> bool:
        if trial_id not in self.trials:
            self.trials[trial_id] = SimpleNamespace(trial_id=trial_id)
            self.scheduler.on_trial_add(self.trials[trial_id])
        costs = {metric: sign * metrics[metric] for metric, sign in self.signs.items()}
        decision = self.scheduler.on_trial_result(self.trials[trial_id], {"epoch": epoch, **costs})
        return epoch == self.scheduler.max_t or decision == "CONTINUE"


class MultiMetricPruning:
    """OptunaHub's multi_metric_pruner over Optuna's MedianPruner, with the defaults of both. Ten checks a trial."""

    def __init__(self, recorded: Recorded) -> None:
        module = hub("pruners/multi_metric_pruner")
        words = {metric: "maximize" if d == "max" else "minimize" for metric, d in recorded.measured.items()}
        pruner = module.MultiMetricPruner(optuna.pruners.MedianPruner(), metric_directions=words, joint=True)
        self.study = optuna.create_study(directions=list(words.values()), pruner=pruner)
        self.wrap, self.every, self.epochs = (
            module.MultiMetricPrunerTrial,
            max(1, recorded.epochs // 10),
            recorded.epochs,
        )
        self.trials: dict[str, Any] = {}

    def judge(self, trial_id: str, epoch: int, metrics: dict[str, Any]) -> bool:
        if trial_id not in self.trials:
            self.trials[trial_id] = self.study.ask()
        trial = self.trials[trial_id]
        if epoch == self.epochs:
            self.study.tell(trial, list(metrics.values()))
        elif epoch % self.every == 0:
            wrapped = self.wrap(trial)
            wrapped.report(metrics, epoch)
            if wrapped.should_prune():
                self.study.tell(trial, state=TrialState.PRUNED)
                return False
        return True


def hub(package: str) -> Any:
    """A package of OptunaHub."""
    import optunahub

    if REGISTRY in os.environ:
        return optunahub.load_local_module(package, registry_root=str(Path(os.environ[REGISTRY]) / "package"))
    return optunahub.load_module(package)


def order(searcher: str, recorded: Recorded, seed: int) -> Order:
    """The order of a searcher by name: the study's own, or OptunaHub's AutoSampler."""
    if searcher == "random":
        return RandomOrder(recorded, seed)
    if searcher == "auto":
        return SuggestedOrder(recorded, hub("samplers/auto_sampler").AutoSampler(seed=seed))
    return SuggestedOrder(recorded, make_sampler(searcher, seed, 0))


def no_rule(recorded: Recorded, seed: int) -> None:
    """Every trial runs to its end."""


def halving(recorded: Recorded, seed: int) -> Rungs:
    """Our halving, from the first rung that studies have: half of the epochs, with one objective a quarter."""
    return Rungs(recorded.measured, recorded.epochs, grace(recorded, 2 if len(recorded.objectives) > 1 else 4))


def predicted(recorded: Recorded, seed: int) -> PredictedFront:
    """Our predicted front, judging from the epoch that studies have: a quarter."""
    return PredictedFront(recorded.measured, recorded.epochs, grace(recorded, 4))


def grace(recorded: Recorded, part: int) -> int:
    """The first epoch at which a study stops a trial: after a part of those in which all objectives are measured."""
    before = int(recorded.epochs - np.isfinite(recorded.curves).all(axis=2).sum(axis=1).max())
    return max(1, before + (recorded.epochs - before) // part)


def moasha(recorded: Recorded, seed: int) -> Moasha:
    return Moasha(recorded, 1, seed)


def moasha_with_grace(recorded: Recorded, seed: int) -> Moasha:
    return Moasha(recorded, grace(recorded, 2), seed)


def multi_metric_pruner(recorded: Recorded, seed: int) -> MultiMetricPruning:
    return MultiMetricPruning(recorded)


@dataclass(frozen=True)
class Strategy:
    """One row of the table.

    Attributes:
        searcher: see `order`.
        rule: recorded trials and a seed → which trials are stopped.
        slow: whether a replay takes minutes.
    """

    searcher: str = "random"
    rule: Callable[[Recorded, int], Rule | None] = no_rule
    slow: bool = False


STRATEGIES = {
    "random": Strategy(),
    "tpe": Strategy("tpe"),
    "nsga2": Strategy("nsga2"),
    "gp": Strategy("gp", slow=True),
    "OptunaHub AutoSampler": Strategy("auto", slow=True),
    "random, OptunaHub multi_metric_pruner": Strategy(rule=multi_metric_pruner, slow=True),
    "random, Syne Tune MOASHA": Strategy(rule=moasha),
    "random, Syne Tune MOASHA from our first rung": Strategy(rule=moasha_with_grace),
    "random, halving": Strategy(rule=halving),
    "random, predicted": Strategy(rule=predicted),
    "tpe, halving": Strategy("tpe", halving),
    "tpe, predicted": Strategy("tpe", predicted),
    "gp, predicted": Strategy("gp", predicted, slow=True),
}

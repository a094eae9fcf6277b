"""Optuna inside Ray Tune: the searcher that asks for what the ledger still lacks, and the front of what it has."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import moocore
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from study.errors import UserError
from study.records.columns import FINAL_STATES, Row
from study.records.ledger import Ledger
from study.records.paths import TRIALS
from study.tuning.space import SearchSpace

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def make_sampler(name: str, seed: int, trials_before: int, conditional: bool = False) -> optuna.samplers.BaseSampler:
    """The sampler of this name. Its seed depends on the trials there are, so continuing does not repeat samples.

    Args:
        conditional: whether some hyperparameters are not searched in every trial.
    """
    derived = int(np.random.SeedSequence([seed, trials_before]).generate_state(1)[0])
    if name == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=derived, multivariate=True, group=conditional, constant_liar=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=derived, population_size=20)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=derived)
    return optuna.samplers.RandomSampler(seed=derived)


CONSTRAINT = "min_accuracy"


def constraint_violation(row: Mapping[str, object], min_accuracy: float) -> float:
    """Points of validation accuracy that a trial lacks, as an Optuna constraint: kept where it is 0 or less."""
    return min_accuracy - float(str(row["val_accuracy"]))


def recorded_trial(row: Row, space: SearchSpace, min_accuracy: float | None = None) -> FrozenTrial:
    """A finished row of the ledger as Optuna knows it. Values count only where the trial ran to its end.

    Raises:
        UserError: a value that the study did not search.
    """
    complete = row["state"] == "complete"
    bounded = complete and min_accuracy is not None
    try:
        params = space.configuration(row)
        return create_trial(
            state=STATES[row["state"]],
            params=params,
            distributions={name: d for name, d in space.distributions().items() if name in params},
            values=[float(row[metric]) for metric in space.objectives] if complete else None,
            user_attrs={"trial_id": row["trial_id"]},
            constraints={CONSTRAINT: constraint_violation(row, min_accuracy or 0.0)} if bounded else None,
        )
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{TRIALS}: trial {row['trial_id']} is none of this search ({reason}); restore it from a copy"
        ) from error


def directions(space: SearchSpace) -> list[StudyDirection]:
    """Of the objectives, as Optuna has them."""
    return [StudyDirection.MAXIMIZE if d == "max" else StudyDirection.MINIMIZE for d in space.objectives.values()]


def optuna_study(
    ledger: Ledger,
    space: SearchSpace,
    *,
    min_accuracy: float | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """An Optuna study in memory that holds exactly the ledger's finished trials, baselines left out. It is what the
    sampler learns from; people look at `study.tuning.journal`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler, directions=directions(space))
    trials = [recorded_trial(row, space, min_accuracy) for row in ledger.of_state(*FINAL_STATES)]
    if isinstance(sampler, optuna.samplers.NSGAIISampler):
        give_generations(trials, sampler)
    study.add_trials(trials)
    return study


def give_generations(trials: Sequence[FrozenTrial], sampler: optuna.samplers.NSGAIISampler) -> None:
    """Write into trials, in order, the generation that the sampler would have: without one they are nobody's parents,
    and evolution would start again. Only complete trials fill a generation."""
    complete = 0
    for trial in trials:
        generation = complete // (sampler.population_size or 1)
        trial.system_attrs = {**trial.system_attrs, sampler._get_generation_key(): generation}
        complete += trial.state == TrialState.COMPLETE


def front(ledger: Ledger, objectives: Mapping[str, str], min_accuracy: float | None = None) -> list[str]:
    """Ids of the complete trials that no other one dominates, best in the first objective first; none of them below
    `min_accuracy`."""
    rows = [
        r for r in ledger.of_state("complete") if min_accuracy is None or constraint_violation(r, min_accuracy) <= 0
    ]
    if not rows:
        return []
    values = np.array([[float(r[m]) for m in objectives] for r in rows])
    best = moocore.is_nondominated(values, maximise=[d == "max" for d in objectives.values()], keep_weakly=True)
    first, direction = next(iter(objectives.items()))
    members = [r for r, b in zip(rows, best, strict=True) if b]
    return [r["trial_id"] for r in sorted(members, key=lambda r: r[first], reverse=direction == "max")]


class Queued(NamedTuple):
    """A configuration to run before Optuna is asked.

    Attributes:
        trial_id: "" for a new trial.
        values: hyperparameters; those of a searched trial are all that the space has.
        baseline: the baseline's name; "" for a searched trial.
    """

    trial_id: str
    values: Row
    baseline: str


class LedgerSearch(Searcher):
    """Asks Optuna for the trials that the ledger lacks, after the baselines and those that were cut off.

    Optuna learns from finished trials alone: one that a scheduler stopped is reported as PRUNED, one that failed or
    whose objective is no number as FAIL.

    Args:
        study: see `optuna_study`; trials are asked from it and reported to it.
        queue: configurations to run first.
        wanted: trials to ask Optuna for.
        capacity: most trials at one time, asked again each time: a cluster grows and shrinks.
        min_accuracy: see `constraint_violation`.
        seed: of every trial whose configuration names none.
        on_start: hears of every trial that starts, by its row in the ledger.
        ending: why the search is over before all trials that are wanted, or ""; asked before each.
    Attributes:
        ended: what `ending` said.
    """

    def __init__(
        self,
        ledger: Ledger,
        study: optuna.Study,
        space: SearchSpace,
        queue: Sequence[Queued],
        wanted: int,
        capacity: Callable[[], int],
        min_accuracy: float | None = None,
        seed: int = 0,
        on_start: Callable[[Row], None] = lambda row: None,
        ending: Callable[[], str] | None = None,
    ) -> None:
        super().__init__()
        self.ledger, self.study, self.objectives = ledger, study, list(space.objectives)
        self.conditions, self.distributions = space.conditions, space.distributions()
        self.min_accuracy = min_accuracy
        self.queue, self.wanted, self.capacity = list(queue), wanted, capacity
        self.seed, self.on_start = seed, on_start
        self.running: dict[str, optuna.Trial | None] = {}
        self.stopped, self.ended, self.ending = "", "", ending

    def stop(self, reason: str) -> None:
        """Start no further trial; those that run may end."""
        self.stopped = self.stopped or reason

    def __getstate__(self) -> Row:
        return {}  # Tune pickles its searcher; a study continues from its ledger, never from that

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, None while enough are running, or `Searcher.FINISHED`."""
        if self.ending and not self.ended:
            self.ended = self.ending()
        if self.stopped or self.ended or self.ledger.full:
            return Searcher.FINISHED
        if len(self.running) >= self.capacity():
            return None
        if self.queue:
            name, values, baseline = self.queue.pop(0)
            asked = None if baseline else self._ask(values)
            name = name or self.ledger.new_id()
        elif self.wanted:
            self.wanted -= 1
            asked = self._ask(None)
            name, values, baseline = self.ledger.new_id(), asked.params, ""
        else:
            return Searcher.FINISHED
        # Its row comes first: what names a trial that has none counts as the rest of one that was lost.
        self.ledger.start(name, values, baseline)
        if self.ledger.full:
            return Searcher.FINISHED
        self.on_start(self.ledger.trials[name])
        if asked is not None:
            asked.set_user_attr("trial_id", name)
        self.running[trial_id] = asked
        return {"trial_id": name, "seed": self.seed, **values}

    def _ask(self, values: Row | None) -> optuna.Trial:
        if values is not None:
            self.study.enqueue_trial(values)
        trial = self.study.ask({name: d for name, d in self.distributions.items() if name not in self.conditions})
        for name, condition in self.conditions.items():
            if condition.holds(trial.params):
                suggest(trial, name, self.distributions[name])
        return trial

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        asked = self.running.pop(trial_id, None)
        if asked is None:
            return
        state, _ = final_state(result or {}, self.objectives, error)
        values = [(result or {})[m] for m in self.objectives] if state == "complete" else None
        if values and self.min_accuracy is not None:
            asked.set_constraint(CONSTRAINT, constraint_violation(result or {}, self.min_accuracy))
        self.study.tell(asked, values, state=STATES[state])

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file. Nothing is restored from it: a study continues from its ledger."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study continues from its ledger")


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    """Ask for one more value, which depends on the condition that the others have met."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def final_state(result: Mapping[str, object], objectives: list[str], error: bool) -> tuple[str, str]:
    """State and reason of a trial, from its last report: complete, pruned (a scheduler stopped it), or failed."""
    if error:
        return "failed", "the trial's process raised an error"
    if result.get("failure"):
        return "failed", str(result["failure"])
    if not result.get("finished"):
        return "pruned", ""
    for metric in objectives:
        value = result.get(metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return "failed", f"{metric} is {value}, not a finite number"
    return "complete", ""

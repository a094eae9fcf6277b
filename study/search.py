"""Optuna inside Ray Tune: the searcher that asks for what the ledger still lacks, and the front of what it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from study.results import FINAL_STATES, Ledger

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Tune domains as Optuna distributions."""
    return dict(OptunaSearch.convert_search_space(dict(space)))


def sampler(name: str, seed: int, trials_before: int) -> optuna.samplers.BaseSampler:
    """The sampler of this name. Its seed depends on the trials there are, so continuing does not repeat samples."""
    derived = int(np.random.SeedSequence([seed, trials_before]).generate_state(1)[0])
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=derived, multivariate=True, constant_liar=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=derived, population_size=20)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=derived)
    return optuna.samplers.RandomSampler(seed=derived)


def recorded_trial(
    row: Mapping[str, Any], space: Mapping[str, BaseDistribution], objectives: Mapping[str, str]
) -> FrozenTrial:
    """A finished row of the ledger as Optuna knows it. Values count only where the trial ran to its end."""
    values = [float(row[m]) for m in objectives] if row["state"] == "complete" else None
    integer = optuna.distributions.IntDistribution
    params = {k: int(row[k]) if isinstance(d, integer) else row[k] for k, d in space.items()}
    return create_trial(
        state=STATES[row["state"]],
        params=params,
        distributions=dict(space),
        values=values,
        user_attrs={"trial_id": row["trial_id"]},
    )


def study_of(
    ledger: Ledger,
    space: Mapping[str, Any],
    objectives: Mapping[str, str],
    *,
    storage: BaseStorage | None = None,
    chosen: optuna.samplers.BaseSampler | None = None,
    name: str = "study",
) -> optuna.Study:
    """An Optuna study that holds exactly the ledger's finished trials, baselines left out."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        sampler=chosen,
        study_name=name,
        directions=["maximize" if d == "max" else "minimize" for d in objectives.values()],
    )
    domains = distributions(space)
    study.add_trials([recorded_trial(row, domains, objectives) for row in ledger.of_state(*FINAL_STATES)])
    return study


def front(ledger: Ledger, space: Mapping[str, Any], objectives: Mapping[str, str]) -> list[str]:
    """Ids of the complete trials that no other one dominates, best in the first objective first."""
    first, direction = next(iter(objectives.items()))
    best = [t.user_attrs["trial_id"] for t in study_of(ledger, space, objectives).best_trials]
    return sorted(best, key=lambda i: ledger.trials[i][first], reverse=direction == "max")


def fresh_journal(path: Path) -> JournalStorage:
    """An empty journal in place of the old one: it is written anew from the ledger, so it never disagrees with it."""
    for file in path.parent.glob(path.name + "*"):
        file.unlink()
    return JournalStorage(JournalFileBackend(str(path)))


class LedgerSearch(Searcher):
    """Asks Optuna for the trials that the ledger lacks, after the baselines and those that were cut off.

    Optuna learns from finished trials alone: one that a scheduler stopped is told as PRUNED, one that failed or whose
    objective is no number as FAIL.

    Args:
        study: see `study_of`; trials are asked from it and told to it.
        queue: configurations to run first: (trial id, hyperparameters, baseline's name or "").
        wanted: trials to ask Optuna for.
        concurrent: most trials at one time.
    """

    def __init__(
        self,
        ledger: Ledger,
        study: optuna.Study,
        space: Mapping[str, Any],
        objectives: Mapping[str, str],
        queue: list[tuple[str, dict[str, Any], str]],
        wanted: int,
        concurrent: int,
    ) -> None:
        super().__init__()
        self.ledger, self.study, self.objectives = ledger, study, list(objectives)
        self.space = distributions(space)
        self.queue, self.wanted, self.concurrent = list(queue), wanted, concurrent
        self.running: dict[str, optuna.Trial | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; a study continues from its ledger, never from that

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, None while enough are running, or `Searcher.FINISHED`."""
        if len(self.running) >= self.concurrent:
            return None
        if self.queue:
            name, values, baseline = self.queue.pop(0)
            asked = None if baseline else self._ask(values)
        elif self.wanted:
            self.wanted -= 1
            asked = self._ask(None)
            name, values, baseline = self._next_id(), asked.params, ""
        else:
            return Searcher.FINISHED
        if asked is not None:
            asked.set_user_attr("trial_id", name)
        self.running[trial_id] = asked
        self.ledger.start(name, values, baseline)
        return {"trial_id": name, **values}

    def _ask(self, values: dict[str, Any] | None) -> optuna.Trial:
        if values is not None:
            self.study.enqueue_trial(values)
        return self.study.ask(dict(self.space))

    def _next_id(self) -> str:
        used = [int(i[1:]) for i in self.ledger.trials if i[:1] == "t" and i[1:].isdigit()]
        return f"t{max(used, default=0) + 1:03d}"

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        asked = self.running.pop(trial_id, None)
        if asked is None:
            return
        state, _ = outcome(result or {}, self.objectives, error)
        values = [(result or {})[m] for m in self.objectives] if state == "complete" else None
        self.study.tell(asked, values, state=STATES[state])

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file. Nothing is restored from it: a study continues from its ledger."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study continues from its ledger")


def outcome(result: Mapping[str, Any], objectives: list[str], error: bool) -> tuple[str, str]:
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

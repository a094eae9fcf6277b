"""What Optuna is asked, and what is reported to it, without Ray."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from ray import tune
from ray.tune.search import Searcher

from study.records.ledger import Ledger
from study.tuning import searcher as tuning_searcher
from study.tuning.searcher import LedgerSearch, Queued
from study.tuning.space import SearchSpace

BOTH = {"val_accuracy": "max", "sparsity": "max"}
SPACE = SearchSpace.of(
    "sws", {"tau": tune.loguniform(0.01, 1.0), "components": tune.randint(4, 65)}, BOTH, {"paper": {"tau": 0.1}}
)


def searcher(ledger: Ledger, wanted: int, concurrent: int = 9, interrupted: bool = False) -> LedgerSearch:
    queue = [Queued("paper", {"tau": 0.1}, "paper")]
    if interrupted:
        queue.append(Queued("t001", {"tau": 0.5, "components": 8}, ""))
    sampler = tuning_searcher.make_sampler("tpe", 0, len(ledger.trials))
    study = tuning_searcher.optuna_study(ledger, SPACE, sampler=sampler)
    return LedgerSearch(ledger, study, SPACE, queue, wanted, lambda: concurrent)


def test_baselines_then_interrupted_trials_then_new_ones(tmp_path: Path) -> None:
    """The queue goes first with its own values, then as many new trials as wanted, then no more."""
    asked = searcher(Ledger(tmp_path), wanted=2, interrupted=True)
    configs = [asked.suggest(str(i)) for i in range(5)]
    assert configs[0] == {"trial_id": "paper", "seed": 0, "tau": 0.1}
    assert configs[1] == {"trial_id": "t001", "seed": 0, "tau": 0.5, "components": 8}
    assert [c["trial_id"] for c in configs[2:4]] == ["t002", "t003"]
    assert configs[4] == Searcher.FINISHED
    assert all(4 <= c["components"] <= 64 for c in configs[1:4])


def test_no_more_at_a_time_than_allowed(tmp_path: Path) -> None:
    """With two running it asks for none, until one has ended."""
    asked = searcher(Ledger(tmp_path), wanted=5, concurrent=2)
    assert asked.suggest("a") and asked.suggest("b") and asked.suggest("c") is None
    asked.on_trial_complete("a", {"finished": True, "val_accuracy": 1.0, "sparsity": 1.0})
    assert asked.suggest("c")


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        ({"finished": True, "val_accuracy": 90.0, "sparsity": 50.0}, False, "COMPLETE"),
        ({"val_accuracy": 90.0, "sparsity": 50.0}, False, "PRUNED"),
        ({"finished": True, "val_accuracy": math.nan, "sparsity": 50.0}, False, "FAIL"),
        ({"finished": True, "val_accuracy": 90.0}, False, "FAIL"),
        ({"failure": "every weight was pruned", "val_accuracy": 90.0, "sparsity": 100.0}, False, "FAIL"),
        (None, True, "FAIL"),
    ],
)
def test_only_finished_trials_teach_the_sampler(result: dict | None, error: bool, state: str, tmp_path: Path) -> None:
    """Finished, stopped and broken trials reach Optuna as COMPLETE, PRUNED and FAIL; values only with COMPLETE."""
    asked = searcher(Ledger(tmp_path), wanted=1)
    asked.suggest("baseline"), asked.suggest("x")
    asked.on_trial_complete("baseline", {"finished": True, "val_accuracy": 99.0, "sparsity": 1.0})
    asked.on_trial_complete("x", result, error)
    (trial,) = asked.study.trials
    assert trial.state.name == state
    assert trial.values == ([90.0, 50.0] if state == "COMPLETE" else None)


def test_continuing_does_not_repeat_samples(tmp_path: Path) -> None:
    """A searcher over a longer ledger suggests other values than the first did; over the same one, the same."""
    first, again = searcher(Ledger(tmp_path), 1), searcher(Ledger(tmp_path), 1)
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"tau": 0.3, "components": 9})
    ledger.finish("t001", "complete", metrics={"val_accuracy": 1.0, "sparsity": 1.0})
    longer = searcher(ledger, 1)
    for one in (first, again, longer):
        one.suggest("baseline")
    values = [one.suggest("x") for one in (first, again, longer)]
    assert values[0] == values[1] and values[2]["tau"] != values[0]["tau"] and values[2]["trial_id"] == "t002"


def test_evolution_goes_on_in_a_continued_study(tmp_path: Path) -> None:
    """After two generations and a half, NSGA-II breeds from the best of them in the next command too: many of its
    suggestions have the very tau of a parent; and the third generation is filled up before the next begins."""

    def search_on(ledger: Ledger, trials: int) -> list[float]:
        sampler = tuning_searcher.make_sampler("nsga2", 0, len(ledger.trials))
        study = tuning_searcher.optuna_study(ledger, SPACE, sampler=sampler)
        asked = LedgerSearch(ledger, study, SPACE, [], trials, lambda: 1)
        suggested = []
        for i in range(trials):
            config = asked.suggest(str(i))
            score = 50 - abs(math.log(config["tau"] / 0.3))
            metrics = {"val_accuracy": score, "sparsity": score}
            asked.on_trial_complete(str(i), {"finished": True, **metrics})
            ledger.finish(config["trial_id"], "complete", metrics=metrics)
            suggested.append(config["tau"])
        generations = [t.system_attrs["NSGAIISampler:generation"] for t in study.trials]
        assert generations == [i // 20 for i in range(len(generations))]
        return suggested

    first = search_on(Ledger(tmp_path), 50)
    then = search_on(Ledger.open(tmp_path), 20)
    assert len(set(first[:20])) == 20 and len([tau for tau in then if tau in first]) > 5


def test_front_keeps_ties_and_leaves_out_the_dominated(tmp_path: Path) -> None:
    """Equal trials are both members; a dominated, a pruned and a baseline one are not."""
    ledger = Ledger(tmp_path)
    points = {"t001": (90.0, 50.0), "t002": (90.0, 50.0), "t003": (89.0, 50.0), "t004": (80.0, 99.0)}
    for name, (accuracy, sparsity) in points.items():
        ledger.start(name, {"tau": 0.3, "components": 9})
        ledger.finish(name, "complete", metrics={"val_accuracy": accuracy, "sparsity": sparsity})
    ledger.start("t005", {"tau": 0.3, "components": 9})
    ledger.finish("t005", "pruned", metrics={"val_accuracy": 99.0, "sparsity": 99.0})
    ledger.start("paper", {"tau": 0.3}, "paper")
    ledger.finish("paper", "complete", metrics={"val_accuracy": 99.0, "sparsity": 99.0})
    assert tuning_searcher.front(ledger, BOTH) == ["t001", "t002", "t004"]


def complete(ledger: Ledger, name: str, baseline: str = "", **metrics: float) -> None:
    ledger.start(name, {"tau": 0.3, "components": 9}, baseline)
    ledger.finish(name, "complete", metrics=metrics)


def test_ids_go_on_from_the_ledger(tmp_path: Path) -> None:
    """The next id follows the highest one, past gaps, baselines, and a thousand."""
    ledger = Ledger(tmp_path)
    for name, baseline in (("t002", ""), ("t999", ""), ("teacher", "teacher"), ("paper", "paper")):
        complete(ledger, name, baseline, val_accuracy=1.0, sparsity=1.0)
    asked = searcher(Ledger.open(tmp_path), wanted=2)
    assert [asked.suggest(str(i))["trial_id"] for i in range(3)] == ["paper", "t1000", "t1001"]


def test_the_ledger_has_what_was_suggested(tmp_path: Path) -> None:
    """A suggestion is on disk as running before Tune has it, so that a crash loses none."""
    asked = searcher(Ledger(tmp_path), wanted=1)
    given = [asked.suggest("a"), asked.suggest("b")]
    rows = Ledger.open(tmp_path).of_state("running") + Ledger.open(tmp_path).of_state("running", baseline=True)
    assert {r["trial_id"]: r["tau"] for r in rows} == pytest.approx({g["trial_id"]: g["tau"] for g in given})


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp", "random"])
def test_a_samplers_seed_depends_on_the_trials_before(name: str) -> None:
    """The same seed and count repeat a sample; another count, or another seed, gives another one."""

    def first(seed: int, before: int) -> float:
        study = optuna.create_study(sampler=tuning_searcher.make_sampler(name, seed, before))
        return study.ask(dict(SPACE.distributions())).params["tau"]

    assert first(0, 0) == first(0, 0)
    assert len({first(0, 0), first(0, 1), first(1, 0)}) == 3


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_a_row_goes_to_optuna_and_back(state: str, tmp_path: Path) -> None:
    """Id, parameters with their types, state and, of a complete one, values survive disk and Optuna, in this order."""
    ledger = Ledger(tmp_path)
    ledger.start("paper", {"tau": 0.1}, "paper")  # without components, so that pandas reads that column as floats
    ledger.start("t001", {"tau": 0.3, "components": 9})
    ledger.finish("t001", state, metrics={"sparsity": 50.0, "val_accuracy": 90.0})
    (trial,) = tuning_searcher.optuna_study(Ledger.open(tmp_path), SPACE).trials
    assert trial.user_attrs == {"trial_id": "t001"} and trial.state == tuning_searcher.STATES[state]
    assert trial.params == {"tau": 0.3, "components": 9} and type(trial.params["components"]) is int
    assert trial.values == ([90.0, 50.0] if state == "complete" else None)


def test_fronts_of_one_and_of_three_objectives(tmp_path: Path) -> None:
    """One objective: the best, ties included. Three, one to be minimised: all that none dominates, best first."""
    ledger = Ledger(tmp_path)
    assert tuning_searcher.front(ledger, BOTH) == []
    complete(ledger, "t001", val_accuracy=80.0, sparsity=50.0, val_loss=0.1)
    complete(ledger, "t002", val_accuracy=90.0, sparsity=50.0, val_loss=0.3)
    complete(ledger, "t003", val_accuracy=90.0, sparsity=40.0, val_loss=0.3)
    complete(ledger, "t004", val_accuracy=70.0, sparsity=60.0, val_loss=0.2)
    assert sorted(tuning_searcher.front(ledger, {"val_accuracy": "max"})) == ["t002", "t003"]
    assert tuning_searcher.front(ledger, {"val_loss": "min"}) == ["t001"]
    assert tuning_searcher.front(ledger, {**BOTH, "val_loss": "min"}) == ["t002", "t001", "t004"]
    assert tuning_searcher.front(ledger, {"val_loss": "min", **BOTH}) == ["t001", "t004", "t002"]


@pytest.mark.parametrize("state", ["complete", "pruned"])
def test_a_continued_study_knows_who_was_too_inaccurate(state: str, tmp_path: Path) -> None:
    """A complete trial goes to Optuna with what it lacks of --min-accuracy, or has above it as a negative number; one
    that was stopped, and a study without the bound, have no constraint."""
    ledger = Ledger(tmp_path)
    for name, accuracy in (("t001", 90.0), ("t002", 96.5)):
        ledger.start(name, {"tau": 0.3, "components": 9})
        ledger.finish(name, state, metrics={"sparsity": 50.0, "val_accuracy": accuracy})
    bounded = tuning_searcher.optuna_study(ledger, SPACE, min_accuracy=95.0).trials
    expected = [{"min_accuracy": 5.0}, {"min_accuracy": -1.5}] if state == "complete" else [{}, {}]
    assert [trial.constraints for trial in bounded] == expected
    assert [trial.constraints for trial in tuning_searcher.optuna_study(ledger, SPACE).trials] == [{}, {}]


@pytest.mark.parametrize("min_accuracy", [None, 95.0])
@pytest.mark.parametrize(
    ("result", "error", "lacking"),
    [
        ({"finished": True, "val_accuracy": 90.0, "sparsity": 50.0}, False, 5.0),
        ({"finished": True, "val_accuracy": 96.5, "sparsity": 50.0}, False, -1.5),
        ({"val_accuracy": 90.0, "sparsity": 50.0}, False, None),
        ({"finished": True, "val_accuracy": math.nan, "sparsity": 50.0}, False, None),
        ({"failure": "every weight was pruned"}, False, None),
        (None, True, None),
    ],
)
def test_the_sampler_learns_what_a_trial_lacks(
    result: dict | None, error: bool, lacking: float | None, min_accuracy: float | None, tmp_path: Path
) -> None:
    """With --min-accuracy a trial that ends goes to Optuna with what it lacks, if it is complete; one that failed or
    was stopped, and any trial of a study without the bound, has no constraint."""
    asked = LedgerSearch(Ledger(tmp_path), tuning_searcher.optuna_study(Ledger(tmp_path), SPACE), SPACE, [], 1,
                         lambda: 1, min_accuracy)  # fmt: skip
    assert asked.suggest("x")
    asked.on_trial_complete("x", result, error)
    (trial,) = asked.study.trials
    expected = {} if lacking is None or min_accuracy is None else {"min_accuracy": lacking}
    assert trial.state.is_finished() and trial.constraints == expected

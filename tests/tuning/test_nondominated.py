"""Fronts that grow, against those of all trials at once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from study.records import ledger as ledger_module
from study.records.ledger import Ledger
from study.tuning import searcher
from study.tuning.ending import FURTHEST, RunningHypervolume, _scaled, _volume
from study.tuning.nondominated import RunningFront

CASES = [
    {"val_accuracy": "max"},
    {"val_accuracy": "max", "sparsity": "max"},
    {"val_loss": "min", "val_accuracy": "max", "sparsity": "max"},
]


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger whose table is written once."""
    monkeypatch.setattr(ledger_module, "SHORTEST", 600.0)
    return Ledger(tmp_path)


@pytest.mark.parametrize("least", [None, 40.0])
@pytest.mark.parametrize("objectives", CASES)
def test_a_growing_front_is_that_of_all_trials(
    objectives: dict[str, str], least: float | None, growing: Ledger
) -> None:
    """After every trial, with ties, pruned and failed trials, and baselines; also where the ledger had trials before,
    and where several have ended since the last look."""
    luck = random.Random(0)
    front = RunningFront(growing, objectives, least)
    for number in range(1, 151):
        name = f"t{number:03d}"
        growing.start(name, {"tau": 0.1}, "paper" if number % 10 == 0 else "")
        metrics = {metric: float(luck.randint(0, 8) * 10) for metric in ("val_accuracy", "sparsity", "val_loss")}
        growing.finish(name, luck.choice(["complete", "complete", "pruned", "failed"]), metrics=metrics)
        if luck.random() < 0.8:
            assert front.members() == set(searcher.front(growing, objectives, least))
    assert len(front.members()) > 0
    assert RunningFront(growing, objectives, least).members() == front.members()


def test_a_growing_hypervolume_is_that_of_all_trials(growing: Ledger) -> None:
    """Within the range of all of them, dominated ones included; not of baselines, which may lack an objective."""
    objectives = {"val_accuracy": "max", "sparsity": "max"}
    running, luck, costs = RunningHypervolume(growing, objectives), random.Random(1), []
    assert running.value() == 0.0
    growing.start("uncompressed", {}, "uncompressed")
    growing.finish("uncompressed", "complete", metrics={"val_accuracy": 120.0})
    for number in range(1, 40):
        metrics = {metric: luck.uniform(0, 100) for metric in objectives}
        growing.start(f"t{number:03d}", {"tau": 0.1})
        growing.finish(f"t{number:03d}", "complete", metrics=metrics)
        costs.append([-value for value in metrics.values()])
        everything = np.array(costs)
        assert running.value() == pytest.approx(_volume(_scaled(everything, everything)) / FURTHEST**2)


def test_states_are_counted_as_they_change(growing: Ledger) -> None:
    """Started, ended, started again, and put in by somebody else: counts, what runs and the order of the ends agree
    with the rows."""
    for name, baseline in (("teacher", "teacher"), ("t001", ""), ("t002", ""), ("t003", "")):
        growing.start(name, {"tau": 0.1}, baseline)
    growing.finish("t002", "complete", metrics={"val_accuracy": 1.0})
    growing.finish("teacher", "failed", "too small")
    growing.start("teacher", {}, "teacher")
    growing.finish("t001", "pruned")
    growing.trials["t009"] = {"trial_id": "t009", "state": "complete", "baseline": "", "val_accuracy": 2.0}
    for state in ("running", "complete", "pruned", "failed"):
        for baseline in (False, True):
            assert growing.count(state, baseline) == len(growing.of_state(state, baseline=baseline))
    assert set(growing.running) == {"teacher", "t003"}
    assert [row["trial_id"] for row in growing.ended] == ["t002", "teacher", "t001", "t009"]
    assert growing.new_id() == "t004" and Ledger.open(growing.folder).new_id() == "t004"

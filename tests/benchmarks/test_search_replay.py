"""The replay of recorded searches, on small tables made up here."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from benchmarks import recorded_studies as recording
from benchmarks import search_replay as replaying
from benchmarks import search_strategies as strategies
from benchmarks.recorded_studies import Recorded
from optuna.trial import TrialState

from search_spaces.sws import OBJECTIVES
from study.errors import UserError
from study.records import paths, study_folder
from study.tuning.halving import Rungs
from study.tuning.prediction import PredictedFront
from study.tuning.searcher import make_sampler
from study.tuning.space import SearchSpace

EPOCHS = 9
REFERENCE = {"val_accuracy": 80.0, "sparsity": 90.0}
SEARCH = {**SearchSpace.load("sws").as_json(), "reference": REFERENCE}


def table(trials: int = 40, failed: int = 1) -> pd.DataFrame:
    """Accuracy against sparsity along tau, and trials far behind it; the first `failed` end at half of their epochs."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "trial_id": [f"t{i:03d}" for i in range(trials)],
        "state": ["failed"] * failed + ["complete"] * (trials - failed),
        "tau": np.exp(rng.uniform(np.log(3e-3), np.log(0.3), trials)),
        "components": rng.integers(4, 65, trials),
        "one_minus_pi_zero": np.exp(rng.uniform(np.log(1e-4), np.log(0.2), trials)),
    })  # fmt: skip
    pressure, lost = np.log(frame["tau"] / 3e-3) / np.log(100), rng.exponential(3, trials)
    curves = {}
    for epoch in range(1, EPOCHS + 1):
        share = epoch / EPOCHS
        curves[f"val_accuracy@{epoch}"] = share * (97 - 10 * pressure**2 - lost)
        curves[f"sparsity@{epoch}"] = share * (91 + 8 * pressure - lost / 10)
    frame = pd.concat([frame, pd.DataFrame(curves)], axis=1)
    late = [column for column in curves if int(column.split("@")[1]) > EPOCHS // 2]
    frame.loc[frame["state"] == "failed", late] = np.nan
    return frame.assign(**{metric: frame[f"{metric}@{EPOCHS}"] for metric in OBJECTIVES})


@pytest.fixture
def recorded() -> Recorded:
    return Recorded.of("made up", SEARCH, table())


def by_hand(accuracies: list[list[float]], sparsities: list[float]) -> Recorded:
    """Trials with these accuracies after each epoch, and one sparsity each."""
    epochs = range(1, len(accuracies[0]) + 1)
    rows: list[dict[str, Any]] = []
    for i, (curve, sparsity) in enumerate(zip(accuracies, sparsities, strict=True)):
        cells = {f"val_accuracy@{e}": v for e, v in zip(epochs, curve, strict=True)}
        cells |= {f"sparsity@{e}": sparsity for e in epochs}
        ends = {"val_accuracy": curve[-1], "sparsity": sparsity}
        values = {"tau": 0.01 * (i + 1), "components": 8, "one_minus_pi_zero": 0.01}
        rows.append({"trial_id": f"t{i}", "state": "complete", **values, **ends, **cells})
    return Recorded.of("by hand", SEARCH, pd.DataFrame(rows))


class GivenOrder:
    """Trials in an order that a test gives."""

    def __init__(self, *trials: int) -> None:
        self.trials = list(trials)
        self.states: dict[int, TrialState] = {}

    def ask(self) -> int | None:
        return self.trials.pop(0) if self.trials else None

    def tell(self, trial: int, state: TrialState) -> None:
        self.states[trial] = state


class StopAt:
    """Stops every trial after an epoch, if its accuracy is below a limit."""

    def __init__(self, epoch: int, limit: float) -> None:
        self.epoch, self.limit = epoch, limit

    def judge(self, trial_id: str, epoch: int, metrics: dict[str, Any]) -> bool:
        return epoch != self.epoch or metrics["val_accuracy"] >= self.limit


def test_epochs_and_hypervolume_by_hand() -> None:
    """Three trials of three epochs, one at a time, over the corner (80, 90). The first has (90 − 80)(92 − 90) = 20, the
    second adds (85 − 80)(98 − 92) = 30, the third (95 − 90)(91 − 90) = 5. Of these 55, 95 % is there with the third."""
    recorded = by_hand([[50, 60, 90], [40, 50, 85], [70, 80, 95]], [92, 98, 91])
    search = replaying.replay(recorded, GivenOrder(0, 1, 2), workers=1)
    assert search.spent.tolist() == [0, 3, 6, 9]
    assert search.volumes.tolist() == pytest.approx([0, 20, 50, 55]) and recorded.best() == pytest.approx(55)
    assert (search.started, search.finished, search.epochs) == (3, 3, 9)
    assert search.reached(20) == 3 and search.reached(21) == 6 and math.isinf(search.reached(56))
    assert replaying.epochs_until(search, recorded, 0.9) == 6 and replaying.epochs_until(search, recorded, 0.95) == 9


def test_a_rule_saves_epochs_by_hand() -> None:
    """The same, with a rule that stops the second trial after an epoch: 3 + 1 + 3 epochs, 20 + 5 of the volume. What it
    never reaches counts with all epochs of the table. The searcher learns what became of each trial."""
    recorded = by_hand([[50, 60, 90], [40, 50, 85], [70, 80, 95]], [92, 98, 91])
    order = GivenOrder(0, 1, 2)
    search = replaying.replay(recorded, order, StopAt(1, 45), workers=1)
    assert search.spent.tolist() == [0, 3, 7] and search.volumes.tolist() == pytest.approx([0, 20, 25])
    assert order.states == {0: TrialState.COMPLETE, 1: TrialState.PRUNED, 2: TrialState.COMPLETE}
    assert replaying.epochs_until(search, recorded, 0.99) == 9
    until = replaying.replay(recorded, GivenOrder(0, 1, 2), workers=1, until=20)
    assert until.epochs == 3


def test_the_paired_difference_by_hand() -> None:
    """−10, −20 and −30 of a mean of 100: −20 % ± t(0.975, 2) · 10 / √3 = 4.303 · 5.774 = 24.8."""
    base = np.array([90.0, 100.0, 110.0])
    assert replaying.difference(base - [10, 20, 30], base) == "−20 ± 25 %"


def test_sizes_count_by_their_logarithm() -> None:
    """From 1,000 bytes down to 10 are two powers of ten, times 10 points of accuracy."""
    search = {
        "objectives": {"val_accuracy": "max", "file_bytes": "min"},
        "space": {"tau": SEARCH["space"]["tau"]},
        "reference": {"val_accuracy": 80.0, "file_bytes": 1000.0},
    }
    cells = {"val_accuracy@1": [50.0], "val_accuracy@2": [90.0], "entropy_bytes@2": [9.0]}
    frame = pd.DataFrame({"trial_id": ["t0"], "state": ["complete"], "tau": [0.1], "val_accuracy": [90.0],
                          "file_bytes": [10.0], **cells})  # fmt: skip
    recorded = Recorded.of("one", search, frame)
    assert recorded.best() == pytest.approx(20)
    assert recorded.measured == {"val_accuracy": "max", "entropy_bytes": "min"}
    assert recorded.lengths.tolist() == [2] and strategies.grace(recorded, 2) == 1


@pytest.mark.parametrize("seed", range(5))
def test_rules_spend_fewer_epochs(recorded: Recorded, seed: int) -> None:
    """On all recorded trials in the same order, a rule spends fewer epochs, finishes fewer trials, and finds no more;
    without one every trial that does not fail spends all its epochs, and all of the front is found."""
    full = replaying.replay(recorded, strategies.RandomOrder(recorded, seed))
    assert (full.started, full.finished) == (40, 39)
    assert full.epochs == 39 * EPOCHS + EPOCHS // 2
    assert full.volumes[-1] == pytest.approx(recorded.best())
    for rule, share in ((Rungs(OBJECTIVES, EPOCHS, 2), 0.8), (PredictedFront(OBJECTIVES, EPOCHS, 2), 0.85)):
        short = replaying.replay(recorded, strategies.RandomOrder(recorded, seed), rule)
        assert short.started == 40 and short.finished < 30
        assert short.epochs < share * full.epochs
        assert short.volumes[-1] <= full.volumes[-1] + 1e-9


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2"])
def test_a_searcher_runs_every_recorded_trial_once(recorded: Recorded, searcher: str) -> None:
    """So without a rule it has all of the hypervolume in the end; on the way that only grows."""
    search = replaying.replay(recorded, strategies.order(searcher, recorded, 0))
    assert (search.started, search.finished) == (40, 39)
    assert (np.diff(search.volumes) >= 0).all() and (np.diff(search.spent) >= 0).all()
    assert search.volumes[-1] == pytest.approx(recorded.best())


def test_a_searcher_learns_what_ran(recorded: Recorded) -> None:
    """Not what it suggested: Optuna's study holds the recorded configurations and objectives, and NSGA-II's generations
    are counted."""
    order = strategies.SuggestedOrder(recorded, make_sampler("nsga2", 0, 0))
    asked = [order.ask() for _ in range(3)]
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    for trial, state in zip(asked, states, strict=True):
        assert trial is not None
        order.tell(trial, state)
    learnt = [t for t in order.study.trials if t.state != TrialState.FAIL]
    assert [t.params for t in learnt] == [dict(recorded.configurations[i]) for i in asked if i is not None]
    assert [t.state for t in learnt] == states and learnt[0].values == recorded.ends[asked[0]].tolist()
    assert list(learnt[0].system_attrs.values()) == [0]


def test_a_search_repeats(recorded: Recorded) -> None:
    """The same seed gives the same search, and another one another."""
    first, again, other = (
        replaying.replay(recorded, strategies.order("tpe", recorded, seed), PredictedFront(OBJECTIVES, EPOCHS, 2))
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first.volumes, again.volumes) and np.array_equal(first.spent, again.spent)
    assert not np.array_equal(first.volumes, other.volumes)


def test_places_are_in_the_unit_cube(recorded: Recorded) -> None:
    """The space's corners are the cube's, and equal ratios are equal steps where it is logarithmic."""
    space = SearchSpace.load("sws").distributions()
    low = {"tau": 3e-3, "components": 4, "one_minus_pi_zero": 1e-4}
    high = {"tau": 0.3, "components": 64, "one_minus_pi_zero": 0.2}
    np.testing.assert_allclose(recording.place(low, space), 0)
    np.testing.assert_allclose(recording.place(high, space), 1)
    assert recording.place({**low, "tau": 0.03}, space)[0] == pytest.approx(0.5)
    assert ((recorded.places >= 0) & (recorded.places <= 1)).all()


def test_a_study_is_recorded(tmp_path: Path) -> None:
    """The table read back holds each searched trial's history to six digits, without the baselines, and a failed trial
    has no end."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=60, epochs=8))
    note, search, frame = recording.record(study.folder, dict.fromkeys(study.objectives, 0.0))
    recording.write(tmp_path / "new" / "table.csv", note, search, frame)
    recorded = Recorded.read(tmp_path / "new" / "table.csv")
    searched = study.trials[study.trials["baseline"] == ""]
    assert recorded.note == note and "60 trials" in note and "python -m study.run sws" in note
    assert recorded.curves.shape == (60, 8, 2) and recorded.objectives == study.objectives
    for i, row in enumerate(searched.to_dict("records")):
        assert np.isfinite(recorded.ends[i]).all() == (row["state"] == "complete")
        if row["state"] == "complete":
            epochs = study.history[study.history["trial_id"] == row["trial_id"]].sort_values("epoch")
            np.testing.assert_allclose(recorded.curves[i], epochs[list(OBJECTIVES)], rtol=1e-5)
            np.testing.assert_allclose(recorded.ends[i], [row[metric] for metric in OBJECTIVES], rtol=1e-5)


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    """A study whose trials a scheduler stopped, a corner without all objectives, and a table that is not there."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=10, epochs=8))
    with pytest.raises(UserError, match="--reference"):
        recording.record(study.folder, {"val_accuracy": 0.0})
    study.trials.loc[5, "state"] = "pruned"
    study_folder.write_frame(study.folder / paths.TRIALS, study.trials)
    with pytest.raises(UserError, match="--scheduler none"):
        recording.record(study.folder, REFERENCE)
    with pytest.raises(UserError, match="--record"):
        Recorded.read(tmp_path / "none.csv")


def test_the_command_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How it was called, where the table comes from, and a row a strategy, each as wide as the heading."""
    recording.write(tmp_path / "small.csv", "40 trials made up", SEARCH, table())
    monkeypatch.setattr(replaying, "FOLDER", tmp_path)
    arguments = ["--tables", "small", "--orders", "2", "--processes", "1", "--strategies", "random", "tpe, predicted"]
    monkeypatch.setattr(sys, "argv", ["replay.py", *arguments])
    assert replaying.main() == 0
    printed = capsys.readouterr().out
    assert "--strategies random 'tpe, predicted'" in printed and "small: 40 trials made up; 9 epochs" in printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines if "---" not in line] == ["| search", "| random", "| tpe, predicted"]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("path", sorted(recording.FOLDER.glob("*.csv")), ids=lambda path: path.stem)
def test_recorded_tables_are_complete(path: Path) -> None:
    """Every recorded table has 160 trials or more, nearly all with their end, a hypervolume, and under 1 MB."""
    recorded = Recorded.read(path)
    assert len(recorded.ends) >= 160 and path.stat().st_size < 1e6
    assert np.isfinite(recorded.ends).all(axis=1).mean() > 0.9
    assert recorded.best() > 0 and (recorded.lengths <= recorded.epochs).all()

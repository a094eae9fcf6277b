"""The replay of recorded searches, on small tables made up here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from benchmarks import search_replay as replaying

from search_spaces.sws import OBJECTIVES
from study.errors import UserError
from study.records import paths, study_folder
from study.tuning.halving import Rungs
from study.tuning.space import SearchSpace

EPOCHS = 9


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
    return frame


@pytest.fixture
def recorded() -> replaying.Recorded:
    return replaying.Recorded.of("made up", table())


def rungs() -> Rungs:
    return Rungs(OBJECTIVES, EPOCHS, 2)


@pytest.mark.parametrize("seed", range(5))
def test_halving_spends_fewer_epochs(recorded: replaying.Recorded, seed: int) -> None:
    """On all recorded trials in the same order, halving spends fewer epochs, finishes fewer trials, and finds no more;
    without it every trial that does not fail spends all its epochs, and all of the front is found."""
    full = replaying.replay(replaying.Drawn(recorded, seed), 10**6)
    halved = replaying.replay(replaying.Drawn(recorded, seed), 10**6, rungs())
    assert (full.started, full.finished) == (40, 39)
    assert full.epochs == 39 * EPOCHS + EPOCHS // 2 + 1  # a failure is seen in the epoch that has no values
    assert full.at(full.epochs) == pytest.approx(recorded.volume())
    assert halved.started == 40 and halved.finished < 30
    assert halved.epochs < 0.8 * full.epochs
    assert halved.at(halved.epochs) <= full.at(full.epochs)


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2"])
def test_no_search_finds_more_than_was_recorded(recorded: replaying.Recorded, searcher: str) -> None:
    """With the nearest trial as the answer, the hypervolume only grows, and that of all recorded trials bounds it."""
    for halving in (None, rungs()):
        search = replaying.replay(replaying.Suggested(recorded, searcher, 0, 1), 30 * EPOCHS, halving)
        assert (np.diff(search.found) >= 0).all() and (np.diff(search.spent) >= 0).all()
        assert 0 < search.at(30 * EPOCHS) <= recorded.volume() + 1e-9


def test_a_search_repeats(recorded: replaying.Recorded) -> None:
    """The same seed gives the same search, and another one another."""
    first, again, other = (
        replaying.replay(replaying.Suggested(recorded, "tpe", seed, 1), 20 * EPOCHS, rungs()) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.found, again.found) and np.array_equal(first.spent, again.spent)
    assert not np.array_equal(first.found, other.found)


def test_the_surrogate_is_the_nearest_trial(recorded: replaying.Recorded) -> None:
    """At a recorded configuration the answer is its own curve; left out, it is the nearest other one's; of two
    neighbours it is the mean, weighted by the inverse distances."""
    for i in (1, 7):
        where = recorded.places[i]
        np.testing.assert_allclose(recorded.answer(where, 1), recorded.curves[i])
        distance = np.linalg.norm(recorded.places - where, axis=1)
        first, second = np.argsort(distance)[1:3]
        np.testing.assert_allclose(recorded.answer(where, 1, without=i), recorded.curves[first])
        share = distance[second] / (distance[first] + distance[second])
        mean = share * recorded.curves[first] + (1 - share) * recorded.curves[second]
        np.testing.assert_allclose(recorded.answer(where, 2, without=i), mean)


def test_places_are_in_the_unit_cube(recorded: replaying.Recorded) -> None:
    """The space's corners are the cube's, and equal ratios are equal steps where it is logarithmic."""
    space = SearchSpace.load("sws").distributions()
    low = {"tau": 3e-3, "components": 4, "one_minus_pi_zero": 1e-4}
    high = {"tau": 0.3, "components": 64, "one_minus_pi_zero": 0.2}
    np.testing.assert_allclose(replaying.place(low, space), 0)
    np.testing.assert_allclose(replaying.place(high, space), 1)
    assert replaying.place({**low, "tau": 0.03}, space)[0] == pytest.approx(0.5)
    assert ((recorded.places >= 0) & (recorded.places <= 1)).all()


def test_a_study_is_recorded(tmp_path: Path) -> None:
    """The table read back holds each searched trial's history to six digits, without the baselines, and a failed trial
    has no end."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=60, epochs=8))
    note, frame = replaying.record(study.folder)
    replaying.write(tmp_path / "new" / "table.csv", note, frame)
    recorded = replaying.Recorded.read(tmp_path / "new" / "table.csv")
    searched = study.trials[study.trials["baseline"] == ""]
    assert recorded.note == note and "60 trials" in note and "python -m study.run sws" in note
    assert recorded.curves.shape == (60, 8, 2)
    for curve, row in zip(recorded.curves, searched.to_dict("records"), strict=True):
        assert np.isfinite(curve[-1]).all() == (row["state"] == "complete")
        if row["state"] == "complete":
            epochs = study.history[study.history["trial_id"] == row["trial_id"]].sort_values("epoch")
            np.testing.assert_allclose(curve, epochs[list(OBJECTIVES)], rtol=1e-5)


def test_stopped_trials_are_not_recorded(tmp_path: Path) -> None:
    """A study whose trials a scheduler stopped is refused, and so is a table that is not there."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=10, epochs=8))
    study.trials.loc[5, "state"] = "pruned"
    study_folder.write_frame(study.folder / paths.TRIALS, study.trials)
    with pytest.raises(UserError, match="--scheduler none"):
        replaying.record(study.folder)
    with pytest.raises(UserError, match="--record"):
        replaying.Recorded.read(tmp_path / "none.csv")


def test_the_command_prints_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints how it was called and both tables, with every row as wide as its heading."""
    path = tmp_path / "table.csv"
    replaying.write(path, "40 trials made up", table())
    arguments = ["--table", str(path), "--seeds", "2", "--searchers", "random", "tpe"]
    monkeypatch.setattr(sys, "argv", ["replay.py", *arguments])
    assert replaying.main() == 0
    printed = capsys.readouterr().out
    assert f"`python replay.py --table {path} --seeds 2 --searchers random tpe`: 40 trials made up" in printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines if "---" not in line] == [
        "| ", "| none", "| halving", "| halving, first front not protected", "| halving by val_accuracy alone",
        "| ", "| random", "| tpe", "| random, halving", "| tpe, halving",
    ]  # fmt: skip
    assert len({line.count("|") for line in lines[:6]}) == 1 and len({line.count("|") for line in lines[6:]}) == 1
    none = [line for line in lines if line.startswith("| none")][0]
    assert "(1.000)" in none

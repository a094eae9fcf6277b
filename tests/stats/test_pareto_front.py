"""Fronts and hypervolumes, against definitions written out by brute force and against Optuna's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.pareto_front import feasible, finished, hypervolume, knee, pareto_front


def brute_force_front(points: np.ndarray, signs: np.ndarray) -> list[int]:
    """The definition, pair by pair, on points to be minimised after multiplying by `signs`."""
    costs = points * signs
    return [i for i, p in enumerate(costs) if not any((q <= p).all() and (q < p).any() for q in costs)]


def frame(points: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(points, columns=[f"f{i}" for i in range(points.shape[1])])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_front_is_the_brute_force_front(dimensions: int, seed: int) -> None:
    """On random points with many ties, in any mix of directions, the front is the one its definition gives."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, size=(60, dimensions)).astype(float)
    directions = rng.choice(["min", "max"], size=dimensions)
    trials = frame(points)
    front = pareto_front(trials, dict(zip(trials.columns, directions, strict=True)))
    assert list(front.index) == brute_force_front(points, np.where(directions == "max", -1.0, 1.0))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_is_optunas(dimensions: int, seed: int) -> None:
    """Hypervolume agrees with Optuna's independent implementation to 1e-9, ties and points outside included."""
    compute = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    rng = np.random.default_rng(100 + seed)
    points = np.concatenate([rng.random((25, dimensions)), rng.integers(0, 4, (25, dimensions)) / 3])
    trials = frame(points)
    ours = hypervolume(trials, dict.fromkeys(trials.columns, "min"), dict.fromkeys(trials.columns, 0.9))
    inside = points[(points <= 0.9).all(axis=1)]
    assert ours == pytest.approx(compute(inside, np.full(dimensions, 0.9)), abs=1e-9)


def test_hypervolume_of_a_maximised_pair_by_hand() -> None:
    """Two overlapping boxes over the reference (1, 1): 3 × 1 + 1 × 3 − 1 × 1 = 5, whichever way they are maximised."""
    trials = pd.DataFrame({"a": [4.0, 2.0], "b": [2.0, 4.0]})
    assert hypervolume(trials, {"a": "max", "b": "max"}, {"a": 1, "b": 1}) == pytest.approx(5.0, abs=1e-12)
    mirrored = trials.assign(b=-trials["b"])
    assert hypervolume(mirrored, {"a": "max", "b": "min"}, {"a": 1, "b": -1}) == pytest.approx(5.0, abs=1e-12)


def test_equal_rows_all_stay() -> None:
    """Two configurations with the same scores are both on the front, under their own index."""
    trials = pd.DataFrame({"a": [1.0, 2.0, 2.0], "b": [1.0, 1.0, 1.0]}, index=[7, 8, 9])
    assert list(pareto_front(trials, {"a": "max", "b": "max"}).index) == [8, 9]


def test_order_and_index_are_kept() -> None:
    """The front is a selection of rows: the input's order, index and columns, and the input untouched."""
    trials = pd.DataFrame({"a": [3.0, 1.0, 2.0], "b": [1.0, 3.0, 2.0], "name": list("xyz")}, index=[5, 3, 4])
    before = trials.copy()
    front = pareto_front(trials, {"a": "max", "b": "max"})
    pd.testing.assert_frame_equal(front, before)
    pd.testing.assert_frame_equal(trials, before)


def test_missing_objectives_leave_the_row_out() -> None:
    """A row with a missing or infinite objective neither enters the front nor pushes another row off it."""
    trials = pd.DataFrame({"a": [np.nan, 1.0, 9.0, np.inf], "b": [9.0, 1.0, np.nan, 0.0]})
    assert list(pareto_front(trials, {"a": "max", "b": "max"}).index) == [1]
    assert hypervolume(trials, {"a": "max", "b": "max"}, {"a": 0, "b": 0}) == pytest.approx(1.0)


@pytest.mark.parametrize("trials", [pd.DataFrame({"a": [], "b": []}), pd.DataFrame({"other": [1, 2]})])
def test_nothing_scored_is_an_empty_front(trials: pd.DataFrame) -> None:
    """No rows, or a table that has no such column yet, is an empty front of volume zero, not an error."""
    assert pareto_front(trials, {"a": "max", "b": "max"}).empty
    assert hypervolume(trials, {"a": "max", "b": "max"}, {"a": 0, "b": 0}) == 0.0


def test_one_point_is_its_own_front() -> None:
    """A single trial is the front, and its volume is the box between it and the reference."""
    trials = pd.DataFrame({"a": [2.0], "b": [3.0]})
    assert len(pareto_front(trials, {"a": "max", "b": "min"})) == 1
    assert hypervolume(trials, {"a": "max", "b": "min"}, {"a": 0, "b": 5}) == pytest.approx(4.0)


def test_a_point_beyond_the_reference_adds_nothing() -> None:
    """A trial worse than the reference in one objective has no volume."""
    assert hypervolume(pd.DataFrame({"a": [5.0], "b": [-1.0]}), {"a": "max", "b": "max"}, {"a": 0, "b": 0}) == 0.0


@pytest.mark.parametrize("objectives", [{}, {"a": "up"}, {"a": "maximize"}])
def test_bad_objectives_are_refused(objectives: dict[str, str]) -> None:
    """No objective, or a direction other than min and max, is an error and never a silent minimisation."""
    with pytest.raises(ValueError):
        pareto_front(pd.DataFrame({"a": [1.0]}), objectives)


def test_reference_must_name_every_objective() -> None:
    """A reference point that leaves an objective out is an error."""
    with pytest.raises(ValueError, match="'b'"):
        hypervolume(pd.DataFrame({"a": [1.0], "b": [1.0]}), {"a": "max", "b": "max"}, {"a": 0})


def test_only_complete_searched_trials_count() -> None:
    """Pruned, failed and running trials and baselines are not candidates for a front."""
    states = ["complete", "pruned", "failed", "running", "complete"]
    trials = pd.DataFrame({"state": states, "baseline": ["", "", "", "", "teacher"]})
    assert list(finished(trials).index) == [0]


def test_only_trials_accurate_enough_are_feasible() -> None:
    """At the bound is enough, below it or without a score is not, and without a bound every trial is feasible."""
    trials = pd.DataFrame({"val_accuracy": [97.0, 96.9, np.nan, 99.0]})
    assert list(feasible(trials, {"settings": {"min_accuracy": 97.0}}).index) == [0, 3]
    for meta in ({"settings": {"min_accuracy": None}}, {"settings": {}}, {}):
        pd.testing.assert_frame_equal(feasible(trials, meta), trials)
    assert feasible(pd.DataFrame({"other": [1.0]}), {"settings": {"min_accuracy": 97.0}}).empty


def test_the_front_under_a_constraint_is_the_front_cut_at_it() -> None:
    """Where accuracy is an objective, leaving infeasible trials out first or last gives the same front, as in
    `study.tuning.searcher.front`."""
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"val_accuracy": rng.integers(90, 99, 80), "sparsity": rng.integers(50, 99, 80)})
    meta, both = {"settings": {"min_accuracy": 94}}, {"val_accuracy": "max", "sparsity": "max"}
    first, last = pareto_front(feasible(trials, meta), both), feasible(pareto_front(trials, both), meta)
    pd.testing.assert_frame_equal(first, last)


@pytest.mark.parametrize("seed", range(6))
def test_three_objectives_with_ties_against_optuna(seed: int) -> None:
    """Front by brute force and hypervolume by Optuna, to 1e-9 relative, in mixed directions on a coarse grid with
    duplicates, where most points tie in some objective."""
    compute = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    rng = np.random.default_rng(200 + seed)
    points = rng.integers(0, 5, size=(80, 3)) + rng.integers(0, 2, size=(80, 1)) * 0.25
    points = np.concatenate([points, points[:10]])
    trials, objectives = frame(points), {"f0": "max", "f1": "min", "f2": "max"}
    signs = np.array([-1.0, 1.0, -1.0])
    assert list(pareto_front(trials, objectives).index) == brute_force_front(points, signs)
    reference = {"f0": -0.5, "f1": 5.5, "f2": -0.5}
    theirs = compute(points * signs, np.array(list(reference.values())) * signs)
    assert theirs > 0 and hypervolume(trials, objectives, reference) == pytest.approx(theirs, rel=1e-9)


BEND = pd.DataFrame({"accuracy": [99.0, 98.0, 90.0, 50.0], "bytes": [1000.0, 300.0, 200.0, 100.0]}, index=list("abcd"))
BOTH = {"accuracy": "max", "bytes": "min"}


def test_knee_by_hand() -> None:
    """Scaled costs of b are 1/49 and 2/9, of c 9/49 and 1/9: c's 0.295 is more than b's 0.243, so b is the knee. Other
    units, another order of rows and of objectives change nothing; the logarithm of a size does: then c is it."""
    for front, both in ((BEND, BOTH), (BEND.iloc[::-1] * 7.0, BOTH), (BEND, dict(reversed(BOTH.items())))):
        bend = knee(front, both)
        assert bend is not None and bend.name == "b"
    bend = knee(BEND.assign(bytes=np.log(BEND["bytes"]), accuracy=[99.0, 98.0, 97.9, 50.0]), BOTH)
    assert bend is not None and bend.name == "c"


def test_knee_is_the_farthest_from_the_line() -> None:
    """On random fronts of two objectives it is the member with the largest distance, by the textbook formula, from the
    straight line through both ends of the scaled front."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.random(12))
        front = frame(np.column_stack([x, (1 - x) ** rng.uniform(1.5, 4) + 0.05 * np.sort(rng.random(12))[::-1]]))
        scaled = ((front - front.min()) / (front.max() - front.min())).to_numpy()
        (ax, ay), (bx, by) = scaled[0], scaled[-1]
        area = np.abs((bx - ax) * (ay - scaled[:, 1]) - (ax - scaled[:, 0]) * (by - ay))
        distance = area / np.hypot(bx - ax, by - ay)
        bend = knee(front, {"f0": "min", "f1": "min"})
        assert bend is not None and bend.name == int(distance.argmax())


def test_knee_of_three_objectives() -> None:
    """The member before the plane through the three corners, in mixed directions; equal members change nothing."""
    trials = frame(np.array([[1.0, 0, 10], [0, -10, 10], [0, 0, 0], [0.2, -2, 8]]))
    objectives = {"f0": "min", "f1": "max", "f2": "max"}
    for rows in (trials, pd.concat([trials, trials])):
        bend = knee(rows, objectives)
        assert bend is not None and bend.name == 3


@pytest.mark.parametrize(
    "points",
    [
        [],
        [[1, 1]],
        [[0, 1], [1, 0]],
        [[0, 1], [0, 1], [1, 0]],
        [[0, 1], [0.5, 0.5], [1, 0]],
        [[0, 1], [0.9, 0.9], [1, 0]],
        [[0, 1], [0.2, np.nan], [1, 0]],
    ],
)
def test_no_knee(points: list[list[float]]) -> None:
    """Fewer than three different members, a straight front, one that bends away, and a missing value have no knee."""
    assert knee(frame(np.array(points, dtype=float).reshape(-1, 2)), {"f0": "min", "f1": "min"}) is None

"""How sure a front is, against definitions written out by brute force and against cases with a known answer."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy import stats

from analysis.stats import uncertainty
from analysis.stats.epsilon import epsilon, resampled_fronts
from analysis.stats.held_out_results import fresh_seed_rows
from analysis.stats.pareto_front import pareto_front
from analysis.stats.standard_error import redrawn, standard_error
from analysis.stats.summary import summarise
from analysis.stats.uncertainty import (
    DRAWS,
    attainment,
    probability_by_images,
    probability_by_seeds,
    probability_on_front,
)
from study.records.study_folder import load

TWO = {"test_accuracy": "max", "file_bytes": "min"}
SIZED = {"val_accuracy": "max", "file_bytes": "min"}


def runs_of(seed: int, objectives: int, seeds: int = 5) -> pd.DataFrame:
    """Rows as `confirmation.fresh` gives them, on a coarse grid so that points tie."""
    points = np.random.default_rng(seed).integers(0, 8, size=(seeds * 4, objectives)).astype(float)
    rows = pd.DataFrame(points, columns=[f"f{i}" for i in range(objectives)])
    return rows.assign(seed=np.repeat(np.arange(1, seeds + 1), 4), baseline="")


@pytest.mark.parametrize("objectives", [{"f0": "max", "f1": "min"}, {"f0": "min", "f1": "max", "f2": "min"}])
@pytest.mark.parametrize("seed", range(4))
def test_attainment_is_its_definition(objectives: dict[str, str], seed: int) -> None:
    """A point of the grid is attained by at least 25, 50 or 75 % of the seeds exactly when it is no better than some
    corner of that surface, counted seed by seed."""
    rows = runs_of(seed, len(objectives))
    signs = np.array([-1.0 if d == "max" else 1.0 for d in objectives.values()])
    surfaces = attainment(rows, objectives)
    assert set(surfaces["percentage"]) == {25.0, 50.0, 75.0}
    grid = np.array(list(itertools.product(range(8), repeat=len(objectives))), dtype=float)

    def reached(points: pd.DataFrame) -> np.ndarray:
        costs = signs * points[list(objectives)].to_numpy()
        return (costs[None] <= (signs * grid)[:, None]).all(axis=2).any(axis=1)

    runs = np.array([reached(run) for _, run in rows.groupby("seed")])
    for percentage, corners in surfaces.groupby("percentage"):
        enough = math.ceil(len(runs) * float(percentage) / 100)
        assert (reached(corners) == (runs.sum(axis=0) >= enough)).all()


def test_attainment_leaves_out_baselines_and_missing_scores() -> None:
    """A baseline's row and one without a score move no surface; nothing, or one objective, is empty, or an error."""
    rows = runs_of(0, 2)
    odd = pd.DataFrame({"f0": [99.0, np.nan], "f1": [-99.0, 0.0], "seed": [1, 2], "baseline": ["uncompressed", ""]})
    both = {"f0": "max", "f1": "min"}
    pd.testing.assert_frame_equal(attainment(pd.concat([odd, rows]), both), attainment(rows, both))
    assert attainment(rows.head(0), both).empty
    with pytest.raises(ValueError, match="two or three"):
        attainment(rows, {"f0": "max"})


def test_one_seed_is_its_own_surface() -> None:
    """With a single seed every surface is that seed's front."""
    rows, both = runs_of(3, 2, seeds=1), {"f0": "max", "f1": "max"}
    corners = pareto_front(rows, both)[["f0", "f1"]].drop_duplicates().sort_values(["f0", "f1"], ignore_index=True)
    for _, surface in attainment(rows, both).groupby("percentage"):
        pd.testing.assert_frame_equal(surface[["f0", "f1"]].reset_index(drop=True), corners, check_dtype=False)


def test_redrawn_accuracies_have_the_standard_error() -> None:
    """Mean and spread of the samples are those of `standard_error`, at any place of the list, ties included."""
    accuracies = np.array([98.0, 50.0, 98.0, 100.0, 7.5])
    sample = redrawn(accuracies, 200, 40_000, np.random.default_rng(1))
    for i, accuracy in enumerate(accuracies):
        assert sample[:, i].mean() == pytest.approx(100 * (accuracy * 2 + 2) / 204, abs=0.1)
        assert sample[:, i].std() == pytest.approx(standard_error(accuracy, 200), rel=0.02)
    assert abs(np.corrcoef(sample[:, 0], sample[:, 2])[0, 1]) < 0.02


def test_probability_of_two_trials_in_closed_form() -> None:
    """The larger of two networks is on the front when it is more accurate: the binomial probability of that, summed
    by hand. The smaller one always is."""
    trials = pd.DataFrame({"val_accuracy": [96.0, 95.0], "file_bytes": [2000.0, 1000.0]})
    n, images = 404, 400
    p, q = ((a / 100 * images + 2) / n for a in (96.0, 95.0))
    first, second = ([math.comb(n, k) * r**k * (1 - r) ** (n - k) for k in range(n + 1)] for r in (p, q))
    below = np.concatenate([[0.0], np.cumsum(second)[:-1]])
    expected = float(np.dot(first, below))  # a tie in accuracy is lost to the smaller file
    probabilities = probability_by_images(trials, SIZED, images)
    assert probabilities[1] == 1.0 and probabilities[0] == pytest.approx(
        expected, abs=3 * math.sqrt(expected * (1 - expected) / 1000)
    )


def test_leaving_out_hopeless_trials_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the limit to trials that can reach the front, every probability agrees to the error of the
    draws; and the limit does leave some out."""
    rng = np.random.default_rng(5)
    trials = pd.DataFrame({"val_accuracy": rng.uniform(80, 97, 150), "file_bytes": rng.uniform(1e3, 1e5, 150)})
    few = probability_by_images(trials, SIZED, 500)
    monkeypatch.setattr(uncertainty, "_can_reach", lambda points, *_: np.ones(len(points), dtype=bool))
    everyone = probability_by_images(trials, SIZED, 500)
    assert (few == 0).sum() > 50 and everyone[few == 0].max() < 0.005
    assert (few - everyone).abs().max() < 0.08


def test_certain_and_hopeless_trials() -> None:
    """With a million images the front is the observed one; a missing score has no probability, nor has anything
    without images; one objective gives the probability to be the best."""
    rng = np.random.default_rng(2)
    trials = pd.DataFrame({"val_accuracy": rng.permutation(np.linspace(60, 99, 40)), "file_bytes": rng.permutation(40)})
    trials.loc[40] = [np.nan, 1.0]
    probabilities = probability_by_images(trials, SIZED, 1_000_000)
    assert set(probabilities[probabilities == 1].index) == set(pareto_front(trials, SIZED).index) and np.isnan(
        probabilities[40]
    )
    assert (probabilities.drop(40).isin([0, 1])).all()
    assert (
        probability_by_images(trials, SIZED, 0).isna().all() and probability_by_images(trials.head(0), SIZED, 10).empty
    )
    one = probability_by_images(trials.drop(40), {"val_accuracy": "max"}, 1_000_000)
    assert one.sum() == 1 and one.idxmax() == trials["val_accuracy"].idxmax()


def test_probability_over_two_seeds_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger b is on the front where its mean accuracy is above a's: −1 with seed 1, +3 with seed 2, so 1 ± 2, and
    Student's t with one degree of freedom, which is Cauchy's distribution, lies below ½ so often."""
    monkeypatch.setattr(uncertainty, "FEWEST_SEEDS", 2)
    monkeypatch.setattr(uncertainty, "DRAWS", 50_000)
    rows = pd.DataFrame(
        {
            "trial_id": list("aabbc"),
            "seed": [1, 2, 1, 2, 1],
            "test_accuracy": [95.0, 95.0, 94.0, 98.0, 99.0],
            "file_bytes": [10.0, 10, 20, 20, 5],
        }
    )
    probabilities = probability_by_seeds(rows, TWO)
    assert list(probabilities.index) == ["a", "b"]  # c has one seed alone
    assert probabilities["a"] == 1.0 and probabilities["b"] == pytest.approx(0.5 + math.atan(0.5) / math.pi, abs=0.006)


@pytest.mark.parametrize(("seeds", "statistic"), [(5, 1.5), (5, -1.0), (9, 0.5)])
def test_probability_over_seeds_is_students_t(seeds: int, statistic: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two trials the larger file is on the front where its mean accuracy is above the other's: the paired
    t-statistic's tail with one degree of freedom fewer than there are seeds."""
    monkeypatch.setattr(uncertainty, "DRAWS", 50_000)
    luck = stats.zscore(np.random.default_rng(seeds).normal(size=seeds), ddof=1)
    better = luck + statistic / math.sqrt(seeds)
    shared = 5 * np.random.default_rng(1).normal(size=seeds)  # what a seed does to both
    rows = [
        {"trial_id": trial, "seed": seed, "test_accuracy": accuracy, "file_bytes": size}
        for trial, size, accuracies in (("a", 10.0, 80 + shared), ("b", 20.0, 80 + shared + better))
        for seed, accuracy in enumerate(accuracies)
    ]
    probability = probability_by_seeds(pd.DataFrame(rows), TWO)
    assert probability["a"] == 1.0
    assert probability["b"] == pytest.approx(stats.t(seeds - 1).cdf(statistic), abs=0.005)


def test_equal_trials_seldom_look_different() -> None:
    """Of two equal trials with five seeds each one has 95 % or more in one study of ten."""
    sure = 0
    for number in range(300):
        scores = np.random.default_rng(number).normal(97, 0.3, (2, 5))
        rows = pd.DataFrame(
            [{"trial_id": t, "seed": seed, "test_accuracy": scores[t, seed]} for t in (0, 1) for seed in range(5)]
        )
        sure += probability_by_seeds(rows, {"test_accuracy": "max"}).max() >= 0.95
    assert sure / 300 == pytest.approx(0.1, abs=3 * math.sqrt(0.1 * 0.9 / 300))


def test_seeds_are_paired() -> None:
    """What a seed does to all trials drops out: however large it is, the better of two is on the front every time."""
    rows = pd.DataFrame(
        [
            {"trial_id": t, "seed": s, "test_accuracy": 90 + 9 * (s % 2) + better, "file_bytes": size}
            for s in range(1, 6)
            for t, better, size in (("a", 0.0, 10.0), ("b", 0.1, 20.0))
        ]
    )
    assert probability_by_seeds(rows, TWO).to_dict() == {"a": 1.0, "b": 1.0}


def test_a_seed_that_a_trial_lacks_is_left_out_of_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial with fewer seeds than others counts in the draws that have one of its own, and only there."""
    monkeypatch.setattr(uncertainty, "FEWEST_SEEDS", 2)
    rows = pd.DataFrame(
        [{"trial_id": "a", "seed": s, "test_accuracy": 95.0, "file_bytes": 10.0} for s in range(1, 6)]
        + [{"trial_id": "b", "seed": s, "test_accuracy": 96.0, "file_bytes": 20.0} for s in (1, 2)]
    )
    assert probability_by_seeds(rows, TWO).to_dict() == {"a": 1.0, "b": 1.0}


def test_of_a_study_fresh_seeds_are_preferred(tmp_path: Path) -> None:
    """With fresh seeds the retrained trials alone have a probability, on test data; without them all that the study's
    constraint allows, and the front's members more than others; the same call gives the same numbers."""
    seeds = load(synthetic.write_sws(tmp_path / "a", fresh=5))
    probabilities = probability_on_front(seeds)
    rows = fresh_seed_rows(seeds)
    assert set(probabilities["basis"]) == {"fresh seeds"}
    assert set(probabilities["trial_id"]) == set(rows.loc[rows["baseline"] == "", "trial_id"])
    study = load(synthetic.write_sws(tmp_path / "b", fresh=4))  # too few: one might win with each by chance
    probabilities = probability_on_front(study)
    assert set(probabilities["basis"]) == {"validation images"}
    s = summarise(study)
    assert list(probabilities["trial_id"]) == list(s.feasible["trial_id"])
    on = probabilities["trial_id"].isin(s.front["trial_id"])
    assert probabilities.loc[on, "probability"].mean() > 3 * probabilities.loc[~on, "probability"].mean()
    pd.testing.assert_frame_equal(probabilities, probability_on_front(study))


def test_a_trial_alone_has_no_probability(tmp_path: Path) -> None:
    """Where one trial alone was retrained, all trials are judged by images instead, and a single trial not at all."""
    study = load(synthetic.write_kd(tmp_path, fresh=5))
    again = fresh_seed_rows(study)
    first = again.loc[again["baseline"] == "", "trial_id"].iloc[0]
    rows = study.confirmed[(study.confirmed["baseline"] != "") | (study.confirmed["trial_id"] == first)]
    probabilities = probability_on_front(dataclasses.replace(study, confirmed=rows))
    assert (
        set(probabilities["basis"]) == {"validation images"}
        and len(probabilities) == len(summarise(study).feasible) > 1
    )
    one = study.trials[(study.trials["baseline"] != "") | (study.trials["trial_id"] == first)]
    assert probability_on_front(dataclasses.replace(study, trials=one, confirmed=rows)).empty


@pytest.mark.parametrize("state", ["none", "running", "failed"])
def test_a_study_without_scores_has_no_probability(tmp_path: Path, state: str) -> None:
    """Before any trial is complete there is no row, and no error."""
    study = load(synthetic.write_bare(tmp_path, "sws", state))
    assert probability_on_front(study).empty
    assert list(probability_on_front(study).columns) == ["trial_id", "probability", "basis"]


def brute_force_epsilon(a: pd.DataFrame, b: pd.DataFrame, images: int) -> float:
    """The definition: the worst of b's trials, matched by the best of a's, in the worse of both ratios."""

    def costs(t: pd.DataFrame) -> list[tuple[float, float]]:
        return [(max(100 - x, 50 / images), y) for x, y in zip(t["val_accuracy"], t["file_bytes"], strict=True)]

    return max(min(max(x / u, y / v) for x, y in costs(a)) for u, v in costs(b))


@pytest.mark.parametrize("seed", range(6))
def test_epsilon_is_its_definition(seed: int) -> None:
    """On random studies with ties and some without any error the factor is the brute-force one, both ways, and those of
    resamples lie between positive ends in their order."""
    rng = np.random.default_rng(seed)
    a, b = (
        pd.DataFrame(
            {
                "val_accuracy": np.round(rng.uniform(95, 100.4, n), 0).clip(max=100.0),
                "file_bytes": rng.integers(1, 30, n) * 100.0,
            }
        )
        for n in (30, 45)
    )
    for mine, theirs in ((a, b), (b, a)):
        distance = epsilon(mine, theirs, 200)
        assert distance.value == pytest.approx(brute_force_epsilon(mine, theirs, 200), rel=1e-12)
        assert 0 < distance.low <= distance.high


def test_epsilon_by_hand() -> None:
    """Half the error at the same size, and the same error in a quarter of it: nowhere behind, and 4 the other way.
    Against itself: 1, and resampling one trial says nothing. A study without trials has no factor."""
    a = pd.DataFrame({"val_accuracy": [98.0, 96.0], "file_bytes": [1000.0, 250.0]})
    b = pd.DataFrame({"val_accuracy": [96.0], "file_bytes": [1000.0]})
    assert epsilon(a, b, 1000).value == 1.0 and epsilon(b, a, 1000).value == 4.0
    same = epsilon(b, b, 1000)
    assert same.value == 1.0 and np.isnan([same.low, same.high]).all()
    nothing = epsilon(a.assign(file_bytes=np.nan), b, 1000)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    perfect = pd.DataFrame({"val_accuracy": [100.0], "file_bytes": [1000.0]})
    assert epsilon(b, perfect, 100).value == 4 / 0.5  # half of one image in a hundred


def test_ten_trials_are_resampled_and_nine_are_not() -> None:
    """`FEWEST` is the least number with an interval: below it there is the front of the trials alone."""
    rng = np.random.default_rng(8)
    trials = pd.DataFrame({"val_accuracy": rng.uniform(90, 99, 10), "file_bytes": rng.uniform(1e2, 1e4, 10)})
    for count, resamples in ((9, 0), (10, DRAWS)):
        fronts = resampled_fronts(trials.head(count), 1000, seed=0)
        assert len(fronts) == 1 + resamples
        members = pareto_front(trials.head(count), SIZED)
        assert sorted(fronts[0][:, 1]) == sorted(members["file_bytes"])
    for mine, theirs in ((trials, trials.head(9)), (trials.head(9), trials)):
        assert np.isnan(epsilon(mine, theirs, 1000).low) and np.isnan(epsilon(mine, theirs, 1000).high)


def test_resampled_fronts_are_those_of_plain_resampling() -> None:
    """Drawing the first ranks alone gives an interval like that of drawing every trial, and not one of all trials."""
    rng = np.random.default_rng(3)
    a, b = (
        pd.DataFrame({"val_accuracy": rng.uniform(90, 99, 400), "file_bytes": rng.uniform(1e2, 1e4, 400)})
        for _ in range(2)
    )
    plain = [
        brute_force_epsilon(
            *(pareto_front(t.sample(400, replace=True, random_state=2 * i + j), SIZED) for j, t in enumerate((a, b))),
            1000,
        )
        for i in range(300)
    ]
    distance = epsilon(a, b, 1000)
    low, high = np.percentile(plain, [2.5, 97.5])
    assert distance.low == pytest.approx(low, rel=0.06) and distance.high == pytest.approx(high, rel=0.06)
    assert high > 1.05 * low


def test_the_cost_grows_no_faster_than_the_trials(tmp_path: Path) -> None:
    """Probabilities for 10,000 trials with 360 validation images take at most eight times what a quarter of them do."""
    folder = synthetic.write_kd(tmp_path, trials=60, epochs=5)
    trials = load(folder).trials
    rng = np.random.default_rng(0)
    took, known = [], []
    for times in (42, 170):
        many = pd.concat([trials] * times, ignore_index=True)
        accuracies = rng.uniform(90, 97, len(many))
        many = many.assign(trial_id=[f"t{i:05d}" for i in range(len(many))], val_accuracy=accuracies)
        study, start = dataclasses.replace(load(folder), trials=many), time.process_time()
        known.append(len(probability_on_front(study)))
        took.append(time.process_time() - start)
    assert known[1] > 5000 and known[1] > 3 * known[0] and took[1] < 8 * took[0]

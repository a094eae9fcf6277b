"""Tables of test results against examples worked out by hand: the search's own networks, and fresh seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.stats.held_out_results import (
    difference_in_words,
    fresh_seed_rows,
    mean_over_seeds,
    paired,
    reference_of,
    search_test_rows,
)
from analysis.stats.standard_error import half_width
from study.records.study_folder import Study

T2 = 4.302652729911275
"""Student's t at 0.975 with 2 degrees of freedom: t² = 2 (2p − 1)² / (1 − (2p − 1)²) in closed form."""
T1 = 12.706204736174707
"""The same with 1 degree of freedom: tan(0.475 π)."""


def study_of(confirmed: list[tuple[Any, ...]], kind: str = "sws", **columns: list[float]) -> Study:
    """A study whose own seed is 0, with these rows (trial, baseline, seed, val_accuracy, test_accuracy)."""
    names = ["trial_id", "baseline", "seed", "val_accuracy", "test_accuracy"]
    rows = pd.DataFrame(confirmed, columns=pd.Index(names)).assign(**columns)
    trials = pd.DataFrame(
        {
            "trial_id": ["uncompressed", "paper settings", "t001", "t002"],
            "state": ["complete"] * 4,
            "baseline": ["uncompressed", "paper settings", "", ""],
            "val_accuracy": [98.0, 97.0, 97.9, 95.0],
        }
    )
    return Study(Path("none"), synthetic.meta_of(kind, 2), trials, pd.DataFrame(), rows)


SEEDS = [
    ("uncompressed", "uncompressed", 0, 98.0, 97.8),
    ("t001", "", 0, 97.9, 97.7),
    ("uncompressed", "uncompressed", 1, 98.1, 98.0),
    ("t001", "", 1, 97.5, 97.0),
    ("uncompressed", "uncompressed", 2, 97.9, 97.0),
    ("t001", "", 2, 97.3, 96.5),
    ("uncompressed", "uncompressed", 3, 98.2, 99.0),
    ("t001", "", 3, 97.4, 98.4),
]
"""Seed 0 is the search's own. Differences of t001 with the seeds 1, 2, 3: −1.0, −0.5, −0.6."""


def test_half_of_a_t_interval_by_hand() -> None:
    """1, 2, 3 have mean 2, standard deviation 1 and n = 3: t / √3. Two values: t · √2 / √2 · |a − b| / 2. One has none,
    nor do equal ones, also where they are equal but for rounding."""
    assert np.sqrt(2 * 0.95**2 / (1 - 0.95**2)) == pytest.approx(T2) and np.tan(0.475 * np.pi) == pytest.approx(T1)
    assert half_width(pd.Series([1.0, 2.0, 3.0])) == pytest.approx(T2 / np.sqrt(3))
    assert half_width(pd.Series([1.0, np.nan, 4.0])) == pytest.approx(T1 * 1.5)
    assert np.isnan(half_width(pd.Series([5.0, 5.0]))) and np.isnan(half_width(pd.Series([0.1 + 0.2, 0.3]) - 0.3))
    assert np.isnan(half_width(pd.Series([1.0]))) and np.isnan(half_width(pd.Series([], dtype=float)))


def test_half_width_is_scipys_interval() -> None:
    """On random samples the interval is that of `scipy.stats.t`."""
    from scipy import stats

    for n in range(2, 12):
        values = np.random.default_rng(n).normal(97, 0.3, n)
        low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
        assert half_width(pd.Series(values)) == pytest.approx((high - low) / 2)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over 2,000 studies of five seeds, about 95 in 100 intervals contain the true mean."""
    draws = np.random.default_rng(0).normal(97.0, 0.4, (2000, 5))
    covers = [abs(row.mean() - 97.0) <= half_width(pd.Series(row)) for row in draws]
    assert np.mean(covers) == pytest.approx(0.95, abs=0.015)


def test_the_searchs_own_networks_are_those_of_its_seed() -> None:
    """With several rows a trial, only the row with the study's seed is the search's result, whatever its place."""
    for rows in (SEEDS, SEEDS[::-1]):
        own = search_test_rows(study_of(rows)).set_index("trial_id")
        assert own.index.is_unique and own["test_accuracy"].to_dict() == {"uncompressed": 97.8, "t001": 97.7}
        assert own["gap"].to_dict() == pytest.approx({"uncompressed": 0.2, "t001": 0.2})


def test_the_gap_is_that_of_one_network() -> None:
    """Where the search saw a mean over seeds, the gap is of the network that was tested, the first seed's; fresh seeds
    are compared with what the search saw."""
    study = study_of(SEEDS)
    trials = study.trials.assign(first_val_accuracy=[np.nan, 97.2, 98.5, 95.0])
    study = dataclasses.replace(study, trials=trials)
    own = search_test_rows(study).set_index("trial_id")
    assert own["gap"].to_dict() == pytest.approx({"uncompressed": 0.2, "t001": 0.8})
    assert own["search_val_accuracy"].to_dict() == {"uncompressed": 98.0, "t001": 97.9}
    assert own["own_val_accuracy"].to_dict() == {"uncompressed": 98.0, "t001": 98.5}
    assert mean_over_seeds(study, "uncompressed").set_index("trial_id")["optimism"]["t001"] == pytest.approx(0.5)


def test_a_trial_with_fresh_seeds_alone_has_no_result_of_the_search() -> None:
    """A configuration that was retrained but whose own network was not tested is missing among the search's."""
    study = study_of([*SEEDS, ("t002", "", 1, 94.0, 93.0)])
    assert "t002" not in set(search_test_rows(study)["trial_id"]) and "t002" in set(fresh_seed_rows(study)["trial_id"])


def test_fresh_seeds_by_hand() -> None:
    """Means, spread, interval, optimism gap and paired difference of three fresh seeds; seed 0 enters none of them."""
    table = mean_over_seeds(study_of(SEEDS, sparsity=[0, 90, 0, 91, 0, 92, 0, 93]), "uncompressed").set_index(
        "trial_id"
    )
    assert list(table.index) == ["uncompressed", "t001"] and list(table["seeds"]) == [3, 3]
    row = table.loc["t001"]
    assert row["search_val_accuracy"] == 97.9 and row["val_accuracy"] == pytest.approx(97.4)
    assert row["optimism"] == pytest.approx(0.5) and row["sparsity"] == pytest.approx(92.0)
    assert row["test_accuracy"] == pytest.approx((97.0 + 96.5 + 98.4) / 3)
    spread = np.sqrt((0.3**2 + 0.8**2 + 1.1**2) / 2)  # about the mean 97.3
    assert row["test_spread"] == pytest.approx(spread) and row["test_half"] == pytest.approx(T2 * spread / np.sqrt(3))
    assert row["pairs"] == 3 and row["difference"] == pytest.approx(-0.7)
    spread = np.sqrt((0.3**2 + 0.2**2 + 0.1**2) / 2)  # of −1.0, −0.5, −0.6 about −0.7
    assert row["difference_half"] == pytest.approx(T2 * spread / np.sqrt(3))
    alone = table.loc["uncompressed"]
    assert alone["pairs"] == 0 and np.isnan(alone["difference"]) and np.isnan(alone["difference_half"])


def test_pairing_by_seed_removes_what_the_seed_does_to_both() -> None:
    """A seed that moves both sides by as much as it likes leaves the differences, and their interval, as they were."""
    moved = [(*row[:4], row[4] + 3.0 * (row[2] % 2)) for row in SEEDS]
    before, after = (mean_over_seeds(study_of(rows), "uncompressed").iloc[1] for rows in (SEEDS, moved))
    assert after["test_half"] > 1.5 * before["test_half"]
    assert after["difference"] == pytest.approx(before["difference"])
    assert after["difference_half"] == pytest.approx(before["difference_half"])


def test_only_shared_seeds_are_paired() -> None:
    """A seed that one side lacks counts for that side's mean and for no difference."""
    rows = [row for row in SEEDS if row[:3] != ("uncompressed", "uncompressed", 3)]
    row = mean_over_seeds(study_of(rows), "uncompressed").set_index("trial_id").loc["t001"]
    assert (row["seeds"], row["pairs"]) == (3, 2) and row["difference"] == pytest.approx(-0.75)
    assert row["difference_half"] == pytest.approx(T1 * 0.25)
    pairs = paired(fresh_seed_rows(study_of(rows)), "uncompressed")
    assert list(pairs["seed"]) == [1, 2] and list(pairs["reference_accuracy"]) == [98.0, 97.0]


def test_one_fresh_seed_has_no_interval() -> None:
    """One seed gives means and a difference, but neither spread nor interval."""
    row = mean_over_seeds(study_of(SEEDS[:4]), "uncompressed").set_index("trial_id").loc["t001"]
    assert (row["seeds"], row["pairs"]) == (1, 1) and row["difference"] == pytest.approx(-1.0)
    assert row[["test_spread", "test_half", "difference_half"]].isna().all()


def test_without_any_shared_seed_there_is_no_difference() -> None:
    """No reference, or one with other seeds, leaves every difference missing and everything else there."""
    for rows in ([row for row in SEEDS if row[0] == "t001"], [*SEEDS[:3], SEEDS[5]]):
        table = mean_over_seeds(study_of(rows), "uncompressed")
        assert (table["pairs"] == 0).all() and table["difference"].isna().all() and table["test_accuracy"].notna().all()


def test_nothing_confirmed_is_no_row() -> None:
    """Before confirmation, and without fresh seeds, the tables are empty and not an error."""
    empty = dataclasses.replace(study_of(SEEDS), confirmed=pd.DataFrame(columns=["trial_id", "baseline", "seed"]))
    assert (
        search_test_rows(empty).empty and fresh_seed_rows(empty).empty and mean_over_seeds(empty, "uncompressed").empty
    )
    assert (
        mean_over_seeds(study_of(SEEDS[:2]), "uncompressed").empty and len(search_test_rows(study_of(SEEDS[:2]))) == 2
    )


def test_odd_rows_do_no_harm() -> None:
    """A pair in two rows counts once, a row without a score not at all, and a missing baseline's name is looked up."""
    rows = [*SEEDS, ("t001", "", 1, 97.5, 97.0), ("t001", "", 4, 97.5, np.nan), ("paper settings", "", 1, 97.0, 96.0)]
    table = mean_over_seeds(study_of(rows), "uncompressed")
    assert list(table["trial_id"]) == ["uncompressed", "paper settings", "t001"]  # baselines first
    assert list(table["baseline"]) == ["uncompressed", "paper settings", ""] and list(table["seeds"]) == [3, 1, 3]


def test_the_reference_is_the_kinds_own_or_the_first_baseline() -> None:
    """The baseline that a kind is measured against is preferred; without fresh seeds of it the first one there is."""
    rows = fresh_seed_rows(study_of([*SEEDS, ("paper settings", "paper settings", 1, 97.0, 96.0)]))
    assert reference_of(rows, "paper settings") == "paper settings"
    assert reference_of(rows, "student alone") == "uncompressed"
    assert reference_of(rows[rows["baseline"] == ""], "uncompressed") == ""


def test_what_a_difference_means() -> None:
    """Only an interval without 0 tells two configurations apart."""
    assert difference_in_words(-0.7, 0.6) == "less accurate" and difference_in_words(0.7, 0.6) == "more accurate"
    assert (
        difference_in_words(-0.5, 0.6)
        == difference_in_words(0.6, 0.6)
        == difference_in_words(0.0, 0.0)
        == "not told apart"
    )
    assert difference_in_words(0.5, np.nan) == "no interval" and difference_in_words(np.nan, np.nan) == "–"

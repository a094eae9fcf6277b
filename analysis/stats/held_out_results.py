"""Test results: of the networks that the search itself found, and of configurations trained again with fresh seeds.

`confirmed.csv` has a row a configuration and seed. With the study's own seed it is the network of the search, tested
once. With any other seed it was trained again, from the first stage on, on the same split, and tested once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.metrics import cost_metrics
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.standard_error import half_width
from study.records.columns import FIRST_ACCURACY
from study.records.study_folder import Study

ENOUGH_SEEDS = 3
"""Fresh seeds from which on the page no longer warns that there are few."""


def search_test_rows(study: Study) -> pd.DataFrame:
    """What the networks of the search scored on test data, one row a configuration, in the order of the table.

    Returns: rows of `confirmed.csv` with the study's seed, and `search_val_accuracy` (%, what the search saw),
        `own_val_accuracy` (%, of the very network that was tested, where the search saw a mean over seeds) and `gap`
        (that minus `test_accuracy`, in points: what choosing on validation data flattered).
    """
    rows = _rows(study)
    rows = rows[rows["seed"] == study.meta["seed"]].drop(columns="seed").reset_index(drop=True)
    return rows.assign(gap=rows["own_val_accuracy"] - rows[TEST_ACCURACY])


def search_saw_means(study: Study) -> bool:
    """Whether accuracies of trials are means over several seeds, so that the tested network has one of its own."""
    return FIRST_ACCURACY in study.trials and bool(study.trials[FIRST_ACCURACY].notna().any())


def fresh_seed_rows(study: Study) -> pd.DataFrame:
    """One row a configuration and fresh seed, in the order of the table: `confirmed.csv` without the study's seed."""
    rows = _rows(study)
    return rows[rows["seed"] != study.meta["seed"]].reset_index(drop=True)


def mean_over_seeds(study: Study, reference: str) -> pd.DataFrame:
    """Configurations that were trained with fresh seeds, one row each, baselines first.

    Args:
        reference: the baseline that `paired` compares the others with.
    Returns: `trial_id`, `baseline`, `seeds` (how many), `search_val_accuracy` (%, what the search saw). Over the fresh
        seeds: `val_accuracy` (mean, %), `optimism` (search minus that mean, on the same validation images, in points),
        `test_accuracy` (mean, %), `test_spread` (standard deviation, points), `test_half` (half of the 95 % interval,
        points), and the means of `metrics.cost_metrics`. Over the seeds that it shares with the reference: `pairs` (how
        many), `difference` (mean of its test accuracy minus the reference's, points) and `difference_half` (half of
        the 95 % interval, points). Spreads and halves are NaN for a single seed, differences where there is no pair.
    """
    rows = fresh_seed_rows(study)
    if rows.empty:
        return pd.DataFrame()
    groups = rows.groupby("trial_id", sort=False)
    firsts = ["baseline", "search_val_accuracy"]
    means = [ACCURACY, TEST_ACCURACY, *cost_metrics(study, study.confirmed)]
    test = groups[TEST_ACCURACY]
    table = (
        groups[firsts]
        .first()
        .join(groups[means].mean())
        .assign(seeds=groups["seed"].nunique(), test_spread=test.std(), test_half=test.agg(half_width))
    )
    table["optimism"] = table["search_val_accuracy"] - table[ACCURACY]
    differences = paired(rows, reference).groupby("trial_id", sort=False)["difference"]
    table = table.join(
        pd.DataFrame(
            {
                "pairs": differences.count(),
                "difference": differences.mean(),
                "difference_half": differences.agg(half_width),
            }
        )
    )
    table["pairs"] = table["pairs"].fillna(0).astype(int)
    return table.reset_index().sort_values("baseline", key=lambda names: names == "", kind="stable", ignore_index=True)


def paired(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Test accuracies next to those of the reference with the same seed, which also trained what both start from.

    Args:
        rows: see `fresh_seed_rows`.
        reference: name of a baseline; its own rows are left out.
    Returns: the other rows whose seed the reference has too, with `reference_accuracy` (%) and `difference` (points).
    """
    level = rows[rows["baseline"] == reference].drop_duplicates("seed").set_index("seed")[TEST_ACCURACY]
    others = rows[(rows["baseline"] != reference) & rows["seed"].isin(level.index)]
    levels = others["seed"].map(level).astype(float)
    return others.assign(reference_accuracy=levels, difference=others[TEST_ACCURACY] - levels)


def reference_of(rows: pd.DataFrame, preferred: str) -> str:
    """The baseline to pair with: the preferred one, or the first where that has no fresh seeds; "" without any."""
    names = [name for name in rows["baseline"].unique() if name]
    return preferred if preferred in names else (names[0] if names else "")


def difference_in_words(difference: float, half: float) -> str:
    """What a paired difference and half of its interval (both in points) say, in a few words."""
    if not np.isfinite(difference):
        return "–"
    if not np.isfinite(half):
        return "no interval"
    if abs(difference) <= half:
        return "not told apart"
    return "more accurate" if difference > 0 else "less accurate"


def _rows(study: Study) -> pd.DataFrame:
    """Tested rows, numbers as floats, one for each configuration and seed, with `search_val_accuracy` and
    `own_val_accuracy` (%), see `search_test_rows`.

    A configuration's baseline is that of `trials.csv` where the row does not name it.
    """
    needed = ["trial_id", "baseline", "seed", ACCURACY, TEST_ACCURACY]
    rows = study.confirmed.reindex(columns=list(dict.fromkeys([*needed, *study.confirmed.columns])))
    numbers = [*needed[2:], *cost_metrics(study, study.confirmed)]
    values = rows[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    rows[numbers] = values.where(np.isfinite(values))
    rows = rows[np.isfinite(rows[TEST_ACCURACY]) & np.isfinite(rows["seed"])].drop_duplicates(["trial_id", "seed"])
    trials = study.trials.reindex(columns=["trial_id", "baseline", ACCURACY, FIRST_ACCURACY])
    trials = trials.drop_duplicates("trial_id").set_index("trial_id")
    names = rows["trial_id"].map(trials["baseline"]).fillna("")
    seen, first = (_of_trials(rows, trials[name]) for name in (ACCURACY, FIRST_ACCURACY))
    return rows.assign(
        baseline=rows["baseline"].where(rows["baseline"] != "", names).astype(str),
        seed=rows["seed"].astype(int),
        search_val_accuracy=seen,
        own_val_accuracy=first.fillna(seen),
    )


def _of_trials(rows: pd.DataFrame, column: pd.Series) -> pd.Series:
    """A number of the trial that each row tests, by `trial_id`; NaN for what is none."""
    numbers = rows["trial_id"].map(pd.to_numeric(column, errors="coerce")).astype(float)
    return numbers.where(np.isfinite(numbers))

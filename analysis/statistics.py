"""How much a score measured on a limited number of images can be trusted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from study.results import Study


def standard_error(accuracy: float, examples: int) -> float:
    """Binomial standard error of an accuracy, both in percentage points.

    √(p (1 − p) / n) with two successes and two failures added to the count, so that 100 % on few images does not
    claim to be certain.

    Reference: Agresti & Coull 1998, The American Statistician 52(2), 119–126.
    """
    n = examples + 4
    p = (accuracy / 100 * examples + 2) / n
    return 100 * math.sqrt(p * (1 - p) / n)


def confirmed_means(study: Study) -> pd.DataFrame:
    """Test results, one row a configuration: its seeds are averaged.

    Returns: columns `trial_id`, `baseline`, `seeds` (how many), `search_val_accuracy` (what the search saw),
        `test_accuracy` (mean), `test_low`, `test_high` (over the seeds), `test_spread` (standard deviation, NaN for
        one seed), `gap` (search minus test, in points: what choosing on validation data flattered), and the mean of
        every other number the table has. In the order of the table.
    """
    confirmed = study.confirmed
    if confirmed.empty or "test_accuracy" not in confirmed:
        return pd.DataFrame()
    groups = confirmed.groupby(["trial_id", "baseline"], sort=False)
    numbers = [c for c in confirmed.columns if c != "seed" and pd.api.types.is_numeric_dtype(confirmed[c])]
    means = groups[numbers].mean()
    test = groups["test_accuracy"]
    means = means.assign(seeds=groups["seed"].nunique(), test_low=test.min(), test_high=test.max(),
                         test_spread=test.std()).reset_index()
    trials = study.trials.reindex(columns=["trial_id", "val_accuracy"]).drop_duplicates("trial_id")
    seen = dict(zip(trials["trial_id"], pd.to_numeric(trials["val_accuracy"], errors="coerce"), strict=True))
    means["search_val_accuracy"] = [seen.get(trial, np.nan) for trial in means["trial_id"]]
    means["gap"] = means["search_val_accuracy"] - means["test_accuracy"]
    return means

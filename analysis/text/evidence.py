"""What is known of the headline trial: over fresh seeds, on test data once, or on validation data alone. The headline
quotes the best of these that there is, and says which."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.formatting import format_percent, format_points
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.summary import Summary, row_of

FEWEST_QUOTED = 2
"""Fresh seeds from which on the sentence quotes their mean; fewer have no interval."""

SEEDS, TEST, VALIDATION = "fresh seeds", "test", "validation"


@dataclass(frozen=True)
class Evidence:
    """What the first sentence quotes; "" for what is not known.

    Attributes:
        basis: `SEEDS`, `TEST` or `VALIDATION`.
        score: accuracy of the headline trial, in words.
        reference: that of the reference, on the same images.
        change: the difference of both, in points.
        shared: accuracy of the work that all trials share, where that is not the reference.
        costs: a row with what the network costs.
        seeds: fresh seeds that `score` is the mean of; 0 without one.
    """

    basis: str
    score: str
    reference: str
    change: str
    shared: str
    costs: pd.Series
    seeds: int = 0

    @property
    def metric(self) -> str:
        """The accuracy in words, with the data it was measured on."""
        return "accuracy on validation data" if self.basis == VALIDATION else "test accuracy"


def evidence_of(summary: Summary, best: pd.Series) -> Evidence:
    """The best evidence that there is of the headline trial."""
    own, fresh = row_of(summary.tested, "trial_id", str(best["trial_id"])), summary.best_fresh
    if fresh is not None and (own is None or fresh["seeds"] >= FEWEST_QUOTED):
        return _over_seeds(summary, best, fresh)
    if own is not None:
        return _once(summary, own, summary.tested, TEST_ACCURACY, TEST, best.combine_first(own))
    return _once(summary, best, summary.baselines, ACCURACY, VALIDATION, best)


def quoted(summary: Summary) -> pd.Series | None:
    """The headline trial's row of `Summary.fresh`, if it has seeds enough for an interval."""
    fresh = summary.best_fresh
    return fresh if fresh is not None and fresh["seeds"] >= FEWEST_QUOTED else None


def paired_reference(summary: Summary) -> pd.Series | None:
    """The row of `Summary.fresh` of the baseline that the kind of study is measured against."""
    name = summary.reference_name
    return row_of(summary.fresh, "baseline", name) if name and name == summary.fresh_reference else None


def _over_seeds(summary: Summary, best: pd.Series, fresh: pd.Series) -> Evidence:
    seeds, row = int(fresh["seeds"]), paired_reference(summary)
    reference = change = ""
    if row is not None and fresh["pairs"]:
        reference = f"{row[TEST_ACCURACY]:.1f} %"
        change = format_points(fresh["difference"], fresh["difference_half"])
    return Evidence(
        SEEDS if seeds >= FEWEST_QUOTED else TEST,
        format_percent(fresh[TEST_ACCURACY], fresh["test_half"]),
        reference,
        change,
        _shared_score(summary, summary.fresh, TEST_ACCURACY),
        fresh.combine_first(best),
        seeds,
    )


def _once(
    summary: Summary, mine: pd.Series, others: pd.DataFrame, column: str, basis: str, costs: pd.Series
) -> Evidence:
    """One accuracy of the search's own network.

    Args:
        others: where the baselines have their accuracy on the same images, in `column`.
    """
    name, reference, change = summary.reference_name, "", ""
    other = row_of(others[others[column].notna()], "baseline", name) if name else None
    if other is not None:
        reference, change = f"{other[column]:.1f} %", format_points(float(mine[column] - other[column]))
    shared = _shared_score(summary, others, column)
    return Evidence(basis, format_percent(mine[column]), reference, change, shared, costs)


def _shared_score(summary: Summary, rows: pd.DataFrame, column: str) -> str:
    name = summary.shared_baseline
    if not name or name == summary.reference_name or rows.empty:
        return ""
    row = row_of(rows[rows[column].notna()], "baseline", name)
    return "" if row is None else f"{row[column]:.1f} %"

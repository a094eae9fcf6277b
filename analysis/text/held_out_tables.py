"""The tables of test results, and what is said above them."""

from __future__ import annotations

import pandas as pd

from analysis.formatting import mean_and_half
from analysis.stats.held_out_results import difference_in_words, search_saw_means
from analysis.stats.metrics import cost_metrics
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.standard_error import standard_error
from analysis.stats.summary import Summary, has_pairs
from analysis.text.phrases import example
from analysis.text.tables import Table, table


def search_table(s: Summary) -> Table:
    """The networks of the search itself."""
    errors = [standard_error(v, _images(s)) if _images(s) else float("nan") for v in s.tested[TEST_ACCURACY]]
    costs = cost_metrics(s.study, s.study.confirmed)
    seen = ["search_val_accuracy", *(["own_val_accuracy"] if search_saw_means(s.study) else [])]
    return table(
        _by_kind(s.tested.assign(standard_error=errors)),
        [*seen, TEST_ACCURACY, "gap", "standard_error", *costs],
        s.headings,
        s.column,
        [*seen, TEST_ACCURACY, "gap", *s.study.objectives, "standard_error"],
    )


def search_lead(s: Summary) -> str:
    """How to read `search_table`."""
    trained = "each trained with its one seed"
    if search_saw_means(s.study):
        trained = "each with the first of its seeds, while the accuracy in the search is a mean over all of them"
    return (
        f"These are the networks that the search itself found, {trained}. The gap is a network’s accuracy on "
        "validation data minus that on test data. It has two causes: selecting flatters, and the images of both parts "
        "differ by chance. Baselines were not selected, so their gap shows chance alone."
    )


def fresh_table(s: Summary) -> Table:
    """Means over fresh seeds, each with half of its interval in the same cell."""
    if s.fresh.empty:
        return Table([], [])
    halves = ((TEST_ACCURACY, "test_half"), ("difference", "difference_half"))
    cells = {c: [mean_and_half(c, *pair) for pair in zip(s.fresh[c], s.fresh[half], strict=True)] for c, half in halves}
    meanings = [
        difference_in_words(*pair).replace(" ", "\u00a0")
        for pair in zip(s.fresh["difference"], s.fresh["difference_half"], strict=True)
    ]
    alike = (s.fresh["pairs"] == s.fresh["seeds"]) | (s.fresh["pairs"] == 0)
    paired = ["difference", "meaning", *([] if alike.all() else ["pairs"])] if has_pairs(s) else []
    columns = [
        "seeds",
        "search_val_accuracy",
        ACCURACY,
        "optimism",
        TEST_ACCURACY,
        "test_spread",
        *paired,
        *cost_metrics(s.study, s.study.confirmed),
    ]
    return table(
        _by_kind(s.fresh.assign(**cells, meaning=meanings)),
        columns,
        {
            **s.headings,
            ACCURACY: "validation accuracy, mean of fresh seeds (%)",
            "meaning": "which means",
            TEST_ACCURACY: "test accuracy, mean ± 95 % interval (%)",
            "difference": f"difference from “{s.fresh_reference}”, mean ± 95 % interval (points)",
        },
        s.column,
        [TEST_ACCURACY, *paired, *s.study.objectives, "optimism", "seeds"],
    )


def fresh_lead(s: Summary) -> list[str]:
    """How to read `fresh_table`, in paragraphs."""
    if s.fresh.empty:
        return []
    error = ""
    if _images(s):
        error = f", ±{standard_error(float(s.fresh[TEST_ACCURACY].max()), _images(s)):.2f} points or more"
    lead = [
        "Trained again from the first stage on, on the same split, with seeds that the search had not seen, and "
        "tested once a seed. ± is half of a 95 % Student-t interval over the seeds: it covers the luck of initial "
        f"weights and batches, not that of these test {example(s)}s, whose standard error comes on top{error}. "
        "Seeds that all score the same give no interval.",
        "The optimism gap is what the search saw minus the mean of the fresh seeds, on the same validation "
        f"{example(s)}s. A baseline was not chosen for its score, so its gap is chance alone.",
    ]
    if has_pairs(s):
        lead.append(
            "Differences are between test accuracies with the same seed, so what a seed does to both drops "
            "out. “More” or “less accurate” means that the interval does not contain 0, so the luck of the "
            "seed does not explain it. The intervals are not corrected for their number: about one in twenty misses "
            "the true difference."
        )
    return lead


def _images(s: Summary) -> int:
    return int(s.study.meta.get("data", {}).get("test", 0))


def _by_kind(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    kinds = (("baseline", rows["baseline"] != ""), ("best", rows["baseline"] == ""))
    return [(kind, rows[those]) for kind, those in kinds if those.any()]

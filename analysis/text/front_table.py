"""The table of baselines and the best trials, and what is said above it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.metrics import network_facts, scaled, settings_of_baselines
from analysis.stats.names import ACCURACY, ACCURACY_DROP, TEST_ACCURACY
from analysis.stats.pareto_front import hypervolume, knee
from analysis.stats.summary import Summary, counts_of, superlative
from analysis.stats.uncertainty import BASIS, BY_IMAGES, BY_IMAGES_AND_SEEDS, probability_on_front
from analysis.text.tables import Table, table

BEST_SHOWN = 5


def best_table(s: Summary) -> tuple[Table, str, str]:
    """Baselines, and the front or, of accuracy alone, the most accurate trials; a heading, and what is said above."""
    if s.has_cost:
        rows, heading, lead, what = s.front, "Baselines and the front", _front_lead(s), "of being on the front"
    else:
        rows, heading = s.feasible.nlargest(BEST_SHOWN, ACCURACY, keep="first"), "Baselines and the best trials"
        best = f"The {len(rows)} best complete trials" if len(rows) > 1 else "The best complete trial"
        lead, what = f"{best} on validation data." if len(rows) else "", "of being the best"
    chances = probability_on_front(s.study)
    groups = [
        (kind, _with_comparison(s, frame, chances)) for kind, frame in (("baseline", s.baselines), ("best", rows))
    ]
    reference = "the reference" if s.reference is None else str(s.reference["baseline"])
    headings = {**s.headings, "change": f"against {reference} (points)", "probability": f"probability {what} (%)"}
    change = ACCURACY_DROP if _has_drop(s) else "change"
    first = [*s.study.objectives, ACCURACY, change, TEST_ACCURACY, *s.study.hyperparameters, "probability"]
    return (
        table(groups, _columns(s), headings, s.column, first),
        heading,
        f"{lead} {_probability_lead(chances)}".strip(),
    )


def _columns(s: Summary) -> list[str]:
    """Configuration, accuracy and its change, what the network costs, test accuracy, and what the trial took."""
    drop = [ACCURACY_DROP if _has_drop(s) else "change"]
    configuration = [*s.study.hyperparameters, *settings_of_baselines(s.study)]
    facts = network_facts(s.study, s.trials)
    return [*configuration, ACCURACY, *drop, *facts, TEST_ACCURACY, "probability", "epochs", "seconds"]


def _has_drop(s: Summary) -> bool:
    return s.has_cost and ACCURACY_DROP in s.trials


def _front_lead(s: Summary) -> str:
    least = "" if s.least_accuracy is None else f" of at least {s.least_accuracy:g} % validation accuracy"
    column, direction = s.column(s.cost), s.study.objectives[s.cost]
    is_size = column.scale == "complement" or column.unit == "bytes"
    last = "the smallest" if is_size else superlative(column, direction)
    lead = (
        f"Every trial{least} that no other trial dominates, {last} last. To dominate is to be as good in every "
        "objective, and better in one."
    )
    if len(s.study.objectives) > 1:
        front = _as_drawn(s)
        bend = knee(front[~front["trial_id"].isin(s.guesses_on_test)], s.study.objectives)
        if bend is not None:
            lead += (
                f" Its knee is {bend['trial_id']}, farthest from the line through both ends as the figure is scaled."
            )
    return lead + _covered(s)


def _as_drawn(s: Summary) -> pd.DataFrame:
    """The front with its objectives on the scale of their axes."""
    return s.front.assign(**{name: scaled(s.front[name], s.column(name)) for name in s.study.objectives})


def _covered(s: Summary) -> str:
    """The front's hypervolume in words, where a reference point suggests itself: chance, and nothing compressed."""
    corner = _reference_point(s)
    if corner is None or s.front.empty or not np.isfinite(s.chance):
        return ""
    worst, words = corner
    span = 100.0 - worst if s.study.objectives[s.cost] == "max" else worst
    if not span > 0:
        return ""
    covered = hypervolume(s.front, s.study.objectives, {ACCURACY: s.chance, s.cost: worst})
    share = 100 * covered / (100 - s.chance) / span
    return (
        f" The front covers {share:.1f} % of the area between its reference point (chance accuracy "
        f"{s.chance:.3g} %, {words}) and perfection, the largest hypervolume that there could be."
    )


def _reference_point(s: Summary) -> tuple[float, str] | None:
    """The cost of a network to which nothing was done, and that cost in words.

    Known for percentages of which 100 is perfect, and for logarithmic scales, where that is zero and the reference
    has a value. Of other objectives, and of more than accuracy and one cost, it is not.
    """
    column, direction = s.column(s.cost), s.study.objectives[s.cost]
    if set(s.study.objectives) != {ACCURACY, s.cost}:
        return None
    if column.scale == "complement" and direction == "max":
        return 0.0, f"{column.label} 0 %"
    value = float(s.reference.get(s.cost, np.nan)) if s.reference is not None else np.nan
    if column.scale != "log" or direction != "min" or not np.isfinite(value):
        return None
    worst = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return value, f"the {worst} {column.unit} of “{s.reference_name}”"


def _probability_lead(chances: pd.DataFrame) -> str:
    if chances.empty:
        return ""
    if chances["basis"].iloc[0] == "fresh seeds":
        return (
            "Probabilities are by Student's t over the fresh seeds, paired by seed, among the "
            f"{len(chances)} trials that were trained with them."
        )
    return BY_IMAGES_AND_SEEDS if chances["basis"].iloc[0] == BASIS[1] else BY_IMAGES


def _with_comparison(s: Summary, rows: pd.DataFrame, chances: pd.DataFrame) -> pd.DataFrame:
    """Rows with their change against the reference, test accuracy, and probability (as text)."""
    tested = dict(zip(s.tested["trial_id"], s.tested[TEST_ACCURACY], strict=True))
    level = float("nan") if s.reference is None else float(s.reference[ACCURACY])
    probable = dict(zip(chances["trial_id"], chances["probability"], strict=True))
    scores = [tested.get(trial, float("nan")) for trial in rows["trial_id"]]
    shares = [f"{100 * probable[trial]:.0f}" if trial in probable else float("nan") for trial in rows["trial_id"]]
    return rows.assign(**{"change": rows[ACCURACY] - level, TEST_ACCURACY: scores, "probability": shares})


def trial_counts(s: Summary) -> str:
    """How many trials are in which state, such as "60 complete of 64 · 4 failed"."""
    counts = counts_of(s)
    wanted = max(s.study.meta.get("settings", {}).get("num_samples") or 0, sum(counts.values()))
    return (
        f"{counts['complete']} complete"
        + (f" of {wanted}" if wanted else "")
        + "".join(f" · {counts[state]} {state}" for state in ("pruned", "failed", "running") if counts[state])
    )

"""The answer to a study's question in words: the first screen of its report.

It speaks of test data and gives intervals where the headline trial was trained with fresh seeds, and of what the
search saw on validation data otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import capitalise, counted, format_percent, format_points, join_words
from analysis.stats.held_out_results import difference_in_words
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.summary import Summary, choose, configuration, counts_of, row_of
from analysis.text.phrases import Tile, baseline_in_words, cost_phrases, cost_tiles

FEWEST_QUOTED = 2
"""Fresh seeds from which on the sentence quotes them; fewer have no interval."""


@dataclass(frozen=True)
class Headline:
    """The first screen. `tiles` are (number, what it is); all plain text."""

    sentence: str
    details: list[str]
    tiles: list[Tile]


def headline(summary: Summary) -> Headline:
    """The first screen of a study, finished or not."""
    if summary.best is None:
        return _no_answer(summary)
    fresh = quoted(summary)
    answer = _answer_with_cost if summary.has_cost else _answer_of_accuracy
    words = answer(summary, summary.best, fresh)
    confirmed = [] if fresh is None else _seed_details(summary, fresh)
    return Headline(words.sentence, [*confirmed, *words.details, *_tested(summary)], words.tiles)


def quoted(summary: Summary) -> pd.Series | None:
    """The headline trial's row of `Summary.fresh`, if it has seeds enough for an interval."""
    fresh = summary.best_fresh
    return fresh if fresh is not None and fresh["seeds"] >= FEWEST_QUOTED else None


def paired_reference(summary: Summary) -> pd.Series | None:
    """The row of `Summary.fresh` of the baseline that the kind of study is measured against."""
    name = summary.reference_name
    return row_of(summary.fresh, "baseline", name) if name and name == summary.fresh_reference else None


def _no_answer(summary: Summary) -> Headline:
    counts = counts_of(summary)
    total = sum(counts.values())
    scores = summary.searched[ACCURACY]
    if not total:
        sentence = "No trial has ended yet, so there is nothing to report."
    elif counts.get("failed", 0) == total:
        sentence = f"All {total} trials failed, so this study has no answer." if total > 1 else "The only trial failed."
    elif len(summary.searched) and (summary.least_accuracy is None or scores.isna().all()):
        wanted = join_words([summary.column(name).label for name in summary.study.objectives])
        sentence = f"No complete trial has {wanted} on record, so this study has no answer."
    elif len(summary.searched):
        sentence = (
            f"No complete trial reaches the {summary.least_accuracy:g} % validation accuracy that this study asks for."
        )
    elif counts.get("running", 0):
        sentence = "No trial is complete yet; this study is still running or was cut off."
    else:
        subject = f"None of the {total} trials is" if total > 1 else "The only trial is not"
        sentence = f"{subject} complete, so this study has no answer."
    reasons = summary.trials.loc[summary.trials["state"] == "failed", "reason"].value_counts()
    details = [f"{count} × {reason or 'no reason given'}" for reason, count in reasons.head(3).items()]
    if scores.notna().any():
        details.insert(0, f"The most accurate one has {scores.max():.2f} %.")
    return Headline(sentence, details, [(str(n), state) for state, n in counts.items() if n])


def _answer_of_accuracy(summary: Summary, best: pd.Series, fresh: pd.Series | None) -> Headline:
    """Of a study of accuracy alone: what it reached, and what its baselines do."""
    subject = str(summary.study.meta["subject"])
    score, reference, gain = _scores(summary, best, fresh)
    shared = _shared_score(summary, fresh)
    if fresh is None:
        sentence = f"{capitalise(subject)} reaches {score} validation accuracy"
    else:
        sentence = f"Over {int(fresh['seeds'])} fresh seeds {subject} reaches {score} test accuracy"
    on = "" if fresh is None else ", test accuracy"
    tiles = [(score, f"{subject.removeprefix('the ')}{on}")]
    if shared:
        tiles.append((shared, f"{summary.shared_baseline}{on}"))
    if reference:
        words = baseline_in_words(summary, summary.reference_name)
        sentence += f"; {words} {reference}: {gain}"
        tiles += [(reference, f"{words.removeprefix('the ')}{on}"), (gain, f"gain over {words}")]
    sentence += f" ({summary.shared_baseline} {shared})" if shared else ""
    details = [
        f"Best of {counted(len(summary.feasible), 'complete trial')}: {configuration(summary, best)}.",
        *_infeasible(summary),
    ]
    if np.isfinite(summary.error):
        details.append(
            f"One of {summary.validation:,} validation images is {100 / summary.validation:.2f} points; "
            f"the standard error of one accuracy is ±{summary.error:.2f} points."
        )
    return Headline(sentence + ".", details, tiles)


def _scores(summary: Summary, best: pd.Series, fresh: pd.Series | None) -> tuple[str, str, str]:
    """Accuracies of the headline trial and of the reference, and their difference; "" for what is not known."""
    if fresh is not None:
        score, row = format_percent(fresh[TEST_ACCURACY], fresh["test_half"]), paired_reference(summary)
        if row is None or not fresh["pairs"]:
            return score, "", ""
        return score, f"{row[TEST_ACCURACY]:.1f} %", format_points(fresh["difference"], fresh["difference_half"])
    score = format_percent(best[ACCURACY])
    if summary.reference is None:
        return score, "", ""
    level = float(summary.reference[ACCURACY])
    return score, f"{level:.1f} %", format_points(float(best[ACCURACY]) - level)


def _shared_score(summary: Summary, fresh: pd.Series | None) -> str:
    """Accuracy of the work that all trials share, where that is not the reference; "" without it."""
    name = summary.shared_baseline
    if not name or name == summary.reference_name:
        return ""
    rows, column = (summary.baselines, ACCURACY) if fresh is None else (summary.fresh, TEST_ACCURACY)
    row = row_of(rows[rows[column].notna()], "baseline", name)
    return "" if row is None else f"{row[column]:.1f} %"


def _answer_with_cost(summary: Summary, best: pd.Series, fresh: pd.Series | None) -> Headline:
    """Of a study that trades accuracy for something: what it kept, and for what."""
    score, _, change = _scores(summary, best, fresh)
    costs = best if fresh is None else fresh.combine_first(best)
    if fresh is None:
        what = summary.column(ACCURACY).label
        sentence = f"Keeps {score} {what}{_in_brackets(change)} {cost_phrases(summary, costs)}."
    else:
        what = summary.column(TEST_ACCURACY).label
        sentence = f"Over {int(fresh['seeds'])} fresh seeds, keeps {_result(summary, fresh, best)}."
    tiles = [(score, what)]
    if change:
        tiles.append((change, f"against {baseline_in_words(summary, summary.reference_name)}"))
    details = [
        f"Trial {best['trial_id']}, {summary.rule}: {configuration(summary, best)}.",
        f"{_share_of(len(summary.front), summary)} on the front.",
        *_infeasible(summary),
        *([] if fresh is not None else _other_confirmed(summary)),
    ]
    return Headline(sentence, details, [*tiles, *cost_tiles(summary, costs)])


def _other_confirmed(summary: Summary) -> list[str]:
    """What fresh seeds say of the front where they do not speak of the headline trial."""
    known = summary.fresh[summary.fresh["seeds"] >= FEWEST_QUOTED] if len(summary.fresh) else summary.fresh
    members = summary.front[summary.front["trial_id"].isin(known.get("trial_id", []))]
    chosen, _ = choose(members, summary.study.objectives, summary.level, summary.error)
    row = None if chosen is None else row_of(known, "trial_id", str(chosen["trial_id"]))
    if chosen is None or row is None:
        return []
    return [
        f"It was not trained with fresh seeds. Of the {len(members)} members of the front that were, trial "
        f"{row['trial_id']} keeps {_result(summary, row, chosen)}, over {row['seeds']} fresh seeds."
    ]


def _result(summary: Summary, fresh: pd.Series, trial: pd.Series) -> str:
    """A row of `Summary.fresh` in words; what was measured in the search alone is that of the trial."""
    score, change = format_percent(fresh[TEST_ACCURACY], fresh["test_half"]), ""
    if paired_reference(summary) is not None and fresh["pairs"]:
        change = format_points(fresh["difference"], fresh["difference_half"])
    costs = cost_phrases(summary, fresh.combine_first(trial))
    return f"{score} {summary.column(TEST_ACCURACY).label}{_in_brackets(change)} {costs}"


def _in_brackets(change: str) -> str:
    return f" ({change})" if change else ""


def _infeasible(summary: Summary) -> list[str]:
    """How many trials the study's constraint rules out."""
    left_out = len(summary.searched) - len(summary.feasible)
    if not left_out:
        return []
    return [
        f"{_share_of(left_out, summary)} below the {summary.least_accuracy:g} % validation accuracy that the study "
        f"asks for, and {'was' if left_out == 1 else 'were'} left out."
    ]


def _share_of(number: int, summary: Summary) -> str:
    return f"{number} of {counted(len(summary.searched), 'complete trial')} {'is' if number == 1 else 'are'}"


def _seed_details(summary: Summary, fresh: pd.Series) -> list[str]:
    """What the numbers over fresh seeds are, what their difference means, and how much the search flattered."""
    if np.isfinite(fresh["test_half"]):
        interval = "± is half of a 95 % Student-t interval over the seeds."
    else:
        interval = "all of them score the same, which gives no interval."
    details = [f"Means over fresh seeds on test data; {interval}"]
    if paired_reference(summary) is not None and fresh["pairs"]:
        details[0] += f" Paired by seed with “{summary.fresh_reference}”: {_difference_explained(fresh)}."
    if np.isfinite(fresh["optimism"]):
        details.append(
            f"On validation data the search saw {fresh['search_val_accuracy']:.1f} %; the fresh seeds average "
            f"{fresh[ACCURACY]:.1f} % there, an optimism gap of {format_points(fresh['optimism'])}."
        )
    return details


def _difference_explained(fresh: pd.Series) -> str:
    """What a paired difference says, and why."""
    words = difference_in_words(fresh["difference"], fresh["difference_half"])
    alone = "the difference is the same with each seed" if fresh["pairs"] > 1 else "only one seed is shared"
    reasons = {
        "more accurate": ", by more than the luck of the seed explains",
        "less accurate": ", by more than the luck of the seed explains",
        "not told apart": ", since the interval contains 0",
        "no interval": f", since {alone}",
    }
    return words + reasons.get(words, "")


def _tested(summary: Summary) -> list[str]:
    """How the network of the search itself compares on test data, where both sides were tested."""
    mine = row_of(summary.tested, "trial_id", str(summary.best["trial_id"])) if summary.best is not None else None
    if mine is None:
        return []
    name = summary.reference_name
    other = row_of(summary.tested, "baseline", name) if name else None
    result = f"{mine[TEST_ACCURACY]:.2f} %"
    if other is not None:
        change = format_points(float(mine[TEST_ACCURACY] - other[TEST_ACCURACY]))
        result += f" against {other[TEST_ACCURACY]:.2f} % ({name}): {change}"
    if quoted(summary) is None:
        return [f"On test data, read once for it: {result}, one seed."]
    seed = summary.study.meta["seed"]
    return [f"The network of the search itself (seed {seed}) on test data, read once for it: {result}."]

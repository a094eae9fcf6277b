"""The answer to a study's question in words: the first screen of its report.

It speaks of test data and gives intervals where the answering trial was trained with fresh seeds, and of what the
search saw on validation data otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import column_label, counted, format_percent, format_points, format_sparsity
from analysis.stats.summary import REFERENCE, Summary, choose, configuration, counts_of, row_of
from analysis.stats.test_results import difference_in_words

FEWEST_QUOTED = 2
"""Fresh seeds from which on the sentence quotes them; fewer have no interval."""


@dataclass(frozen=True)
class Headline:
    """The first screen. `tiles` are (number, what it is); all plain text."""

    sentence: str
    details: list[str]
    tiles: list[tuple[str, str]]


def headline(summary: Summary) -> Headline:
    if summary.best is None:
        return _no_answer(summary)
    fresh = quoted(summary)
    if summary.compresses:
        said = _compression_answer(summary, summary.best, fresh)
    else:
        said = _distillation_answer(summary, summary.best, fresh)
    confirmed = [] if fresh is None else _seed_details(summary, fresh)
    return Headline(said.sentence, [*confirmed, *said.details, *_tested(summary)], said.tiles)


def quoted(summary: Summary) -> pd.Series | None:
    """The answering trial's row of `Summary.fresh`, if it has seeds enough for an interval."""
    fresh = summary.best_fresh
    return fresh if fresh is not None and fresh["seeds"] >= FEWEST_QUOTED else None


def paired_reference(summary: Summary) -> pd.Series | None:
    """The row of `Summary.fresh` of the baseline that the kind of study is measured against."""
    name = REFERENCE.get(summary.study.meta["kind"], "")
    return row_of(summary.fresh, "baseline", name) if name and name == summary.fresh_reference else None


def _no_answer(summary: Summary) -> Headline:
    counts = counts_of(summary)
    total = sum(counts.values())
    if not total:
        sentence = "No trial has ended yet, so there is nothing to report."
    elif counts.get("failed", 0) == total:
        sentence = f"All {total} trials failed, so this study has no answer." if total > 1 else "The only trial failed."
    elif len(summary.searched) and (summary.least_accuracy is None or summary.searched["val_accuracy"].isna().all()):
        wanted = " and ".join(column_label(column) for column in summary.study.objectives)
        sentence = f"No complete trial has {wanted} on record, so this study has no answer."
    elif len(summary.searched):
        sentence = (
            f"No complete trial reaches the {summary.least_accuracy:g} % validation accuracy that this study asks for."
        )
    elif counts.get("running", 0):
        sentence = "No trial is complete yet; this study is still running or was cut off."
    else:
        sentence = (
            f"{f'None of the {total} trials is' if total > 1 else 'The only trial is not'} complete, so this "
            "study has no answer."
        )
    reasons = summary.trials.loc[summary.trials["state"] == "failed", "reason"].value_counts()
    details = [f"{count} × {reason or 'no reason given'}" for reason, count in reasons.head(3).items()]
    if summary.searched["val_accuracy"].notna().any():
        details.insert(0, f"The most accurate one has {summary.searched['val_accuracy'].max():.2f} %.")
    return Headline(sentence, details, [(str(n), state) for state, n in counts.items() if n])


def _distillation_answer(summary: Summary, best: pd.Series, fresh: pd.Series | None) -> Headline:
    teacher: str | None = None
    alone: str | None = None
    gain = ""
    if fresh is None:
        score = f"{best['val_accuracy']:.1f} %"
        sentence = f"The distilled student reaches {score} validation accuracy"
        rows = summary.baselines[summary.baselines["baseline"] == "teacher"]
        teacher = f"{rows['val_accuracy'].iloc[0]:.1f} %" if len(rows) else None
        if summary.reference is not None:
            alone = f"{summary.reference['val_accuracy']:.1f} %"
            gain = format_points(float(best["val_accuracy"] - summary.reference["val_accuracy"]))
    else:
        score = format_percent(fresh["test_accuracy"], fresh["test_half"])
        sentence = f"Over {int(fresh['seeds'])} fresh seeds the distilled student reaches {score} test accuracy"
        row, other = row_of(summary.fresh, "baseline", "teacher"), paired_reference(summary)
        teacher = f"{row['test_accuracy']:.1f} %" if row is not None else None
        if other is not None and fresh["pairs"]:
            alone = f"{other['test_accuracy']:.1f} %"
            gain = format_points(fresh["difference"], fresh["difference_half"])
    on = "" if fresh is None else ", test accuracy"
    tiles = [(score, f"distilled student{on}"), *([(teacher, f"teacher{on}")] if teacher else [])]
    if alone:
        sentence += f"; the student alone {alone}: {gain}"
        tiles += [(alone, f"student alone{on}"), (gain, "gain over the student alone")]
    sentence += f" (teacher {teacher})" if teacher else ""
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


def _compression_answer(summary: Summary, best: pd.Series, fresh: pd.Series | None) -> Headline:
    if fresh is None:
        sizes, score, what = best, f"{best['val_accuracy']:.1f} %", "validation accuracy"
        alone = summary.reference
        change = "" if alone is None else format_points(float(best["val_accuracy"] - alone["val_accuracy"]))
        sentence = f"Keeps {score} validation accuracy{_in_brackets(change)} with {_size(sizes)}."
    else:
        sizes, what = fresh.combine_first(best), "test accuracy"
        score, change = format_percent(fresh["test_accuracy"], fresh["test_half"]), _change(summary, fresh)
        sentence = f"Over {int(fresh['seeds'])} fresh seeds, keeps {_kept(summary, fresh)}."
    tiles = [(score, what), (f"{format_sparsity(sizes['sparsity'])} %", "sparsity")]
    if change:
        against = "teacher" if summary.study.meta["kind"] == "kd_sws" else "uncompressed network"
        tiles.insert(1, (change, f"against the {against}"))
    own = " than its own uncompressed student" if summary.study.meta["kind"] == "kd_sws" else ""
    for column, what in (
        ("compression_ratio", f"smaller on disk{own}"),
        ("entropy_ratio", "ratio by the entropy of the symbols"),
        ("nonzero_ratio", "1 / nonzero share"),
    ):
        if np.isfinite(sizes.get(column, np.nan)):
            tiles.append((f"{sizes[column]:.0f}×", what))
            break
    details = [
        f"Trial {best['trial_id']}, {summary.rule}: {configuration(summary, best)}.",
        f"{_share_of(len(summary.front), summary)} on the front.",
        *_infeasible(summary),
    ]
    return Headline(sentence, [*details, *([] if fresh is not None else _another(summary))], tiles)


def _another(summary: Summary) -> list[str]:
    """What fresh seeds say of the front where they do not speak of the answering trial."""
    known = summary.fresh[summary.fresh["seeds"] >= FEWEST_QUOTED] if len(summary.fresh) else summary.fresh
    members = summary.front[summary.front["trial_id"].isin(known.get("trial_id", []))]
    chosen, _ = choose(members, summary.level, summary.error, summary.size)
    row = None if chosen is None else row_of(known, "trial_id", str(chosen["trial_id"]))
    if row is None:
        return []
    return [
        f"It was not trained with fresh seeds. Of the {len(members)} members of the front that were, trial "
        f"{row['trial_id']} keeps {_kept(summary, row)}, over {row['seeds']} fresh seeds."
    ]


def _kept(summary: Summary, fresh: pd.Series) -> str:
    """A row of `Summary.fresh` in words."""
    score = format_percent(fresh["test_accuracy"], fresh["test_half"])
    return f"{score} test accuracy{_in_brackets(_change(summary, fresh))} with {_size(fresh)}"


def _change(summary: Summary, fresh: pd.Series) -> str:
    if paired_reference(summary) is None or not fresh["pairs"]:
        return ""
    return format_points(fresh["difference"], fresh["difference_half"])


def _size(row: pd.Series) -> str:
    file = f", in a file of {row['file_bytes']:,.0f} bytes" if np.isfinite(row.get("file_bytes", np.nan)) else ""
    return f"{format_sparsity(row.get('sparsity', np.nan))} % of the weights at zero{file}"


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
    said = [
        "Means over fresh seeds on test data; "
        + (
            "± is half of a 95 % Student-t interval over the seeds."
            if np.isfinite(fresh["test_half"])
            else "all of them score the same, which gives no interval."
        )
    ]
    if paired_reference(summary) is not None and fresh["pairs"]:
        found = difference_in_words(fresh["difference"], fresh["difference_half"])
        explained = {
            "more accurate": "more accurate, by more than the luck of the seed explains",
            "less accurate": "less accurate, by more than the luck of the seed explains",
            "not told apart": "not told apart, since the interval contains 0",
            "no interval": "no interval, since "
            + ("the difference is the same with each seed" if fresh["pairs"] > 1 else "only one seed is shared"),
        }.get(found, found)
        said[0] += f" Paired by seed with “{summary.fresh_reference}”: {explained}."
    if np.isfinite(fresh["optimism"]):
        said.append(
            f"On validation data the search saw {fresh['search_val_accuracy']:.1f} %; the fresh seeds average "
            f"{fresh['val_accuracy']:.1f} % there, an optimism gap of {format_points(fresh['optimism'])}."
        )
    return said


def _tested(summary: Summary) -> list[str]:
    """How the network of the search itself compares on test data, where both sides were tested."""
    mine = row_of(summary.tested, "trial_id", str(summary.best["trial_id"])) if summary.best is not None else None
    if mine is None:
        return []
    name = REFERENCE.get(summary.study.meta["kind"], "")
    other = row_of(summary.tested, "baseline", name) if name else None
    own = f"{mine['test_accuracy']:.2f} %"
    if other is not None:
        own += (
            f" against {other['test_accuracy']:.2f} % ({name}): "
            f"{format_points(float(mine['test_accuracy'] - other['test_accuracy']))}"
        )
    if quoted(summary) is None:
        return [f"On test data, read once for it: {own}, one seed."]
    return [
        f"The network of the search itself (seed {summary.study.meta['seed']}) on test data, read once for it: {own}."
    ]

"""The answer to a study's question in words: the first screen of its report.

It speaks of test data wherever they were read for the headline trial, with intervals where that was trained with fresh
seeds, and says that it speaks of validation data otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import capitalise, counted, format_percent, format_points, join_words
from analysis.stats.held_out_results import difference_in_words, search_saw_means
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.summary import Summary, choose, configuration, counts_of, row_of
from analysis.text.evidence import FEWEST_QUOTED, SEEDS, TEST, Evidence, evidence_of, paired_reference, quoted
from analysis.text.phrases import Tile, baseline_in_words, cost_phrases, cost_tiles, example
from study.records.columns import FIRST_ACCURACY


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
    evidence = evidence_of(summary, summary.best)
    words = (_answer_with_cost if summary.has_cost else _answer_of_accuracy)(summary, summary.best, evidence)
    fresh = quoted(summary)
    confirmed = _read_once(summary, evidence) if fresh is None else _seed_details(summary, fresh)
    return Headline(words.sentence, [*confirmed, *words.details, *_tested(summary)], words.tiles)


def _no_answer(summary: Summary) -> Headline:
    counts = counts_of(summary)
    total = sum(counts.values())
    scores = summary.searched[ACCURACY]
    if not total:
        sentence = "No trial has ended yet, so there is nothing to report."
    elif counts.get("failed", 0) == total:
        sentence = f"All {total} trials failed, so this study has no answer." if total > 1 else "The only trial failed."
    elif len(summary.searched):
        sentence = _none_qualifies(summary)
    elif counts.get("running", 0):
        sentence = "No trial is complete yet; this study is still running or was cut off."
    else:
        subject = f"None of the {total} trials is" if total > 1 else "The only trial is not"
        sentence = f"{subject} complete, so this study has no answer."
    reasons = summary.trials.loc[summary.trials["state"] == "failed", "reason"].value_counts()
    details = [f"{count} × {reason or 'no reason given'}" for reason, count in reasons.head(3).items()]
    if scores.notna().any() and f"{scores.max():.1f} %" not in sentence:
        details.insert(0, f"The most accurate one has {scores.max():.2f} %.")
    return Headline(sentence, details, [(str(n), state) for state, n in counts.items() if n])


def _none_qualifies(summary: Summary) -> str:
    """Why no complete trial of a study that has some is its answer."""
    scores, chosen = summary.searched[ACCURACY], summary.chosen
    if chosen is not None:
        own = row_of(summary.tested, "trial_id", str(chosen["trial_id"]))
        row = row_of(summary.fresh, "trial_id", str(chosen["trial_id"])) if len(summary.fresh) else None
        accuracy = float((own if row is None else row)[TEST_ACCURACY])  # type: ignore[index]  # test data ruled it out
        seen = float(chosen[ACCURACY]) if row is not None else _own_accuracy(chosen)
        return (
            f"Trial {chosen['trial_id']} has {seen:.1f} % on validation data, but its {accuracy:.1f} % on "
            "test data is not told apart from guessing, so this study has no answer."
        )
    if len(summary.guesses) and not summary.told(summary.searched).any():
        return (
            f"No complete trial is told apart from guessing{_among(summary)}: on validation data the most accurate has "
            f"{scores.max():.1f} %, and of as many guesses the best may have {summary.guessing_bound:.1f} %."
        )
    if summary.least_accuracy is not None and scores.notna().any() and summary.feasible.empty:
        return (
            f"No complete trial reaches the {summary.least_accuracy:g} % validation accuracy that this study asks for."
        )
    wanted = join_words([summary.column(name).label for name in summary.study.objectives])
    return f"No complete trial has {wanted} on record, so this study has no answer."


def _among(summary: Summary) -> str:
    """Among how many classes a network guesses, or how often the largest occurs where that is likelier."""
    classes = len(summary.study.meta["data"]["classes"])
    if summary.chance > 100 / classes + 1e-9:
        return f" (the largest of {classes} classes has {summary.chance:.1f} % of the {example(summary)}s)"
    return f" among {classes} classes"


def _answer_of_accuracy(summary: Summary, best: pd.Series, evidence: Evidence) -> Headline:
    """Of a study of accuracy alone: what it reached, and what its baselines do."""
    subject = str(summary.study.meta["subject"])
    over = f"Over {evidence.seeds} fresh seeds {subject}" if evidence.basis == SEEDS else capitalise(subject)
    sentence = f"{over} reaches {evidence.score} {evidence.metric}"
    on = f", {evidence.metric.removeprefix('accuracy ')}"
    tiles = [(evidence.score, f"{subject.removeprefix('the ')}{on}")]
    if evidence.shared:
        tiles.append((evidence.shared, f"{summary.shared_baseline}{on}"))
    if evidence.reference:
        words = baseline_in_words(summary, summary.reference_name)
        sentence += f"; {words} {evidence.reference}: {evidence.change}"
        tiles += [(evidence.reference, f"{words.removeprefix('the ')}{on}"), (evidence.change, f"gain over {words}")]
    sentence += f" ({summary.shared_baseline} {evidence.shared})" if evidence.shared else ""
    details = [
        f"Best of {counted(len(summary.feasible), 'complete trial')}: {configuration(summary, best)}.",
        *_left_out(summary),
    ]
    if np.isfinite(summary.error):
        details.append(
            f"One of {summary.validation:,} validation {example(summary)}s is {100 / summary.validation:.2f} points; "
            f"the standard error of one accuracy is ±{summary.error:.2f} points."
        )
    return Headline(sentence + ".", details, tiles)


def _answer_with_cost(summary: Summary, best: pd.Series, evidence: Evidence) -> Headline:
    """Of a study that trades accuracy for something: what it kept, and for what."""
    over = f"Over {evidence.seeds} fresh seeds, keeps" if evidence.basis == SEEDS else "Keeps"
    costs = cost_phrases(summary, evidence.costs)
    sentence = f"{over} {evidence.score} {evidence.metric}{_in_brackets(evidence.change)} {costs}".rstrip() + "."
    tiles = [(evidence.score, evidence.metric)]
    if evidence.change:
        tiles.append((evidence.change, f"against {baseline_in_words(summary, summary.reference_name)}"))
    details = [
        f"Trial {best['trial_id']}, {summary.rule}: {configuration(summary, best)}.",
        f"{_share_of(len(summary.front), summary)} on the front.",
        *_left_out(summary),
        *(_other_confirmed(summary) if quoted(summary) is None else []),
    ]
    return Headline(sentence, details, [*tiles, *cost_tiles(summary, evidence.costs)])


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


def _left_out(summary: Summary) -> list[str]:
    """How many trials cannot answer: networks that guess, and those that the study's constraint rules out."""
    guesses = len(summary.guesses)
    below = len(summary.searched) - guesses - len(summary.feasible)
    sentences = []
    if guesses:
        bound = f"{summary.guessing_bound:.1f} % validation accuracy or less, which guessing{_among(summary)} may give"
        sentences.append(f"{_share_of(guesses, summary)} not told apart from guessing ({bound}) and left out.")
    if below and summary.least_accuracy is not None:
        sentences.append(
            f"{_share_of(below, summary)} below the {summary.least_accuracy:g} % validation accuracy that the study "
            f"asks for, and {'was' if below == 1 else 'were'} left out."
        )
    return sentences


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


def _read_once(summary: Summary, evidence: Evidence) -> list[str]:
    """What validation data said where the sentence is about test data, read once."""
    if evidence.basis != TEST or summary.best is None:
        return []
    one = "one fresh seed" if evidence.seeds else "the network of the search itself, one seed"
    text = f"Test data were read once for it: {one}."
    mine, level = float(summary.best[ACCURACY]), np.nan
    if summary.reference is not None:
        level = float(summary.reference[ACCURACY])
    if search_saw_means(summary.study) and not evidence.seeds:
        text += f" The mean over its seeds on validation data, {mine:.2f} %, chose it; this network itself has"
        mine = _own_accuracy(summary.best)
        level = np.nan if summary.reference is None else _own_accuracy(summary.reference)
    else:
        text += " On validation data, which chose it, it has"
    text += f" {mine:.2f} %"
    if np.isfinite(level):
        text += f" against {level:.2f} % ({summary.reference_name}): {format_points(mine - level)}"
    return [text + "."]


def _own_accuracy(trial: pd.Series) -> float:
    """Validation accuracy (%) of the network that a trial left: that of its first seed, if it has several."""
    first = float(trial.get(FIRST_ACCURACY, np.nan))
    return first if np.isfinite(first) else float(trial[ACCURACY])


def _tested(summary: Summary) -> list[str]:
    """How the network of the search itself did on test data, where the sentence is about fresh seeds."""
    mine = row_of(summary.tested, "trial_id", str(summary.best["trial_id"])) if summary.best is not None else None
    if mine is None or quoted(summary) is None:
        return []
    name = summary.reference_name
    other = row_of(summary.tested, "baseline", name) if name else None
    result = f"{mine[TEST_ACCURACY]:.2f} %"
    if other is not None:
        change = format_points(float(mine[TEST_ACCURACY] - other[TEST_ACCURACY]))
        result += f" against {other[TEST_ACCURACY]:.2f} % ({name}): {change}"
    seed = summary.study.meta["seed"]
    return [f"The network of the search itself (seed {seed}) on test data, read once for it: {result}."]

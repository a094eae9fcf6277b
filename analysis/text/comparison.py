"""What several studies together say, and what they do not, in sentences: the words of the page that compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import comparison
from analysis.formatting import join_words, mean_and_half
from analysis.stats.epsilon import Epsilon
from analysis.stats.metrics import cost_metrics
from analysis.stats.names import ACCURACY, FILE_SIZE, TEST_ACCURACY
from analysis.stats.search_space import searched_networks
from analysis.stats.several_studies import MergedStudies, StudyEntry
from analysis.stats.standard_error import standard_error
from analysis.stats.summary import counts_of
from analysis.stats.uncertainty import BY_IMAGES
from analysis.text.headline import Headline
from analysis.text.tables import Row, Table, hidden_columns, table
from study.records.columns import COLUMNS

MOST_RUNS = 4
"""Ranges of size that one sentence can name."""


def comparison_headline(m: MergedStudies) -> Headline:
    """The first screen in words."""
    if m.front.empty:
        return Headline("No complete trial of these studies has a size, so there is nothing to compare.", [], [])
    members, leader = m.front["study"].value_counts(), _leader(m)
    tiles = [
        (f"{members.get(entry.name, 0)} of {len(m.front)}", f"of the merged front: {entry.name}") for entry in m.entries
    ]
    first, last = (_member(m, row) for row in (m.front.iloc[0], m.front.iloc[-1]))
    details = [f"The most accurate is {first}; the smallest on the merged front is {last}."]
    details += _unbeaten(m)
    details += [_behind(m, leader, entry.name) for entry in m.entries if entry.name != leader and len(entry.trials)]
    return Headline(_sentence(m.ranges), details, tiles)


def _member(m: MergedStudies, row: pd.Series) -> str:
    """A member of the merged front with its accuracy, on test data too where those were read, and its size."""
    test = _tested_of(m).get(row["trial_id"])
    known = f" ({test:.2f} % on test data)" if test is not None else ""
    return f"{row['trial_id']}, {row[ACCURACY]:.2f} % validation accuracy{known} in {row[FILE_SIZE]:,.0f} bytes"


def _unbeaten(m: MergedStudies) -> list[str]:
    """Compressed baselines that no searched trial of any study matches in accuracy and bytes."""
    compressed = [entry.baselines[~entry.baselines["baseline"].isin(entry.meta["dense"])] for entry in m.entries]
    names = [
        f"{row['study']}’s {row['baseline']}, {row[ACCURACY]:.2f} % in {row[FILE_SIZE]:,.0f} bytes"
        for row in pd.concat(compressed).to_dict("records")
        if not ((m.front[ACCURACY] >= row[ACCURACY]) & (m.front[FILE_SIZE] <= row[FILE_SIZE])).any()
    ]
    return [f"Baselines that no searched network matches: {'; '.join(names)}."] if names else []


def _sentence(won: pd.DataFrame) -> str:
    """Which study is the most accurate at which sizes, see `size_ranges_won`."""
    if len(won) == 1:
        return (
            f"{_gives(won['study'].iloc[0])} the most accurate searched network on validation data at every size, from "
            f"{won['low'].iloc[0]:,.0f} bytes on."
        )
    ranges = won.assign(words=[_range(row["low"], row["high"]) for row in won.to_dict("records")]).groupby("study")
    shares = ranges["share"].sum().sort_values(ascending=False, kind="stable")
    if len(won) > MOST_RUNS:
        parts = [f"{name} over {share:.0f} %" for name, share in shares.iloc[1:].items()]
        return (
            f"{_gives(shares.index[0])} the most accurate searched network on validation data over "
            f"{shares.iloc[0]:.0f} % of the range of file sizes (on a logarithmic scale), {join_words(parts)}."
        )
    parts = [f"{name} {join_words(list(ranges.get_group(name)['words']))}" for name in shares.index]
    return f"The most accurate searched network on validation data: {'; '.join(parts)}."


def _gives(names: str) -> str:
    """One study, or two that tie, and the verb."""
    return f"{names} {'give' if ' and ' in names else 'gives'}"


def _range(low: float, high: float) -> str:
    return f"from {low:,.0f} to {high:,.0f} bytes" if np.isfinite(high) else f"from {low:,.0f} bytes on"


def _leader(m: MergedStudies) -> str:
    """The study that wins most of the range of sizes; of a tie the one with more members of the front."""
    members = m.front["study"].value_counts()
    shares = {entry.name: m.ranges.loc[m.ranges["study"] == entry.name, "share"].sum() for entry in m.entries}
    return max(shares, key=lambda name: (shares[name], members.get(name, 0)))


def _behind(m: MergedStudies, leader: str, other: str) -> str:
    there, back = m.epsilons[leader, other], m.epsilons[other, leader]
    return (
        f"Each member of {other}’s front is matched by one of {leader} with at most {_factor(there)} its error and "
        f"its bytes; the other way round it takes {_factor(back)}."
    )


def _factor(e: Epsilon) -> str:
    return times(e.value) + resampled(e, " when trials are resampled")


def resampled(e: Epsilon, how: str) -> str:
    """The range of the factor in brackets, where it is known."""
    # Resampled fronts lie mostly behind the original ones; of two equal studies all of them may.
    return f" ({times(e.low)} to {times(e.high)}{how})" if e.low <= e.value <= e.high else ""


def times(value: float) -> str:
    """A factor in words."""
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"


def comparison_caveats(m: MergedStudies) -> list[str]:
    """In what the studies differ, and what their numbers do not carry."""
    sentences = [
        f"{entry.name}: {guesses} complete trial{'s are' if guesses > 1 else ' is'} not told apart from guessing and "
        f"{'are' if guesses > 1 else 'is'} left out."
        for entry in m.entries
        if (guesses := entry.guesses)
    ]
    sentences += [
        f"{entry.name}: {missing} complete trial{'s have' if missing > 1 else ' has'} no size on record and "
        f"{'are' if missing > 1 else 'is'} left out."
        for entry in m.entries
        if (missing := entry.without_size)
    ]
    facts: list[tuple[str, Callable[[StudyEntry], str]]] = [
        ("They have different numbers of trials", _progress),
        ("They were trained on different images", _training_images),
        ("They were trained for different lengths", _lengths),
        ("They started from different seeds", lambda entry: f"seed {entry.meta.get('seed', 'not recorded')}"),
        ("They compress, or train, different networks", _networks),
        (
            "Their networks see inputs of different shapes",
            lambda entry: " × ".join(map(str, _data(entry).get("shape", []))),
        ),
        ("Their trials must reach different accuracies", lambda entry: f"{entry.summary.least_accuracy or 0:g} %"),
    ]
    for what, fact in facts:
        values = {entry.name: fact(entry) for entry in m.entries}
        if len(set(values.values())) > 1:
            sentences.append(f"{what}: " + "; ".join(f"{name}: {value}" for name, value in values.items()) + ".")
    if m.images and len(m.front):
        error = standard_error(float(m.front[ACCURACY].max()), m.images)
        sentences.append(
            f"The validation part has {m.images:,} images: one is {100 / m.images:.2f} points, and the "
            f"standard error of an accuracy is ±{error:.2f} points, so smaller differences may be chance."
        )
    once = len(m.front) - int(m.front["trial_id"].isin(fresh_of(m)).sum())
    if once:
        sentences.append(
            f"{once} of the {len(m.front)} members of the merged front were trained once, and picked on "
            "validation data. Their scores include the luck of the seed and are too optimistic, more so in a study "
            "with more trials."
        )
    return sentences


def _progress(entry: StudyEntry) -> str:
    wanted = entry.meta.get("settings", {}).get("num_samples")
    counts = counts_of(entry.summary)
    ended = sum(counts.values()) - counts["running"]
    missing = f" ended, {wanted} wanted" if wanted not in (None, ended) else ""
    return f"{counts['complete']} complete of {ended}{missing}"


def _training_images(entry: StudyEntry) -> str:
    few = entry.meta.get("settings", {}).get("student_examples")
    return str(_data(entry).get("note") or (f"{few} of each class" if few else "all")).rstrip(".")


def _lengths(entry: StudyEntry) -> str:
    """Settings of epochs; those of a network that was not trained, since its own setting is "none", are no length."""
    settings = entry.meta.get("settings", {})
    lengths = [
        f"{name} {value}"
        for name, value in settings.items()
        if "epochs" in name and value and settings.get(name.removesuffix("_epochs")) != "none"
    ]
    return ", ".join(lengths) or "not recorded"


def _networks(entry: StudyEntry) -> str:
    networks = []
    for role, network in entry.meta.get("models", {}).items():
        names = searched_networks(entry.meta["space"], role)
        known = network.get("parameters") and not names and f"{role}_width" not in entry.meta["space"]
        size = f" of {network['parameters']:,} parameters" if known else ""
        networks.append(f"{role} {' or '.join(names) or network.get('name', '?')}{size}")
    return ", ".join(networks) or "not recorded"


def _data(entry: StudyEntry) -> dict[str, Any]:
    return entry.meta.get("data", {})


def fresh_of(m: MergedStudies) -> dict[str, str]:
    """Trials of any study that were trained with fresh seeds → mean test accuracy with half of its interval."""
    return {
        f"{entry.name}/{row['trial_id']}": mean_and_half(TEST_ACCURACY, row[TEST_ACCURACY], row["test_half"])
        for entry in m.entries
        for row in entry.summary.fresh.to_dict("records")
    }


def front_table(m: MergedStudies) -> Table:
    """The merged front with what is known of each member, the smallest last."""
    tested = _tested_of(m)
    probabilities = [f"{100 * p:.0f}" if np.isfinite(p) else np.nan for p in m.front["probability"]]
    ids = m.front["trial_id"]
    rows = m.front.assign(
        **{TEST_ACCURACY: ids.map(tested).astype(float), "fresh": ids.map(fresh_of(m)), "probability": probabilities}
    )
    columns = [ACCURACY, FILE_SIZE, TEST_ACCURACY, "fresh", "probability", *_shared_metrics(m)]
    return table(
        [("best", rows)],
        columns,
        {
            "fresh": "test accuracy, mean of fresh seeds ± 95 % interval (%)",
            FILE_SIZE: "size (bytes)",
            "probability": "probability of being on this front (%)",
        },
    )


def _tested_of(m: MergedStudies) -> dict[str, float]:
    """Trials whose network of the search was tested → its test accuracy (%)."""
    return {
        f"{entry.name}/{row['trial_id']}": row[TEST_ACCURACY]
        for entry in m.entries
        for row in entry.summary.tested.to_dict("records")
    }


def _shared_metrics(m: MergedStudies) -> list[str]:
    """Metrics other than the size that two studies or more have: a front mixes all of them."""
    counts = Counter(name for entry in m.entries for name in cost_metrics(entry.summary.study, entry.summary.trials))
    return [name for name in COLUMNS if counts[name] > 1 and name != FILE_SIZE]


def front_lead(m: MergedStudies) -> list[str]:
    """What the merged front is, in paragraphs."""
    runs = [f"{row['study']} from {row['low']:,.0f} bytes on" for row in m.ranges.to_dict("records")]
    which = f"Most accurate, by size: {join_words(runs)}." if 1 < len(runs) <= 12 else ""
    return [
        "Every trial that no trial of any study dominates in validation accuracy and size, the smallest last. "
        f"{comparison.DENSE} {which}".strip(),
        BY_IMAGES,
    ]


def epsilon_table(m: MergedStudies) -> Table:
    """Row a, column b: `epsilon.epsilon` of a against b."""
    names = [entry.name for entry in m.entries if len(entry.trials)]
    if len(names) < 2:
        return Table([], [])
    rows = [Row(a, "", ["–" if a == b else _cell(m.epsilons[a, b]) for b in names]) for a in names]
    return Table([f"against {name}" for name in names], rows, hidden_columns(["", *names], []))


def _cell(e: Epsilon) -> str:
    return times(e.value) + resampled(e, "")


def epsilon_lead() -> list[str]:
    """How to read `epsilon_table`, in paragraphs."""
    return [
        "The multiplicative epsilon indicator on validation error and size: each member of the column’s front is "
        "matched by one of the row’s with at most so many times its error and so many times its bytes. 1 or less "
        "says that the row’s study is nowhere behind. An error of zero counts as half a validation image.",
        "In brackets is the middle 95 % after resampling each study’s trials, where there are enough. It shows how "
        "much depends on a few trials; a repeated search would fall outside more often than 5 % of the time, and other "
        "seeds might.",
    ]

"""What several studies together say, and what they do not, in sentences: the words of the page that compares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import comparison
from analysis.formatting import join_words, mean_and_half
from analysis.stats import several_studies
from analysis.stats.epsilon import Epsilon
from analysis.stats.several_studies import MergedStudies, StudyEntry
from analysis.stats.standard_error import standard_error
from analysis.stats.summary import counts_of
from analysis.stats.uncertainty import BY_IMAGES
from analysis.text.answer import Headline
from analysis.text.tables import Row, Table, table

MOST_RUNS = 4
"""Ranges of size that one sentence can name."""


def comparison_headline(m: MergedStudies) -> Headline:
    """The first screen in words."""
    if m.front.empty:
        return Headline("No complete trial of these studies has a size, so there is nothing to compare.", [], [])
    members, leader = m.front["study"].value_counts(), _leader(m)
    tiles = [
        (f"{members.get(side.name, 0)} of {len(m.front)}", f"of the merged front: {side.name}") for side in m.sides
    ]
    first, last = m.front.iloc[0], m.front.iloc[-1]
    details = [
        f"The most accurate is {first['trial_id']}, {first['val_accuracy']:.2f} % validation accuracy in "
        f"{first['file_bytes']:,.0f} bytes; the smallest on the merged front is {last['trial_id']}, "
        f"{last['val_accuracy']:.2f} % in {last['file_bytes']:,.0f} bytes."
    ]
    details += _unbeaten(m)
    details += [_behind(m, leader, side.name) for side in m.sides if side.name != leader and len(side.trials)]
    return Headline(_sentence(m.held), details, tiles)


def _unbeaten(m: MergedStudies) -> list[str]:
    """Compressed baselines that no searched trial of any study matches in accuracy and bytes."""
    rows = pd.concat(
        [
            side.baselines[~side.baselines["baseline"].isin(several_studies.DENSE)].assign(side=side.name)
            for side in m.sides
        ]
    )
    found = [
        f"{row.side}’s {row.baseline}, {row.val_accuracy:.2f} % in {row.file_bytes:,.0f} bytes"
        for row in rows.itertuples()
        if not ((m.front["val_accuracy"] >= row.val_accuracy) & (m.front["file_bytes"] <= row.file_bytes)).any()
    ]
    return [f"Baselines that no searched network matches: {'; '.join(found)}."] if found else []


def _sentence(held: pd.DataFrame) -> str:
    if len(held) == 1:
        return (
            f"{_gives(held['study'].iloc[0])} the most accurate searched network at every size, from "
            f"{held['low'].iloc[0]:,.0f} bytes on."
        )
    ranges = held.assign(said=[_range(row["low"], row["high"]) for row in held.to_dict("records")]).groupby("study")
    shares = ranges["share"].sum().sort_values(ascending=False, kind="stable")
    if len(held) > MOST_RUNS:
        parts = [f"{name} over {share:.0f} %" for name, share in shares.iloc[1:].items()]
        return (
            f"{_gives(shares.index[0])} the most accurate searched network over {shares.iloc[0]:.0f} % of the "
            f"range of file sizes (on a logarithmic scale), {join_words(parts)}."
        )
    said = [f"{name} {join_words(list(ranges.get_group(name)['said']))}" for name in shares.index]
    return f"The most accurate searched network: {'; '.join(said)}."


def _gives(names: str) -> str:
    """One study, or two that tie, see `merged.held`, and the verb."""
    return f"{names} {'give' if ' and ' in names else 'gives'}"


def _range(low: float, high: float) -> str:
    return f"from {low:,.0f} to {high:,.0f} bytes" if np.isfinite(high) else f"from {low:,.0f} bytes on"


def _leader(m: MergedStudies) -> str:
    """The study that holds the most of the range of sizes; of a tie the one with more members of the front."""
    members = m.front["study"].value_counts()
    shares = {side.name: m.held.loc[m.held["study"] == side.name, "share"].sum() for side in m.sides}
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
    """Between what the factor lies, in brackets, where that is known."""
    # Resampled fronts lie mostly behind the ones that were found, of two equal studies even wholly.
    return f" ({times(e.low)} to {times(e.high)}{how})" if e.low <= e.value <= e.high else ""


def times(value: float) -> str:
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"


def comparison_caveats(m: MergedStudies) -> list[str]:
    """In what the studies differ, and what their numbers do not carry."""
    said = [
        f"{side.name}: {left} complete trial{'s have' if left > 1 else ' has'} no size on record and "
        f"{'are' if left > 1 else 'is'} left out."
        for side in m.sides
        if (left := len(side.summary.feasible) - len(side.trials))
    ]
    facts: list[tuple[str, Callable[[StudyEntry], str]]] = [
        ("They have other numbers of trials", _progress),
        ("They were trained on other images", _training_images),
        ("They were trained for other lengths", _lengths),
        ("They began from other seeds", lambda side: f"seed {side.meta.get('seed', 'not recorded')}"),
        ("They compress, or train, other networks", _networks),
        ("Their networks see other inputs", lambda side: " × ".join(map(str, _data(side).get("shape", [])))),
        ("Their trials must reach other accuracies", lambda side: f"{side.summary.least_accuracy or 0:g} %"),
    ]
    for what, fact in facts:
        found = {side.name: fact(side) for side in m.sides}
        if len(set(found.values())) > 1:
            said.append(f"{what}: " + "; ".join(f"{name}: {value}" for name, value in found.items()) + ".")
    if m.images and len(m.front):
        error = standard_error(float(m.front["val_accuracy"].max()), m.images)
        said.append(
            f"The validation part has {m.images:,} images: one is {100 / m.images:.2f} points, and the "
            f"standard error of an accuracy is ±{error:.2f} points, so smaller differences may be chance."
        )
    once = len(m.front) - int(m.front["trial_id"].isin(fresh_of(m)).sum())
    if once:
        said.append(
            f"{once} of the {len(m.front)} members of the merged front were trained once, and picked on "
            "validation data: that includes the luck of the seed, and the best of many scores is too good, the "
            "more so the more trials a study has."
        )
    return said


def _progress(side: StudyEntry) -> str:
    wanted = side.meta.get("settings", {}).get("num_samples")
    done = counts_of(side.summary)
    ended = sum(done.values()) - done["running"]
    owed = f" ended, {wanted} wanted" if wanted not in (None, ended) else ""
    return f"{done['complete']} complete of {ended}{owed}"


def _training_images(side: StudyEntry) -> str:
    few = side.meta.get("settings", {}).get("student_examples")
    return str(_data(side).get("note") or (f"{few} of each class" if few else "all")).rstrip(".")


def _lengths(side: StudyEntry) -> str:
    settings = {k: v for k, v in side.meta.get("settings", {}).items() if "epochs" in k and v}
    if side.meta.get("settings", {}).get("teacher") == "none":
        settings.pop("teacher_epochs", None)  # of a network that was not trained
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "not recorded"


def _networks(side: StudyEntry) -> str:
    said = [
        f"{role} {network.get('name', '?')}"
        + (f" of {network['parameters']:,} parameters" if network.get("parameters") else "")
        for role, network in side.meta.get("models", {}).items()
    ]
    return ", ".join(said) or "not recorded"


def _data(side: StudyEntry) -> dict[str, Any]:
    return side.meta.get("data", {})


def fresh_of(m: MergedStudies) -> dict[str, str]:
    """Trials of any study that were trained with fresh seeds → mean test accuracy with half of its interval."""
    return {
        f"{side.name}/{row['trial_id']}": mean_and_half("test_accuracy", row["test_accuracy"], row["test_half"])
        for side in m.sides
        for row in side.summary.fresh.to_dict("records")
    }


def front_table(m: MergedStudies) -> Table:
    """The merged front with what is known of each member, the smallest last."""
    tested = {
        f"{side.name}/{row['trial_id']}": row["test_accuracy"]
        for side in m.sides
        for row in side.summary.tested.to_dict("records")
    }
    rows = m.front.assign(
        test_accuracy=m.front["trial_id"].map(tested).astype(float),
        fresh=m.front["trial_id"].map(fresh_of(m)),
        probability=[f"{100 * p:.0f}" if np.isfinite(p) else np.nan for p in m.front["probability"]],
    )
    columns = [
        "val_accuracy",
        "file_bytes",
        "test_accuracy",
        "fresh",
        "probability",
        "sparsity",
        "compression_ratio",
        "nonzero_ratio",
    ]
    return table(
        [("best", rows)],
        columns,
        {
            "fresh": "test accuracy, mean of fresh seeds ± 95 % interval (%)",
            "file_bytes": "size (bytes)",
            "probability": "probability of being on this front (%)",
        },
    )


def front_lead(m: MergedStudies) -> list[str]:
    runs = [f"{row['study']} from {row['low']:,.0f} bytes on" for row in m.held.to_dict("records")]
    which = f"Most accurate, by size: {join_words(runs)}." if 1 < len(runs) <= 12 else ""
    return [
        "Every trial that none of any study matches in both validation accuracy and size and beats in one, the "
        f"smallest last. {comparison.DENSE} {which}".strip(),
        BY_IMAGES,
    ]


def epsilon_table(m: MergedStudies) -> Table:
    """Row a, column b: `epsilon.epsilon` of a against b."""
    sides = [side.name for side in m.sides if len(side.trials)]
    if len(sides) < 2:
        return Table([], [])
    rows = [Row(a, "", ["–" if a == b else _cell(m.epsilons[a, b]) for b in sides]) for a in sides]
    return Table([f"against {name}" for name in sides], rows)


def _cell(e: Epsilon) -> str:
    return times(e.value) + resampled(e, "")


def epsilon_lead() -> list[str]:
    return [
        "The multiplicative epsilon indicator on validation error and size: each member of the column’s front is "
        "matched by one of the row’s with at most so many times its error and so many times its bytes. 1 or less "
        "says that the row’s study is nowhere behind. An error of zero counts as half a validation image.",
        "In brackets the middle 95 % after resampling each study’s trials, where there are enough: how much hangs "
        "on a few of them. Another search lies outside more often than that, and other seeds may.",
    ]

"""What a study's data do not show, though a reader might think so, in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formatting import counted, format_cell, format_points
from analysis.stats.held_out_results import ENOUGH_SEEDS
from analysis.stats.names import ACCURACY
from analysis.stats.search_space import choices, to_unit, varies
from analysis.stats.summary import Summary, counts_of
from analysis.text.evidence import quoted
from analysis.text.phrases import example
from study.records.columns import Column

FEWEST_TRIALS = 20
BROUGHT = {
    "teacher_checkpoint": "The teacher came from a file",
    "checkpoint": "The network came from a file",
    "weights": "The network came with published weights",
}
"""Setting of a network that was trained before the study → how it came to be there."""
NAMES_SHOWN = 3
"""Parameters that a caveat names; study.json has all."""
COARSE = 0.1
"""Points that one validation image is worth from which on the page says so."""


def caveats(summary: Summary) -> list[str]:
    """Warnings, the gravest first; empty when there is nothing to warn of."""
    sentences = [*_unfinished(summary), *_failures(summary), *_missing_reference(summary), *_seen_before(summary)]
    sentences += _one_start(summary)
    if summary.best is not None:
        sentences += [
            *_beaten(summary),
            *_another_network(summary),
            *_few(summary),
            *_untested(summary),
            *_one_seed(summary),
            *_coarse(summary),
            *_best_of_many(summary),
            *_edges(summary),
            *_left_out(summary),
        ]
    return sentences


def _unfinished(s: Summary) -> list[str]:
    counts = counts_of(s)
    ended = sum(counts.values()) - counts["running"]
    wanted = int(s.study.meta.get("settings", {}).get("num_samples") or ended)
    if ended >= wanted and not counts["running"]:
        return []
    running = counts["running"]
    return [
        f"The study is not finished: {ended} of {counted(wanted, 'trial')} {'has' if ended == 1 else 'have'} ended"
        + (f", {running} {'was' if running == 1 else 'were'} running when this page was made." if running else ".")
    ]


def _failures(s: Summary) -> list[str]:
    counts = counts_of(s)
    ended = sum(counts.values()) - counts["running"]
    broken = s.trials[(s.trials["baseline"] != "") & (s.trials["state"] == "failed")]
    sentences = [
        f"The baseline “{row.baseline}” failed: {row.reason or 'no reason given'}." for row in broken.itertuples()
    ]
    if s.best is not None and counts["failed"] * 5 >= ended > 0:
        sentences.append(
            f"{counts['failed']} of {counted(ended, 'trial')} failed, so part of the search space was hardly seen."
        )
    return sentences


def _missing_reference(s: Summary) -> list[str]:
    if not s.reference_name or s.reference is not None:
        return []
    return [f"There is no complete baseline “{s.reference_name}”, so no gain or loss can be stated."]


def _seen_before(s: Summary) -> list[str]:
    """Images that were perhaps learned by heart before they are scored."""
    data = s.study.meta["data"]
    sentences = []
    for part, earlier in (("validation", "training"), ("test", "training or validation")):
        if count := int(data.get("repeated", {}).get(part, 0)):
            sentences.append(
                f"{count:,} of {counted(int(data[part]), f'{part} {example(s)}')} {'is' if count == 1 else 'are'} also "
                f"among the {earlier} {example(s)}s, pixel for pixel: what is measured on them is memory."
            )
    if count := int(data.get("damaged_left_out", 0)):
        sentences.append(
            f"{counted(count, 'image')} of the folder {'was' if count == 1 else 'were'} left out as damaged "
            "(--skip-damaged), so every number here is about the others."
        )
    settings = s.study.meta.get("settings", {})
    for name, came in BROUGHT.items():
        if settings.get(name):
            sentences.append(
                f"{came} (--{name.replace('_', '-')}). It may have been trained on the validation or test "
                f"{example(s)}s, and then accuracies that depend on it are too good."
            )
    return sentences


def _beaten(s: Summary) -> list[str]:
    """Baselines that one could take instead of the headline trial; what is to be replaced, such as a teacher, is
    none."""
    if s.best is None:
        return []
    signs = {name: 1 if direction == "max" else -1 for name, direction in s.study.objectives.items()}
    rivals = s.baselines[~s.baselines["baseline"].isin(s.study.meta["replaced"]) & s.told(s.baselines)]
    sentences = []
    for _, row in rivals.iterrows():
        if all(sign * row[name] >= sign * s.best[name] for name, sign in signs.items()):
            numbers = ", ".join(_against(s.column(name), row[name], s.best[name]) for name in signs)
            sentences.append(
                f"The baseline “{row['baseline']}” is at least as good as the headline trial in every "
                f"objective: {numbers}."
            )
    return sentences


def _another_network(s: Summary) -> list[str]:
    """Of a search over networks: the reference is one of them."""
    if s.best is None or s.reference is None or "student" not in s.study.meta.get("space", {}):
        return []
    meta, name = s.study.meta, s.reference_name
    own = meta.get("baselines", {}).get(name, {}).get("student") or meta["models"].get("student", {}).get("name")
    if not own or str(s.best["student"]) == own:
        return []
    return [
        f"The baseline “{name}” is a {own}, the headline trial a {s.best['student']}: what lies between them is the "
        "network as well as the method."
    ]


def _against(column: Column, value: float, other: float) -> str:
    return f"{column.heading} {format_cell(column, value)} against {format_cell(column, other)}"


def _few(s: Summary) -> list[str]:
    n = _tried(s)
    if n >= FEWEST_TRIALS:
        return []
    return [
        f"Only {counted(n, 'trial')} {'were' if n != 1 else 'was'} tried; with fewer than {FEWEST_TRIALS} the best "
        "one says little about what the method can reach."
    ]


def _tried(s: Summary) -> int:
    """Trials that the best one was chosen from: those that a scheduler stopped had their chance, too."""
    counts = counts_of(s)
    return counts["complete"] + counts["pruned"]


def _untested(s: Summary) -> list[str]:
    if s.tested.empty and s.fresh.empty:
        return [
            "Test data were not touched: every number here is a validation score, and the best of many validation "
            "scores is too good."
        ]
    if s.best is not None and s.best["trial_id"] not in set(s.tested["trial_id"]) and s.best_fresh is None:
        return [f"Trial {s.best['trial_id']} itself was not evaluated on test data."]
    return []


def _one_seed(s: Summary) -> list[str]:
    """Silent where the headline trial was trained with fresh seeds, and enough of them."""
    luck = "differences between trials include the luck of the seed, which one run cannot show."
    each = s.study.meta.get("settings", {}).get("seeds_per_trial")
    if s.fresh.empty and each:
        return [
            f"Validation accuracies are means over {each} seeds, all from one "
            f"{s.study.meta.get('shared_baseline', 'start')}; the network that was tested is that of the first."
        ]
    if s.fresh.empty:
        return [f"Every configuration was trained with one seed ({s.study.meta.get('seed', '?')}): {luck}"]
    if s.best_fresh is None:
        return [
            f"Trial {s.best['trial_id'] if s.best is not None else '?'} itself was trained with one seed, not with "
            f"fresh ones as others were: {luck}"
        ]
    seeds = int(s.best_fresh["seeds"])
    if seeds > 1 and not np.isfinite(s.best_fresh["test_half"]):
        return [
            f"All {seeds} fresh seeds of the headline trial score the same on the test {example(s)}s, which gives no "
            "interval; that is no sign of certainty."
        ]
    if seeds >= ENOUGH_SEEDS:
        return []
    return [
        f"Only {seeds} fresh seed{'s confirm' if seeds > 1 else ' confirms'} the headline trial; with fewer than "
        f"{ENOUGH_SEEDS} an interval is very wide, or there is none."
    ]


def _one_start(s: Summary) -> list[str]:
    """Fresh seeds of a network that was trained before the study."""
    settings = s.study.meta.get("settings", {})
    if s.fresh.empty or not (settings.get("checkpoint") or settings.get("weights")):
        return []
    return [
        "All fresh seeds start from one trained network, so their spread is that of what was trained after it, not of "
        "training such a network again."
    ]


def _coarse(s: Summary) -> list[str]:
    if not s.validation or 100 / s.validation < COARSE:
        return []
    return [
        f"The validation part has {s.validation:,} {example(s)}s: one {example(s)} is {100 / s.validation:.2f} points "
        f"and the standard error of an accuracy is ±{s.error:.1f} points, so smaller differences may be chance."
    ]


def _best_of_many(s: Summary) -> list[str]:
    if s.has_cost or s.reference is None or _tried(s) < 2:
        return []
    fresh = quoted(s)
    if fresh is not None and fresh["pairs"] > 1:  # the gain is known over seeds, and none of them was chosen
        if abs(fresh["difference"]) > fresh["difference_half"]:
            return []
        none = "" if np.isfinite(fresh["difference_half"]) else " has no interval, since it is the same with each, and"
        return [
            f"Over the fresh seeds the difference from “{s.fresh_reference}”, "
            f"{format_points(fresh['difference'], fresh['difference_half'])},{none} may be the luck of the seed."
        ]
    gain = float(s.best[ACCURACY] - s.reference[ACCURACY]) if s.best is not None else np.nan
    text = (
        f"The best of {_tried(s)} trials is compared with one run of each baseline; the best of many noisy "
        "scores lies above its true value."
    )
    if gain < 2 * s.error:
        text += f" The gain on validation data is within two standard errors (±{2 * s.error:.1f} points)."
    return [text]


def _left_out(s: Summary) -> list[str]:
    """Parameters of the compressed network that stay as they were, so that no sparsity or ratio is about them."""
    sentences = []
    for network in s.study.meta.get("models", {}).values():
        rest = network.get("left_out", {})
        if rest.get("parameters"):
            names = rest["names"]
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            shown = ", ".join(names[:NAMES_SHOWN]) + more
            sentences.append(
                f"Compression leaves out {rest['parameters']:,} of the {network['parameters']:,} parameters of "
                f"{network['name']} ({rest['share']:.2g} %: {shown}); sparsity and ratios do not count them."
            )
    return sentences


def _edges(s: Summary) -> list[str]:
    """Hyperparameters whose best value sits at the end of their range, where a wider range might do better."""
    at_edge = []
    for name, domain in s.study.meta["space"].items():
        value = s.best[name] if s.best is not None else np.nan
        if choices(domain) or not varies(domain) or not isinstance(value, float) or pd.isna(value):
            continue
        low, high = domain["low"], domain["high"]
        if (low, high) == (0, 1):  # a share: there is nothing beyond these ends
            continue
        share = float(to_unit(np.array(value), domain))
        if min(share, 1 - share) < 0.02:
            at_edge.append(f"{name} (range {low:g} to {high:g})")
    if not at_edge:
        return []
    return [
        f"The headline trial lies at the edge of the searched range of {', '.join(at_edge)}; better values may "
        "lie beyond it."
    ]

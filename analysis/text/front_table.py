"""The table of baselines and the best trials, and what is said above it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.pareto_front import hypervolume, knee
from analysis.stats.summary import Summary, counts_of
from analysis.stats.uncertainty import BY_IMAGES, probability_on_front
from analysis.text.tables import Table, table

BEST_SHOWN = 5


def best_table(s: Summary) -> tuple[Table, str, str]:
    measured = [
        "val_accuracy",
        "change",
        "accuracy_drop",
        "sparsity",
        "file_bytes",
        "compression_ratio",
        "entropy_ratio",
        "nonzero_ratio",
        "codebook_values_used",
        "test_accuracy",
        "probability",
        "epochs",
        "seconds",
    ]
    rows = s.front if s.compresses else s.feasible.nlargest(BEST_SHOWN, "val_accuracy", keep="first")
    if s.compresses:
        heading, lead = "Baselines and the front", _front_lead(s)
        measured.remove("change" if "accuracy_drop" in s.trials else "accuracy_drop")
    else:
        best = f"The {len(rows)} best complete trials" if len(rows) > 1 else "The best complete trial"
        heading, lead = "Baselines and the best trials", f"{best} on validation data." if len(rows) else ""
    chances = probability_on_front(s.study)
    kinds = (("baseline", s.baselines), ("best", rows))
    groups = [(kind, _with_comparison(s, frame, chances)) for kind, frame in kinds]
    known = [c for c in s.trials.columns if c in ("label_smoothing", "bits")]
    reference = "the reference" if s.reference is None else str(s.reference["baseline"])
    of = "of being on the front" if s.compresses else "of being the best"
    return (
        table(
            groups,
            [*s.study.hyperparameters, *known, *measured],
            {**s.headings, "change": f"against {reference} (points)", "probability": f"probability {of} (%)"},
        ),
        heading,
        f"{lead} {_probability_lead(chances)}".strip(),
    )


def _front_lead(s: Summary) -> str:
    least = "" if s.least_accuracy is None else f" of at least {s.least_accuracy:g} % validation accuracy"
    lead = f"Every trial{least} that no other matches in all objectives and beats in one, the smallest last."
    sizes = np.log(s.front["file_bytes"] if s.size == "file_bytes" else (100 - s.front["sparsity"]).clip(lower=1e-3))
    bend = knee(s.front.assign(log_size=sizes), {"val_accuracy": "max", "log_size": "min"})
    if bend is not None:
        lead += f" Its knee is {bend['trial_id']}, farthest from the line through both ends as the figure is scaled."
    return lead + _covered(s)


def _covered(s: Summary) -> str:
    """The front's hypervolume in words, where a reference point suggests itself: chance, and nothing compressed."""
    worst, span, unit, said = 0.0, 100.0, "%²", "sparsity 0 %"
    if s.size == "file_bytes":
        if s.reference is None:
            return ""
        worst = span = float(s.reference.get("file_bytes", np.nan))
        unit, said = "% · bytes", f"the {worst:,.0f} bytes of “{s.reference['baseline']}”"
    known = np.isfinite(s.chance) and set(s.study.objectives) == {"val_accuracy", s.size} and span > 0
    if s.front.empty or not known:
        return ""
    covered = hypervolume(s.front, s.study.objectives, {"val_accuracy": s.chance, s.size: worst})
    share = 100 * covered / (100 - s.chance) / span
    return (
        f" The front covers {share:.1f} % of the area between its reference point (chance accuracy "
        f"{s.chance:.3g} %, {said}) and perfection: its hypervolume is {covered:,.0f} {unit}."
    )


def _probability_lead(chances: pd.DataFrame) -> str:
    if chances.empty:
        return ""
    if chances["basis"].iloc[0] == "fresh seeds":
        return (
            "Probabilities are by Student's t over the fresh seeds, paired by seed, among the "
            f"{len(chances)} trials that were trained with them."
        )
    return BY_IMAGES


def _with_comparison(s: Summary, rows: pd.DataFrame, chances: pd.DataFrame) -> pd.DataFrame:
    tested = dict(zip(s.tested["trial_id"], s.tested["test_accuracy"], strict=True))
    level = float("nan") if s.reference is None else float(s.reference["val_accuracy"])
    probable = dict(zip(chances["trial_id"], chances["probability"], strict=True))
    return rows.assign(
        change=rows["val_accuracy"] - level,
        test_accuracy=[tested.get(trial, float("nan")) for trial in rows["trial_id"]],
        probability=[
            f"{100 * probable[trial]:.0f}" if trial in probable else float("nan") for trial in rows["trial_id"]
        ],
    )


def trial_counts(s: Summary) -> str:
    counts = counts_of(s)
    wanted = max(s.study.meta.get("settings", {}).get("num_samples") or 0, sum(counts.values()))
    return (
        f"{counts['complete']} complete"
        + (f" of {wanted}" if wanted else "")
        + "".join(f" · {counts[state]} {state}" for state in ("pruned", "failed", "running") if counts[state])
    )

"""What a study found: its front, its baselines, the trial that answers its question, and that answer in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.front import finished, pareto_front
from analysis.statistics import confirmed_means, standard_error
from analysis.tables import text
from study.results import COLUMNS, FINAL_STATES, HISTORY_COLUMNS, TRIAL_COLUMNS, Study

REFERENCE = {"kd": "student alone", "sws": "uncompressed", "magnitude": "uncompressed", "kd_sws": "teacher"}
"""The baseline that a kind of study is measured against."""

TEXT = ("trial_id", "state", "reason", "baseline", "phase")


@dataclass(frozen=True)
class Summary:
    """A study with its numbers made sure of.

    Attributes:
        study: as it was read.
        trials: every row; every column that the study's kind will have exists, numbers are floats.
        searched: complete trials that are no baseline.
        front: those that no other dominates, the smallest network last.
        baselines: complete baselines.
        confirmed: `confirmed_means`.
        reference: the baseline to compare with, if it is complete.
        best: the trial that answers the question, if there is one; `rule` says how it was chosen.
        error: standard error of the accuracy it is compared at, in points.
    """

    study: Study
    trials: pd.DataFrame
    searched: pd.DataFrame
    front: pd.DataFrame
    baselines: pd.DataFrame
    confirmed: pd.DataFrame
    reference: pd.Series | None
    best: pd.Series | None
    rule: str
    error: float

    @property
    def size(self) -> str:
        """The objective that says how small a network is; "" where none does."""
        return size_of(self.study.objectives)

    @property
    def compresses(self) -> bool:
        return bool(self.size)

    @property
    def validation(self) -> int:
        return int(self.study.meta.get("data", {}).get("validation", 0))


def summarise(study: Study) -> Summary:
    """Read a study's tables; works for one that has just begun, or in which everything failed."""
    needed = [*TRIAL_COLUMNS, *study.hyperparameters, *study.objectives]
    trials = numeric(study.trials, needed)
    searched = finished(trials)
    size = size_of(study.objectives)
    front = pareto_front(searched, study.objectives).sort_values(
        list(study.objectives)[::-1], kind="stable", ascending=study.objectives.get(size) != "min"
    )
    baselines = trials[(trials["baseline"] != "") & (trials["state"] == "complete")]
    named = baselines[baselines["baseline"] == REFERENCE.get(study.meta["kind"], "")]
    reference = named.iloc[0] if len(named) else None
    anchor = reference if reference is not None else (_row_of_max(front, "val_accuracy"))
    examples = int(study.meta.get("data", {}).get("validation", 0))
    level = float(anchor["val_accuracy"]) if anchor is not None else np.nan
    error = standard_error(level, examples) if examples and np.isfinite(level) else np.nan
    best, rule = choose(front, level, error, size)
    return Summary(study, trials, searched, front, baselines, confirmed_means(study), reference, best, rule, error)


def size_of(objectives: Mapping[str, str]) -> str:
    """The objective that says how small a network is; "" where none does."""
    return next((column for column in ("sparsity", "file_bytes") if column in objectives), "")


def numeric(frame: pd.DataFrame, needed: list[str]) -> pd.DataFrame:
    """A copy with `needed` columns present and numbers as floats; text has no missing values.

    A known column that holds text by mistake becomes missing; an unknown one (a choice among names) stays text.
    """
    columns = list(frame.columns) + [c for c in needed if c not in frame.columns]
    frame = frame.reindex(columns=columns)
    for column in columns:
        if column in TEXT:
            frame[column] = frame[column].astype(object).where(frame[column].notna(), "").astype(str)
        else:
            values = pd.to_numeric(frame[column], errors="coerce").astype(float)
            if column in COLUMNS or values.notna().sum() == frame[column].notna().sum():
                frame[column] = values
    return frame


def history_of(study: Study) -> pd.DataFrame:
    return numeric(study.history, [*HISTORY_COLUMNS, "val_accuracy"])


def choose(front: pd.DataFrame, level: float, error: float, size: str) -> tuple[pd.Series | None, str]:
    """The trial that the first sentence speaks of.

    For one objective the best. For accuracy and size the smallest network of the front, the sparsest or that of the
    smallest file, whose accuracy is at most one standard error below the reference (the one-standard-error rule of
    Breiman et al. 1984, sec. 3.4.3), since smaller losses cannot be told from none; the most accurate trial when none
    is that good.

    Args:
        size: see `size_of`.
    """
    if front.empty:
        return None, ""
    if not size:
        return _row_of_max(front, "val_accuracy"), "the highest validation accuracy"
    near = front[front["val_accuracy"] >= level - error]
    if len(near):
        what = "the sparsest trial" if size == "sparsity" else "the smallest file"
        smallest = near.assign(_small=near[size] if size == "sparsity" else -near[size])
        return _row_of_max(smallest, "_small"), f"{what} within one standard error (±{error:.2f} points)"
    return _row_of_max(front, "val_accuracy"), "the most accurate trial; none is within one standard error"


def _row_of_max(frame: pd.DataFrame, column: str) -> pd.Series | None:
    values = frame[column] if column in frame else pd.Series(dtype=float)
    return frame.loc[values.idxmax()] if values.notna().any() else None


@dataclass(frozen=True)
class Answer:
    """The first screen. `tiles` are (number, what it is); all plain text."""

    sentence: str
    details: list[str]
    tiles: list[tuple[str, str]]


def answer(summary: Summary) -> Answer:
    if summary.best is None:
        return _no_answer(summary)
    found = _compression_answer(summary) if summary.compresses else _distillation_answer(summary)
    tested = _tested(summary)
    return Answer(found.sentence, [*found.details, *([tested] if tested else [])], found.tiles)


def _no_answer(summary: Summary) -> Answer:
    counts = counts_of(summary)
    total = sum(counts.values())
    if not total:
        sentence = "No trial has ended yet, so there is nothing to report."
    elif counts.get("failed", 0) == total:
        sentence = f"All {total} trials failed, so this study has no answer." if total > 1 else "The only trial failed."
    elif counts.get("running", 0):
        sentence = "No trial is complete yet; this study is still running or was cut off."
    else:
        sentence = f"None of the {total} trials is complete, so this study has no answer."
    reasons = summary.trials.loc[summary.trials["state"] == "failed", "reason"].value_counts()
    details = [f"{count} × {reason or 'no reason given'}" for reason, count in reasons.head(3).items()]
    return Answer(sentence, details, [(str(n), state) for state, n in counts.items() if n])


def _distillation_answer(summary: Summary) -> Answer:
    best = summary.best
    assert best is not None
    score = float(best["val_accuracy"])
    teacher = summary.baselines[summary.baselines["baseline"] == "teacher"]["val_accuracy"]
    sentence = f"The distilled student reaches {score:.1f} % validation accuracy"
    tiles = [(f"{score:.1f} %", "distilled student")]
    if summary.reference is not None:
        alone = float(summary.reference["val_accuracy"])
        sentence += f"; the student alone {alone:.1f} %: {points(score - alone)}"
        tiles += [(f"{alone:.1f} %", "student alone"), (points(score - alone), "gain over the student alone")]
    if len(teacher):
        sentence += f" (teacher {teacher.iloc[0]:.1f} %)"
        tiles.insert(1, (f"{teacher.iloc[0]:.1f} %", "teacher"))
    details = [f"Best of {len(summary.searched)} complete trials: {configuration(summary, best)}."]
    if np.isfinite(summary.error):
        details.append(f"One of {summary.validation:,} validation images is {100 / summary.validation:.2f} points; "
                       f"the standard error of one accuracy is ±{summary.error:.2f} points.")
    return Answer(sentence + ".", details, tiles)


def _compression_answer(summary: Summary) -> Answer:
    best = summary.best
    assert best is not None
    score, sparsity = float(best["val_accuracy"]), float(best["sparsity"])
    drop = score - float(summary.reference["val_accuracy"]) if summary.reference is not None else np.nan
    change = f" ({points(drop)})" if np.isfinite(drop) else ""
    sentence = f"Keeps {score:.1f} % validation accuracy{change} with {sparsity:.1f} % of the weights at zero"
    if np.isfinite(best.get("file_bytes", np.nan)):
        sentence += f", in a file of {best['file_bytes']:,.0f} bytes"
    sentence += "."
    tiles = [(f"{score:.1f} %", "validation accuracy"), (f"{sparsity:.1f} %", "sparsity")]
    if np.isfinite(drop):
        against = "teacher" if summary.study.meta["kind"] == "kd_sws" else "uncompressed network"
        tiles.insert(1, (points(drop), f"against the {against}"))
    for column, what in (("compression_ratio", "smaller on disk"), ("entropy_ratio", "compression, entropy bound"),
                         ("nonzero_ratio", "1 / nonzero share")):
        if np.isfinite(best.get(column, np.nan)):
            tiles.append((f"{best[column]:.0f}×", what))
            break
    details = [f"Trial {best['trial_id']}, {summary.rule}: {configuration(summary, best)}.",
               f"{len(summary.front)} of {len(summary.searched)} complete trials are on the front."]
    return Answer(sentence, details, tiles)


def _tested(summary: Summary) -> str:
    """The same comparison on test data, where both sides were confirmed."""
    confirmed = summary.confirmed
    if confirmed.empty or summary.best is None:
        return ""
    mine = confirmed[confirmed["trial_id"] == summary.best["trial_id"]]
    if mine.empty:
        return ""
    seeds = int(mine["seeds"].iloc[0])
    text = f"On test data, read once for it: {mine['test_accuracy'].iloc[0]:.2f} %"
    name = REFERENCE.get(summary.study.meta["kind"], "")
    other = confirmed[confirmed["baseline"] == name] if name else confirmed.iloc[:0]
    if len(other):
        change = float(mine["test_accuracy"].iloc[0] - other["test_accuracy"].iloc[0])
        text += f" against {other['test_accuracy'].iloc[0]:.2f} % ({name}): {points(change)}"
    return text + (f", mean of {seeds} seeds." if seeds > 1 else ", one seed.")


def points(difference: float) -> str:
    sign = "−" if round(difference, 1) < 0 else "+" if round(difference, 1) > 0 else "±"
    return f"{sign}{abs(difference):.1f} points"


def configuration(summary: Summary, row: pd.Series) -> str:
    names = [c for c in summary.study.hyperparameters if pd.notna(row[c])]
    return ", ".join(f"{COLUMNS[c].label if c in COLUMNS else c} {text(c, row[c])}" for c in names)


def counts_of(summary: Summary) -> dict[str, int]:
    """Searched trials by state, in a fixed order."""
    searched = summary.trials[summary.trials["baseline"] == ""]
    found = searched["state"].value_counts()
    return {state: int(found.get(state, 0)) for state in (*FINAL_STATES, "running")}

"""What a study found: its front, its baselines, and the trial that answers its question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import column_label, format_cell
from analysis.stats import names, test_results
from analysis.stats.pareto_front import feasible, finished, least_accuracy, pareto_front
from analysis.stats.standard_error import standard_error
from study.records.columns import COLUMNS, FINAL_STATES, HISTORY_COLUMNS, TRIAL_COLUMNS, Column
from study.records.study_folder import Study

ACCURACY, TEST_ACCURACY = names.ACCURACY, names.TEST_ACCURACY

REFERENCE = {"kd": "student alone", "sws": "uncompressed", "magnitude": "uncompressed", "kd_sws": "teacher"}
"""Only for figures until they read `Summary.reference_name`."""

TEXT = ("trial_id", "state", "reason", "baseline", "phase")


@dataclass(frozen=True)
class Summary:
    """A study with its numbers made sure of.

    Attributes:
        study: as it was read.
        trials: every row; every column that the study's kind will have exists, numbers are floats.
        searched: complete trials that are no baseline.
        feasible: those that keep to the study's constraint.
        front: those of them that no other dominates, the smallest network last.
        baselines: complete baselines.
        tested: `confirmation.of_search`, the search's own networks on test data.
        fresh: `confirmation.over_seeds`, configurations that were trained with fresh seeds.
        fresh_reference: the baseline that `fresh` is paired with by seed; "" without one.
        reference: the baseline to compare with, if it is complete.
        best: the trial that answers the question, if there is one; `rule` says how it was chosen.
        level: validation accuracy (%) that it was chosen against; `error` is its standard error, in points.
    """

    study: Study
    trials: pd.DataFrame
    searched: pd.DataFrame
    feasible: pd.DataFrame
    front: pd.DataFrame
    baselines: pd.DataFrame
    tested: pd.DataFrame
    fresh: pd.DataFrame
    fresh_reference: str
    reference: pd.Series | None
    best: pd.Series | None
    rule: str
    level: float
    error: float

    @property
    def cost(self) -> str:
        """The first objective that is not accuracy: what accuracy is traded for; "" if there is none."""
        return next((name for name in self.study.objectives if name != ACCURACY), "")

    @property
    def has_cost(self) -> bool:
        """Whether the study trades accuracy for something."""
        return bool(self.cost)

    @property
    def size(self) -> str:
        """Only for figures until they read `cost`."""
        return self.cost

    @property
    def compresses(self) -> bool:
        """Only for figures until they read `has_cost`."""
        return self.has_cost

    def column(self, name: str) -> Column:
        """What is declared of a column, by the harness or by the study."""
        return self.study.column(name)

    @property
    def reference_name(self) -> str:
        """The baseline that trials are measured against, complete or not; "" where the kind of study has none."""
        return str(self.study.meta["reference"])

    @property
    def headings(self) -> dict[str, str]:
        """Headings of columns that mean something else than in other kinds of study."""
        return dict(self.study.meta["headings"])

    @property
    def chance(self) -> float:
        """Accuracy (%) of guessing; not a number where the classes are not recorded."""
        classes = len(self.study.meta.get("data", {}).get("classes", []))
        return 100 / classes if classes else np.nan

    @property
    def validation(self) -> int:
        return int(self.study.meta.get("data", {}).get("validation", 0))

    @property
    def least_accuracy(self) -> float | None:
        """Validation accuracy (%) below which a trial may not be on the front; None without that constraint."""
        return least_accuracy(self.study.meta)

    @property
    def best_fresh(self) -> pd.Series | None:
        """The row of `fresh` of the trial that answers the question, if that was trained with fresh seeds."""
        return None if self.best is None else row_of(self.fresh, "trial_id", str(self.best["trial_id"]))


def summarise(study: Study) -> Summary:
    """Read a study's tables; works for one that has just begun, or in which everything failed."""
    needed = [*TRIAL_COLUMNS, *study.hyperparameters, *study.objectives]
    trials = numeric(study.trials, needed)
    searched = finished(trials)
    allowed = feasible(searched, study.meta)
    size = size_of(study.objectives)
    front = pareto_front(allowed, study.objectives).sort_values(
        list(study.objectives)[::-1], kind="stable", ascending=study.objectives.get(size) != "min"
    )
    baselines = trials[(trials["baseline"] != "") & (trials["state"] == "complete")]
    scored = baselines[baselines["val_accuracy"].notna()]
    reference = row_of(scored, "baseline", study.meta["reference"])
    anchor = reference if reference is not None else (_row_of_max(front, "val_accuracy"))
    examples = int(study.meta.get("data", {}).get("validation", 0))
    level = float(anchor["val_accuracy"]) if anchor is not None else np.nan
    error = standard_error(level, examples) if examples and np.isfinite(level) else np.nan
    of = "the most accurate trial" if reference is None else f"the baseline “{reference['baseline']}”"
    best, rule = choose(front, level, error, size, of)
    paired_with = test_results.reference_of(test_results.fresh_seed_rows(study), study.meta["reference"])
    return Summary(
        study=study,
        trials=trials,
        searched=searched,
        feasible=allowed,
        front=front,
        baselines=baselines,
        tested=test_results.search_test_rows(study),
        fresh=test_results.mean_over_seeds(study, paired_with),
        fresh_reference=paired_with,
        reference=reference,
        best=best,
        rule=rule,
        level=level,
        error=error,
    )


def row_of(frame: pd.DataFrame, column: str, name: str) -> pd.Series | None:
    """The first row that has this name in `column`; None without one."""
    rows = frame[frame[column] == name] if len(frame) else frame
    return rows.iloc[0] if len(rows) else None


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


def choose(
    front: pd.DataFrame, level: float, error: float, size: str, of: str = "the reference"
) -> tuple[pd.Series | None, str]:
    """The trial that the first sentence speaks of.

    For one objective the best. For accuracy and size the smallest network of the front, the sparsest or that of the
    smallest file, whose accuracy is at most one standard error below the reference (the one-standard-error rule of
    Breiman et al. 1984, sec. 3.4.3), since smaller losses cannot be told from none; the most accurate trial when none
    is that good.

    Args:
        size: see `size_of`.
        of: whose accuracy the level is.
    """
    if front.empty:
        return None, ""
    if not size:
        return _row_of_max(front, "val_accuracy"), "the highest validation accuracy"
    near = front[front["val_accuracy"] >= level - error]
    if len(near):
        what = "the sparsest trial" if size == "sparsity" else "the smallest file"
        smallest = near.assign(_small=near[size] if size == "sparsity" else -near[size])
        return _row_of_max(smallest, "_small"), f"{what} within one standard error (±{error:.2f} points) of {of}"
    return _row_of_max(front, "val_accuracy"), f"the most accurate trial; none is within one standard error of {of}"


def _row_of_max(frame: pd.DataFrame, column: str) -> pd.Series | None:
    values = frame[column] if column in frame else pd.Series(dtype=float)
    return frame.loc[values.idxmax()] if values.notna().any() else None


def configuration(summary: Summary, row: pd.Series) -> str:
    names = [c for c in summary.study.hyperparameters if pd.notna(row[c])]
    return ", ".join(f"{column_label(c)} {format_cell(c, row[c])}" for c in names)


def counts_of(summary: Summary) -> dict[str, int]:
    """Searched trials by state, in a fixed order."""
    searched = summary.trials[summary.trials["baseline"] == ""]
    found = searched["state"].value_counts()
    return {state: int(found.get(state, 0)) for state in (*FINAL_STATES, "running")}


def has_surfaces(s: Summary) -> bool:
    """Whether two configurations or more were trained with two fresh seeds or more."""
    if not s.compresses or s.fresh.empty:
        return False
    return int(((s.fresh["baseline"] == "") & (s.fresh["seeds"] > 1)).sum()) > 1


def has_pairs(s: Summary) -> bool:
    return bool(len(s.fresh)) and bool((s.fresh["pairs"] > 0).any())

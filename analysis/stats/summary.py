"""What a study found: its front, its baselines, and the trial that answers its question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.formatting import format_cell
from analysis.stats import guessing, held_out_results
from analysis.stats.guessing import told_from_guessing
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.pareto_front import feasible, finished, least_accuracy, pareto_front
from analysis.stats.search_space import Domain, as_words, is_whole, is_words
from analysis.stats.standard_error import standard_error
from study.records.columns import COLUMNS, FINAL_STATES, HISTORY_COLUMNS, TIME_COLUMNS, TRIAL_COLUMNS, Column
from study.records.study_folder import Study

TEXT = ("trial_id", "state", "reason", "baseline", "phase", *TIME_COLUMNS)


@dataclass(frozen=True)
class Summary:
    """A study with its numbers checked.

    Attributes:
        study: as it was read.
        trials: every row; every column that the study will have exists, numbers are floats, choices among words text.
        searched: complete trials that are no baseline.
        feasible: those that may answer: told apart from guessing, and within the study's constraint.
        front: those of them that no other dominates, the best in `cost` last.
        baselines: complete baselines.
        tested: see `held_out_results.search_test_rows`, the search's own networks on test data.
        fresh: see `held_out_results.mean_over_seeds`, configurations that were trained with fresh seeds.
        fresh_reference: the baseline that `fresh` is paired with by seed; "" without one.
        reference: the baseline to compare with, if it is complete.
        chosen: the trial that validation data choose, if there is one; `rule` says how.
        best: the trial that answers the question: `chosen`, unless test data do not tell it apart from guessing.
        guesses_on_test: trials of which test data say that, over fresh seeds where there are some.
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
    chosen: pd.Series | None
    best: pd.Series | None
    guesses_on_test: frozenset[str]
    rule: str
    level: float
    error: float

    @property
    def cost(self) -> str:
        """The first objective that is not accuracy: what accuracy is traded for; "" if there is none."""
        return cost_of(self.study.objectives)

    @property
    def has_cost(self) -> bool:
        """Whether the study trades accuracy for something."""
        return bool(self.cost)

    def column(self, name: str) -> Column:
        """See `column_of`."""
        return column_of(self.study, name)

    @property
    def reference_name(self) -> str:
        """The baseline that trials are measured against, complete or not; "" where the kind of study has none."""
        return str(self.study.meta["reference"])

    @property
    def shared_baseline(self) -> str:
        """The baseline that is the work which all trials share; "" where the kind of study has none."""
        return str(self.study.meta["shared_baseline"])

    @property
    def headings(self) -> dict[str, str]:
        """Headings of columns that mean something else than in other kinds of study."""
        return dict(self.study.meta["headings"])

    @property
    def chance(self) -> float:
        """Accuracy (%) of guessing on validation data; not a number where the classes are not recorded."""
        return guessing.chance(self.study.meta)

    @property
    def guessing_bound(self) -> float:
        """Validation accuracy (%) that the best of all searched trials could have by guessing, see `guessing`."""
        return guessing.guessing_bound(self.study.meta, int(self.searched[ACCURACY].notna().sum()))

    def told(self, rows: pd.DataFrame) -> pd.Series:
        """Which rows have a validation accuracy that is told apart from guessing, among so many trials."""
        return told_from_guessing(rows[ACCURACY], self.study.meta, int(self.searched[ACCURACY].notna().sum()))

    def sets_axis(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows that an axis is drawn for: those told apart from guessing, or all where none is."""
        told = self.told(rows)
        return rows[told] if told.any() else rows

    @property
    def guesses(self) -> pd.DataFrame:
        """Searched trials with a validation accuracy that is not told apart from guessing."""
        return self.searched[~self.told(self.searched) & self.searched[ACCURACY].notna()]

    @property
    def untested(self) -> int:
        """Rows of `confirmed.csv` whose test accuracy is no finite number."""
        scores = self.study.confirmed.reindex(columns=[TEST_ACCURACY])[TEST_ACCURACY]
        return int((~np.isfinite(pd.to_numeric(scores, errors="coerce").astype(float))).sum())

    @property
    def validation(self) -> int:
        """Images in the validation part; 0 where that is not recorded."""
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
    """Read a study's tables; works for one that has just started, or in which everything failed."""
    needed = [*TRIAL_COLUMNS, *TIME_COLUMNS, *study.hyperparameters, *study.objectives, ACCURACY]
    trials = numeric(study.trials, list(dict.fromkeys(needed)), study.meta["space"])
    searched = finished(trials)
    allowed = feasible(searched, study.meta)
    front = _best_last(pareto_front(allowed, study.objectives), study.objectives)
    baselines = trials[(trials["baseline"] != "") & (trials["state"] == "complete")]
    preferred = str(study.meta["reference"])
    reference = row_of(baselines[baselines[ACCURACY].notna()], "baseline", preferred) if preferred else None
    anchor = _row_of_max(front, ACCURACY) if reference is None else reference
    images = int(study.meta.get("data", {}).get("validation", 0))
    level = float(anchor[ACCURACY]) if anchor is not None else np.nan
    error = standard_error(level, images) if images and np.isfinite(level) else np.nan
    chosen, near = choose(front, study.objectives, level, error)
    whose = "the most accurate trial" if reference is None else f"the baseline “{reference['baseline']}”"
    paired_with = held_out_results.reference_of(held_out_results.fresh_seed_rows(study), preferred)
    tested, fresh = held_out_results.search_test_rows(study), held_out_results.mean_over_seeds(study, paired_with)
    guesses = _guesses_on_test(study, fresh, tested)
    return Summary(
        study=study,
        trials=trials,
        searched=searched,
        feasible=allowed,
        front=front,
        baselines=baselines,
        tested=tested,
        fresh=fresh,
        fresh_reference=paired_with,
        reference=reference,
        chosen=chosen,
        best=None if chosen is None or chosen["trial_id"] in guesses else chosen,
        guesses_on_test=guesses,
        rule="" if chosen is None else _rule(study, near, error, whose),
        level=level,
        error=error,
    )


def column_of(study: Study, name: str) -> Column:
    """What is declared of a column, by the harness or by the study. A hyperparameter of whole numbers that the harness
    does not know is printed without decimals."""
    column = study.column(name)
    whole = name not in COLUMNS and is_whole(study.meta["space"].get(name, {}))
    return replace(column, digits=0) if whole else column


def row_of(frame: pd.DataFrame, column: str, name: str) -> pd.Series | None:
    """The first row that has this name in `column`; None without one."""
    rows = frame[frame[column] == name] if len(frame) else frame
    return rows.iloc[0] if len(rows) else None


def cost_of(objectives: Mapping[str, str]) -> str:
    """The first objective that is not accuracy; "" if there is none."""
    return next((name for name in objectives if name != ACCURACY), "")


def numeric(frame: pd.DataFrame, needed: list[str], space: Mapping[str, Domain] | None = None) -> pd.DataFrame:
    """A copy with `needed` columns present and numbers as floats; text has no missing values.

    A known column that holds text by mistake becomes missing; an unknown one stays text, and so does a choice among
    words. An infinite number becomes missing, since no figure or sentence has a place for it.

    Args:
        space: hyperparameter → domain, of those that may be such choices.
    """
    columns = list(frame.columns) + [c for c in needed if c not in frame.columns]
    frame = frame.reindex(columns=columns)
    words = {name: domain for name, domain in (space or {}).items() if is_words(domain)}
    for column in columns:
        if column in TEXT:
            frame[column] = frame[column].astype(object).where(frame[column].notna(), "").astype(str)
        elif column in words:
            frame[column] = as_words(frame[column], words[column])
        else:
            values = pd.to_numeric(frame[column], errors="coerce").astype(float)
            if column in COLUMNS or values.notna().sum() == frame[column].notna().sum():
                frame[column] = values.where(np.isfinite(values))
    return frame


def history_of(study: Study) -> pd.DataFrame:
    """One row a trial and epoch, with numbers as floats."""
    return numeric(study.history, [*HISTORY_COLUMNS, ACCURACY])


def choose(
    front: pd.DataFrame, objectives: Mapping[str, str], level: float, error: float
) -> tuple[pd.Series | None, bool]:
    """The trial that the first sentence speaks of.

    Of accuracy alone the highest. Where accuracy is traded for something, the trial that is best in that, among those
    whose accuracy is at most one standard error below the level (the one-standard-error rule of Breiman et al. 1984,
    sec. 3.4.3), since smaller losses cannot be told from none; the most accurate trial when none is that good. Where
    accuracy is no objective, the best in the first one.

    Args:
        front: see `pareto_front`.
        objectives: column → "min" or "max".
        level: validation accuracy of the reference, in percent; `error` is its standard error, in points.
    Returns: its row, None for an empty front; and whether the standard error decided.
    """
    cost = cost_of(objectives)
    if not cost:
        return _row_of_max(front, ACCURACY), False
    near = front[front[ACCURACY] >= level - error] if ACCURACY in objectives else front
    if near.empty:
        return _row_of_max(front, ACCURACY), False
    best = near[cost].idxmax() if objectives[cost] == "max" else near[cost].idxmin()
    return near.loc[best], ACCURACY in objectives


def _guesses_on_test(study: Study, *results: pd.DataFrame) -> frozenset[str]:
    """Trials that the first of these tables of test results that has them does not tell apart from guessing."""
    rows = pd.concat([table.reindex(columns=["trial_id", TEST_ACCURACY]) for table in results])
    rows = rows.drop_duplicates("trial_id")
    return frozenset(rows.loc[~told_from_guessing(rows[TEST_ACCURACY], study.meta, 1, "test"), "trial_id"])


def superlative(column: Column, direction: str) -> str:
    """The best value of a metric in words, such as "the highest sparsity"; sizes are small rather than low."""
    least = "smallest" if column.unit == "bytes" else "lowest"
    return f"the {'highest' if direction == 'max' else least} {column.label}"


def _rule(study: Study, near: bool, error: float, whose: str) -> str:
    """How `choose` chose, in words."""
    cost = cost_of(study.objectives)
    if not cost:
        return superlative(study.column(ACCURACY), study.objectives[ACCURACY])
    best = superlative(study.column(cost), study.objectives[cost])
    if near:
        return f"{best} within one standard error (±{error:.2f} points) of {whose}"
    if ACCURACY not in study.objectives:
        return best
    return f"the most accurate trial; none is within one standard error of {whose}"


def _best_last(front: pd.DataFrame, objectives: Mapping[str, str]) -> pd.DataFrame:
    """A front in the order of its cost, or of its accuracy where that is all."""
    by = cost_of(objectives) or ACCURACY
    others = [name for name in list(objectives)[::-1] if name != by]
    return front.sort_values([by, *others], kind="stable", ascending=objectives.get(by) != "min")


def _row_of_max(frame: pd.DataFrame, column: str) -> pd.Series | None:
    values = frame[column] if column in frame else pd.Series(dtype=float)
    return frame.loc[values.idxmax()] if values.notna().any() else None


def configuration(summary: Summary, row: pd.Series) -> str:
    """The searched hyperparameters of a trial in words."""
    columns = {name: summary.column(name) for name in summary.study.hyperparameters if pd.notna(row[name])}
    return ", ".join(f"{column.label} {format_cell(column, row[name])}" for name, column in columns.items())


def counts_of(summary: Summary) -> dict[str, int]:
    """Searched trials by state, in a fixed order."""
    searched = summary.trials[summary.trials["baseline"] == ""]
    counts = searched["state"].value_counts()
    return {state: int(counts.get(state, 0)) for state in (*FINAL_STATES, "running")}


def has_surfaces(s: Summary) -> bool:
    """Whether two configurations or more were trained with two fresh seeds or more."""
    if not s.has_cost or s.fresh.empty:
        return False
    return int(((s.fresh["baseline"] == "") & (s.fresh["seeds"] > 1)).sum()) > 1


def has_pairs(s: Summary) -> bool:
    """Whether a configuration was trained with a fresh seed that the reference was trained with as well."""
    return bool(len(s.fresh)) and bool((s.fresh["pairs"] > 0).any())

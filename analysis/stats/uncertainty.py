"""How sure a front is: what seeds attain, and how probable it is that a trial is truly on it. Every draw has a fixed
seed, so a number comes out the same each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import moocore
import numpy as np
import pandas as pd

from analysis.stats.held_out_results import fresh_seed_rows
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.pareto_front import pareto_front
from analysis.stats.standard_error import redrawn, standard_error
from analysis.stats.summary import summarise
from study.records.columns import SPREAD
from study.records.study_folder import Study

DRAWS = 1000
"""Of a bootstrap: a probability is then known to ±1.6 points (one standard error) or better."""

FEWEST_SEEDS = 5
"""From so many on a probability is by seeds: with fewer, how far they spread is hardly known, and hardly any trial is
told from another."""

BY_IMAGES = (
    "Probabilities are by bootstrap of the validation accuracies, as other images might give them; they leave "
    "out the luck of the seed, and treat trials as independent, which overstates doubt."
)
"""What `probability_by_images` is, for the reader of a table."""
BY_IMAGES_AND_SEEDS = (
    "Probabilities are by bootstrap of the validation accuracies, as other images and other seeds might give them; "
    "they treat trials as independent, which overstates doubt."
)
"""The same in a study whose trials have several seeds each."""
BASIS = ("validation images", "validation images and seeds")


def attainment(
    rows: pd.DataFrame, objectives: Mapping[str, str], percentages: tuple[float, ...] = (25, 50, 75)
) -> pd.DataFrame:
    """Empirical attainment surfaces: what at least so many percent of the seeds reach.

    The configurations that were trained with one seed are one run. A run attains a point when one of them is at least
    as good in every objective. The surface of 50 % is the front of all points that at least half of the runs attain.

    Args:
        rows: one a configuration and fresh seed, see `held_out_results.fresh_seed_rows`; baselines do not count.
        objectives: column → "min" or "max", two or three of them, `test_accuracy` for instance.
    Returns: `percentage` and the objectives; the corners of each surface, in the order of the first objective. Empty
        without rows.
    Raises:
        ValueError: other than two or three objectives, or a direction that is neither "min" nor "max".
    Reference: Grunert da Fonseca, Fonseca & Hall 2001, EMO, LNCS 1993, 213–225; computed as by Fonseca et al. 2011.
    """
    if len(objectives) not in (2, 3):
        raise ValueError(f"attainment surfaces need two or three objectives, not {len(objectives)}")
    columns = list(objectives)
    rows = rows[rows["baseline"] == ""].dropna(subset=columns)
    runs = [pareto_front(run, objectives).sort_index() for _, run in rows.groupby("seed")]
    if not runs:
        return pd.DataFrame(columns=pd.Index(["percentage", *columns]))
    points = pd.concat(runs)
    signs = np.array([-1.0 if objectives[c] == "max" else 1.0 for c in columns])
    surfaces = moocore.eaf(signs * points[columns].to_numpy(float), points["seed"].to_numpy(), percentiles=percentages)
    corners = pd.DataFrame(surfaces[:, :-1] * signs, columns=pd.Index(columns))
    corners.insert(0, "percentage", surfaces[:, -1])
    return corners.sort_values(["percentage", *columns], ignore_index=True)


def probability_on_front(study: Study) -> pd.DataFrame:
    """How probable it is that a searched trial is truly on the front.

    Where two trials or more were trained with at least `FEWEST_SEEDS` fresh seeds, among those alone, see
    `probability_by_seeds`; in any other study among all complete ones that keep to its constraint, see
    `probability_by_images`.

    Returns: `trial_id`, `probability` and `basis` ("fresh seeds" or one of `BASIS`), one row for each trial that
        was considered; empty where there are fewer than two, since a single one is on the front for certain, where the
        number of validation images is not recorded, or where accuracy is no objective.
    """
    rows = fresh_seed_rows(study)
    objectives = {TEST_ACCURACY if c == ACCURACY else c: d for c, d in study.objectives.items()}
    known = probability_by_seeds(
        rows[rows["baseline"] == ""].reindex(columns=["trial_id", "seed", *objectives]), objectives
    )
    basis = "fresh seeds"
    if len(known) < 2:
        s = summarise(study)
        error = seed_error(s.feasible, study.meta.get("settings", {}).get("seeds_per_trial") or 1)
        known, basis = probability_by_images(s.feasible, study.objectives, s.validation, error), BASIS[error > 0]
        known.index = pd.Index(s.feasible["trial_id"])
    table = known.dropna().rename("probability").rename_axis("trial_id").reset_index()
    return (table if len(table) > 1 else table.iloc[:0]).assign(basis=basis)


def probability_by_seeds(rows: pd.DataFrame, objectives: Mapping[str, str]) -> pd.Series:
    """Share of draws of the trials' means, as other seeds might give them, in which no other trial beats a trial.

    A draw moves every mean by its deviations with each seed, weighted by normal numbers that are the same for every
    trial, so what a seed does to all of them drops out, and all together by what Student's t has over the normal
    distribution: a difference of two trials with n seeds is drawn from t with n − 1 degrees of freedom, scaled by its
    standard error paired by seed. Resampling the seeds instead would give one of two equal trials with five seeds 95 %
    or more in one study of four. Test images are taken as they are.

    Args:
        rows: `trial_id`, `seed` and the objectives; trials with fewer than `FEWEST_SEEDS` seeds are left out.
    Returns: probability by trial, in the order of `rows`; empty without a trial.
    """
    columns = list(objectives)
    rows = rows.dropna(subset=columns).drop_duplicates(["trial_id", "seed"])
    rows = rows[rows.groupby("trial_id")["seed"].transform("count") >= FEWEST_SEEDS]
    trials = pd.Index(rows["trial_id"].unique())
    if trials.empty:
        return pd.Series(dtype=float)
    values = [rows.pivot(index="trial_id", columns="seed", values=c).reindex(trials).to_numpy(float) for c in columns]
    there, n = np.isfinite(values[0]), values[0].shape[1]
    rng = np.random.default_rng(0)
    seeds = there.sum(axis=1)
    freedom = seeds.min() - 1
    weights = rng.normal(size=(DRAWS, n)) * np.sqrt(freedom / rng.chisquare(freedom, size=(DRAWS, 1)))
    means = []
    for value in values:
        mean = np.nanmean(value, axis=1)
        deviations = np.where(there, value - mean[:, None], 0.0)
        means.append(mean + weights @ deviations.T / np.sqrt(seeds * (seeds - 1)))
    return pd.Series(_share_on_front(np.stack(means, axis=2), objectives), index=trials)


def seed_error(trials: pd.DataFrame, seeds: int) -> float:
    """Standard error of a trial's mean accuracy over its seeds, in points: 0 where each has one.

    The spread is pooled over trials, since that of a few seeds is hardly known.

    Args:
        seeds: of each trial.
    """
    if seeds < 2 or SPREAD not in trials:
        return 0.0
    spread = pd.to_numeric(trials[SPREAD], errors="coerce").dropna()
    return float(np.sqrt((spread**2).mean() / seeds)) if len(spread) else 0.0


def probability_by_images(
    trials: pd.DataFrame, objectives: Mapping[str, str], images: int, error_by_seed: float = 0.0
) -> pd.Series:
    """Share of parametric bootstrap samples in which no other trial beats a trial: its validation accuracy is drawn
    from the binomial distribution, the other objectives stay.

    Trials are drawn independently, although all were scored on the same images. Luck that they share does not
    reorder them, so this overstates the uncertainty. It says nothing of the luck of the seed, and an accuracy that was
    picked for being high still counts as it was measured.

    Args:
        trials: complete trials, one a row.
        objectives: column → "min" or "max"; without `val_accuracy` among them there is no probability.
        images: in the validation part.
        error_by_seed: see `seed_error`; as much is added by a normal distribution.
    Returns: probability, with the index of `trials`; missing for a row with a missing objective, and everywhere where
        there are no images.
    """
    columns = list(objectives)
    points = trials.reindex(columns=columns).apply(pd.to_numeric, errors="coerce").to_numpy(float)
    probability = np.full(len(trials), np.nan)
    scored = np.flatnonzero(np.isfinite(points).all(axis=1))
    if images and len(scored) and ACCURACY in objectives:
        probability[scored] = 0.0
        near = scored[_can_reach(points[scored], objectives, images, error_by_seed)]
        draws = _redraw(points[near], columns.index(ACCURACY), images, error_by_seed)
        probability[near] = _share_on_front(draws, objectives)
    return pd.Series(probability, index=trials.index)


def _redraw(points: np.ndarray, accuracy: int, images: int, error_by_seed: float) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(DRAWS // 50):  # all at once would take a gigabyte for a very long study
        for accuracies in redrawn(points[:, accuracy], images, 50, rng):
            sample = points.copy()
            sample[:, accuracy] = accuracies
            if error_by_seed:
                sample[:, accuracy] += rng.normal(scale=error_by_seed, size=len(points))
            yield sample


def _can_reach(points: np.ndarray, objectives: Mapping[str, str], images: int, error_by_seed: float) -> np.ndarray:
    """Which trials no other dominates even when it is 2.2 standard errors less accurate, and they as much more. The
    rest are 3.1 standard errors of the difference behind it, and so reach the front less than once in `DRAWS`."""
    accuracy = list(objectives).index(ACCURACY)
    error = np.array([math.hypot(standard_error(a, images), error_by_seed) for a in points[:, accuracy]])
    costs = np.where([d == "max" for d in objectives.values()], -1.0, 1.0) * points
    worst, best = costs.copy(), costs.copy()
    worst[:, accuracy] += 2.2 * error
    best[:, accuracy] -= 2.2 * error
    if points.shape[1] == 1:
        return best[:, 0] <= worst[:, 0].min()
    sure = worst[moocore.is_nondominated(worst)]
    reached = np.ones(len(points), dtype=bool)
    for point in sure:
        reached &= ~((point <= best).all(axis=1) & (point < best).any(axis=1))
    return reached


def _share_on_front(draws: Iterable[np.ndarray], objectives: Mapping[str, str]) -> np.ndarray:
    """Of the draws that have a trial, the share in which it is on the front. Each draw is (trials, objectives)."""
    maximise = [direction == "max" for direction in objectives.values()]
    times_on_front: np.ndarray | float = 0.0
    times_present: np.ndarray | float = 0.0
    for points in draws:
        present = np.isfinite(points).all(axis=1)
        front = np.zeros(len(points))
        front[present] = moocore.is_nondominated(points[present], maximise=maximise, keep_weakly=True)
        times_on_front, times_present = times_on_front + front, times_present + present
    return np.asarray(times_on_front / times_present)

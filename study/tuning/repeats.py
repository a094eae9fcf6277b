"""`--seeds-per-trial`: a trial trained with several seeds, whose score is the mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.methods.method import TrialFunction, TrialResult
from study.records.columns import ACCURACY, EPOCH_ONLY, SPREAD, Row
from study.settings import MAX_SEED, Settings, Values
from study.training.loop import Report

STEP = 2_000_003
"""Between the seeds of one trial: far from what phases, teachers and fresh seeds add to theirs."""


def train_with_seeds(
    run: TrialFunction,
    values: Values,
    settings: Settings,
    data: Splits,
    shared: SharedWork | None,
    on_epoch: Report,
    progress: Progress,
    alive: Callable[[], None] = lambda: None,
    before: Row | None = None,
) -> TrialResult:
    """A trial as `TrialFunction` trains it, and again with as many further seeds as the study asks for.

    All start from the same shared work. The network, the file and the epochs are those of the first seed, so that a
    scheduler may stop the trial before it trains another time; every number of the result is the mean over seeds.

    Args:
        alive: is called after every epoch of the further seeds, which nobody else hears of.
        before: what a trial that goes on had reported.
    """
    reported: list[Row] = [before or {}]

    def heard(row: Row) -> None:
        reported.append(row)
        on_epoch(row)

    result = run(values, settings, data, shared, heard, progress)
    scores = [_score(reported, result)]
    for number in range(1, settings.search.seeds_per_trial or 1):
        seed = (settings.seed + number * STEP) % (MAX_SEED + 1)
        torch.manual_seed(seed)
        rows: list[Row] = []

        def quietly(row: Row, rows: list[Row] = rows) -> None:
            rows.append(row)
            alive()

        other = run(values, settings.changed(seed=seed), data, shared, quietly, Progress())
        scores.append(_score(rows, other))
    return result if len(scores) == 1 else replace(result, metrics=mean_score(scores))


def _score(rows: Sequence[Row], result: TrialResult) -> Row:
    """What a trial came to: its last epoch, and what it says at its end."""
    last: Row = {}
    for row in rows:
        last |= row
    return {k: v for k, v in {**last, **result.metrics}.items() if k not in EPOCH_ONLY}


def mean_score(scores: Sequence[Row]) -> Row:
    """The mean of every number, and the standard deviation of the accuracy; what is no number is that of the first."""
    mean: Row = {}
    for name, first in scores[0].items():
        values = [score.get(name) for score in scores]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        mean[name] = math.fsum(numbers) / len(numbers) if len(numbers) == len(scores) else first
    accuracies = [score[ACCURACY] for score in scores]
    return {**mean, SPREAD: statistics.stdev(accuracies)}

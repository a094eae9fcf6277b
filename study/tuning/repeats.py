"""`--seeds-per-trial`: a trial trained with several seeds, whose score is the mean.

What says something of the network that stays, such as its bytes and its sparsity, is that of the first seed. A mean of
it would belong to no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.methods.method import TrialFunction, TrialResult
from study.records.columns import ACCURACY, EPOCH_ONLY, FIRST_ACCURACY, SPREAD, Row
from study.settings import MAX_SEED, Settings, Values
from study.training.loop import Report

STEP = 2_000_003
"""Between the seeds of one trial: far from what phases, teachers and fresh seeds add to theirs."""
SCORES = (ACCURACY, "val_loss", "train_loss", "accuracy_drop", "unquantised_val_accuracy")
"""What is a mean over seeds: the luck of training is in it."""


def train_with_seeds(
    run: TrialFunction,
    values: Values,
    settings: Settings,
    data: Splits,
    shared: SharedWork | None,
    on_epoch: Report,
    progress: Progress,
    before: Row | None = None,
) -> TrialResult:
    """A trial as `TrialFunction` trains it, and again with as many further seeds as the study asks for.

    All start from the same shared work. The network, its file and sizes, and the epochs are those of the first seed, so
    that a scheduler may stop the trial before it trains another time. `SCORES` are means over the seeds.

    Args:
        progress: of the first seed; its `on_epoch` is called after the epochs of further seeds, too.
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
            progress.on_epoch()

        unscored = Progress(is_scored=lambda epoch: False, on_epoch=progress.on_epoch)
        other = run(values, settings.changed(seed=seed), data, shared, quietly, unscored)
        scores.append(_score(rows, other))
    return result if len(scores) == 1 else replace(result, metrics=mean_score(scores))


def _score(rows: Sequence[Row], result: TrialResult) -> Row:
    """What a trial came to: its last epoch, and what it says at its end."""
    last: Row = {}
    for row in rows:
        last |= row
    return {k: v for k, v in {**last, **result.metrics}.items() if k not in EPOCH_ONLY}


def mean_score(scores: Sequence[Row]) -> Row:
    """The mean of `SCORES`, and the standard deviation of the accuracy; all else is that of the first seed, and what
    its own accuracy is."""
    mean = {
        name: math.fsum(score[name] for score in scores) / len(scores)
        for name in SCORES
        if all(name in score for score in scores)
    }
    accuracies = [score[ACCURACY] for score in scores]
    return {**scores[0], **mean, FIRST_ACCURACY: accuracies[0], SPREAD: statistics.stdev(accuracies)}

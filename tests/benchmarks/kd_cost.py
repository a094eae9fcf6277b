"""What distilling costs over training the same student without a teacher: `python tests/benchmarks/kd_cost.py`.

Both are trained by the study's own loop, in turn, on one thread; the ratio is of the times of one pair. The teacher's
logits are computed once per study, so they are not part of a trial.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from study import data, kd
from study.settings import KD, resolve
from study.trainables import student_training, students_data

PAIRS = 9


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()  # of this process alone: other work on the machine does not count
    run()
    return time.process_time() - start


def compare(what: str, training: kd.Training, splits: data.Splits) -> None:
    """Print the ratio for one student: median of the pairs, with its quartiles."""
    targets = kd.Targets(torch.randn(1, len(splits.train), len(splits.classes)))
    hparams = kd.Hparams(training, alpha=0.9, temperature=4.0)

    def alone() -> object:
        return kd.fit_teacher(training, splits, lambda row: None)

    def distilled() -> object:
        return kd.fit(hparams, splits, targets, lambda row: None)

    alone(), distilled()
    ratios = [seconds(distilled) / seconds(alone) for _ in range(PAIRS)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{what}: distilled / alone = {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {PAIRS} pairs)")


def main() -> None:
    torch.set_num_threads(1)
    settings = resolve(KD())
    splits = students_data(settings, data.load("digits", None, size=32)[0])
    compare("embedded default (narrow MiniVGG, 100 images)", student_training(settings), splits)
    wide = dataclasses.replace(student_training(settings), options={}, batch_size=128, epochs=2)
    compare("full-width MiniVGG, batch 128", wide, data.load("digits", None, size=32)[0])


if __name__ == "__main__":
    main()

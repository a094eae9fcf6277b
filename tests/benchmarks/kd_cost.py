"""What distilling costs over training the same student without a teacher: `python tests/benchmarks/kd_cost.py`.

Both are trained by the study's own loop, in turn, on one thread; the ratio is of the times of one pair. The teacher's
logits are computed once per study, so they are not part of a trial.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from study.data import registry
from study.data.splits import Splits
from study.methods.kd import student
from study.methods.kd.method import students_data
from study.methods.kd.settings import KDSettings
from study.methods.kd.student import Hparams
from study.settings import resolve
from study.training import network
from study.training.distillation import Targets

PAIRS = 9


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()  # of this process alone: other work on the machine does not count
    run()
    return time.process_time() - start


def compare(what: str, hparams: Hparams, splits: Splits) -> None:
    """Print the ratio for one student: median of the pairs, with its quartiles."""
    targets = Targets(torch.randn(1, len(splits.train), len(splits.classes)))

    def alone() -> object:
        return network.fit_teacher(hparams.training, splits, lambda row: None)

    def distilled() -> object:
        return student.fit_student(hparams, splits, targets, lambda row: None)

    alone(), distilled()
    ratios = [seconds(distilled) / seconds(alone) for _ in range(PAIRS)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{what}: distilled / alone = {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {PAIRS} pairs)")


def embedded(s: KDSettings) -> Hparams:
    return Hparams(
        student=s.student, student_width=s.student_width or 1.0, epochs=s.epochs or 0, batch_size=s.batch_size or 0,
        learning_rate=s.learning_rate, weight_decay=s.weight_decay, augment=s.augment or "none",
        temperature=4.0, alpha=0.9,
    )  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    settings = resolve(KDSettings())
    splits = students_data(settings, registry.load("digits", None, size=32)[0])
    hparams = embedded(settings)
    compare("embedded default (narrow MiniVGG, 100 images)", hparams, splits)
    wide = dataclasses.replace(hparams, student_width=1.0, batch_size=128, epochs=2)
    compare("full-width MiniVGG, batch 128", wide, registry.load("digits", None, size=32)[0])


if __name__ == "__main__":
    main()

"""Distillation losses against each other on validation data, and then over fresh seeds, each tested once:

    python tests/benchmarks/kd_losses.py --data-dir DIR                        # MiniVGG under VGG-13, a quarter wide
    python tests/benchmarks/kd_losses.py --data-dir DIR --student resnet20 --teacher resnet56 \\
        --teacher-checkpoint resnet56.th --epochs 10

DIR is a folder of images, as for --dataset folder; `--dataset cifar100` takes DIR as its own. Every loss has the same
number of random configurations of temperature, alpha and its own weight, all with seed 0, and its best one is chosen
by validation accuracy. With each fresh seed split, teacher and students are new. Differences are paired by seed. Rows
are appended to --out as runs end, and a run that has its row is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mnist_compression import quiet, trained
from torch import Tensor

from analysis.stats.standard_error import half_width
from study.data import registry
from study.data.splits import Part, Splits
from study.methods.kd.student import Hparams, fit_student
from study.models import registry as models
from study.models.checkpoint_file import fit_state, read_state
from study.normalisation import parse
from study.settings import WITH_WIDTH
from study.training import distillation
from study.training.distillation_losses import SOFT_TERMS
from study.training.loop import evaluate
from study.training.network import Training

ALONE = "alone"


def configurations(loss: str, count: int) -> list[dict[str, float | str]]:
    """So many random configurations of a loss, the same at every call."""
    draw = random.Random(f"losses {loss}")
    values: list[dict[str, float | str]] = []
    for _ in range(count):
        value: dict[str, float | str] = {"loss": loss, "alpha": draw.uniform(0.1, 1.0)}
        value["temperature"] = math.exp(draw.uniform(0.0, math.log(20.0)))
        if loss == "dkd":
            value["dkd_beta"] = math.exp(draw.uniform(0.0, math.log(16.0)))
        if loss == "dist":
            value["dist_gamma"] = math.exp(draw.uniform(math.log(0.25), math.log(4.0)))
        values.append(value)
    return values


class Experiment:
    """Trains students under the teacher of a seed."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o, self.file = o, o.out / f"{o.student}-{o.teacher}.csv"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.seed_of: tuple[int, Splits, Part, Tensor] | None = None

    def width(self, network: str) -> dict[str, Any]:
        return {"width": self.o.width} if network in WITH_WIDTH and self.o.width != 1 else {}

    def taught(self, seed: int) -> tuple[Splits, Part, Tensor]:
        """Splits, test part and the teacher's logits of both views."""
        if self.seed_of is None or self.seed_of[0] != seed:
            o = self.o
            splits, test = registry.load(o.dataset, o.data_dir, split_seed=seed)
            epochs, initial = o.teacher_epochs, None
            if o.teacher_checkpoint:
                constants = parse(o.normalise)
                assert constants is not None
                splits = dataclasses.replace(splits, mean=constants.mean, std=constants.std)
                fresh = models.build(o.teacher, splits.shape, len(splits.classes))
                epochs, initial = 2, fit_state(read_state(o.teacher_checkpoint), fresh, f"--teacher {o.teacher}")
            rate = 3e-4 if initial else 2e-3
            training = Training(o.teacher, self.width(o.teacher), epochs, 64, rate, 5e-4, "flip", seed)
            teacher, _ = trained(training, splits, o.out / ".cache", initial)
            print(f"seed {seed}: teacher {evaluate(teacher, splits.validation, splits).accuracy:.2f} %", flush=True)
            self.seed_of = seed, splits, test, distillation.teacher_logits(teacher, splits.train, splits, "flip")
        return self.seed_of[1:]

    def row(self, stage: str, number: int, values: dict[str, Any], seed: int) -> dict[str, Any]:
        """The row of one student, trained now unless it was before. Only the second stage reads the test part."""
        name = values.get("loss", ALONE) if values["alpha"] else ALONE
        key = {"stage": stage, "name": name, "number": number, "seed": seed}
        done = pd.read_csv(self.file) if self.file.exists() else pd.DataFrame(columns=[*key])
        same = (done[[*key]] == pd.Series(key)).all(axis=1)
        if same.any():
            return {str(k): v for k, v in done[same].iloc[0].items()}
        o = self.o
        splits, test, logits = self.taught(seed)
        width = self.width(o.student).get("width", 1.0)
        hparams = Hparams(student=o.student, student_width=width, epochs=o.epochs, batch_size=64, augment="flip",
                          seed=seed, **values)  # fmt: skip
        model = fit_student(hparams, splits, distillation.Targets(logits), quiet)
        row = {**key, **dict.fromkeys(("temperature", "alpha", "dkd_beta", "dist_gamma"), ""), **values,
               "val_accuracy": evaluate(model, splits.validation, splits).accuracy,
               "test_accuracy": evaluate(model, test, splits).accuracy if stage == "test" else ""}  # fmt: skip
        row.pop("loss", None)
        with self.file.open("a", newline="") as handle:
            writer = csv.DictWriter(handle, list(row))
            if not len(done):
                writer.writeheader()
            writer.writerow(row)
        print(f"{stage} {name} {number}, seed {seed}: {row['val_accuracy']:.2f} % {row['test_accuracy']}", flush=True)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--student", default="minivgg")
    parser.add_argument("--teacher", default="vgg13")
    parser.add_argument("--teacher-checkpoint", type=Path)
    parser.add_argument("--normalise", default="imagenet", help="of the checkpoint")
    parser.add_argument("--width", type=float, default=0.25, help="of the networks that have one")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=20)
    parser.add_argument("--losses", nargs="*", default=[*SOFT_TERMS], choices=[*SOFT_TERMS])
    parser.add_argument("--configurations", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/kd-losses"))
    o = parser.parse_args()
    torch.set_num_threads(1)
    experiment, best = Experiment(o), {ALONE: {"alpha": 0.0}}
    for loss in o.losses:
        tried = configurations(loss, o.configurations)
        scores = [experiment.row("search", i, values, 0)["val_accuracy"] for i, values in enumerate(tried)]
        best[loss] = tried[max(range(len(tried)), key=scores.__getitem__)]
    accuracies = {name: {} for name in best}
    for seed in range(1, 1 + o.seeds):
        for name, values in best.items():
            accuracies[name][seed] = float(experiment.row("test", 0, values, seed)["test_accuracy"])
    table = pd.DataFrame(accuracies)
    print("| loss | temperature | alpha | its weight | test accuracy | paired with kd |\n" + "|---" * 6 + "|")
    for name, values in best.items():
        weight = values.get("dkd_beta", values.get("dist_gamma", ""))
        shown = [
            f"{v:.3g}" if isinstance(v, float) else "" for v in (values.get("temperature"), values["alpha"], weight)
        ]
        difference = table[name] - table["kd"]
        paired = "" if name == "kd" else f"{difference.mean():+.2f} ± {half_width(difference):.2f}"
        print(f"| {name} | {' | '.join(shown)} | {table[name].mean():.2f} ± {table[name].std():.2f} | {paired} |")


if __name__ == "__main__":
    main()

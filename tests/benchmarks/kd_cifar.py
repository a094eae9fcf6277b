"""Distillation on CIFAR-10 (JPEG) over seeds: VGG-13 teacher, MiniVGG alone, MiniVGG distilled; each tested once.

    python tests/benchmarks/kd_cifar.py --data-dir DIR --seeds 5 --device cuda       # DIR holds cifar10-jpeg/
    python tests/benchmarks/kd_cifar.py --data-dir DIR --width 0.25 --epochs 15 --teacher-epochs 10 --at-once 2

A seed has its own split, teacher and students. Images are mirrored at random; with --original also without that, at
temperature 13 and alpha 0.8, as in the experiment that this project reproduces. On a GPU the seeds are trained side by
side in one process, each in a thread with a stream of its own, but teachers one after another, since one fills the GPU.
What is not done after --seconds is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import math
import queue
import statistics
import threading
import time
from pathlib import Path

import torch

from study.data import registry
from study.data.splits import Part, Splits
from study.methods.kd.student import Hparams, fit_student
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate
from study.training.network import Training, fit_teacher

Networks = dict[str, dict[int, float]]
"""What was trained → seed → test accuracy, %."""


class Late(Exception):
    """Time is up."""


class Experiment:
    def __init__(self, o: argparse.Namespace) -> None:
        self.o, self.began = o, time.perf_counter()
        self.tested: Networks = {}
        self.lock, self.teaching = threading.Lock(), threading.Lock()

    def training(self, network: str, epochs: int, augment: str, seed: int) -> Training:
        options = {} if self.o.width == 1 else {"width": self.o.width}
        return Training(network, options, epochs, self.o.batch_size, 2e-3, 5e-4, augment, seed, self.o.precision)

    def on_epoch(self, row: dict) -> None:
        if time.perf_counter() - self.began > self.o.seconds:
            raise Late

    def test(self, name: str, seed: int, model: torch.nn.Module, splits: Splits, test: Part) -> None:
        accuracy = evaluate(model, test, splits).accuracy
        with self.lock:
            self.tested.setdefault(name, {})[seed] = accuracy
            print(f"{time.perf_counter() - self.began:6.0f} s  seed {seed}, {name}: {accuracy:.2f} %", flush=True)

    def seed(self, seed: int, augment: str, temperature: float, alpha: float) -> None:
        """One teacher and two students on a split of their own."""
        o, suffix = self.o, "" if augment == "flip" else ", original setting"
        splits, test = registry.load("folder", o.data_dir / "cifar10-jpeg", split_seed=seed)
        splits, test = splits.to(o.device), test.to(o.device)
        training = self.training("vgg13", o.teacher_epochs, augment, seed)
        with self.teaching:
            teacher = fit_teacher(training, splits, self.on_epoch)
        self.test("teacher" + suffix, seed, teacher, splits, test)
        targets = Targets(distillation.teacher_logits(teacher, splits.train, splits, augment))
        alone = Hparams(student="minivgg", student_width=o.width, alpha=0.0, epochs=o.epochs, batch_size=o.batch_size,
                        augment=augment, seed=seed, precision=o.precision)  # fmt: skip
        distilled = dataclasses.replace(alone, alpha=alpha, temperature=temperature)
        for name, hparams in (
            ("student alone", alone),
            (f"student distilled, T {temperature:g}, alpha {alpha:g}", distilled),
        ):
            model = fit_student(hparams, splits, targets, self.on_epoch)
            self.test(name + suffix, seed, model, splits, test)

    def work(self, tasks: queue.SimpleQueue) -> None:
        cuda = self.o.device == "cuda"
        with torch.cuda.stream(torch.cuda.Stream()) if cuda else contextlib.nullcontext():
            while True:
                try:
                    self.seed(*tasks.get_nowait())
                except (queue.Empty, Late):
                    return

    def table(self) -> str:
        lines = ["| | seeds | test accuracy, % | paired with alone |", "|---|---|---|---|"]
        for name, found in self.tested.items():
            values = list(found.values())
            cells = [name, str(len(values)), spread(values), ""]
            if "distilled" in name:
                alone = self.tested.get("student alone" + self._suffix(name), {})
                cells[3] = spread([found[s] - alone[s] for s in found if s in alone])
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    @staticmethod
    def _suffix(name: str) -> str:
        return ", original setting" if name.endswith(", original setting") else ""


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return ""
    off = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.2f} ± {off:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=75)
    parser.add_argument("--teacher-epochs", type=int, default=75)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=5.0)
    parser.add_argument("--alpha", type=float, default=0.568)
    parser.add_argument("--original", type=int, default=0, help="seeds in the setting of the original experiment")
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--at-once", type=int, default=5, help="seeds at one time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one operation")
    parser.add_argument("--seconds", type=float, default=math.inf)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    registry._READERS["folder"] = functools.cache(
        registry._READERS["folder"]
    )  # decode the images once, not for every split
    registry.load("folder", o.data_dir / "cifar10-jpeg")
    experiment, tasks = Experiment(o), queue.SimpleQueue()
    for seed in range(o.first_seed, o.first_seed + o.seeds):
        tasks.put((seed, "flip", o.temperature, o.alpha))
    for seed in range(o.first_seed, o.first_seed + o.original):
        tasks.put((seed, "none", 13.0, 0.8))
    workers = [threading.Thread(target=experiment.work, args=(tasks,)) for _ in range(o.at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(experiment.table())


if __name__ == "__main__":
    main()

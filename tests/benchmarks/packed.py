"""Would packing trials help on this machine? K networks in one batched program against the same K one after another:

    python tests/benchmarks/packed.py                # --device cuda, --cases steps, trials or students

Steps: a step is forward, cross-entropy, backward and fused Adam; packed, the weights lie on a leading axis
(`torch.func`), so that matrix products become `bmm` and convolutions grouped ones. The mixture prior, which packing
cannot speed up on a CPU, is left out: packing looks better here than it would be in a study.

Trials: complete trials of the hard variant of soft weight-sharing on digits, k-means and scores of every epoch
included. On a CPU they are timed in CPU seconds of their one thread, which other processes hardly change.

Students: complete trials of kd as it is on digits, of MiniVGG of a quarter of the width under stored logits;
and the same pack where half of its members are stopped at a quarter of the epochs, and a quarter of them at half.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.data import registry as data_registry
from study.data.splits import Splits, subset_per_class
from study.methods.common import packed_pinning, pinning
from study.methods.common.network_stack import Stack
from study.methods.common.packed_training import Member
from study.methods.kd import packed as packed_students
from study.methods.kd.student import Hparams as Student
from study.methods.kd.student import fit_student
from study.methods.sws import hard
from study.models import registry
from study.training.distillation import Targets
from study.tuning.scored_epochs import scored_epochs

CASES: list[tuple[str, tuple[int, int, int], int, dict[str, Any]]] = [
    ("lenet_300_100", (1, 8, 8), 32, {}),
    ("lenet_300_100", (1, 28, 28), 128, {}),
    ("minivgg", (1, 32, 32), 32, {"width": 0.25}),
    ("minivgg", (3, 32, 32), 128, {}),
]
"""Network, image, batch size, options: those of sws on digits and on MNIST, and of kd on digits and on CIFAR-10."""


def one_after_another(networks: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimisers = [torch.optim.AdamW(n.parameters(), 1e-3, fused=True) for n in networks]

    def step() -> None:
        for network, optimiser in zip(networks, optimisers, strict=True):
            optimiser.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimiser.step()

    return step


def packed(networks: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    stack = Stack(networks)
    optimiser = torch.optim.AdamW(stack.parameters(), 1e-3, fused=True)
    every = labels.repeat(len(networks))

    def step() -> None:
        optimiser.zero_grad()
        logits = stack(images)
        F.cross_entropy(logits.flatten(0, 1), every, reduction="sum").div(len(labels)).backward()
        optimiser.step()

    return step


def milliseconds(step: Callable[[], None], device: str, steps: int = 5) -> float:
    """Of one step; median of three runs, after one that does not count."""
    times = []
    for _ in range(4):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began) / steps)
    return statistics.median(times[1:])


def trial_seconds(size: int, batch: int, count: int, epochs: int, device: str) -> tuple[float, float]:
    """Of so many trials one after another, and of the same trials packed.

    Args:
        size: of the side of an image, in pixels.
    """
    data = data_registry.load("digits", None, size=size)[0].to(device)
    network = registry.build("lenet_300_100", data.shape, len(data.classes)).to(device)
    hparams = [
        hard.Hparams(density=0.01 * 2**k, components=4 + 4 * k, epochs=epochs, batch_size=batch, seed=k)
        for k in range(count)
    ]

    def silent(row: object) -> None:
        pass

    now = time.process_time if device == "cpu" else time.perf_counter
    start = now()
    for h in hparams:
        pinning.fit(copy.deepcopy(network), h, data, silent)
    between = now()
    members = [Member(h, silent) for h in hparams]
    results = packed_pinning.fit([copy.deepcopy(network) for _ in members], members, data)
    end = now()
    assert not any(isinstance(result, Exception) for result in results)
    return between - start, end - between


class Stopped(Exception):
    """As a trial that a scheduler stops."""


def stopping(after: int) -> Callable[[dict[str, Any]], None]:
    """Stops a member after this epoch."""

    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise Stopped

    return on_epoch


def student_seconds(data: Splits, targets: Targets, hparams: list[Student], device: str) -> tuple[float, ...]:
    """Of students one after another, of the same ones packed, and of the pack under halving."""
    now = time.process_time if device == "cpu" else time.perf_counter
    epochs, last = hparams[0].epochs, len(hparams) - 1
    halved = [epochs // 4 if 2 * k < len(hparams) else epochs // 2 if 4 * (last - k) >= len(hparams) else 0
              for k in range(len(hparams))]  # fmt: skip
    is_scored = scored_epochs(epochs, len(data.train), len(data.validation))
    times = [now()]
    for h in hparams:
        fit_student(h, data, targets, lambda row: None, Progress(is_scored=is_scored))
    times.append(now())
    for stops in ([0] * len(hparams), halved):
        members = [Member(h, stopping(after)) for h, after in zip(hparams, stops, strict=True)]
        ends = packed_students.fit(members, data, targets, is_scored)
        assert [isinstance(end, Stopped) for end in ends] == [after > 0 for after in stops]
        times.append(now())
    return tuple(after - before for before, after in zip(times, times[1:], strict=False))


def print_steps(device: str) -> None:
    print("| network | image | batch | networks | one after another, ms | packed, ms | gain |\n" + "|---" * 7 + "|")
    for name, shape, batch, options in CASES:
        for count in (4, 8):
            networks = [registry.build(name, shape, 10, **options) for _ in range(count)]
            networks = [n.to(device).to(memory_format=torch.channels_last) for n in networks]
            images = torch.randn(batch, *shape, device=device).to(memory_format=torch.channels_last)
            labels = torch.randint(0, 10, (batch,), device=device)
            before, after = (milliseconds(f(networks, images, labels), device) for f in (one_after_another, packed))
            print(f"| {name} | {shape} | {batch} | {count} | {before:.1f} | {after:.1f} | {before / after:.2f} × |")


def print_trials(device: str, epochs: int = 10) -> None:
    print("| image | batch | trials | one after another, s | packed, s | gain |\n" + "|---" * 6 + "|")
    for size, batch in ((8, 32), (28, 128)):
        before, after = trial_seconds(size, batch, 4, epochs, device)
        print(f"| {size}×{size} | {batch} | 4 | {before:.1f} | {after:.1f} | {before / after:.2f} × |")


def print_students(device: str, epochs: int) -> None:
    whole = data_registry.load("digits", None, size=32)[0]
    data = dataclasses.replace(whole, train=subset_per_class(whole.train, 10, 0)).to(device)
    targets = Targets(torch.randn(1, len(data.train), 10, device=device))
    print(f"| students of {epochs} epochs | one after another, s | packed, s | gain | packed and halved, s |\n"
          + "|---" * 5 + "|")  # fmt: skip
    for count in (4, 8):
        hparams = [
            Student(student="minivgg", student_width=0.25, temperature=1 + 2.0 * k, alpha=0.1 * k, epochs=epochs,
                    batch_size=32)
            for k in range(count)
        ]  # fmt: skip
        alone, packed, halved = student_seconds(data, targets, hparams, device)
        print(f"| {count} | {alone:.1f} | {packed:.1f} | {alone / packed:.2f} × | {halved:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cases", default="steps,trials,students")
    parser.add_argument("--epochs", type=int, default=40, help="of students")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "steps" in options.cases:
        print_steps(options.device)
    if "trials" in options.cases:
        print_trials(options.device)
    if "students" in options.cases:
        print_students(options.device, options.epochs)


if __name__ == "__main__":
    main()

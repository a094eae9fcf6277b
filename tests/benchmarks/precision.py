"""What bfloat16 saves on this machine's CPU, and whether accuracy holds: the same seeds trained in both.

    python tests/benchmarks/precision.py                          # digits; --data-dir DIR adds LeNet-5 on DIR/MNIST

A step is forward, cross-entropy, backward and fused AdamW on one thread; its CPU time is the median of turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from study.data.registry import load
from study.data.splits import Splits, subset_per_class
from study.models import registry
from study.training import network
from study.training.loop import evaluate
from study.training.network import Training
from study.training.precision import PRECISIONS, has_bfloat16, logits

CASES: list[tuple[str, tuple[int, int, int], int, dict[str, Any]]] = [
    ("minivgg", (1, 32, 32), 32, {"width": 0.25}),
    ("lenet5", (1, 28, 28), 256, {}),
    ("minivgg", (3, 32, 32), 128, {"width": 0.25}),
    ("minivgg", (3, 32, 32), 128, {}),
    ("vgg13", (3, 32, 32), 128, {"width": 0.25}),
    ("vgg13", (3, 32, 32), 128, {}),
]
"""Network, image, batch size, options: those of kd on digits, sws on MNIST, and kd on CIFAR-10."""


def steps() -> None:
    print("| network, images, batch | float32, ms | bfloat16, ms | float32 / bfloat16 |\n|---|---|---|---|")
    for name, shape, batch, options in CASES:
        model = registry.build(name, shape, 10, **options).to(memory_format=torch.channels_last).train()
        images, labels = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
        optimiser = torch.optim.AdamW(model.parameters(), fused=True)

        def step(precision: str, of: Callable[..., Any] = optimiser.step, model: Any = model, x: Any = images,
                 y: Any = labels) -> float:  # fmt: skip
            began = time.process_time()
            for _ in range(3):
                model.zero_grad()
                F.cross_entropy(logits(model, x, precision), y).backward()
                of()
            return 1000 * (time.process_time() - began) / 3

        turns = [[step(p) for p in PRECISIONS] for _ in range(6)][1:]
        plain, half = (statistics.median(column) for column in zip(*turns, strict=True))
        title = f"{name}{options or ''}, {'×'.join(map(str, shape))}, {batch}"
        print(f"| {title} | {plain:.1f} | {half:.1f} | {plain / half:.2f} |", flush=True)


def paired(title: str, splits: Splits, training: Training, seeds: int) -> None:
    """Validation accuracy after training in each, seed by seed."""
    found = []
    for seed in range(seeds):
        pair = []
        for precision in PRECISIONS:
            how = Training(**{**vars(training), "seed": seed, "precision": precision})
            pair.append(
                evaluate(network.fit_teacher(how, splits, lambda row: None), splits.validation, splits).accuracy
            )
        found.append(pair)
    plain, half = zip(*found, strict=True)
    off = [b - a for a, b in found]
    cells = [f"{statistics.mean(v):.2f} ± {statistics.stdev(v):.2f}" for v in (plain, half, off)]
    print(f"| {title} | {seeds} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    o = parser.parse_args()
    torch.set_num_threads(1)
    print(f"This CPU {'multiplies' if has_bfloat16('cpu') else 'does not multiply'} in bfloat16.\n")
    steps()
    print("\n| trained | seeds | float32, validation % | bfloat16 | difference, paired |\n" + "|---" * 5 + "|")
    digits = load("digits", None, size=32)[0]
    few = Splits(**{**vars(digits), "train": subset_per_class(digits.train, 10, 0)})
    paired("MiniVGG of a quarter of the width, 100 digits, 40 epochs", few,
           Training("minivgg", {"width": 0.25}, 40, 32), o.seeds)  # fmt: skip
    paired("the same, all digits, 10 epochs", digits, Training("minivgg", {"width": 0.25}, 10, 32), o.seeds)
    if o.data_dir:
        mnist = load("mnist", o.data_dir)[0]
        paired("LeNet-5, MNIST, 2 epochs", mnist, Training("lenet5", {}, 2, 256, 1e-3, 0.0), o.seeds // 2)


if __name__ == "__main__":
    main()

"""Would packing trials help on this machine? K networks in one batched program against the same K one after another:

    python tests/benchmarks/packed.py                # --device cuda

A step is forward, cross-entropy, backward and fused Adam; packed, the weights lie on a leading axis (`torch.func`), so
that matrix products become `bmm` and convolutions grouped ones. The mixture prior, which packing cannot speed up on a
CPU, is left out: packing looks better here than it would be in a study.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.methods.common.network_stack import Stack
from study.models import registry

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    device = parser.parse_args().device
    torch.set_num_threads(1)
    print("| network | image | batch | networks | one after another, ms | packed, ms | gain |\n" + "|---" * 7 + "|")
    for name, shape, batch, options in CASES:
        for count in (4, 8):
            networks = [registry.build(name, shape, 10, **options) for _ in range(count)]
            networks = [n.to(device).to(memory_format=torch.channels_last) for n in networks]
            images = torch.randn(batch, *shape, device=device).to(memory_format=torch.channels_last)
            labels = torch.randint(0, 10, (batch,), device=device)
            before, after = (milliseconds(f(networks, images, labels), device) for f in (one_after_another, packed))
            print(f"| {name} | {shape} | {batch} | {count} | {before:.1f} | {after:.1f} | {before / after:.2f} × |")


if __name__ == "__main__":
    main()

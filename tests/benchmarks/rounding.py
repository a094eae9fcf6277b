"""How far rounding carries a trial of soft weight-sharing: alone, from weights whose last bit differs, and packed.

    python tests/benchmarks/rounding.py --data-dir DIR      # LeNet-300-100, MNIST: three quarters of an hour
    python tests/benchmarks/rounding.py --data-dir DIR --device cuda

What a trial in a pack differs from the same trial alone by is rounding if a difference in the last bit of every weight
that it begins with carries it as far.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import gpu
import torch
from torch import nn

from study.data import registry
from study.data.splits import Splits
from study.methods.common.packed_training import Member
from study.methods.sws import packed
from study.methods.sws.weight_sharing import Hparams

Metrics = dict[str, float] | None
"""Of a trial; None if it failed."""


def last_bit(network: nn.Module) -> nn.Module:
    """A copy whose every parameter is the next number up or down, at random."""
    found, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in found.parameters():
            up = torch.rand(p.shape, generator=generator).to(p.device) < 0.5
            p.copy_(torch.nextafter(p, torch.where(up, torch.inf, -torch.inf)))
    return found


def together(network: nn.Module, hparams: list[Hparams], splits: Splits) -> list[Metrics]:
    members = [Member(h, lambda row: None) for h in hparams]
    found = packed.fit([copy.deepcopy(network) for _ in members], members, splits)
    return [None if isinstance(left, Exception) else left[2] for left in found]


def cells(metrics: Metrics) -> str:
    return f"{metrics['val_accuracy']:.2f}, {metrics['sparsity']:.2f}" if metrics else "failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="holds MNIST/; digits without it")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--codebook-epochs", type=int, default=4)
    o = parser.parse_args()
    torch.set_num_threads(1)
    splits = registry.load("mnist" if o.data_dir else "digits", o.data_dir)[0].to(torch.device(o.device))
    network = gpu.pretrained(splits)
    hparams = gpu.configurations(o.trials, o.epochs, o.codebook_epochs)
    other = last_bit(network)
    print("| τ | components | 1 − π₀ | alone: validation accuracy, sparsity | last bit | packed |\n" + "|---" * 6 + "|")
    packs = together(network, hparams, splits)
    for h, pack in zip(hparams, packs, strict=True):
        row = [cells(gpu.alone(network, h, splits)), cells(gpu.alone(other, h, splits)), cells(pack)]
        print(f"| {h.tau:.4f} | {h.components} | {1 - h.pi_zero:.4f} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

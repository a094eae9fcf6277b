"""Compression of convolutional networks with batch-norm over seeds, sws's four recipes at the same densities:

    python tests/benchmarks/cifar_compression.py --data-dir DIR --network minivgg
    python tests/benchmarks/cifar_compression.py --data-dir DIR --network resnet20 --checkpoint resnet20.th

DIR is a folder of images, as for --dataset folder. A MiniVGG of a quarter of the width is trained from scratch; a
ResNet-20 that others trained is fine-tuned. Both are their own teachers. With each seed split, batches and training are
new. Each run writes the compressed file, decodes it, and evaluates the decoded network on the test part once. Rows are
appended to --out as runs end, and a run that has its row is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import functools
from pathlib import Path
from typing import Any

import torch
from mnist_compression import SCORES, compressed, repeat, trained

from study.data import registry
from study.models import registry as models
from study.models.checkpoint_file import fit_state, read_state
from study.normalisation import parse
from study.training import distillation
from study.training.network import Training

PRETRAINING = {
    "minivgg": Training("minivgg", {"width": 0.25}, 30, 64, 2e-3, 5e-4, "flip"),
    "resnet20": Training("resnet20", {}, 3, 64, 3e-4, 0.0, "flip"),
}
DENSITIES = {"minivgg": (0.3, 0.15, 0.075), "resnet20": (0.6, 0.4, 0.25)}
COMMON = {
    "minivgg": {"epochs": 16, "weight_rate": 1e-3, "batch_size": 64},
    "resnet20": {"epochs": 6, "weight_rate": 5e-4, "batch_size": 64},
}
CODEBOOK_EPOCHS = 2
"""With k-means, of the epochs the last ones, in which the codebook alone is trained."""


def variants(network: str) -> dict[str, dict[str, Any]]:
    """Name → values of each configuration."""
    table: dict[str, dict[str, Any]] = {}
    common = {**COMMON[network], "augment": "flip", "teacher": "self"}
    afterwards = {"quantised_training": False, "epochs": common["epochs"] - CODEBOOK_EPOCHS,
                  "codebook_epochs": CODEBOOK_EPOCHS, "codebook_size": 16}  # fmt: skip
    for density in DENSITIES[network]:
        for score, power in SCORES.items():
            size = {**common, "density": density, "score_power": power}
            at = f"{100 * density:g} %"
            table[f"{score}, k-means, {at}"] = {"magnitude": True, **size, **afterwards}
            table[f"{score}, quantised training, {at}"] = {"hard": True, **size, "components": 16}
    return table


def run(o: argparse.Namespace, values: dict[str, Any], seed: int) -> dict[str, Any]:
    """One network: trained or fine-tuned, compressed, encoded, decoded, tested."""
    splits, test = registry.load("folder", o.data_dir, split_seed=seed)
    if o.checkpoint and (constants := parse("imagenet")):
        splits = dataclasses.replace(splits, mean=constants.mean, std=constants.std)
    training, initial = dataclasses.replace(PRETRAINING[o.network], seed=seed), None
    if o.checkpoint:
        fresh = models.build(o.network, splits.shape, len(splits.classes))
        initial = fit_state(read_state(o.checkpoint), fresh, f"--network {o.network}")
    model, _ = trained(training, splits, o.out / ".cache", initial)
    values = {name: value for name, value in values.items() if name != "teacher"}
    values |= {"temperature": 4.0, "alpha": 0.9}
    targets = distillation.Targets(distillation.teacher_logits(model, splits.train, splits, "flip"))
    return compressed(model, training, values, splits, test, targets, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--network", choices=sorted(PRETRAINING), default="minivgg")
    parser.add_argument("--checkpoint", type=Path, help="weights that others trained")
    parser.add_argument("--only", nargs="*", default=["*"], help="names of configurations; * stands for anything")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/cifar-compression"))
    o = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {n: v for n, v in variants(o.network).items() if any(fnmatch.fnmatchcase(n, p) for p in o.only)}
    seeds = range(o.first_seed, o.first_seed + o.seeds)
    repeat(functools.partial(run, o), chosen, seeds, o.out / f"{o.network}.csv")


if __name__ == "__main__":
    main()

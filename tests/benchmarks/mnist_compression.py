"""Soft weight-sharing of LeNets on MNIST over seeds, and what each of its improvements does there:

    python tests/benchmarks/mnist_compression.py --data-dir DIR                      # LeNet-300-100, 5 seeds
    python tests/benchmarks/mnist_compression.py --data-dir DIR --network lenet5
    python tests/benchmarks/mnist_compression.py --data-dir DIR --seeds 2 --variants all
    python tests/benchmarks/mnist_compression.py --data-dir DIR --variants hard      # with magnitude pruning
    python tests/benchmarks/mnist_compression.py --data-dir DIR --variants hard --only "*, 1 %" --first-seed 3

The configurations of soft weight-sharing were chosen by validation accuracy at their size; `hard` has four recipes, of
magnitude's score or Fisher's and of k-means or quantised training, each at the same densities. Each run trains on the
training part with one thread, writes the compressed file, decodes it, and evaluates the decoded network on the test
part once. Rows are appended to --out as runs end, and a run that has its row is not repeated, so the command continues
where it was stopped. Commands that run at the same time need an --out each.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import fnmatch
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork, get_or_compute
from study.compression import compressed_file
from study.compression.quantised_weights import shared_parameters
from study.compression.size_metrics import ratio
from study.data import registry
from study.data.fingerprint import identity
from study.data.splits import Part, Splits
from study.methods.common import pinning
from study.methods.magnitude import pruning
from study.methods.sws import hard, weight_sharing
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate
from study.training.network import Training, fit_teacher, load_network, state_arrays

PRETRAINING = {
    "lenet_300_100": Training("lenet_300_100", {}, 20, 256, 1e-3, 0.0),
    # Also the teacher of the other.
    "lenet5": Training("lenet5", {}, 12, 128, 2e-3, 5e-4),
}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # "accurate" is for the sparsity that costs (almost) nothing, "small" for the end where accuracy begins to go.
    "lenet_300_100": {
        "accurate": dict(tau=0.3, components=20, pi_zero=0.9997, epochs=30, retrain_epochs=4, teacher="lenet5"),
        "small": dict(tau=0.6, components=20, pi_zero=0.9997, epochs=30, retrain_epochs=4, teacher="lenet5"),
    },
    "lenet5": {"accurate": dict(tau=0.25, components=16, pi_zero=0.9997, epochs=15, retrain_epochs=4, teacher="self")},
}
CHANGES: dict[str, dict[str, Any]] = {
    "no codebook training": {"codebook_epochs": 0},
    "no retraining of survivors": {"retrain_epochs": 0},
    "annealed tau": {"anneal": 0.5},
    "learned pi_zero": {"pi_zero_strength": 1e5},
    "merging": {"merge": 1.0},
    "layer scales": {"layer_scales": True},
    "teacher: itself": {"teacher": "self"},
    # Without the teacher's larger gradients the same sparsity needs a smaller tau.
    "no teacher": {"teacher": "", "tau": 0.06},
}
KEPT = {"lenet_300_100": 0.018, "lenet5": 0.01}
DENSITIES = {"lenet_300_100": (0.0155, 0.01, 0.0072), "lenet5": (0.01, 0.006, 0.004)}
SCORES = {"magnitude's score": 0.0, "Fisher's score": 1.0}
EPOCHS = {"lenet_300_100": 38, "lenet5": 13}
"""Of each of the four recipes: with k-means the last four train the codebook."""
TEACHING = {"temperature": 4.0, "alpha": 0.9}


def quiet(row: dict[str, Any]) -> None:
    """Takes an epoch's row, and leaves it."""


def trained(
    training: Training, splits: Splits, folder: Path, initial: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, Tensor]:
    """A network trained on the labels, from the cache if it was before, and its logits of the training part."""

    def compute() -> SharedWork:
        model = fit_teacher(training, splits, quiet, initial=initial)
        return SharedWork({**state_arrays(model), **distillation.stored_logits(model, splits.train, splits, "none")})

    key = {"training": training.key(), "data": identity(splits)}
    kept, _ = get_or_compute(folder, training.network, key, compute)
    return load_network(kept.weights().tensors(), training, splits), kept.tensors()[LOGITS]


def compressed(
    model: nn.Module,
    training: Training,
    values: dict[str, Any],
    splits: Splits,
    test: Part,
    targets: Targets,
    seed: int,
) -> dict[str, Any]:
    """The row of one network, compressed as `values` say, encoded, decoded and tested."""
    before, values = evaluate(model, test, splits).accuracy, dict(values)
    start, cpu = time.perf_counter(), time.process_time()
    if values.pop("magnitude", False):
        quantised, metrics = pruning.fit(model, pruning.Hparams(seed=seed, **values), splits, quiet, targets)
    elif values.pop("hard", False):
        quantised, metrics = pinning.fit(model, hard.Hparams(seed=seed, **values), splits, quiet, targets)
    else:
        quantised, metrics = weight_sharing.fit(
            model, weight_sharing.Hparams(seed=seed, **values), splits, quiet, targets
        )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    file = compressed_file.encode(
        model, quantised, compressed_file.network_of(training.network, training.options, splits)
    )
    decoded = compressed_file.decode(file)
    return {
        "seed": seed,
        "uncompressed": before,
        "val_accuracy": metrics["val_accuracy"],
        "test_accuracy": evaluate(decoded.model, test, splits).accuracy,
        "val_loss": metrics["val_loss"],
        "sparsity": metrics["sparsity"],
        "file_bytes": len(file),
        "compression_ratio": ratio(shared_parameters(model), len(file)),
        "entropy_ratio": metrics["entropy_ratio"],
        "values": metrics["codebook_values_used"],
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def run(network: str, values: dict[str, Any], seed: int, folder: Path, data_dir: Path) -> dict[str, Any]:
    """One network: pretrained, compressed, encoded, decoded, tested."""
    splits, test = registry.load("mnist", data_dir, split_seed=seed)
    training = dataclasses.replace(PRETRAINING[network], seed=seed)
    model, logits = trained(training, splits, folder)
    values = dict(values)
    teacher, taught_by = values.pop("teacher", ""), model
    if teacher:
        values = {**TEACHING, **values}
        if teacher != "self":
            taught_by, logits = trained(dataclasses.replace(PRETRAINING[teacher], seed=seed), splits, folder)
    if values.get("augment", "none") != "none":
        logits = distillation.teacher_logits(taught_by, splits.train, splits, values["augment"])
    return compressed(model, training, values, splits, test, Targets(logits), seed)


def hard_variants(network: str) -> dict[str, dict[str, Any]]:
    """The four recipes at every density, and the hard variant without shifts, with no teacher, and taught by itself."""
    common = {"epochs": EPOCHS[network], "ramp": 0.45, "ramp_power": 8.0, "weight_rate": 3e-3, "augment": "shift1",
              "teacher": RECIPES[network]["accurate"]["teacher"]}  # fmt: skip
    afterwards = {"quantised_training": False, "epochs": EPOCHS[network] - 4, "codebook_epochs": 4}
    table: dict[str, dict[str, Any]] = {}
    for density in DENSITIES[network]:
        for score, power in SCORES.items():
            size = {**common, "density": density, "score_power": power}
            at = f"{100 * density:g} %"
            table[f"{score}, k-means, {at}"] = {"magnitude": True, **size, **afterwards, "codebook_size": 8}
            table[f"{score}, quantised training, {at}"] = {"hard": True, **size, "components": 8}
    middle = table[f"Fisher's score, quantised training, {100 * DENSITIES[network][1]:g} %"]
    table["hard, no shifts"] = {**middle, "augment": "none"}
    table["hard, no teacher"] = {**middle, "teacher": ""}
    table["hard, taught by itself"] = {**middle, "teacher": "self"}
    return table


def variants(network: str, wanted: str) -> dict[str, dict[str, Any]]:
    """Name → values of each configuration: the recipes alone, one of them with each change, or `hard_variants`."""
    recipes = RECIPES[network]
    if wanted == "hard":
        return hard_variants(network)
    if wanted == "recipes":
        return recipes
    name, base = next(reversed(recipes.items()))
    changed = {change: {**base, **values} for change, values in CHANGES.items()}
    # The baseline keeps as many weights as the recipe does, and has as many values, epochs and the same rate.
    pruned = {"density": KEPT[network], "codebook_size": base["components"], "magnitude": True,
              "epochs": base["epochs"] + base["retrain_epochs"],
              "weight_rate": weight_sharing.Hparams.weight_rate}  # fmt: skip
    taught = {**pruned, "teacher": base["teacher"]}
    return {name: base, **changed, "magnitude pruning": pruned, "magnitude pruning, teacher": taught,
            "magnitude pruning, teacher, two thirds": {**taught, "density": 2 * KEPT[network] / 3}}  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Mean ± standard deviation over seeds, as Markdown."""
    shown = {"val_accuracy": 2, "test_accuracy": 2, "sparsity": 2, "compression_ratio": 0, "values": 0, "seconds": 0}
    lines = ["| configuration | seeds | " + " | ".join(shown) + " |", "|---" * (len(shown) + 2) + "|"]
    for name, group in rows.groupby("variant", sort=False):
        cells = [f"{group[c].mean():.{d}f} ± {group[c].std():.{d}f}" if len(group) > 1 else f"{group[c].mean():.{d}f}"
                 for c, d in shown.items()]  # fmt: skip
        lines.append(f"| {name} | {len(group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def repeat(
    run: Callable[[dict[str, Any], int], dict[str, Any]], chosen: dict[str, dict[str, Any]], seeds: range, file: Path
) -> None:
    """Run every configuration with every seed that has no row in `file` yet, and print the table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name, values in chosen.items():
            done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["variant", "seed"])
            if ((done["variant"] == name) & (done["seed"] == seed)).any():
                continue
            row = {"variant": name, "values_given": str(values), **run(values, seed)}
            with file.open("a", newline="") as handle:
                writer = csv.DictWriter(handle, list(row))
                if not len(done):
                    writer.writeheader()
                writer.writerow(row)
            print(f"{name}, seed {seed}: {row['test_accuracy']:.2f} % at {row['sparsity']:.2f} %, "
                  f"{row['compression_ratio']:.0f} x, {row['seconds']:.0f} s", flush=True)  # fmt: skip
    print(table(pd.read_csv(file)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--network", choices=sorted(RECIPES), default="lenet_300_100")
    parser.add_argument("--variants", choices=["recipes", "all", "hard"], default="recipes")
    parser.add_argument("--only", nargs="*", default=["*"], help="names of configurations; * stands for anything")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/mnist-compression"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.out / (options.network + ("-hard" if options.variants == "hard" else "") + ".csv")
    chosen = {
        name: values
        for name, values in variants(options.network, options.variants).items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.only)
    }
    if not chosen:
        parser.error(f"--only: none of {', '.join(variants(options.network, options.variants))}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)

    def one(values: dict[str, Any], seed: int) -> dict[str, Any]:
        return run(options.network, values, seed, options.out / ".cache", options.data_dir)

    repeat(one, chosen, seeds, file)


if __name__ == "__main__":
    main()

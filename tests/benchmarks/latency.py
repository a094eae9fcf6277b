"""What compressed networks cost when they run: size after exact shrinking, and latency next to the dense network's.

    python tests/benchmarks/latency.py --cases lenet --data-dir DIR     # LeNet-300-100 on MNIST; DIR holds MNIST/
    python tests/benchmarks/latency.py --cases minivgg                  # MiniVGG on digits

Each network is trained, shrunk, exported as ONNX and run by onnxruntime on one thread, in turn with the network that it
came from. Accuracy is on the test part.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from study.compression import latency
from study.compression.deployment import onnx_proto
from study.compression.latency import multiply_adds
from study.compression.shrinking import shrink_with_report
from study.data import registry
from study.data.splits import Part, Splits
from study.methods.kd.student import Hparams as StudentHparams
from study.methods.kd.student import fit_student
from study.methods.magnitude import pruning
from study.methods.sws import weight_sharing
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate
from study.training.network import Training, fit_teacher

HEADINGS = ("network", "sparsity", "units", "test", "lost", "faster", "95 % interval", "multiply-adds", "memory (MB)")


def quiet(row: dict[str, object]) -> None:
    """Takes an epoch's row, and leaves it."""


def teach(training: Training, splits: Splits) -> tuple[nn.Module, Targets]:
    """A network trained on labels, and its logits."""
    model = fit_teacher(training, splits, quiet)
    logits = distillation.stored_logits(model, splits.train, splits, "none")
    return model, Targets(torch.from_numpy(logits["logits"]))


def lenet(o: argparse.Namespace, splits: Splits) -> Iterator[tuple[str, nn.Module]]:
    """The dense network first; then weight-sharing under LeNet-5, and magnitude pruning to the same sparsity."""
    dense, _ = teach(Training("lenet_300_100", {}, o.epochs, 256, 1e-3, 0.0), splits)
    yield "LeNet-300-100", dense
    _, targets = teach(Training("lenet5", {}, o.teacher_epochs, 128, 2e-3, 5e-4), splits)
    taught = {"temperature": 4.0, "alpha": 0.9, "codebook_epochs": 2}
    for tau in o.taus:
        model = copy.deepcopy(dense)
        hparams = weight_sharing.Hparams(
            tau=tau, components=20, pi_zero=0.9997, epochs=o.epochs, retrain_epochs=2, **taught
        )
        weight_sharing.fit(model, hparams, splits, quiet, targets)
        yield f"weight-sharing, τ = {tau:g}", model
    model = copy.deepcopy(dense)
    pruning.fit(
        model, pruning.Hparams(density=0.03, codebook_size=20, epochs=o.epochs, **taught), splits, quiet, targets
    )
    yield "magnitude pruning, 3 %", model


def minivgg(o: argparse.Namespace, splits: Splits) -> Iterator[tuple[str, nn.Module]]:
    """The dense network first; then narrower students of it, and weight-sharing under it."""
    dense, targets = teach(Training("minivgg", {}, o.epochs, 64, 2e-3, 5e-4), splits)
    yield "MiniVGG", dense
    for width in o.widths:
        hparams = StudentHparams(
            temperature=4.0, alpha=0.9, student="minivgg", student_width=width, epochs=2 * o.epochs
        )
        yield f"student, width {width:g}", fit_student(hparams, splits, targets, quiet)
    for tau in o.taus:
        model = copy.deepcopy(dense)
        hparams = weight_sharing.Hparams(tau=tau, components=20, pi_zero=0.999, epochs=o.epochs, retrain_epochs=2,
                                         codebook_epochs=2, batch_size=64, temperature=4.0, alpha=0.9)  # fmt: skip
        weight_sharing.fit(model, hparams, splits, quiet, targets)
        yield f"weight-sharing, τ = {tau:g}", model


CASES = {"lenet": ("mnist", 0, lenet), "minivgg": ("digits", 32, minivgg)}


def row(name: str, model: nn.Module, dense: nn.Module, splits: Splits, test: Part, batch: int) -> tuple[str, ...]:
    """One line of the table."""
    shrunk, report = shrink_with_report(model, splits.shape)
    reference, candidate = (onnx_proto(m, splits.shape).SerializeToString() for m in (dense, shrunk))
    both = latency.compare(reference, candidate, splits.shape, batch=batch)
    accuracy, before = (evaluate(m, test, splits).accuracy for m in (model, dense))
    numbers = torch.cat([p.detach().flatten() for p in model.parameters()])
    units = ", ".join(f"{layer.units[1]}/{layer.units[0]}" for layer in report.layers[:-1])
    return (
        name, f"{100 * float((numbers == 0).float().mean()):.1f} %", report.reason or units, f"{accuracy:.2f} %",
        f"{before - accuracy:.2f}", f"{1 / both.ratio:.2f} ×", f"{1 / both.high:.2f}–{1 / both.low:.2f}",
        f"{multiply_adds(shrunk, splits.shape):,}", f"{latency.peak_memory_mb(candidate, splits.shape) or 0:.1f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", choices=sorted(CASES), nargs="+", default=sorted(CASES))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--taus", type=float, nargs="*", default=[0.1, 0.3, 0.6])
    parser.add_argument("--widths", type=float, nargs="*", default=[0.5, 0.25])
    parser.add_argument("--batch", type=int, default=1)
    o = parser.parse_args()
    torch.set_num_threads(1)
    for case in o.cases:
        name, size, networks = CASES[case]
        splits, test = registry.load(name, o.data_dir, size=size)
        print(f"{splits.title}, batch {o.batch}\n| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
        dense: nn.Module | None = None
        for label, model in networks(o, splits):
            dense = dense or model
            print("| " + " | ".join(row(label, model, dense, splits, test, o.batch)) + " |", flush=True)


if __name__ == "__main__":
    main()

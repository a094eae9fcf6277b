"""The compressed file against its bound and other coders: `python tests/benchmarks/compressed_file.py [FILE …]`.

For each network: bytes of the complete file, in version 2 of the format and today's; the entropy bound of
`size_metrics`; a canonical Huffman code of the symbols; zstd (level 19) and Brotli (quality 11) of one symbol a byte,
or two where needed; DeepCABAC, the coder of ISO/IEC 15938-17 (Wiedemann et al. 2020, https://arxiv.org/abs/1907.11900),
where its module is there, see the README. Huffman, zstd, Brotli and DeepCABAC get the codebook for nothing but its own
bytes, and neither a header nor batch-norm, whose bytes in the file are in a column of their own. FILE is a `.codebook`,
or a safetensors state dict of a quantised LeNet-300-100. Without one: with `--data-dir DIR`, five networks that are
trained briefly on MNIST and digits (six minutes); otherwise LeNets pruned at random and by units, and VGG-13. Seconds
are of this process, on one thread.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import torch
import zstandard
from safetensors.torch import load_file
from torch import nn

from study.compression import compressed_file, other_tensors
from study.compression.compressed_file import Network
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.compression.size_metrics import ratio, size_metrics
from study.data import registry
from study.methods.magnitude import pruning
from study.methods.sws import weight_sharing
from study.training.network import Training, fit_teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from old_codebook import old_file  # noqa: E402

MNIST = Network("lenet_300_100", {}, (1, 28, 28), 10, (0.1307,), (0.3082,), "mnist")
LENET_300_100 = Training("lenet_300_100", {}, 4, 256, 2e-3, 0.0)
LENET_5 = Training("lenet5", {}, 1, 128, 2e-3, 5e-4)
MINIVGG = Training("minivgg", {"width": 0.5}, 6, 64, 2e-3, 5e-4)
VGG = Network("vgg13", {}, (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, "cifar10")


def from_state(path: Path) -> tuple[nn.Module, QuantisedWeights, Network]:
    """A LeNet-300-100 whose weights are each a codebook value."""
    state = load_file(path)
    classes, pixels = len(state["5.bias"]), state["1.weight"].shape[1]
    side = math.isqrt(pixels)
    network = Network("lenet_300_100", {}, (1, side, side), classes, MNIST.mean, MNIST.std, "mnist")
    model = compressed_file.build(network, None, str(path))
    model.load_state_dict(state)
    parameters = shared_parameters(model)
    values, assignment = flatten(parameters).detach().unique(return_inverse=True)
    order = (values != 0).long().argsort(stable=True)  # zero first
    return model, QuantisedWeights(order.argsort()[assignment], values[order], torch.ones(len(parameters))), network


def synthetic(
    network: Network, sparsity: float, values: int, by_units: bool = False
) -> tuple[nn.Module, QuantisedWeights, Network]:
    """Nonzeros at random places, or, by units, in rows and columns of unequal density; values nearly Gaussian."""
    model, generator = compressed_file.build(network, None, ""), torch.Generator().manual_seed(0)
    parameters = shared_parameters(model)
    scores = []
    for p in parameters:
        score = torch.rand(p.shape, generator=generator)
        if by_units and p.dim() > 1:
            for axis in (0, 1):
                shape = [n if i == axis else 1 for i, n in enumerate(p.shape)]
                score = score * torch.rand(shape, generator=generator)
        scores.append(score)
    flat = flatten(scores)
    pruned = torch.zeros(len(flat), dtype=torch.bool)
    pruned[flat.argsort()[: round(sparsity * len(flat))]] = True
    spread = torch.randn(len(flat), generator=generator) * (values / 6) + values / 2
    assignment = spread.round().long().clamp(1, values - 1).masked_fill(pruned, 0)
    codes = torch.cat([torch.zeros(1), torch.linspace(-1, 1, values - 1)])
    return model, QuantisedWeights(assignment, codes, torch.ones(len(parameters))), network


def trained(data_dir: Path) -> Iterator[tuple[str, nn.Module, QuantisedWeights, Network]]:
    """Networks after a few epochs, by title; each is rounded as its method leaves it."""
    recipes: list[tuple[str, str, Training, dict[str, Any]]] = [
        ("LeNet-300-100, magnitude, 1.2 %", "mnist", LENET_300_100, dict(density=0.012, epochs=8, codebook_epochs=2)),
        ("LeNet-300-100, magnitude, 3 %", "mnist", LENET_300_100, dict(density=0.03, epochs=8, codebook_epochs=2)),
        ("LeNet-300-100, weight-sharing", "mnist", LENET_300_100,
         dict(tau=0.06, components=16, pi_zero=0.9997, epochs=8, retrain_epochs=1, codebook_epochs=1)),
        ("LeNet-5, magnitude, 1 %", "mnist", LENET_5, dict(density=0.01, epochs=3, codebook_epochs=0)),
        ("MiniVGG (half as wide), 5 %", "digits", MINIVGG,
         dict(density=0.05, epochs=6, codebook_epochs=1, batch_size=64)),
    ]  # fmt: skip
    for title, dataset, training, values in recipes:
        splits, _ = registry.load(dataset, data_dir, split_seed=0, size=32 if dataset == "digits" else None)
        model = fit_teacher(training, splits, lambda row: None)
        if "density" in values:
            quantised, _ = pruning.fit(model, pruning.Hparams(codebook_size=8, **values), splits, lambda row: None)
        else:
            quantised, _ = weight_sharing.fit(model, weight_sharing.Hparams(**values), splits, lambda row: None)
        yield title, model, quantised, compressed_file.network_of(training.network, training.options, splits)


def huffman_bytes(assignment: np.ndarray) -> int:
    """A canonical Huffman code, its table (one byte a symbol: the length) and the codebook."""
    counts = np.bincount(assignment)
    counts = counts[counts > 0]
    heap = [(int(n), i) for i, n in enumerate(counts)]
    heapq.heapify(heap)
    bits, fresh = 0, len(heap)
    while len(heap) > 1:  # the code's length is the sum of all inner nodes
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        bits += a[0] + b[0]
        heapq.heappush(heap, (a[0] + b[0], fresh))
        fresh += 1
    return math.ceil((bits if len(counts) > 1 else len(assignment)) / 8) + 5 * len(counts)


def zstd_bytes(assignment: np.ndarray) -> int:
    return len(zstandard.ZstdCompressor(level=19).compress(_symbols(assignment))) + 4 * len(np.unique(assignment))


def brotli_bytes(assignment: np.ndarray) -> int:
    return len(brotli.compress(_symbols(assignment), quality=11)) + 4 * len(np.unique(assignment))


def deepcabac_bytes(quantised: QuantisedWeights, parameters: list[nn.Parameter]) -> int:
    """DeepCABAC's bytes of the values' ranks, those below zero negative, one stream a tensor as in the standard; 0
    without its module.

    Of each tensor the shortest of all its modes: five orders of scanning, adapted probabilities or not, rows of zeros
    skipped or not, and the length of its unary part.
    """
    try:
        coder: Any = importlib.import_module("deepCABAC")
    except ImportError:
        return 0
    codes = quantised.values.numpy()
    ranks = codes.argsort().argsort()
    levels = (ranks - ranks[0])[quantised.assignment.numpy()].astype(np.int32)
    total = 4 * len(codes)
    for part, p in zip(np.split(levels, np.cumsum([p.numel() for p in parameters])[:-1]), parameters, strict=True):
        tensor = part.reshape(p.shape)
        empty = np.array([not row.any() for row in tensor], dtype=np.int32)
        lengths = []
        for order, adapted, skipped, unary in itertools.product(range(5), (0, 1), (0, 1), (1, 2, 4, 10)):
            encoder = coder.Encoder()
            encoder.initCtxModels(unary, adapted)
            encoder.encodeLayer(tensor, 0, order if p.dim() > 1 else 0, 1, 0, skipped, empty, coder.HdspMode.AlwaysOff,
                                np.zeros(2, dtype=np.int8), 0, 0)  # fmt: skip
            lengths.append(len(encoder.finish()))
        total += min(lengths)
    return total


def _symbols(assignment: np.ndarray) -> bytes:
    return assignment.astype(np.uint8 if assignment.max() < 256 else np.uint16).tobytes()


def measure(title: str, model: nn.Module, quantised: QuantisedWeights, network: Network, slow: bool = True) -> None:
    """Print one row.

    Args:
        slow: whether zstd and Brotli run, too.
    """
    parameters = shared_parameters(model)
    start = time.process_time()
    data = compressed_file.encode(model, quantised, network)
    encoded = time.process_time()
    decoded = compressed_file.decode(data)
    seconds = encoded - start, time.process_time() - encoded
    assert all(map(torch.equal, quantised.tensors(parameters), shared_parameters(decoded.model)))
    assignment = quantised.assignment.numpy()
    bound = 4 * len(assignment) / size_metrics(quantised)["entropy_ratio"]
    others = [zstd_bytes(assignment), brotli_bytes(assignment)] if slow else [0, 0]
    others.append(deepcabac_bytes(quantised, parameters))
    apart = len(other_tensors.pack(model))
    sizes = (len(old_file(model, quantised, network)), len(data), apart, huffman_bytes(assignment), *others)
    cells = [f"{n:10,d}" if n else " " * 10 for n in sizes]
    print(f"{title:34} {ratio(parameters, len(data)):7.1f} {bound:11,.0f} {' '.join(cells)}"
          f" {seconds[0]:6.2f} {seconds[1]:6.2f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    files: list[Path] = options.files
    torch.set_num_threads(1)
    columns = ("version 2", "file", "batch-norm", "Huffman", "zstd -19", "Brotli -11", "DeepCABAC")
    print(f"{'network':34} {'ratio':>7} {'bound':>11} {' '.join(f'{name:>10}' for name in columns)}"
          f" {'enc s':>6} {'dec s':>6}")  # fmt: skip
    for path in files:
        if path.suffix == compressed_file.SUFFIX:
            decoded = compressed_file.read(path)
            measure(path.name, decoded.model, decoded.quantised, decoded.network)
        else:
            measure(path.name, *from_state(path))
    if options.data_dir:
        for row in trained(options.data_dir):
            measure(*row)
    elif not files:
        measure("LeNet-300-100, 98 %, random", *synthetic(MNIST, 0.98, 16))
        measure("LeNet-300-100, 98 %, by units", *synthetic(MNIST, 0.98, 16, by_units=True))
        measure("VGG-13, 95 %, 16 values, by units", *synthetic(VGG, 0.95, 16, by_units=True), slow=False)
        measure("VGG-13, 0 %, 256 values", *synthetic(VGG, 0.0, 256), slow=False)


if __name__ == "__main__":
    main()

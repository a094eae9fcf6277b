"""The compressed file against its bound and simpler coders: `python tests/benchmarks/compressed_file.py [FILE …]`.

For each network: bytes of the whole file, and the ratio of float32 weights to them; the entropy bound of
`size_metrics`; a canonical Huffman code of the symbols; and zstd (level 19) of one symbol a byte (two where needed).
Huffman and zstd get the codebook for nothing but its own bytes, and no header. FILE is a `.codebook`, or a safetensors
state dict of a quantised LeNet-300-100. Without arguments: LeNets pruned at random and by units, and VGG-13.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from pathlib import Path

import numpy as np
import torch
import zstandard
from safetensors.torch import load_file
from torch import nn

from study.compression import compressed_file
from study.compression.compressed_file import Network
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.compression.size_metrics import ratio, size_metrics

MNIST = Network("lenet_300_100", {}, (1, 28, 28), 10, (0.1307,), (0.3082,), "mnist")
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
    symbols = assignment.astype(np.uint8 if assignment.max() < 256 else np.uint16)
    return len(zstandard.ZstdCompressor(level=19).compress(symbols.tobytes())) + 4 * len(np.unique(assignment))


def measure(title: str, model: nn.Module, quantised: QuantisedWeights, network: Network, zstd: bool = True) -> None:
    parameters = shared_parameters(model)
    start = time.perf_counter()
    data = compressed_file.encode(model, quantised, network)
    encoded = time.perf_counter()
    decoded = compressed_file.decode(data)
    seconds = encoded - start, time.perf_counter() - encoded
    assert all(map(torch.equal, quantised.tensors(parameters), shared_parameters(decoded.model)))
    assignment = quantised.assignment.numpy()
    bound = 4 * len(assignment) / size_metrics(quantised)["entropy_ratio"]
    others = [huffman_bytes(assignment), zstd_bytes(assignment) if zstd else 0]
    cells = [f"{n:10,d} {n / bound:5.2f}" if n else f"{'':16}" for n in (len(data), *others)]
    print(f"{title:34} {ratio(parameters, len(data)):7.1f} {bound:11,.0f}  {'  '.join(cells)}"
          f"  {seconds[0]:6.2f} {seconds[1]:6.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*")
    files = parser.parse_args().files
    torch.set_num_threads(1)
    print(f"{'network':34} {'ratio':>7} {'bound':>11}  {'file':>10} {'×':>5}  {'Huffman':>10} {'×':>5}  "
          f"{'zstd -19':>10} {'×':>5}  {'enc s':>6} {'dec s':>6}")  # fmt: skip
    for path in files:
        if path.suffix == compressed_file.SUFFIX:
            decoded = compressed_file.read(path)
            measure(path.name, decoded.model, decoded.quantised, decoded.network)
        else:
            measure(path.name, *from_state(path))
    if not files:
        measure("LeNet-300-100, 98 %, random", *synthetic(MNIST, 0.98, 16))
        measure("LeNet-300-100, 98 %, by units", *synthetic(MNIST, 0.98, 16, by_units=True))
        measure("VGG-13, 95 %, 16 values, by units", *synthetic(VGG, 0.95, 16, by_units=True), zstd=False)
        measure("VGG-13, 0 %, 256 values", *synthetic(VGG, 0.0, 256), zstd=False)


if __name__ == "__main__":
    main()

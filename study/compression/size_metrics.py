"""How small a quantised network is: sparsity, ratios, and the bits that papers count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from study.compression.compressed_file import Network, encode_weights, split
from study.compression.entropy_coder import Encoder
from study.compression.quantised_weights import QuantisedWeights, shared_parameters


def ratio(parameters: Sequence[Tensor], file_bytes: int) -> float:
    """Compression ratio: bytes of the shared weights as float32 ÷ bytes of the complete file."""
    return 4 * sum(p.numel() for p in parameters) / file_bytes


def csr_bits(quantised: QuantisedWeights, parameters: Sequence[Tensor]) -> int:
    """Bits of the network as Han, Mao & Dally (2016) count them, https://arxiv.org/abs/1510.00149, sec. 2 and 3.

    Each tensor is one sequence, of which the nonzeros are stored: the step from the entry before, in 5 bits (fully
    connected) or 8 bits (convolution), and the codebook index, in ⌈log2 of the codebook's entries⌉ bits. A step too
    long for its bits is cut by padding zeros, which are stored as well. A bias counts like the layer it belongs to.
    Added are 32 bits for each codebook value in use and for each scale. The zero is one of them, since padding needs
    it. There is no Huffman coding.

    Args:
        parameters: those of `shared_parameters`, a layer's bias behind its weight.
    """
    assignment = quantised.assignment.cpu().numpy()
    entries = 1 + len(np.unique(assignment[assignment != 0]))
    scales = len(quantised.scales) if bool((quantised.scales != 1).any()) else 0
    bits, step_bits = 32 * (entries + scales), 5
    for parameter, index in zip(parameters, split(assignment, parameters), strict=True):
        if parameter.dim() > 1:
            step_bits = 8 if parameter.dim() > 2 else 5
        steps = np.diff(np.flatnonzero(index), prepend=-1)
        stored = len(steps) + int(((steps - 1) // 2**step_bits).sum())
        bits += stored * (step_bits + math.ceil(math.log2(entries)))
    return bits


@dataclass(frozen=True)
class TensorRow:
    """One row of the table of a network's tensors.

    Attributes:
        values: how many different codebook values it has, the zero included.
        coded_bytes: its share of the compressed file, in words of four bytes.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int
    values: int
    coded_bytes: int

    @property
    def sparsity(self) -> float:
        """Percent of zeros."""
        return 100 * (1 - self.nonzero / self.weights)


def tensor_table(model: nn.Module, quantised: QuantisedWeights, network: Network) -> list[TensorRow]:
    """One row for each shared tensor, in order.

    Args:
        network: as `compressed_file.encode` takes it. The bytes of all tensors add up to the part of that file that has
            the weights.
    """
    parameters = shared_parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    sizes = encode_weights(Encoder(), model, quantised, network)
    rows = []
    for p, index, size in zip(parameters, split(quantised.assignment.cpu().numpy(), parameters), sizes, strict=True):
        nonzero, values = int((index != 0).sum()), len(np.unique(index))
        rows.append(TensorRow(names[id(p)], tuple(p.shape), p.numel(), nonzero, values, size))
    return rows


COUNTS_OVER = (
    "Sparsity, and every ratio, counts the weights of all layers, which are the tensors of two or more dimensions, and "
    "the biases of linear and convolution layers; parameters with one number for each channel, as batch-norm has, are "
    "neither compressed nor counted."
)


def size_metrics(quantised: QuantisedWeights) -> dict[str, float]:
    """How small the quantised weights are; see `COUNTS_OVER`.

    `entropy_ratio` is float32 bits over the bits of an ideal entropy coder of the assignment plus a float32 codebook.
    It is what a coder reaches that knows how often each value occurs and nothing else; a file can be smaller.
    `entropy_bytes` is the same as a size, which compares networks of different width while there is no file yet.
    """
    return metrics_of_counts(torch.bincount(quantised.assignment, minlength=len(quantised.values)).cpu())


def metrics_of_counts(counts: Tensor) -> dict[str, float]:
    """`size_metrics` from the number of weights that each value has, (values,), on the host; the first is zero."""
    counts = counts.double()
    n = float(counts.sum())
    used = counts[counts > 0]
    bits = float((used * (n / used).log2()).sum()) + 32 * len(used)
    nonzero = n - float(counts[0])
    return {
        "sparsity": 100 * float(counts[0]) / n,
        **({"nonzero_ratio": n / nonzero} if nonzero else {}),
        "entropy_ratio": 32 * n / bits,
        "entropy_bytes": bits / 8,
        "codebook_values_used": len(used),
    }

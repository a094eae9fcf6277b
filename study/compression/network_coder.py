"""Entropy coding of all shared weights of a network, tensor by tensor, as version 3 of the compressed file has them.

They come from the output to the input, so that it is known which units of a layer are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from study.compression.entropy_coder import Decoder, Encoder, code_tensor
from study.compression.image_layer_coder import code_image_layer

MOST_PIXELS = 2**13
"""Numbers of an image whose neighbours are looked at: each is one step in Python."""


def code_weights(
    coder: Encoder | Decoder,
    shapes: Sequence[Sequence[int]],
    image: Sequence[int],
    codebook: np.ndarray,
    index: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], list[int]]:
    """Encode which value each weight has, or decode it.

    Args:
        shapes: of the tensors, in order.
        image: shape of the network's input.
        codebook: the values, the zero first, (values,).
        index: of each tensor, (weights,) integers; None when decoding.
    Returns: the same, int64; and, when encoding, the bytes of each tensor, which add up to the coder's.
    """
    first = next((i for i, shape in enumerate(shapes) if len(shape) > 1), None)
    coded: list[np.ndarray] = [np.zeros(0, np.int64)] * len(shapes)
    sizes = [0] * len(shapes)
    inputs: np.ndarray | None = None  # those that the tensor behind reads, (inputs,) bool
    for i in reversed(range(len(shapes))):
        shape, own = shapes[i], None if index is None else index[i]
        before = coder.bytes_so_far() if isinstance(coder, Encoder) else 0
        read = _read_units(inputs, shape[0]) if len(shape) > 1 else None
        if i == first and reads_image(shape, image):
            coded[i] = _code_first(coder, shape, image, codebook, own, read)
        else:
            coded[i] = code_tensor(coder, shape, len(codebook), own, read)
        if len(shape) > 1:
            inputs = (coded[i].reshape(shape[0], shape[1], -1) != 0).any(axis=(0, 2))
        if isinstance(coder, Encoder):
            sizes[i] = coder.bytes_so_far() - before
    return coded, sizes


def reads_image(shape: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a tensor of this shape is a linear layer that reads an image, and not too large a one."""
    if len(shape) != 2 or len(image) != 3 or min(image[1:]) < 2:
        return False
    return shape[1] == math.prod(image) <= MOST_PIXELS


def _read_units(inputs: np.ndarray | None, units: int) -> np.ndarray | None:
    """Which units are read, (units,) bool, if the tensor behind has some inputs for each: a guess, since the order of
    tensors is not that of layers in every network."""
    if inputs is None or len(inputs) % units:
        return None
    return np.asarray(inputs.reshape(units, -1).any(axis=1))


def _code_first(
    coder: Encoder | Decoder,
    shape: Sequence[int],
    image: Sequence[int],
    codebook: np.ndarray,
    index: np.ndarray | None,
    read: np.ndarray | None,
) -> np.ndarray:
    """Code a layer that reads the image, after one bit that says how: by neighbours, or as any other layer where that
    is shorter, as it is where pixels are dropped in no pattern."""

    def by_neighbours(coder: Encoder | Decoder) -> np.ndarray:
        channels, height, width = image
        known = np.zeros(shape[0], bool) if read is None else read
        matrix = None if index is None else index.reshape(tuple(shape))
        return code_image_layer(coder, (channels, height, width), codebook < 0, known, matrix).reshape(-1)

    def as_any_other(coder: Encoder | Decoder) -> np.ndarray:
        return code_tensor(coder, shape, len(codebook), index, read)

    bit = None
    if isinstance(coder, Encoder):
        trials = Encoder(), Encoder()
        by_neighbours(trials[0])
        as_any_other(trials[1])
        bit = np.array([trials[0].bytes_so_far() <= trials[1].bytes_so_far()])
    return by_neighbours(coder) if coder.bits(np.array([0.5]), bit)[0] else as_any_other(coder)

"""Parts of compressed files of versions 1 and 2: lengths, then the header as deflated JSON, values and scales as
float32, the other tensors, and the weights."""

from __future__ import annotations

import struct

import numpy as np

from study.compression import file_checks
from study.compression.stored_network import Network

_LENGTHS = struct.Struct("<HHHII")  # header (bytes), values, scales (numbers), others (bytes); CRC-32 of the tensors


def unpack(rest: bytes) -> tuple[Network, np.ndarray, np.ndarray, bytes, bytes, int]:
    """The parts of a file, as `file_parts.Parts` has them.

    Args:
        rest: all behind the checksum.
    Raises:
        ValueError, struct.error, zlib.error: it is not as the format has it.
    """
    header, values, scales, others, layout = _LENGTHS.unpack_from(rest)
    sizes = header, 4 * values, 4 * scales, others
    text, codebook, factors, other, weights = file_checks.cut(rest, _LENGTHS.size, sizes)
    network = Network(*file_checks.header_entries(file_checks.inflate(text, file_checks.LONGEST_HEADER)))
    single = np.dtype("<f4")
    return (network, file_checks.floats(codebook, single), file_checks.floats(factors, single), other, weights, layout)

"""Compressed files as versions 1 and 2 of the format had them, which are still read."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
from mutations import sealed
from torch import nn

from study.compression import other_tensors
from study.compression.compressed_file import Network, split
from study.compression.entropy_coder import Encoder, code_tensor
from study.compression.file_parts import deflate
from study.compression.quantised_weights import QuantisedWeights, shared_parameters


def old_file(model: nn.Module, quantised: QuantisedWeights, network: Network, version: int = 2) -> bytes:
    """The file of a network without a training mean; see `compressed_file.encode`."""
    parameters, assignment = shared_parameters(model), quantised.assignment.numpy()
    used = np.bincount(assignment) > 0
    used[0] = True
    coder = Encoder()
    for parameter, part in zip(parameters, split((np.cumsum(used) - 1)[assignment], parameters), strict=True):
        code_tensor(coder, parameter.shape, int(used.sum()), part)
    values, scales = quantised.values.numpy()[: len(used)][used][1:], quantised.scales.numpy()
    scales = scales if bool((scales != 1).any()) else scales[:0]
    described = dataclasses.astuple(network)[: 8 if network.skip else 7]
    header = deflate(json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode())
    shared = {id(p) for p in parameters}
    tensors = [t.detach() for t in model.state_dict(keep_vars=True).values() if id(t) not in shared]
    others = deflate(b"".join(t.numpy().tobytes() for t in tensors))
    lengths = len(header), len(values), len(scales), len(others), other_tensors.layout(model)
    parts = header, values.tobytes(), scales.tobytes(), others, coder.data()
    return sealed(struct.pack("<HHHII", *lengths) + b"".join(parts), version)

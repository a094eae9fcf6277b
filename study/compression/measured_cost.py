"""What a trial's network costs when it runs, as metrics: latency, its ratio to the network that a study starts from,
multiply-adds and memory.

The network is shrunk exactly and run by onnxruntime on one thread of the CPU. Both networks run in turn within the same
seconds, and one measurement runs at a time on a machine: see `latency`.
"""

from __future__ import annotations

import torch
from torch import nn

from study.compression import latency
from study.compression.deployment import need, onnx_proto
from study.compression.shrinking import shrink
from study.errors import TrialFailed, UserError
from study.records.search_domains import Value

SECONDS = 1.0
"""How long each of two networks runs."""


def check_packages() -> None:
    """Refuse where a package is absent that measuring takes.

    Raises:
        UserError: with what to install.
    """
    try:
        need("onnx", "onnxscript", "onnxruntime")
    except UserError as error:
        raise UserError(f"--measure latency: {str(error).removeprefix('--formats: ')}") from error


def measured_cost(
    model: nn.Module, reference: bytes, input_shape: tuple[int, ...], batch: int | None = None
) -> dict[str, Value]:
    """Metrics of a network after exact shrinking.

    Args:
        model: on any device; it is not changed.
        reference: ONNX of the network that it is compared with, from `as_onnx`.
        batch: of examples, to measure in addition to single ones.
    Returns: `latency_ms`, `latency_p95_ms`, `latency_ratio` (below 1 is faster than the reference), `multiply_adds`,
        `peak_memory_mb` (on Linux), and with a batch `batch_latency_ms` and `batch_latency_ratio`.
    Raises:
        TrialFailed: the network cannot be exported, or not run.
    """
    shrunk = shrink(model, input_shape)
    try:
        try:
            candidate = as_onnx(shrunk, input_shape)
        except UserError:  # a shrunk network is a trace, which torch may take less well than the network itself
            shrunk = model
            candidate = as_onnx(model, input_shape)
        single = latency.compare(reference, candidate, input_shape, seconds=SECONDS)
        metrics: dict[str, Value] = {
            "latency_ms": single.candidate.median_ms,
            "latency_p95_ms": single.candidate.p95_ms,
            "latency_ratio": single.ratio,
            "multiply_adds": latency.multiply_adds(shrunk, input_shape),
        }
        if batch is not None:
            several = latency.compare(reference, candidate, input_shape, batch=batch, seconds=SECONDS)
            metrics |= {"batch_latency_ms": several.candidate.median_ms, "batch_latency_ratio": several.ratio}
        memory = latency.peak_memory_mb(candidate, input_shape)
    except UserError as error:
        raise TrialFailed(f"its cost cannot be measured: {error}") from error
    return metrics if memory is None else {**metrics, "peak_memory_mb": memory}


def as_onnx(model: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """A network as ONNX.

    Raises:
        UserError: torch cannot trace it.
    """
    on_host = model if all(p.device.type == "cpu" for p in model.parameters()) else _copied_to_host(model)
    return bytes(onnx_proto(on_host, input_shape).SerializeToString())


def _copied_to_host(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model).to(torch.device("cpu"))

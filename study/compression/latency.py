"""Measured cost of a network: latency, peak memory and multiply-adds.

Milliseconds depend on the machine and on what else it does, so a number alone says little. `compare` runs two networks
in turn, within the same seconds, and gives the ratio of their medians. On one machine only one measurement runs at a
time: others wait at a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from study.errors import UserError, one_line
from study.models.state import evaluating

WARM_UP = 0.1
"""Seconds that a network runs before its first measurement: caches fill, and the processor leaves its sleep."""
ROUNDS = 21
"""In how many parts a measurement is taken; `compare` changes networks between them."""
_SAMPLES = 5000  # in a round at most, of which each is one run
_LOCK = "compression-study-latency.lock"

Source = bytes | Path | nn.Module
"""A network: ONNX, in memory or as a file, which onnxruntime runs; or a module, which PyTorch runs."""


@dataclass(frozen=True)
class Latency:
    """How long one batch takes, in milliseconds.

    Attributes:
        median_ms, p95_ms: of all runs.
        runs: how many there were.
        batch, threads: what was measured.
    """

    median_ms: float
    p95_ms: float
    runs: int
    batch: int
    threads: int


@dataclass(frozen=True)
class Comparison:
    """Two networks that were run in turn.

    Attributes:
        ratio: median latency of the candidate ÷ that of the reference; below 1 is faster.
        low, high: the interval that holds the ratio with 95 % probability, by resampling the rounds in pairs.
    """

    reference: Latency
    candidate: Latency
    ratio: float
    low: float
    high: float


def measure(
    model: Source, input_shape: tuple[int, ...], *, batch: int = 1, threads: int = 1, seconds: float = 1.0
) -> Latency:
    """Latency of a network on the CPU.

    Args:
        input_shape: of one example; inputs are random float32.
        threads: of the runtime, for one operation.
        seconds: how long to measure, behind the warm-up; at least one run in each of `ROUNDS` rounds is made.
    Raises:
        UserError: onnxruntime is absent, or does not run the file.
        ValueError: a batch, a number of threads, or a time that is not positive.
    """
    with _alone(), _threads(threads), _evaluating(model):
        run = _runner(model, input_shape, batch, threads, seconds)
        return _summary([_round(run, seconds / ROUNDS) for _ in range(ROUNDS)], batch, threads)


def compare(
    reference: Source,
    candidate: Source,
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Comparison:
    """Latency of two networks that run in turn, and their ratio; arguments as for `measure`, seconds for each."""
    with _alone(), _threads(threads), _evaluating(reference), _evaluating(candidate):
        runs = [_runner(model, input_shape, batch, threads, seconds) for model in (reference, candidate)]
        rounds: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for number in range(ROUNDS):
            for which in (0, 1) if number % 2 else (1, 0):  # neither is always the first
                rounds[which].append(_round(runs[which], seconds / ROUNDS))
    ratio, low, high = _ratio(*rounds)
    return Comparison(_summary(rounds[0], batch, threads), _summary(rounds[1], batch, threads), ratio, low, high)


def peak_memory_mb(model: bytes | Path, input_shape: tuple[int, ...], *, batch: int = 1) -> float | None:
    """Memory that an ONNX network takes in onnxruntime, at its peak, in megabytes (10⁶ bytes).

    It is what the resident memory of a fresh process rises by, from before the file is read until after three runs:
    weights, their packed copies, activations, and the runtime's own code for them. Python and onnxruntime without a
    network are not in it. Small networks measure that code, and not much else.

    Returns: None on systems other than Linux, which do not tell the peak.
    Raises:
        UserError: onnxruntime is absent, or does not run the file.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    _onnxruntime()
    with contextlib.ExitStack() as stack:
        if isinstance(model, bytes):
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".onnx"))
            file.write(model)
            file.flush()
        path = file.name if isinstance(model, bytes) else str(model)
        shape = [str(n) for n in (batch, *input_shape)]
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, path, *shape],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise UserError(f"onnxruntime does not run {path}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return float(done.stdout)


# Writing 5 to clear_refs makes the present size the peak (man 5 proc).
_MEMORY = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
images = numpy.zeros([int(n) for n in sys.argv[2:]], numpy.float32)
def size(kind):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind))
open("/proc/self/clear_refs", "w").write("5")
before = size("VmRSS")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {session.get_inputs()[0].name: images})
print(max(size("VmHWM") - before, 0) * 1024 / 1e6)
"""


def multiply_adds(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one example: those of convolutions, matrix products and attention, zeros included."""
    from torch.utils.flop_counter import FlopCounterMode  # which loads Triton, and most trials do not need

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which is not counted, nor is fused attention
    try:
        with (
            _evaluating(model),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            model(torch.zeros(1, *input_shape, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def _runner(
    model: Source, input_shape: tuple[int, ...], batch: int, threads: int, seconds: float
) -> Callable[[], object]:
    """A function that runs one batch, already warm."""
    if batch < 1 or threads < 1 or not seconds > 0:
        raise ValueError(f"batch {batch}, threads {threads}, seconds {seconds}: must be positive")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, *input_shape, generator=generator)
    run = _of_module(model, images) if isinstance(model, nn.Module) else _of_onnx(model, images.numpy(), threads)
    end = time.perf_counter() + min(WARM_UP, seconds)
    for at_least in range(1_000_000):
        if at_least >= 3 and time.perf_counter() > end:
            break
        run()
    return run


def _of_module(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def _of_onnx(model: bytes | Path, images: np.ndarray, threads: int) -> Callable[[], object]:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        inputs = {session.get_inputs()[0].name: images}
        session.run(None, inputs)
    except Exception as error:  # onnxruntime raises kinds of its own
        name = "the network" if isinstance(model, bytes) else model
        raise UserError(f"onnxruntime does not run {name} ({one_line(error)})") from error
    return lambda: session.run(None, inputs)


def _round(run: Callable[[], object], seconds: float) -> np.ndarray:
    """Times of runs, one after another, in milliseconds."""
    times, end = list[float](), time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < _SAMPLES):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


def _summary(rounds: list[np.ndarray], batch: int, threads: int) -> Latency:
    times = np.concatenate(rounds)
    return Latency(float(np.median(times)), float(np.percentile(times, 95)), len(times), batch, threads)


def _ratio(reference: list[np.ndarray], candidate: list[np.ndarray]) -> tuple[float, float, float]:
    """Median of all runs ÷ median of all runs, and its 95 % interval over the medians of rounds, taken in pairs."""
    pairs = np.array([[np.median(a), np.median(b)] for a, b in zip(reference, candidate, strict=True)])
    drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    medians = np.median(pairs[drawn], axis=1)
    low, high = np.percentile(medians[:, 1] / medians[:, 0], [2.5, 97.5])
    ratio = float(np.median(np.concatenate(candidate)) / np.median(np.concatenate(reference)))
    return ratio, min(float(low), ratio), max(float(high), ratio)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Only one measurement at a time on this machine, whoever starts it; a process that ends frees the lock."""
    path = Path(tempfile.gettempdir()) / _LOCK
    try:  # in a folder that all may write to, Linux refuses O_CREAT for the file of another user
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _evaluating(model: Source) -> contextlib.AbstractContextManager[None]:
    return evaluating(model) if isinstance(model, nn.Module) else contextlib.nullcontext()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _onnxruntime() -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "latency is measured in onnxruntime, which is absent; pip install 'compression-study[onnx]'"
        ) from error
    return onnxruntime

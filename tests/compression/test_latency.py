"""Measured cost: latency, ratios of two networks, peak memory, multiply-adds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from study.compression import latency
from study.errors import UserError
from study.models.registry import build


class Sleeping(nn.Module):
    """Takes so many milliseconds, and counts its calls."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds, self.calls, self.threads = milliseconds, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.calls, self.threads = self.calls + 1, torch.get_num_threads()
        time.sleep(self.milliseconds / 1000)
        return x


def product(inputs: int, outputs: int, layers: int = 1) -> bytes:
    """Matrix products as ONNX: (batch, inputs) → (batch, outputs)."""
    sizes = [inputs] * layers + [outputs]
    names = ["images", *[f"x{n}" for n in range(layers)]]
    weights = [np.full(shape, 0.01, np.float32) for shape in zip(sizes[:-1], sizes[1:], strict=True)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(layers)],
        "product",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", inputs])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_known_time() -> None:
    """A module that sleeps 4 ms takes at least that; threads and the training mode are as before afterwards."""
    model, threads = Sleeping(4).train(), torch.get_num_threads()
    found = latency.measure(model, (1,), batch=3, threads=2, seconds=0.05)
    assert 4 <= found.median_ms <= found.p95_ms and found.median_ms < 40
    assert (found.batch, found.threads, model.threads) == (3, 2, 2)
    assert latency.ROUNDS <= found.runs < model.calls  # a warm-up comes first
    assert model.training and torch.get_num_threads() == threads


def test_unless_asked_otherwise_one_image_is_run_on_one_thread_for_a_second() -> None:
    """Both functions have the same defaults."""
    for found in (latency.measure(Sleeping(9), (1,)), latency.compare(Sleeping(9), Sleeping(9), (1,)).candidate):
        assert (found.batch, found.threads) == (1, 1)
        assert 0.2 < found.runs * found.median_ms / 1000 < 4


def test_a_ratio_with_its_interval() -> None:
    """One network against another that takes three times as long; the interval holds the ratio, and is narrow."""
    found = latency.compare(Sleeping(60), Sleeping(20), (1,), seconds=0.5)
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(1 / 3, rel=0.3)
    assert found.ratio == pytest.approx(found.candidate.median_ms / found.reference.median_ms)


def test_the_interval_by_hand() -> None:
    """Rounds without noise give an interval of no width; a network that is slower half of the time, a wide one."""
    one, two = [np.full(3, 4.0)] * 21, [np.full(5, 1.0)] * 21
    assert latency._ratio(one, two) == (0.25, 0.25, 0.25)
    ratio, low, high = latency._ratio(one, [np.full(5, 1.0 if n % 2 else 8.0) for n in range(21)])
    assert low == 0.25 and ratio == high == 2


def test_onnxruntime_from_memory_and_from_a_file(tmp_path: Path) -> None:
    """Bytes and a file of the same network are both run, for any batch; a larger product takes longer."""
    small, large = product(64, 4), product(512, 512, 4)
    path = tmp_path / "small.onnx"
    path.write_bytes(small)
    assert latency.measure(path, (64,), batch=5, seconds=0.02).median_ms > 0
    with pytest.raises(UserError, match="onnxruntime does not run the network"):
        latency.measure(small, (65,), seconds=0.02)
    with pytest.raises(UserError, match="nope.onnx"):
        latency.measure(tmp_path / "nope.onnx", (64,), seconds=0.02)
    found = latency.compare(large, product(512, 512), (512,), batch=16, seconds=0.05)
    assert found.ratio < 0.6


def test_peak_memory() -> None:
    """A network of 64 MB of weights takes at least those; nonsense is one line."""
    peak = latency.peak_memory_mb(product(2000, 16, 5), (2000,))
    if peak is None:
        pytest.skip("this system does not tell the peak")
    assert 64 < peak < 300
    with pytest.raises(UserError, match=r"onnxruntime does not run \S+: .*(Fail|Invalid|PROTOBUF)") as refused:
        latency.peak_memory_mb(b"nonsense", (1,))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("stderr", "reason"), [("", "killed"), ("Traceback:\n  File x\nMemoryError: no room\n\n", "MemoryError: no room")]
)
def test_a_process_that_did_not_measure_says_why(stderr: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of what it wrote, which is the error; one that wrote nothing was killed."""
    if latency.peak_memory_mb(product(2, 2), (2,)) is None:
        pytest.skip("this system does not tell the peak")
    monkeypatch.setattr(latency.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-9, stderr=stderr))
    with pytest.raises(UserError) as refused:
        latency.peak_memory_mb(Path("net.onnx"), (2,))
    assert str(refused.value) == f"onnxruntime does not run net.onnx: {reason}"


def test_multiply_adds_by_hand() -> None:
    """Convolutions in groups and linear layers by hand; LeNet-300-100; attention; modes stay."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)
    )
    model[2].eval()
    assert latency.multiply_adds(model, (2, 6, 6)) == 16 * 4 * 2 * 9 + 16 * 4 * 9 + 64 * 5
    assert model.training and not model[2].training
    assert latency.multiply_adds(build("lenet_300_100", (1, 28, 28), 10), (1, 28, 28)) == 266_200
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    tokens, width = 5, 8
    products = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * 16
    assert latency.multiply_adds(block, (tokens, width)) == products


def test_one_measurement_at_a_time() -> None:
    """Two measurements that start together do not overlap: the second waits at the lock."""
    spans: list[tuple[float, float]] = []

    def measure() -> None:
        class Noting(Sleeping):
            def forward(self, x: Tensor) -> Tensor:
                times.append(time.perf_counter())
                return super().forward(x)

        times: list[float] = []
        latency.measure(Noting(1), (1,), seconds=0.05)
        spans.append((times[0], times[-1]))

    both = [threading.Thread(target=measure) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    first, second = sorted(spans)
    assert first[1] < second[0]


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"threads": 0}, {"seconds": 0.0}])
def test_impossible_arguments(wrong: dict[str, float]) -> None:
    """Nothing is measured with no batch, no thread or no time."""
    with pytest.raises(ValueError, match="must be positive"):
        latency.measure(Sleeping(0), (1,), **wrong)  # type: ignore[arg-type]

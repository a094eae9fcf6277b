"""A recorded step does every batch once, in order, whatever can be recorded of it; here without a GPU."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from study.training import cuda_graphs
from study.training.cuda_graphs import CudaGraphStep


class Gpu:
    """Stands for CUDA: what runs in a capture is kept, and done when it is replayed."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.capturing, self.replayed = refuses, False, 0
        self.done: list[list[int]] = []

    def step(self, index: Tensor) -> None:
        if self.capturing:
            self.recorded = index
            assert not gc.isenabled()
            if self.refuses:
                raise RuntimeError("operation not permitted when stream is capturing")
        else:
            self.done.append(index.tolist())

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = self

        class Graph:
            def capture_begin(self, **how: Any) -> None:
                gpu.capturing = True

            def capture_end(self) -> None:
                gpu.capturing, self.place = False, gpu.recorded

            def replay(self) -> None:
                gpu.replayed += 1
                gpu.step(self.place)

        class Stream:
            device = torch.device("cpu")

            def wait_stream(self, other: object) -> None: ...

        stream = Stream()
        for name in ("current_stream", "default_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: stream)
        monkeypatch.setattr(cuda_graphs, "_side_stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)


def batches() -> list[Tensor]:
    """Of two sizes, as an epoch has them."""
    return [torch.arange(k, k + size) for k, size in enumerate([3] * 8 + [2] * 8)]


@pytest.mark.parametrize("refuses", [False, True])
def test_every_batch_is_done_once_and_in_order(refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of two sizes, recorded or refused, the same steps come in the same order, and collection is on."""
    gpu = Gpu(refuses)
    gpu.install(monkeypatch)
    run = CudaGraphStep(gpu.step)
    for index in batches():
        run(index)
    assert gpu.done == [index.tolist() for index in batches()]
    assert gpu.replayed == (0 if refuses else 2 * (8 - cuda_graphs.WARM))
    assert gc.isenabled()


def test_a_network_that_replaces_its_buffers_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replayed step would read the old buffer for ever; one that is made in the first step alone is no matter."""
    for replaces, replayed in ((lambda step: True, 0), (lambda step: step == 1, 5)):
        gpu, held = Gpu(), [torch.zeros(1)]
        gpu.install(monkeypatch)

        def step(index: Tensor, gpu: Gpu = gpu, held: list[Tensor] = held, replaces: Any = replaces) -> None:
            gpu.step(index)
            if replaces(len(gpu.done)):
                held[0] = held[0] + 1

        run = CudaGraphStep(step, lambda held=held: list(held))  # type: ignore[misc]
        for index in batches()[:8]:
            run(index)
        assert gpu.replayed == replayed and len(gpu.done) == 8
        assert ("not recorded" in capsys.readouterr().out) == (replayed == 0)


def test_rates_are_set_in_place() -> None:
    """A rate that is a tensor, as a recorded step needs it, stays the same tensor; a number is replaced."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimiser = torch.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.5}], lr=0.1)
    optimiser.param_groups[0]["lr"] = tensor = torch.tensor(0.1)
    cuda_graphs.set_rates(optimiser, [0.25, 0.75])
    assert optimiser.param_groups[0]["lr"] is tensor and float(tensor) == 0.25
    assert optimiser.param_groups[1]["lr"] == 0.75

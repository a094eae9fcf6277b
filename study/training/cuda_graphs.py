"""One step of training, recorded and replayed on a GPU, and the steps of an epoch."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from study.training.batches import Batch, EpochBatches

Step = Callable[[Tensor], None]
"""One step on these rows of the training part, (members, batch)."""

WARM = 3
"""Steps of each batch size before one is recorded: in these, libraries choose their kernels and the optimiser allocates
its moments."""


_RECORDING = threading.Lock()
"""A process records one step at a time."""


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Without garbage collection: freeing an older graph would spoil the one that is being recorded."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class CudaGraphStep:
    """A step on a GPU, recorded as a CUDA graph and replayed from then on; one graph for each size of batch.

    A step of a small network is some hundred kernels of a few microseconds each, and launching them one by one takes
    far longer than running them. A step that cannot be recorded runs as it is, and that is printed once: of a network
    that waits for the GPU in its forward pass, or that replaces its buffers by new tensors. What a network decides on
    the host, from numbers that it draws or counts there, is replayed as it was when recorded.

    Args:
        state_tensors: gives the network's present parameters and buffers.
    """

    def __init__(self, step: Step, state_tensors: Callable[[], Sequence[Tensor]] = tuple) -> None:
        self.step, self.state_tensors = step, state_tensors
        current = torch.cuda.current_stream()
        # The default stream cannot be recorded. Not a new one each time: libraries reserve 32 MB for every stream.
        self.stream = current if current != torch.cuda.default_stream() else _side_stream(current.device)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.seen: dict[int, int] = {}
        self.before: Sequence[Tensor] = ()
        self.recording = True

    def __call__(self, index: Tensor) -> None:
        size = index.shape[-1]
        if size not in self.graphs and not (self.recording and self._record(index)):
            self._run_unrecorded(index)
            return
        graph, place = self.graphs[size]
        place.copy_(index)
        graph.replay()

    def _run_unrecorded(self, index: Tensor) -> None:
        """On the stream that is recorded, as CUDA wants it of a first step."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(index)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, index: Tensor) -> bool:
        size = index.shape[-1]
        self.seen[size] = self.seen.get(size, 0) + 1
        if self.seen[size] == WARM:  # not before: a network may make its buffers in its first step
            self.before = self.state_tensors()
        if self.seen[size] <= WARM:
            return False
        if [id(tensor) for tensor in self.state_tensors()] != [id(tensor) for tensor in self.before]:
            # A replayed step would read the old tensor for ever.
            return self._give_up_recording("the network replaces its buffers by new tensors")
        graph, place = torch.cuda.CUDAGraph(), index.clone()
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with _RECORDING, _garbage_collection_paused(), torch.cuda.stream(self.stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.step(place)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self._end_capture()
            return self._give_up_recording(str(error).splitlines()[0])
        self.graphs[size] = graph, place
        return True

    def _give_up_recording(self, why: str) -> bool:
        self.recording = False
        print(f"steps are not recorded as a CUDA graph, so they take longer: {why}", flush=True)
        return False

    def _end_capture(self) -> None:
        """In older versions of torch a failed capture leaves dropout's generator capturing; a complete one ends it."""
        with (
            contextlib.suppress(RuntimeError),
            _RECORDING,
            _garbage_collection_paused(),
            torch.cuda.stream(self.stream),
        ):
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                torch.zeros((), device=self.stream.device).add_(1)
            finally:
                graph.capture_end()


def make_step(
    model: nn.Module,
    epoch_batches: EpochBatches,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    total: Tensor,
) -> Step:
    """One step of `train`, recorded where the data lie on a GPU.

    Args:
        total: the loss times the batch size is added to it, () or (members,).
    """

    def step(index: Tensor) -> None:
        value = loss(model, epoch_batches.batch(index))
        optimiser.zero_grad(set_to_none=True)
        value.sum().backward()
        optimiser.step()
        total.add_(value.detach() * index.shape[-1])

    if not epoch_batches.order.is_cuda:
        return step
    for group in optimiser.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=epoch_batches.order.device)
        if "capturable" in group:
            group["capturable"] = True
    return CudaGraphStep(step, lambda: [*model.parameters(), *model.buffers()])


def run_epoch(
    run: Step,
    batches: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    rates: Sequence[Sequence[float]],
    first: int,
    before_step: Callable[[int], None] | None,
) -> None:
    """An epoch's steps, each at its rates.

    Args:
        first: steps of the epochs before.
        before_step: takes the step's number, from 1.
    """
    for step, index in enumerate(batches, first):
        set_rates(optimiser, rates[step])
        if before_step:
            before_step(step + 1)
        run(index)


def set_rates(optimiser: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """The learning rate of every group of parameters, in place where it is a tensor."""
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

"""The one training loop, and `evaluate`. It knows no tuner, no method and no data set."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.data import Part, Splits, normalise
from study.errors import TrialFailed
from study.trace import Trace

AUGMENTATIONS = ("none", "flip", "shift", "crop")
"""`flip` mirrors half of the images; `shift` moves each by up to an eighth of its side; `crop` does both."""

SHIFTING = ("shift", "crop")
"""Those that make more views of an image than a teacher's logits can be kept of."""


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    Attributes:
        index: rows of the training part, (batch,), int64.
        flipped: which of them are mirrored, (batch,), bool.
        images: normalised and augmented, (batch, channels, height, width), float32.
        labels: (batch,), int64.

    Of networks that are trained together (`study.packed`) all have one more axis in front, (members, batch, …).
    """

    index: Tensor
    flipped: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Score:
    """`loss` is the mean cross-entropy in nats per example, `accuracy` a percentage."""

    loss: float
    accuracy: float


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one epoch, each of two examples or more."""
    return max(1, min(math.ceil(examples / batch_size), examples // 2))


class Views:
    """The training part as an epoch shows it: its order, and what augmentation does to each example.

    Everything lies on the data's device and stays in place from epoch to epoch, as a recorded step needs it.

    Args:
        members: networks that are trained together, each with its own order; 0 for one alone, without that axis.
    """

    def __init__(self, data: Splits, augment: str, members: int = 0) -> None:
        self.data, self.augment = data, augment
        shape = ((members,) if members else ()) + (len(data.train),)
        device = data.train.images.device
        self.order = torch.zeros(shape, dtype=torch.int64, device=device)
        self._flips = torch.zeros(shape, dtype=torch.bool, device=device)
        self._moves = [torch.zeros_like(self.order) for _ in range(2 if augment in SHIFTING else 0)]
        self._places = [self.order, self._flips, *self._moves]

    def shuffle(self, *generators: torch.Generator) -> None:
        """Draw an epoch on the host, where every device gets the same; one generator a member."""
        drawn = zip(*map(self._draw, generators), strict=True)
        for place, tensors in zip(self._places, drawn, strict=True):
            place.copy_(torch.stack(tensors).view_as(place))

    def _draw(self, generator: torch.Generator) -> list[Tensor]:
        count = len(self.data.train)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand(count, generator=generator).lt(0.5)
        shifts = _shifts(self.data.train.images) if self.augment in SHIFTING else ()
        return [order, flips, *(torch.randint(0, 2 * most + 1, (count,), generator=generator) for most in shifts)]

    def split(self, batch_size: int) -> Sequence[Tensor]:
        """The order in batches, (members, batch) each.

        Their sizes differ by one at most, so that no batch is left over with a single example, on which batch
        normalisation has no variance.
        """
        return self.order.tensor_split(steps_per_epoch(len(self.data.train), batch_size), dim=-1)

    def batch(self, index: Tensor) -> Batch:
        """These rows of the training part, as this epoch shows them."""
        images = self.data.train.images[index]
        flipped = torch.zeros_like(index, dtype=torch.bool)
        if self.augment in ("flip", "crop"):
            flipped = self._flips.gather(-1, index)
            images = torch.where(flipped[..., None, None, None], images.flip(-1), images)
        if self.augment in SHIFTING:
            images = shift(images, *(move.gather(-1, index) for move in self._moves))
        return Batch(index, flipped, normalise(images, self.data.mean, self.data.std), self.data.train.labels[index])


def batches(data: Splits, batch_size: int, augment: str, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch over the training part in a fresh order."""
    views = Views(data, augment)
    views.shuffle(generator)
    return (views.batch(index) for index in views.split(batch_size))


def _shifts(images: Tensor) -> tuple[int, int]:
    """Pixels by which images, (…, height, width), are moved at most: an eighth of their side."""
    height, width = images.shape[-2:]
    return max(1, height // 8), max(1, width // 8)


def shift(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Move each image by its own whole number of pixels; what comes in is black.

    Args:
        images: (…, channels, height, width).
        down, across: from 0, as far up (to the left) as images go, to twice an eighth of the side, (…), int64.
    """
    most_down, most_across = _shifts(images)
    *lead, channels, height, width = images.shape
    padded = F.pad(images, (most_across, most_across, most_down, most_down)).flatten(0, -4)
    device = images.device
    rows = (down.reshape(-1, 1) + torch.arange(height, device=device))[:, None, :, None]
    columns = (across.reshape(-1, 1) + torch.arange(width, device=device))[:, None, None, :]
    example = torch.arange(len(padded), device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[example, channel, rows, columns].view(*lead, channels, height, width)


@dataclass
class Progress:
    """How far a trial is: the state of each call of `train` that it has made, in order.

    A trial that was stopped runs the same code again with the states it had: a call that had ended returns at once
    with what it had ended with, and the one that was stopped goes on after its last epoch, to the same result.

    Attributes:
        states: numbers and tensors in lists and dicts, as `torch.save` takes them. The last ones are the tensors of
            the training itself, so they are saved before it goes on.
        trace: what the figures need of its weights.
    """

    states: list[dict[str, Any]] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    _calls: int = 0

    def begin(self) -> dict[str, Any] | None:
        """The state that the next call of `train` had, if it had begun."""
        self._calls += 1
        return self.states[self._calls - 1] if self._calls <= len(self.states) else None

    def keep(self, state: dict[str, Any]) -> None:
        """The state of the call that is under way."""
        self.states[self._calls - 1 : self._calls] = [state]


PRECISIONS = ("float32", "bfloat16")


@functools.cache
def multiplies_bfloat16(device: str) -> bool:
    """Whether this machine's GPU, or CPU, has instructions for it: GPUs since Ampere, CPUs with AVX512_BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    except OSError:  # not Linux
        return False


def logits(model: nn.Module, images: Tensor, precision: str | None = None) -> Tensor:
    """Logits of a batch while a network trains, float32.

    Args:
        precision: of `PRECISIONS`, in which a network with convolutions computes its layers' products, with weights,
            normalisation and losses in float32; others compute in float32. None: what the processor does best.
    """
    return in_precision(model, images, halves(model, images.device, precision))


def halves(model: nn.Module, device: torch.device, precision: str | None) -> bool:
    """Whether a network's products are computed in bfloat16."""
    if not any(isinstance(layer, nn.modules.conv._ConvNd) for layer in model.modules()):
        return False
    return (precision or fitting(device.type)) == "bfloat16"


def fitting(device: str) -> str:
    """The precision that a kind of device of this machine does best: "cpu" or "cuda"."""
    return PRECISIONS[multiplies_bfloat16(device)]


def in_precision(model: nn.Module, images: Tensor, half: bool) -> Tensor:
    """Logits, float32, from products in bfloat16 or not."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        found: Tensor = model(images)
    return found.float()


Step = Callable[[Tensor], None]
"""One step on these rows of the training part, (members, batch)."""

WARM = 3
"""Steps that a batch size is run before it is recorded: libraries choose their kernels and the optimiser makes its
moments meanwhile."""


_RECORDING = threading.Lock()
"""One at a time in a process."""


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: an older graph that is freed spoils the one that is recorded."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class Recorded:
    """A step on a GPU, recorded as a CUDA graph and replayed from then on; one graph for each size of batch.

    A step of a small network is some hundred kernels of a few microseconds each, and launching them one by one takes
    far longer than running them. What cannot be recorded (a network that waits for the GPU in its forward pass) goes
    on step by step. What a network decides on the host, from numbers that it draws or counts there, is replayed as it
    was when recorded.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        current = torch.cuda.current_stream()
        # The default stream cannot be recorded. Not a new one each time: libraries keep 32 MB for every stream.
        self.stream = current if current != torch.cuda.default_stream() else _side_stream(current.device)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.seen: dict[int, int] = {}
        self.recording = True

    def __call__(self, index: Tensor) -> None:
        size = index.shape[-1]
        if size not in self.graphs and not (self.recording and self._record(index)):
            self._alone(index)
            return
        graph, place = self.graphs[size]
        place.copy_(index)
        graph.replay()

    def _alone(self, index: Tensor) -> None:
        """On the stream that is recorded, as CUDA wants it of a first step."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(index)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, index: Tensor) -> bool:
        size = index.shape[-1]
        self.seen[size] = self.seen.get(size, 0) + 1
        if self.seen[size] <= WARM:
            return False
        graph, place = torch.cuda.CUDAGraph(), index.clone()
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with _RECORDING, _uncollected(), torch.cuda.stream(self.stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.step(place)
                finally:
                    graph.capture_end()
        except RuntimeError:
            self.recording = False
            return False
        self.graphs[size] = graph, place
        return True


def stepping(
    model: nn.Module,
    views: Views,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    total: Tensor,
) -> Step:
    """One step of `train`, recorded where the data lie on a GPU.

    Args:
        total: what the loss, times the examples of the batch, is added to, () or (members,).
    """

    def step(index: Tensor) -> None:
        value = loss(model, views.batch(index))
        optimiser.zero_grad(set_to_none=True)
        value.sum().backward()
        optimiser.step()
        total.add_(value.detach() * index.shape[-1])

    if not views.order.is_cuda:
        return step
    for group in optimiser.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=views.order.device)
        if "capturable" in group:
            group["capturable"] = True
    return Recorded(step)


def train(
    model: nn.Module,
    data: Splits,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    augment: str = "none",
    before_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None],
    progress: Progress | None = None,
    also: Sequence[Tensor] = (),
) -> None:
    """Minimise `loss` for `epochs`, every learning rate falling to zero along half a cosine.

    Args:
        loss: of a model and a batch; scalar, nats per example. On a GPU it is recorded: it must do the same operations
            in every step, on tensors that stay in place.
        before_step: is given the step's number, from 1; what differs from step to step belongs here.
        after_epoch: is given the epoch's number, from 1, and its mean training loss.
        progress: is kept up to date after every epoch; where it has this call already, only the rest is done.
        also: tensors that `loss` or `before_step` change, beside those of the model and the optimiser.
    Raises:
        TrialFailed: the training loss of an epoch is not a finite number.
    """
    progress = progress or Progress()
    views = Views(data, augment)
    total = torch.zeros((), device=data.train.images.device)
    others = [*(p for group in optimiser.param_groups for p in group["params"]), *also]
    rates = falling([group["lr"] for group in optimiser.param_groups], epochs * len(views.split(batch_size)))
    done = _restore(progress.begin(), model, others, optimiser, generator)
    run = stepping(model, views, loss, optimiser, total)
    step = done * len(views.split(batch_size))
    for epoch in range(done + 1, epochs + 1):
        model.train()
        total.zero_()
        views.shuffle(generator)
        for index in views.split(batch_size):
            set_rates(optimiser, rates[step])
            step += 1
            if before_step:
                before_step(step)
            run(index)
        mean = float(total) / len(data.train)
        if not math.isfinite(mean):
            raise TrialFailed(f"the training loss became {mean} in epoch {epoch}")
        weights = _weights(model, others)
        progress.keep(
            {"epoch": epoch, **weights, "optimiser": optimiser.state_dict(), "random": _random_states(generator)}
        )
        after_epoch(epoch, mean)
    # What comes next changes the model: keep a copy of what this ended with.
    ended = _weights(model, others)
    ended["model"] = {name: tensor.clone() for name, tensor in ended["model"].items()}
    ended["others"] = [tensor.clone() for tensor in ended["others"]]
    progress.keep({"epoch": epochs, **ended, "random": _random_states(generator)})


def falling(peaks: Sequence[float], steps: int) -> list[list[float]]:
    """Learning rates in each of so many steps, and after them: from the peaks to zero along half a cosine."""
    rates, found = [float(peak) for peak in peaks], []
    for step in range(1, steps + 1):
        found.append(list(rates))
        # As PyTorch's CosineAnnealingLR has it, to the last bit; that one is slow on rates that lie on a GPU.
        fall = (1 + math.cos(math.pi * step / steps)) / (1 + math.cos(math.pi * (step - 1) / steps))
        rates = [fall * rate for rate in rates]
    return [*found, rates]


def set_rates(optimiser: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """The learning rate of every group of parameters, in place where it is a tensor."""
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _weights(model: nn.Module, others: Sequence[Tensor]) -> dict[str, Any]:
    """The model's state, and those of the other tensors that it does not hold itself."""
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    return {
        "model": dict(model.state_dict()),
        "others": [t.detach() for t in others if t.data_ptr() not in own],
    }


def _random_states(generator: torch.Generator) -> list[Tensor]:
    """Of the order of examples, of dropout on the host, and of dropout on a GPU."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [generator.get_state(), torch.get_rng_state(), *cuda]


@torch.no_grad()
def _restore(
    state: dict[str, Any] | None,
    model: nn.Module,
    others: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """Put everything back where it was; returns the epochs that are done."""
    if state is None:
        return 0
    for tensor, kept in zip(_weights(model, others)["others"], state["others"], strict=True):
        tensor.copy_(kept)
    model.load_state_dict(state["model"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        for group in optimiser.param_groups:  # as before `stepping`: it may have been on another device
            group |= {"lr": float(group["lr"]), **({"capturable": False} if "capturable" in group else {})}
    own, host, *cuda = state["random"]
    generator.set_state(own)
    torch.set_rng_state(host)
    if cuda:
        torch.cuda.set_rng_state(cuda[0])
    return int(state["epoch"])


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor, data: Splits, batch_size: int = 512) -> Tensor:
    """Logits in evaluation mode of uint8 images, (n, channels, height, width) → (n, classes)."""
    model.eval()
    return torch.cat([model(normalise(x, data.mean, data.std)) for x in images.split(batch_size)])


def evaluate(model: nn.Module, part: Part, data: Splits) -> Score:
    """Score a model on a part, which lies on the model's device and is normalised as the training part is."""
    logits = logits_of(model, part.images, data)
    loss = float(F.cross_entropy(logits, part.labels))
    return Score(loss, 100.0 * float((logits.argmax(dim=1) == part.labels).double().mean()))

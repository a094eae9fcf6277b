"""The one training loop, and `evaluate`. It knows no tuner, no method and no data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
        step: of the training, from 1 on.
    """

    index: Tensor
    flipped: Tensor
    images: Tensor
    labels: Tensor
    step: int


@dataclass(frozen=True)
class Score:
    """`loss` is the mean cross-entropy in nats per example, `accuracy` a percentage."""

    loss: float
    accuracy: float


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one epoch, each of two examples or more."""
    return max(1, min(math.ceil(examples / batch_size), examples // 2))


def batches(
    data: Splits, batch_size: int, augment: str, generator: torch.Generator, *, steps_before: int = 0
) -> Iterator[Batch]:
    """One epoch over the training part in a fresh order.

    Batch sizes differ by one at most, so that no batch is left over with a single example, on which batch
    normalisation has no variance.
    """
    train = data.train
    device = train.images.device
    order = torch.randperm(len(train), generator=generator).to(device)
    flips = torch.rand(len(train), generator=generator).lt(0.5).to(device)
    mirroring = augment in ("flip", "crop")
    for step, index in enumerate(order.tensor_split(steps_per_epoch(len(train), batch_size)), steps_before + 1):
        images = train.images[index]
        flipped = flips[index] if mirroring else torch.zeros_like(index, dtype=torch.bool)
        if mirroring:
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        if augment in SHIFTING:
            images = _shift(images, generator)
        yield Batch(index, flipped, normalise(images, data.mean, data.std), train.labels[index], step)


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by its own whole number of pixels, up to an eighth of its side; what comes in is black."""
    n, _, height, width = images.shape
    down, across = max(1, height // 8), max(1, width // 8)
    padded = F.pad(images, (across, across, down, down))
    dy = torch.randint(0, 2 * down + 1, (n,), generator=generator).to(images.device)
    dx = torch.randint(0, 2 * across + 1, (n,), generator=generator).to(images.device)
    rows = (dy[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    example = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[example, channel, rows, columns]


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
    after_epoch: Callable[[int, float], None],
    progress: Progress | None = None,
    also: Sequence[Tensor] = (),
) -> None:
    """Minimise `loss` for `epochs`, every learning rate falling to zero along half a cosine.

    Args:
        loss: of a model and a batch; scalar, nats per example.
        after_epoch: is given the epoch's number, from 1, and its mean training loss.
        progress: is kept up to date after every epoch; where it has this call already, only the rest is done.
        also: tensors that `loss` changes, beside those of the model and the optimiser.
    Raises:
        TrialFailed: the training loss of an epoch is not a finite number.
    """
    progress = progress or Progress()
    steps = steps_per_epoch(len(data.train), batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, epochs * steps))
    others = [*(p for group in optimiser.param_groups for p in group["params"]), *also]
    done = _restore(progress.begin(), model, others, optimiser, schedule, generator)
    for epoch in range(done + 1, epochs + 1):
        model.train()
        total = torch.zeros((), device=data.train.images.device)
        for batch in batches(data, batch_size, augment, generator, steps_before=(epoch - 1) * steps):
            value = loss(model, batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.detach() * len(batch.index)
        mean = float(total) / len(data.train)
        if not math.isfinite(mean):
            raise TrialFailed(f"the training loss became {mean} in epoch {epoch}")
        weights = _weights(model, others)
        moving = {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        progress.keep({"epoch": epoch, **weights, **moving, "random": _random_states(generator)})
        after_epoch(epoch, mean)
    # What comes next changes the model: keep a copy of what this ended with.
    ended = _weights(model, others)
    ended["model"] = {name: tensor.clone() for name, tensor in ended["model"].items()}
    ended["others"] = [tensor.clone() for tensor in ended["others"]]
    progress.keep({"epoch": epochs, **ended, "random": _random_states(generator)})


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
    schedule: torch.optim.lr_scheduler.LRScheduler,
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
        schedule.load_state_dict(state["schedule"])
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

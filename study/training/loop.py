"""The one training loop, and `evaluate`. It knows no tuner, no method and no data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.training.batches import Batch, EpochBatches
from study.training.cuda_graphs import cosine_schedule, make_step, run_epoch


@dataclass(frozen=True)
class Score:
    """`loss` is the mean cross-entropy in nats per example, `accuracy` a percentage."""

    loss: float
    accuracy: float


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
    views = EpochBatches(data, augment)
    total = torch.zeros((), device=data.train.images.device)
    others = [*(p for group in optimiser.param_groups for p in group["params"]), *also]
    batches = views.split(batch_size)
    rates = cosine_schedule([group["lr"] for group in optimiser.param_groups], epochs * len(batches))
    done = _restore(progress.begin(), model, others, optimiser, generator)
    run = make_step(model, views, loss, optimiser, total)
    for epoch in range(done + 1, epochs + 1):
        model.train()
        total.zero_()
        views.shuffle(generator)
        run_epoch(run, batches, optimiser, rates, (epoch - 1) * len(batches), before_step)
        mean = finite(float(total) / len(data.train))
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


def finite(loss: float) -> float:
    """An epoch's mean training loss, where it is a finite number.

    Raises:
        TrialFailed: it is not.
    """
    if not math.isfinite(loss):
        raise TrialFailed(f"the training loss became {loss}")
    return loss


def _weights(model: nn.Module, others: Sequence[Tensor]) -> dict[str, Any]:
    """The model's state, and those of the other tensors that it does not hold itself."""
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    return {"model": dict(model.state_dict()), "others": [t.detach() for t in others if t.data_ptr() not in own]}


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
        for group in optimiser.param_groups:  # as before `make_step`: it may have been on another device
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


Report = Callable[[dict[str, Any]], None]


Loss = Callable[[nn.Module, Batch], Tensor]

"""The one training loop, and `evaluate`. It knows no tuner, no method and no data set."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress, Row, TrainingState
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.models.state import load_tensors, tensors_of
from study.training.batches import Batch, EpochBatches
from study.training.cuda_graphs import make_step, run_epoch
from study.training.schedules import RateSchedule, cosine_schedule

Report = Callable[[Row], None]
"""Takes an epoch's row."""

Loss = Callable[[nn.Module, Batch], Tensor]
"""Of a model and a batch: scalar or, of networks that are trained together, (members,)."""


@dataclass(frozen=True)
class Score:
    """`loss` is the mean cross-entropy in nats per example, `accuracy` a percentage."""

    loss: float
    accuracy: float


def train(
    model: nn.Module,
    data: Splits,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    augment: str = "none",
    mixup: float = 0.0,
    rate_schedule: RateSchedule = cosine_schedule,
    before_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None],
    progress: Progress | None = None,
    also: Sequence[Tensor] = (),
) -> None:
    """Minimise `loss` for `epochs`.

    Args:
        augment, mixup: as `EpochBatches` takes them.
        rate_schedule: of the optimiser's learning rates, which are the peaks.
        loss: scalar, nats per example. On a GPU it is recorded: it must do the same operations in every step, on
            tensors that stay in place.
        before_step: takes the step's number, from 1; what differs from step to step belongs here.
        after_epoch: takes the epoch's number, from 1, and its mean training loss; is called where `progress` says that
            the network is scored, and after the last epoch.
        progress: is updated after every epoch; epochs that it has already are not trained again.
        also: tensors that `loss` or `before_step` change, in addition to those of the model and the optimiser.
    Raises:
        TrialFailed: the training loss of an epoch is not a finite number.
    """
    progress = progress or Progress()
    epoch_batches = EpochBatches(data, augment, mixup=mixup)
    others = [*(p for group in optimiser.param_groups for p in group["params"]), *also]
    rates = schedule(epoch_batches, optimiser, epochs, batch_size, rate_schedule)
    state = progress.begin()
    if state and len(state["others"]) != len(_others(model, others)):
        progress.restart()
        state = None
    done = _restore(state, model, others, optimiser, generator)
    trained = train_epochs(
        model,
        epoch_batches,
        loss,
        optimiser,
        rates=rates,
        generators=[generator],
        epochs=range(done + 1, epochs + 1),
        batch_size=batch_size,
        before_step=before_step,
    )
    for epoch, (mean,) in trained:
        require_finite(mean)
        state = _state(epoch, model, others, generator)
        progress.keep({**state, "optimiser": optimiser.state_dict()})
        if progress.scores(epoch, epochs):
            after_epoch(epoch, mean)
    # The next phase changes the model: keep a copy of it as it is now.
    state = _state(epochs, model, others, generator)
    copied = {k: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in state["model"].items()}
    progress.keep({**state, "model": copied, "others": [tensor.clone() for tensor in state["others"]]})


def schedule(
    epoch_batches: EpochBatches,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    rate_schedule: RateSchedule = cosine_schedule,
) -> list[list[float]]:
    """Learning rates in every step of so many epochs, with the optimiser's rates now as the peaks."""
    steps = epochs * len(epoch_batches.split(batch_size))
    return rate_schedule([float(group["lr"]) for group in optimiser.param_groups], steps)


def train_epochs(
    model: nn.Module,
    epoch_batches: EpochBatches,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    rates: Sequence[Sequence[float]],
    generators: Sequence[torch.Generator],
    epochs: range,
    batch_size: int,
    before_step: Callable[[int], None] | None,
) -> Iterator[tuple[int, list[float]]]:
    """Train one network, or several as one module, and hand over after every epoch.

    Args:
        loss: scalar or (members,), as `epoch_batches` has members.
        rates: as `schedule` gives them, from the first epoch on.
        generators: draw the order of the examples; one for each member.
        epochs: their numbers, from 1.
    Yields: the epoch's number, and its mean training loss for each member.
    """
    batches = epoch_batches.split(batch_size)
    total = torch.zeros(epoch_batches.order.shape[:-1], device=epoch_batches.order.device)
    run = make_step(model, epoch_batches, loss, optimiser, total)
    for epoch in epochs:
        model.train()
        total.zero_()
        epoch_batches.shuffle(*generators)
        run_epoch(run, batches, optimiser, rates, (epoch - 1) * len(batches), before_step)
        yield epoch, [value / len(epoch_batches.data.train) for value in total.view(-1).tolist()]


def epoch_row(epoch: int, phase: str, train_loss: float, metrics: Mapping[str, float]) -> Row:
    """The row that an epoch reports."""
    return {"epoch": epoch, "phase": phase, "train_loss": train_loss, **metrics}


def require_finite(loss: float) -> float:
    """An epoch's mean training loss, where it is a finite number.

    Raises:
        TrialFailed: it is not.
    """
    if not math.isfinite(loss):
        raise TrialFailed(f"the training loss became {loss}")
    return loss


def _state(epoch: int, model: nn.Module, others: Sequence[Tensor], generator: torch.Generator) -> TrainingState:
    """Where a training is after an epoch: the very tensors, not copies."""
    state, random = dict(model.state_dict()), _random_states(generator)
    return {"epoch": epoch, "model": state, "others": _others(model, others), "random": random}


def _others(model: nn.Module, others: Sequence[Tensor]) -> list[Tensor]:
    """Those of the tensors that are not part of the model's own state."""
    own = {tensor.data_ptr() for tensor in tensors_of(model).values()}
    return [t.detach() for t in others if t.data_ptr() not in own]


def _random_states(generator: torch.Generator) -> list[Tensor]:
    """Of the order of examples, of dropout on the host, and of dropout on a GPU."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [generator.get_state(), torch.get_rng_state(), *cuda]


@torch.no_grad()
def _restore(
    state: TrainingState | None,
    model: nn.Module,
    others: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """Go back to where a stopped trial was. Returns the number of epochs that are done."""
    if state is None:
        return 0
    for tensor, saved in zip(_others(model, others), state["others"], strict=True):
        tensor.copy_(saved)
    load_tensors(model, state["model"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        for group in optimiser.param_groups:  # as before `make_step`: it may have been on another device
            group |= {"lr": float(group["lr"]), **({"capturable": False} if "capturable" in group else {})}
    own, host, *cuda = state["random"]
    generator.set_state(own)
    torch.set_rng_state(host)
    if cuda:
        torch.cuda.set_rng_state(cuda[0])
    return state["epoch"]


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor, data: Splits, batch_size: int = 512) -> Tensor:
    """Logits in evaluation mode of uint8 images, (n, channels, height, width) → (n, classes)."""
    model.eval()
    return torch.cat([model(normalise(x, data.mean, data.std, len(data.shape))) for x in images.split(batch_size)])


def evaluate(model: nn.Module, part: Part, data: Splits) -> Score:
    """Score a model on a part, which lies on the model's device and is normalised as the training part is."""
    logits = logits_of(model, part.images, data)
    loss = float(F.cross_entropy(logits, part.labels))
    return Score(loss, 100.0 * float((logits.argmax(dim=1) == part.labels).double().mean()))

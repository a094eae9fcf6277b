"""One network: what it is built and trained from, its training on labels, and its weights as arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.models import custom, registry
from study.models.state import load_tensors, tensors_of
from study.models.zoo import Options
from study.settings import MAX_SEED
from study.training.batches import Batch
from study.training.labels import label_loss
from study.training.loop import Loss, Report, epoch_row, evaluate, train
from study.training.optimiser import WeightAverage, make_optimiser
from study.training.precision import logits
from study.training.recipe import Recipe
from study.training.schedules import learning_rates


@dataclass(frozen=True)
class Training:
    """How one network is built and trained, a teacher or a student.

    Attributes:
        network, options: as `models.build` takes them.
        learning_rate: peak rate, which the recipe's schedule starts from.
        weight_decay: decoupled or not, see `Recipe.optimizer`.
        augment: one of `batches.AUGMENTATIONS`.
        precision: as `precision.logits` takes it.
        recipe: how it is optimised.
        contiguous: in torch's ordinary memory layout rather than channels last, for a network that cannot take that.
    """

    network: str
    options: Options = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    augment: str = "none"
    seed: int = 0
    precision: str | None = None
    contiguous: bool = False
    recipe: Recipe = Recipe()

    def key(self) -> dict[str, object]:
        """What determines the network that comes out, as JSON values, for the key of a cache."""
        own = {k: v for k, v in vars(self).items() if k != "recipe" and (k != "contiguous" or v)}
        return {**own, **self.recipe.key()}


_SEEDING = threading.Lock()
"""All threads share the host's sequence of random numbers."""


def build_network(training: Training, data: Splits) -> nn.Module:
    """The network, initialised from the seed, on the data's device."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = registry.build(training.network, data.shape, len(data.classes), **training.options)
    model = model.to(data.train.images.device)
    # Channels last: a step of LeNet-5 takes two thirds of the time on a CPU, and tensor cores want it on a GPU.
    return model if training.contiguous else model.to(memory_format=torch.channels_last)


def start_network(training: Training, data: Splits, initial: Mapping[str, Tensor] | None) -> nn.Module:
    """The network as its training starts, on the data's device: initialised from the seed, but for the tensors of its
    state that were brought."""
    model = build_network(training, data)
    if initial:
        load_tensors(model, {**tensors_of(model), **initial})
    return model


def fit_teacher(
    training: Training,
    data: Splits,
    on_epoch: Report,
    progress: Progress | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Train a network on the labels alone, and report every epoch. `initial`: see `start_network`."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return label_loss(logits(model, batch.images, training.precision), batch, training.recipe.label_smoothing)

    return train_network(training, data, loss, on_epoch, progress, initial)


def train_network(
    training: Training,
    data: Splits,
    loss: Loss,
    on_epoch: Report,
    progress: Progress | None,
    initial: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network, train it by its recipe under `loss`, and report every epoch. `initial`: see `start_network`.

    Returns: the network after its last epoch, or the moving average of its weights where the recipe has one.
    """
    model, recipe = start_network(training, data, initial), training.recipe
    optimiser = make_optimiser(recipe, model.parameters(), training.learning_rate, training.weight_decay)
    average = WeightAverage(model, recipe.ema) if recipe.ema else None
    if average:
        average.follow(optimiser)

    def after_epoch(epoch: int, train_loss: float) -> None:
        with average.in_model() if average else nullcontext():
            score = evaluate(model, data.validation, data)
        on_epoch(epoch_row(epoch, "train", train_loss, {"val_loss": score.loss, "val_accuracy": score.accuracy}))

    train(
        model,
        data,
        loss,
        optimiser,
        epochs=training.epochs,
        batch_size=training.batch_size,
        generator=torch.Generator().manual_seed(training.seed),
        augment=training.augment,
        mixup=recipe.mixup,
        rate_schedule=partial(learning_rates, recipe, training.epochs),
        after_epoch=after_epoch,
        progress=progress,
        also=average.state if average else (),
    )
    if average:
        average.keep()
    return model


def state_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of the state dict as NumPy arrays, on the host."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors_of(model).items()}


def load_network(state: Mapping[str, Tensor], training: Training, data: Splits) -> nn.Module:
    """The network with these weights, on the data's device.

    Raises:
        RuntimeError: the weights are not this network's.
    """
    model = build_network(training, data)
    load_tensors(model, state)
    return model


RECIPE = 1
"""Part of every cache key. Raise it when networks are trained or initialised in another way than before."""

TEACHER_SEED_OFFSET = 1_000_003
"""Added to the seed of a teacher of the same architecture; far from the seeds that phases and fresh seeds take."""


def teacher_apart(teacher: Training, taught: Training) -> Training:
    """A teacher that starts from other weights than the network it teaches, also where both are the same network."""
    if (teacher.network, teacher.options) != (taught.network, taught.options):
        return teacher
    return replace(teacher, seed=(teacher.seed + TEACHER_SEED_OFFSET) % (MAX_SEED + 1))


def is_listed(network: str, listed: str | None) -> bool:
    """Whether a network is in a list with commas, such as the setting `contiguous`."""
    return network in (listed or "").split(",")


def width_option(value: float | None) -> Options:
    """The option of a network's width; none for 1, since only the VGG kinds take it."""
    return {} if value in (None, 1.0) else {"width": value}


def normalisation_key(data: Splits) -> dict[str, object]:
    """Part of the key of shared work that stands for constants of normalisation other than the training part's own."""
    return {"normalise": [list(data.mean), list(data.std)]} if data.train_mean else {}


def custom_code_key(data: Splits, *trainings: Training | None) -> dict[str, list[str]]:
    """Part of the key of shared work that stands for the code of a user's own networks; empty if there are none.

    Code that is in no file cannot be compared, so its key is unique and the work is never found in the cache.
    """
    own = [t for t in trainings if t and custom.is_custom(t.network)]
    return {"code": [custom.identity(t.network, build_network(t, data)) or uuid4().hex for t in own]} if own else {}

"""One step of training before a study starts, as its trials take it: what cannot be trained is known then."""

from __future__ import annotations

import contextlib
import ctypes
import io
import random
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from study.artifacts.finite import not_finite
from study.data.splits import Part, Splits, as_tensor
from study.errors import one_line
from study.training.batches import Batch, EpochBatches
from study.training.labels import label_loss
from study.training.loop import logits_of, schedule, train_epochs
from study.training.network import Training, build_network, load_network, state_arrays
from study.training.optimiser import make_optimiser
from study.training.precision import logits

EXAMPLES = 2
"""Images in the step: batch-norm needs two, and a large network takes many seconds for more."""
NO_GRADIENT = 1e30
"""No gradient of a first step is as large; what is comes from memory that nothing has written."""
RATE = 1e-4
"""Learning rate of the step: a user's own may be meant for a network that has been trained for a while."""


class CannotTrain(Exception):
    """A network that cannot be trained; the message has the cause and, where known, the layer and the line."""


def rehearse(training: Training, data: Splits, *, device: str = "cpu", trained: bool = True) -> None:
    """Take one step of training on some images, evaluate the network, and build it again from what is kept of it.

    All is as in a trial: training mode, memory layout, precision, backward pass, optimiser, state dict. The caller's
    random numbers stay as they are.

    Args:
        device: that trials have.
        trained: whether the study trains the network, and not only evaluates it.
    Raises:
        CannotTrain: something of that fails, or yields a number that is not finite.
        UserError: the network cannot be built.
    """
    few = replace(data, train=_some(data.train), validation=_some(data.validation)).to(device)
    with _random_numbers_unchanged(few), _unwritten_memory_is_huge():
        model = build_network(training, few)
        try:
            if trained:
                _take_step(model, training, few)
            _build_again(model, training, few)
        except CannotTrain:
            raise
        except Exception as error:  # whatever a layer, a loss or an optimiser raises
            places = [place for place in (_layer(training, few), _line(error)) if place]
            raise CannotTrain(one_line(error) + "".join(f"; {place}" for place in places)) from error


def _some(part: Part) -> Part:
    return part[torch.arange(min(EXAMPLES, len(part)), device=part.labels.device)]


@contextlib.contextmanager
def _random_numbers_unchanged(data: Splits) -> Iterator[None]:
    device = data.train.images.device
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@contextlib.contextmanager
def _unwritten_memory_is_huge() -> Iterator[None]:
    """Fill memory that is handed out with numbers of 1e38, so that a kernel is noticed that reads what nothing wrote.

    torch's depthwise convolution of stride 2 on one pixel is such a kernel, in bfloat16 and channels last: what it
    reads is mostly zero, and now and then NaN. Only the GNU C library can do this.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        yield
        return
    mallopt(_M_PERTURB, 1)
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


_M_PERTURB = -6  # malloc.h; the byte handed out is the complement of the value, 0xFE


def _take_step(model: nn.Module, training: Training, data: Splits) -> None:
    _require_finite(model, "as it is built")
    classes = len(data.classes)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = logits(model, batch.images, training.precision)
        if tuple(output.shape) != (len(batch.labels), classes):
            raise CannotTrain(f"in training mode it gives {tuple(output.shape)} for {len(batch.labels)} images, but "
                              f"logits of shape ({len(batch.labels)}, {classes}) are needed")  # fmt: skip
        return label_loss(output, batch)

    batches = EpochBatches(data, training.augment)
    # Gradients are looked at afterwards: unclipped.
    optimiser = make_optimiser(replace(training.recipe, clip_norm=0.0), model.parameters(), RATE, weight_decay=1e-2)
    size = len(data.train)
    rates = schedule(batches, optimiser, 1, size)
    generators = [torch.Generator().manual_seed(training.seed)]
    steps = train_epochs(
        model,
        batches,
        loss,
        optimiser,
        rates=rates,
        generators=generators,
        epochs=range(1, 2),
        batch_size=size,
        before_step=None,
    )
    for _, (value,) in steps:
        if not np.isfinite(value):
            raise CannotTrain(f"the loss of its first step is {value}")
    for name, p in model.named_parameters():
        if p.grad is not None and not float(p.grad.abs().max()) < NO_GRADIENT:
            raise CannotTrain(f"the gradient of {name} has numbers that were not computed, or are not finite")
    _require_finite(model, "after its first step")


def _require_finite(model: nn.Module, when: str) -> None:
    if problem := not_finite(state_arrays(model)):
        raise CannotTrain(f"{when}, {problem}")


def _build_again(model: nn.Module, training: Training, data: Splits) -> None:
    """Save the network as trials do, and see that what is built from it answers as it does."""
    before = _answers(model, data)
    if not bool(before.isfinite().all()):
        raise CannotTrain("its answers are not finite numbers")
    arrays = state_arrays(model)
    save({name: array.reshape(-1)[:1] for name, array in arrays.items()})
    torch.save({k: v for k, v in model.state_dict().items() if not isinstance(v, Tensor)}, io.BytesIO())
    again = load_network({name: as_tensor(array) for name, array in arrays.items()}, training, data)
    if _differ(before, _answers(again, data)) and not _differ(before, _answers(model, data)):
        raise CannotTrain("built again from its state dict it gives other answers; keep what these depend on in "
                          "parameters and buffers")  # fmt: skip


def _differ(some: Tensor, others: Tensor) -> bool:
    return not torch.allclose(some, others, rtol=1e-3, atol=1e-3)


def _answers(model: nn.Module, data: Splits) -> Tensor:
    torch.manual_seed(0)
    return logits_of(model, data.validation.images, data)


def _layer(training: Training, data: Splits) -> str:
    """The innermost layer in which a forward pass fails; "" where none does."""
    inside: list[str] = []
    with contextlib.suppress(Exception):
        model = build_network(training, data).train()
        for name, module in model.named_modules():
            label = f"in layer {name} ({type(module).__name__})" if name else ""
            module.register_forward_pre_hook(lambda module, inputs, label=label: inside.append(label))
            module.register_forward_hook(lambda module, inputs, output: inside.pop() and None)
        images = EpochBatches(data, training.augment).batch(torch.arange(len(data.train))).images
        logits(model, images, training.precision)
    return inside[-1] if inside else ""


def _line(error: Exception) -> str:
    """The innermost line of code that is not installed; "" where all of it is."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "site-packages" not in frame.filename and not Path(frame.filename).is_relative_to(_OURS):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""


_OURS = Path(__file__).parents[1]

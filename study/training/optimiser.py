"""The optimiser of a recipe, with gradient clipping, and the moving average of the weights.

Both are hooks of the optimiser's step, so a GPU records them with it: neither waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from study.training.recipe import WITH_MOMENTUM, Recipe
from study.training.torch_optimisers import SGD, Adam, AdamW


def make_optimiser(
    recipe: Recipe, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser of a recipe, which clips the gradients before each of its steps where the recipe says so."""
    trained = list(parameters)
    optimiser: torch.optim.Optimizer
    if recipe.optimizer in WITH_MOMENTUM:
        optimiser = SGD(
            trained,
            learning_rate,
            momentum=recipe.momentum,
            weight_decay=weight_decay,
            nesterov=recipe.optimizer == "nesterov",
            fused=True,  # the only one that reads its rate on the GPU
        )
        if recipe.momentum:  # a fused step takes all momenta or none, and a parameter may get its first gradient late
            optimiser.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in trained})
    else:
        adam = AdamW if recipe.optimizer == "adamw" else Adam
        optimiser = adam(trained, learning_rate, weight_decay=weight_decay, fused=True)
    if recipe.clip_norm:
        optimiser.register_step_pre_hook(lambda *_: _clip(trained, recipe.clip_norm))
    return optimiser


def _clip(parameters: list[nn.Parameter], norm: float) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, norm)


class WeightAverage:
    """Exponential moving average of a network's weights, and of what its batch normalisation counts.

    After step t, from 0: average ← d average + (1 − d) weights, d = min(decay, t / (9 + t)). So a short training does
    not keep its first weights. Means and variances of batch normalisation are averaged in the same way, since those of
    the last step belong to other weights. Other buffers are copied.

    References: Polyak & Juditsky (1992), https://doi.org/10.1137/0330046; the decay of early steps is that of
    TensorFlow's `ExponentialMovingAverage`, buffers are as in torchvision's reference training.

    Attributes:
        state: tensors that change in every step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.averages = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
        device = next(iter(self.averages.values())).device
        self.copied = dict(model.named_buffers()).keys() - _statistics(model)
        self.steps = torch.zeros((), device=device)
        self.state: list[Tensor] = [self.steps, *self.averages.values()]

    def follow(self, optimiser: torch.optim.Optimizer) -> None:
        """Update the average after each of the optimiser's steps."""
        optimiser.register_step_post_hook(lambda *_: self.update())

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        share = 1 - (self.steps / (9 + self.steps)).clamp(max=self.decay)
        tensors = _tensors(self.model)
        for name, average in self.averages.items():
            if name in self.copied:
                average.copy_(tensors[name])
            else:
                average.lerp_(tensors[name], share.to(average.dtype))
        self.steps += 1

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model with the average in place of its weights, and then with its weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, tensor in self._pairs():
            weights = tensor.clone()
            tensor.copy_(average)
            average.copy_(weights)

    @torch.no_grad()
    def keep(self) -> None:
        """Give the model the average for good."""
        for average, tensor in self._pairs():
            tensor.copy_(average)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        tensors = _tensors(self.model)
        return ((average, tensors[name]) for name, average in self.averages.items())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a network may replace a buffer by a new tensor."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _statistics(model: nn.Module) -> set[str]:
    """Names of the buffers with means and variances of batch normalisation."""
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)}
    return {f"{name}.{statistic}".lstrip(".") for name in norms for statistic in ("running_mean", "running_var")}

"""How a network is optimised: what people set apart from its network, its data and its rate. Without torch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

Optimizer = Literal["adamw", "adam", "sgd", "nesterov"]
Schedule = Literal["cosine", "step", "constant"]

OPTIMIZERS: tuple[str, ...] = typing.get_args(Optimizer)
SCHEDULES: tuple[str, ...] = typing.get_args(Schedule)
WITH_MOMENTUM = ("sgd", "nesterov")
"""Optimisers that have a momentum; Adam's betas stay as they are."""

MILESTONES = "0.625,0.75,0.875"
"""Epochs 150, 180 and 210 of 240, as in Tian, Krishnan & Isola (2020), https://arxiv.org/abs/1910.10699."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is optimised. The defaults are AdamW under a cosine, and nothing else.

    Attributes:
        optimizer: of `OPTIMIZERS`. Weight decay is decoupled with adamw and added to the gradient with the others.
        momentum: of sgd and nesterov, in [0, 1); the others have none.
        schedule: of `SCHEDULES`, see `schedules.learning_rates`.
        warmup_epochs: epochs in which the rates rise linearly to their peak; 0 for none.
        milestones: shares of the training after which the step schedule divides the rates by ten, with commas.
        clip_norm: norm of all gradients together above which they are scaled down to it; 0 for none.
        ema: decay of the moving average of the weights, which is evaluated and kept instead of them; 0 for none.
        mixup: parameter of the Beta distribution that mixed images have their shares from; 0 for none. See
            `batches.Mixed`.
        label_smoothing: share of the labels' term that goes to all classes alike.
    """

    optimizer: str = "adamw"
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup_epochs: int = 0
    milestones: str = MILESTONES
    clip_norm: float = 0.0
    ema: float = 0.0
    mixup: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)} must be one of {', '.join(known)}")
        for name in ("momentum", "ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more and below 1")
        for name in ("warmup_epochs", "clip_norm", "mixup"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more, and finite")
        if self.optimizer == "nesterov" and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        parse_milestones(self.milestones)

    @classmethod
    def part_of(cls, source: object, **others: object) -> Self:
        """The recipe in hyperparameters or settings that have its fields under their names; None is the default."""
        values = {f.name: others.get(f.name, getattr(source, f.name, None)) for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]

    def check_length(self, epochs: int) -> None:
        """Refuse a training that is warm-up alone.

        Raises:
            ValueError: there are no epochs after the warm-up.
        """
        if epochs and self.warmup_epochs >= epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be fewer than the {epochs} epochs of training")

    def key(self) -> Mapping[str, object]:
        """What differs from the default and has an effect, as JSON values, for the key of a cache."""
        used = {"momentum": self.optimizer in WITH_MOMENTUM, "milestones": self.schedule == "step"}
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe) if used.get(f.name, True)}
        return {name: value for name, value in values.items() if value != getattr(Recipe, name)}


def parse_milestones(text: str) -> list[float]:
    """Shares of the training from text with commas.

    Raises:
        ValueError: they are no numbers above 0 and below 1, or do not rise.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < low < high for low, high in zip(shares, [*shares[1:], 1.0], strict=True)):
        raise ValueError(
            f"milestones {text}: must be rising shares of the training, between 0 and 1, as in {MILESTONES}"
        )
    return shares

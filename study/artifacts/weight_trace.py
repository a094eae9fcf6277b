"""A trial's weights epoch by epoch, as the report's figures show them: well under 1 MB a trial."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

MOST_FRAMES = 48
"""Epochs recorded at most: every one, or every second, fourth, …"""

BINS = 301
"""Of the histograms; an odd number, so that zero is the middle of one."""

SAMPLE = 2000
"""Weights that are followed. Half are drawn evenly, half in proportion to the square of their first value: of those
drawn evenly, hardly any survive pruning."""

Fixed = dict[str, Tensor | list[str]]
"""What is the same in every frame, by name."""

Frame = dict[str, Tensor | int | str]
"""One epoch, by name; its number is `epoch`, its phase `phase`."""


class TraceState(TypedDict):
    """A trace as `torch.save` takes it."""

    fixed: Fixed
    frames: list[Frame]
    every: int


@dataclass
class Trace:
    """The weights of one trial as they move.

    Attributes:
        fixed: `edges` of the histograms, (BINS + 1,), and `index` of the weights that are followed, (sample,), both
            from the first weights that are seen; at the end also the layers and the codebook. A method may add more.
        frames: one for every epoch that is recorded; see `add`.
        every: epochs between frames.
        before: epochs of the trial before those that are counted here.
    """

    fixed: Fixed = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    every: int = 1
    before: int = 0

    @torch.no_grad()
    def add(
        self,
        epoch: int,
        phase: str,
        weights: Tensor,
        mixture: Mapping[str, Tensor] | None = None,
        nonzero: Tensor | None = None,
    ) -> None:
        """Record an epoch; one that is there already (the trial was continued) stays as it is.

        Args:
            epoch: of those that move the weights; 0 is before the first.
            weights: (weights,), as the prior sees them.
            mixture: `means`, `sigmas` and `proportions`, (components,) each, where there is one.
            nonzero: weights of each layer that are not zero, (layers,), where a method sets weights to zero as it goes.
        """
        if epoch % self.every or any(frame["epoch"] == epoch for frame in self.frames):
            return
        weights = weights.detach()
        if not self.fixed:
            self.fixed = _fixed(weights)
        counts = {} if nonzero is None else {"nonzero": nonzero.cpu()}
        self.frames.append({**self._frame(epoch, phase, weights, mixture or {}), **counts})
        if len(self.frames) > MOST_FRAMES:
            self.every *= 2
            self.frames = [frame for frame in self.frames if _epoch(frame) % self.every == 0]

    @torch.no_grad()
    def end(
        self, epoch: int, weights: Tensor, values: Tensor, assignment: Tensor, layers: Sequence[tuple[str, int]]
    ) -> None:
        """Record the quantised weights, the nonzero weights of each layer, and the codebook; `add` comes before.

        Args:
            weights, assignment: (weights,).
            values: the codebook, (values,).
            layers: name and number of weights of each shared tensor, in the order of `weights`.
        """
        self.frames.append(self._frame(epoch, "quantised", weights, {}))
        sizes = [size for _, size in layers]
        self.fixed |= {
            "layers": [name for name, _ in layers],
            "layer_weights": torch.tensor(sizes),
            "layer_nonzero": nonzero_by_layer(assignment, sizes).cpu(),
            "codebook": values.detach().float().cpu(),
            "occupancy": torch.bincount(assignment, minlength=len(values)).cpu(),
        }

    def _frame(self, epoch: int, phase: str, weights: Tensor, mixture: Mapping[str, Tensor]) -> Frame:
        edges, index = self.fixed["edges"], self.fixed["index"]
        assert isinstance(edges, Tensor) and isinstance(index, Tensor)
        inside = weights.float().clamp(float(edges[0]), float(edges[-1]))  # what lies outside is in the outermost bins
        counts = torch.histc(inside, BINS, float(edges[0]), float(edges[-1]))
        sample = weights[index.to(weights.device)]
        return {
            "epoch": epoch,
            "phase": phase,
            "counts": counts.to(torch.int32).cpu(),
            "sample": sample.half().cpu(),
            **{name: tensor.detach().float().cpu() for name, tensor in mixture.items()},
        }

    def state(self) -> TraceState:
        """The same tensors, not copies."""
        return {"fixed": self.fixed, "frames": self.frames, "every": self.every}

    def arrays(self) -> dict[str, np.ndarray]:
        """As the study folder has it: the arrays of `fixed`, and of every frame under `NAME/NUMBER`."""
        arrays = {name: np.asarray(value) for name, value in self.fixed.items()}
        arrays["epoch"] = np.asarray([_epoch(frame) + self.before for frame in self.frames])
        arrays["phase"] = np.asarray([frame["phase"] for frame in self.frames])
        for number, frame in enumerate(self.frames):
            arrays |= {f"{name}/{number}": np.asarray(v) for name, v in frame.items() if isinstance(v, Tensor)}
        return arrays


def nonzero_by_layer(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """How many weights of each layer are not zero. (weights,) → (layers,), int64.

    Args:
        weights: or which value each has, 0 being zero.
        sizes: weights of each layer.
    """
    return torch.stack([(part != 0).sum() for part in weights.split(list(sizes))])


def _epoch(frame: Frame) -> int:
    epoch = frame["epoch"]
    assert isinstance(epoch, int)
    return epoch


def _fixed(weights: Tensor) -> Fixed:
    widest = 2 * max(float(weights.abs().max()), 1e-6)
    generator = torch.Generator().manual_seed(0)
    half = min(SAMPLE // 2, len(weights))
    evenly = torch.randperm(len(weights), generator=generator)[:half]
    index = evenly
    if len(weights) > SAMPLE:
        odds = weights.double().square().cpu()
        odds += max(float(odds.max()) * 1e-12, 1e-30)  # a network of zeros has squares to draw by, too
        odds[evenly] = 0
        # As multinomial does it, which takes no more than 2**24 weights.
        keys = odds / torch.empty_like(odds).exponential_(generator=generator)
        index = torch.cat([evenly, keys.topk(half).indices])
    return {"edges": torch.linspace(-widest, widest, BINS + 1), "index": index.sort().values}


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A compressed .npz file without pickle."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(v) for name, v in arrays.items()})
    return buffer.getvalue()

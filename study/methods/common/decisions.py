"""What a pruning by score decided on: the magnitude and the gradient of each weight, for the report's figure of it."""

from __future__ import annotations

import torch
from torch import Tensor

from study.artifacts.weight_trace import Fixed

DRAWN = 1000
"""Survivors that the figure draws at most, and as many pruned weights: of both drawn evenly, few would survive."""


class Decisions:
    """|w| and v̂ of every weight when its fate was decided: a pruned one's when it was pinned, and a survivor's at the
    last pruning, since a weight that is pinned at zero has no magnitude any more.

    Args:
        survives: a mark for each weight of the network, (weights,), on the device of the training.
        power: p of the score w² v̂ᵖ. With 0 the score is the magnitude, and nothing is recorded.
    """

    def __init__(self, survives: Tensor, power: float) -> None:
        self.power = power
        self.state = [torch.zeros_like(survives, dtype=torch.float32) for _ in range(2)] if power else []
        """|w| and v̂, (weights,) each, or nothing: a part of the training's state."""

    @torch.no_grad()
    def update(self, weights: Tensor, squares: Tensor | None, undecided: Tensor) -> None:
        """Record the weights that a pruning chooses from.

        Args:
            weights, squares: all weights and their v̂ now, (weights,); None for ones.
            undecided: which are not pinned yet, (weights,), bool.
        """
        if not self.state:
            return
        squares = torch.ones_like(weights) if squares is None else squares
        for recorded, now in zip(self.state, (weights.abs(), squares), strict=True):
            recorded.copy_(torch.where(undecided, now, recorded))

    @torch.no_grad()
    def arrays(self, survives: Tensor) -> Fixed:
        """What the trace has of them, once the ramp has ended; nothing without a power, or where all weights survive.

        Args:
            survives: which weights do, (weights,), bool.
        Returns: of a sample with a fixed seed `score_magnitude`, `score_gradient` (√v̂) and `score_survives`; of all
            weights how many survive, are pruned, survive though they are not among as many of largest magnitude, and
            have no place on a logarithmic axis; the power, and the smallest score and magnitude of those that stay by
            either.
        """
        count, total = int(survives.sum()), len(survives)
        if not self.state or not 0 < count < total:
            return {}
        magnitudes, squares = (recorded.double() for recorded in self.state)
        by_magnitude = magnitudes.topk(count, sorted=False)
        agreed = int(survives[by_magnitude.indices].sum())
        scores = magnitudes.square() * squares.pow(self.power)
        positive = (magnitudes > 0) & (squares > 0)
        index = torch.cat([_sample(positive & survives), _sample(positive & ~survives)]).to(survives.device)
        return {
            "score_magnitude": magnitudes[index].float().cpu(),
            "score_gradient": squares[index].sqrt().float().cpu(),
            "score_survives": survives[index].cpu(),
            "score_counts": torch.tensor([count, total - count, count - agreed, total - int(positive.sum())]),
            "score_power": torch.tensor(self.power, dtype=torch.float64),
            "score_thresholds": torch.stack([scores[survives].min(), by_magnitude.values.min()]).cpu(),
        }


def _sample(marked: Tensor) -> Tensor:
    """Indices of `DRAWN` of the marked weights at most, the same ones each time; on the host."""
    index = marked.nonzero().flatten().cpu()
    return index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:DRAWN]]

"""How the examples of a data set are divided into its parts, and enlarged; the parts in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from study.data.images import channel_statistics, enlarge
from study.data.memory import require_memory
from study.data.splits import Part, Source, Splits


@dataclass(frozen=True)
class Division:
    """How a data set is split and enlarged; see `registry.load`.

    Attributes:
        name: of the data set.
    """

    name: str
    split_seed: int
    size: int | None
    validation_fraction: float | None

    def rows(self, source: Source) -> Mapping[str, tuple[Part, Tensor | None]]:
        """Which examples make which part; see `Source.rows`."""
        fraction = self.validation_fraction
        return source.rows(source.validation_fraction if fraction is None else fraction, self.split_seed)

    def about(self, source: Source) -> dict[str, Any]:
        """Arguments of `Splits`, without its parts and its statistics."""
        return {
            "name": self.name,
            "title": source.title,
            "classes": source.classes,
            "split_seed": self.split_seed,
            "links_left_out": source.links_left_out,
            "damaged_left_out": source.damaged_left_out,
            "code": source.code,
        }


def split(source: Source, named: str, how: Division) -> tuple[Splits, Part]:
    """Divide a data set into parts in memory; returns the splits for the search, and the test part.

    Args:
        named: the flag that a message begins with.
    Raises:
        UserError: they do not fit into memory.
    """
    rows = how.rows(source)
    if source.train.images.dtype == torch.uint8:
        _require_memory(source, how.size, named)
    parts = {}
    for name, (part, mask) in rows.items():
        chosen = part if mask is None else part[mask]
        images = enlarge(chosen.images, how.size) if chosen.images.dtype == torch.uint8 else chosen.images
        parts[name] = Part(images, chosen.labels)
    mean, std = channel_statistics(parts["train"].images)
    splits = Splits(train=parts["train"], validation=parts["validation"], mean=mean, std=std, **how.about(source))
    return splits, parts["test"]


def _require_memory(source: Source, size: int | None, named: str) -> None:
    """Refuse images that do not fit once they are split, and enlarged to this size: a copy, and its largest chunk."""
    images, (channels, height, width) = len(source.train), source.train.images.shape[1:]
    enlarged = (max(height, size or 0), max(width, size or 0))
    others = sum(len(part) for part in (source.validation, source.test) if part is not None)
    if enlarged != (height, width):
        images += len(source.train) + 2 * others  # enlarged in pieces, which are then put together
    shown = f"{enlarged[1]}×{enlarged[0]}"
    require_memory(images * channels * enlarged[0] * enlarged[1], f"{named}: its images, enlarged to {shown},")

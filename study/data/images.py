"""Images as uint8 tensors, and other data as float32: normalised, enlarged, and the statistics of their channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 2**22  # pixels that are floats at one time while a whole part is resized or summed


def normalise(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None, dimensions: int = 3) -> Tensor:
    """Zero mean and unit variance in each channel: (images / 255 − mean) / std, and of other data (x − mean) / std.

    Args:
        images: (n, channels, height, width), uint8; or (n, channels or features, …), float32.
        mean, std: one number a channel, for pixels scaled to 0…1; None for pixels so scaled, and other data as it is.
        dimensions: of one example, the channels included.
    Returns: the same shape, float32, on the same device.
    """
    if images.dtype != torch.uint8:
        if mean is None or std is None:
            return images
        # The difference first: a feature may be large, and vary little.
        centre, deviation = _centre_and_deviation(tuple(mean), tuple(std), images.device, dimensions)
        return (images - centre).div_(deviation)
    if mean is None or std is None:
        return images.float().div_(255)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return images.float().mul_(scale).add_(shift)


@functools.lru_cache(maxsize=64)
def _centre_and_deviation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dimensions: int
) -> tuple[Tensor, Tensor]:
    shape = (-1, *[1] * (dimensions - 1))
    return torch.tensor(mean, device=device).view(shape), torch.tensor(std, device=device).view(shape)


@functools.lru_cache(maxsize=64)  # two small copies to a GPU, with the wait for it, would cost more than the arithmetic
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)


def enlarge(images: Tensor, size: int | None) -> Tensor:
    """Enlarge images to at least `size` × `size`: by the largest integer that fits (bilinear), then zeros around.

    Digits of 8×8 become 32×32 by a factor of 4; MNIST's 28×28 gets two rows of zeros on every side. An odd zero goes
    below and to the right. Images that are large enough stay as they are.

    Args:
        images: (n, channels, height, width), uint8.
        size: pixels; None changes nothing.
    Returns: (n, channels, max(height, size), max(width, size)), uint8.
    """
    height, width = images.shape[2:]
    if size is None or min(height, width) >= size:
        return images
    factor = max(1, size // max(height, width))
    down, right = (max(0, size - side * factor) for side in (height, width))
    padding = (right // 2, right - right // 2, down // 2, down - down // 2)
    chunks = []
    for chunk in images.split(max(1, _CHUNK // math.prod((images.shape[1], size, size)))):
        if factor > 1:
            scaled = F.interpolate(chunk.float(), scale_factor=factor, mode="bilinear", align_corners=False)
            chunk = scaled.round_().to(torch.uint8)
        chunks.append(F.pad(chunk, padding))
    return torch.cat(chunks)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel, for pixels scaled to 0…1.

    Args:
        images: (n, channels, height, width), uint8; or (n, channels or features, …), float32, which is not scaled.
    """
    if images.dtype != torch.uint8:
        return _statistics_of_numbers(images)
    pixels = images.numel() // images.shape[1]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in images.split(max(1, _CHUNK // math.prod(images.shape[1:]))):
        # Sums of integers below 2**53 are exact in float64.
        x = chunk.double()
        total += x.sum(dim=(0, 2, 3))
        squares += x.square_().sum(dim=(0, 2, 3))
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std[std == 0] = 255.0  # a blank channel carries nothing, and dividing it by 1 keeps it finite
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _statistics_of_numbers(examples: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    axes = [axis for axis in range(examples.dim()) if axis != 1]
    chunks = examples.split(max(1, _CHUNK // math.prod(examples.shape[1:])))
    count = examples.numel() // examples.shape[1]
    mean = torch.stack([chunk.double().sum(dim=axes) for chunk in chunks]).sum(dim=0) / count
    shape = (-1, *[1] * (examples.dim() - 2))
    squares = [(chunk.double() - mean.view(shape)).square_().sum(dim=axes) for chunk in chunks]
    std = (torch.stack(squares).sum(dim=0) / count).sqrt()
    std[std <= _ROUNDING * mean.abs()] = 1.0  # a constant carries nothing, and dividing it by 1 keeps it finite
    return _as_float32(mean), _as_float32(std)


_ROUNDING = 1e-10  # of sums in float64, with much to spare


def _as_float32(numbers: Tensor) -> tuple[float, ...]:
    """With no more digits than float32 has: the header of a compressed file holds two numbers for each feature."""
    return tuple(float(f"{number:.9g}") for number in numbers.tolist())

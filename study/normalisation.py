"""Constants that images are normalised by, as `--normalise` names them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from study.errors import UserError

DATA = "data"
"""Stands for the constants of the training part."""
FORMS = f"{DATA}, imagenet, or MEAN/STD such as 0.485,0.456,0.406/0.229,0.224,0.225"


@dataclass(frozen=True)
class Constants:
    """Of each channel, for pixels scaled to 0…1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f"mean {_listed(self.mean)}, std {_listed(self.std)}"


IMAGENET = Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of ImageNet's training images, by which most published networks were trained."""


def parse(text: str | None) -> Constants | None:
    """The constants that `--normalise` names; None for those of the training part, which only the data say.

    Raises:
        UserError: it names none.
    """
    if text is None or text == DATA:
        return None
    if text == "imagenet":
        return IMAGENET
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise UserError(f"--normalise {text}: give {FORMS}") from None
    if len(mean) != len(std):
        raise UserError(f"--normalise {text}: has {len(mean)} and {len(std)} numbers; give as many of each")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise UserError(f"--normalise {text}: give finite numbers, those behind the / above 0")
    return Constants(mean, std)


def for_channels(constants: Constants, channels: int, named: str, *, pixels: bool = True) -> Constants:
    """The constants with one number for each channel of the images: a single number holds for all, and grey images take
    the mean of ImageNet's three.

    Args:
        named: what gives the constants, as a message begins: "--normalise imagenet".
        pixels: whether images are pixels, which are scaled to 0…1 before.
    Raises:
        UserError: there are more or fewer numbers than channels, or they are for pixels of 0 to 255.
    """
    count = len(constants.mean)
    if pixels and (max(constants.mean) > 1 or min(constants.mean) < 0 or max(constants.std) > 1):
        raise UserError(f"{named}: pixels are scaled to 0…1 first; give a mean of 0 to 1, and a std of 1 at most")
    if count == channels:
        return constants
    if count == 1:
        return Constants(constants.mean * channels, constants.std * channels)
    if channels == 1 and constants == IMAGENET:
        return Constants((sum(constants.mean) / count,), (sum(constants.std) / count,))
    raise UserError(
        f"{named}: has {count} numbers, but the images have {channels} channel{'s' * (channels > 1)}; give one number, "
        "or as many as that"
    )


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)

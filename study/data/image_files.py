"""One image file: its size as people see it, and its pixels as 8-bit grey or RGB, whatever its mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from study.data.folder_files import unreadable
from study.errors import UserError

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_SIXTEEN_BITS = 2**16 - 1
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientations that swap width and height."""
_REDUCING_GAP = 3.0
"""A JPEG may be decoded at an eighth of its size, if that is so many times as large as what it is resized to."""


class DamagedImage(Exception):
    """A file that is damaged, or no image; the message says why."""


@dataclass(frozen=True)
class Header:
    """What a file says of its image, turned as its EXIF entry has it."""

    colour: bool
    height: int
    width: int


def read_header(path: Path) -> Header:
    """As the header of the file has it; nothing is decoded.

    Raises:
        DamagedImage: no image.
        UserError: a file that cannot be read, or a mode that cannot be converted.
    """
    with _opened(path) as image:
        if image.mode not in (*_GREY, *_COLOUR):
            raise UserError(
                f"{path} has the mode {image.mode}, of which nobody knows what is white. To fix it: save it as RGB, or "
                "as grey of 8 or 16 bits"
            )
        width, height = image.size
        if _orientation(image) in _TURNS:
            height, width = _stored_size(image)
        return Header(image.mode in _COLOUR, height, width)


def read_pixels(path: Path, colour: bool, image_size: int | None = None) -> np.ndarray:
    """The image, upright, alpha on white, 8-bit: (1 or 3, height, width), uint8.

    Args:
        image_size: the shorter side is resized to it, with antialiasing, and the centre is cropped to a square.
    Raises: as `read_header`.
    """
    with _opened(path) as image:
        if image_size is not None:
            shrink = _REDUCING_GAP * image_size / min(image.size)
            image.draft(None, (int(shrink * image.width) + 1, int(shrink * image.height) + 1))  # JPEG alone
        converted = _in_8_bits(_upright(image), path)
        if image_size is not None:
            converted = _fit(converted, image_size)
        mode = "RGB" if colour else "L"
        pixels = np.asarray(converted if converted.mode == mode else converted.convert(mode))
    return pixels.transpose(2, 0, 1) if colour else pixels[None]


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it has none, or one that cannot be read."""
    try:
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))  # PngImageFile's own would decode the image
    except Exception:  # EXIF data are as damaged as any, and the image need not be
        return 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as they are stored; of a TIFF file that is to be turned, Pillow gives them the other way."""
    size: tuple[int, int] = getattr(image, "_tile_size", image.size)
    return size


def _upright(image: Image.Image) -> Image.Image:
    """The image, decoded and turned."""
    turn = _TURNS.get(_orientation(image)) if image.format == "TIFF" else None
    if turn is not None:  # Pillow 13 itself mixes up the rows of such a file, if it is not compressed
        image.getexif()[_ORIENTATION] = 1
        image._size = _stored_size(image)
        return image.transpose(turn)
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def _in_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """As L or RGB."""
    if image.mode.startswith("I"):
        return _from_16_bits(image, path)
    if image.mode == "La":
        image = image.convert("LA")
    grey = image.mode in _GREY
    if image.has_transparency_data:
        if image.mode == "1":
            image = image.convert("L")
        layers = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        return flat.getchannel(0) if grey else flat.convert("RGB")
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scaled, where Pillow's own conversion cuts off at 255."""
    numbers = np.asarray(image).astype(np.int64)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= _SIXTEEN_BITS:
        raise UserError(
            f"{path} has values from {numbers.min()} to {numbers.max()}, of which nobody knows what is white. To fix "
            f"it: save it with 16 bits, 0 to {_SIXTEEN_BITS}"
        )
    return Image.fromarray(np.rint(numbers / 257).astype(np.uint8))


def _fit(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, in this size."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # first: a long strip would grow beyond memory
    return square if side == size else square.resize((size, size), Image.Resampling.BILINEAR)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (UserError, DamagedImage):
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory. To fix it: give smaller images") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error, by format
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise DamagedImage(" ".join(str(error).split()) or type(error).__name__) from error

"""A user's own images: DIR/train/CLASS/* and DIR/test/CLASS/*."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from study.data.folder_files import SUFFIXES, find_images, unreadable
from study.data.memory import require_memory
from study.data.splits import Part, Source
from study.errors import UserError, printable

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

_DECODERS = min(8, os.cpu_count() or 1)
_PARTS = ("train", "test")
_LAYOUT = "--dataset folder needs one folder of images for each class there"
_FOLDER_TITLES = {"cifar10-jpeg": "CIFAR-10 (JPEG)"}  # re-encoded pixels must never pass for the original ones


def read_folder(data_dir: Path | None) -> Source:
    if data_dir is None:
        raise UserError(
            "--data-dir is missing: --dataset folder needs a folder that holds train/CLASS/ and test/CLASS/"
        )
    for part in _PARTS:
        if not (data_dir / part).is_dir():
            raise UserError(f"{data_dir / part} is missing or not a folder: {_LAYOUT}")
    with warnings.catch_warnings():  # here, since other threads must not change filters
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what does not fit is refused by its size
        return _read(data_dir)


def _read(data_dir: Path) -> Source:
    found = find_images(data_dir, _PARTS)
    _check_classes(data_dir, found.classes)
    classes = list(found.classes["train"])
    like = found.classes["train"][classes[0]][0]
    shape = _shape(like)
    counts = {part: [len(files) for files in found.classes[part].values()] for part in _PARTS}
    total = sum(map(sum, counts.values()))
    # The training images are copied once, when they are split, and each decoder may hold an image twice.
    needed = (total + sum(counts["train"]) + 2 * _DECODERS) * math.prod(shape)
    require_memory(needed, f"--data-dir {data_dir}: its {total:,} images of {_describe(shape)}")
    parts = []
    for part in _PARTS:
        files = [file for of_class in found.classes[part].values() for file in of_class]
        labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts[part]))
        parts.append(Part(_decode(files, like, shape), labels))
    title = printable(data_dir.resolve().name)
    return Source(
        title=_FOLDER_TITLES.get(title, title),
        classes=tuple(map(printable, classes)),
        train=parts[0],
        test=parts[1],
        validation_fraction=0.1,
        links_left_out=found.left_out,
    )


def _check_classes(data_dir: Path, classes: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Refuse parts without classes or with different ones, and classes without images."""
    for part in _PARTS:
        if not classes[part]:
            raise UserError(f"{data_dir / part} holds no class folder: {_LAYOUT}")
    for part in _PARTS:
        for name, files in classes[part].items():
            if not files:
                raise UserError(
                    f"{data_dir / part / name} holds no image. To fix it: add some ({', '.join(SUFFIXES)}) or delete it"
                )
    for here, there in (_PARTS, _PARTS[::-1]):
        for name in classes[here]:
            if name not in classes[there]:
                raise UserError(
                    f"{data_dir / there / name} is missing: train/ and test/ must hold the same class folders. "
                    f"To fix it: put images of {name} there, or delete the other folder {name}"
                )
    if len(classes["train"]) < 2:
        raise UserError(
            f"{data_dir / 'train'} holds only one class folder, {next(iter(classes['train']))}: a classifier needs at "
            "least two. To fix it: add a folder for each other class to train/ and to test/"
        )


def _decode(files: Sequence[Path], like: Path, shape: Shape) -> Tensor:
    """Decode images that all have the shape of `like`. Returns (n, *shape), uint8."""
    images = np.empty((len(files), *shape), np.uint8)

    def fill(start: int) -> None:
        for i, file in enumerate(files[start : start + 256], start):
            images[i] = _pixels(file, like, shape)

    pool = ThreadPoolExecutor(_DECODERS)  # the decoders run outside Python's lock
    try:
        for _ in pool.map(fill, range(0, len(files), 256)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.from_numpy(images)


def _shape(path: Path) -> Shape:
    """As the header of the file has it; nothing is decoded."""
    with _opened(path) as image:
        return 1 if _mode(image, path) == "L" else 3, image.height, image.width


def _pixels(path: Path, like: Path, shape: Shape) -> np.ndarray:
    """(channels, height, width), uint8; one channel for black-and-white and grey, three for palette and RGB.

    An image of another shape is refused by its header, before it is decoded: a small file may hold a huge image.
    """
    with _opened(path) as image:
        mode = _mode(image, path)
        own = (1 if mode == "L" else 3, image.height, image.width)
        if own != shape:
            raise UserError(
                f"{path} is {_describe(own)}, but {like} is {_describe(shape)}: "
                "all images must have the same size and mode"
            )
        pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    pixels = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    if pixels.shape != shape:
        raise UserError(f"{path} is damaged: its size is not that of its header. To fix it: restore or delete it")
    return pixels


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory. To fix it: give smaller images") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error, by format
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or no image ({reason}). To fix it: restore or delete it") from error


def _mode(image: Image.Image, path: Path) -> str:
    mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    if mode not in ("L", "RGB"):
        raise UserError(f"{path} has the mode {mode}. To fix it: save it as 8-bit grey (L) or RGB")
    return mode


def _describe(shape: Shape) -> str:
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"

"""A user's own images: DIR/train/CLASS/* and DIR/test/CLASS/*."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from study.data.splits import Part, Source
from study.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of ImageFolder
_FOLDER_TITLES = {"cifar10-jpeg": "CIFAR-10 (JPEG)"}  # re-encoded pixels must never pass for the original ones


def read_folder(data_dir: Path | None) -> Source:
    if data_dir is None:
        raise UserError(
            "--data-dir is missing: --dataset folder needs a folder that holds train/CLASS/ and test/CLASS/"
        )
    train, test = (_class_folders(data_dir / part) for part in ("train", "test"))
    for here, there, part in ((train, test, "test"), (test, train, "train")):
        for name in here:
            if name not in there:
                raise UserError(
                    f"{data_dir / part / name} is missing: train/ and test/ must hold the same class folders. "
                    f"To fix it: put images of {name} there, or delete the other folder {name}"
                )
    if len(train) < 2:
        raise UserError(
            f"{data_dir / 'train'} holds only one class folder, {next(iter(train))}: a classifier needs at least two. "
            "To fix it: add a folder for each other class to train/ and to test/"
        )
    like = next(iter(train.values()))[0]
    parts = []
    for folders in (train, test):
        files = [file for of_class in folders.values() for file in of_class]
        counts = torch.tensor([len(of_class) for of_class in folders.values()])
        parts.append(Part(_decode(files, like), torch.arange(len(counts)).repeat_interleave(counts)))
    title = data_dir.resolve().name
    return Source(_FOLDER_TITLES.get(title, title), tuple(train), parts[0], parts[1], validation_fraction=0.1)


def _class_folders(part: Path) -> dict[str, list[Path]]:
    """Image files of each class folder; both in sorted order, so that the same folder gives the same tensors."""
    layout = "--dataset folder needs one folder of images for each class there"
    if not part.is_dir():
        raise UserError(f"{part} is missing or not a folder: {layout}")
    names = sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{part} holds no class folder: {layout}")
    classes = {name: sorted(_image_files(part / name)) for name in names}
    for name, files in classes.items():
        if not files:
            raise UserError(f"{part / name} holds no image. To fix it: add some ({', '.join(_SUFFIXES)}) or delete it")
    return classes


def _image_files(folder: Path) -> Iterator[Path]:
    for where, _, files in os.walk(folder, followlinks=True):
        for file in files:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield Path(where, file)


def _decode(files: Sequence[Path], like: Path) -> Tensor:
    """Decode images that all look like `like`. Returns (n, channels, height, width), uint8."""
    wanted = _pixels(like).shape
    images = np.empty((len(files), *wanted), np.uint8)

    def fill(start: int) -> None:
        for i, file in enumerate(files[start : start + 256], start):
            pixels = _pixels(file)
            if pixels.shape != wanted:
                raise UserError(
                    f"{file} is {_describe(pixels.shape)}, but {like} is {_describe(wanted)}: "
                    "all images must have the same size and mode"
                )
            images[i] = pixels

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # the decoders run outside Python's lock
    try:
        for _ in pool.map(fill, range(0, len(files), 256)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.from_numpy(images)


def _pixels(path: Path) -> np.ndarray:
    """(channels, height, width), uint8; one channel for black-and-white and grey, three for palette and RGB."""
    try:
        with Image.open(path) as image:
            mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
            pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError or struct.error, by format
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or no image ({reason}). To fix it: restore or delete it") from error
    if mode not in ("L", "RGB"):
        raise UserError(f"{path} has the mode {mode}. To fix it: save it as 8-bit grey (L) or RGB")
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _describe(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"

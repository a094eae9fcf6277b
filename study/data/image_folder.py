"""A user's own images: DIR/train/CLASS/*, DIR/test/CLASS/* and, if there is one, DIR/val/CLASS/*."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from study.data.folder_files import SUFFIXES, find_images
from study.data.image_files import DamagedImage, Header, read_header, read_pixels
from study.data.memory import require_memory
from study.data.progress import Progress, Tally
from study.data.splits import Part, Source
from study.errors import UserError, printable

Damaged = tuple[str, str]
"""The path of an image, and why it counts as damaged."""

_DECODERS = min(8, os.cpu_count() or 1)
_AT_ONCE = 32  # few enough that Ctrl-C, which Ray passes on between two calls, is heard soon
_VALIDATION = ("val", "valid", "validation")
_LAYOUT = "--dataset folder needs one folder of images for each class there"
_FOLDER_TITLES = {"cifar10-jpeg": "CIFAR-10 (JPEG)"}  # re-encoded pixels must never pass for the original ones
_SIZES = (224, 192, 160, 128, 96, 64, 32)
_SHOWN = 5

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reading:
    """How a folder of images is read; each is a setting of the same name.

    Attributes:
        image_size: side of the squares that all images become; None where all have one size.
        test_fraction: of the training images, for the test part of a folder that has none.
        skip_damaged: leave out damaged images rather than refuse them.
    """

    image_size: int | None = None
    test_fraction: float | None = None
    skip_damaged: bool = False


class MixedSizes(UserError):
    """Images of several sizes, and no --image-size."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: part ("train", "test", "validation") → class → files, in sorted order.
        folders: part → its folder.
        links_left_out: see `folder_files`.
    """

    root: Path
    files: Mapping[str, Mapping[str, Sequence[Path]]]
    folders: Mapping[str, Path]
    links_left_out: int

    def examples(self, part: str) -> list[tuple[Path, int]]:
        """Files with their class ids."""
        return [(file, c) for c, files in enumerate(self.files[part].values()) for file in files]

    def key(self) -> list[object]:
        """Names, sizes and times of all files, as JSON values."""
        found: list[object] = [str(self.root.resolve())]
        for part in self.files:
            for file, label in self.examples(part):
                status = file.stat()
                name = os.fsencode(file.relative_to(self.root)).hex()
                found.append([part, name, label, status.st_size, status.st_mtime_ns])
        return found


@dataclass(frozen=True)
class Scan:
    """What the headers of all files say.

    Attributes:
        shape: of every image once it is read.
        largest: bytes of the largest image as it is decoded.
        damaged: files that are no images.
    """

    shape: tuple[int, int, int]
    largest: int
    damaged: list[Damaged]


def list_images(data_dir: Path | None, reading: Reading) -> Listing:
    """Find the images, and check the layout.

    Raises:
        UserError: a part or class that is missing, or has no images.
    """
    if data_dir is None:
        raise UserError(
            "--data-dir is missing: --dataset folder needs a folder that holds train/CLASS/ and test/CLASS/"
        )
    names = {"train": "train", "test": "test"}
    own = [name for name in _VALIDATION if (data_dir / name).is_dir()]
    if len(own) > 1:
        raise UserError(f"{data_dir} holds both {own[0]}/ and {own[1]}/. To fix it: rename or delete one of them")
    if own:
        names["validation"] = own[0]
    has_test = (data_dir / "test").exists()
    if not has_test and reading.test_fraction is not None:
        del names["test"]
    elif has_test and reading.test_fraction is not None:
        raise UserError(f"--test-fraction {reading.test_fraction:g}: {data_dir} has a test part, test/; leave it out")
    for name in names.values():
        if not (data_dir / name).is_dir():
            hint = ""
            if name == "test" and not has_test and (data_dir / "train").is_dir():
                hint = ", or add --test-fraction 0.2 to take the test part from train/"
            raise UserError(f"{data_dir / name} is missing or not a folder: {_LAYOUT}{hint}")
    found = find_images(data_dir, list(names.values()))
    folders = {part: data_dir / name for part, name in names.items()}
    _check_classes(folders, {part: found.classes[name] for part, name in names.items()})
    return Listing(data_dir, {part: found.classes[name] for part, name in names.items()}, folders, found.left_out)


def _check_classes(folders: Mapping[str, Path], classes: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Refuse parts without classes or with different ones, and classes without images."""
    for part, folder in folders.items():
        if not classes[part]:
            raise UserError(f"{folder} holds no class folder: {_LAYOUT}")
    for part, folder in folders.items():
        for name, files in classes[part].items():
            if not files:
                raise UserError(
                    f"{folder / name} holds no image. To fix it: add some ({', '.join(SUFFIXES)}) or delete it"
                )
    for here, there in itertools.permutations(folders, 2):
        for name in classes[here]:
            if name not in classes[there]:
                both = f"{folders['train'].name}/ and {folders[there if here == 'train' else here].name}/"
                raise UserError(
                    f"{folders[there] / name} is missing: {both} must hold the same class folders. "
                    f"To fix it: put images of {name} there, or delete the other folder {name}"
                )
    if len(classes["train"]) < 2:
        raise UserError(
            f"{folders['train']} holds only one class folder, {next(iter(classes['train']))}: a classifier needs at "
            "least two. To fix it: add a folder for each other class to train/ and to test/"
        )


def scan(listing: Listing, reading: Reading, progress: Progress | None = None) -> Scan:
    """Read the headers of all files.

    Args:
        progress: hears of every few dozen.
    Raises:
        UserError: images of several sizes where no size is asked for, or nothing but damaged ones.
    """
    files = [file for part in listing.files for file, _ in listing.examples(part)]
    with _pillow_is_quiet():
        headers = list(_in_threads(_header_or_damage, files, "", Tally(progress, "looked at", len(files))))
    damaged = [(str(f), str(h)) for f, h in zip(files, headers, strict=True) if isinstance(h, DamagedImage)]
    usable = [(f, h) for f, h in zip(files, headers, strict=True) if isinstance(h, Header)]
    if not usable:
        raise _refuse_damaged(listing, damaged)
    like, first = usable[0]
    channels = 3 if any(h.colour for _, h in usable) else 1
    if reading.image_size is None:
        for file, header in usable:
            if (header.height, header.width) != (first.height, first.width):
                side = min(min(h.height, h.width) for _, h in usable)
                fitting = next((size for size in _SIZES if size <= side), side)
                raise MixedSizes(
                    f"{file} is {header.width}×{header.height}, but {like} is {first.width}×{first.height}: images of "
                    f"several sizes need one to become. To fix it: add --image-size {fitting}, or another size"
                )
    height, width = (reading.image_size,) * 2 if reading.image_size else (first.height, first.width)
    largest = max(h.height * h.width * (3 if h.colour else 1) for _, h in usable)
    return Scan((channels, height, width), largest, damaged)


def require_room(listing: Listing, found: Scan, in_memory: bool) -> None:
    """Refuse images that do not fit into memory: all with the copy of the training images that the split makes, if
    they are to be there, and two in each decoder."""
    channels, height, width = found.shape
    total, train = (sum(len(listing.examples(part)) for part in parts) for parts in (listing.files, ["train"]))
    held = (total + train) * channels * height * width if in_memory else 0
    what = f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"
    require_memory(held + 2 * _DECODERS * found.largest, f"--data-dir {listing.root}: its {total:,} images of {what}")


def decode(
    listing: Listing,
    found: Scan,
    reading: Reading,
    allocate: Callable[[str, tuple[int, ...]], np.ndarray],
    progress: Progress | None = None,
) -> tuple[Source, list[Damaged]]:
    """Read all images.

    Args:
        allocate: gives the array for a part of this name and shape, uint8.
        progress: hears of every few dozen images.
    Returns: the data set without its damaged images, and these.
    """
    parts, damaged, known = {}, list(found.damaged), {path for path, _ in found.damaged}
    tally = Tally(progress, "decoded", sum(len(listing.examples(part)) for part in listing.files) - len(known))
    for part in listing.files:
        examples = [(file, label) for file, label in listing.examples(part) if str(file) not in known]
        images = allocate(part, (len(examples), *found.shape))

        def fill(
            at: tuple[int, tuple[Path, int]], images: np.ndarray = images
        ) -> Damaged | None:  # the array of this round, not of the next
            row, (file, _) = at
            try:
                pixels = read_pixels(file, found.shape[0] == 3, reading.image_size)
            except DamagedImage as error:
                return str(file), str(error)
            if pixels.shape != found.shape:
                return str(file), "its size is not that of its header"
            images[row] = pixels
            return None

        with _pillow_is_quiet():
            results = list(_in_threads(fill, list(enumerate(examples)), f"Decoding {part}", tally))
        damaged += [result for result in results if result]
        whole = [row for row, result in enumerate(results) if result is None]
        for to, row in enumerate(whole if len(whole) < len(results) else ()):
            images[to] = images[row]
        labels = torch.tensor([examples[row][1] for row in whole], dtype=torch.int64)
        parts[part] = Part(torch.from_numpy(images[: len(whole)]), labels)
    title = printable(listing.root.resolve().name)
    source = Source(
        title=_FOLDER_TITLES.get(title, title),
        classes=tuple(map(printable, listing.files["train"])),
        train=parts["train"],
        test=parts.get("test"),
        validation_fraction=0.1,
        validation=parts.get("validation"),
        test_fraction=reading.test_fraction or 0.0,
        links_left_out=listing.links_left_out,
        damaged_left_out=len(damaged),
    )
    return source, damaged


def check_damaged(listing: Listing, damaged: Sequence[Damaged], reading: Reading) -> None:
    """Refuse damaged images, unless they are to be left out and every class has others.

    Raises:
        UserError: with how many there are, and the first of them.
    """
    if damaged and not reading.skip_damaged:
        raise _refuse_damaged(listing, damaged)
    gone = {path for path, _ in damaged}
    for part, classes in listing.files.items():
        for name, files in classes.items():
            if all(str(file) in gone for file in files):
                raise UserError(
                    f"{listing.folders[part] / name}: all {len(files)} of its images are damaged. To fix it: restore "
                    "them, or delete this class"
                )


def _refuse_damaged(listing: Listing, damaged: Sequence[Damaged]) -> UserError:
    shown = [f"{path} is damaged or no image ({reason})" for path, reason in damaged[:_SHOWN]]
    more = [f"{len(damaged) - _SHOWN} more are damaged"] if len(damaged) > _SHOWN else []
    count = f"--data-dir {listing.root}: {len(damaged):,} images cannot be used: " if len(damaged) > 1 else ""
    fix = "restore or delete it" if len(damaged) == 1 else "restore or delete them"
    return UserError(f"{count}{'; '.join([*shown, *more])}. To fix it: {fix}, or add --skip-damaged")


def _header_or_damage(file: Path) -> Header | DamagedImage:
    try:
        return read_header(file)
    except DamagedImage as error:
        return error


def _pillow_is_quiet() -> warnings.catch_warnings[None]:
    """Here, since other threads must not change filters: what does not fit is refused by its size, and damaged EXIF
    data do not matter."""
    return warnings.catch_warnings(action="ignore", category=Warning)


def _in_threads(call: Callable[..., Result], items: Sequence[object], doing: str, tally: Tally) -> Iterator[Result]:
    """The results in order; the decoders run outside Python's lock.

    Args:
        doing: for a progress bar in front of a terminal; "" for none.
    """
    is_over = threading.Event()

    def several(start: int) -> list[Result]:
        return [call(item) for item in items[start : start + _AT_ONCE] if not is_over.is_set()]

    starts = range(0, len(items), _AT_ONCE)
    pool = ThreadPoolExecutor(_DECODERS)
    try:
        for results in _shown(pool.map(several, starts), len(starts), doing):
            yield from results
            tally.add(len(results))
    finally:
        is_over.set()  # after Ctrl-C
        pool.shutdown(cancel_futures=True)


def _shown(chunks: Iterable[Result], count: int, doing: str) -> Iterable[Result]:
    if not doing or not sys.stderr.isatty():
        return chunks
    from rich.console import Console
    from rich.progress import track

    return track(chunks, doing, count, console=Console(stderr=True), transient=True)

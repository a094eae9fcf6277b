"""Data sets by name, as uint8 tensors that are read once and split into train, validation and test."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from study.errors import UserError

_CHUNK = 2**22  # pixels that are floats at one time while a whole part is resized or summed
_PATIENCE = 30.0  # seconds without an answer after which a download counts as failed
_DIGITS_TEST_SEED = 0  # the test part of digits is the same in every study, whatever its split seed
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of ImageFolder
_FOLDER_TITLES = {"cifar10-jpeg": "CIFAR-10 (JPEG)"}  # re-encoded pixels must never pass for the original ones


@dataclass(frozen=True, eq=False)
class Part:
    """Images with their labels. Nothing may write into them: between trials they are shared memory.

    Attributes:
        images: (n, channels, height, width), uint8, 0 to 255.
        labels: class ids, (n,), int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Part:
        """The chosen examples, as a copy. `index`: (m,) int64, or (n,) bool."""
        return Part(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Part:
        return Part(self.images.to(device), self.labels.to(device))

    def __reduce__(self) -> tuple[Callable[..., Part], tuple[np.ndarray, np.ndarray]]:
        # As NumPy arrays, because pickle (protocol 5) leaves their bytes out-of-band and Ray's object store then maps
        # them into every trial; a tensor's bytes would be copied into each.
        arrays = (tensor.cpu().contiguous().numpy() for tensor in (self.images, self.labels))
        return _part_from_arrays, (next(arrays), next(arrays))


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory, which is read-only where Ray shares it: copy before writing."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns; that nothing writes is the caller's contract, as it is Part's.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _part_from_arrays(images: np.ndarray, labels: np.ndarray) -> Part:
    return Part(as_tensor(images), as_tensor(labels))


@dataclass(frozen=True, eq=False)
class Splits:
    """What a search may see of a data set: its train and validation parts, never its test part.

    Attributes:
        name: one of `NAMES`.
        title: for people, such as "CIFAR-10 (JPEG)".
        classes: name of each class id.
        train, validation: disjoint parts.
        mean, std: of each channel over `train`, for pixels scaled to 0…1.
        split_seed: the seed that divided train from validation.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> Splits:
        return dataclasses.replace(self, train=self.train.to(device), validation=self.validation.to(device))


@dataclass(frozen=True, eq=False)
class _Source:
    """A data set as it was published; `validation_fraction` of `train` is its usual validation part."""

    title: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    validation_fraction: float


def load(
    name: str,
    data_dir: Path | None,
    *,
    split_seed: int = 0,
    size: int | None = None,
    validation_fraction: float | None = None,
) -> tuple[Splits, Part]:
    """Read a data set, enlarge its images where asked, and split it.

    Args:
        name: one of `NAMES`.
        data_dir: where the files lie, or go when downloaded; `digits` needs none.
        split_seed: divides train from validation, class by class. The test part does not depend on it.
        size: least height and width, in pixels; see `enlarge`.
        validation_fraction: share of the published training images, in (0, 1). By default 5,000 images of MNIST,
            Fashion-MNIST and CIFAR, a tenth of a folder, and 20 % of all of digits, whose test part is another 20 %.
    Returns: the splits for the search, and the test part for the confirm stage alone.
    Raises:
        UserError: an unknown name, or files that are missing, damaged or do not belong together.
    """
    if name not in _READERS:
        raise UserError(f"--dataset {name}: unknown; choose one of {', '.join(NAMES)}")
    source = _READERS[name](data_dir.expanduser() if data_dir else None)
    fraction = source.validation_fraction if validation_fraction is None else validation_fraction
    if not 0 < fraction < 1:
        raise UserError(f"the validation fraction is {fraction}; it must lie between 0 and 1")
    held_out = _stratified(source.train.labels, fraction, split_seed, source.classes, source.title)
    train, validation, test = (
        Part(enlarge(part.images, size), part.labels)
        for part in (source.train[~held_out], source.train[held_out], source.test)
    )
    mean, std = _channel_statistics(train.images)
    return Splits(name, source.title, source.classes, train, validation, mean, std, split_seed), test


def subset_per_class(part: Part, per_class: int, seed: int) -> Part:
    """Draw the same number of examples from every class.

    Args:
        part: its classes are the labels that occur in it.
        per_class: examples of each class, at least 1.
        seed: of the draw.
    Returns: per_class × classes examples, in the order of `part`.
    Raises:
        UserError: a class has fewer examples; the message names the flag `--student-examples`.
    """
    labels = part.labels.cpu().numpy()
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    scarcest = present[counts[present].argmin()]
    if not 1 <= per_class <= counts[scarcest]:
        raise UserError(
            f"--student-examples {per_class}: class {scarcest} has {counts[scarcest]} training images; "
            f"give 1 to {counts[scarcest]} per class"
        )
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in present])
    return part[torch.from_numpy(np.sort(chosen)).to(part.labels.device)]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Zero mean and unit variance in each channel: (images / 255 − mean) / std.

    Args:
        images: (n, channels, height, width), uint8.
        mean, std: one number a channel, for pixels scaled to 0…1.
    Returns: the same shape, float32, on the same device.
    """
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return images.float().mul_(scale).add_(shift)


@functools.lru_cache(maxsize=64)  # two small copies to a GPU, with the wait for it, would cost more than the arithmetic
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)


def enlarge(images: Tensor, size: int | None) -> Tensor:
    """Bring images to at least `size` × `size`: by the largest whole factor that fits (bilinear), then zeros around.

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


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel, for pixels scaled to 0…1."""
    pixels = images.numel() // images.shape[1]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in images.split(max(1, _CHUNK // math.prod(images.shape[1:]))):
        # Sums of whole numbers below 2**53 are exact in float64.
        x = chunk.double()
        total += x.sum(dim=(0, 2, 3))
        squares += x.square_().sum(dim=(0, 2, 3))
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std[std == 0] = 255.0  # a blank channel carries nothing, and dividing it by 1 keeps it finite
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _stratified(labels: Tensor, fraction: float, seed: int, classes: Sequence[str], title: str) -> Tensor:
    """Mark round(fraction × n) examples, every class in proportion and on both sides. Returns (n,) bool."""
    ids = labels.numpy()
    counts = np.bincount(ids, minlength=len(classes))
    scarcest = int(counts.argmin())
    if counts[scarcest] < 2:
        raise UserError(
            f"{title}: class {classes[scarcest]!r} has {counts[scarcest]} training images; "
            "at least 2 are needed, one to train on and one to validate"
        )
    exact = counts * fraction
    take = np.floor(exact).astype(int)
    short = round(len(ids) * fraction) - take.sum()
    take[np.argsort(take - exact, kind="stable")[:short]] += 1  # to those whose share was rounded down the most
    take = take.clip(1, counts - 1)
    rng = np.random.default_rng(seed)
    marked = torch.zeros(len(ids), dtype=torch.bool)
    for c, k in enumerate(take):
        marked[rng.permutation(np.flatnonzero(ids == c))[:k]] = True
    return marked


def _read_digits(data_dir: Path | None) -> _Source:
    # The file that `sklearn.datasets.load_digits` reads: to import that takes a second.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    pixels = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # published as 0…16
    part = Part(torch.from_numpy(pixels), torch.from_numpy(rows[:, -1].astype(np.int64)))
    classes = tuple("0123456789")
    title = "Digits 8×8"
    test = _stratified(part.labels, 0.2, _DIGITS_TEST_SEED, classes, title)
    return _Source(title, classes, part[~test], part[test], validation_fraction=0.25)


def _read_mnist(data_dir: Path | None, kind: str = "MNIST", title: str = "MNIST") -> _Source:
    from torchvision import datasets

    published: Any = getattr(datasets, kind)
    raw = Path(kind) / "raw"
    archives = {raw / archive: md5 for archive, md5 in published.resources}
    files = [file.with_suffix("") for file in archives]
    root = _fetch(published, data_dir, files, archives)
    classes = tuple(name.split(" - ")[0] for name in published.classes)  # MNIST's own read "0 - zero"
    parts = []
    for images_file, labels_file in (files[:2], files[2:]):
        images, labels = _read_idx(root / images_file, 3), _read_idx(root / labels_file, 1)
        if not len(images) == len(labels) > 0 or labels.max() >= len(classes):
            raise UserError(
                f"{root / labels_file}: {len(labels)} labels up to {labels.max(initial=0)} for {len(images)} images; "
                f"one label below {len(classes)} an image is needed: delete both files to download them again"
            )
        parts.append(Part(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64))))
    return _Source(title, classes, parts[0], parts[1], validation_fraction=1 / 12)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: 0, 0, 8, dimensions; each size as a big-endian uint32; the values.

    Reference: http://yann.lecun.com/exdb/mnist/. torchvision's reader takes any file that is there for a whole one.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    header = 4 + 4 * dimensions
    again = "delete it, and the next run downloads it again"
    if len(data) < header or data[:4].tolist() != [0, 0, 8, dimensions]:
        raise UserError(f"{path}: damaged, it does not start as an IDX file of {dimensions} dimensions; {again}")
    shape = data[4:header].view(">u4").tolist()
    if len(data) != header + math.prod(shape):
        raise UserError(f"{path}: damaged, {len(data)} bytes in place of {header + math.prod(shape)}; {again}")
    return data[header:].reshape(shape)


def _read_cifar(data_dir: Path | None, kind: str, title: str) -> _Source:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    published: Any = getattr(datasets, kind)
    folder = Path(published.base_folder)
    listed = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    checksums = {folder / file: md5 for file, md5 in listed}
    root = _fetch(published, data_dir, list(checksums), {Path(published.filename): published.tgz_md5})
    for file, md5 in checksums.items():  # before the reader, which unpickles them
        if not check_integrity(root / file, md5):
            raise UserError(
                f"{root / file}: damaged, its MD5 sum is not {md5}; delete it, and the next run downloads it again"
            )
    parts = []
    for train in (True, False):
        whole = published(root, train=train)
        images = torch.from_numpy(whole.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Part(images, torch.tensor(whole.targets, dtype=torch.int64)))
    return _Source(title, tuple(whole.classes), parts[0], parts[1], validation_fraction=0.1)


def _fetch(published: Any, data_dir: Path | None, files: list[Path], archives: Mapping[Path, str]) -> Path:
    """Download those of `files` that are missing (all paths are relative to `data_dir`). Returns `data_dir`."""
    from torchvision.datasets.utils import check_integrity

    if data_dir is None:
        raise UserError(f"--data-dir: needed; the folder that holds {files[0]}, or that shall after a download")
    missing = [file for file in files if not (data_dir / file).exists()]
    if not missing:
        return data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # torchvision unpacks in place, and takes a file that was cut short there for a whole one the next time.
        # Here it unpacks beside, and only whole files are moved in.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as name, _download_manners():
            beside = Path(name)
            for archive, md5 in archives.items():  # one that somebody carried here by hand need not be downloaded
                if check_integrity(data_dir / archive, md5):
                    (beside / archive).parent.mkdir(parents=True, exist_ok=True)
                    (beside / archive).symlink_to((data_dir / archive).resolve())
            published(beside, download=True)
            for file in missing:
                (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
                (beside / file).replace(data_dir / file)
    except Exception as error:  # network, HTTP, checksum, archive and disk each raise a kind of their own
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"--data-dir {data_dir}: {missing[0]} is not there and its download failed ({reason}); connect to the "
            f"network, or put the {len(files)} files {files[0]}, …, {files[-1]} there"
        ) from error
    return data_dir


@contextlib.contextmanager
def _download_manners() -> Iterator[None]:
    """Standard output stays the command's own, and a network that never answers is given up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)  # torchvision offers no other way to set one
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _read_folder(data_dir: Path | None) -> _Source:
    if data_dir is None:
        raise UserError("--data-dir: needed with --dataset folder; a folder that holds train/CLASS/ and test/CLASS/")
    train, test = (_class_folders(data_dir / part) for part in ("train", "test"))
    for here, there, part in ((train, test, "test"), (test, train, "train")):
        for name in here:
            if name not in there:
                raise UserError(f"{data_dir / part / name}: missing; train/ and test/ must hold the same class folders")
    if len(train) < 2:
        raise UserError(f"{data_dir / 'train'}: only one class folder, {next(iter(train))}; at least two are needed")
    like = next(iter(train.values()))[0]
    parts = []
    for folders in (train, test):
        files = [file for of_class in folders.values() for file in of_class]
        counts = torch.tensor([len(of_class) for of_class in folders.values()])
        parts.append(Part(_decode(files, like), torch.arange(len(counts)).repeat_interleave(counts)))
    title = data_dir.resolve().name
    return _Source(_FOLDER_TITLES.get(title, title), tuple(train), parts[0], parts[1], validation_fraction=0.1)


def _class_folders(part: Path) -> dict[str, list[Path]]:
    """Image files of each class folder; both in sorted order, so that the same folder gives the same tensors."""
    layout = "a folder with one folder of images a class is needed"
    if not part.is_dir():
        raise UserError(f"{part}: missing; {layout}")
    names = sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{part}: holds no class folder; {layout}")
    classes = {name: sorted(_image_files(part / name)) for name in names}
    for name, files in classes.items():
        if not files:
            raise UserError(f"{part / name}: holds no image; put some there ({', '.join(_SUFFIXES)}) or delete it")
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
                    f"{file}: {_describe(pixels.shape)}, but {like} is {_describe(wanted)}; "
                    "all images must have one size and one mode"
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
        raise UserError(f"{path}: damaged or no image ({reason}); restore or delete it") from error
    if mode not in ("L", "RGB"):
        raise UserError(f"{path}: its mode is {mode}; save it as 8-bit grey (L) or RGB")
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _describe(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"


_READERS: dict[str, Callable[[Path | None], _Source]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "fashion_mnist": functools.partial(_read_mnist, kind="FashionMNIST", title="Fashion-MNIST"),
    "cifar10": functools.partial(_read_cifar, kind="CIFAR10", title="CIFAR-10"),
    "cifar100": functools.partial(_read_cifar, kind="CIFAR100", title="CIFAR-100"),
    "folder": _read_folder,
}
NAMES: tuple[str, ...] = tuple(_READERS)

"""Images that take much of the main memory: decoded once into files, which every study and trial maps.

    CACHE/folders/KEY/PART.images    the images of a part, uint8, one after another
    CACHE/folders/KEY/PART.digests   a hash of each, by which repeated images are found
    CACHE/folders/KEY/PART.labels    class ids, int64
    CACHE/folders/KEY/about.json     everything else of the splits

An entry is complete, or not there: it is written under another name and then renamed. Nothing else refers to an entry,
so it may be deleted when no study runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.commandline import data_folder
from study.data import memory
from study.data.images import channel_statistics, enlarge
from study.data.splits import Part, Splits, as_tensor
from study.errors import UserError

SHARE = 0.25
"""Of main memory: images that take more are mapped from files."""
DIGEST = 16
"""Bytes of the hash of one image."""
_VERSION = 1
_PARTS = ("train", "validation", "test")
_ABOUT = "about.json"
_PARTIAL = ".partial-"
_DAY = 86_400.0
_CHUNK = 2**24  # bytes that are copied at one time


def is_large(needed: int) -> bool:
    """Whether so many bytes of images are mapped from files rather than held in memory."""
    return needed > SHARE * memory.main_memory()


@dataclass(frozen=True, eq=False)
class MappedPart(Part):
    """A part whose images lie in a file. Pickled it is the file's path: trials map it, too.

    Attributes:
        path: of the images.
        fingerprint: see `study.data.fingerprint`.
    """

    path: Path
    fingerprint: str

    def to(self, device: torch.device | str) -> Part:
        return self if torch.device(device).type == "cpu" else super().to(device)

    def digests(self) -> list[bytes]:
        """The hash of each image."""
        data = self.path.with_suffix(".digests").read_bytes()
        return [data[i : i + DIGEST] for i in range(0, len(data), DIGEST)]

    def __reduce__(self) -> tuple[Callable[..., Part], tuple[Any, ...]]:
        return _map, (self.path, tuple(self.images.shape), self.labels.numpy(), self.fingerprint)


def _map(path: Path, shape: tuple[int, ...], labels: np.ndarray, fingerprint: str) -> MappedPart:
    """Map a file that another process, or an earlier command, wrote."""
    return MappedPart(as_tensor(np.memmap(path, np.uint8, "r", shape=shape)), as_tensor(labels), path, fingerprint)


def digest(image: np.ndarray) -> bytes:
    """The hash of one image, (channels, height, width)."""
    return hashlib.blake2b(image.data, digest_size=DIGEST).digest()


class Entry:
    """What the cache has, or will have, of a folder that is read and split in one way.

    Args:
        key: what determines the parts, as JSON values.
    """

    def __init__(self, key: Mapping[str, object]) -> None:
        root = data_folder("", None)
        assert root is not None
        text = json.dumps({"version": _VERSION, **key}, sort_keys=True)
        self.folder = root / "folders" / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self) -> tuple[Splits, Part, list[tuple[str, str]]] | None:
        """The splits, the test part, and which images were damaged and why; None where the cache has none of that."""
        try:
            about = json.loads((self.folder / _ABOUT).read_text())
            parts = [self._part(name, about["shape"], about["parts"][name]) for name in _PARTS]
            about["splits"] |= {name: tuple(about["splits"][name]) for name in ("classes", "mean", "std")}
            splits = Splits(**about["splits"], train=parts[0], validation=parts[1])
            return splits, parts[2], [(str(path), str(reason)) for path, reason in about["damaged"]]
        except (OSError, ValueError, KeyError, TypeError):  # none, or what somebody has changed
            return None

    def _part(self, name: str, shape: list[int], fingerprint: str) -> MappedPart:
        labels = np.fromfile(self.folder / f"{name}.labels", "<i8").astype(np.int64)
        path = self.folder / f"{name}.images"
        if path.stat().st_size != len(labels) * int(np.prod(shape)):
            raise ValueError("cut")
        return _map(path, (len(labels), *shape), labels, fingerprint)

    @contextlib.contextmanager
    def workspace(self, needed: int) -> Iterator[Path]:
        """A folder next to the entry, for files that are removed at the end.

        Args:
            needed: bytes that will be written.
        Raises:
            UserError: the cache cannot be written, or its disk has no room.
        """
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f"{_PARTIAL}*"):  # of a command that was killed
                if time.time() - left.stat().st_mtime > _DAY:
                    shutil.rmtree(left, ignore_errors=True)
            free = shutil.disk_usage(parent).free
            if needed > free:
                raise UserError(
                    f"{parent}: the decoded images need {needed:,} bytes there, and {free:,} are free. To fix it: set "
                    "XDG_CACHE_HOME to a folder on a larger disk, or give fewer or smaller images (--image-size)"
                )
            with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=parent, ignore_cleanup_errors=True) as name:
                yield Path(name)
        except OSError as error:
            raise UserError(
                f"{parent}: the decoded images cannot be written there ({error.strerror or error}). To fix it: set "
                "XDG_CACHE_HOME to a folder that you may write to, on a disk with room for them"
            ) from error

    def write(
        self,
        workspace: Path,
        rows: Mapping[str, tuple[Part, Tensor | None]],
        size: int | None,
        about: Mapping[str, object],
        damaged: list[tuple[str, str]],
    ) -> None:
        """Write the parts, enlarged to `size`, and then make the entry.

        Args:
            rows: see `Source.rows`.
            about: arguments of `Splits`, without its parts and its statistics.
        """
        made = workspace / "entry"
        made.mkdir()
        prints: dict[str, str] = {}
        shape: tuple[int, ...] = ()
        for name, (part, mask) in rows.items():
            index = torch.arange(len(part)) if mask is None else mask.nonzero().flatten()
            shape, prints[name] = _write_part(made / f"{name}.images", part, index, size)
        train = np.memmap(made / "train.images", np.uint8, "r").reshape(-1, *shape)
        mean, std = channel_statistics(as_tensor(train))
        content = {"splits": {**about, "mean": mean, "std": std}, "shape": shape, "parts": prints, "damaged": damaged}
        (made / _ABOUT).write_text(json.dumps(content))
        shutil.rmtree(self.folder, ignore_errors=True)  # one that could not be read
        with contextlib.suppress(OSError):  # another command has just made the same
            made.rename(self.folder)


def allocate(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A new file of bytes, mapped for writing. Its room is taken now: a full disk would kill whoever writes later."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
    return np.memmap(path, np.uint8, "r+", shape=shape)


def _write_part(path: Path, part: Part, index: Tensor, size: int | None) -> tuple[tuple[int, ...], str]:
    """Write some examples of a part; returns the shape of one image, and the part's fingerprint."""
    shape = tuple(enlarge(part.images[:1], size).shape[1:])
    hashed, labels = hashlib.sha256(), part.labels[index].numpy()
    with path.open("wb") as images, path.with_suffix(".digests").open("wb") as digests:
        for chunk in index.split(max(1, _CHUNK // int(np.prod(shape)))):
            pixels = np.ascontiguousarray(enlarge(part.images[chunk], size).numpy())
            images.write(pixels.data)
            hashed.update(pixels.data)
            digests.write(b"".join(digest(image) for image in pixels))
    hashed.update(labels.data)
    labels.astype("<i8").tofile(path.with_suffix(".labels"))
    return shape, hashed.hexdigest()[:16]

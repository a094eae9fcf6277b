"""Images that take much of the main memory: decoded once on each machine into files, which studies and trials map.

    CACHE/folders/KEY/PART.images    the images of a part, uint8, one after another
    CACHE/folders/KEY/PART.digests   a hash of each, by which repeated images are found
    CACHE/folders/KEY/PART.labels    class ids, int64
    CACHE/folders/KEY/about.json     everything else of the splits

An entry is complete, or not there: it is written under another name and then renamed, by one process at a time. What
a process that was killed left behind is removed by the next one. Nothing else refers to an entry, so it may be deleted
when no study runs.

Pickled, a part is the name of its entry, and what that is made from (`Blueprint`). A machine looks for the entry below
its own CACHE; one that has no XDG_CACHE_HOME looks first under the path that the first machine has. If it is not there
the part is a `MissingPart`, until `folder_data.prepare` has made the entry from the machine's own copy of the images.
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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from study.commandline import data_folder
from study.data import memory
from study.data.entry_lock import lock_file
from study.data.images import channel_statistics, enlarge
from study.data.progress import Progress, Tally
from study.data.splits import Part, Splits, as_tensor
from study.errors import UserError

if TYPE_CHECKING:  # it makes entries
    from study.data.folder_data import FolderSource

SHARE = 0.25
"""Of main memory: images that take more are mapped from files."""
DIGEST = 16
"""Bytes of the hash of one image."""
_VERSION = 1
_PARTS = ("train", "validation", "test")
_ABOUT = "about.json"
_PARTIAL = ".partial-"
_LOCK = ".lock-"
_DAY = 86_400.0
_CHUNK = 2**24  # bytes that are copied at one time


def is_large(needed: int) -> bool:
    """Whether so many bytes of images are mapped from files rather than held in memory."""
    return needed > SHARE * memory.main_memory()


@dataclass(frozen=True)
class Blueprint:
    """What another machine needs to have the same entry.

    Attributes:
        folder: of the entry on the first machine. Its name is the entry's, everywhere.
        fingerprints: part → its fingerprint.
        source: what the entry is made from.
    """

    folder: Path
    fingerprints: Mapping[str, str]
    source: FolderSource


@dataclass(frozen=True, eq=False)
class MappedPart(Part):
    """A part whose images lie in a file of an entry. Pickled it has no images: trials map the file, too.

    Attributes:
        path: of the images.
        fingerprint: see `study.data.fingerprint`.
        blueprint: of the entry.
    """

    path: Path
    fingerprint: str
    blueprint: Blueprint

    def to(self, device: torch.device | str) -> Part:
        return self if torch.device(device).type == "cpu" else super().to(device)

    def digests(self) -> list[bytes]:
        """The hash of each image."""
        data = self.path.with_suffix(".digests").read_bytes()
        return [data[i : i + DIGEST] for i in range(0, len(data), DIGEST)]

    def __reduce__(self) -> tuple[Callable[..., Part], tuple[Any, ...]]:
        return find_part, (self.path.stem, self.blueprint)


class MissingPart(Part):
    """A part whose entry this machine lacks; it has neither images nor labels.

    Attributes:
        name: "train", "validation" or "test".
    """

    name: str
    blueprint: Blueprint

    def __init__(self, name: str, blueprint: Blueprint) -> None:
        vars(self).update(name=name, blueprint=blueprint)

    def __repr__(self) -> str:
        return f"MissingPart({self.name!r}, {self.blueprint.folder.name!r})"

    def __reduce__(self) -> tuple[Callable[..., Part], tuple[Any, ...]]:
        return find_part, (self.name, self.blueprint)


def find_part(name: str, blueprint: Blueprint) -> Part:
    """A part of an entry that this machine may have: a `MappedPart`, or a `MissingPart`."""
    folder = find_entry(blueprint)
    if folder is None:
        return MissingPart(name, blueprint)
    return _map_part(folder, name, json.loads((folder / _ABOUT).read_text())["shape"], blueprint)


def find_entry(blueprint: Blueprint) -> Path | None:
    """Where this machine has the entry, complete and with the same content; None where it has not."""
    # A machine with a place of its own for caches has it since that is nearer than what all machines share.
    places = [] if os.environ.get("XDG_CACHE_HOME") else [blueprint.folder]
    with contextlib.suppress(UserError):
        places.append(_folders() / blueprint.folder.name)
    for place in places:
        try:
            about = json.loads((place / _ABOUT).read_text())
            for name in _PARTS:
                _map_part(place, name, about["shape"], blueprint)
            if about["parts"] == blueprint.fingerprints:
                return place
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _map_part(folder: Path, name: str, shape: list[int], blueprint: Blueprint) -> MappedPart:
    """Map a part of an entry.

    Raises:
        OSError, ValueError, KeyError: it is not there, or not complete.
    """
    labels = np.fromfile(folder / f"{name}.labels", "<i8").astype(np.int64)
    path = folder / f"{name}.images"
    if path.stat().st_size != len(labels) * int(np.prod(shape)):
        raise ValueError("cut")
    images = np.memmap(path, np.uint8, "r", shape=(len(labels), *shape))
    return MappedPart(as_tensor(images), as_tensor(labels), path, blueprint.fingerprints[name], blueprint)


def _folders() -> Path:
    """Where entries lie on this machine.

    Raises:
        UserError: it has no place for them.
    """
    try:
        root = data_folder("", None)
    except UserError:
        raise UserError(
            "XDG_CACHE_HOME: is not set, and there is no home folder; set it to a folder on a disk"
        ) from None
    assert root is not None
    return root / "folders"


def digest(image: np.ndarray) -> bytes:
    """The hash of one image, (channels, height, width)."""
    return hashlib.blake2b(image.data, digest_size=DIGEST).digest()


def entry_name(key: Mapping[str, object]) -> str:
    """The name of an entry.

    Args:
        key: what determines its parts, as JSON values.
    """
    text = json.dumps({"version": _VERSION, **key}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Entry:
    """What the cache has, or will have, of a folder that is read and split in one way.

    Args:
        name: see `entry_name`.
        source: what it is made from.
    """

    def __init__(self, name: str, source: FolderSource) -> None:
        self.folder, self.source = _folders() / name, source

    def read(self) -> tuple[Splits, Part, list[tuple[str, str]]] | None:
        """The splits, the test part, and which images were damaged and why; None where the cache has none of that."""
        try:
            about = json.loads((self.folder / _ABOUT).read_text())
            blueprint = Blueprint(self.folder, about["parts"], self.source)
            parts = [_map_part(self.folder, name, about["shape"], blueprint) for name in _PARTS]
            about["splits"] |= {name: tuple(about["splits"][name]) for name in ("classes", "mean", "std")}
            splits = Splits(**about["splits"], train=parts[0], validation=parts[1])
            return splits, parts[2], [(str(path), str(reason)) for path, reason in about["damaged"]]
        except (OSError, ValueError, KeyError, TypeError):  # none, or what somebody has changed
            return None

    @contextlib.contextmanager
    def lock(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Let one process at a time make the entry; where the file system knows no locks, each that wants to.

        Args:
            on_wait: called where another one makes it at present.
        Raises:
            UserError: the cache cannot be written.
        """
        parent, name = self.folder.parent, self.folder.name
        with contextlib.ExitStack() as stack:
            try:
                if stack.enter_context(lock_file(parent / f"{_LOCK}{name}", on_wait)):
                    for remains in parent.glob(f"{_PARTIAL}{name}-*"):  # of a process that was killed
                        shutil.rmtree(remains, ignore_errors=True)
            except OSError as error:
                raise _not_written(parent, error) from error
            yield

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
            for remains in parent.glob(f"{_PARTIAL}*"):  # of a command that was killed
                if time.time() - remains.stat().st_mtime > _DAY:
                    shutil.rmtree(remains, ignore_errors=True)
            free = shutil.disk_usage(parent).free
            if needed > free:
                raise UserError(
                    f"{parent}: the decoded images need {needed:,} bytes there, and {free:,} are free. To fix it: set "
                    "XDG_CACHE_HOME to a folder on a larger disk, or give fewer or smaller images (--image-size)"
                )
            prefix = f"{_PARTIAL}{self.folder.name}-"
            with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
                yield Path(name)
        except OSError as error:
            raise _not_written(parent, error) from error

    def write(
        self,
        workspace: Path,
        rows: Mapping[str, tuple[Part, Tensor | None]],
        size: int | None,
        about: Mapping[str, object],
        damaged: list[tuple[str, str]],
        check: Callable[[Mapping[str, str]], None],
        progress: Progress | None = None,
    ) -> None:
        """Write the parts, enlarged to `size`, and then make the entry.

        Args:
            rows: see `Source.rows`.
            about: arguments of `Splits`, without its parts and its statistics.
            check: gets the fingerprint of each part; what it raises leaves no entry.
            progress: hears of every few megabytes of images.
        """
        made = workspace / "entry"
        made.mkdir()
        prints: dict[str, str] = {}
        shape: tuple[int, ...] = ()
        chosen = {n: torch.arange(len(p)) if m is None else m.nonzero().flatten() for n, (p, m) in rows.items()}
        tally = Tally(progress, "written", sum(map(len, chosen.values())))
        for name, (part, _) in rows.items():
            shape, prints[name] = _write_part(made / f"{name}.images", part, chosen[name], size, tally)
        check(prints)
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


def _write_part(path: Path, part: Part, index: Tensor, size: int | None, tally: Tally) -> tuple[tuple[int, ...], str]:
    """Write some examples of a part; returns the shape of one image, and the part's fingerprint."""
    shape = tuple(enlarge(part.images[:1], size).shape[1:])
    hashed, labels = hashlib.sha256(), part.labels[index].numpy()
    with path.open("wb") as images, path.with_suffix(".digests").open("wb") as digests:
        for chunk in index.split(max(1, _CHUNK // int(np.prod(shape)))):
            pixels = np.ascontiguousarray(enlarge(part.images[chunk], size).numpy())
            images.write(pixels.data)
            hashed.update(pixels.data)
            digests.write(b"".join(digest(image) for image in pixels))
            tally.add(len(pixels))
    hashed.update(labels.data)
    labels.astype("<i8").tofile(path.with_suffix(".labels"))
    return shape, hashed.hexdigest()[:16]


def _not_written(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder}: the decoded images cannot be written there ({error.strerror or error}). To fix it: set "
        "XDG_CACHE_HOME to a folder that you may write to, on a disk with room for them"
    )

"""A folder of images as parts: in memory, or mapped from the cache; and the cache's entry on another machine."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from study.commandline import say_stage
from study.data import image_folder
from study.data.division import Division, split
from study.data.image_folder import Damaged, Listing, Reading, Scan
from study.data.mapped import Blueprint, Entry, MissingPart, allocate, entry_name, find_entry, find_part, is_large
from study.data.progress import Progress
from study.data.splits import Part, Splits
from study.errors import UserError, reading_errors

ClassFiles = Mapping[str, Mapping[str, tuple[int, str]]]
"""Part → class → number of its files, and a hash of their names and sizes."""

REMEDY = "To fix it: copy the same files there, or let XDG_CACHE_HOME be on a disk that all nodes share"


@dataclass(frozen=True)
class FolderSource:
    """What an entry of the cache is made from, on every machine.

    Attributes:
        root: `--data-dir`, absolute.
        files: by which another machine's copy is compared before anything of it is decoded.
    """

    root: Path
    reading: Reading
    division: Division
    files: ClassFiles

    def difference(self, there: ClassFiles) -> str:
        """How another machine's files differ from these, or ""."""
        for part in dict.fromkeys((*self.files, *there)):
            here, other = self.files.get(part, {}), there.get(part, {})
            for name in dict.fromkeys((*here, *other)):
                (count, code), (count_there, code_there) = here.get(name, (0, "")), other.get(name, (0, ""))
                if count != count_there:
                    return f"{part}/{name} has {count_there:,} images there, and {count:,} where the study was started"
                if code != code_there:
                    return f"{part}/{name} has files of other names or sizes there than where the study was started"
        return ""


def load_folder(data_dir: Path | None, reading: Reading, how: Division) -> tuple[Splits, Part]:
    """Images of a folder: in memory, or mapped from files where they take much of it; see `registry.load`."""
    listing = image_folder.list_images(data_dir, reading)
    files = listing.key()
    own = {"image_size": reading.image_size, "test_fraction": reading.test_fraction}
    source = FolderSource(Path(os.path.abspath(listing.root)), reading, how, class_files(listing, files))
    entry = Entry(entry_name({"files": files, **own, **vars(how)}), source)
    known = entry.read()
    if known is None:
        found = image_folder.scan(listing, reading)
        large = is_large(_count(listing) * _final_bytes(found, how))
        image_folder.require_room(listing, found, in_memory=not large)
        if not large:
            images, damaged = image_folder.decode(
                listing, found, reading, lambda part, shape: np.empty(shape, np.uint8)
            )
            image_folder.check_damaged(listing, damaged, reading)
            return split(images, f"--data-dir {data_dir}", how)
        with entry.lock(lambda: say_stage("Waiting for another command that decodes the same images ...")):
            known = entry.read()
            if known is None:
                _make(entry, listing, found)
                known = entry.read()
        if known is None:
            raise UserError(f"{entry.folder}: was changed while it was written; try again")
    splits, test, damaged = known
    image_folder.check_damaged(listing, damaged, reading)
    return splits, test


def prepare(blueprint: Blueprint, progress: Progress, on_wait: Callable[[], None]) -> None:
    """Make the entry in this machine's cache, from this machine's files, unless it is there.

    Args:
        on_wait: called where another process makes it at present.
    Raises:
        UserError: the files are not here, cannot be read, or are not those of the blueprint; or there is no room.
    """
    if find_entry(blueprint):
        return
    entry = Entry(blueprint.folder.name, blueprint.source)
    with entry.lock(on_wait):
        if find_entry(blueprint):
            return
        named = f"--data-dir {blueprint.source.root}"
        with reading_errors(named):
            _make_from_copy(entry, blueprint, named, progress)
    if not find_entry(blueprint):
        raise UserError(f"{entry.folder}: was changed while it was written; try again")


def prepared(data: Splits, progress: Progress, on_wait: Callable[[], None]) -> Splits:
    """The splits with the images that this machine's cache lacked until now; see `prepare`."""

    def mapped(part: Part) -> Part:
        if not isinstance(part, MissingPart):
            return part
        prepare(part.blueprint, progress, on_wait)
        return find_part(part.name, part.blueprint)

    return dataclasses.replace(data, train=mapped(data.train), validation=mapped(data.validation))


def class_files(listing: Listing, key: Sequence[Any]) -> ClassFiles:
    """The files of each class in short, without their times, which copies seldom keep.

    Args:
        key: of the listing.
    """
    counts: dict[tuple[str, int], int] = {}
    hashes: dict[tuple[str, int], hashlib._Hash] = {}
    for part, name, label, size, _ in key[1:]:
        counts[part, label] = counts.get((part, label), 0) + 1
        hashes.setdefault((part, label), hashlib.sha256()).update(f"{name} {size}\n".encode())
    return {
        part: {name: (counts[part, i], hashes[part, i].hexdigest()[:16]) for i, name in enumerate(classes)}
        for part, classes in listing.files.items()
    }


def _make_from_copy(entry: Entry, blueprint: Blueprint, named: str, progress: Progress) -> None:
    """Make an entry that must be the blueprint's, from this machine's copy of the files.

    Raises:
        UserError: it is another one, or there are no files.
    """
    source = blueprint.source
    if not source.root.is_dir():
        raise UserError(f"{named}: is no folder there. {REMEDY}")
    listing = image_folder.list_images(source.root, source.reading)
    if difference := source.difference(class_files(listing, listing.key())):
        raise UserError(f"{named}: {difference}. {REMEDY}")
    found = image_folder.scan(listing, source.reading, progress)
    image_folder.require_room(listing, found, in_memory=False)

    def check(fingerprints: Mapping[str, str], damaged: Sequence[Damaged]) -> None:
        image_folder.check_damaged(listing, damaged, source.reading)
        differ = [part for part, code in fingerprints.items() if code != blueprint.fingerprints[part]]
        if differ:
            also = f"; {len(damaged):,} are damaged there, such as {damaged[0][0]}" if damaged else ""
            raise UserError(
                f"{named}: the files have the names and sizes of those where the study was started, but decoded their "
                f"{' and '.join(differ)} images differ{also}. {REMEDY}, and install the same version of Pillow"
            )

    _make(entry, listing, found, check, progress)


def _make(
    entry: Entry,
    listing: Listing,
    found: Scan,
    check: Callable[[Mapping[str, str], Sequence[Damaged]], None] = lambda fingerprints, damaged: None,
    progress: Progress | None = None,
) -> None:
    """Decode all images into an entry.

    Args:
        check: gets the fingerprint of each part, and the damaged images; the entry is there only if it does not raise.
    """
    reading, how = entry.source.reading, entry.source.division
    with entry.workspace(_count(listing) * (math.prod(found.shape) + _final_bytes(found, how))) as place:
        images, damaged = image_folder.decode(listing, found, reading, partial(_allocate, place), progress)
        image_folder.check_damaged(listing, damaged, dataclasses.replace(reading, skip_damaged=True))
        rows, about = how.rows(images), how.about(images)
        entry.write(place, rows, how.size, about, damaged, lambda prints: check(prints, damaged), progress)


def _count(listing: Listing) -> int:
    return sum(len(listing.examples(part)) for part in listing.files)


def _final_bytes(found: Scan, how: Division) -> int:
    """Bytes of an image once it is enlarged."""
    channels, height, width = found.shape
    return channels * max(height, how.size or 0) * max(width, how.size or 0)


def _allocate(place: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    return allocate(place / part, shape)

"""Which files of an image folder count: visible, regular, and each real folder and file once."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")  # ImageFolder's, and GIF
_SYSTEM = frozenset(
    "@eadir @recycle @recently-snapshot @tmp #recycle #snapshot $recycle.bin recycler lost+found __macosx "
    "__pycache__ thumbs.db".split()
) | {"system volume information"}
"""Names that desktops and file servers give to folders of their own, in small letters."""

Identity = tuple[int, int]
"""Device and inode: what a file or folder is, whatever it is called."""


def is_visible(name: str) -> bool:
    """Whether a user put a file or folder of this name there, as far as its name tells."""
    return not name.startswith(".") and name.casefold() not in _SYSTEM


@dataclass(frozen=True)
class FolderFiles:
    """The image files of a folder.

    Attributes:
        classes: part → class → image files, all in sorted order.
        left_out: links that were not followed.
    """

    classes: Mapping[str, Mapping[str, Sequence[Path]]]
    left_out: int


def find_images(root: Path, parts: Sequence[str]) -> FolderFiles:
    """The image files in root/PART/CLASS and below.

    A link is followed where it leads to a folder or file that is not read under its own name. So a loop ends, and an
    image that is linked into another class or part does not count there. Of several names of one file in one class,
    the first counts.

    Raises:
        UserError: a folder or file that cannot be read, or a link that leads nowhere.
    """
    reader = _Reader(root, parts)
    for part in parts:
        reader.read_part(part)
    while reader.linked_folders:  # a folder that is followed may hold more of them
        reader.follow(*reader.linked_folders.pop(0))
    return FolderFiles(
        {part: {name: reader.of_class(part, name) for name in sorted(reader.files[part])} for part in parts},
        reader.left_out,
    )


class _Reader:
    """What was seen so far: first what has a real name, then what links lead to."""

    def __init__(self, root: Path, parts: Sequence[str]) -> None:
        self.root, real = root, root.resolve()
        above = (real, *real.parents, *(root / part for part in parts))
        self.above = {identity for folder in above if (identity := _identity(folder))}
        self.folders: dict[str, set[Identity]] = {part: set() for part in parts}
        self.files: dict[str, dict[str, list[Path]]] = {}
        self.own: set[Identity] = set()  # regular files, by whatever name
        self.linked_folders: list[tuple[str, str, Path]] = []
        self.linked_files: dict[tuple[str, str], list[Path]] = {}
        self.left_out = 0

    def read_part(self, part: str) -> None:
        """Its class folders, each real one once; links come last."""
        entries = [e for e in _entries(self.root / part) if is_visible(e.name) and _leads_to_folder(e)]
        classes: set[Identity] = set()
        self.files[part] = {}
        for entry in sorted(entries, key=lambda e: (e.is_symlink(), e.name)):
            identity = _identity(Path(entry.path))
            if identity is None or identity in self.above | classes:
                self.left_out += 1
                continue
            classes.add(identity)
            self.files[part][entry.name] = []
            self.walk(part, entry.name, Path(entry.path))

    def walk(self, part: str, name: str, top: Path) -> None:
        """Collect what lies in a folder and below; links are put aside until all real names are known."""
        pending = [top]
        while pending:
            folder = pending.pop()
            identity = _identity(folder)
            if identity is None or identity in self.above | self.folders[part]:
                continue
            self.folders[part].add(identity)
            for entry in _entries(folder):
                if not is_visible(entry.name):
                    continue
                path = Path(entry.path)
                if entry.is_symlink() and _leads_to_folder(entry):
                    self.linked_folders.append((part, name, path))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.is_symlink() and _is_image(path):
                    self.linked_files.setdefault((part, name), []).append(path)
                elif _is_image(path) and (image := _image_identity(path)):
                    self.own.add(image)
                    self.files[part][name].append(path)

    def follow(self, part: str, name: str, link: Path) -> None:
        """Walk what a link leads to, unless it is read anyway, or was hidden."""
        target, root = link.resolve(), self.root.resolve()
        hidden = target.is_relative_to(root) and not all(map(is_visible, target.relative_to(root).parts))
        if hidden or _identity(link) in self.above.union(*self.folders.values()):
            self.left_out += 1
        else:
            self.walk(part, name, link)

    def of_class(self, part: str, name: str) -> list[Path]:
        """Its files, each real one once."""
        images: dict[Identity, Path] = {}
        for path in sorted(self.files[part][name]):
            if identity := _image_identity(path):
                images.setdefault(identity, path)
        for path in sorted(self.linked_files.get((part, name), [])):
            if identity := _image_identity(path):
                self.left_out += identity in self.own or identity in images
                if identity not in self.own:
                    images.setdefault(identity, path)
        return sorted(images.values())


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder, error) from error


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _identity(folder: Path) -> Identity | None:
    """None where it cannot be looked at, as what a broken link leads to."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _image_identity(path: Path) -> Identity | None:
    """None for what is no regular file: opening a FIFO or a device could wait forever.

    Raises:
        UserError: a link that leads nowhere, or a file that cannot be looked at.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def unreadable(path: Path, error: OSError) -> UserError:
    """That the system refuses a file or folder, as one line."""
    what = "is a link that leads nowhere" if path.is_symlink() and not path.exists() else "cannot be read"
    return UserError(
        f"{path} {what} ({error.strerror or type(error).__name__}). To fix it: make it readable, or delete it"
    )

"""Addresses of buckets, and where on this machine the copy of what lies in them is.

Every part of the harness works on a folder. A study whose results lie in a bucket has one, too: a copy under
`$COMPRESSION_STUDY_CACHE`, which `study.records.object_store` keeps in step with the bucket.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from study.errors import UserError, require_package

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Scheme → the package through which fsspec reads and writes such addresses; our extra has the scheme's name."""
CACHE_VARIABLE = "COMPRESSION_STUDY_CACHE"
READING = ".read"
"""Next to the studies that run here: copies of studies that are only read."""
_ADDRESS = ".address"
"""In a folder of copies: what it is a copy of."""
_DEPTH = 6
"""Names that a file of a study has at most below the folder of the copies."""


def is_address(text: str) -> bool:
    """Whether this is an address, such as s3://bucket/results, rather than a path."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def results_folder(named: str, address: str) -> Path:
    """The folder on this machine for the studies at an address; it then exists.

    Args:
        named: the address as a message names it, perhaps with its flag.
    Raises:
        UserError: an address of a kind that is not supported, or without a bucket, or whose package is not installed.
    """
    return _copy(_checked(named, address), reading=False)


def reading_copy(named: str, address: str) -> Path:
    """Where a study at an address, or a file of one, is copied to when it is read. Nothing is downloaded here.

    Raises:
        UserError: as `results_folder`, or an address of a bucket alone.
    """
    parent, _, name = _checked(named, address).rpartition("/")
    if parent.endswith("/"):
        raise UserError(f"{named}: is a bucket alone; give a study in it, such as {address.rstrip('/')}/results/NAME")
    return _copy(parent, reading=True) / name


def address_of(path: Path) -> str | None:
    """The address whose copy this path is; None for any other path."""
    path = path.absolute()
    if not path.is_relative_to(cache_folder()):
        return None
    for above in list(path.parents)[:_DEPTH]:
        if (above / _ADDRESS).is_file():
            return f"{(above / _ADDRESS).read_text().strip()}/{path.relative_to(above).as_posix()}"
    return None


def is_reading_copy(path: Path) -> bool:
    """Whether this is a copy that is only read."""
    return READING in path.absolute().parts and address_of(path) is not None


def shown(path: Path) -> str:
    """A path as people know it: its address, where it is a copy of what lies in a bucket."""
    return address_of(path) or str(path)


def cache_folder() -> Path:
    """Where copies lie: `$COMPRESSION_STUDY_CACHE`, or our folder in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().resolve()
    try:
        return (Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compression-study").resolve()
    except RuntimeError as error:  # neither HOME nor an entry for this user
        raise UserError(f"there is no home folder to keep copies in ({error}); set {CACHE_VARIABLE}") from error


def _checked(named: str, address: str) -> str:
    """The address without what does not matter in it."""
    scheme, _, rest = address.partition("://")
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise UserError(
            f"{named}: {scheme}:// is not supported; give a path on this machine, such as a folder where it is "
            f"mounted, or an address that begins with {known}"
        )
    parts = [part for part in rest.split("/") if part]
    if not parts or ".." in parts or not rest.isprintable() or rest.startswith("/"):
        raise UserError(f"{named}: is no address of a bucket; give {scheme}://BUCKET/FOLDER")
    require_package(named, PACKAGES[scheme], scheme)
    return f"{scheme}://{'/'.join(parts)}"


def _copy(address: str, reading: bool) -> Path:
    folder = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder = folder / READING if reading else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _ADDRESS).is_file():
            temporary = folder / f"{_ADDRESS}.{os.getpid()}"
            temporary.write_text(address + "\n")
            temporary.replace(folder / _ADDRESS)
    except OSError as error:
        raise UserError(
            f"{folder}: the copy of {address} cannot be written ({error.strerror}); set {CACHE_VARIABLE} to another "
            "folder"
        ) from error
    return folder

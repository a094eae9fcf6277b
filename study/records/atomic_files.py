"""Writing files so that a reader, or a crash at any instant, sees either the old one or the new one, complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_replacement(path: Path) -> Iterator[Path]:
    """A path in the same folder, which then exists, to write to; at the end it is renamed over `path`, or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:  # a machine that loses power must not rename what it has not written
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_replacement(path) as temporary:
        temporary.write_bytes(data)

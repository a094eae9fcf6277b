"""Downloads of published data sets through torchvision, with a time limit and one-line errors."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from study.errors import UserError

_PATIENCE = 30.0  # seconds without an answer after which a download counts as failed


def fetch(published: Any, data_dir: Path | None, files: list[Path], archives: Mapping[Path, str]) -> Path:
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

"""Downloads of published data sets through torchvision, with a time limit and one-line errors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from study.errors import UserError

_PATIENCE = 30.0  # seconds without an answer after which a download counts as failed


def fetch(
    download: Callable[..., object], data_dir: Path | None, files: list[Path], archives: Mapping[Path, str]
) -> Path:
    """Download those of `files` that are missing. All paths are relative to `data_dir`.

    Args:
        download: takes a folder and `download=True`, as torchvision's data sets do.
        archives: what is downloaded and unpacked, with the MD5 sums.
    Returns: `data_dir`.
    Raises:
        UserError: no `data_dir` is given, what lies there is no regular file, or the download failed.
    """
    from torchvision.datasets.utils import check_integrity

    if data_dir is None:
        raise UserError(
            f"--data-dir is missing: give the folder that holds {files[0]}; what is not there is downloaded to it"
        )
    missing = [file for file in files if not _is_there(data_dir / file)]
    if not missing:
        return data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        writable = os.access(data_dir, os.W_OK | os.X_OK)
        problem = "" if writable else os.strerror(errno.EACCES)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise UserError(
            f"--data-dir {data_dir}: cannot be written ({problem}), and has no {missing[0]}. To fix it: give a folder "
            "that you may write to, or one that holds the data"
        )
    try:
        # torchvision unpacks in place, and takes a file that was cut short for a complete one the next time.
        # So it unpacks into another folder, and only complete files are moved from there.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as name, _polite_download():
            unpacked = Path(name)
            for archive, md5 in archives.items():  # an archive that somebody copied here need not be downloaded
                if check_integrity(data_dir / archive, md5):
                    (unpacked / archive).parent.mkdir(parents=True, exist_ok=True)
                    (unpacked / archive).symlink_to((data_dir / archive).resolve())
            download(unpacked, download=True)
            for file in missing:
                (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / file).replace(data_dir / file)
    except Exception as error:  # network, HTTP, checksum, archive and disk each raise a kind of their own
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"--data-dir {data_dir} has no {missing[0]}, and its download failed ({reason}). To fix it: connect to "
            f"the network, or copy the {len(files)} files {files[0]}, …, {files[-1]} there"
        ) from error
    return data_dir


def _is_there(path: Path) -> bool:
    """Whether there is a regular file.

    Raises:
        UserError: something else lies there, which might never end, or it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"--data-dir: {path} cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"--data-dir: {path} is no regular file. To fix it: delete it, or give another folder")
    return True


@contextlib.contextmanager
def _polite_download() -> Iterator[None]:
    """Print to standard error, since standard output is the command's; give up a network that never answers."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)  # torchvision offers no other way to set one
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)

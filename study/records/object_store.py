"""Studies in a bucket: the folder on this machine is a copy, which `mirror` keeps in step while a command runs. What is
only read has a copy of its own, in which only what has changed is downloaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from study import addresses
from study.errors import UserError
from study.records import paths
from study.records.atomic_files import write_bytes
from study.records.bucket import Bucket, study_objects, user_error
from study.records.lease import Lease
from study.records.mirror import STATE, Mirror
from study.records.snapshot import LEDGERS


@contextlib.contextmanager
def mirrored(folder: Path) -> Iterator[None]:
    """Hold a study folder whose results lie in a bucket, and keep the two in step; of any other folder do nothing.

    Raises:
        UserError: another command holds it; the bucket cannot be reached; or at the end not all could be uploaded.
    """
    address = addresses.address_of(folder)
    if address is None:
        yield
        return
    try:
        bucket = Bucket(address)
        lease = Lease.take(bucket)
    except Exception as error:
        raise user_error(error, address) from error
    mirror = Mirror(folder, bucket, lease)
    try:
        mirror.start()
        try:
            yield
        except KeyboardInterrupt:
            mirror.finish()
            raise
        except Exception:
            with contextlib.suppress(UserError):  # what ended the study is the message; the copy stays
                mirror.finish()
            raise
        mirror.finish()
    finally:
        mirror.stop()
        with contextlib.suppress(Exception):  # it expires
            lease.release(remove=not mirror.has_study)


def refresh(folder: Path) -> None:
    """Download what has changed of a study that is only read; of any other folder do nothing. Without checkpoints.

    Raises:
        UserError: there is no study, or the store does not answer.
    """
    address = addresses.address_of(folder)
    if address is None or not addresses.is_reading_copy(folder):
        return
    try:
        bucket = Bucket(address)
        entries = {name: entry for name, entry in study_objects(bucket).items() if not _is_checkpoint(name)}
        if paths.STUDY not in entries:
            raise UserError(f"{address}: no study here ({paths.STUDY} is missing); give the address of a study")
        known = _read_versions(folder)
        new = [name for name, e in entries.items() if known.get(name) != e.version or not (folder / name).exists()]
        # Last: a study that runs meanwhile writes a trial's row before anything else of the trial.
        bucket.fetch({name: folder / name for name in new if name not in LEDGERS})
        bucket.fetch({name: folder / name for name in new if name in LEDGERS})
        for name in known.keys() - entries.keys():
            (folder / name).unlink(missing_ok=True)
        if new or known.keys() != entries.keys():
            versions = {name: entry.version for name, entry in entries.items()}
            write_bytes(folder / STATE, json.dumps({"versions": versions}).encode())
    except Exception as error:
        raise user_error(error, address) from error


def fetch(path: Path, required: bool = True) -> None:
    """Download one file of a bucket's copy; of any other path do nothing.

    Args:
        required: refuse a missing one. A file that is not required is only fetched where the copy lacks it.
    Raises:
        UserError: it is missing, or the store does not answer.
    """
    address = addresses.address_of(path)
    if address is None or (path.exists() and not required):
        return
    parent, _, name = address.rpartition("/")
    try:
        bucket = Bucket(parent)
        if name in bucket.list(name):
            bucket.fetch({name: path})
        elif required:
            raise UserError(f"{address}: no such file; give one that is in {parent}")
    except Exception as error:
        raise user_error(error, address) from error


def send(path: Path) -> None:
    """Upload one file of a study that runs here, if its results lie in a bucket.

    Raises:
        UserError: the store does not answer.
    """
    address = addresses.address_of(path)
    if address is None or addresses.is_reading_copy(path):
        return
    parent, _, name = address.rpartition("/")
    try:
        Bucket(parent).send({name: path})
    except Exception as error:
        raise user_error(error, address) from error


def _is_checkpoint(name: str) -> bool:
    return paths.CHECKPOINTS in name.split("/")


def _read_versions(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / STATE).read_bytes())["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}

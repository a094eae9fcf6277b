"""Objects of a bucket under one address, through fsspec. Each object is written complete or not at all.

fsspec rather than pyarrow.fs, which Ray Tune's own storage uses: a lease must be written only if nobody has it, and
pyarrow.fs has no such request. Tune's own folder stays on this machine, since nothing is restored from it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from study.addresses import PACKAGES
from study.errors import UserError
from study.records.atomic_files import atomic_replacement

AT_ONCE = 8
"""Objects that are sent or fetched at one time."""
ANSWER = 20.0
"""Seconds that a store is given to answer."""
SETTLE = 2.0
"""Seconds after which a store without conditional writes is asked whose write came last."""


@dataclass(frozen=True)
class Entry:
    """An object: bytes, and what changes when its content does."""

    size: int
    version: str


class Bucket:
    """The objects under an address, by their names below it.

    Its methods raise what the package of the store raises; see `problem`.
    """

    def __init__(self, address: str) -> None:
        import fsspec  # which only studies in buckets need

        self.address = address
        scheme, _, self.root = address.partition("://")
        options: dict[str, Any] = {}
        if scheme == "s3":
            options["config_kwargs"] = {"connect_timeout": ANSWER, "read_timeout": 3 * ANSWER}
        self.store = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)

    def list(self, below: str = "") -> dict[str, Entry]:
        """All objects, by name, or those below a folder. No object at all is no error, but no bucket is."""
        folder = f"{self.root}/{below}".rstrip("/")
        there = self.store.find(folder, detail=True)
        if not there and not self.store.exists(self.root.split("/")[0]):
            raise FileNotFoundError(self.root.split("/")[0])
        entries = {}
        for path, info in there.items():
            name = path.removeprefix(f"{self.root}/")
            version = next((info[key] for key in ("ETag", "etag", "md5Hash", "mtime") if info.get(key)), "")
            if name != path and not path.endswith("/"):
                entries[name] = Entry(int(info["size"]), str(version))
        return entries

    def read(self, name: str) -> bytes:
        return bytes(self.store.cat_file(self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        self.store.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one; returns whether this call has written it.

        A store that does not know conditional writes gets an ordinary one, and is asked afterwards whose content it
        has: of two callers at the same moment the last one wins, if both their writes end within `SETTLE` seconds.
        """
        try:
            self.store.pipe_file(self._path(name), content, mode="create")
            return True
        except FileExistsError:
            return False
        except Exception as error:
            if getattr(error, "code", None) in (412, "412"):  # gcsfs's own kind of error
                return False
            if not isinstance(error, NotImplementedError) and "NotImplemented" not in str(error):
                raise
        if self.store.exists(self._path(name)):
            return False
        self.write(name, content)
        time.sleep(SETTLE)
        return self.read(name) == content

    def age(self, name: str) -> float:
        """Seconds since an object was written, by the store's own clock: those of two machines may differ."""
        probe = f"{name}.{uuid.uuid4().hex}"
        self.write(probe, b"")
        try:
            now: datetime = self.store.modified(self._path(probe))
            return (now - self.store.modified(self._path(name))).total_seconds()
        finally:
            self.remove([probe])

    def send(self, files: dict[str, Path]) -> None:
        """Write objects from files, in any order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pair: self.store.put_file(str(pair[1]), self._path(pair[0])), files.items()))

    def fetch(self, files: dict[str, Path]) -> None:
        """Write files from objects, each complete at every instant, in any order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pair: self._fetch(*pair), files.items()))

    def _fetch(self, name: str, path: Path) -> None:
        with atomic_replacement(path) as temporary:
            self.store.get_file(self._path(name), str(temporary))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are none."""
        if paths := [self._path(name) for name in names]:
            self.store.rm(paths)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def study_objects(bucket: Bucket) -> dict[str, Entry]:
    """Objects of a study, without its lease and what else is hidden."""
    entries = bucket.list()
    safe = {name: e for name, e in entries.items() if ".." not in name.split("/") and not name.startswith("/")}
    return {name: e for name, e in safe.items() if not any(part.startswith(".") for part in name.split("/"))}


def problem(error: BaseException, address: str) -> str:
    """What is wrong with a store, and what to type, in one line; "" where the error is none of a store's."""
    scheme = address.partition(":")[0]
    text, kind = " ".join(str(error).split())[:200], type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError"):
        how = {
            "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or type aws configure",
            "gs": "type gcloud auth application-default login",
            "az": "set AZURE_STORAGE_CONNECTION_STRING",
        }
        return f"{address}: no credentials ({text}); {how[scheme]}"
    if isinstance(error, PermissionError):
        return f"{address}: no permission ({text}); check the credentials, and what they may do in this bucket"
    if isinstance(error, FileNotFoundError):
        bucket = address.partition("://")[2].split("/")[0]
        how = {"s3": f"type aws s3 mb s3://{bucket}", "gs": f"type gcloud storage buckets create gs://{bucket}"}
        make = how.get(scheme, f"type az storage container create --name {bucket}")
        return f"{address}: there is no bucket {bucket}; correct the name, or {make}"
    origin = type(error).__module__.split(".")[0]
    packages = ("botocore", "aiobotocore", "aiohttp", "google", "azure", *PACKAGES.values())
    if isinstance(error, OSError | TimeoutError) or origin in packages:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if scheme == "s3" else ""
        check = f"AWS_ENDPOINT_URL ({endpoint})" if endpoint else "the network"
        return f"{address}: the store does not answer ({text or kind}); check {check}, then type the same command"
    return ""


def user_error(error: Exception, address: str) -> Exception:
    """The error as one line for the user, where it is one of a store's; otherwise the error itself."""
    text = problem(error, address)
    return UserError(text) if text and not isinstance(error, UserError) else error

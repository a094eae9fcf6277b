"""A lease on a study in a bucket: one command at a time, as `folder_lock` has it for a folder.

Each holder writes an object `.lease/NUMBER`, with a number one higher than the last, only if there is none; so of two
commands one gets it. It writes the object again while it runs. A lease that was not renewed for `expiry()` seconds is
of a driver that is gone, and the next command takes a higher number. A driver that was only asleep then sees that
number, and stops. Age is read from the store's clock, so the clocks of machines do not matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from study.errors import UserError
from study.records import timestamps
from study.records.bucket import Bucket

FOLDER = ".lease"
EXPIRY = 60.0
EXPIRY_VARIABLE = "COMPRESSION_STUDY_LEASE_SECONDS"
_SHARE = 4
"""A lease is renewed so many times before it would expire."""


def expiry() -> float:
    """Seconds after its last renewal at which a lease is of nobody."""
    text = os.environ.get(EXPIRY_VARIABLE, "")
    try:
        seconds = float(text or EXPIRY)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86_400:
        raise UserError(f"{EXPIRY_VARIABLE}={text}: give seconds, from 1 to 86400")
    return seconds


_OWN: set[str] = set()
"""Tokens of the leases that this process has: one that it could not release is of nobody, too."""


class LeaseLost(Exception):
    """Another command has taken the study over."""


class Lease:
    """The right to write a study in a bucket.

    Attributes:
        number: of this holder; holders of a study have ascending numbers.
        before: number of the last holder before this one; 0 if there was none.
    """

    def __init__(self, bucket: Bucket, number: int, before: int) -> None:
        self.bucket, self.number, self.before = bucket, number, before
        self.lost = False
        self._token = uuid.uuid4().hex
        self._holder = {**_this_process(), "since": timestamps.now(), "token": self._token}
        self._renewed = _clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(cls, bucket: Bucket) -> Lease:
        """Take the lease of a study, after that of a driver that is gone has expired.

        Raises:
            UserError: another command has it.
        """
        seen: dict[int, Any] = {}
        while True:
            numbers = _numbers(bucket)
            last = max(numbers, default=0)
            if last and not _is_free(bucket, last, seen):
                time.sleep(min(1.0, expiry() / 10))
                continue
            lease = cls(bucket, last + 1, last)
            if bucket.create(_name(last + 1), lease._content()):
                _OWN.add(lease._token)
                bucket.remove(_name(number) for number in numbers)
                lease._thread.start()
                return lease

    def check(self) -> None:
        """See that the lease is still ours, before something is written.

        Raises:
            LeaseLost: another command has taken it.
        """
        if not self.lost and _clock() - self._renewed >= expiry() / 2:  # this process, or the network, was asleep
            self._renew()
        if self.lost:
            raise LeaseLost

    def release(self, remove: bool = False) -> None:
        """Let the next command have it at once; its number stays, unless there is no study.

        Raises: what the store raises.
        """
        self._ended.set()
        self._thread.join()
        _OWN.discard(self._token)
        if self.lost:
            return
        if remove:
            self.bucket.remove([_name(self.number)])
        else:
            self.bucket.write(_name(self.number), json.dumps({**self._holder, "released": True}).encode())

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "renewed": timestamps.now()}).encode()

    def _renew(self) -> None:
        began = _clock()
        if max(_numbers(self.bucket), default=0) > self.number:
            self.lost = True
            return
        self.bucket.write(_name(self.number), self._content())
        self._renewed = began

    def _keep(self) -> None:
        while not self._ended.wait(expiry() / _SHARE) and not self.lost:
            with contextlib.suppress(Exception):  # the network may be gone; `check` sees how long ago that was
                self._renew()


def _is_free(bucket: Bucket, number: int, seen: dict[int, Any]) -> bool:
    """Whether the lease of this number is of nobody.

    Args:
        seen: number → (its content when first looked at, and when it expires unless it is renewed).
    Raises:
        UserError: its holder is alive.
    """
    try:
        content = bucket.read(_name(number))
        holder = json.loads(content)
        if holder.get("released") or _is_dead(holder):
            return True
        if number not in seen:
            if _is_here(holder):
                raise _taken(bucket, holder)
            seen[number] = content, _clock() + expiry() - bucket.age(_name(number))
            if seen[number][1] > _clock() and sys.stdout.isatty():
                print(f"Waiting until the lease of {holder.get('host')} expires, or is renewed ...", flush=True)
    except FileNotFoundError:  # removed meanwhile
        return False
    except (ValueError, AttributeError):  # no lease that we wrote
        seen.setdefault(number, (b"", _clock() + expiry()))
        return bool(_clock() >= seen[number][1])
    first, expires = seen[number]
    if content != first:
        raise _taken(bucket, holder)
    return bool(_clock() >= expires)


def _taken(bucket: Bucket, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"{bucket.address}: another command is running this study (on {holder.get('host')}, process "
        f"{holder.get('process')}, since {holder.get('since')}); wait for it, or choose --name"
    )


def _numbers(bucket: Bucket) -> list[int]:
    names = (name.removeprefix(f"{FOLDER}/") for name in bucket.list(FOLDER))
    return sorted(int(name) for name in names if name.isdigit())


def _name(number: int) -> str:
    return f"{FOLDER}/{number:09d}"


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "machine": _machine(), "started": _started("self")}


def _machine() -> str:
    """This boot of this machine, and the container on it, so that numbers of processes are its own."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: str) -> str:
    """When a process started, since another one may get the same number; "" if there is none."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_here(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine."""
    return bool(_machine()) and holder.get("machine") == _machine()


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended, or was this one and has released it."""
    if not _is_here(holder):
        return False
    if holder.get("process") == os.getpid() and holder.get("started") == _started("self"):
        return holder.get("token") not in _OWN
    return _started(str(holder.get("process"))) != holder.get("started")


def _clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

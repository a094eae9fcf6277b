"""The thread that keeps a bucket in step with a study folder, its copy on this machine.

It looks at the folder once a second and uploads what has changed; `snapshot` has the order. When a command starts, the
bucket wins, unless this copy is what the bucket was written from last: then it may be ahead.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from study.errors import UserError
from study.records import paths, snapshot
from study.records.atomic_files import write_bytes
from study.records.bucket import Bucket, Entry, study_objects, user_error
from study.records.lease import Lease, LeaseLost
from study.records.snapshot import LEDGERS, SHARED, Stamp

STATE = ".bucket.json"
"""In a copy: what of it the bucket has, and the number of the lease under which it was written."""
POLL = 1.0
"""Seconds between two looks at the folder."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most, where the store does not answer."""
PATIENCE = 600.0
"""Seconds for which the end of a command tries to upload what is left."""
PATIENCE_VARIABLE = "COMPRESSION_STUDY_UPLOAD_SECONDS"
CHECKPOINT_PAUSE = 10.0
"""Seconds between two uploads of the checkpoints of running trials."""


class Mirror:
    """Uploads what changes in a study folder, in a thread of its own."""

    def __init__(self, folder: Path, bucket: Bucket, lease: Lease) -> None:
        self.folder, self.bucket, self.lease = folder, bucket, lease
        self.shared = Bucket(f"{bucket.address.rpartition('/')[0]}/{paths.CACHE}")
        self.sent: dict[str, Stamp] = {}
        """Name → stamp of the file that the bucket has."""
        self.there: set[str] = set()
        """Names that the bucket has."""
        self.states: dict[str, dict[str, str]] = {name: {} for name in LEDGERS}
        """Ledger → trial → state, as the bucket has them."""
        self._written: dict[str, bytes] = {}
        self._staging = folder.with_name(f".upload-{folder.name}")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="upload", daemon=True)
        self._next_checkpoints = 0.0
        self._started = self._complained = False

    @property
    def has_study(self) -> bool:
        """Whether there is anything of the study, here or in the bucket, as far as is known."""
        there = any(not name.startswith(SHARED) for name in self.there)
        return not self._started or there or (self.folder / paths.STUDY).exists()

    def start(self) -> None:
        """Bring the copy to what the bucket has, or find that it is ahead, and go on from there.

        Raises:
            UserError: the store does not answer.
        """
        try:
            sent, number = _read_state(self.folder)
            ahead = number > 0 and number == self.lease.before  # nobody else has written since
            if ahead:  # at once: were this command killed now, the next one would have to know
                self.sent = sent
                self._write_state()
            entries = study_objects(self.bucket)
            if ahead:
                self.sent = {name: stamp for name, stamp in sent.items() if _has(entries, name, stamp)}
            else:
                self._set_aside(entries, sent)
                self.bucket.fetch({name: self.folder / name for name in entries})
                self.sent = {name: stamp for name, stamp in snapshot.scan(self.folder).items() if name in entries}
            ours = tuple(f"{name}/" for name in paths.FOLDERS)  # what somebody else has put there stays
            self.there = {name for name in entries if name in self.sent or name.startswith(ours)}
            for name in LEDGERS:
                if name in entries:
                    self.states[name] = snapshot.states_of(self.bucket.read(name))
            shared = {SHARED + name for name in self.shared.list()}
            self.there |= shared
            self.sent |= {name: stamp for name, stamp in snapshot.scan(self.folder).items() if name in shared}
            if self.folder.exists():
                self._write_state()
            self._started = True
        except Exception as error:
            raise user_error(error, self.bucket.address) from error
        self._thread.start()

    def _set_aside(self, entries: Mapping[str, Entry], sent: Mapping[str, Stamp]) -> None:
        """Remove a copy that is not what the bucket was last written from; what only it has is set aside."""
        now = {name: stamp for name, stamp in snapshot.scan(self.folder).items() if not name.startswith(SHARED)}
        if now and any(sent.get(name) != stamp for name, stamp in now.items()):
            aside = self.folder.with_name(f"{self.folder.name}.{int(time.time())}")
            self.folder.rename(aside)
            reason = "another command has continued the study" if entries else "the bucket no longer has the study"
            print(f"{aside}: set aside, not all of it was uploaded, and {reason}", file=sys.stderr)
        elif self.folder.exists():
            shutil.rmtree(self.folder)

    def _follow(self) -> None:
        pause = POLL
        while not self._ended.wait(pause):
            try:
                self.upload()
                pause, self._complained = POLL, False
            except LeaseLost:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C: the study stops, and `finish` says why
                return
            except Exception as error:  # the store does not answer, or the disk is full: what is here is safe
                if pause > POLL:  # the second time
                    self._complain(f"{user_error(error, self.bucket.address)}; the study goes on here meanwhile")
                pause = min(2 * pause, LONGEST_PAUSE)

    def _complain(self, text: str) -> None:
        """Say once what is wrong."""
        if not self._complained:
            self._complained = True
            print(" ".join(text.split()), file=sys.stderr, flush=True)

    def upload(self, last: bool = False) -> None:
        """Upload what has changed.

        Args:
            last: checkpoints of running trials, too, however recent the last ones are.
        Raises:
            LeaseLost: another command has taken the study over.
            Exception: what the store raises; the bucket then has a study that can be continued.
        """
        shutil.rmtree(self._staging, ignore_errors=True)  # of a command that was killed
        self._staging.mkdir()
        try:
            shot = snapshot.take(self.folder, self.sent, self._staging)
            if paths.STUDY in shot.stamps:  # the study has started, and its folder has not been removed
                self._upload(shot, last)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def _upload(self, shot: snapshot.Snapshot, last: bool) -> None:
        files = dict(shot.files)
        tables = {name: files[name].read_bytes() for name in LEDGERS if name in files}
        checkpoints = [name for name in files if name.endswith(snapshot.RUNNING_SUFFIX)]
        if not (last or tables or time.monotonic() >= self._next_checkpoints):
            for name in checkpoints:
                del files[name]
        began = time.monotonic()
        if not (self.folder / STATE).exists():  # before anything is sent: it says whose copy this is
            self._write_state()
        self._send({name: path for name, path in files.items() if name.startswith(SHARED)}, shot)
        self._send({name: path for name, path in files.items() if name == paths.STUDY}, shot)
        for name, table in tables.items():
            if snapshot.states_of(table).keys() - self.states[name].keys():
                self._write_table(name, snapshot.as_running(table, self.states[name]))
        first = (SHARED, paths.STUDY, *LEDGERS)
        others = {name: path for name, path in files.items() if not name.startswith(first)}
        # What was tested is in `models/` before `confirmed.csv` says so.
        self._send({name: path for name, path in others.items() if name != paths.CONFIRMED}, shot)
        self._send({name: path for name, path in others.items() if name == paths.CONFIRMED}, shot)
        for name, table in tables.items():
            if table != self._written.get(name):
                self._write_table(name, table)
            self.sent[name] = shot.stamps[name]
        if gone := [name for name in self.there if name not in shot.stamps and not name.startswith(SHARED)]:
            self.lease.check()
            self.bucket.remove(gone)
            self.there -= set(gone)
        if checkpoints:
            self._next_checkpoints = time.monotonic() + max(CHECKPOINT_PAUSE, 10 * (time.monotonic() - began))
        if files or gone:
            self.sent = {name: stamp for name, stamp in self.sent.items() if name in shot.stamps}
            self._write_state()

    def _send(self, files: Mapping[str, Path], shot: snapshot.Snapshot) -> None:
        if not files:
            return
        self.lease.check()
        shared = {name.removeprefix(SHARED): path for name, path in files.items() if name.startswith(SHARED)}
        self.shared.send(shared)
        self.bucket.send({name: path for name, path in files.items() if not name.startswith(SHARED)})
        self.there |= files.keys()
        self.sent |= {name: shot.stamps[name] for name in files}

    def _write_table(self, name: str, table: bytes) -> None:
        self.lease.check()
        self.bucket.write(name, table)
        self._written[name] = table
        self.states[name] = snapshot.states_of(table)
        self.there.add(name)

    def _write_state(self) -> None:
        state = {"number": self.lease.number, "sent": self.sent}
        write_bytes(self.folder / STATE, json.dumps(state).encode())

    def finish(self) -> None:
        """Upload what is left.

        Raises:
            UserError: the store does not answer for `PATIENCE` seconds, or another command has taken the study over.
        """
        self.stop()
        until, pause = time.monotonic() + _patience(), POLL
        while True:
            try:
                return self.upload(last=True)
            except LeaseLost:
                raise UserError(
                    f"{self.bucket.address}: another command has taken this study over, since this one had not reached "
                    f"the store for long; what only this one knows stays in {self.folder}"
                ) from None
            except Exception as error:
                if time.monotonic() + pause > until:
                    text = str(user_error(error, self.bucket.address))
                    raise UserError(f"{text}; what is not uploaded is safe in {self.folder}") from error
                self._complain(f"{user_error(error, self.bucket.address)}; trying for {_patience():.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def stop(self) -> None:
        """Let the thread end."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


def _has(entries: Mapping[str, Entry], name: str, stamp: Stamp) -> bool:
    """Whether the bucket has a file that was sent."""
    return name in entries and entries[name].size == stamp[2]


def _read_state(folder: Path) -> tuple[dict[str, Stamp], int]:
    """What of this copy the bucket has, and the number of the lease it was written under; nothing, and 0, where it is
    not known."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        sent: dict[str, Stamp] = {str(name): (int(a), int(b), int(c)) for name, (a, b, c) in state["sent"].items()}
        return sent, int(state["number"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, 0


def _patience() -> float:
    try:
        return float(os.environ.get(PATIENCE_VARIABLE) or PATIENCE)
    except ValueError:
        return PATIENCE

"""What a study folder has at one instant, though a study writes it meanwhile, and in which order it is uploaded.

A bucket has no instant at which several objects change together, and a driver may be killed between any two of them.
So they are written in an order in which a study can be continued after each:

1. shared work and `study.json`, on which all else depends;
2. `trials.csv` with its new rows, all that the bucket does not know to be final as `running`: what is of a trial comes
   after its row, or the row would count as lost;
3. all other files, so that a final row always has its weights and its epochs;
4. `trials.csv` as it is;
5. only then what was removed is removed.

The ledger of fresh seeds, in a folder of its own, goes the same way. A bucket has no `trials.log`: its rows are in the
table that is uploaded.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from study.records import paths
from study.records.columns import FINAL_STATES
from study.records.trial_log import table_bytes

Stamp = tuple[int, int, int]
"""Number, time of the last change (ns) and bytes of a file; files are replaced, not changed, so it tells them apart.
That of `trials.csv` covers its log, which only grows, and has gone once the table was replaced."""

SHARED = f"../{paths.CACHE}/"
"""Before the name of a file of the shared work, which lies next to the study folders."""
LEDGERS = (paths.TRIALS, f"{paths.CONFIRM}/{paths.TRIALS}")
RUNNING_SUFFIX = ".pt"
"""Of checkpoints, which trials replace at any time: what they say needs no other file."""
_TRIES = 200


class Busy(Exception):
    """The folder did not stay as it was long enough to be seen."""


@dataclass(frozen=True)
class Snapshot:
    """The files of a study at one instant.

    Attributes:
        stamps: of every file, by its name in the folder.
        files: those that have changed, which nobody changes any more.
    """

    stamps: dict[str, Stamp]
    files: dict[str, Path]


def scan(folder: Path) -> dict[str, Stamp]:
    """The files of a study folder by name, and those of the shared work next to it; without what Tune and
    trackers write, the journal's lock, and what is hidden."""
    shared = _below(folder.parent / paths.CACHE, SHARED)
    own = dict(_below(folder, ""))
    for name in LEDGERS:
        log = own.pop(str(Path(name).with_name(paths.TRIAL_LOG)), None)
        if log and name in own:
            number, changed, size = own[name]
            own[name] = number, max(changed, log[1]), size + log[2]
    return {**own, **{name: stamp for name, stamp in shared if name.endswith(".safetensors")}}


def _below(folder: Path, prefix: str) -> Iterator[tuple[str, Stamp]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith((".tmp", ".lock")) or (not prefix and _left_out(entry)):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                facts = entry.stat()
                yield f"{prefix}{entry.name}", (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:  # removed meanwhile: then the second look differs from the first
            continue


def _left_out(entry: os.DirEntry[str]) -> bool:
    return entry.name in paths.LOCAL_FOLDERS


def take(folder: Path, known: Mapping[str, Stamp], staging: Path) -> Snapshot:
    """What the folder has now. It is looked at before and after; where both are the same, that was an instant.

    Args:
        known: stamps of files that are not needed again.
        staging: an empty folder on the same file system; the files are linked there, a ledger is written there.
    Raises:
        Busy: it changed every time.
    """
    for _ in range(_TRIES):
        before = scan(folder)
        try:
            files = {
                name: _staged(folder, name, staging / str(number))
                for number, (name, stamp) in enumerate(before.items())
                if known.get(name) != stamp
            }
        except FileNotFoundError:
            files = None
        after = scan(folder)
        if files is not None and _fixed(before) == _fixed(after):
            return Snapshot(before, files)
        for path in staging.iterdir():
            path.unlink()
        time.sleep(0.02)
    raise Busy


def _fixed(stamps: Mapping[str, Stamp]) -> dict[str, Stamp]:
    """Without checkpoints of running trials."""
    return {name: stamp for name, stamp in stamps.items() if not name.endswith(RUNNING_SUFFIX)}


def _path(folder: Path, name: str) -> Path:
    return folder.parent / name.removeprefix("../") if name.startswith(SHARED) else folder / name


def _staged(folder: Path, name: str, path: Path) -> Path:
    if name not in LEDGERS:
        return _linked(_path(folder, name), path)
    path.write_bytes(table_bytes(folder / name))
    return path


def _linked(path: Path, link: Path) -> Path:
    try:
        os.link(path, link)
    except FileNotFoundError:
        raise
    except OSError:  # no links on this file system
        shutil.copy2(path, link)
    return link


def states_of(table: bytes) -> dict[str, str]:
    """Trial id → state, as a table of trials has it."""
    return {row.get("trial_id", ""): row.get("state", "") for row in csv.DictReader(io.StringIO(table.decode()))}


def as_running(table: bytes, final: Mapping[str, str]) -> bytes:
    """A table of trials whose rows are all `running` but those that are final in the bucket, too.

    Args:
        final: trial id → state, as the bucket has it.
    """
    reader = csv.DictReader(io.StringIO(table.decode()))
    text = io.StringIO()
    writer = csv.DictWriter(text, reader.fieldnames or [], lineterminator="\n")
    writer.writeheader()
    for row in reader:
        known = final.get(row["trial_id"]) in FINAL_STATES
        writer.writerow(row if known else {**row, "state": "running", "reason": ""})
    return text.getvalue().encode()

"""Mapped images on another machine, which here is another cache: found, made, or refused; and what a kill leaves."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from photos import write_photos
from PIL import Image

from study.data import folder_data, image_folder, mapped, registry
from study.data.image_folder import Reading
from study.data.mapped import Blueprint, MappedPart, MissingPart
from study.data.splits import Splits
from study.errors import UserError
from study.tuning.node_data import STAGES

READING = Reading(16)


def no_wait() -> None:
    pytest.fail("nobody else makes the entry")


def ignore(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of 6 training and 2 test photos, not compressed, which are mapped; and a cache for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    monkeypatch.setattr(mapped, "SHARE", 0.0)
    return write_photos(tmp_path / "photos", "bmp")


@pytest.fixture
def data(photos: Path) -> Splits:
    return registry.load("folder", photos, reading=READING)[0]


@pytest.fixture
def elsewhere(data: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Splits:
    """The same data, as a machine with another cache unpickles them."""
    stream = pickle.dumps(data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    there: Splits = pickle.loads(stream)
    return there


def entries(cache: Path) -> list[str]:
    """All that lies where entries do, whatever its name."""
    folder = cache / "compression-study/folders"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def blueprint(part: object) -> Blueprint:
    assert isinstance(part, MissingPart | MappedPart)
    return part.blueprint


def refusal(there: Splits) -> str:
    with pytest.raises(UserError) as refused:
        folder_data.prepared(there, ignore, no_wait)
    return str(refused.value)


def test_another_machine_makes_the_same_entry(data: Splits, elsewhere: Splits, photos: Path, tmp_path: Path) -> None:
    """From its own files, whatever their times, under the same name; images and labels are those of the first
    machine, and what is pickled there is found here."""
    assert isinstance(elsewhere.train, MissingPart) and not hasattr(elsewhere.train, "images")
    for file in photos.rglob("*.bmp"):
        os.utime(file, (0, 0))
    counts: list[tuple[str, int, int]] = []
    here = folder_data.prepared(elsewhere, lambda *count: counts.append(count), no_wait)
    assert isinstance(here.train, MappedPart) and tmp_path / "second" in here.train.path.parents
    for part, original in ((here.train, data.train), (here.validation, data.validation)):
        assert torch.equal(part.images, original.images) and torch.equal(part.labels, original.labels)
    assert entries(tmp_path / "second") == entries(tmp_path / "first") and len(entries(tmp_path / "first")) == 1
    assert [count for count in counts if count[1] == count[2]] == [(what, 16, 16) for what in STAGES]
    again: Splits = pickle.loads(pickle.dumps(here))
    assert isinstance(again.train, MappedPart) and again.train.path == here.train.path


def test_what_is_there_is_not_made_again(elsewhere: Splits) -> None:
    """Once a machine has the entry, its images may go."""
    folder_data.prepared(elsewhere, ignore, no_wait)
    shutil.rmtree(blueprint(elsewhere.train).source.root)
    here = folder_data.prepared(elsewhere, ignore, no_wait)
    assert isinstance(here.train, MappedPart)


def test_a_machine_without_a_cache_of_its_own_looks_where_the_first_has_it(
    data: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that all share: nothing is decoded twice."""
    stream = pickle.dumps(data)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    there: Splits = pickle.loads(stream)
    assert isinstance(there.train, MappedPart) and tmp_path / "first" in there.train.path.parents


def test_no_image_is_pickled(data: Splits) -> None:
    """However many there are: neither images nor labels."""
    stream = pickle.dumps(data)
    assert len(stream) < 3000
    for part in (data.train, data.validation):
        assert part.images.numpy().tobytes()[:64] not in stream


def repaint(file: Path) -> None:
    """Another image of the same name, size and time."""
    status = file.stat()
    Image.new("RGB", (30, 20), "red").save(file)
    assert file.stat().st_size == status.st_size
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def spoil(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda root: (root / "train/cat/3.bmp").unlink(), "train/cat has 5 images there, and 6 where the study was "),
        (lambda root: shutil.rmtree(root), "is no folder there. To fix it: copy the same files there, or let XDG_"),
        (lambda root: (root / "test/dog/1.bmp").rename(root / "test/dog/9.bmp"), "test/dog has files of other names "),
        (lambda root: repaint(root / "train/dog/3.bmp"), "the files have the names and sizes of those where the "),
        (lambda root: spoil(root / "train/dog/3.bmp"), ""),
    ],
)
def test_other_files_are_refused(
    elsewhere: Splits, photos: Path, tmp_path: Path, change: Callable[[Path], None], line: str
) -> None:
    """In one line with the flag and what differs; there is no entry, and nothing half made."""
    change(photos)
    message = refusal(elsewhere)
    assert message.startswith(f"--data-dir {photos}: {line}") if line else "3.bmp is damaged or no image" in message
    assert "To fix it: " in message and "\n" not in message
    assert entries(tmp_path / "second") == []


def test_concurrent_trials_make_an_entry_once(
    elsewhere: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait, say so, and then map what the first has made; no lock is left."""
    decoded, waited, results = [], set[int](), list[Splits]()
    decode = image_folder.decode

    def slow(*arguments: object) -> object:
        decoded.append(threading.get_ident())
        time.sleep(1)
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(image_folder, "decode", slow)

    def trial() -> None:
        results.append(folder_data.prepared(elsewhere, ignore, lambda: waited.add(threading.get_ident())))

    threads = [threading.Thread(target=trial) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(decoded) == 1 and len(waited - set(decoded)) == 2
    assert all(isinstance(result.train, MappedPart) for result in results) and len(results) == 3
    assert len(entries(tmp_path / "second")) == 1


SLOW = """
import pickle, sys, time
from study.data import folder_data, image_folder
read = image_folder.read_pixels
def slow(*arguments):
    if arguments[0].name == "5.bmp":
        print("decoding", flush=True)
        time.sleep(2)
    return read(*arguments)
image_folder.read_pixels = slow
folder_data.prepared(pickle.load(sys.stdin.buffer), lambda *count: None, lambda: None)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_preparation_leaves_nothing(elsewhere: Splits, tmp_path: Path, how: signal.Signals) -> None:
    """No entry, so nobody maps half of one. After Ctrl-C there is no file at all; after SIGKILL the next preparation
    removes what is there, and is not stopped by the lock."""
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(pickle.dumps(elsewhere))
    process.stdin.close()
    assert process.stdout.readline() == b"decoding\n"
    name = blueprint(elsewhere.train).folder.name
    assert [n.partition("-")[0] for n in entries(tmp_path / "second")] == [".lock", ".partial"]
    process.send_signal(how)
    process.wait(60)
    assert name not in entries(tmp_path / "second")
    assert how is signal.SIGKILL or entries(tmp_path / "second") == []
    folder_data.prepared(elsewhere, ignore, no_wait)
    assert entries(tmp_path / "second") == [name]

"""What does not fit into memory, or cannot be read, is one line before anything is allocated."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from study.commandline import data_folder
from study.data import memory, registry
from study.errors import UserError


def png(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises so many grey pixels; those of a large one are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height)) if width < 100 else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def folder_of(root: Path, width: int, height: int, train: int = 3) -> Path:
    """Two classes, `train` training images and one test image each."""
    for part, count in (("train", train), ("test", 1)):
        for name in ("cat", "dog"):
            for i in range(count):
                png(root / part / name / f"{i}.png", width, height)
    return root


def refusal(root: Path, name: str = "folder", size: int | None = None) -> str:
    with pytest.raises(UserError) as refused:
        registry.load(name, root, size=size)
    assert str(refused.value).isprintable()
    return str(refused.value)


@pytest.fixture
def megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a million bytes of memory left."""
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)


def test_small_files_of_large_images_are_refused_before_they_are_decoded(
    tmp_path: Path, megabyte: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 8 images and the copy of 6 that the split makes, and two for each decoder. Pillow's warning of large
    images is not printed."""
    root = folder_of(tmp_path / "bombs", 10_000, 10_000)
    monkeypatch.setattr("study.data.image_folder._DECODERS", 1)
    monkeypatch.setattr(np, "empty", None)  # nothing is allocated
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = refusal(root)
    assert line.startswith(
        f"--data-dir {root}: its 8 images of 10000×10000 grey need 1,600,000,000 bytes of memory, and 1,000,000 are "
        "available. To fix it: "
    )


def test_many_images_are_refused(tmp_path: Path, megabyte: None) -> None:
    """Each of them is small."""
    assert "need 1," in refusal(folder_of(tmp_path, 100, 90, train=50))


def test_a_huge_image_among_small_ones_is_not_decoded(tmp_path: Path) -> None:
    """It is refused by its header; so is one beyond what Pillow reads at all."""
    root = folder_of(tmp_path, 4, 4)
    huge = png(root / "train/cat/00.png", 12_000, 12_000)
    assert refusal(root).startswith(f"{huge} is 12000×12000, but {root}/train/cat/0.png is 4×4: images of several ")
    png(huge, 2**20, 2**20)
    assert refusal(root).startswith(f"{huge} is damaged or no image (Image size (1099511627776 pixels) exceeds limit")


def test_enlarging_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one pixel grow a thousandfold where a network needs 32; what was read before stays small."""
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(UserError) as refused:
        registry.load("digits", None, size=64)
    needed = (1438 * 2 + 359 * 2) * 64 * 64
    assert str(refused.value).startswith(
        f"--dataset digits: its images, enlarged to 64×64, need {needed:,} bytes of memory, and 1,000,000 are available"
    )


def test_memory_that_runs_out_all_the_same_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have taken it since."""

    def full(*shape: object) -> None:
        raise MemoryError

    root = folder_of(tmp_path, 4, 4)
    monkeypatch.setattr(np, "empty", full)
    assert refusal(root) == f"--data-dir {root}: does not fit into memory; give fewer or smaller images"


LIMIT, USAGE = "memory.limit_in_bytes", "memory.usage_in_bytes"


@pytest.mark.parametrize(
    ("line", "files", "left"),
    [
        ("0::/job", {"job/memory.max": 900, "job/memory.current": 500}, [400]),
        ("0::/", {"memory.max": 900, "memory.current": 500}, [400]),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": 90, "a/memory.current": 50}, [40]),
        ("5:cpu,memory:/job", {f"memory/job/{LIMIT}": 900, f"memory/job/{USAGE}": 500}, [400]),
        ("5:cpu:/job", {f"memory/job/{LIMIT}": 900, f"memory/job/{USAGE}": 500}, []),
        ("0::/job", {}, []),
    ],
)  # fmt: skip
def test_limits_of_control_groups(tmp_path: Path, line: str, files: dict[str, int | str], left: list[int]) -> None:
    """Of a container or a batch job, in both versions, also where a group above has the limit; files that the system
    would drop are free."""
    (tmp_path / "groups").write_text(f"{line}\n")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert set(memory._of_control_groups(tmp_path, tmp_path / "groups")) == set(left)
    for name in files:
        (tmp_path / name).with_name("memory.stat").write_text("anon 3\ninactive_file 7\n")
    assert set(memory._of_control_groups(tmp_path, tmp_path / "groups")) == {n + 7 for n in left}


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of machine, control groups and `ulimit -v`; never below 0. The machine's is what Linux says."""
    assert 0 < memory.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(memory, "_of_control_groups", lambda: [300, 200])
    assert memory.available_memory() == 200
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (1, 1))
    assert memory.available_memory() == 0


# Other readers


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Four files of MNIST, too small to be it."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 20), ("t10k", 10)):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 2, 2) + bytes(4 * count))
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels)
    return tmp_path


def test_an_idx_file_is_checked_before_it_is_read(mnist: Path, megabyte: None) -> None:
    """One of 4 GB that says so, and one that promises them."""
    path = mnist / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", 0x803, 2**20, 64, 64))
    assert f"{path} is damaged: it has 16 bytes, not {2**32 + 16}" in refusal(mnist, "mnist")
    os.truncate(path, 2**32 + 16)  # a file of holes takes no room
    assert f"{path}: its 1,048,576 entries need {2 * (2**32 + 16):,} bytes" in refusal(mnist, "mnist")


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("cifar10", "cifar-10-batches-py/data_batch_1")]
)
def test_what_is_no_regular_file_is_not_opened(name: str, file: str, tmp_path: Path) -> None:
    """A FIFO would never end, and a folder is no file: neither is downloaded over, either."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert refusal(tmp_path, name).startswith(f"--data-dir: {path} is no regular file")
    path.unlink()
    path.mkdir()
    assert refusal(tmp_path, name).startswith(f"--data-dir: {path} is no regular file")


@pytest.mark.parametrize(("name", "reader"), [("mnist", "mnist.np.fromfile"), ("cifar10", "cifar.fetch"),
                                              ("digits", "digits.np.loadtxt")])  # fmt: skip
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"), "can't decode"),
        (MemoryError(), "does not fit into memory"),
    ],
)
def test_errors_of_the_system_are_one_line(
    name: str, reader: str, error: Exception, said: str, mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every reader, with the flag or the file."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(f"study.data.{reader}", fail)
    with pytest.raises(UserError, match=said) as refused:
        registry.load(name, None if name == "digits" else mnist)
    assert str(mnist) in str(refused.value) or "--dataset digits" in str(refused.value)


def test_a_cache_that_cannot_be_written_names_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where HOME is not writable, or a file: with the folder, and what to give."""

    def no_download(root: Path, *, download: bool) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(datasets.MNIST, "download", no_download)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = data_folder("mnist", None)
    assert folder == tmp_path / "home/.cache/compression-study"
    assert refusal(folder, "mnist").startswith(f"--data-dir {folder}: cannot be written (Not a directory), and has no ")
    (tmp_path / "home").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    line = refusal(folder, "mnist")
    assert line.startswith(f"--data-dir {folder}: cannot be written (Permission denied), and has no MNIST/raw/train-")
    assert "To fix it: give a folder that you may write to" in line


def test_an_empty_cache_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG specification has it; and without any home, --data-dir is asked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert data_folder("mnist", None) == tmp_path / ".cache/compression-study"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UserError, match="^--data-dir is missing: there is no home folder"):
        data_folder("mnist", None)

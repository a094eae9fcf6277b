"""Which files of an image folder are its images: hidden ones, loops, links, special files, odd names, other errors."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.data import folder_files, registry
from study.data.folder_files import find_images
from study.data.repeated_images import repeated_images
from study.errors import UserError

PARTS = ("train", "test")


def write(path: Path, seed: int) -> Path:
    """A small image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4), np.uint8)
    Image.fromarray(pixels).save(path, "png")
    return path


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two classes of six training and two test images, all different: cat/0.png … cat/5.png, dog/0.png, …"""
    seed = 0
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                write(tmp_path / f"zoo/{part}/{name}/{i}.png", seed := seed + 1)
    return tmp_path / "zoo"


def names(root: Path) -> dict[str, list[str]]:
    """Part/class → its images, by their paths below."""
    classes = find_images(root, PARTS).classes
    return {
        f"{part}/{name}": [str(file.relative_to(root / part / name)) for file in files]
        for part in PARTS
        for name, files in classes[part].items()
    }


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as refused:
        registry.load("folder", root)
    assert str(refused.value).isprintable()
    return str(refused.value)


HIDDEN = [
    ".ipynb_checkpoints", ".git", ".Trash-1000", "@eaDir", "@EADIR", "__MACOSX", "#recycle", "@Recycle", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", "__pycache__", ".",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_and_system_names_are_left_out_at_every_level(zoo: Path, name: str) -> None:
    """As a class, in a class, below a folder in a class; as a file, too."""
    before = names(zoo)
    name = name if name != "." else ".x"
    for where in ("train", "test", "train/cat", "test/dog", "train/dog/more/and"):
        for i, below in enumerate(("1.png", "deep/2.png")):
            write(zoo / where / name / below, 1000 + i)
    write(zoo / "train/cat/more/3.png", 99)
    write(zoo / "train/cat/._1.png", 99)
    write(zoo / "train/cat/.png", 99)
    before["train/cat"].append("more/3.png")
    assert names(zoo) == before


LINKS: list[tuple[str, str]] = [
    ("train/cat/up", ".."),
    ("train/cat/self", "."),
    ("train/cat/top", "../../.."),
    ("train/cat/root", "/"),
    ("train/cat/far", "../../../../../../../.."),
    ("train/cat/other", "../dog"),
    ("train/cat/test", "../../test/cat"),
    ("test/dog/train", "../../train"),
    ("train/dog/more/up", ".."),
    ("train/all", "."),
    ("train/both", ".."),
    ("train/kitten", "cat"),
    ("train/ant", "cat"),  # sorted before what it leads to
    ("train/cat/hidden", ".cache"),
    ("train/a", "a"),
    ("train/cat/a", "b"),  # where b leads to a
    ("train/cat/nothing", "nowhere"),
]


@pytest.mark.parametrize(("link", "target"), LINKS)
def test_links_to_folders_that_are_read_anyway_are_not_followed(zoo: Path, link: str, target: str) -> None:
    """Loops end, and no image counts for another class or part."""
    write(zoo / "train/dog/more/9.png", 9)
    write(zoo / "train/cat/.cache/9.png", 9)
    (zoo / "train/cat/b").symlink_to("a")
    before = names(zoo)
    (zoo / link).symlink_to(target)
    assert names(zoo) == before
    leads_somewhere = (zoo / link).exists()
    assert find_images(zoo, PARTS).left_out == leads_somewhere


def test_real_names_win_over_links_whatever_their_order(zoo: Path) -> None:
    """A link of the first class to a folder inside the last one takes nothing from it."""
    write(zoo / "train/dog/inner/9.png", 9)
    before = names(zoo)
    (zoo / "train/cat/0").symlink_to("../dog/inner")
    assert names(zoo) == before and "inner/9.png" in before["train/dog"]


def test_folders_elsewhere_are_followed_once(zoo: Path, tmp_path: Path) -> None:
    """Through a second link, a folder inside or a loop there, too; a class folder may itself be a link."""
    pool = tmp_path / "pool"
    for name in ("cat/a.png", "cat/in/b.png", "dog/c.png"):
        write(pool / name, len(name))
    (pool / "cat/back").symlink_to("..")
    for part in PARTS:
        (zoo / part / "owl").symlink_to(pool / "dog")
    (zoo / "train/cat/x").symlink_to(pool / "cat/in")
    (zoo / "train/cat/y").symlink_to(pool / "cat")
    (zoo / "train/cat/z").symlink_to(pool / "cat")
    own = [f"{i}.png" for i in range(6)]
    assert names(zoo)["train/cat"] == [*own, "x/b.png", "y/a.png"]
    assert names(zoo)["train/owl"] == names(zoo)["test/owl"] == ["c.png"]


def test_two_names_of_one_file_are_one_image(zoo: Path, tmp_path: Path) -> None:
    """Hard or symbolic links, into the folder or out of it; the first name counts, a real one before a link."""
    (zoo / "train/cat/00.png").symlink_to("1.png")
    os.link(zoo / "train/cat/2.png", zoo / "train/cat/7.png")
    pool = write(tmp_path / "pool/p.png", 77)
    for i in (8, 9):
        (zoo / f"train/cat/{i}.png").symlink_to(pool)
    (zoo / "train/cat/dog.png").symlink_to("../dog/1.png")
    found = names(zoo)
    assert found["train/cat"] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "8.png"]
    assert len(found["train/dog"]) == 6 and find_images(zoo, PARTS).left_out == 3


def test_a_link_from_train_into_test_is_noticed(zoo: Path) -> None:
    """The test image stays a test image alone, and the link is counted as one that was left out."""
    (zoo / "train/cat/leak.png").symlink_to("../../test/cat/0.png")
    data, test = registry.load("folder", zoo)
    assert (len(data.train) + len(data.validation), len(test)) == (12, 4)
    assert data.links_left_out == 1 and repeated_images(data, test) == {"validation": 0, "test": 0}


def test_special_files_are_never_opened(zoo: Path) -> None:
    """A FIFO, a socket, a device, and links to them, named as images: opening one could wait forever."""
    before = names(zoo)
    os.mkfifo(zoo / "train/cat/fifo.png")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(zoo / "train/cat")  # a socket's path is short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
    (zoo / "train/cat/zero.png").symlink_to("/dev/zero")
    (zoo / "train/cat/linked.png").symlink_to("fifo.png")
    (zoo / "train/cat/folder.png").mkdir()
    assert names(zoo) == before
    assert len(registry.load("folder", zoo)[1]) == 4


def test_a_link_that_leads_nowhere_is_named(zoo: Path) -> None:
    """An image is missing there, which must not pass in silence."""
    for target in ("nowhere.png", "x.png"):
        link = zoo / "train/cat/x.png"
        link.symlink_to(target)
        assert refusal(zoo).startswith(f"{link} is a link that leads nowhere (")
        link.unlink()


def test_what_may_not_be_read_is_named(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a folder without permission, in one line each; the tests may run as root, who may read all."""
    real_open, real_scandir = Image.open, os.scandir

    def denied(closed: Path, real: Callable[..., object]) -> Callable[..., object]:
        def opened(path: Path | str, *rest: object) -> object:
            if Path(path) == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest)

        return opened

    monkeypatch.setattr(Image, "open", denied(zoo / "train/cat/3.png", real_open))
    assert refusal(zoo).startswith(f"{zoo}/train/cat/3.png cannot be read (Permission denied). To fix it: ")
    monkeypatch.setattr(folder_files.os, "scandir", denied(zoo / "train/dog", real_scandir))
    assert refusal(zoo).startswith(f"{zoo}/train/dog cannot be read (Permission denied)")


ODD = [
    b"caf\xe9", b"\x1b[31mred\x1b[0m", b"<script>alert(1)</script>", b"a\nb", b"\xff\xfe", b"x" * 255, b"a b'\"&$;*?",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_harmless(zoo: Path, name: bytes) -> None:
    """Bytes that are not UTF-8, terminal codes, line ends, 255 bytes: as a class they are printable and JSON, and a
    message about a file of that name is one line."""
    odd = os.fsdecode(name)
    for part in PARTS:
        for i in range(3):
            write(zoo / part / odd / f"{i}.png", 10 * i + len(part))
    file = os.fsdecode(name[:251]) + ".png"
    write(zoo / "train/cat" / file, 5)
    data, _ = registry.load("folder", zoo)
    assert len(data.train) + len(data.validation) == 16 and len(data.classes) == 3
    assert all(name.isprintable() and name.encode() for name in data.classes)
    (zoo / "train/cat" / file).write_bytes(b"no image")
    assert "is damaged or no image" in refusal(zoo)


def test_the_title_of_a_folder_that_is_not_utf8_is_text(zoo: Path) -> None:
    """It stands in study.json and on the page."""
    root = zoo.rename(zoo.parent / os.fsdecode(b"caf\xe9"))
    assert registry.load("folder", root)[0].title == r"caf\udce9"


def test_images_in_two_parts_are_counted(zoo: Path) -> None:
    """By hand: copies of one image that fall on both sides of the split, and of two training images in test. The same
    pixels in another file format are the same image."""
    for i in range(30):
        write(zoo / f"train/cat/copy{i}.png", 500)
    (zoo / "test/dog/a.png").write_bytes((zoo / "train/cat/0.png").read_bytes())
    with Image.open(zoo / "train/dog/3.png") as image:
        image.save(zoo / "test/dog/b.bmp")
    data, test = registry.load("folder", zoo)
    copies = np.asarray(Image.open(zoo / "train/cat/copy0.png"))
    in_validation = sum(np.array_equal(image[0], copies) for image in data.validation.images.numpy())
    assert in_validation > 0
    assert repeated_images(data, test) == {"validation": in_validation, "test": 2}

"""Folders of photos as people have them: any size, mode and orientation, damaged ones among them, and too many."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import write_photos
from PIL import Image

from study import evaluate
from study.compression.compressed_file import Network
from study.data import mapped, registry
from study.data.fingerprint import fingerprint, identity
from study.data.image_files import read_header, read_pixels
from study.data.image_folder import Reading
from study.data.repeated_images import repeated_images
from study.errors import UserError
from study.pipeline.metadata import data_warnings

GREY = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
AS_IT_IS = Reading()
COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def refusal(root: Path, reading: Reading = AS_IT_IS) -> str:
    with pytest.raises(UserError) as refused:
        registry.load("folder", root, reading=reading)
    assert str(refused.value).isprintable()
    return str(refused.value)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of 6 training and 2 test photos, all of another size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_photos(tmp_path / "photos", "png", growing=True)


def image_16(scale: float) -> Image.Image:
    return Image.fromarray((GREY.astype(np.uint32) * scale).astype(np.uint16))


def transparent() -> Image.Image:
    """Left half opaque, right half clear."""
    alpha = np.where(np.arange(4) < 2, 255, 0).astype(np.uint8) * np.ones((3, 1), np.uint8)
    return Image.fromarray(np.dstack([COLOURS, alpha]))


ON_WHITE = np.where(np.arange(4)[:, None] < 2, COLOURS, 255)


@pytest.mark.parametrize(
    ("make", "suffix", "expected"),
    [
        (lambda: image_16(257), "png", GREY),
        (lambda: image_16(257), "tif", GREY),
        (lambda: Image.fromarray(GREY.astype(np.int32) * 257), "tif", GREY),
        (lambda: Image.fromarray(GREY > 100), "png", np.where(GREY > 100, 255, 0)),
        (transparent, "png", ON_WHITE),
        (transparent, "webp", None),
        (lambda: transparent().convert("LA"), "png", None),
        (lambda: transparent().quantize(), "png", ON_WHITE),
        (lambda: Image.fromarray(COLOURS).quantize(), "png", COLOURS),
        (lambda: Image.fromarray(COLOURS).convert("CMYK"), "tif", COLOURS),
        (lambda: Image.fromarray(COLOURS).quantize(), "gif", COLOURS),
    ],
)
def test_every_mode_becomes_8_bits(
    make: Callable[[], Image.Image], suffix: str, expected: np.ndarray | None, tmp_path: Path
) -> None:
    """16 bits are scaled and not cut off, transparency is laid on white, palettes and CMYK become their colours."""
    path = tmp_path / f"image.{suffix}"
    make().save(path, **({"lossless": True} if suffix == "webp" else {}))
    header = read_header(path)
    pixels = read_pixels(path, header.colour)
    assert pixels.shape == (3 if header.colour else 1, 3, 4) and pixels.dtype == np.uint8
    if expected is None:  # half of it is clear
        assert (pixels[:, :, 2:] == 255).all() and (pixels[:, :, :2] < 255).any()
    else:
        wanted = expected if expected.ndim == 3 else expected[..., None]
        assert header.colour == (expected.ndim == 3)
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), wanted)


@pytest.mark.parametrize("values", [-1.0, 0.5])
def test_what_is_white_must_be_known(values: float, tmp_path: Path) -> None:
    """Floating-point numbers, and whole ones beyond 16 bits, are refused by the file's name."""
    kind = np.float32 if values == 0.5 else np.int32
    Image.fromarray(np.full((3, 4), values, kind)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=f"^{tmp_path}/x.tif has .* nobody knows what is white. To fix it: save it"):
        read_pixels(tmp_path / "x.tif", read_header(tmp_path / "x.tif").colour)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "lzw.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(orientation: int, suffix: str, tmp_path: Path) -> None:
    """By hand, from EXIF 2.32, table 6: where the first row and the first column are. The header knows, too."""
    pixels = np.full((8, 16), 200, np.uint8)
    pixels[:4, :8] = 0  # the first rows and columns are dark
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, **({"compression": "tiff_lzw"} if "lzw" in suffix else {}))
    upright = read_pixels(path, False)[0]
    header = read_header(path)
    assert (header.height, header.width) == upright.shape == ((16, 8) if orientation >= 5 else (8, 16))
    corner = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    corner |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}
    row, column = corner[orientation].split()
    assert upright[0 if row == "top" else -1, 0 if column == "left" else -1] < 100
    assert upright.mean() > 140, "the other corners are light"


def test_damaged_exif_data_do_not_matter(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """The image is whole, and read as it is."""
    Image.fromarray(COLOURS).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=100)
    assert read_pixels(tmp_path / "x.jpg", True).shape == (3, 3, 4)


def test_images_are_resized_and_cropped(tmp_path: Path) -> None:
    """The centre of the shorter side; stripes finer than the new pixels become their mean, which a resize that only
    picks pixels would not give; a small image is enlarged; a strip of 1 × 20,000 costs no memory."""
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 100
    wide[:, 9:16:2] = 200
    Image.fromarray(wide).save(tmp_path / "x.png")
    small = read_pixels(tmp_path / "x.png", True, 2)
    assert small.shape == (3, 2, 2) and np.abs(small.astype(int) - 150).max() <= 15
    assert read_pixels(tmp_path / "x.png", True, 11).shape == (3, 11, 11)
    Image.fromarray(np.zeros((20_000, 1), np.uint8)).save(tmp_path / "strip.png")
    assert read_pixels(tmp_path / "strip.png", False, 64).shape == (1, 64, 64)


def test_a_large_jpeg_is_decoded_smaller_without_a_visible_change(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:600, :800]
    Image.fromarray(((rows + columns) / 6).astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    square = Image.open(tmp_path / "x.jpg").crop((100, 0, 700, 600)).resize((20, 20), Image.Resampling.BILINEAR)
    small = read_pixels(tmp_path / "x.jpg", False, 20)[0]
    assert np.abs(small.astype(int) - np.asarray(square, int)).max() <= 3


def test_photos_of_all_kinds_become_one_size(photos: Path) -> None:
    """Grey beside colour has three channels; grey alone has one; what was square and large enough stays as it is."""
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(photos / "test/cat/0.png")
    splits, test = registry.load("folder", photos, reading=Reading(image_size=16))
    assert splits.shape == (3, 16, 16) and (len(splits.train), len(splits.validation), len(test)) == (10, 2, 4)
    assert (test.images[0] == 77).all()
    for path in photos.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert registry.load("folder", photos, reading=Reading(image_size=16))[0].shape == (1, 16, 16)


def test_one_size_needs_no_flag(photos: Path) -> None:
    """Turned photos of one size, of two modes, go as they are."""
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 2 else 1
        shape = (9, 7) if i % 2 else (7, 9)
        Image.new("L" if i % 3 else "RGB", shape, 5).save(path, exif=exif)
    assert registry.load("folder", photos)[0].shape == (3, 9, 7)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_validation_part(photos: Path, name: str) -> None:
    """Whatever the seed; it must have the same classes, and be only one."""
    shutil.copytree(photos / "test", photos / name)
    for path in (photos / name).rglob("1.png"):
        path.unlink()
    splits, _ = registry.load("folder", photos, reading=Reading(16), split_seed=3)
    assert (len(splits.train), len(splits.validation), splits.validation.labels.tolist()) == (12, 2, [0, 1])
    shutil.rmtree(photos / name / "dog")
    assert refusal(photos).startswith(f"{photos / name / 'dog'} is missing: train/ and {name}/ must hold the same")
    (photos / "val").mkdir(exist_ok=True)
    (photos / "valid").mkdir(exist_ok=True)
    assert refusal(photos).startswith(f"{photos} holds both val/ and valid/")


def test_a_test_part_can_be_taken_from_train(photos: Path) -> None:
    """It is asked for; it is stratified, the same for every split seed, and apart from the others; and not asked for
    where there is one."""
    assert "leave it out" in refusal(photos, Reading(16, test_fraction=0.5))
    shutil.rmtree(photos / "test")
    assert refusal(photos, Reading(16)).endswith("or add --test-fraction 0.2 to take the test part from train/")
    a, test_a = registry.load("folder", photos, reading=Reading(16, test_fraction=1 / 3))
    b, test_b = registry.load("folder", photos, reading=Reading(16, test_fraction=1 / 3), split_seed=1)
    assert torch.equal(test_a.images, test_b.images) and test_a.labels.tolist() == [0, 0, 1, 1]
    assert not torch.equal(a.validation.images, b.validation.images)
    images = torch.cat([a.train.images, a.validation.images, test_a.images])
    assert len(images) == len(torch.unique(images.flatten(1), dim=0)) == 12


def test_all_damaged_images_are_named_at_once(photos: Path) -> None:
    """Those that are no image, and those that end too early; --skip-damaged goes on and says how many."""
    whole = (photos / "train/cat/1.png").read_bytes()
    (photos / "train/cat/1.png").write_bytes(whole[: len(whole) // 2])
    for i in range(6):
        (photos / f"train/dog/x{i}.png").write_bytes(b"no image")
    line = refusal(photos, Reading(16))
    assert line.startswith(f"--data-dir {photos}: 7 images cannot be used: {photos}/train/dog/x0.png is damaged or no ")
    assert "; 2 more are damaged. To fix it: restore or delete them, or add --skip-damaged" in line
    splits, _ = registry.load("folder", photos, reading=Reading(16, skip_damaged=True))
    assert splits.damaged_left_out == 7 and len(splits.train) + len(splits.validation) == 11
    assert splits.train.labels.tolist() == sorted(splits.train.labels.tolist())
    (warning,) = data_warnings({"data": {"damaged_left_out": 7}, "settings": {}})
    assert "7" in warning and "--skip-damaged" in warning
    for path in (photos / "test/cat").iterdir():
        path.write_bytes(b"")
    assert refusal(photos, Reading(16, skip_damaged=True)).startswith(f"{photos}/test/cat: all 2 of its images are ")


@pytest.fixture
def nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "SHARE", 0.0)


def test_mapped_images_are_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in memory, in all that a study asks; pickled they are a path; the second study decodes nothing."""
    shutil.copy(photos / "train/cat/0.png", photos / "test/dog/9.png")
    (photos / "train/dog/bad.png").write_bytes(b"no image")
    reading = Reading(16, skip_damaged=True)
    splits, test = registry.load("folder", photos, reading=reading, size=32)
    monkeypatch.setattr(mapped, "SHARE", 0.0)
    first = registry.load("folder", photos, reading=reading, size=32)
    monkeypatch.setattr("study.data.image_folder.read_pixels", None)
    for again, test_again in (first, registry.load("folder", photos, reading=reading, size=32)):
        assert isinstance(again.train, mapped.MappedPart) and again.shape == (3, 32, 32)
        assert torch.equal(again.train.images, splits.train.images) and torch.equal(test_again.labels, test.labels)
        assert identity(again) == identity(splits) and fingerprint(test_again) == fingerprint(test)
        assert repeated_images(again, test_again) == repeated_images(splits, test) == {"validation": 0, "test": 1}
        same = ("mean", "std", "classes", "title", "damaged_left_out", "split_seed")
        assert [getattr(again, name) for name in same] == [getattr(splits, name) for name in same]
        stream = pickle.dumps(again.to("cpu"))
        assert len(stream) < 3000
        assert torch.equal(pickle.loads(stream).validation.images, splits.validation.images)


def test_a_change_in_the_folder_is_noticed(photos: Path, nothing_fits: None) -> None:
    """Another time, another file, another size asked for: each is decoded again; nothing partial stays behind."""
    before = registry.load("folder", photos, reading=Reading(16))[0]
    Image.new("RGB", (30, 25), "red").save(photos / "train/cat/5.png")
    after = registry.load("folder", photos, reading=Reading(16))[0]
    assert identity(before) != identity(after)
    assert registry.load("folder", photos, reading=Reading(8))[0].shape == (3, 8, 8)
    cache = photos.parent / "cache/compression-study/folders"
    assert len(list(cache.iterdir())) == 3
    for file in cache.rglob("train.images"):  # as after a disk that was full
        file.write_bytes(b"cut")
    again = registry.load("folder", photos, reading=Reading(16))[0]
    assert identity(again) == identity(after) and len(list(cache.iterdir())) == 3


def test_damaged_images_of_a_mapped_folder_are_refused_each_time(photos: Path, nothing_fits: None) -> None:
    """Decoded once, it can go on with --skip-damaged at once."""
    (photos / "train/cat/1.png").write_bytes(b"no image")
    for _ in range(2):
        assert "damaged or no image" in refusal(photos, Reading(16))
    assert registry.load("folder", photos, reading=Reading(16, skip_damaged=True))[0].damaged_left_out == 1


def test_a_disk_without_room_is_one_line(
    photos: Path, nothing_fits: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is decoded; and so is a cache that cannot be written."""
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    assert "need 24,576 bytes there, and 1,000 are free. To fix it: set XDG_CACHE_HOME" in refusal(photos, Reading(16))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in refusal(photos, Reading(16))


def test_a_network_is_scored_on_photos_as_it_was_trained(photos: Path) -> None:
    """`study.evaluate` takes the size of photos that differ from the network; what a study was given can be given."""
    splits, test = registry.load("folder", photos, reading=Reading(16), size=16)
    network = Network("lenet5", {}, (3, 16, 16), 2, splits.mean, splits.std, "folder")
    data, part = evaluate._load(evaluate.Options((Path("x.codebook"),), data_dir=photos), network)
    assert torch.equal(part.images, test.images) and data.mean == splits.mean
    shutil.rmtree(photos / "test")
    (photos / "train/cat/bad.png").write_bytes(b"")
    options = evaluate.Options(
        (Path("x"),), data_dir=photos, image_size=16, test_fraction=0.5, skip_damaged=True, part="validation"
    )
    with pytest.raises(UserError, match="not the split"):
        evaluate._load(options, network)
    options = evaluate.Options((Path("x"),), data_dir=photos, test_fraction=0.5, skip_damaged=True)
    assert evaluate._load(options, network)[1].images.shape == (6, 3, 16, 16)

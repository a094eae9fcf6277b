import functools
import gc
import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from servers import serving
from torch import Tensor
from torchvision import datasets

from study.data import registry
from study.data.images import enlarge, normalise
from study.data.splits import Part, stratified, subset_per_class
from study.errors import UserError

SHARED = Path(__file__).parents[3] / "shared/data"


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


def fails(*said: str | Path, name: str = "folder", data_dir: Path | None = None) -> None:
    """Loading fails in one line that says all of this."""
    with pytest.raises(UserError) as error:
        registry.load(name, data_dir)
    for words in said:
        assert str(words) in one_line(error)


# Small data sets in each published format. Pixel values carry the example's number, so parts can be told apart.


def numbered(count: int, side: int = 8, channels: int = 1, first: int = 0) -> np.ndarray:
    """(count, channels, side, side) uint8; the first two pixels of each image are its number."""
    images = np.random.default_rng(first).integers(0, 256, (count, channels, side, side)).astype(np.uint8)
    numbers = np.arange(first, first + count)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers // 256, numbers % 256
    return images


def numbers_of(part: Part) -> list[int]:
    return (part.images[:, 0, 0, 0].long() * 256 + part.images[:, 0, 0, 1].long()).tolist()


def idx_files() -> dict[str, bytes]:
    files = {}
    for stem, count, first in (("train", 240, 0), ("t10k", 50, 1000)):
        images = numbered(count, first=first)[:, 0]
        labels = (np.arange(count) % 10).astype(np.uint8)
        files[f"{stem}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
        files[f"{stem}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, count) + labels.tobytes()
    return files


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for name, content in idx_files().items():
        (raw / name).write_bytes(content)
    return tmp_path / "data"


def write_image(path: Path, pixels: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 10), ("test", 3)):
        for c, name in enumerate(("ant", "bee", "cow")):
            for i in range(count):
                pixels = np.full((6, 5, 3), (80 * c, 10 * i, 7), np.uint8)
                write_image(tmp_path / "zoo" / part / name / f"{i:02}.png", pixels)
    return tmp_path / "zoo"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mirror on this machine: its address, and the folder that it serves."""
    where = tmp_path / "mirror"
    where.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(where))

    with serving(Handler) as address:
        yield f"{address}/", where


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def mnist_mirror(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's own MNIST download, of small files from a mirror on this machine."""
    address, where = served
    resources = []
    for name, content in idx_files().items():
        packed = gzip.compress(content)
        (where / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", md5(packed)))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return where


@pytest.fixture
def cifar_mirror(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's own CIFAR-10 download, likewise."""
    address, where = served
    files = {"batches.meta": pickle.dumps({"label_names": [f"kind {c}" for c in range(10)]})}
    for b, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        images = numbered(60, 32, 3, first=60 * b).reshape(60, -1)
        files[name] = pickle.dumps({"data": images, "labels": [i % 10 for i in range(60)]})
    with tarfile.open(where / "cifar.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sums = {name: md5(content) for name, content in files.items()}
    settings = {
        "url": address + "cifar.tar.gz",
        "filename": "cifar.tar.gz",
        "tgz_md5": md5((where / "cifar.tar.gz").read_bytes()),
        "train_list": [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    }
    for attribute, value in settings.items():
        monkeypatch.setattr(datasets.CIFAR10, attribute, value)
    return where


# Splits


def test_digits() -> None:
    """The embedded data set needs no file: 1,797 grey 8×8 images over the whole range of a byte, 60 : 20 : 20."""
    splits, test = registry.load("digits", None)
    assert [len(part) for part in (splits.train, splits.validation, test)] == [1078, 360, 359]
    assert splits.shape == (1, 8, 8) and splits.classes == tuple("0123456789")
    assert splits.train.images.dtype == torch.uint8 and splits.train.labels.dtype == torch.int64
    assert (splits.train.images.min(), splits.train.images.max()) == (0, 255)


def test_parts_never_overlap(mnist_dir: Path) -> None:
    """Each published training image is in exactly one of train and validation; the test part is the published one."""
    splits, test = registry.load("mnist", mnist_dir)
    train, validation = numbers_of(splits.train), numbers_of(splits.validation)
    assert sorted(train + validation) == list(range(240))
    assert len(validation) == 20
    assert numbers_of(test) == list(range(1000, 1050))
    for part in (splits.train, splits.validation):
        assert [number % 10 for number in numbers_of(part)] == part.labels.tolist()


def test_digits_parts_never_overlap() -> None:
    """The three parts of digits hold every image of scikit-learn once, with its label."""
    from sklearn.datasets import load_digits

    splits, test = registry.load("digits", None)
    ours = [
        (tuple(image.flatten().tolist()), label)
        for part in (splits.train, splits.validation, test)
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    ]
    whole = load_digits()
    theirs = [
        (tuple(np.rint(image * 255 / 16).astype(int)), int(label))
        for image, label in zip(whole.data, whole.target, strict=True)
    ]
    assert sorted(ours) == sorted(theirs)


def test_parts_are_stratified() -> None:
    """Each class has its share of each part, to within one image."""
    splits, test = registry.load("digits", None)
    counts = [torch.bincount(part.labels, minlength=10) for part in (splits.train, splits.validation, test)]
    whole = torch.stack(counts).sum(0)
    for part, share in zip(counts, (0.6, 0.2, 0.2), strict=True):
        assert (part - share * whole).abs().max() <= 1.5


def test_rare_class_is_in_both_parts() -> None:
    """A class of two images has one in train and one in validation, however small the fraction."""
    labels = torch.tensor([0] * 50 + [1] * 2)
    for seed in range(5):
        marked = stratified(labels, 0.02, seed, ("many", "few"), "test")
        assert marked[50:].sum() == 1 and 1 <= marked[:50].sum() <= 2


def test_split_seed_repeats() -> None:
    """The same split seed gives the same parts, another one other parts, and the test part is always the same."""
    (a, test_a), (b, test_b), (c, test_c) = (registry.load("digits", None, split_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.train.images, b.train.images) and torch.equal(a.validation.labels, b.validation.labels)
    assert not torch.equal(a.train.images, c.train.images)
    assert torch.equal(test_a.images, test_b.images) and torch.equal(test_a.images, test_c.images)
    assert c.split_seed == 1


def test_validation_fraction(mnist_dir: Path) -> None:
    """Another fraction can be asked for; one outside (0, 1) is refused."""
    assert len(registry.load("mnist", mnist_dir, validation_fraction=0.25)[0].validation) == 60
    with pytest.raises(UserError, match="between 0 and 1"):
        registry.load("mnist", mnist_dir, validation_fraction=1.0)


def test_constants_are_of_the_training_part(folder: Path) -> None:
    """Mean and deviation of each channel are NumPy's over the training part alone; normalising uses them."""
    splits, _ = registry.load("folder", folder)
    pixels = splits.train.images.numpy() / 255
    np.testing.assert_allclose(splits.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(splits.std[:2], pixels.std(axis=(0, 2, 3))[:2], rtol=1e-9)
    assert splits.std[2] == 1, "a constant channel is left alone, not divided by zero"
    wanted = (pixels - pixels.mean(axis=(0, 2, 3), keepdims=True)) / np.reshape(splits.std, (1, 3, 1, 1))
    normalised = normalise(splits.train.images, splits.mean, splits.std)
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised, wanted, atol=2e-6)


def test_normalise_leaves_its_input() -> None:
    """The uint8 images are never written to: they may be shared between trials."""
    images = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    before = images.clone()
    normalise(images, (0.5,), (0.25,))
    assert torch.equal(images, before)


def test_few_labels() -> None:
    """A small labelled subset has the same number of each class, repeats with its seed, and never doubles an image."""
    train = registry.load("digits", None)[0].train
    a, b, c = (subset_per_class(train, 7, seed) for seed in (0, 0, 1))
    assert torch.bincount(a.labels).tolist() == [7] * 10
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    assert len(torch.unique(a.images.flatten(1), dim=0)) == 70
    everything = subset_per_class(a, 7, 5)
    assert torch.equal(everything.images, a.images), "all there are, in their own order"


@pytest.mark.parametrize("asked", [0, -1, 1000])
def test_too_few_labels(asked: int) -> None:
    """More of a class than there is, or none, is refused by the name of the flag, with what would do."""
    train = registry.load("digits", None)[0].train
    with pytest.raises(UserError) as error:
        subset_per_class(train, asked, 0)
    assert f"--student-examples {asked}" in one_line(error)
    assert f"1 to {torch.bincount(train.labels).min()}" in one_line(error)


# Sharing


def test_pickle_shares_memory() -> None:
    """Pickle (protocol 5) leaves every image out-of-band, and what is unpickled lies in that memory: no copy."""
    splits, _ = registry.load("digits", None)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    assert len(stream) < 2000
    shared = [memoryview(bytes(buffer.raw())) for buffer in buffers]  # read-only, as Ray's object store is
    again = pickle.loads(stream, buffers=shared)
    tensors = [t for part in (again.train, again.validation) for t in (part.images, part.labels)]
    starts = {np.frombuffer(buffer, np.uint8).ctypes.data for buffer in shared}
    assert {t.data_ptr() for t in tensors} == starts and len(starts) == 4
    assert torch.equal(again.train.images, splits.train.images)
    assert torch.equal(again.validation.labels, splits.validation.labels)
    assert (again.mean, again.classes, again.shape) == (splits.mean, splits.classes, splits.shape)


def test_pickle_of_a_slice() -> None:
    """Views and transposed tensors arrive with the same values, in every pickle protocol."""
    images = torch.arange(96, dtype=torch.uint8).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    part = Part(images, torch.arange(4)[::2])
    for protocol in range(2, 6):
        again = pickle.loads(pickle.dumps(part, protocol=protocol))
        assert torch.equal(again.images, images) and again.labels.tolist() == [0, 2] and len(again) == 2


# Sizes


def interpolate(x: np.ndarray, line: np.ndarray) -> np.ndarray:
    return np.interp(x, np.arange(len(line)), line)


@pytest.mark.parametrize(
    ("height", "width", "size", "factor", "top", "left"),
    [(8, 8, 32, 4, 0, 0), (28, 28, 32, 1, 2, 2), (6, 5, 16, 2, 2, 3), (5, 40, 32, 1, 13, 0)],
)
def test_enlarge(height: int, width: int, size: int, factor: int, top: int, left: int) -> None:
    """Images grow by the largest whole factor that fits, bilinearly, and are centred in zeros."""
    images = torch.randint(1, 256, (3, 2, height, width), dtype=torch.uint8)
    large = enlarge(images, size)
    assert large.shape == (3, 2, max(height, size), max(width, size)) and large.dtype == torch.uint8
    inner = large[:, :, top : top + height * factor, left : left + width * factor]
    assert inner.sum(dtype=torch.int64) == large.sum(dtype=torch.int64), "all around is zero"
    wanted = images.numpy().astype(float)
    for axis, side in ((2, height), (3, width)):  # the centre of output pixel i lies at (i + 1/2) / factor - 1/2
        centres = (np.arange(side * factor) + 0.5) / factor - 0.5
        wanted = np.apply_along_axis(functools.partial(interpolate, centres), axis, wanted)
    assert np.abs(inner.numpy() - wanted).max() <= 0.5001


def test_enlarge_is_bilinear() -> None:
    """Twice as large, two pixels 0 and 200 become 0, 50, 150, 200 (pixel centres a quarter off)."""
    row = torch.tensor([[[[0, 200], [0, 200]]]], dtype=torch.uint8)
    assert enlarge(row, 4)[0, 0, 0].tolist() == [0, 50, 150, 200]


def test_large_images_stay() -> None:
    """Images that are large enough are returned as they are."""
    images = torch.zeros(2, 3, 40, 33, dtype=torch.uint8)
    assert enlarge(images, 32) is images and enlarge(images, None) is images


def test_size_applies_to_every_part() -> None:
    """Train, validation and test are enlarged alike, and the constants are those of the enlarged training part."""
    splits, test = registry.load("digits", None, size=32)
    assert splits.shape == (1, 32, 32) and test.images.shape[1:] == splits.validation.images.shape[1:] == (1, 32, 32)
    np.testing.assert_allclose(splits.std[0], (splits.train.images.numpy() / 255).std(), rtol=1e-9)


# MNIST and CIFAR files


def test_unknown_name() -> None:
    """An unknown data set is answered with the known ones."""
    fails("--dataset minst", "digits, mnist", name="minst")


@pytest.mark.parametrize("name", [name for name in registry.NAMES if name != "digits"])
def test_no_data_dir(name: str) -> None:
    """Every data set of files says that it needs a folder."""
    fails("--data-dir", name=name)


def test_names_are_cheap() -> None:
    """The list of names loads neither torchvision nor scikit-learn."""
    loaded = "[m for m in ('torchvision', 'sklearn') if m in sys.modules]"
    code = f"import sys, study.data.registry, study.models.registry; print({loaded})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.stdout.strip() == "[]", run.stderr


def test_real_mnist(tmp_path: Path) -> None:
    """The real MNIST reads as published: 55,000 + 5,000 + 10,000 images, first labels 5, 0, 4, mean 0.1307."""
    if not (SHARED / "mnist.tar.xz").exists():
        pytest.skip("the shared real data are not here")
    with tarfile.open(SHARED / "mnist.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    splits, test = registry.load("mnist", tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, test)] == [55_000, 5_000, 10_000]
    assert splits.shape == (1, 28, 28) and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert splits.mean[0] == pytest.approx(0.1307, abs=2e-4) and splits.std[0] == pytest.approx(0.3081, abs=2e-4)


@pytest.mark.parametrize("kept", [0, 10, 16, 5000, -1])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_idx_cut_short(mnist_dir: Path, file: str, kept: int) -> None:
    """An IDX file cut anywhere is named, with the way out."""
    path = mnist_dir / "MNIST/raw" / file
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept < len(content) else -2])
    fails(path, "damaged", "delete it", name="mnist", data_dir=mnist_dir)


def test_idx_of_another_kind(mnist_dir: Path) -> None:
    """Labels where images should be, and labels that do not match the images, are named too."""
    raw = mnist_dir / "MNIST/raw"
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    fails(raw / "train-labels-idx1-ubyte", "50 labels", "240 images", name="mnist", data_dir=mnist_dir)
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-images-idx3-ubyte")
    fails(raw / "train-images-idx3-ubyte", "3 dimensions", name="mnist", data_dir=mnist_dir)


def test_missing_class(mnist_dir: Path) -> None:
    """A class with too few images to split is named."""
    path = mnist_dir / "MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:8] + bytes([i % 9 for i in range(240)]))
    fails("MNIST", "class '9' has 0 training images", "at least 2", name="mnist", data_dir=mnist_dir)


def test_mnist_download(tmp_path: Path, mnist_mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchvision's download puts the four files in place and nothing else, says nothing on standard output, and is
    not needed again."""
    splits, test = registry.load("mnist", tmp_path / "data")
    assert len(splits.train) == 220 and len(test) == 50
    assert capsys.readouterr().out == ""
    left = sorted(str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert left == sorted(f"MNIST/raw/{name}" for name in idx_files())
    shutil.rmtree(mnist_mirror)
    again, _ = registry.load("mnist", tmp_path / "data")
    assert torch.equal(again.train.images, splits.train.images)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision leaves the answer "404" open
@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_mnist_download_broken(tmp_path: Path, mnist_mirror: Path, damage: str) -> None:
    """A download that ends in the middle leaves nothing behind, and the next run starts it anew."""
    archive = mnist_mirror / "t10k-labels-idx1-ubyte.gz"
    whole = archive.read_bytes()
    if damage == "gone":
        archive.unlink()
    else:
        archive.write_bytes(whole[:-9] if damage == "cut" else gzip.compress(b"not this"))
    where = tmp_path / "data"
    fails(f"--data-dir {where}", "download failed", "MNIST/raw/train-images-idx3-ubyte", name="mnist", data_dir=where)
    assert list(where.rglob("*")) == []
    archive.write_bytes(whole)
    assert len(registry.load("mnist", where)[1]) == 50
    gc.collect()  # so that the warning above comes here and not in a later test


def test_download_fills_in_what_is_missing(mnist_dir: Path, mnist_mirror: Path) -> None:
    """With one file missing, that one is put in place and the others stay as they were."""
    raw = mnist_dir / "MNIST/raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    registry.load("mnist", mnist_dir)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(raw.iterdir())) == 4


def test_archives_carried_by_hand(tmp_path: Path, mnist_mirror: Path) -> None:
    """Whole .gz archives in the folder are unpacked without a network, and kept."""
    raw = tmp_path / "data/MNIST/raw"
    shutil.copytree(mnist_mirror, raw)
    for archive in mnist_mirror.iterdir():
        archive.unlink()
    assert len(registry.load("mnist", tmp_path / "data")[0].train) == 220
    assert sorted(p.name for p in raw.iterdir()) == sorted(n for name in idx_files() for n in (name, f"{name}.gz"))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files and without a network: one line with the flag and the files that belong there."""
    nowhere = "http://127.0.0.1:9/"  # the discard port, where nothing listens
    monkeypatch.setattr(datasets.MNIST, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.CIFAR10, "url", nowhere + "cifar-10-python.tar.gz")
    wanted = {"mnist": "MNIST/raw/t10k-labels-idx1-ubyte", "cifar10": "cifar-10-batches-py/batches.meta"}[name]
    fails("--data-dir", tmp_path, wanted, "refused", name=name, data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_dir_is_a_file(tmp_path: Path, mnist_mirror: Path) -> None:
    """A --data-dir that is no folder is one clear line too."""
    (tmp_path / "file").write_text("")
    fails("--data-dir", tmp_path / "file", name="mnist", data_dir=tmp_path / "file")


def test_cifar_download(tmp_path: Path, cifar_mirror: Path) -> None:
    """CIFAR's archive is fetched, checked and read in the published order, channels first, and only once."""
    splits, test = registry.load("cifar10", tmp_path / "data")
    shutil.rmtree(cifar_mirror)
    again, _ = registry.load("cifar10", tmp_path / "data")
    assert torch.equal(splits.train.images, again.train.images)
    assert splits.shape == (3, 32, 32) and splits.classes[3] == "kind 3" and splits.title == "CIFAR-10"
    assert sorted(numbers_of(splits.train) + numbers_of(splits.validation)) == list(range(120))
    assert torch.equal(test.images, torch.from_numpy(numbered(60, 32, 3, first=120)))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cifar-10-batches-py"]


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("change", [lambda b: b[:-20], lambda b: b[:-20] + b"x" * 20])
def test_cifar_damaged(tmp_path: Path, cifar_mirror: Path, file: str, change: Callable[[bytes], bytes]) -> None:
    """A file of CIFAR that was cut short or changed is named and never unpickled; once deleted, it is fetched."""
    registry.load("cifar10", tmp_path / "data")
    path = tmp_path / "data/cifar-10-batches-py" / file
    path.write_bytes(change(path.read_bytes()))
    fails(path, "MD5", "delete it", name="cifar10", data_dir=tmp_path / "data")
    path.unlink()
    registry.load("cifar10", tmp_path / "data")


# Folders of images


def test_folder(folder: Path) -> None:
    """A folder's classes and images come in sorted order, the test part whole, and its name is the title."""
    splits, test = registry.load("folder", folder)
    assert splits.classes == ("ant", "bee", "cow") and splits.title == "zoo" and splits.shape == (3, 6, 5)
    assert len(splits.train) == 27 and splits.validation.labels.tolist() == [0, 1, 2]
    assert test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert test.images[:, 0, 0, 0].tolist() == [0] * 3 + [80] * 3 + [160] * 3
    assert test.images[:, 1, 5, 4].tolist() == [0, 10, 20] * 3


def test_folder_of_the_jpeg_cifar_is_labelled(folder: Path) -> None:
    """CIFAR-10 re-encoded as JPEG is never shown as CIFAR-10."""
    assert registry.load("folder", folder.rename(folder.parent / "cifar10-jpeg"))[0].title == "CIFAR-10 (JPEG)"


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3)])
def test_folder_modes(folder: Path, mode: str, channels: int) -> None:
    """Black-and-white and grey images have one channel, palette and colour images three, with their own pixels."""
    for path in sorted(folder.rglob("*.png")):
        write_image(path, np.full((4, 4, 3), 255 if "bee" in path.parts else 0, np.uint8), mode)
    splits, test = registry.load("folder", folder)
    assert splits.shape == (channels, 4, 4)
    assert test.images[:, 0, 0, 0].tolist() == [0] * 3 + [255] * 3 + [0] * 3


def test_folder_ignores_other_files(folder: Path) -> None:
    """Notes and hidden files beside the images do not count, nested folders and capitals do, as in ImageFolder."""
    for name in ("train/bee/notes.txt", "train/bee/.hidden.png", "train/readme.md", "train/bee/._01.png"):
        (folder / name).write_text("no image")
    (folder / "train/.cache").mkdir()
    write_image(folder / "train/bee/more/LAST.JPG", np.zeros((6, 5, 3), np.uint8))
    splits, _ = registry.load("folder", folder)
    assert len(splits.train) + len(splits.validation) == 31


def test_folder_damaged_image(folder: Path) -> None:
    """A JPEG cut short, an empty file and a text with an image's name are each named."""
    path = folder / "train/bee/zz.jpg"
    write_image(path, np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8))
    whole = path.read_bytes()
    for content in (whole[: len(whole) * 3 // 4], whole[:200], whole[:-8], b"", b"no image"):
        path.write_bytes(content)
        fails(path, "damaged or no image", data_dir=folder)
    path.write_bytes(whole)
    registry.load("folder", folder)


@pytest.mark.parametrize("part", ["train", "test"])
def test_folder_mixed(folder: Path, part: str) -> None:
    """The one image of another size is named, with both sizes, the flag that helps and a size that fits."""
    path = folder / part / "cow/01.png"
    write_image(path, np.zeros((5, 4, 3), np.uint8))
    fails(path, "4×5", "5×6", "--image-size 4", data_dir=folder)


def test_folder_layout(folder: Path) -> None:
    """What is missing in the layout is named: an image, a class, a part, the folder."""
    shutil.rmtree(folder / "test/cow")
    fails(folder / "test/cow", "missing", data_dir=folder)
    (folder / "test/cow").mkdir()
    fails(folder / "test/cow", "holds no image", data_dir=folder)
    shutil.rmtree(folder / "test/cow")
    shutil.rmtree(folder / "train/cow")
    (folder / "test/dog").mkdir()
    write_image(folder / "test/dog/1.png", np.zeros((6, 5, 3), np.uint8))
    fails(folder / "train/dog", "missing", data_dir=folder)
    for name in ("train/bee", "test/bee", "test/dog"):
        shutil.rmtree(folder / name)
    fails(folder / "train", "only one class", data_dir=folder)
    shutil.rmtree(folder / "train/ant")
    fails(folder / "train", "no class folder", data_dir=folder)
    shutil.rmtree(folder / "test")
    (folder / "train/ant").mkdir()
    write_image(folder / "train/ant/1.png", np.zeros((6, 5, 3), np.uint8))
    fails(folder / "test", "missing", data_dir=folder)
    fails(folder / "nowhere/train", "missing", data_dir=folder / "nowhere")


def test_folder_class_of_one(folder: Path) -> None:
    """A class of one training image cannot be split, and is named."""
    for path in sorted((folder / "train/bee").iterdir())[1:]:
        path.unlink()
    fails("zoo", "'bee' has 1 training images", "at least 2", data_dir=folder)


def test_threads_keep_the_order(tmp_path: Path) -> None:
    """However many threads decode, each image lands at its own label."""
    for c in range(3):
        for i in range(300):
            write_image(tmp_path / f"train/{c}/{i:03}.bmp", np.full((1, 2, 3), (c, i // 256, i % 256), np.uint8))
        shutil.copytree(tmp_path / f"train/{c}", tmp_path / f"test/{c}")
    test: Tensor = registry.load("folder", tmp_path)[1].images[:, :, 0, 0].long()
    assert test[:, 0].tolist() == [c for c in range(3) for _ in range(300)]
    assert (test[:, 1] * 256 + test[:, 2]).tolist() == list(range(300)) * 3

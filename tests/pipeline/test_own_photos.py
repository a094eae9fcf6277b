"""A folder of photos of mixed size, mode and orientation, through whole studies, to an ONNX file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.artifacts.cache import SharedWork, read_arrays
from study.compression import compressed_file
from study.data import registry
from study.data.image_folder import Reading
from study.data.images import normalise
from study.records import study_folder
from study.records.paths import model_of
from study.training.network import Training, load_network

ROOT = Path(__file__).parents[2]
MODES = ("RGB", "L", "RGBA", "P", "CMYK", "LA", "1")


def make_photos(root: Path) -> Path:
    """Two classes, bright above or bright on the left as they are shown; one damaged file among them."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 14), ("test", 4)):
        for label, name in enumerate(("above", "left")):
            for i in range(count):
                height, width = rng.integers(24, 60, 2)
                pixels = rng.integers(0, 90, (height, width, 3))
                pixels[(slice(height // 2),) if label == 0 else (slice(None), slice(width // 2))] += 120
                image, exif = Image.fromarray(pixels.astype(np.uint8)), Image.Exif()
                if i % 3 == 1:  # stored turned, and shown upright
                    image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
                image = image.convert(MODES[i % len(MODES)])
                path = root / part / name / f"{i}.{'jpg' if image.mode in ('RGB', 'L', 'CMYK') else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, exif=exif)
    (root / "train/left/broken.jpg").write_bytes(b"no image")
    return root


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"study.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("kd", "--teacher resnet18 --student resnet18 --teacher-epochs 1 --epochs 1 --augment resized-crop-jitter"),
        ("sws", "--network resnet18 --pretrain-epochs 1 --epochs 2"),
    ],
)
def test_photos_go_through_a_study_to_onnx(kind: str, flags: str, tmp_path: Path) -> None:
    """resnet18 on photos of 32 × 32: the study says what was left out, and the ONNX file of its trial gives the classes
    of every test image that the PyTorch network gives."""
    onnxruntime = pytest.importorskip("onnxruntime")
    photos = make_photos(tmp_path / "photos")
    where = ("--dataset", "folder", "--data-dir", str(photos), "--image-size", "32", "--skip-damaged")
    small = ("--batch-size", "8", "--num-samples", "1", "--precision", "float32", "--no-dashboard")
    said = run("run", kind, *where, *flags.split(), *small, "--results-dir", str(tmp_path))
    assert "damaged images left out (--skip-damaged): 1" in said
    study = study_folder.load(tmp_path / f"{kind}-folder")
    meta = json.loads((study.folder / "study.json").read_text())
    assert meta["data"]["damaged_left_out"] == 1 and meta["data"]["shape"] == [3, 32, 32]
    assert "left out as damaged" in (study.folder / "report.html").read_text()
    trial = sorted(path.stem for path in (study.folder / "models").glob("t*.safetensors"))[0]
    run("export", str(study.folder), "--trial", trial, "--formats", "onnx")
    data, test = registry.load("folder", photos, reading=Reading(32, skip_damaged=True))
    images = normalise(test.images, data.mean, data.std)
    file = model_of(study.folder, trial).with_suffix(".codebook")
    if kind == "sws":
        model = compressed_file.load(file)
    else:
        weights = SharedWork(read_arrays(model_of(study.folder, trial))).tensors()
        model = load_network(weights, Training("resnet18"), data)
    with torch.no_grad():
        wanted = model.eval()(images)
    session = onnxruntime.InferenceSession(str(study.folder / "exported" / f"{trial}.onnx"))
    (logits,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_array_equal(logits.argmax(axis=1), wanted.argmax(dim=1))
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)

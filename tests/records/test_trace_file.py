"""Traces from strangers and from failing disks: a damaged one is none, and none takes more memory than it has."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from study.records import paths, trace_file
from study.records.study_folder import read_trace


def test_a_flipped_bit_makes_it_none(tmp_path: Path) -> None:
    """Every flip is noticed, or changes nothing that is read: the file's own checksums cover its numbers."""
    path = synthetic.write_trace(tmp_path, "t001", epochs=2, weights=5000)
    good, content = read_trace(tmp_path, "t001"), path.read_bytes()
    assert good
    damaged = 0
    for place in range(0, len(content), max(1, len(content) // 300)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        found = read_trace(tmp_path, "t001")
        damaged += not found
        assert not found or all(np.array_equal(good[name], found[name]) for name in good if name in found)
    assert damaged > 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("edges", np.zeros(302)), ("edges", np.linspace(-1, 1, 302)[::-1]), ("edges", np.linspace(-1, 1, 5)),
        ("edges", np.full(302, np.nan)), ("epoch", np.zeros(99, int)), ("epoch", np.zeros(4)),
        ("phase", np.zeros(4)),
        ("phase", ["a\x1b"] * 4), ("counts/1", -np.ones(301)), ("counts/1", np.ones((301, 1))),
        ("counts/1", ["x"] * 301),
        ("sample/2", np.ones(3)), ("means/0", np.ones(2)), ("sigmas/0", np.zeros(5)), ("sigmas/1", np.full(5, np.inf)),
        ("proportions/0", -np.ones(5)), ("layers", np.ones(2)), ("layer_weights", [0, 5]),
        ("layer_nonzero", [10**6, 1]),
        ("codebook", np.ones(1)), ("occupancy", np.zeros(5, int)), ("codebook", np.array([None] * 5, dtype=object)),
        ("index", np.ones(7)), ("epoch", None), ("sample/0", None), ("layers", None), ("occupancy", None),
        ("sigmas/1", None),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_make_it_none(name: str, value: Any, tmp_path: Path) -> None:
    """Wrong shapes, types, numbers that are none, and arrays that are missing; what nobody reads may be anything."""
    path = synthetic.write_trace(tmp_path, "t001", epochs=2, weights=30_000)
    with np.load(path) as file:
        arrays = dict(file)
    assert name in arrays and read_trace(tmp_path, "t001")
    np.savez_compressed(path, **{**arrays, "mine": np.ones(3)})
    assert "mine" in read_trace(tmp_path, "t001")
    changed = (
        {**arrays, name: np.asarray(value)} if value is not None else {k: v for k, v in arrays.items() if k != name}
    )
    np.savez_compressed(path, **changed)
    assert read_trace(tmp_path, "t001") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonzero/1", [1]), ("nonzero/1", [0.5, 0.5]), ("nonzero/1", [-1, 5]), ("nonzero/0", [29_000, 1001]),
        ("nonzero/2", ["x", "y"]), ("score_magnitude", np.ones(3)), ("score_magnitude", np.zeros(2000)),
        ("score_gradient", np.full(2000, np.nan)), ("score_gradient", -np.ones(2000)),
        ("score_survives", np.ones(2000)),
        ("score_power", 0.0), ("score_power", [1.0]), ("score_power", np.inf), ("score_thresholds", [1.0]),
        ("score_thresholds", [-1.0, 1.0]), ("score_thresholds", ["x", "y"]), ("score_counts", [1000, 29_000, 5]),
        ("score_counts", [0, 30_000, 0, 0]), ("score_counts", [1000, 29_000, 1001, 0]),
        ("score_counts", [1000.0, 29_000.0, 5.0, 0.0]), ("score_counts", [1000, 29_000, 5, -1]),
        ("score_counts", None), ("score_power", None), ("score_survives", None), ("layers", None),
    ],
)  # fmt: skip
def test_what_pruning_left_fits_or_is_nothing(name: str, value: Any, tmp_path: Path) -> None:
    """Survivors are counted for each layer, and no more than it has weights; what the score decided on has numbers that
    a logarithmic axis and a share can be made of."""
    path = synthetic.write_pruned_trace(tmp_path, "t001")
    with np.load(path) as file:
        arrays = dict(file)
    assert name in arrays and read_trace(tmp_path, "t001")
    changed = {k: v for k, v in arrays.items() if k != name}
    np.savez_compressed(path, **changed, **({} if value is None else {name: np.asarray(value)}))
    assert read_trace(tmp_path, "t001") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"logits": np.full((10, 10), np.nan)}, {"logits": np.zeros(10)}, {"labels": np.arange(10) + 1},
        {"labels": np.arange(9)}, {"images": np.zeros((10, 32, 32), np.uint8)}, {"images": np.zeros((10, 1, 8, 8))},
    ],
)  # fmt: skip
def test_what_a_teacher_says_fits_or_is_nothing(change: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Images, labels and logits are of one another."""
    path = synthetic.write_knowledge(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    assert read_trace(tmp_path, "teacher")
    np.savez_compressed(path, **{**arrays, **change})
    assert read_trace(tmp_path, "teacher") == {}


def test_what_a_file_says_of_its_size_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of a terabyte in a header is none; what inflates to more than a trace may have is not inflated."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    path = paths.trace_of(tmp_path, "t001")
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("edges.npy", header.getvalue() + bytes(100))
    assert read_trace(tmp_path, "t001") == {}
    monkeypatch.setattr(trace_file, "LARGEST", 2**20)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *arguments: inflated.append(arguments))
    inflated: list[object] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("edges.npy", bytes(2**21))
    assert path.stat().st_size < 2**14 and read_trace(tmp_path, "t001") == {} and not inflated

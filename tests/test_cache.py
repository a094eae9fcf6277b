"""Shared work is done once for each key, and never half kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.cache import Shared, remember


def test_work_is_done_once_for_each_key(tmp_path: Path) -> None:
    """The same key gives what was kept, arrays and record; another key, or a damaged file, computes anew."""
    calls = []

    def compute() -> Shared:
        calls.append(1)
        return Shared({"w": np.arange(3.0)}, {"accuracy": 98.5})

    first, kept = remember(tmp_path, "teacher", {"seed": 0}, compute)
    assert not kept
    again, kept = remember(tmp_path, "teacher", {"seed": 0}, compute)
    assert kept and len(calls) == 1
    assert np.array_equal(again.arrays["w"], first.arrays["w"]) and again.record == first.record
    remember(tmp_path, "teacher", {"seed": 1}, compute)
    assert len(calls) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert remember(tmp_path, "teacher", {"seed": 0}, compute)[1] is False


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error while computing passes on, and no file is kept."""

    def broken() -> Shared:
        raise RuntimeError("no teacher")

    with pytest.raises(RuntimeError, match="no teacher"):
        remember(tmp_path, "teacher", {}, broken)
    assert not list(tmp_path.iterdir())

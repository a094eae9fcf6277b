"""What is read back to be tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.artifacts.cache import write_arrays
from study.artifacts.checkpoints import path_of, weights_of
from study.data import registry
from study.errors import UserError
from study.methods.magnitude.settings import MagnitudeSettings
from study.pipeline import final_test
from study.settings import resolve
from study.tuning.space import SearchSpace


def damaged(path: Path) -> Path:
    write_arrays(path, {"1.weight": np.zeros((3, 3), np.float32)})
    path.write_bytes(path.read_bytes()[:-5])
    return path


def test_damaged_weights_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    """Weights cut short, in `models/` or where a trial left them, are refused by name, and stay where they are."""
    stored = damaged(tmp_path / "models/t001.safetensors")
    waiting = damaged(weights_of(path_of(tmp_path, "t002")))
    splits, _ = registry.load("digits", None)
    with pytest.raises(UserError) as first:
        row = {"baseline": "uncompressed"}
        final_test.load_trained(resolve(MagnitudeSettings()), SearchSpace.load("magnitude"), stored, row, splits)
    with pytest.raises(UserError) as second:
        final_test.keep_weights(tmp_path, "t002")
    for path, refused in ((stored, first), (waiting, second)):
        line = str(refused.value)
        assert line.startswith(f"{path}: damaged (") and line.endswith("; restore it from a copy") and "\n" not in line
        assert path.exists()

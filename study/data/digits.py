"""scikit-learn's 8×8 digits, which its wheel ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from study.data.splits import Part, Source, stratified

_DIGITS_TEST_SEED = 0  # the test part of digits is the same in every study, whatever its split seed


def read_digits(data_dir: Path | None) -> Source:
    # The file that `sklearn.datasets.load_digits` reads; importing that function takes a second.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    pixels = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # published as 0…16
    part = Part(torch.from_numpy(pixels), torch.from_numpy(rows[:, -1].astype(np.int64)))
    classes = tuple("0123456789")
    title = "Digits 8×8"
    test = stratified(part.labels, 0.2, _DIGITS_TEST_SEED, classes, title)
    return Source(title, classes, part[~test], part[test], validation_fraction=0.25)

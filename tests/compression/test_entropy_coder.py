"""The probabilities of the coder, by hand, and its bits, which files on disk depend on."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from study.compression.entropy_coder import Decoder, Encoder, _Columns, code_tensor
from study.compression.file_parts import DICTIONARY
from study.compression.network_coder import code_weights


def columns(rows: int, counts: list[int]) -> _Columns:
    above = _Columns(len(counts))
    above.rows, above.counts = rows, np.array(counts)
    return above


def logit(p: np.ndarray | float) -> np.ndarray | float:
    return np.log(p / (1 - np.asarray(p)))


def test_without_rows_above_each_column_is_as_likely_as_the_row_is_dense() -> None:
    """Of four columns, a row with one nonzero has each with probability 1/4."""
    assert columns(0, [0, 0, 0, 0]).probabilities(1.0).tolist() == pytest.approx([0.25] * 4)


def test_rows_above_are_counted() -> None:
    """Each row that is added counts once, and each of its nonzeros in its column."""
    above = _Columns(3)
    above.add(np.array([True, False, True]))
    above.add(np.array([True, False, False]))
    assert above.rows == 2 and above.counts.tolist() == [2, 0, 1]


def test_odds_are_the_columns_times_the_rows_over_the_tensors() -> None:
    """Ten rows with 9, 5, 1 and 5 nonzeros in their columns: the variance across columns is 8 where chance gives 2.5,
    so the excess is 2.2 and the prior weighs 9/2.2 - 1 rows."""
    strength = 9 / 2.2 - 1
    above = columns(10, [9, 5, 1, 5])
    assert above._strength() == pytest.approx(strength)
    for nonzeros in (1.0, 2.0, 3.5):
        overall = (20 + nonzeros) / (4 * 11)
        own = (np.array([9, 5, 1, 5]) + strength * overall) / (10 + strength)
        expected = logit(own) + logit(nonzeros / 4) - logit(overall)
        np.testing.assert_allclose(logit(above.probabilities(nonzeros)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("rows", "counts", "strength"),
    [
        (0, [0, 0], 1e4),  # nothing is known
        (1, [1, 0], 1e4),  # one row says nothing about how columns differ
        (2, [2, 2], 1e4),  # all full: no variance by chance
        (2, [2, 0], 1.0),  # the columns differ as much as they can: (2 - 1) / 1 - 1 = 0, below the least
        (4, [2, 2], 1e4),  # they differ less than by chance
        (3, [3, 2, 1, 0], 2.0),  # variance 1.25 where chance gives 0.75: (3 - 1) / (2 / 3) - 1
    ],
)
def test_strength_of_the_prior(rows: int, counts: list[int], strength: float) -> None:
    """Method of moments, and its limits."""
    assert columns(rows, counts)._strength() == pytest.approx(strength)


def pattern(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Indices below 5 that follow from integers alone."""
    rows = shape[0] if len(shape) > 1 else 1
    width = math.prod(shape) // rows
    i, j = np.indices((rows, width))
    some = 1 + (7 * i + 3 * j) % 4 * ((i + j) % 3 == 0)
    mask = {
        "dense": i >= 0,
        "empty": i < 0,
        "units": (i % 3 != 0) & (j % 5 < 2),  # as pruned units leave it
        "mixed": np.where(i % 4 == 0, j >= 0, (i * i + 5 * j) % 11 < i % 7),  # full, empty and other rows
    }[kind]
    return np.where(mask, some, 0).reshape(-1)


CASES = [
    (shape, kind)
    for shape in ((60,), (24, 40), (90, 12), (8, 3, 3, 3))
    for kind in ("dense", "empty", "units", "mixed")
]
BITS = [
    (12, 2418045613), (4, 558161692), (4, 558161692), (12, 2418045613),
    (152, 2484631031), (4, 558161692), (64, 3441299439), (136, 157731575),
    (168, 3240787595), (4, 558161692), (96, 1401013047), (180, 1653086261),
    (40, 1106832701), (4, 558161692), (24, 3420773312), (36, 3205910266),
]  # fmt: skip


@pytest.mark.parametrize(("case", "bits"), list(zip(CASES, BITS, strict=True)))
def test_the_bits_of_the_format_stay_as_they_are(case: tuple[tuple[int, ...], str], bits: tuple[int, int]) -> None:
    """Length and CRC-32 of each coded tensor: where one differs, files that are on disk cannot be read any more."""
    index, coder = pattern(*case), Encoder()
    code_tensor(coder, case[0], 5, index)
    assert (len(coder.data()), zlib.crc32(coder.data())) == bits
    assert np.array_equal(code_tensor(Decoder(coder.data()), case[0], 5), index)


def discs(units: int, image: tuple[int, int, int]) -> np.ndarray:
    """Indices below 5 of a first layer whose units read discs of one sign, or nothing, or all; from integers alone."""
    channels, height, width = image
    unit, channel, y, x = np.indices((units, *image))
    near = (y - 5 * unit % height) ** 2 + (x - 3 * unit % width) ** 2 < unit % 9
    mask = np.where(unit % 5 == 0, unit % 10 == 0, near & ((y * x + unit + channel) % 4 != 0))
    return np.where(mask, 1 + 2 * (unit % 2) + (x + y) % 2, 0).reshape(-1)


NETWORKS = [
    (((30, 63), (30,), (8, 30), (8,)), (1, 7, 9)),
    (((30, 54), (30,), (8, 30), (8,)), (3, 3, 6)),
    (((6, 2, 3, 3), (6,), (20, 48), (5, 20)), (2, 6, 6)),
]
NETWORK_BITS = [(164, 2671240604), (224, 2712081269), (160, 1547610798)]


@pytest.mark.parametrize(("case", "bits"), list(zip(NETWORKS, NETWORK_BITS, strict=True)))
def test_the_bits_of_a_network_stay_as_they_are(
    case: tuple[tuple[tuple[int, ...], ...], tuple[int, int, int]], bits: tuple[int, int]
) -> None:
    """Length and CRC-32 of all weights of a network, as version 3 codes them: gray, colour, convolutions."""
    shapes, image = case
    index = [pattern(shape, kind) for shape, kind in zip(shapes, ("units", "dense", "mixed", "empty"), strict=True)]
    if len(shapes[0]) == 2:
        index[0] = discs(30, image)
    codebook, coder = np.array([0, -0.5, -0.25, 0.5, 1.0]), Encoder()
    _, sizes = code_weights(coder, shapes, image, codebook, index)
    assert (len(coder.data()), zlib.crc32(coder.data())) == bits
    assert sum(sizes) == len(coder.data())
    again, _ = code_weights(Decoder(coder.data()), shapes, image, codebook)
    assert all(map(np.array_equal, again, index))


def test_the_dictionary_of_headers_stays_as_it_is() -> None:
    """Deflated headers refer to it."""
    assert (len(DICTIONARY), zlib.crc32(DICTIONARY)) == (431, 70639770)

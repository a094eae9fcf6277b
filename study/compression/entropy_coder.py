"""Entropy coding of a quantised tensor: where its nonzeros are, and which value each of them has.

A range coder (constriction) under probabilities that both sides learn on the way, so that no table is stored. Encoder
and decoder run the same code, and every probability follows from integers by single IEEE operations on float64, so the
two agree on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from constriction import stream

_BERNOULLI = stream.model.Bernoulli(perfect=False)
_FIRST_BLOCK = 16  # values that are coded before the first look at how often each occurs
_STRENGTH = (1.0, 1e4)  # rows' worth of evidence that a column is like all others, at least and at most


class Encoder:
    """Appends symbols to a stream of bits."""

    def __init__(self) -> None:
        self._stream = stream.queue.RangeEncoder()

    def bits(self, probabilities: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        """Code zeros and ones, (n,), each with its probability of a one, (n,) float64. Returns them."""
        assert bits is not None
        self._stream.encode(bits.astype(np.int32), _BERNOULLI, probabilities)
        return bits

    def symbols(self, weights: np.ndarray, count: int, symbols: np.ndarray | None) -> np.ndarray:
        """Code `count` symbols whose probabilities are proportional to `weights`, (alphabet,) float64. Returns them."""
        assert symbols is not None and len(symbols) == count
        self._stream.encode(symbols.astype(np.int32), stream.model.Categorical(weights, perfect=False))
        return symbols

    def bytes_so_far(self) -> int:
        """Length of `data`."""
        return int(self._stream.num_bits()) // 8

    def data(self) -> bytes:
        return bytes(self._stream.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Reads what an `Encoder` wrote; the symbols that it is given are ignored."""

    def __init__(self, data: bytes) -> None:
        self._stream = stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def bits(self, probabilities: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        return np.asarray(self._stream.decode(_BERNOULLI, probabilities))

    def symbols(self, weights: np.ndarray, count: int, symbols: np.ndarray | None) -> np.ndarray:
        return np.asarray(self._stream.decode(stream.model.Categorical(weights, perfect=False), count))

    def may_be_at_end(self) -> bool:
        """False if what is left is certainly more than an encoder leaves behind its last symbol."""
        return bool(self._stream.maybe_exhausted())


def code_tensor(
    coder: Encoder | Decoder,
    shape: Sequence[int],
    values: int,
    index: np.ndarray | None = None,
    read: np.ndarray | None = None,
) -> np.ndarray:
    """Encode one tensor, or decode it.

    Args:
        shape: of the tensor.
        values: size of the codebook, the zero included.
        index: which value each weight has, (weights,) integers, 0 for the zero; None when decoding.
        read: whether another tensor reads a row, as far as is known, (rows,) bool: a row that none reads is likely to
            be empty.
    Returns: the same, (weights,) int64.
    """
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // rows
    matrix = None if index is None else index.reshape(rows, columns)
    if rows > columns:  # few long rows: each is one step in Python
        matrix = None if matrix is None else matrix.T
        return _code_matrix(coder, columns, rows, values, matrix, None).T.reshape(-1)
    return _code_matrix(coder, rows, columns, values, matrix, read).reshape(-1)


def _code_matrix(
    coder: Encoder | Decoder, rows: int, columns: int, values: int, matrix: np.ndarray | None, read: np.ndarray | None
) -> np.ndarray:
    mask = _code_mask(coder, rows, columns, None if matrix is None else matrix != 0, read)
    coded = np.zeros((rows, columns), np.int64)
    nonzeros = None if matrix is None else matrix[mask] - 1
    coded[mask] = code_values(coder, int(mask.sum()), values - 1, nonzeros) + 1
    return coded


def _code_mask(
    coder: Encoder | Decoder, rows: int, columns: int, mask: np.ndarray | None, read: np.ndarray | None
) -> np.ndarray:
    """Code which entries are not zero, (rows, columns) bool.

    Pruning removes complete units, so rows (what a unit reads) and columns (who reads it) differ far more than by
    chance. First comes, for each row, the number of its nonzeros to within a factor of two (its class), which is
    counted apart for rows that are read and rows that are not. Then every
    entry, with odds = odds of its column × odds of its row ÷ odds of the tensor; the column's are learned from the rows
    above, the row's from earlier rows of its class.
    """
    empty, full = 0, columns.bit_length() + 1
    coded = np.zeros((rows, columns), bool)
    class_counts = np.full((2, full + 1), 0.5)  # Krichevsky & Trofimov 1981
    above = _Columns(columns)
    of_class: dict[int, tuple[int, int]] = {}  # class → its rows so far, and their nonzeros
    for i in range(rows):
        row = None if mask is None else mask[i]
        nonzeros = 0 if row is None else int(row.sum())
        kind = full if nonzeros == columns else nonzeros.bit_length()
        counts = class_counts[0 if read is None else int(read[i])]
        kind = int(coder.symbols(counts, 1, np.array([kind]))[0])
        counts[kind] += 1
        if kind == full:
            coded[i] = True
        elif kind != empty:
            number, total = of_class.get(kind, (0, 0))
            middle = (2 ** (kind - 1) + min(2**kind, columns) - 1) / 2
            coded[i] = coder.bits(above.probabilities((total + middle) / (number + 1)), row)
            of_class[kind] = number + 1, total + int(coded[i].sum())
            above.add(coded[i])
    return coded


class _Columns:
    """How many nonzeros each column has in the rows so far, without rows that are empty or full."""

    def __init__(self, columns: int) -> None:
        self.rows, self.counts = 0, np.zeros(columns, np.int64)

    def add(self, row: np.ndarray) -> None:
        self.rows += 1
        self.counts += row

    def probabilities(self, nonzeros: float) -> np.ndarray:
        """Of a nonzero in each column of a row that has about so many, (columns,) float64."""
        columns = len(self.counts)
        overall = (int(self.counts.sum()) + nonzeros) / (columns * (self.rows + 1))
        strength = self._strength()
        column_odds = (self.counts + strength * overall) / (self.rows - self.counts + strength * (1 - overall))
        odds = column_odds * (nonzeros / (columns - nonzeros) * (1 - overall) / overall)
        return odds / (1 + odds)

    def _strength(self) -> float:
        """α + β of a Beta prior over columns, by the variance of a beta-binomial count (method of moments)."""
        n, columns = self.rows, len(self.counts)
        mean = int(self.counts.sum()) / columns
        by_chance = mean * (n - mean) / n if n else 0.0
        if n < 2 or not by_chance:
            return _STRENGTH[1]
        excess = (int(self.counts @ self.counts) / columns - mean * mean) / by_chance - 1
        return min(max((n - 1) / excess - 1, _STRENGTH[0]), _STRENGTH[1]) if excess > 0 else _STRENGTH[1]


def code_values(coder: Encoder | Decoder, count: int, alphabet: int, symbols: np.ndarray | None) -> np.ndarray:
    """Code symbols below `alphabet`, (count,), in growing blocks, each as likely as it was in the blocks before it."""
    coded = np.zeros(count, np.int64)
    if alphabet < 2:
        return coded
    weights = np.ones(alphabet)
    start = 0
    while start < count:
        stop = min(count, start + max(_FIRST_BLOCK, start // 2))
        block = coder.symbols(weights, stop - start, None if symbols is None else symbols[start:stop])
        coded[start:stop] = block
        weights += np.bincount(block, minlength=alphabet)
        start = stop
    return coded

"""Entropy coding of a linear layer that reads the image: its units look at connected patches.

Whether a unit reads a pixel is foreseen from its neighbours: pixels to the left of it and above it, within two. Almost
all neighbours that a unit reads have one sign, so the sign is foreseen, too. Pixels come one after another, and all
units are coded at once.

Counts are integers and every probability follows from them by single IEEE operations, as in `entropy_coder`.
"""

from __future__ import annotations

import math

import numpy as np

from study.compression.entropy_coder import Decoder, Encoder, code_values

_EMPTY, _PARTIAL, _FULL = range(3)
_REACH = 2  # pixels to the left and above
_STRENGTH = 16.0  # nonzeros' worth of evidence that a unit reads as much as any other
_FEW = 0.1  # nonzeros that each neighbourhood is taken to have had, beyond those that it had
_LEAST = 2.0**-16  # probability of a nonzero, and of a zero
_UNIT = 2**20  # expected nonzeros are summed up in integers of this fraction
_SIGNS = 2  # difference of positive and negative neighbours beyond which more say nothing
_NEIGHBOURHOODS = 3**3  # 0, 1 or more nonzeros among adjacent, diagonal and other pixels
_WEIGHTS = {(0, -1): 4, (-1, 0): 4, (-1, -1): 2, (-1, 1): 2, (0, -2): 1, (-2, 0): 1}
"""How much the readers of a pixel so far away, (down, right), say of those of this one."""


def code_image_layer(
    coder: Encoder | Decoder,
    image: tuple[int, int, int],
    negative: np.ndarray,
    read: np.ndarray,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    """Encode the layer's weights, or decode them.

    Args:
        image: channels, height and width.
        negative: whether a value of the codebook is below zero, (values,) bool; the first is the zero.
        read: whether another layer reads a unit, as far as is known, (units,) bool.
        matrix: which value each weight has, (units, pixels) integers; None when decoding.
    Returns: the same, (units, pixels) int64.
    """
    units, pixels = len(read), image[0] * image[1] * image[2]
    signs = None if matrix is None else np.where(negative[matrix], -1, (matrix != 0).astype(np.int8))
    kinds = _code_kinds(coder, read, None if signs is None else np.count_nonzero(signs, axis=1), pixels)
    some = kinds != _EMPTY
    coded_signs = np.zeros((units, pixels), np.int8)
    coded_signs[some] = _Planes(image, kinds[some] == _FULL).code(coder, None if signs is None else signs[some])
    coded = np.zeros((units, pixels), np.int64)
    for sign, values in ((-1, np.flatnonzero(negative)), (1, 1 + np.flatnonzero(~negative[1:]))):
        places = coded_signs == sign
        ranks = None if matrix is None else np.searchsorted(values, matrix[places])
        ranks = code_values(coder, int(places.sum()), len(values), ranks)
        if len(ranks) and not len(values):
            raise ValueError("its codebook has no value of a weight's sign")
        coded[places] = values[ranks]
    return coded


def _code_kinds(coder: Encoder | Decoder, read: np.ndarray, nonzeros: np.ndarray | None, pixels: int) -> np.ndarray:
    """Code which units read nothing, something or everything, (units,)."""
    counts = np.full((2, 3), 0.5)  # Krichevsky & Trofimov 1981
    coded = np.zeros(len(read), np.int64)
    for i, is_read in enumerate(read.astype(int)):
        kind = None
        if nonzeros is not None:
            kind = np.array([_EMPTY if nonzeros[i] == 0 else _FULL if nonzeros[i] == pixels else _PARTIAL])
        coded[i] = coder.symbols(counts[is_read], 1, kind)[0]
        counts[is_read, coded[i]] += 1
    return coded


class _Planes:
    """Signs of what the units read, pixel by pixel: −1, 0 or 1, (channels, height, width, units), with a margin.

    Odds of a nonzero = odds of the pixel, by how many units read its neighbours × odds of the unit, by how much it has
    read so far × how many there were in such neighbourhoods, over how many were expected.
    """

    def __init__(self, image: tuple[int, int, int], full: np.ndarray) -> None:
        channels, height, width = self.image = image
        self.full = full
        self.signs = np.zeros((channels, height + _REACH, width + 2 * _REACH, len(full)), np.int8)
        self.known = np.zeros(self.signs.shape[:3], np.int64)  # pixels that are coded
        self.readers = np.zeros(self.signs.shape[:3], np.int64)  # units that read each pixel
        self.ordinary = 0.0  # nonzeros of an ordinary unit so far
        self.nonzeros = np.zeros(len(full), np.int64)  # of each unit so far
        self.seen = np.zeros(_NEIGHBOURHOODS, np.int64)  # nonzeros in each kind of neighbourhood,
        self.expected = np.zeros(_NEIGHBOURHOODS, np.int64)  # and those that the other odds gave, in _UNITs
        self.sign_counts = np.full((2 * _SIGNS + 1, 2), 0.5)

    def code(self, coder: Encoder | Decoder, signs: np.ndarray | None) -> np.ndarray:
        """Code the signs, (units, pixels) int8. Returns them."""
        channels, height, width = self.image
        for pixel, (channel, y, x) in enumerate(np.ndindex(channels, height, width)):
            at = channel, y + _REACH, x + _REACH
            own = None if signs is None else signs[:, pixel]
            coded = self._code_nonzeros(coder, at, None if own is None else own != 0)
            self._code_signs(coder, at, np.flatnonzero(coded), own)
        inside = self.signs[:, _REACH:, _REACH : _REACH + width]
        return inside.reshape(channels * height * width, len(self.full)).T

    def _code_nonzeros(self, coder: Encoder | Decoder, at: tuple[int, int, int], bits: np.ndarray | None) -> np.ndarray:
        """Code which units read the pixel, (units,) bool."""
        share = self._share(at)
        unit_odds = (_STRENGTH + self.nonzeros) / (_STRENGTH + self.ordinary)
        odds = share / (1 - share) * unit_odds
        kind = self._neighbourhood(at)
        ratio = (self.seen + _FEW) / (self.expected / _UNIT + _FEW)
        corrected = odds * ratio[kind]
        probabilities = np.clip(corrected / (1 + corrected), _LEAST, 1 - _LEAST)
        probabilities[self.full] = 1 - _LEAST
        coded = coder.bits(probabilities, bits).astype(bool)
        self.seen += np.bincount(kind[coded], minlength=_NEIGHBOURHOODS)
        np.add.at(self.expected, kind, (odds / (1 + odds) * _UNIT).astype(np.int64))
        self.nonzeros += coded
        self.ordinary += share
        self.known[at], self.readers[at] = 1, np.count_nonzero(coded)
        return coded

    def _share(self, at: tuple[int, int, int]) -> float:
        """Of units that read the pixel, by its neighbours."""
        channel, y, x = at
        units, pixels = len(self.full), math.prod(self.image)
        places = [(channel, y + down, x + right, weight) for (down, right), weight in _WEIGHTS.items()]
        if channel:
            places.append((channel - 1, y, x, max(_WEIGHTS.values())))
        readers = sum(weight * int(self.readers[c, v, u]) for c, v, u, weight in places)
        known = sum(weight * int(self.known[c, v, u]) for c, v, u, weight in places)
        return min((readers + 0.5) / (known * units + 0.5 * pixels), 1 - _LEAST)

    def _neighbourhood(self, at: tuple[int, int, int]) -> np.ndarray:
        """Which kind of neighbourhood the pixel has for each unit, (units,)."""
        channel, y, x = at
        is_read = self.signs[channel, y - _REACH : y + 1, x - _REACH : x + _REACH + 1] != 0
        adjacent = is_read[-1, 1].astype(np.int64) + is_read[-2, 2]
        if channel:
            adjacent += self.signs[channel - 1, y, x] != 0
        diagonal = is_read[-2, 1].astype(np.int64) + is_read[-2, 3]
        others = is_read[0].sum(axis=0) + is_read[1, 0] + is_read[1, 4] + is_read[2, 0]
        return (np.minimum(adjacent, 2) * 3 + diagonal) * 3 + np.minimum(others, 2)

    def _code_signs(
        self, coder: Encoder | Decoder, at: tuple[int, int, int], units: np.ndarray, signs: np.ndarray | None
    ) -> None:
        """Code the signs of units that read the pixel."""
        channel, y, x = at
        near = self.signs[channel, y - 1 : y + 1, x - 1 : x + 2][:, :, units]
        total = near[0].sum(axis=0) + near[1, 0]
        kind = np.clip(total, -_SIGNS, _SIGNS) + _SIGNS
        counts = self.sign_counts[kind]
        positive = None if signs is None else signs[units] > 0
        coded = coder.bits(counts[:, 1] / (counts[:, 0] + counts[:, 1]), positive).astype(np.int64)
        np.add.at(self.sign_counts, (kind, coded), 1)
        self.signs[channel, y, x, units] = 2 * coded - 1

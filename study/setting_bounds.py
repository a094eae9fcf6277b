"""Bounds of settings. They stand next to the fields that they are about, as in `Annotated[int, AtLeast(1)]`."""

from __future__ import annotations

import math
from dataclasses import dataclass


def _upper_problem(value: float, most: float, lower_problem: str) -> str:
    """What a value must be that is finite and at most `most`, where its lower end has its own problem, or ""."""
    if math.isinf(value) and value > 0:
        return "a finite number"
    return lower_problem or (f"{most:.0f} or less" if value > most else "")


@dataclass(frozen=True)
class AtLeast:
    """A finite number from `least` on, up to `most`."""

    least: float
    most: float = math.inf

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return _upper_problem(value, self.most, "" if value >= self.least else f"{self.least:g} or more")


@dataclass(frozen=True)
class Above:
    """A finite number above `least`, up to `most`."""

    least: float
    most: float = math.inf

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return _upper_problem(value, self.most, "" if value > self.least else f"above {self.least:g}")


@dataclass(frozen=True)
class Within:
    """A number between `low` and `high`, both included."""

    low: float
    high: float

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return "" if self.low <= value <= self.high else f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Between:
    """A number between `low` and `high`, neither included."""

    low: float
    high: float

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return "" if self.low < value < self.high else f"above {self.low:g} and below {self.high:g}"


@dataclass(frozen=True)
class BelowOne:
    """A number from 0 on, below 1."""

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return "" if 0 <= value < 1 else "0 or more and below 1"


@dataclass(frozen=True)
class Percentage:
    """A percentage below 100."""

    def problem(self, value: float) -> str:
        """What the value must be, or "" where it is."""
        return "" if 0 <= value < 100 else "a percentage, 0 or more and below 100"


Bound = AtLeast | Above | Within | Between | BelowOne | Percentage

"""What a study searches, as values that `study.json` can hold: ranges of numbers, and choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = float | int | str | bool | None
"""One hyperparameter, as JSON and tables have it."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        log: whether their logarithm is searched.
        step: distance between neighbours; None where every number between counts.
        integer: whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    def __str__(self) -> str:
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{step}"

    def cast(self, value: object) -> float | int:
        """A cell of a table as a value of this range."""
        number = float(str(value))
        return int(number) if self.integer else number

    def contains(self, value: object) -> bool:
        """Whether a cell of a table is a number of this range, up to rounding."""
        try:
            number = float(str(value))
        except ValueError:
            return False
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        whole = not self.integer or number.is_integer()
        return self.low - slack <= number <= self.high + slack and whole

    def middle(self) -> float | int:
        """The value in the middle, on the scale that is searched; of two steps there, the lower one."""
        centre = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step is not None:
            centre = self.low + math.floor((centre - self.low) / self.step + 1e-9) * self.step
        return int(centre) if self.integer else centre

    def ends(self) -> Sequence[float | int]:
        """The smallest and the largest value."""
        return self.cast(self.low), self.cast(self.high)

    def as_json(self) -> dict[str, Value]:
        """As `study.json` has it."""
        kind = "int" if self.integer else "float"
        step = {} if self.step is None else {"step": self.step}
        return {"type": kind, "low": self.low, "high": self.high, "log": self.log, **step}


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order."""

    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"fixed at {self.values[0]}" if len(self.values) == 1 else "one of " + ", ".join(map(str, self.values))

    def index(self, value: object) -> int | None:
        """The place of the value that a cell of a table means; None for none. A table may have 2.0 for 2, or "True"."""
        same = (i for i, own in enumerate(self.values) if str(own) == str(value))
        equal = (i for i, own in enumerate(self.values) if _equal_numbers(own, value))
        return next(same, next(equal, None))

    def contains(self, value: object) -> bool:
        """Whether a cell of a table is one of the values."""
        return self.index(value) is not None

    def cast(self, value: object) -> Value:
        """A cell of a table as one of the values.

        Raises:
            ValueError: none of them.
        """
        index = self.index(value)
        if index is None:
            raise ValueError(f"{value!r} is none of {', '.join(map(str, self.values))}")
        return self.values[index]

    def middle(self) -> Value:
        """The value in the middle of the list."""
        return self.values[len(self.values) // 2]

    def ends(self) -> Sequence[Value]:
        """Every value."""
        return self.values

    def as_json(self) -> dict[str, object]:
        """As `study.json` has it."""
        return {"type": "choice", "values": list(self.values)}


Domain = Range | Choice


@dataclass(frozen=True)
class Condition:
    """When a hyperparameter has an effect, and is searched: while another one has one of these values."""

    name: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"where {self.name} is {' or '.join(map(str, self.values))}"

    def holds(self, configuration: Mapping[str, object]) -> bool:
        """Whether a configuration, or a row of a table, has such a value."""
        return self.name in configuration and Choice(self.values).contains(configuration[self.name])

    def as_json(self) -> dict[str, list[Value]]:
        """As `study.json` has it."""
        return {self.name: list(self.values)}


def domain_from_json(recorded: Mapping[str, object]) -> Domain:
    """The domain that `as_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it wrote no such thing.
    """
    if recorded["type"] == "choice":
        values = recorded["values"]
        assert isinstance(values, list)
        return Choice(tuple(values))
    step = recorded.get("step")
    return Range(
        float(str(recorded["low"])),
        float(str(recorded["high"])),
        bool(recorded.get("log")),
        None if step is None else float(str(step)),
        recorded["type"] == "int",
    )


def is_active(recorded: Mapping[str, Any], row: Mapping[str, object]) -> bool:
    """Whether a hyperparameter of `study.json` is searched in a row of a table: its condition holds, or it has none."""
    return all(Condition(name, tuple(values)).holds(row) for name, values in recorded.get("when", {}).items())


def _equal_numbers(own: Value, value: object) -> bool:
    """Whether both are, or spell, the same number: a column with gaps has 3.0 for the text "3"."""
    if isinstance(own, bool) or isinstance(value, bool):
        return False
    try:
        return float(str(own)) == float(str(value))
    except ValueError:
        return False

"""Numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from study.records.columns import COLUMNS, Column
from study.records.columns import column as declared_column
from study.records.search_domains import Choice

EXTRA = {
    "seeds": Column("fresh seeds", "", 0),
    "pairs": Column("pairs of seeds", "", 0),
    "change": Column("against the reference", "points"),
    "gap": Column("gap", "points"),
    "optimism": Column("optimism gap: search minus fresh seeds", "points"),
    "difference": Column("difference", "points"),
    "test_spread": Column("standard deviation of test accuracy", "points"),
    "standard_error": Column("standard error of one test accuracy", "points"),
    "search_val_accuracy": Column("validation accuracy in the search", "%"),
    "own_val_accuracy": Column("validation accuracy of the tested network", "%"),
}
"""Columns that analysis computes and no study folder has."""

SIGNED = ("change", "gap", "optimism", "difference")


def column_label(column: str) -> str:
    """What a column is called, without its unit."""
    return declared_column(column).label


def capitalise(words: str) -> str:
    """The words with a capital first letter."""
    return words[:1].upper() + words[1:]


def format_cell(column: str | Column, value: Any) -> str:
    """A cell of a table: with the digits of its column, "–" where there is no value. A number without a unit (mostly a
    hyperparameter) that is too small for those digits gets three significant figures instead.

    Args:
        column: its name; or what is declared of it, where only the study knows it; see `Study.column`.
    """
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return "–"
    if isinstance(column, Column):
        info = column
    else:
        info = COLUMNS.get(column) or EXTRA.get(column) or declared_column(column)
    digits = info.digits
    if not info.unit and value and abs(value) < 10.0 ** (1 - digits):
        return f"{value:.3g}"
    sign = "+" if column in SIGNED and round(value, digits) else ""
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def choice_index(domain: Mapping[str, Any], value: Any) -> int | None:
    """The place of a value among the `values` of a choice; None for one that was not among them."""
    return Choice(tuple(domain["values"])).index(value)


def choice_label(domain: Mapping[str, Any], value: Any) -> str | None:
    """A value of a choice as people read it; None for one that was not among them."""
    index = choice_index(domain, value)
    if index is None:
        return None
    choice = domain["values"][index]
    return f"{choice:g}" if isinstance(choice, float) else str(choice)


def format_sparsity(sparsity: float) -> str:
    """A sparsity in percent, with enough digits that less than 100 % never reads as 100 %."""
    digits = next((d for d in range(1, 6) if sparsity >= 100 or round(sparsity, d) < 100), 6)
    return f"{sparsity:.{digits}f}"


def format_percent(mean: float, half: float = np.nan) -> str:
    """An accuracy in percent, with half of its interval where there is one."""
    return f"{mean:.{_digits(half)}f}{_plus_minus(half)} %"


def format_points(difference: float, half: float = np.nan) -> str:
    """A difference of accuracies in points, with its sign unless it rounds to zero, and half of its interval."""
    digits = _digits(half)
    sign = "−" if round(difference, digits) < 0 else "+" if round(difference, digits) > 0 else ""
    return f"{sign}{abs(difference):.{digits}f}{_plus_minus(half)} points"


UNITS_OF_TIME = (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def unit_of_time(seconds: float) -> tuple[str, float]:
    """The largest unit of which a duration has two or more, and its seconds."""
    return next((unit for unit in UNITS_OF_TIME if seconds >= 2 * unit[1]), UNITS_OF_TIME[-1])


def format_duration(seconds: float) -> str:
    """A duration to three figures, such as "2.5 hours"."""
    unit, length = unit_of_time(seconds)
    return f"{seconds / length:.3g} {unit}"


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in the singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_words(parts: list[str]) -> str:
    """A list in words: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def below_axis_sentence(low: float, values: Mapping[str, Iterable[float]]) -> str:
    """How much of a figure lies below its axis, as a sentence for its caption, with a space before it; "" for nothing.

    Args:
        low: where the axis starts.
        values: what marks stand for, in the singular → their values.
    """
    hidden = {noun: sum(value < low for value in numbers) for noun, numbers in values.items()}
    parts = [counted(number, noun) for noun, number in hidden.items() if number]
    if not parts:
        return ""
    return (
        f" {join_words(parts)} {'lies' if sum(hidden.values()) == 1 else 'lie'} below the visible range; double-click "
        "shows all."
    )


def not_drawn_sentence(number: int, noun: str, what: str) -> str:
    """How much a figure leaves out for want of a number, as a sentence for its caption, with a space before it; "" for
    nothing.

    Args:
        what: what they have no finite value of, as a figure calls it.
    """
    if not number:
        return ""
    verb = "has" if number == 1 else "have"
    return f" {counted(number, noun)} {verb} no finite {what} and {'is' if number == 1 else 'are'} not drawn."


def mean_and_half(column: str, mean: float, half: float) -> str:
    """A cell: a mean as `format_cell` prints it, with half of its interval where there is one."""
    return format_cell(column, mean) + (f" ± {half:.2f}" if np.isfinite(mean) and np.isfinite(half) else "")


def _digits(half: float) -> int:
    return 2 if half < 0.095 else 1  # an interval of ± 0.0 would say that there is none


def _plus_minus(half: float) -> str:
    return f" ± {half:.{_digits(half)}f}" if np.isfinite(half) else ""

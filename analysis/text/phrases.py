"""Metrics and baselines in words, as sentences and large numbers show them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from analysis.formatting import format_cell, format_sparsity
from analysis.stats.metrics import cost_metrics
from analysis.stats.summary import Summary
from study.records.columns import Column

Tile = tuple[str, str]
"""A large number with its unit, and what it is."""


def example(s: Summary) -> str:
    """What a study calls one of its examples: "image", where it has the shape of one."""
    return "image" if len(s.study.meta["data"].get("shape", ())) == 3 else "example"


def baseline_in_words(s: Summary, name: str) -> str:
    """A baseline as the subject of a sentence: "the student alone", or "the uncompressed network" with the role of the
    network that it is."""
    role = str(s.study.meta["dense"].get(name, ""))
    return f"the {name}" if role in name else f"the {name} {role}"


def cost_phrases(s: Summary, row: pd.Series) -> str:
    """What a trial's accuracy was traded for, as the end of a sentence.

    The cost of the study comes first where its column has no phrase of its own. Columns that have one follow, in the
    order of their declaration.
    """
    names = _measured(s, row)
    spoken = [name for name in names if s.column(name).phrase]
    if s.cost in names and s.cost not in spoken:
        spoken.insert(0, s.cost)
    sentence = ", ".join(_phrase(s.column(name), float(row[name])) for name in spoken)
    return sentence.replace(", with ", " and ")


def cost_tiles(s: Summary, row: pd.Series) -> list[Tile]:
    """The same as large numbers: percentages that crowd against 100, the cost, and how many times smaller. A size in
    bytes is left out where the ratio says it."""
    names = _measured(s, row)
    shares = [name for name in names if s.column(name).scale == "complement"]
    # Columns are declared from the ratio that counts least to the one that counts all.
    ratios = [name for name in names if s.column(name).unit == "×" and name != s.cost][-1:]
    costs = [s.cost] if s.cost in names and s.cost not in shares else []
    if ratios and costs and s.column(s.cost).unit == "bytes":
        costs = []
    return [_tile(s, name, float(row[name])) for name in [*costs, *shares, *ratios]]


def _measured(s: Summary, row: pd.Series) -> list[str]:
    """Columns of `cost_metrics` that a row has a value of."""
    return [name for name in cost_metrics(s.study, s.trials) if np.isfinite(row.get(name, np.nan))]


def _phrase(column: Column, value: float) -> str:
    if column.phrase:
        return column.phrase.format(_number(column, value))
    label = _without_brackets(column.label)
    article = "an" if label[:1].lower() in "aeiou" else "a"
    return f"with {article} {label} of {_number(column, value)}{_unit(column)}"


def _tile(s: Summary, name: str, value: float) -> Tile:
    column = s.column(name)
    words = _without_brackets(s.headings.get(name, "")) or column.tile or _without_brackets(column.label)
    number = f"{value:.{0 if value >= 10 else 1}f}" if column.unit == "×" else _number(column, value)
    return f"{number}{_unit(column)}", words


def _number(column: Column, value: float) -> str:
    """A value with no more digits than a sentence needs: three significant ones, or those of its column if fewer."""
    if column.scale == "complement":
        return format_sparsity(value)
    if not value or not column.digits:
        return format_cell(column, value)
    if abs(value) < 10.0 ** (1 - column.digits):
        return f"{value:.3g}".replace("-", "−")
    digits = min(column.digits, max(0, 2 - int(np.floor(np.log10(abs(value))))))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if digits else text).replace("-", "−")


def _unit(column: Column) -> str:
    return column.unit if column.unit == "×" else f" {column.unit}" if column.unit else ""


def _without_brackets(label: str) -> str:
    """A label without what stands in brackets at its end, which no sentence has room for."""
    return re.sub(r" \([^()]*\)$", "", label)

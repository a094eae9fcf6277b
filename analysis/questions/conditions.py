"""Conditions on a table of trials, such as `accuracy_drop <= 0.2 and baseline != "teacher"`.

They are in the syntax of pandas' `query`, but are read with `ast` and worked out node by node: columns, numbers, quoted
words, True and False, + - * /, comparisons, `in [..]`, `and`, `or`, `not`. There is nothing else, so nothing else can
run.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable
from functools import reduce
from typing import Any

import pandas as pd

from study.errors import UserError

ALLOWED = "a condition has columns, numbers, quoted words, + - * /, comparisons, in [..], and, or, not"
ROUNDING = 1e-9
"""Numbers this close are equal: a drop of 98.2 − 98.0 is a little more than 0.2 in binary."""

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_NUMBERS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: lambda a, b: (a == b) | ((a - b).abs() <= ROUNDING),
    ast.NotEq: lambda a, b: (a - b).abs() > ROUNDING,
    ast.Lt: lambda a, b: a < b - ROUNDING,
    ast.LtE: lambda a, b: a <= b + ROUNDING,
    ast.Gt: lambda a, b: a > b + ROUNDING,
    ast.GtE: lambda a, b: a >= b - ROUNDING,
}
_WORDS: dict[type, Callable[[Any, Any], Any]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}


def parse(text: str) -> ast.expr:
    """A condition as a tree; `meets` finds what may not be in it.

    Raises:
        UserError: it is no expression.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's own, about backslashes and the like
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        lines = text.splitlines()
        at = lines[min(error.lineno or 1, len(lines)) - 1][max(0, (error.offset or 1) - 1) :]
        hint = "; equal is ==" if re.match(r"=(?!=)", at) else ""
        raise UserError(f"not understood from {_cut(at or text)!r} on{hint}; {ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError):
        raise UserError(f"not understood; {ALLOWED}") from None


def meets(condition: ast.expr | None, rows: pd.DataFrame) -> pd.Series:
    """Which rows meet a condition; all do where there is none. One that lacks a value that it needs does not.

    Raises:
        UserError: something in it is not allowed, no column, or not comparable; the message names the part.
    """
    if condition is None:
        return pd.Series(True, index=rows.index)
    try:
        return _part(condition, rows, "truth").fillna(False).astype(bool)
    except (RecursionError, OverflowError):
        raise UserError("has too many brackets, or too large a number") from None


def column(name: str, rows: pd.DataFrame) -> pd.Series:
    """A column by its name.

    Raises:
        UserError: there is none; the message has the nearest name.
    """
    if name in rows.columns and not name.startswith("__"):
        return rows[name]
    near = difflib.get_close_matches(name, rows.columns, 1)
    meant = f", did you mean {near[0]}?" if near else " (a word needs quotes);"
    raise UserError(f"{_cut(name)!r} is no column{meant} columns: {', '.join(rows.columns)}")


def kind(values: pd.Series) -> str:
    """`number`, `word` or `truth`."""
    if isinstance(values.dtype, pd.BooleanDtype):
        return "truth"
    return "number" if pd.api.types.is_numeric_dtype(values) else "word"


def nearest(condition: ast.expr | None, rows: pd.DataFrame) -> str:
    """How close rows come that do not meet a condition: of each bound in it the nearest value, among the rows that meet
    the rest of it, or, where none does that, among all."""
    parts = _joined(condition)
    alone: list[str] = []
    rest_met: list[str] = []
    for bound in parts:
        if not isinstance(bound, ast.Compare) or not isinstance(bound.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            continue
        left, right = (_value(side, rows) for side in (bound.left, bound.comparators[0]))
        beyond = (left - right if isinstance(bound.ops[0], ast.Lt | ast.LtE) else right - left).dropna()
        rest = reduce(operator.and_, [meets(p, rows) for p in parts if p is not bound], pd.Series(True, rows.index))
        shown, values = (bound.left, left) if _has_names(bound.left) else (bound.comparators[0], right)
        for distances, lines in ((beyond, alone), (beyond[rest[beyond.index]], rest_met)):
            if len(distances):
                trial = rows.loc[distances.idxmin(), "trial_id"]
                lines.append(f"{ast.unparse(shown)} {values[distances.idxmin()]:.6g} ({trial})")
    if rest_met:
        return f"the nearest has {', or '.join(rest_met)}"
    return f"each alone, the nearest have {', '.join(alone)}" if alone else ""


def _part(node: ast.expr, rows: pd.DataFrame, wanted: str) -> pd.Series:
    """A part of a condition that must be a `number` or a `truth`."""
    value = _value(node, rows)
    if kind(value) != wanted:
        meant = {"number": "a number", "truth": "a comparison"}[wanted]
        raise UserError(f"{_cut(ast.unparse(node))!r} is a {kind(value)} where {meant} must stand")
    return value


def _value(node: ast.expr, rows: pd.DataFrame) -> pd.Series:
    """What a part of a condition is in each row: a number, a word, or a truth (missing where one of its values is)."""
    match node:
        case ast.Name(id=name):
            return column(name, rows)
        case ast.Constant(value=bool() | int() | float() as number):
            return pd.Series(float(number), index=rows.index, dtype=float)
        case ast.Constant(value=str(word)):
            return pd.Series(word, index=rows.index, dtype=object)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_part(operand, rows, "number")
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_part(operand, rows, "truth")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](*(_part(side, rows, "number") for side in (left, right)))
        case ast.BoolOp(op=op, values=values):
            join = operator.and_ if isinstance(op, ast.And) else operator.or_
            return reduce(join, [_part(value, rows, "truth") for value in values])
        case ast.Compare():
            return reduce(operator.and_, [_compared(pair, rows) for pair in _pairs(node)])
    raise UserError(f"{_cut(ast.unparse(node))!r} is not allowed; {ALLOWED}; columns: {', '.join(rows.columns)}")


def _compared(pair: ast.Compare, rows: pd.DataFrame) -> pd.Series:
    """One comparison, of two values or of a value with a list."""
    left, op, right = pair.left, pair.ops[0], pair.comparators[0]
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple | ast.Set) and right.elts:
        each = [_compared(ast.Compare(left, [ast.Eq()], [item]), rows) for item in right.elts]
        among = reduce(operator.or_, each)
        return among if isinstance(op, ast.In) else ~among
    first, second = _value(left, rows), _value(right, rows)
    first, second = _as_word(left, first, second), _as_word(right, second, first)
    how = {"number": _NUMBERS, "word": _WORDS}.get(kind(first), {})
    if type(op) not in how or kind(first) != kind(second):
        raise UserError(
            f"{_cut(ast.unparse(pair))!r} cannot be compared; numbers compare with numbers, words with "
            "words by == and !=, and in takes a list [..]"
        )
    missing = first.isna() | second.isna()
    return how[type(op)](first, second).astype("boolean").mask(missing)


def _as_word(node: ast.expr, value: pd.Series, other: pd.Series) -> pd.Series:
    """`True` and `False` as the words that a table has for them, where they are compared with words."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool) and kind(other) == "word":
        return pd.Series(str(node.value), index=value.index, dtype=object)
    return value


def _pairs(node: ast.Compare) -> list[ast.Compare]:
    """`a < b < c` as `a < b` and `b < c`."""
    sides = [node.left, *node.comparators]
    return [ast.Compare(sides[i], [op], [sides[i + 1]]) for i, op in enumerate(node.ops)]


def _cut(part: str) -> str:
    return part if len(part) <= 40 else f"{part[:39]}…"


def _joined(condition: ast.expr | None) -> list[ast.expr]:
    """The conditions that `and` joins."""
    if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.And):
        return [part for value in condition.values for part in _joined(value)]
    if isinstance(condition, ast.Compare):
        return list(_pairs(condition))
    return [condition] if condition else []


def _has_names(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) for part in ast.walk(node))

"""JSON files, read strictly: what this harness would not have written is damage."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from study.errors import UserError

LARGEST = 64_000_000
"""Bytes of a JSON file. A `study.json` has a few thousand."""

DEEPEST = 32
"""Levels of nesting. A `study.json` has five."""

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What Python has for the bytes of a path that are not UTF-8."""


def read_bytes(path: Path, most: float = math.inf) -> bytes:
    """A file's content.

    Args:
        most: bytes that it may have.
    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > most:
            raise UserError(f"{path}: is larger than {most:.0f} bytes; restore it from a copy")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from error
    except MemoryError as error:
        raise UserError(f"{path}: is too large for the memory of this machine") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it cannot be read, or is no object in the JSON that `json.dumps` writes: twice the same key, numbers
            that are none, characters that no terminal shows.
    """
    content = read_bytes(path, LARGEST)
    try:
        value = json.loads(
            content.decode("utf-8-sig"),  # some editors begin a file with a mark
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        if not isinstance(value, dict):
            raise ValueError("no object in braces")
        _check_values(value)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged ({reason}); restore it from a copy") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:80]!r} stands there twice")
    return values


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is too large a number")
    return number


def _check_values(value: Any) -> None:
    """Refuse text that cannot be printed or written, and values nested too deeply.

    Raises:
        ValueError: with the first.
    """
    level = [value]
    for _ in range(DEEPEST):
        children = [child for item in level if isinstance(item, dict) for child in (*item, *item.values())]
        children += [child for item in level if isinstance(item, list) for child in item]
        for text in children:
            if isinstance(text, str) and not _NOT_UTF8.sub("", "".join(text.split())).isprintable():
                raise ValueError(f"{text[:80]!r} has characters that cannot be printed")
        level = children
    if level:
        raise ValueError("nested too deeply")

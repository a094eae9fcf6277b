"""Durations as people type them."""

from __future__ import annotations

import math
import re

from study.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str | None) -> float:
    """A duration such as 90m, 1.5h or 1h30m, in seconds; infinity for None.

    Raises:
        UserError: it is none.
    """
    if text is None:
        return math.inf
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(a + b for a, b in parts) != text or not seconds > 0:
        raise UserError(f"--time {text}: is no duration; give one such as 90s, 30m, 2h, 1h30m or 1d")
    return seconds

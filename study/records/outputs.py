"""What a command writes where a flag says so: files, streams, and text that is harmless to whoever opens it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from study.errors import UserError, printable
from study.records.atomic_files import open_descriptor, write_bytes

STDOUT = "-"


def is_stdout(path: Path | str | None) -> bool:
    """Whether a file that a flag names is standard output: nothing else is printed there then."""
    return path is not None and (str(path) == STDOUT or open_descriptor(Path(path)) == 1)


def write_output(flag: str, path: Path | str, content: str | bytes) -> None:
    """Write the file that a flag names; - is standard output. See `write_bytes`.

    Raises:
        UserError: a folder, no permission, no space; the message names the flag.
    """
    try:
        if str(path) == STDOUT and isinstance(content, str):
            print(content, end="")
        else:
            data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
            write_bytes(Path("/dev/stdout") if str(path) == STDOUT else Path(path), data)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written ({error.strerror}); give another file") from error


def make_folder(flag: str, folder: Path) -> None:
    """Make the folder that a flag names, unless it is there.

    Raises:
        UserError: a file is in the way, or no permission; the message names the flag.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot be made ({error.strerror}); give another folder") from error


def json_text(value: Any) -> str:
    """A value as JSON in ASCII, which any terminal and encoding takes; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_FORMULA = re.compile(r"\s*[=@+\-＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV for people. Words that a spreadsheet would run as a formula get a ' in front, as OWASP advises
    (https://owasp.org/www-community/attacks/CSV_Injection), and control characters are written out; numbers stay.

    Not for tables that are read back: those must come out as they went in.
    """
    harmless = frame.map(_harmless).rename(columns=_harmless)
    return harmless.to_csv(index=False)


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    formula = _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{printable(cell)}" if formula else printable(cell)

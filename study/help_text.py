"""The help of a kind of study, from its settings alone: names, types, marks and the text under each field.

`--help` has the common flags, in two lines at most at 80 columns: their first sentence, and their default in brackets.
`--help-all` has every flag with all of its text.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from study.flag_marks import HEADINGS, Common, Heading, Shown, marks
from study.path_arguments import PathTo
from study.settings import Settings, flag

COLUMN = 30
"""Where the text of a flag starts."""
WIDEST = 100
"""Letters of a line, also in a wider terminal."""


@dataclass(frozen=True)
class HelpEntry:
    """One flag.

    Attributes:
        usage: the flag with what stands for its value, as in `--epochs N`.
        text: the text under its field, in one line.
        default: as a sentence that `text` does not have, or "".
    """

    name: str
    usage: str
    heading: Heading
    common: bool
    text: str
    default: str

    @property
    def brief(self) -> str:
        """Its first sentence, and its default in brackets."""
        stated = re.search(r"Default: (.*?)\.(?= |$)", f"{self.text} {self.default}")
        first = _sentences(self.text)[0].removesuffix(".")
        return f"{first} [{stated[1]}]" if stated else first


def brief_help(prog: str, settings: Settings) -> str:
    """What `--help` prints.

    Args:
        prog: the command up to the flags.
        settings: those of a command without flags.
    """
    about = (inspect.getdoc(type(settings)) or "").split("\n\n")[0]
    common = [entry for entry in entries(settings) if entry.common]
    return _page(prog, about, common, brief=True, end=f"{prog} --help-all has every flag, with more about each.")


def full_help(prog: str, settings: Settings) -> str:
    """What `--help-all` prints; arguments as for `brief_help`."""
    end = f"{prog} --help has the common flags alone."
    return _page(prog, inspect.getdoc(type(settings)) or "", entries(settings), brief=False, end=end)


def entries(settings: Settings) -> list[HelpEntry]:
    """Every flag of the command line, by heading, and under each heading the common ones first."""
    listed: list[HelpEntry] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            listed += [
                e for f in dataclasses.fields(value) for e in _entry(type(value), f.name, getattr(value, f.name))
            ]
        else:
            listed += _entry(type(settings), field.name, value)
    return sorted(listed, key=lambda entry: (HEADINGS.index(entry.heading), not entry.common))


def _entry(cls: type[Any], name: str, value: Any) -> list[HelpEntry]:
    """The flag of one field, or nothing where the field has none."""
    hint = typing.get_type_hints(cls, include_extras=True)[name]
    if tyro.conf.Suppress in marks(hint):
        return []
    shown = [mark for kind in cls.__mro__ for mark in _own_marks(kind, name)]
    heading = next((mark.heading for mark in shown if mark.heading), _heading(cls, name))
    text = next((text for kind in cls.__mro__ if (text := _texts(kind).get(name))), "")
    return [
        HelpEntry(
            name=name,
            usage=_usage(name, hint, value, next((mark.value for mark in shown if mark.value), "")),
            heading=heading,
            common=bool(shown) and isinstance(shown[0], Common),
            text=text,
            default=_default(value, text),
        )
    ]


def _own_marks(cls: type[Any], name: str) -> list[Shown]:
    """Marks of a field as this class itself declares it."""
    if name not in cls.__dict__.get("__annotations__", {}):
        return []
    hint = typing.get_type_hints(cls, include_extras=True)[name]
    return [mark for mark in marks(hint) if isinstance(mark, Shown)]


def _heading(cls: type[Any], name: str) -> Heading:
    """The heading of the first class, from the most general one on, that has the field and a heading."""
    for kind in reversed(cls.__mro__):
        if name in kind.__dict__.get("__annotations__", {}) and "HEADING" in kind.__dict__:
            return typing.cast(Heading, kind.__dict__["HEADING"])
    return "Method"


def _texts(cls: type[Any]) -> dict[str, str]:
    """Field → the text under it in the class's own source, as one line."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # one that was typed at a prompt; Python's own
        return {}
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts


def _usage(name: str, hint: object, value: object, shown: str) -> str:
    if isinstance(value, bool):
        return f"{flag(name)}, {flag(f'no_{name}')}" if value else flag(name)
    return f"{flag(name)} {shown or _value_word(name, hint)}"


def _value_word(name: str, hint: object) -> str:
    """What stands for a value of this type."""
    parts = list(_parts(hint))
    paths = [mark for mark in marks(hint) if isinstance(mark, PathTo)]
    if paths:
        return "FILE" if paths[0].kind == "file" else "DIR"
    words = next((typing.get_args(part) for part in parts if typing.get_origin(part) is Literal), ())
    if words:
        choices = f"{{{','.join(map(str, words))}}}"
        return choices if len(f"  {flag(name)} {choices}  ") <= COLUMN else "WORD"
    if int in parts:
        return "N"
    return "NUMBER" if float in parts else "PATH" if Path in parts else "NAME"


def _parts(hint: object) -> typing.Iterator[object]:
    yield hint
    if typing.get_origin(hint) is not Literal:
        for part in typing.get_args(hint):
            yield from _parts(part)


def _default(value: object, text: str) -> str:
    """The default as a sentence, unless the text has it."""
    if "Default: " in text or "nless given" in text or value is False or value == ():
        return ""
    if value is True:
        return "Default: on."
    return f"Default: {value:g}." if isinstance(value, float) else f"Default: {'none' if value is None else value}."


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z])", text)


def _page(prog: str, about: str, listed: list[HelpEntry], brief: bool, end: str) -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = [f"usage: {prog} [FLAGS]", ""]
    for paragraph in about.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    for heading in HEADINGS:
        members = [entry for entry in listed if entry.heading == heading]
        if members:
            lines += [heading, *(line for entry in members for line in _lines(entry, width, brief)), ""]
    return "\n".join([*lines, *textwrap.wrap(end, width)])


def _lines(entry: HelpEntry, width: int, brief: bool) -> list[str]:
    """A flag with its text next to it, or below it where the flag is long."""
    text = entry.brief if brief else f"{entry.text} {entry.default}".strip()
    lines = textwrap.wrap(text or "–", width, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN)
    usage = f"  {entry.usage}"
    if len(usage) > COLUMN - 2:
        return [usage, *lines]
    return [usage.ljust(COLUMN) + lines[0][COLUMN:], *lines[1:]]

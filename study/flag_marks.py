"""How the help shows a flag. Marks stand next to the fields that they are about, as in `Annotated[int, Common()]`."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Heading = Literal["Study", "Data", "Networks", "Method", "Training", "Search", "Resources", "Output"]
HEADINGS: tuple[Heading, ...] = typing.get_args(Heading)
"""In the order of the help. A class of settings states that of its fields as `HEADING`."""


@dataclass(frozen=True)
class Shown:
    """A flag in the help.

    Attributes:
        value: what stands for its value, such as FILE; "" for a word that follows from its type.
        heading: where it stands; "" for the heading of its class.
    """

    value: str = ""
    heading: Heading | Literal[""] = ""


class Common(Shown):
    """A flag that `--help` has, in two lines at most: its first sentence and its default."""


class Rare(Shown):
    """A flag that `--help-all` alone has, as it has every flag that is not marked."""


def marks(hint: object) -> Iterator[object]:
    """All that `Annotated` adds to a type, the outermost first."""
    yield from getattr(hint, "__metadata__", ())
    for part in typing.get_args(hint):
        yield from marks(part)

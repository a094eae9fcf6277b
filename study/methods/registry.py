"""The kinds of study, by name. One is imported when it is named, and its flags without torch."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from study import methods
from study.errors import UserError
from study.methods.common.settings import CompressionSettings
from study.settings import Settings

if TYPE_CHECKING:
    from study.methods.method import Method


def names() -> list[str]:
    """Every folder that holds a `method.py`, in the order of the alphabet; none of them is imported."""
    return sorted({file.parent.name for folder in methods.__path__ for file in Path(folder).glob("*/method.py")})


def method(name: str) -> Method:
    """The kind of study of this name.

    Raises:
        UserError: there is none.
    """
    _known(name)
    found: Method = importlib.import_module(f"{methods.__name__}.{name}.method").METHOD
    return found


def settings_class(name: str) -> type[Settings]:
    """The flags of this kind of study: its own, or those of every compression method. Nothing here imports torch.

    Raises:
        UserError: there is no such kind.
    """
    _known(name)
    if find_spec(f"{methods.__name__}.{name}.settings") is None:
        return CompressionSettings
    own = getattr(importlib.import_module(f"{methods.__name__}.{name}.settings"), "SETTINGS", None)
    if not (isinstance(own, type) and issubclass(own, Settings)):
        raise UserError(f"study/methods/{name}/settings.py: SETTINGS is missing, or no class of settings; define it")
    return own


def default_settings(name: str) -> Settings:
    """What a command without any flag means, before `resolve`."""
    return settings_class(name)(kind=name)


def _known(name: str) -> None:
    if name not in names():
        raise UserError(f"{name}: no such kind of study; this version of the harness has {', '.join(names())}")

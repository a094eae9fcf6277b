"""The two ways in which a run ends on purpose."""

from __future__ import annotations

import errno
import os
import unicodedata


class UserError(Exception):
    """Bad input. The message is one line: the flag or file, what is wrong with it, what would be right.

    Every command line prints it alone, without a traceback, and exits with status 2. What a terminal or a stream
    would not take as text, as in the name of a file, is written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


NO_SPACE = os.strerror(errno.ENOSPC)
"""As the system says it, and as it stands in errors that come from another process."""


def no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if NO_SPACE in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class TrialFailed(Exception):
    """A trial that cannot be scored (NaN loss, collapsed mixture, nothing left after pruning).

    Deterministic, so the trial is recorded as `failed` with this reason and is not retried.
    """


def one_line(error: Exception) -> str:
    """The error as one line, cut where it would fill the screen."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:199] + "…"


def printable(text: str) -> str:
    """The text with everything written out that a terminal would act on: control characters, such as the escape that
    starts a colour or a title, marks that turn the direction of writing, line ends, and halves of a character."""
    if text.isprintable():  # as almost all is
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()

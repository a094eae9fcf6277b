"""The two ways in which a run ends on purpose."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import unicodedata
from collections.abc import Iterator


class UserError(Exception):
    """Bad input. The message is one line: the flag or file, what is wrong with it, what would be right.

    Every command line prints it alone, without a traceback, and exits with status 2. What a terminal or a stream
    would not take as text, as in the name of a file, is written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def require_package(named: str, package: str, extra: str) -> None:
    """See that an optional package is installed.

    Args:
        named: what needs it, as a message names it, such as a flag with its value.
        extra: ours that brings it.
    Raises:
        UserError: it is not, with what to type.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{named}: needs the package {package}, which is not installed; type pip install {package}, or "
            f"pip install -e '.[{extra}]'"
        )


NO_SPACE = os.strerror(errno.ENOSPC)
"""As the system says it, and as it stands in errors that come from another process."""


def no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that the disk is full."""
    return any(
        (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)) or says_no_space(str(e))
        for e in _causes(error)
    )


def says_no_space(text: str) -> bool:
    """Whether an error's text, as it comes from another process, says that the disk is full."""
    return NO_SPACE in text or os.strerror(errno.EDQUOT) in text


def no_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that there is not enough memory."""
    return any(
        isinstance(e, MemoryError)
        or (isinstance(e, OSError) and e.errno == errno.ENOMEM)
        or (isinstance(e, RuntimeError) and re.search("can't allocate memory|out of memory", str(e)))  # torch's
        or type(e).__name__ == "ObjectStoreFullError"  # Ray's
        for e in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def reading_errors(named: str) -> Iterator[None]:
    """What goes wrong while data are read, as a message.

    Args:
        named: the flag with its value, which the message begins with.
    Raises:
        UserError: they cannot be read, or do not fit into memory.
    """
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise UserError(f"{named}: cannot be read ({' '.join(str(error).split())})") from error
    except MemoryError as error:
        raise UserError(f"{named}: does not fit into memory; give fewer or smaller images") from error


def system_error(error: BaseException) -> str:
    """An error of the system in one line, with its path: "" where it is none, but a bug.

    The last resort. Where the system is called there is more to say: which flag, and what to type.
    """
    if no_memory(error):
        return "there is not enough memory; use fewer or smaller images, a smaller network, or a larger machine"
    if isinstance(error, UnicodeError):
        return f"a text or a file name cannot be read or written in this encoding ({error}); use UTF-8"
    if not isinstance(error, OSError):
        return ""
    if error.filename is None and error.errno == errno.ENOENT and error.strerror == os.strerror(errno.ENOENT):
        # from os.getcwd
        return "the current folder was removed; change to another one"
    named = " → ".join(_shown(path) for path in (error.filename, error.filename2) if path is not None)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{named}: {reason}" if named else reason


def _shown(path: object) -> str:
    text = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= 200 else text[:199] + "…"


class TrialFailed(Exception):
    """A trial that cannot be scored (NaN loss, collapsed mixture, nothing left after pruning).

    Deterministic, so the trial is recorded as `failed` with this reason and is not retried.
    """


def one_line(error: BaseException) -> str:
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

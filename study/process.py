"""The process that a command runs in: output that may close, and signals that ask it to stop."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)
"""Errors of an output that nobody reads any more: a pipe whose reader has ended, a terminal that was closed."""


class Output:
    """A standard stream on which writing never fails: what cannot be written is dropped, and so is all that follows.

    A character that its encoding lacks becomes a question mark.

    Attributes:
        error: why something was dropped, unless it is that nobody reads it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
            if self.stream.isatty() or "\n" in text:
                self.stream.flush()  # now, so that an error belongs to this stream
        except OSError as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let the stream, with all that it still holds and all that other code writes to it, lead nowhere."""
        if error.errno not in GONE:
            self.error = error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            self.stream.flush()


@contextlib.contextmanager
def outputs() -> Iterator[list[Output]]:
    """Standard output and standard error as `Output`; one that was closed before the start leads nowhere."""
    before = sys.stdout, sys.stderr
    for number in (0, 1, 2):  # or the next file that is opened gets the number, and is printed into
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    streams = [Output(stream or open(os.devnull, "w")) for stream in before]  # noqa: SIM115
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


STOPPING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does; one that is ignored, as under nohup, stays ignored.

    Yields: the signals that came, which tell the exit status.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # Ctrl-C is ignored, as in the background of a script
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    with kept_handlers():
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, stop)
        yield received


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Put the handlers of Ctrl-C, SIGTERM and SIGHUP back at the end, whoever has replaced them meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOPPING)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: not Python's, and cannot be put back
                signal.signal(number, handler)

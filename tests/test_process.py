"""Output that closes, and signals that ask a command to stop."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from study import process


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    with process.kept_handlers():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield


def closed_pipe() -> process.Output:
    reading, writing = os.pipe()
    os.close(reading)
    return process.Output(os.fdopen(writing, "w"))


def test_an_output_that_nobody_reads_is_dropped() -> None:
    """Neither what is written after the reader has ended nor the next line raises; that is no error to report."""
    output = closed_pipe()
    for _ in range(3):
        assert output.write("a line\n") == 7
    output.flush()
    output.stream.close()  # nothing is left in it that could still fail
    assert output.error is None


def test_an_output_without_room_says_so() -> None:
    """A full disk under a redirected output raises nothing, and is known at the end."""
    with open("/dev/full", "w") as full:
        output = process.Output(full)
        output.write("a line\n")
    assert output.error is not None and output.error.errno == errno.ENOSPC


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"? 1 ?\n"), ("latin-1", b"? 1 \xb2\n")])
def test_what_an_encoding_lacks_is_a_question_mark(encoding: str, shown: bytes) -> None:
    """Greek letters and rules of a table reach a terminal that has none; a file name that is not UTF-8 as well."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    process.Output(stream).write("τ 1 ²\n")
    assert stream.buffer.getvalue() == shown  # type: ignore[attr-defined]
    unicode = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    process.Output(unicode).write("\udcff\n")
    assert unicode.buffer.getvalue() == b"?\n"  # type: ignore[attr-defined]


def test_outputs_closed_before_the_start_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None for a stream that was closed by the shell."""
    monkeypatch.setattr("sys.stdout", None)
    with process.outputs() as (out, _):
        print("nobody sees this")
    assert out.error is None


@pytest.mark.parametrize("number", process.STOPPING)
@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_signals_that_ask_to_stop_are_ctrl_c(number: int, ctrl_c: object) -> None:
    """They interrupt, also where Ctrl-C is ignored; which one came is known, and the handlers are put back."""
    signal.signal(number, signal.SIG_DFL)  # nohup may run the tests
    signal.signal(signal.SIGINT, ctrl_c)  # type: ignore[arg-type]
    before = signal.getsignal(number)
    with process.stop_signals() as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert received == [number]
    assert signal.getsignal(number) is before


def test_a_signal_goes_to_whoever_listens_for_ctrl_c() -> None:
    """Ray Tune ends its run when it hears Ctrl-C, and so it does after SIGTERM."""
    heard: list[int] = []
    with process.stop_signals() as received:
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
        signal.raise_signal(signal.SIGTERM)
    assert (heard, received) == ([signal.SIGINT], [signal.SIGTERM])


def test_what_is_ignored_stays_ignored() -> None:
    """nohup ignores SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with process.stop_signals() as received:
        signal.raise_signal(signal.SIGHUP)
    assert not received


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "ACTIVE"}])
def test_openmp_hardly_spins_unless_the_user_has_it_spin(own: dict[str, str]) -> None:
    """What it reads is set before torch is loaded, by all that begins with this package; a user's own values stay."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    code = f"import os, sys, study; print('torch' in sys.modules, *(os.environ[name] for name in {names}))"
    bare = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run([sys.executable, "-c", code], env={**bare, **own}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *(own.values() or ("3000", "PASSIVE"))]

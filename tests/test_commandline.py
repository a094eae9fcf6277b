"""Usage errors: one line that names the flag, what is wrong and what would be right, and status 2."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from analysis import query
from study import commandline, export, reproduce, run
from study.errors import UserError
from study.process import kept_handlers


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (run, "kd --epochs zero", "--epochs zero: give a whole number"),
        (run, "kd --seed 1.5", "--seed 1.5: give a whole number"),
        (run, "sws --memory-per-trial lots", "--memory-per-trial lots: give a number"),
        (run, "sws --searcher tpee", "--searcher tpee: give gp, nsga2, random or tpe"),
        (
            run,
            "kd --augment fli",
            "--augment fli: give crop, flip, none, resized-crop, resized-crop-jitter, shift or shift1",
        ),
        (run, "kd --num-samples", "--num-samples: its value is missing"),
        (run, "kd --no-dashboardd", "--no-dashboardd: not understood; did you mean --dashboard?"),
        (run, "kd extra words", "extra words: not understood"),
        (run, "ptq --pack 3", "--pack 3: not a flag of ptq, but of kd, magnitude or sws, as in python"),
        (run, "", "nothing given: name the study first: kd, kd_sws, magnitude, ptq or sws"),
        (run, "swss --seed 3", "swss: name the study first: kd, kd_sws, magnitude, ptq or sws; did you mean python"),
        (run, "--seed 3 kd", "--seed: name the study first: kd, kd_sws, magnitude, ptq or sws; did you mean python"),
        (run, "--seed 3", "--seed: name the study first: kd, kd_sws, magnitude, ptq or sws, as in python"),
        (run, "kd --tau 3", "--tau 3: not a flag; kd does not have it, and kd_sws or sws --variant soft searches it"),
        (run, "sws --tau 3", "--tau 3: not a flag, because sws --variant soft searches it (0.003 to 0.3)"),
        (run, "sws --variant soft --components 8", "--components 8: not a flag, because sws searches it (4 to 64)"),
        (
            run,
            "sws --density 0.1",
            "--density 0.1: not a flag, because sws searches it (0.003 to 0.2); give --fix density=VALUE, or a "
            "--range or --choice of it",
        ),
        (run, "kd --temperature 3", "--temperature 3: not a flag, because kd searches it"),
        (run, "kd --temperature=3", "--temperature=3: not a flag, because kd searches it"),
        (run, "kd --temprature 3", "--temprature 3: no such flag; if --temperature is meant: not a flag, because kd"),
        (run, "kd --variantt soft", "--variantt soft: no such flag; if --variant is meant: not a flag of kd"),
        (run, "kd --epoch-teacher 3", "--epoch-teacher 3: no such flag; did you mean --teacher? (see"),
        (run, "kd --out x", "--out x: not understood (see"),
        (export, "", "missing: results/NAME: Folder of the study"),
        (reproduce, "", "missing: results/NAME: Folder of the study; TRIAL: A complete trial, such as t014, or"),
        (query, "folder question --top x", "--top x: give a whole number"),
    ],
)
def test_a_usage_error_is_one_line_in_our_words(
    command: ModuleType, arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What tyro says of the types behind a flag, or of subcommands, is not what a user can act on."""
    assert command.main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {line}") and printed.err.count("\n") == 1 and not printed.out
    assert printed.err.rstrip().endswith("--help)")


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (run, "kd --student-width 1e9", "--student-width 1000000000.0: must be 16 or less"),
        (run, "kd --learning-rate inf", "--learning-rate inf: must be a finite number"),
        (reproduce, "folder t001 --tolerance -1", "--tolerance -1: must be 0 or more"),
    ],
)
def test_a_value_out_of_range_is_one_line(
    command: ModuleType, arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the flag, what was given and what may be."""
    assert command.main(arguments.split()) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def fail_with(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (OSError(28, "No space left on device", b"/x\xff"), "/x\\udcff: No space left on device"),
        (OSError(36, "File name too long", "x" * 5000), "x" * 199 + "…: File name too long"),
        (OSError("only words"), "only words"),
        (FileExistsError(17, "File exists", "a", None, "b"), "a → b: File exists"),
        (MemoryError(), "there is not enough memory; use "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough"),
        (OSError(12, "Cannot allocate memory"), "there is not enough memory; use "),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "a text or a file name cannot be read"),
        (UserError("bad"), "bad"),
    ],
)
def test_an_error_of_the_system_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The last resort of every command: the path, what is wrong, status 2, and no traceback."""
    assert commandline.status(fail_with(error)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}") and printed.count("\n") == 1


@pytest.mark.parametrize("bug", [TypeError("x"), RuntimeError("x"), KeyError("x"), ValueError("x")])
def test_a_bug_has_a_traceback(bug: Exception) -> None:
    """What is no error of the system is not hidden."""
    with pytest.raises(type(bug)):
        commandline.status(fail_with(bug))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("then", ["raise", "return", "bug"])
def test_a_command_that_is_stopped_says_so_in_one_line(
    number: int, code: int, then: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the signal ends it, it ends by itself after it has heard, or what it interrupts fails for that reason."""

    def command() -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if then == "raise" or (then == "bug" and number == signal.SIGINT):
                raise
        if then == "bug":
            raise RuntimeError("the connection was lost")
        print("Stopped.", file=sys.stderr)
        return commandline.INTERRUPTED

    with kept_handlers():
        signal.signal(number, signal.SIG_DFL)  # nohup may run the tests
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert commandline.status(command) == code
    assert capsys.readouterr().err == "Stopped.\n"


def test_a_result_that_could_not_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A query into a file on a full disk fails; a study that only told of its progress does not."""

    def command() -> int:
        print("a result")
        return 0

    for prints_result, code in ((True, 2), (False, 0)):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert commandline.status(command, prints_result=prints_result) == code
    assert capsys.readouterr().err.startswith("error: standard output: No space left on device")

"""What a study prints while it runs, and at its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from search_spaces import sws
from study.records import columns
from study.records.ledger import Ledger
from study.tuning.display import Display

METRICS = {
    "val_accuracy": 96.4, "sparsity": 97.2, "entropy_ratio": 120.0, "compression_ratio": 145.3, "file_bytes": 1625,
}  # fmt: skip
VALUES = {"tau": 0.01, "components": 17, "one_minus_pi_zero": 0.01}


def ledger_of(folder: Path, seconds: list[float]) -> Ledger:
    """A network that took 2,000 seconds to train, and trials that took these."""
    ledger = Ledger.open(folder)
    ledger.start("uncompressed", {}, "uncompressed")
    ledger.finish("uncompressed", "complete", "", {**METRICS, "sparsity": 0.0}, 2000.0)
    for i, taken in enumerate(seconds, 1):
        ledger.start(f"t{i:03d}", VALUES, "")
        ledger.finish(f"t{i:03d}", "complete", "", METRICS, taken)
    return ledger


def on_a_screen(display: Display, width: int) -> Display:
    display.console = Console(width=width, force_terminal=True, color_system=None)
    return display


def test_the_table_at_the_end_is_of_what_was_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each baseline and each of the best: hyperparameters, objectives, size of the file, test accuracy, and
    no other metric, so that it fits."""
    display = Display(ledger_of(tmp_path, [1.0]), sws.OBJECTIVES, 1, "")
    display.summary(["t001"], {"t001": {"test_accuracy": 95.25}}, sws.SPACE)
    table = capsys.readouterr().out
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert all(value in lines["t001"] for value in ("0.0100", "17", "96.40", "97.20", "145.3", "95.25"))
    assert "120.0" not in table and "0.00" in lines["uncompressed"]
    assert max(map(len, table.splitlines())) <= 160


def test_where_there_is_no_terminal_a_table_has_160_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed for a file, whatever the screen: complete up to that width, and never wider. The longer the names
    of the values, the wider, until a column is left out."""
    widths = {}
    for letters in range(20, 160, 1):
        ledger = ledger_of(tmp_path / str(letters), [])
        ledger.start("t001", {**VALUES, "tau": "x" * letters}, "")
        ledger.finish("t001", "complete", "", METRICS, 1.0)
        display = Display(ledger, sws.OBJECTIVES, 1, "")
        display.console = Console(width=40)
        display.summary(["t001"], {}, sws.SPACE)
        shown = capsys.readouterr().out
        widths[letters] = max(map(len, shown.splitlines())), "In the report" in shown
        if widths[letters][1]:
            break
    assert max(width for width, _ in widths.values()) == 158  # and two blanks between it and the edge
    assert [out for _, out in widths.values()] == [False] * (len(widths) - 1) + [True]


@pytest.mark.parametrize(("objectives", "best"), [
    ({"val_accuracy": "max", "file_bytes": "min"}, "t002: "),
    ({"file_bytes": "min", "val_accuracy": "max"}, "t001: "),
    ({"compression_ratio": "max"}, "t003: "),
    ({"latency_ms": "min"}, "none yet"),
])  # fmt: skip
def test_the_best_trial_so_far_is_that_of_the_first_objective(
    objectives: dict[str, str], best: str, tmp_path: Path
) -> None:
    """Highest or lowest as the objective says, with all its objectives; baselines and unfinished trials do not count,
    nor do trials that lack an objective."""
    ledger = Ledger.open(tmp_path)
    rows = {
        "uncompressed": ("complete", {"val_accuracy": 99.9, "file_bytes": 1, "compression_ratio": 999.0}),
        "t001": ("complete", {"val_accuracy": 90.0, "file_bytes": 500, "compression_ratio": 5.0}),
        "t002": ("complete", {"val_accuracy": 95.0, "file_bytes": 900, "compression_ratio": 3.0}),
        "t003": ("complete", {"compression_ratio": 7.0}),
        "t004": ("failed", {"val_accuracy": 99.0, "file_bytes": 2, "compression_ratio": 99.0, "latency_ms": 1.0}),
    }
    for trial_id, (state, metrics) in rows.items():
        ledger.start(trial_id, VALUES, "" if trial_id.startswith("t0") else trial_id)
        ledger.finish(trial_id, state, "", metrics, 1.0)
    sentence = Display(ledger, objectives, 9, "")._best()
    assert sentence.startswith(best)
    assert all(name == "latency_ms" or columns.head(name) in sentence for name in objectives)


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40])
def test_no_word_of_a_heading_is_broken(width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is left out, and named; test accuracy and all that was searched for fit into 80 columns."""
    display = on_a_screen(Display(ledger_of(tmp_path, [1.0]), sws.OBJECTIVES, 1, ""), width)
    display.summary(["t001"], {"t001": {"test_accuracy": 95.25}}, sws.SPACE)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    head, left_out = shown.partition("─")[0], " ".join(shown.partition("In the report")[2].split())
    for name in ("trial_id", *sws.SPACE, *sws.OBJECTIVES, "compression_ratio", "file_bytes", "test_accuracy"):
        there = set(columns.head(name).split()) <= set(head.split())
        assert there or columns.label(name) in left_out, name
        if width >= 80 and name not in ("compression_ratio", "file_bytes"):
            assert there and columns.label(name) not in left_out, name


@pytest.mark.parametrize("width", [80, 160])
def test_the_live_display_has_a_line_for_each_thing(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar has its own, and the front that a study continues from is counted from the start."""
    display = on_a_screen(Display(ledger_of(tmp_path, [60.0] * 3), sws.OBJECTIVES, 13, "", front_size=2), width)
    display.console.print(display._render())
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert set(lines[0]) <= set("━╸╺ ") and lines[1].startswith("trials     3 of 13 done")
    assert "front      2 trials" in lines


def test_heads_are_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As people write them: a letter, a unit, or a word."""
    display = on_a_screen(Display(ledger_of(tmp_path, [1.0]), sws.OBJECTIVES, 1, ""), 80)
    display.summary(["t001"], {"t001": {"test_accuracy": 95.25}}, sws.SPACE)
    head = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("trial"))
    assert head.split() == "trial τ components 1−π₀ acc % zeros % × bytes test %".split()
    assert [columns.head(name) for name in ("temperature", "alpha", "optimizer")] == ["T", "α", "optimiser"]


def test_the_confirmation_has_its_line_and_its_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it starts the display says what will follow, and while it runs how far it is; the table at the end has
    the mean over fresh seeds of each configuration with its interval."""
    ledger, fresh = ledger_of(tmp_path / "a", [1.0]), ledger_of(tmp_path / "b", [1.0] * 3)
    display = on_a_screen(Display(ledger, sws.OBJECTIVES, 9, "", afterwards="confirmation of 3 trials"), 80)

    def lines() -> dict[str, str]:
        display.console.print(display._render())
        cells = [re.split(" {2,}", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
        return {cell[0]: cell[1] for cell in cells if len(cell) == 2}

    assert lines()["trials"].startswith("1 of 9 done") and lines()["then"] == "confirmation of 3 trials"
    with display.confirming(fresh, 12):
        shown = lines()
        assert (
            shown["confirmation"].startswith("4 of 12 done") and not {"then", "trials", "best", "front"} & shown.keys()
        )
    assert "then" in lines()
    display.summary(["t001"], {}, sws.SPACE, {"t001": "95.25 ± 0.13", "uncompressed": "96.00"})
    table = capsys.readouterr().out
    assert "fresh seeds:" in table and "95.25 ± 0.13" in table and "96.00" in table


@pytest.mark.parametrize(("columns_", "lines"), [(80, 24), (200, 50)])
def test_in_a_terminal_every_line_fits(columns_: int, lines: int, tmp_path: Path) -> None:
    """In a pseudo-terminal of this size the bar and the counts have lines of their own, nothing is wider or higher than
    the screen, and the display is gone at the end."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from search_spaces import sws\n"
        "from study.tuning.display import Display\n"
        "from test_display import ledger_of\n"
        f"ledger = ledger_of(Path({str(tmp_path)!r}), [60.0] * 3)\n"
        "address, options = 'http://127.0.0.1:8265', {'shared_work': 'uncompressed', 'afterwards': 'confirmation'}\n"
        "with Display(ledger, sws.OBJECTIVES, 9, address, **options) as display:\n"
        "    time.sleep(1)\n"
        "display.summary(['t001'], {'t001': {'test_accuracy': 95.25}}, sws.SPACE, {'t001': '95.25 ± 0.13'})\n"
    )
    screens, after = in_a_terminal([sys.executable, "-c", code], columns_, lines)
    assert screens
    for screen in screens:
        assert len(screen) < lines and max(map(len, screen)) <= columns_
        assert set(screen[0].strip()) <= set("━╸╺ ") and screen[1].startswith("trials     3 of 9 done")
        assert [row.split()[0] for row in screen[1:] if row.strip()] == "trials best front time then dashboard".split()
        assert any(row.startswith("time left  about 6 min") for row in screen)
    assert max(map(len, after)) <= columns_ and any("95.25 ± 0.13" in row for row in after)


def in_a_terminal(command: list[str], columns_: int, lines: int) -> tuple[list[list[str]], list[str]]:
    """The frames of a display that a command draws into a pseudo-terminal, and the lines that it prints afterwards."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns_, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while chunk := os.read(ours, 65_536):
                written += chunk
    os.close(ours)
    assert running.returncode == 0, written
    # A frame starts where the last one is erased, line by line.
    parts = re.split(r"(?:\r?\x1b\[1?A|\x1b\[2K|\r(?!\n))+", written.decode())
    plain = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", part).split("\r\n") for part in parts]
    screens = [[line.rstrip() for line in part] for part in plain if any("trials  " in line for line in part)]
    return screens, [line for line in plain[-1] if line]


def test_the_time_that_is_left_is_that_of_trials(tmp_path: Path) -> None:
    """Seconds of the last ones × those that remain ÷ those at one time; the shared work is none, however long."""

    def left(seconds: list[float], wanted: int, at_once: int) -> float | None:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        ledger = ledger_of(folder, seconds)
        return Display(ledger, sws.OBJECTIVES, wanted, "", at_once=at_once, shared_work="uncompressed").seconds_left()

    assert left([], 13, 2) is None
    assert left([60.0] * 3, 13, 2) == 60 * 10 / 2
    assert left([1000.0] * 5 + [10.0] * 8, 20, 1) == 10 * 7
    assert left([60.0] * 3, 3, 2) == 0

"""What a study prints while it runs, and at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from search_spaces import sws
from study.records.columns import label
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
    for letters in range(20, 120, 1):
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
    assert all(name == "latency_ms" or label(name) in sentence for name in objectives)


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40])
def test_no_word_of_a_heading_is_broken(width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is left out, and named; test accuracy and all that was searched for fit into 80 columns."""
    display = on_a_screen(Display(ledger_of(tmp_path, [1.0]), sws.OBJECTIVES, 1, ""), width)
    display.summary(["t001"], {"t001": {"test_accuracy": 95.25}}, sws.SPACE)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    head, left_out = shown.partition("─")[0], " ".join(shown.partition("In the report")[2].split())
    for name in ("trial_id", *sws.SPACE, *sws.OBJECTIVES, "compression_ratio", "file_bytes", "test_accuracy"):
        there = set(label(name).split()) <= set(head.split())
        assert there or label(name) in left_out, name
        if width >= 80 and name not in ("compression_ratio", "file_bytes"):
            assert there and label(name) not in left_out, name


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

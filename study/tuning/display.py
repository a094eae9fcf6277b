"""What a running study shows: one live display in a terminal, a plain line per trial elsewhere."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.records.columns import FINAL_STATES, Row, column, head, label
from study.records.ledger import Ledger, NewlyComplete

SIZES = ("compression_ratio", "file_bytes")
TEST = "test_accuracy"
FRESH = "fresh seeds: test %"
"""Column of the table at the end: mean over fresh seeds and its 95 % interval."""
BAR = 50
"""Letters of the bar's width."""
SHORT = 8
"""Letters of a heading that stays on one line."""
RECENT = 8
"""Trials at least, of those that ended last, from which the time that is left is estimated."""


class Display:
    """Shows a ledger. Used as a context manager around the search.

    Args:
        wanted: trials that the study is to have at the end, baselines not counted.
        dashboard: address of the Ray dashboard, or "".
        at_once: trials that run at one time.
        shared_work: name of the baseline that does the shared work, which takes longer or shorter than a trial.
        front_size: members of the front that the ledger has.
        afterwards: what follows the search, or "".
    """

    def __init__(
        self,
        ledger: Ledger,
        objectives: Mapping[str, str],
        wanted: int,
        dashboard: str,
        *,
        at_once: int = 1,
        shared_work: str = "",
        front_size: int = 0,
        afterwards: str = "",
    ) -> None:
        self.ledger, self.objectives, self.wanted, self.dashboard = ledger, objectives, wanted, dashboard
        self.at_once, self.shared_work, self.front_size = at_once, shared_work, front_size
        self.afterwards = afterwards
        self.counted = "trials"
        self.console = Console()
        self.baselines_count = False
        self.newly_complete = NewlyComplete(ledger)
        self._best_row: Row | None = None
        self.live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.live.stop()

    @contextlib.contextmanager
    def confirming(self, ledger: Ledger, wanted: int) -> Iterator[None]:
        """Show another ledger meanwhile, of trainings with fresh seeds, where baselines count as all others do."""
        before = vars(self).copy()
        self.ledger, self.wanted, self.baselines_count = ledger, wanted, True
        self.counted, self.afterwards = "confirmation", ""
        try:
            yield
        finally:
            vars(self).update(before)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def trial_ended(self, row: Row, front_size: int) -> None:
        self.front_size = front_size
        if not self.console.is_terminal:
            trial_id = row["trial_id"]
            what = row["reason"] or self._values(row)
            share = f"{self._done()}/{self.wanted}"
            name = f"{trial_id} ({row['baseline']})" if row["baseline"] else trial_id
            self.say(f"{share:>7}  {name:<24} {row['state']:<9} {row['seconds']:7.1f} s  {what}")

    def _values(self, row: Row) -> str:
        return ", ".join(f"{label(m)} {_cell(m, row[m])}" for m in self.objectives if m in row)

    def _short_values(self, row: Row) -> str:
        return ", ".join(f"{head(m)} {_cell(m, row[m])}" for m in self.objectives if m in row)

    def _done(self) -> int:
        return sum(self._count(state) for state in FINAL_STATES)

    def _count(self, state: str) -> int:
        both = self.ledger.count(state, baseline=True) if self.baselines_count else 0
        return self.ledger.count(state) + both

    def _best(self) -> str:
        first, direction = next(iter(self.objectives.items()))
        better = max if direction == "max" else min
        for row in self.newly_complete.rows():
            if all(m in row for m in self.objectives):
                self._best_row = better(self._best_row or row, row, key=lambda r: r[first])
        return f"{self._best_row['trial_id']}: {self._short_values(self._best_row)}" if self._best_row else "none yet"

    def seconds_left(self) -> float | None:
        """What the remaining trials will take, if they are like the last ones that ended; None before one has.

        The shared work tells nothing about it, nor does the time before the first trial.
        """
        ended = (r for r in reversed(self.ledger.ended) if self.baselines_count or not r["baseline"])
        alike = (r["seconds"] for r in ended if r["baseline"] != self.shared_work)
        recent = list(itertools.islice(alike, max(RECENT, 2 * self.at_once)))
        if not recent:
            return None
        return sum(recent) / len(recent) * max(0, self.wanted - self._done()) / self.at_once

    def _render(self) -> Group:
        count = {s: self._count(s) for s in ("running", "pruned", "failed")}
        done = self._done()
        table = Table.grid(padding=(0, 2))
        table.add_row("", ProgressBar(total=max(1, self.wanted), completed=done, width=BAR))
        table.add_row(self.counted, f"{done} of {self.wanted} done, " + ", ".join(f"{n} {s}" for s, n in count.items()))
        running = list(self.ledger.running)
        for trial_id in running[:4]:
            rows = self.ledger.history.get(trial_id, [])
            values = f"epoch {rows[-1]['epoch']}, {self._short_values(rows[-1])}" if rows else "starting"
            table.add_row(trial_id, values)
        if not self.baselines_count:  # a confirmation searches nothing
            table.add_row("best", self._best())
            table.add_row("front", f"{self.front_size} trials")
        table.add_row("time left", _in_words(self.seconds_left()))
        if self.afterwards:
            table.add_row("then", self.afterwards)
        if self.dashboard:
            table.add_row("dashboard", self.dashboard)
        return Group(table, Text())

    def summary(
        self,
        best: list[str],
        confirmed: Mapping[str, Row],
        hyperparameters: Iterable[str],
        fresh: Mapping[str, str] | None = None,
    ) -> None:
        """The baselines and the best trials, as a table.

        Of the metrics, what was searched for and what a file of it would be: the report has them all.

        Args:
            best: trial ids, in the order to show.
            confirmed: test results of the search's own networks, by trial id.
            fresh: trial id → mean and interval of test accuracy over fresh seeds, as text.
        """
        rows = [r for r in self.ledger.trials.values() if r["baseline"]]
        rows += [self.ledger.trials[i] for i in best]
        means = fresh or {}
        rows = [{**r, FRESH: means[r["trial_id"]]} if r["trial_id"] in means else r for r in rows]
        rows = [{**r, "trial_id": r["baseline"] or r["trial_id"], **_tested(confirmed, r)} for r in rows]
        names = ["trial_id", *hyperparameters, *self.objectives, *SIZES, TEST, FRESH]
        cells = {n: [_cell(n, r.get(n)) for r in rows] for n in dict.fromkeys(names) if any(n in r for r in rows)}
        console = self.console if self.console.is_terminal else Console(width=160)
        # No column is narrower than what may not be broken in it; then columns are left out.
        needed = {name: max(map(cell_len, [*_unbroken(head(name)), *shown])) for name, shown in cells.items()}
        objectives = list(self.objectives)
        left_out = [n for n in (*reversed(SIZES), *reversed(list(hyperparameters))) if n not in objectives]
        left_out += [*reversed(objectives[1:]), TEST, FRESH]
        while sum(needed.values()) + 2 * len(needed) > console.width and left_out:
            needed.pop(left_out.pop(0), None)
        table = Table(
            title="Baselines, and the best trials (selected on validation)",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for name in needed:
            table.add_column(head(name), justify="left" if name == "trial_id" else "right", width=needed[name])
        for line in zip(*(cells[name] for name in needed), strict=True):
            table.add_row(*map(Text, line))
        console.print(table)
        if len(needed) < len(cells):
            missing = ", ".join(label(name) for name in cells if name not in needed)
            console.print(Text(f"In the report, but too wide for here: {missing}"))


def _tested(confirmed: Mapping[str, Row], row: Row) -> Row:
    """The test accuracy of a trial, if it has one."""
    tested = confirmed.get(row["trial_id"], {})
    return {TEST: tested[TEST]} if TEST in tested else {}


def _unbroken(text: str) -> list[str]:
    """The parts of a heading that are not broken: its words, or all of it where it is short."""
    return [text] if len(text) <= SHORT else text.split()


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return "unknown yet"
    if seconds < 60:
        return "less than a minute"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"


def _cell(name: str, value: object) -> str:
    """A value with the digits of its column; one too small for them gets three significant figures."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    digits = column(name).digits
    return f"{value:.3g}" if 0 < abs(value) < 10.0**-digits else f"{value:.{digits}f}"

"""What a running study shows: one live display in a terminal, a plain line per trial elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.records.columns import FINAL_STATES, Row, column, label
from study.records.ledger import Ledger

SIZES = ("compression_ratio", "file_bytes")


class Display:
    """Shows a ledger. Used as a context manager around the search.

    Args:
        wanted: trials that the study is to have at the end, baselines not counted.
        dashboard: address of the Ray dashboard, or "".
    """

    def __init__(self, ledger: Ledger, objectives: Mapping[str, str], wanted: int, dashboard: str) -> None:
        self.ledger, self.objectives, self.wanted, self.dashboard = ledger, objectives, wanted, dashboard
        self.console = Console()
        self.baselines_count = False
        self.started, self.done_before = time.monotonic(), self._done()
        self.front_size = 0
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
        self.started, self.done_before = time.monotonic(), self._done()
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

    def _done(self) -> int:
        return sum(self._count(state) for state in FINAL_STATES)

    def _count(self, state: str) -> int:
        both = len(self.ledger.of_state(state, baseline=True)) if self.baselines_count else 0
        return self.ledger.count(state) + both

    def _best(self) -> str:
        rows = [r for r in self.ledger.of_state("complete") if all(m in r for m in self.objectives)]
        if not rows:
            return "none yet"
        first, direction = next(iter(self.objectives.items()))
        best = (max if direction == "max" else min)(rows, key=lambda r: r[first])
        return f"{best['trial_id']}: {self._values(best)}"

    def _render(self) -> Group:
        count = {s: self._count(s) for s in ("running", "pruned", "failed")}
        done, new = self._done(), self._done() - self.done_before
        remaining = (time.monotonic() - self.started) / new * (self.wanted - done) if new else None
        table = Table.grid(padding=(0, 2))
        table.add_row("trials", f"{done} of {self.wanted} done, " + ", ".join(f"{n} {s}" for s, n in count.items()))
        running = [r["trial_id"] for r in self.ledger.trials.values() if r["state"] == "running"]
        for trial_id in running[:4]:
            rows = self.ledger.history.get(trial_id, [])
            table.add_row(trial_id, f"epoch {rows[-1]['epoch']}, {self._values(rows[-1])}" if rows else "starting")
        table.add_row("best", self._best())
        table.add_row("front", f"{self.front_size} trials")
        table.add_row("time left", "unknown yet" if remaining is None else f"about {remaining / 60:.0f} min")
        if self.dashboard:
            table.add_row("dashboard", self.dashboard)
        return Group(ProgressBar(total=max(1, self.wanted), completed=done, width=60), table, Text())

    def summary(self, best: list[str], confirmed: Mapping[str, Row], hyperparameters: Iterable[str]) -> None:
        """The baselines and the best trials, as a table; `best` are trial ids, in the order to show.

        Of the metrics, what was searched for and what a file of it would be: the report has them all.
        """
        rows = [r for r in self.ledger.trials.values() if r["baseline"]]
        rows += [self.ledger.trials[i] for i in best]
        wanted = dict.fromkeys(["trial_id", *hyperparameters, *self.objectives, *SIZES])
        shown = [c for c in wanted if any(c in row for row in rows)]
        table = Table(title="Baselines, and the best trials (selected on validation)", title_justify="left")
        for name in shown:
            table.add_column(label(name), justify="left" if name == "trial_id" else "right", overflow="fold")
        if confirmed:
            table.add_column(label("test_accuracy"), justify="right")
        for row in rows:
            cells = [_cell(c, row.get(c)) for c in shown]
            cells[0] = row["baseline"] or row["trial_id"]
            if confirmed:
                cells.append(_cell("test_accuracy", confirmed.get(row["trial_id"], {}).get("test_accuracy")))
            table.add_row(*[Text(c) for c in cells])
        wide = Console(width=160) if not self.console.is_terminal else self.console
        wide.print(table)


def _cell(name: str, value: object) -> str:
    """A value with the digits of its column; one too small for them gets three significant figures."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    digits = column(name).digits
    return f"{value:.3g}" if 0 < abs(value) < 10.0**-digits else f"{value:.{digits}f}"

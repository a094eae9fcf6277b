"""When a trial started and ended, as tables have it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from study.errors import UserError
from study.records import paths, timestamps
from study.records.columns import TRIAL_COLUMNS
from study.records.ledger import Ledger
from study.records.tables import read_frame


def test_an_instant_is_the_same_after_a_table() -> None:
    """In UTC, to the millisecond, whatever its time zone; an empty cell is none."""
    instant = datetime(2026, 3, 1, 10, 30, 0, 125_999, tzinfo=timezone(timedelta(hours=1)))
    assert timestamps.as_text(instant) == "2026-03-01T09:30:00.125Z"
    assert timestamps.parse("2026-03-01T09:30:00.125Z") == datetime(2026, 3, 1, 9, 30, 0, 125_000, tzinfo=UTC)
    assert timestamps.parse("") is timestamps.parse(None) is timestamps.parse(float("nan")) is None


def test_a_trial_has_its_start_and_its_end(tmp_path: Path) -> None:
    """A row says when its trial started, when it ended, and nothing that a trial reports changes that; a trial that was
    cut off starts again."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"tau": 0.1})
    ledger.finish("t001", "complete", metrics={"val_accuracy": 50.0, "started": "x", "ended": "y"})
    ledger.start("t002", {"tau": 0.1})
    rows = Ledger.open(tmp_path).trials
    start, end = (timestamps.parse(rows["t001"][name]) for name in ("started", "ended"))
    assert start is not None and end is not None and before <= start <= end <= datetime.now(UTC)
    assert rows["t002"]["started"] >= rows["t001"]["ended"] and not rows["t002"].get("ended")
    rows["t002"]["started"] = "2020-01-01T00:00:00.000Z"
    again = Ledger(tmp_path, rows)
    again.start("t002", {"tau": 0.1})
    assert again.trials["t002"]["started"] > "2026"


@pytest.mark.parametrize("cell", ["yesterday", "2026-03-01T09:30:00", "12.5"])
def test_a_cell_that_is_no_time_is_refused(cell: str, tmp_path: Path) -> None:
    """With its column; one without a time zone could mean any hour."""
    head = "trial_id,state,reason,baseline,seconds,epochs,started"
    (tmp_path / paths.TRIALS).write_text(f"{head}\nt001,complete,,,1.0,2,{cell}\n")
    with pytest.raises(UserError, match=f"started '{cell}' is no time such as"):
        read_frame(tmp_path / paths.TRIALS, TRIAL_COLUMNS)

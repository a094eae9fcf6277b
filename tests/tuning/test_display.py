"""What a study prints at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces import sws
from study.records.ledger import Ledger
from study.tuning.display import Display


def test_the_table_at_the_end_is_of_what_was_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each baseline and each of the best: hyperparameters, objectives, size of the file, test accuracy, and
    no other metric, so that it fits."""
    ledger = Ledger.open(tmp_path)
    metrics = {"val_accuracy": 96.4, "sparsity": 97.2, "entropy_ratio": 120.0, "compression_ratio": 145.3}
    ledger.start("t001", {"tau": 0.01, "components": 17, "one_minus_pi_zero": 0.01}, "")
    ledger.finish("t001", "complete", "", metrics, 1.0)
    ledger.start("uncompressed", {}, "uncompressed")
    ledger.finish("uncompressed", "complete", "", {**metrics, "sparsity": 0.0}, 1.0)
    display = Display(ledger, sws.OBJECTIVES, 1, "")
    display.summary(["t001"], {"t001": {"test_accuracy": 95.25}}, sws.SPACE)
    table = capsys.readouterr().out
    lines = {line.split()[1]: line for line in table.splitlines() if "│" in line}
    assert all(value in lines["t001"] for value in ("0.0100", "17", "96.40", "97.20", "145.3", "95.25"))
    assert "120.0" not in table and "0.00" in lines["uncompressed"]
    assert max(map(len, table.splitlines())) <= 160

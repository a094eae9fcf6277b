"""Every column of the tables, declared once: its label, unit and digits."""

from __future__ import annotations

from dataclasses import dataclass

FINAL_STATES = ("complete", "pruned", "failed")
"""A trial in one of these is done and is never run again; `running` is the fourth state, of a trial not yet done."""

TRIAL_COLUMNS = ("trial_id", "state", "reason", "baseline", "seconds", "epochs")
COST_COLUMNS = ("seconds", "epochs", "threads")
"""Columns of what a trial took, rather than what it is or what came of it."""
HISTORY_COLUMNS = ("trial_id", "epoch", "phase")
EPOCH_ONLY = ("epoch", "phase", "entropy_bytes")
"""Columns that say something of an epoch, and nothing more of a whole trial: `trials.csv` has none of them."""
CONFIRMED_COLUMNS = ("trial_id", "baseline", "seed")


@dataclass(frozen=True)
class Column:
    """How a column is named and printed for people."""

    label: str
    unit: str = ""
    digits: int = 2


COLUMNS: dict[str, Column] = {
    "trial_id": Column("trial"),
    "state": Column("state"),
    "reason": Column("reason"),
    "baseline": Column("baseline"),
    "seconds": Column("time", "s", 1),
    "epochs": Column("epochs", "", 0),
    "threads": Column("CPU threads", "", 0),
    "epoch": Column("epoch", "", 0),
    "phase": Column("phase"),
    "seed": Column("seed", "", 0),
    # KD
    "temperature": Column("temperature T", "", 2),
    "alpha": Column("soft-target weight α", "", 3),
    "label_smoothing": Column("label smoothing", "", 2),
    "student_width": Column("student width", "", 3),
    # SWS
    "tau": Column("prior weight τ", "", 4),
    "components": Column("components", "", 0),
    "one_minus_pi_zero": Column("1 − zero proportion π₀", "", 4),
    # magnitude pruning
    "kept": Column("share of weights kept", "", 4),
    "codebook": Column("codebook size", "", 0),
    "bits": Column("bits", "", 0),
    "components_used": Column("codebook values in use", "", 0),
    # metrics
    "train_loss": Column("training loss", "nats", 4),
    "val_loss": Column("validation loss", "nats", 4),
    "val_accuracy": Column("validation accuracy", "%", 2),
    "unquantised_val_accuracy": Column("validation accuracy before quantising", "%", 2),
    "teacher_val_accuracy": Column("validation accuracy of the teacher", "%", 2),
    "accuracy_drop": Column("accuracy lost to compression", "points", 2),
    "test_loss": Column("test loss", "nats", 4),
    "test_accuracy": Column("test accuracy", "%", 2),
    "sparsity": Column("sparsity", "%", 2),
    "nonzero_ratio": Column("1 / nonzero share", "×", 1),
    "entropy_ratio": Column("ratio by the entropy of the symbols", "×", 1),
    "entropy_bytes": Column("size by the entropy of the symbols", "bytes", 0),
    "compression_ratio": Column("compression ratio (file bytes)", "×", 1),
    "file_bytes": Column("compressed file", "bytes", 0),
    "parameters": Column("parameters", "", 0),
}


def label(column: str) -> str:
    """Label with its unit, as an axis or a table heading shows it; an unknown column is its own label."""
    info = COLUMNS.get(column, Column(column.replace("_", " ")))
    return f"{info.label} ({info.unit})" if info.unit else info.label

"""Every column of the tables, declared once: its label, unit and digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]
"""One row of a table, or what an epoch reports: column → number, text or truth."""

ACCURACY = "val_accuracy"
"""What every trial has, and every study looks at."""

SPREAD = "val_accuracy_sd"
"""Standard deviation of the validation accuracy over the seeds of one trial, see `--seeds-per-trial`."""

FIRST_ACCURACY = "first_val_accuracy"
"""Validation accuracy of the first of the seeds of one trial, whose network is tested; see `--seeds-per-trial`."""

FINAL_STATES = ("complete", "pruned", "failed")
"""A trial in one of these is done and is never run again; `running` is the fourth state, of a trial not yet done."""

TRIAL_COLUMNS = ("trial_id", "state", "reason", "baseline", "seconds", "epochs")
EPOCHS_REPORTED = "epochs_reported"
"""In place of `epochs`, the epochs that a trial reported, where `epochs` is a hyperparameter that is searched."""
TIME_COLUMNS = ("started", "ended")
"""When a trial last started, and when it ended; see `study.records.timestamps`. Older tables lack them, and so does a
network that came from the cache."""
COST_COLUMNS = ("seconds", "epochs", EPOCHS_REPORTED, "threads", *TIME_COLUMNS)
"""Columns of what a trial took, rather than what it is or what came of it."""
HISTORY_COLUMNS = ("trial_id", "epoch", "phase")
EPOCH_ONLY = ("epoch", "phase", "entropy_bytes")
"""Columns that say something of an epoch, and nothing of a trial as a whole: `trials.csv` has none of them."""
CONFIRMED_COLUMNS = ("trial_id", "baseline", "seed")
CONFIGURATION = "configuration"
"""Of `confirmed.csv`: which configuration was tested, see `study.records.identity`. Older tables lack it."""
LAYER_COLUMNS = (
    "tensor", "tensor_shape", "weights", "compressed", "nonzero", "values", "coded_bytes", "units", "units_left",
)  # fmt: skip
"""Of `models/ID.layers.csv`: one row for each parameter of a compressed network. `compressed` is 1 or 0; what took no
part has no more than its weights. `units` are a layer's outputs, before and after exact shrinking."""
SENSITIVITY_COLUMNS = ("tensor", "remaining", "val_accuracy")
"""Of `models/sensitivity.csv`: a layer, what percentage of its weights was left, and the accuracy with all other layers
as they were; tensor is "" in the row of the network itself."""
TEXT_COLUMNS = (
    "trial_id", "state", "reason", "baseline", "phase", "tensor", "tensor_shape", CONFIGURATION, *TIME_COLUMNS,
)  # fmt: skip
"""Columns that hold no numbers; an empty cell is ""."""
MEASURED = (
    "latency_ms",
    "latency_p95_ms",
    "latency_ratio",
    "batch_latency_ms",
    "batch_latency_ratio",
    "multiply_adds",
    "peak_memory_mb",
)
"""Columns that `--measure latency` adds; see `study.compression.measured_cost`."""


Scale = Literal["linear", "log", "complement"]
"""`complement` is for percentages that crowd against 100, such as sparsity: what is left of 100 is logarithmic."""


@dataclass(frozen=True)
class Column:
    """What a column is called, and how people see it: everything that an axis, a sentence or a rule asks of a metric.

    Attributes:
        scale: of an axis, and of anything that is compared by its order of magnitude.
        direction: "max" or "min", what is better; "" where neither is.
        stands_in: the metric that every epoch reports in its place, where only a finished trial has it.
        phrase: a value at the end of a sentence, with {} for the number; "" for "with a LABEL of {} UNIT".
        tile: what a large number alone is, in a few words; "" for the label.
        words: whether it may hold words, as the choice of a hyperparameter does.
    """

    label: str
    unit: str = ""
    digits: int = 2
    scale: Scale = "linear"
    direction: str = ""
    stands_in: str = ""
    phrase: str = ""
    tile: str = ""
    words: bool = False

    @property
    def heading(self) -> str:
        """Label with its unit, as an axis or a table shows it."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


COLUMNS: dict[str, Column] = {
    "trial_id": Column("trial"),
    "state": Column("state"),
    "reason": Column("reason"),
    "baseline": Column("baseline"),
    "seconds": Column("time", "s", 1),
    "epochs": Column("epochs", "", 0),
    EPOCHS_REPORTED: Column("epochs reported", "", 0),
    "threads": Column("CPU threads", "", 0),
    "started": Column("started"),
    "ended": Column("ended"),
    "epoch": Column("epoch", "", 0),
    "phase": Column("phase"),
    "seed": Column("seed", "", 0),
    # KD
    "temperature": Column("temperature T", "", 2),
    "alpha": Column("soft-target weight α", "", 3),
    "loss": Column("distillation loss", words=True),
    "dkd_beta": Column("DKD weight β", "", 2),
    "dist_gamma": Column("DIST weight γ", "", 2),
    "label_smoothing": Column("label smoothing", "", 2),
    "student_width": Column("student width", "", 3),
    # ordinary training
    "optimizer": Column("optimiser"),
    "momentum": Column("momentum", "", 3),
    "schedule": Column("learning-rate schedule"),
    "milestones": Column("milestones"),
    "warmup_epochs": Column("warm-up epochs", "", 0),
    "clip_norm": Column("largest norm of the gradients", "", 3),
    "ema": Column("decay of the weights' average", "", 4),
    "mixup": Column("mixup", "", 3),
    # SWS
    "tau": Column("prior weight τ", "", 4),
    "components": Column("components", "", 0),
    "one_minus_pi_zero": Column("1 − zero proportion π₀", "", 4),
    # magnitude pruning
    "density": Column("share of weights kept", "", 4),
    "codebook_size": Column("codebook size", "", 0),
    "bits": Column("bits", "", 0),
    # post-training quantisation
    "bits_per_weight": Column("bits per weight", "", 2, "log"),
    "sensitivity_power": Column("power of the sensitivity", "", 3),
    "rate_weight": Column("weight of the rate", "", 4),
    "calibration_examples": Column("calibration examples", "", 0),
    "codebook_values_used": Column("codebook values in use", "", 0),
    # metrics
    "train_loss": Column("training loss", "nats", 4, direction="min"),
    "val_loss": Column("validation loss", "nats", 4, direction="min"),
    "val_accuracy": Column("validation accuracy", "%", 2, direction="max"),
    SPREAD: Column("spread of the validation accuracy over a trial's seeds", "points", 2, direction="min"),
    FIRST_ACCURACY: Column("validation accuracy of the first seed", "%", 2, direction="max"),
    "unquantised_val_accuracy": Column("validation accuracy before quantising", "%", 2, direction="max"),
    "teacher_val_accuracy": Column("validation accuracy of the teacher", "%", 2, direction="max"),
    "accuracy_drop": Column("accuracy lost to compression", "points", 2, direction="min"),
    "test_loss": Column("test loss", "nats", 4, direction="min"),
    "test_accuracy": Column("test accuracy", "%", 2, direction="max"),
    "sparsity": Column("sparsity", "%", 2, "complement", "max", phrase="with {} % of the weights at zero"),
    "nonzero_ratio": Column("1 / nonzero share", "×", 1, "log", "max"),
    "entropy_ratio": Column("ratio by the entropy of the symbols", "×", 1, "log", "max"),
    "entropy_bytes": Column("size by the entropy of the symbols", "bytes", 0, "log", "min"),
    "compression_ratio": Column("compression ratio (file bytes)", "×", 1, "log", "max", tile="smaller on disk"),
    "file_bytes": Column(
        "compressed file", "bytes", 0, "log", "min", stands_in="entropy_bytes", phrase="in a file of {} bytes"
    ),
    "weight_bytes": Column("weights as float32", "bytes", 0, "log", "min", phrase="in {} bytes of float32 weights"),
    "latency_ms": Column("latency", "ms", 3, "log", "min"),
    "latency_p95_ms": Column("latency, 95th percentile", "ms", 3, "log", "min"),
    "latency_ratio": Column(
        "latency ÷ that of the first network", "×", 2, "log", "min", phrase="at {} of the first network's latency"
    ),
    "batch_latency_ms": Column("latency of a batch", "ms", 3, "log", "min"),
    "batch_latency_ratio": Column("latency of a batch ÷ that of the first network", "×", 2, "log", "min"),
    "multiply_adds": Column("multiply-adds of one image", "", 0, "log", "min"),
    "peak_memory_mb": Column("memory while it runs", "MB", 1, "log", "min"),
    "parameters": Column("parameters", "", 0, "log", "min"),
}


def column(name: str) -> Column:
    """What is declared of a column; one that nobody declared is called by its own name, without underscores."""
    return COLUMNS.get(name) or Column(name.replace("_", " "))


def label(name: str) -> str:
    """Label with its unit, as an axis or a table heading shows it."""
    return column(name).heading


_HEADS = {
    "temperature": "T",
    "alpha": "α",
    "tau": "τ",
    "one_minus_pi_zero": "1−π₀",
    "student_width": "width",
    "density": "density",
    "codebook_size": "codebook",
    "bits_per_weight": "bits/weight",
    "sensitivity_power": "power",
    "rate_weight": "rate",
    ACCURACY: "acc %",
    "test_accuracy": "test %",
    "sparsity": "zeros %",
    "compression_ratio": "×",
    "file_bytes": "bytes",
    "weight_bytes": "float32 bytes",
    "latency_ms": "ms",
    "latency_ratio": "latency ×",
}


def head(name: str) -> str:
    """The shortest name of a column, for a terminal; its label where it has none."""
    return _HEADS.get(name) or label(name)

"""The few columns that analysis knows by name, whatever the kind of study: all others it takes from the study."""

from __future__ import annotations

ACCURACY = "val_accuracy"
"""Accuracy on the validation part, in percent, which the search sees. Every study measures it."""

TEST_ACCURACY = "test_accuracy"
"""Accuracy on the test part, in percent, measured once for each confirmed configuration and seed."""

ACCURACY_DROP = "accuracy_drop"
"""Validation accuracy below that of the network a trial started from, in points. A study may write it; otherwise
analysis works it out."""

FILE_SIZE = "file_bytes"
"""Bytes of a network's file: the one size that networks of any two studies have, since dense ones have it as well."""

LATENCY_RATIO = "latency_ratio"
"""Measured latency ÷ that of the network that a study starts from, of a study with --measure latency."""

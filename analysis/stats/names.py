"""Names of the columns that every study has, whatever its kind: accuracy is what all of them measure."""

from __future__ import annotations

ACCURACY = "val_accuracy"
"""Accuracy on the validation part, in percent, which the search sees."""

TEST_ACCURACY = "test_accuracy"
"""Accuracy on the test part, in percent, which is measured once for each confirmed configuration and seed."""

"""Rounding: what is searched. One objective is a metric that no column declares."""

from ray import tune

SPACE = {"bits": tune.choice([2, 4, 8])}

OBJECTIVES = {"val_accuracy": "max", "rounding_error": "min"}

BASELINES = {"16 bits": {"bits": 16}}

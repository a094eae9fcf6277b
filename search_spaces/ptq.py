"""Post-training quantisation: what is searched. `study.methods.ptq.quantise.Hparams` states the conventions."""

from ray import tune

SPACE = {
    # From where accuracy breaks down to where little is lost.
    "bits_per_weight": tune.loguniform(1.0, 6.0),
    "sensitivity_power": tune.uniform(0.0, 1.0),
    "rate_weight": tune.uniform(0.0, 0.05),
}

OBJECTIVES = {"val_accuracy": "max", "file_bytes": "min"}

# Each weight to the nearest multiple of its tensor's step, whatever the weight is worth.
BASELINES = {"8-bit rounding": {"bits": 8}, "4-bit rounding": {"bits": 4}}

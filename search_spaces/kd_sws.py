"""Distillation, then soft weight-sharing: what is searched. Conventions of the values are stated at
`study.training.distillation.distillation_loss` and `study.methods.sws.weight_sharing.Hparams`."""

from ray import tune

SPACE = {
    # Multiplies the student's channels: a smaller network, or a sparser one?
    "student_width": tune.loguniform(0.125, 1.0),
    "temperature": tune.loguniform(1.0, 20.0),
    "alpha": tune.uniform(0.0, 1.0),
    # Wider than without a teacher, whose soft targets have gradients several times as large.
    "tau": tune.loguniform(3e-3, 1.0),
    "components": tune.randint(4, 33),
    "one_minus_pi_zero": tune.loguniform(1e-4, 0.2),
}

# Sparsity does not compare students of different width; the file does.
OBJECTIVES = {"val_accuracy": "max", "file_bytes": "min"}

BASELINES = {"without the teacher": {"alpha": 0.0, "tau": 0.03, "components": 17, "one_minus_pi_zero": 1e-3}}

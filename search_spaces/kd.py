"""Knowledge distillation: what is searched. `study.training.distillation` states the convention of both values."""

from ray import tune

SPACE = {"temperature": tune.loguniform(1.0, 20.0), "alpha": tune.uniform(0.0, 1.0)}

OBJECTIVES = {"val_accuracy": "max"}

BASELINES = {"student alone": {"alpha": 0.0}, "label smoothing": {"alpha": 0.0, "label_smoothing": 0.1}}

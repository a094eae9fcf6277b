"""The soft variant of soft weight-sharing: what is searched.

`study.methods.sws.weight_sharing.Hparams` states the conventions.
"""

from ray import tune

SPACE = {
    "tau": tune.loguniform(3e-3, 0.3),
    "components": tune.randint(4, 65),
    # π₀ itself lies so close to 1 that only its distance from 1 has a scale.
    "one_minus_pi_zero": tune.loguniform(1e-4, 0.2),
}

OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}

BASELINES = {
    # Ullrich et al. (2017), sec. 6: 17 components, π₀ = 0.999. The paper's tutorial has τ = 0.003 for 100 epochs of
    # smaller rates; this is one that prunes as much in the epochs that a trial has here.
    "paper mixture": {"tau": 0.08, "components": 17, "one_minus_pi_zero": 1e-3}
}

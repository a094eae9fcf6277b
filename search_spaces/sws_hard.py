"""The hard variant of soft weight-sharing, the default of `sws`: what is searched.

`study.methods.sws.hard.Hparams` states the conventions.
"""

from ray import tune

SPACE = {
    # From where accuracy breaks down to where nothing is lost.
    "density": tune.loguniform(3e-3, 0.2),
    "components": tune.randint(4, 17),
}

# A codebook costs bytes, and so do the places of the survivors; the file counts all of it.
OBJECTIVES = {"val_accuracy": "max", "file_bytes": "min"}

BASELINES = {
    # The same steps with the smallest weights pruned, not those that the loss misses least.
    "magnitude's score": {"density": 0.01, "components": 8, "score_power": 0.0}
}

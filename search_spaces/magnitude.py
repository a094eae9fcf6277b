"""Magnitude pruning with a k-means codebook: what is searched. Conventions of the values are stated at
`study.methods.magnitude.pruning.Hparams`."""

from ray import tune

SPACE = {
    # From where little is lost to where accuracy breaks down.
    "density": tune.loguniform(5e-3, 0.2),
    "codebook_size": tune.randint(4, 65),
}

# Sparsity alone would not charge for a larger codebook; the file does.
OBJECTIVES = {"val_accuracy": "max", "file_bytes": "min"}

BASELINES = {
    # Han et al. (2015) keep 8 % of LeNet-300-100, with 6 bits an index.
    "paper settings": {"density": 0.08, "codebook_size": 64},
    # What one gets without training.
    "8-bit quantisation": {"bits": 8},
    "4-bit quantisation": {"bits": 4},
}

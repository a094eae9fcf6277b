"""Hyperparameter studies of neural-network compression. See README.md for what lives in which file."""

import os

# OpenMP reads it when torch is imported. By default a thread that waits for another one spins; where the machine does
# something else beside, as it often does, two threads then take many times as long as one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

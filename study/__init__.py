"""Hyperparameter studies of neural-network compression. See README.md for what lives in which file."""

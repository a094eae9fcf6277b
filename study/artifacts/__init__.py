"""Tensors on disk: the cache of shared work, checkpoints, traces of weights."""

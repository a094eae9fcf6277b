"""Entropy-constrained post-training quantisation."""

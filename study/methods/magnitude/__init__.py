"""Magnitude pruning with a k-means codebook."""

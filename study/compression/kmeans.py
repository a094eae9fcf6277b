"""One-dimensional k-means, exact up to its starts: the first codebook of pruned networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kmeans(values: Tensor, clusters: int, iterations: int = 1000) -> Tensor:
    """Lloyd's algorithm on a line, from centroids evenly over the values' range (Han et al. 2015, sec. 3.2).

    A cluster is a run of the sorted values, so an iteration needs its ends and a difference of cumulative sums only.
    A centroid that no value belongs to moves to the value farthest from its own; this cannot raise the objective.

    Args:
        values: (n,); with fewer distinct ones than `clusters`, there are only so many centroids.
        iterations: at most; fewer when nothing moves any more.
    Returns: rising, (clusters,), float64, on the values' device.
    """
    x = values.sort().values.double().cpu()  # on the host, where a cumulative sum is the same every time
    clusters = min(clusters, len(x.unique_consecutive()))
    sums = F.pad(x.cumsum(0), (1, 0))
    centroids = torch.linspace(float(x[0]), float(x[-1]), clusters, dtype=x.dtype)
    for _ in range(iterations):
        ends = F.pad(torch.searchsorted(x, _between(centroids)), (1, 1))
        ends[-1] = len(x)
        counts = ends.diff()
        empty = counts == 0
        means = torch.where(empty, centroids, sums[ends].diff() / counts)
        if bool(empty.any()):
            first, last = x[ends[:-1].clamp(max=len(x) - 1)], x[(ends[1:] - 1).clamp(min=0)]
            below, above = means - first, last - means
            # Clusters of one distinct value have nothing to give.
            distance = torch.where(first < last, torch.maximum(below, above), -1.0)
            giving = distance.topk(min(int(empty.sum()), int((distance > 0).sum()))).indices
            taking = empty.nonzero().flatten()[: len(giving)]
            means[taking] = torch.where(below > above, first, last)[giving]
            means = means.sort().values
        elif torch.equal(means, centroids):
            break
        centroids = means
    return centroids.to(values.device)


def nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """Index of each value's nearest centroid, (n,), int64. Centroids are rising."""
    return torch.searchsorted(_between(centroids), values.to(centroids.dtype), right=True)


def _between(centroids: Tensor) -> Tensor:
    return (centroids[1:] + centroids[:-1]) / 2

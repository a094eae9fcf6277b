"""Functional ANOVA of a smooth response: how much of its variance comes from which input, alone and together.

The response is a Gaussian process through the trials. Its kernel is a product over the inputs, so every average over
inputs is a sum over trials in closed form. Optuna's fANOVA decomposes a random forest in the same way; from 64 trials
its steps give the largest input too much and the others too little, and one pass takes as long as all of a bootstrap
here. scikit-learn's Gaussian process is ten times slower on so few trials, which the bootstrap would pay for too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from analysis.stats.search_space import Array, levels

HALVES = 40
GRID: Array = levels({"low": 0.0, "high": 1.0})
QUANTILE = 1.96
"""Half-widths of intervals in standard deviations: 95 % of a normal distribution."""

VARIANCE, LENGTH, NOISE = (1e-2, 1e3), (0.05, 20.0), (1e-4, 2.0)
"""Bounds of the kernel, for a response of unit variance on the unit cube. A length of 20 is no effect; below 0.05 the
trials of a study lie too far apart to tell."""


@dataclass(frozen=True)
class Response:
    """A response over the unit cube: mean + Σ over trials of coefficient × kernel.

    Attributes:
        x: trials, (trials, inputs).
        scales: the kernel's length for each input, (inputs,).
        coefficients: (trials,), in the response's unit.
        mean: in the response's unit.
        nodes: for each input the values that averages are taken over, with equal weight.
        explained: share of the variance that leave-one-out predictions explain; at most 1, below 0 worse than the mean.
        kernel: variance, lengths and noise as they were chosen, on a log scale.
    """

    x: Array
    scales: Array
    coefficients: Array
    mean: float
    nodes: list[Array]
    explained: float
    kernel: Array

    def shares(self, groups: Sequence[tuple[int, ...]]) -> Array:
        """Var(E[response | group]) / Var(response) for each group of inputs, (groups,), in [0, 1]."""
        means = [self._kernel(j, self.nodes[j]).mean(axis=0) for j in range(len(self.scales))]
        products = [k.T @ k / len(k) for k in (self._kernel(j, self.nodes[j]) for j in range(len(self.scales)))]

        def second_moment(group: Sequence[int]) -> float:
            matrices = [products[j] if j in group else np.outer(means[j], means[j]) for j in range(len(means))]
            return float(self.coefficients @ np.prod(matrices, axis=0) @ self.coefficients)

        constant = second_moment(())
        total = second_moment(range(len(means))) - constant
        if total <= 1e-9 * constant or total <= 0:  # a flat response: nothing has a share of it
            return np.zeros(len(groups))
        return np.clip([(second_moment(group) - constant) / total for group in groups], 0.0, 1.0)

    def marginal(self, which: Sequence[int], at: Sequence[Array]) -> Array:
        """Mean of the response over all inputs but the one or two of `which`, on the grid that `at` spans."""
        weights = self.coefficients.copy()
        for j in range(len(self.scales)):
            if j not in which:
                weights *= self._kernel(j, self.nodes[j]).mean(axis=0)
        first, *others = [self._kernel(j, points) for j, points in zip(which, at, strict=True)]
        weighted = first * weights
        return self.mean + (weighted @ others[0].T if others else weighted.sum(axis=1))

    def _kernel(self, j: int, points: Array) -> Array:
        return np.asarray(np.exp(-0.5 * ((points[:, None] - self.x[:, j]) / self.scales[j]) ** 2))


def fit(x: Array, y: Array, nodes: list[Array] | None = None, start: Array | None = None) -> Response:
    """A Gaussian process with a squared-exponential kernel and noise, its lengths chosen by maximum likelihood.

    Args:
        x: (trials, inputs), in [0, 1]; y: (trials,), any unit.
        nodes: see `Response`; without it averages are over the complete cube, uniformly.
        start: where the search for the kernel starts, see `Response.kernel`.
    References: Hutter et al. 2014 (fANOVA), ICML, https://proceedings.mlr.press/v32/hutter14.html; its closed form for
        Gaussian processes: Oakley & O'Hagan 2004, J. R. Stat. Soc. B 66(3), 751–769, sec. 3.
    """
    inputs = x.shape[1]
    centre, spread = float(y.mean()), float(y.std()) or 1.0
    z, squares = (y - centre) / spread, np.stack([(x[:, j, None] - x[:, j]) ** 2 for j in range(inputs)])
    first = np.log([1.0, *[0.5] * inputs, 0.1]) if start is None else start
    bounds = np.log([VARIANCE, *[LENGTH] * inputs, NOISE])
    kernel = minimize(_surprise, first, args=(squares, z), jac=True, method="L-BFGS-B", bounds=bounds).x
    covariance, noise = _covariance(kernel, squares), np.exp(kernel[-1])
    inverse = np.linalg.inv(covariance + noise * np.eye(len(z)))
    weights = inverse @ z
    # Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 5.12: the error at a trial left out.
    left_out = weights / np.diag(inverse)
    return Response(
        x=x,
        scales=np.exp(kernel[1:-1]),
        coefficients=spread * np.exp(kernel[0]) * weights,
        mean=centre,
        nodes=nodes or [GRID] * inputs,
        kernel=kernel,
        explained=float(1 - (left_out**2).sum() / max(float((z**2).sum()), 1e-12)),
    )


def resampled(
    x: Array, y: Array, nodes: list[Array] | None = None, halves: int = HALVES, seed: int = 0
) -> list[Response]:
    """The response through all trials, then through so many random halves of them, each with a kernel of its own.

    A statistic of a random half drawn without replacement spreads about as much as that of a bootstrap sample (Efron
    1982, The Jackknife, the Bootstrap and Other Resampling Plans, sec. 8.3), and no trial is in it twice, which a
    Gaussian process would take for the absence of noise.
    """
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):  # for matrices this small, threads wait for each other: six times as long with two
        full = fit(x, y, nodes)
        samples = [rng.permutation(len(y))[: len(y) // 2] for _ in range(halves)]
        return [full, *(fit(x[half], y[half], full.nodes, full.kernel) for half in samples)]


def interval(values: Sequence[Array] | Array) -> tuple[Array, Array, Array]:
    """Estimate and 95 % interval: the first of `values` is the estimate, the spread of the others its error."""
    first, *others = (np.asarray(value) for value in values)
    half = QUANTILE * np.std(others, axis=0, ddof=1)
    return first, first - half, first + half


def _covariance(kernel: Array, squares: Array) -> Array:
    lengths = np.exp(kernel[1:-1])
    return np.asarray(np.exp(kernel[0] - 0.5 * np.tensordot(lengths**-2, squares, axes=1)))


def _surprise(kernel: Array, squares: Array, z: Array) -> tuple[float, Array]:
    """Negative log marginal likelihood, in nats, and its gradient: Rasmussen & Williams 2006, eq. 5.8 and 5.9."""
    covariance, noise, eye = _covariance(kernel, squares), np.exp(kernel[-1]), np.eye(len(z))
    lower = cholesky(covariance + noise * eye, lower=True, check_finite=False)
    inverse = cho_solve((lower, True), eye, check_finite=False)
    weights = inverse @ z
    value = 0.5 * z @ weights + np.log(np.diag(lower)).sum() + 0.5 * len(z) * np.log(2 * np.pi)
    slope = 0.5 * (inverse - np.outer(weights, weights))
    by_lengths = np.exp(-2 * kernel[1:-1]) * np.tensordot(squares, slope * covariance, axes=2)
    return float(value), np.array([(slope * covariance).sum(), *by_lengths, noise * np.trace(slope)])

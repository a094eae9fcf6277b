"""The mixture prior against plain autograd of the same formula: `python tests/benchmarks/mixture_prior.py`.

Value and gradients of 266,610 weights (LeNet-300-100) × 17 components, one thread, best of several runs of each;
beside them `torch.exp` of as many numbers, which no exact method can do without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from study.mixture import negative_log_likelihood

WEIGHTS, COMPONENTS, REPEATS = 266_610, 17, 5


def plain(weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> Tensor:
    """The formula as one writes it down, on a weights × components tensor."""
    peak = log_proportions + 0.5 * (log_precisions - math.log(2 * math.pi))
    return -torch.logsumexp(peak - 0.5 * log_precisions.exp() * (weights[:, None] - means) ** 2, dim=1).sum()


def milliseconds(run: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 1000 * best


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    weights = 0.05 * torch.randn(WEIGHTS, generator=generator)
    weights[::50] *= 5
    means = torch.cat([torch.zeros(1), torch.linspace(-0.6, 0.6, COMPONENTS - 1)])
    proportions = torch.log_softmax(torch.cat([torch.tensor([6.0]), torch.zeros(COMPONENTS - 1)]), dim=0)
    exponents = -10 * torch.rand(WEIGHTS, COMPONENTS, generator=generator)
    out = torch.empty_like(exponents)
    exp = milliseconds(lambda: torch.exp(exponents, out=out))
    print("log-precision  ours (ms)  plain autograd (ms)  plain / ours  ours / exp")
    for log_precision in (2, 4, 6, 8, 10, 12):
        inputs = [weights, means, torch.full((COMPONENTS,), float(log_precision)), proportions]

        def timed(nll: Callable[..., Tensor], inputs: list[Tensor] = inputs) -> float:
            leaves = [t.clone().requires_grad_() for t in inputs]
            return milliseconds(lambda: torch.autograd.grad(nll(*leaves), leaves))

        ours, autograd = timed(negative_log_likelihood), timed(plain)
        print(f"{log_precision:13d}  {ours:9.1f}  {autograd:19.1f}  {autograd / ours:12.1f}  {ours / exp:10.1f}")


if __name__ == "__main__":
    main()

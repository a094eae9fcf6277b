"""The mixture's kernel against torch.distributions and float64 autograd: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

pytest.importorskip("triton")

Moments = Callable[..., list[Tensor]]
CUDA = torch.cuda.is_available()


def interpreted(*inputs: np.ndarray) -> list[np.ndarray]:
    from study.methods.sws import mixture_kernel

    return [t.numpy() for t in mixture_kernel.moments(*map(torch.from_numpy, inputs))]


@pytest.fixture(scope="module", params=["interpreter", "cuda"] if CUDA else ["interpreter"])
def moments(request: Any) -> Iterator[Moments]:
    """`study.methods.sws.mixture_kernel.moments` from and to CPU tensors.

    Triton reads TRITON_INTERPRET as it is imported, and the other tests of this process may need it without: the
    interpreter has a process of its own.
    """
    if request.param == "cuda":
        from study.methods.sws import mixture_kernel

        yield lambda *inputs: [t.cpu() for t in mixture_kernel.moments(*(t.cuda() for t in inputs))]
        return
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(torch.set_num_threads, 1).result()  # starts the process, which keeps the environment
        yield lambda *inputs: [
            torch.from_numpy(a) for a in pool.submit(interpreted, *(t.numpy() for t in inputs)).result()
        ]


def arguments(members: int, weights: int, components: int, log_precision: float, distance: float = 1.5) -> list[Tensor]:
    """Float32 mixtures over [−1, 1], and weights `distance` standard deviations, more or less, from their means."""
    generator = torch.Generator().manual_seed(components)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = 2 * torch.rand(members, components, generator=generator) - 1
    log_precisions = log_precision + 0.3 * normal(members, components)
    chosen = torch.randint(components, (members, weights), generator=generator)
    noise = distance * math.exp(-0.5 * log_precision) * normal(members, weights)
    return [means.gather(1, chosen) + noise, means, log_precisions, torch.log_softmax(normal(*means.shape), dim=1)]


def expected(inputs: list[Tensor]) -> list[Tensor]:
    """Value and the four gradients by plain autograd, in float64."""
    doubles = [t.double().requires_grad_() for t in inputs]
    weights, means, log_precisions, log_proportions = (t.unsqueeze(1) for t in doubles)
    peak = log_proportions + 0.5 * (log_precisions - math.log(2 * math.pi))
    logits = peak - 0.5 * log_precisions.exp() * (weights.transpose(1, 2) - means) ** 2
    value = -torch.logsumexp(logits, dim=2).sum(dim=1)
    return [value.detach(), *torch.autograd.grad(value.sum(), doubles)]


def combined(inputs: list[Tensor], moments: list[Tensor]) -> list[Tensor]:
    """Value and the four gradients, float64, from what the kernel returns."""
    value, weight_grad, statistics = moments
    r, first, second = statistics.unbind(dim=1)
    precisions = inputs[2].double().exp()
    return [value.double(), weight_grad.double(), -precisions * first, 0.5 * (precisions * second - r), -r]


def assert_right(moments: Moments, inputs: list[Tensor]) -> None:
    """Value to 1e-6, gradients to 3e-5; where terms cancel to 3e-7 nats per weight, to 3e-6 of a member's largest.

    A weight 10 standard deviations off both of two components is divided between them by the difference of two logits
    of 70 bits: that is what float32 has.
    """
    (value, *gradients), (right_value, *right) = combined(inputs, moments(*inputs)), expected(inputs)
    torch.testing.assert_close(value, right_value, rtol=1e-6, atol=3e-7 * inputs[0].shape[1])
    for got, want in zip(gradients, right, strict=True):
        scale = want.abs().amax(dim=1, keepdim=True)
        torch.testing.assert_close(got / scale, want / scale, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("log_precision", [2.0, 6.0, 12.0])
@pytest.mark.parametrize("components", [2, 17, 64])
def test_value_and_gradients_are_those_of_float64(moments: Moments, components: int, log_precision: float) -> None:
    """Value and the gradients in all four arguments equal those of the formula in float64, over several programs."""
    assert_right(moments, arguments(1, 2500, components, log_precision))


def test_value_is_that_of_torch_distributions(moments: Moments) -> None:
    """The value equals MixtureSameFamily's in float64, to 1e-6."""
    inputs = arguments(1, 1000, 5, 2.0)
    weights, means, log_precisions, log_proportions = (t[0].double() for t in inputs)
    family = MixtureSameFamily(Categorical(logits=log_proportions), Normal(means, torch.exp(-0.5 * log_precisions)))
    right = -float(family.log_prob(weights).sum())
    assert float(moments(*inputs)[0]) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("weights", [1, 255, 257, 2049])
def test_what_is_beyond_the_last_weight_counts_for_nothing(moments: Moments, weights: int) -> None:
    """Right with one weight, and with one less or more than a block of 256 or a program's eight of them."""
    assert_right(moments, arguments(2, weights, 3, 4.0))


def test_no_weight_at_all(moments: Moments) -> None:
    """No weight is worth nothing: value and statistics are zero."""
    value, weight_grad, statistics = moments(*arguments(2, 0, 3, 4.0))
    assert weight_grad.shape == (2, 0)
    assert value.tolist() == [0, 0]
    assert not statistics.any()


@pytest.mark.parametrize("components", [1, 100, 256])
def test_every_number_of_components(moments: Moments, components: int) -> None:
    """One component, and as many as a warp has lanes for."""
    assert_right(moments, arguments(1, 300, components, 6.0))


def test_members_do_not_see_each_other(moments: Moments) -> None:
    """Three members with different mixtures at once give what each gives alone, but for the order of float64 sums."""
    inputs = arguments(3, 1100, 17, 6.0)
    inputs[2] += torch.tensor([[-4.0], [0.0], [6.0]])
    together = moments(*inputs)
    for member in range(3):
        value, weight_grad, statistics = moments(*(t[member : member + 1] for t in inputs))
        assert torch.equal(weight_grad[0], together[1][member])
        torch.testing.assert_close(value[0], together[0][member], rtol=2e-7, atol=0)  # one rounding to float32
        torch.testing.assert_close(statistics[0], together[2][member], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padded", [20, 40])
def test_padded_components_change_nothing(moments: Moments, padded: int) -> None:
    """Components with log π = −inf have no responsibility, whatever their μ and λ; the others keep theirs."""
    inputs = arguments(2, 600, 17, 6.0)
    fill = [None, math.nan, math.inf, -math.inf]
    wider = [
        inputs[0],
        *(torch.nn.functional.pad(t, (0, padded - 17), value=fill[k]) for k, t in enumerate(inputs) if k),
    ]
    value, weight_grad, statistics = moments(*wider)
    assert not statistics[:, :, 17:].any()
    for got, want in zip([value, weight_grad, statistics[:, :, :17]], moments(*inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


def test_a_component_without_proportion_takes_no_part(moments: Moments) -> None:
    """A log π of −inf among the others is the mixture without that component."""
    inputs = arguments(2, 600, 5, 4.0)
    inputs[3][:, 2] = -math.inf
    rest = [inputs[0], *(t[:, [0, 1, 3, 4]].contiguous() for t in inputs[1:])]
    value, weight_grad, statistics = moments(*inputs)
    assert not statistics[:, :, 2].any()
    without = moments(*rest)
    for got, want in zip([value, weight_grad, statistics[:, :, [0, 1, 3, 4]]], without, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


@pytest.mark.parametrize("log_precision", [6.0, 12.0])
def test_far_weights(moments: Moments, log_precision: float) -> None:
    """Weights 10 to 1,000 standard deviations from every component are as right as others: nothing underflows."""
    inputs = arguments(2, 600, 17, log_precision)
    sigma = math.exp(-0.5 * log_precision)
    away = torch.logspace(1, 3, 600).mul(1.5 * sigma) + 1
    inputs[0] = torch.stack([away, -away])
    assert_right(moments, inputs)


def test_far_off_zero_nothing_cancels(moments: Moments) -> None:
    """Σr(w − μ)² keeps its digits where the weights are 1e4 standard deviations from zero: w² is never formed."""
    inputs = arguments(1, 600, 3, 12.0)
    mean = inputs[1][:, :1] * 0 + 25.0
    inputs[0] = mean + math.exp(-6) * torch.randn(1, 600, generator=torch.Generator().manual_seed(0))
    inputs[1] = mean + torch.tensor([[-0.002, 0.0, 0.002]])
    assert_right(moments, inputs)


def test_wrong_arguments_raise() -> None:
    """Another precision, another number of dimensions or members, another length, and strides are refused by name."""
    from study.methods.sws import mixture_kernel

    weights, *mixture = arguments(2, 10, 3, 4.0)
    for wrong in (
        (weights.double(), *mixture),
        (weights[0], *mixture),
        (weights[:1], *mixture),
        (weights, *mixture[:2], mixture[2][:, :2]),
        (weights.T.contiguous().T, *mixture),
    ):
        with pytest.raises(ValueError, match="moments takes|differ in shape"):
            mixture_kernel.moments(*wrong)


@pytest.mark.skipif(not CUDA, reason="a CUDA graph needs a CUDA device")
def test_a_cuda_graph_captures_it() -> None:
    """Replayed from a graph with other weights in the same memory, it gives what a call gives."""
    from study.methods.sws import mixture_kernel

    inputs = [t.cuda() for t in arguments(2, 2500, 17, 6.0)]
    mixture_kernel.moments(*inputs)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = mixture_kernel.moments(*inputs)
    inputs[0].mul_(0.9)
    graph.replay()
    for replayed, called in zip(captured, mixture_kernel.moments(*inputs), strict=True):
        assert torch.equal(replayed, called)

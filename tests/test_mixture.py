"""The mixture prior against torch.distributions, autograd and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Gamma, MixtureSameFamily, Normal

from study import mixture
from study.mixture import Mixture, even_means, negative_log_likelihood


def arguments(weights: int, components: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, generator=generator, dtype=dtype) for n in (weights, components, components, components)]
    drawn[3] = torch.log_softmax(drawn[3], dim=0)
    return [t.requires_grad_() for t in drawn]


def reference(weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> Tensor:
    family = MixtureSameFamily(Categorical(logits=log_proportions), Normal(means, torch.exp(-0.5 * log_precisions)))
    return -family.log_prob(weights).sum()


def written_down(weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> Tensor:
    """The formula through plain autograd. Categorical normalises its logits, so its gradient there is another one."""
    peak = log_proportions + 0.5 * (log_precisions - math.log(2 * math.pi))
    return -torch.logsumexp(peak - 0.5 * log_precisions.exp() * (weights[:, None] - means) ** 2, dim=1).sum()


def test_value_is_that_of_torch_distributions() -> None:
    """In float64 the value equals MixtureSameFamily's to rounding."""
    inputs = arguments(200, 7)
    torch.testing.assert_close(negative_log_likelihood(*inputs), reference(*inputs), rtol=1e-12, atol=0)


@pytest.mark.parametrize("block", [1 << 19, 40])
def test_gradients_pass_gradcheck(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four gradients are right, whether the weights fill one block or many with a remainder."""
    monkeypatch.setattr(mixture, "BLOCK", block)
    assert torch.autograd.gradcheck(negative_log_likelihood, arguments(37, 5))


@pytest.mark.parametrize("spread", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("log_precisions", [(2.0, 2.0), (4.0, 4.0), (6.0, 6.0), (8.0, 8.0), (10.0, 10.0), (12.0, 12.0),
                                            (12.0, 4.0), (4.0, 12.0)])  # fmt: skip
def test_float32_is_near_float64(log_precisions: tuple[float, float], spread: float) -> None:
    """Value within 1e-6 and each gradient within 2e-5 of float64, at every width that clustering reaches, alike or
    mixed (component 0, the others); for weights at the components, in the gaps between them, and far from all."""
    generator = torch.Generator().manual_seed(1)
    weights = spread * torch.randn(20_000, generator=generator, dtype=torch.float64)
    means = torch.cat([torch.zeros(1), torch.linspace(-0.3, 0.3, 16)]).double()
    zero, rest = log_precisions
    precisions = torch.full_like(means, rest).index_fill(0, torch.tensor([0]), zero)
    proportions = torch.log_softmax(torch.tensor([6.0] + 16 * [0.0]).double(), dim=0)
    single = [t.float().requires_grad_() for t in (weights, means, precisions, proportions)]
    exact = [t.detach().double().requires_grad_() for t in single]
    value, expected = negative_log_likelihood(*single), written_down(*exact)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    pairs = zip(torch.autograd.grad(value, single), torch.autograd.grad(expected, exact), strict=True)
    errors = [float((found.double() - wanted).norm() / wanted.norm()) for found, wanted in pairs]
    assert max(errors) < 2e-5, errors


def test_a_weight_far_from_every_component_has_a_finite_pull() -> None:
    """At 1000 standard deviations the value is finite and the gradient is λ (w − μ) of the nearest component."""
    weights = torch.tensor([10.0], requires_grad=True)
    flat = torch.zeros(2)
    value = negative_log_likelihood(weights, torch.tensor([0.0, 1.0]), flat + math.log(1e4), flat - math.log(2))
    (gradient,) = torch.autograd.grad(value, [weights])
    assert bool(value.isfinite())
    assert float(gradient) == pytest.approx(1e4 * 9, rel=1e-4)


def test_far_weights_leave_every_gradient_finite() -> None:
    """In float32, weights up to 1e4 away on either side give finite gradients in all four arguments."""
    weights = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], requires_grad=True)
    inputs = [weights, *(torch.tensor(v, requires_grad=True) for v in ([0.0, 0.1], [12.0, 12.0], [-0.01, -4.6]))]
    value = negative_log_likelihood(*inputs)
    assert bool(value.isfinite())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(value, inputs))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradients of 1,000 weights are the same in one block and in 72 with a remainder."""

    def result() -> list[Tensor]:
        inputs = arguments(1000, 7)
        value = negative_log_likelihood(*inputs)
        return [value.detach(), *torch.autograd.grad(value, inputs)]

    whole = result()
    monkeypatch.setattr(mixture, "BLOCK", 100)
    for in_blocks, at_once in zip(result(), whole, strict=True):
        torch.testing.assert_close(in_blocks, at_once, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wrong", range(4))
def test_wrong_shapes_are_refused(wrong: int) -> None:
    """A matrix in any place, and a mixture whose parts differ in length, raise ValueError."""
    inputs = arguments(5, 3)
    matrix = [t.reshape(-1, 1) if i == wrong else t for i, t in enumerate(inputs)]
    with pytest.raises(ValueError, match="1-D"):
        negative_log_likelihood(*matrix)
    if wrong:
        short = [t[:2] if i == wrong else t for i, t in enumerate(inputs)]
        with pytest.raises(ValueError, match="length"):
            negative_log_likelihood(*short)


def small() -> Mixture:
    return Mixture(torch.tensor([-0.5, 0.2, 0.5]), 0.9, 0.1, (5.0, 2.0), (3.0, 0.5))


def test_the_zero_component_is_fixed() -> None:
    """Component 0 keeps mean zero and proportion pi_zero however the rest moves; proportions sum to one."""
    model = small()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    model.complexity(torch.linspace(-1, 1, 50)).backward()
    optimiser.step()
    means, proportions = model.means.detach(), model.log_proportions.detach().exp()
    assert float(means[0]) == 0
    assert float(proportions[0]) == pytest.approx(0.9)
    assert float(proportions.sum()) == pytest.approx(1)
    assert not torch.equal(model.free_means, small().free_means)


def test_the_zero_component_gets_no_gradient() -> None:
    """Only the other means and proportions are parameters; pi_zero is a buffer, so nothing can move it."""
    model = small()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sizes == {"free_means": 3, "log_precisions": 4, "free_logits": 3}
    (gradient,) = torch.autograd.grad(model.log_proportions[0] + model.means[0], [model.free_logits])
    assert gradient.tolist() == [0, 0, 0] and not model.pi_zero.requires_grad


@pytest.mark.parametrize("pi_zero", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_pi_zero_is_a_proportion(pi_zero: float) -> None:
    """Zero, one, what lies beyond, and NaN raise ValueError."""
    with pytest.raises(ValueError, match="pi_zero"):
        Mixture(torch.zeros(2), pi_zero, 0.1, (5.0, 2.0), (3.0, 0.5))


def test_hyper_prior_is_a_gamma_density() -> None:
    """complexity − prior differs from the summed −log Gamma(precision) by a constant."""
    rates = Gamma(torch.tensor([5.0, 3, 3, 3]), torch.tensor([2.0, 0.5, 0.5, 0.5]))
    gaps = []
    for shift in (0.0, 1.0, -2.0):
        model = small()
        model.log_precisions.data += shift
        weights = torch.linspace(-1, 1, 9)
        prior = negative_log_likelihood(weights, model.means, model.log_precisions, model.log_proportions)
        hyper = model.complexity(weights) - prior
        gaps.append(float((hyper + rates.log_prob(model.log_precisions.exp()).sum()).detach()))
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-4)


def test_assignment_is_the_largest_responsibility(monkeypatch: pytest.MonkeyPatch) -> None:
    """`assign` equals brute force over log π + log N, across blocks."""
    monkeypatch.setattr(mixture, "BLOCK", 40)
    model, weights = small(), torch.linspace(-1, 1, 101)
    scales = torch.exp(-0.5 * model.log_precisions)
    logits = model.log_proportions + Normal(model.means, scales).log_prob(weights[:, None])
    assert torch.equal(model.assign(weights), logits.argmax(dim=1))


def test_means_cover_the_range() -> None:
    """The free means run evenly from the smallest weight to the largest; a single one takes the larger end."""
    weights = torch.tensor([-1.0, 0.3, 3.0])
    assert even_means(weights, 5).tolist() == pytest.approx([-1, 1 / 3, 5 / 3, 3])
    assert even_means(weights, 2).tolist() == [3]
    assert even_means(-weights, 2).tolist() == [-3]

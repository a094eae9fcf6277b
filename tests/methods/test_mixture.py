"""The mixture prior against torch.distributions, autograd and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Categorical, Gamma, MixtureSameFamily, Normal, kl_divergence

from study.methods.sws import mixture_autograd
from study.methods.sws.mixture import Mixture, even_means, negative_log_likelihood, symmetric_kl


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
    monkeypatch.setattr(mixture_autograd, "BLOCK", block)
    monkeypatch.setattr(mixture_autograd, "RUN", 4)
    assert torch.autograd.gradcheck(negative_log_likelihood, arguments(37, 5))


@pytest.mark.parametrize("spread", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("log_precisions", [(2.0, 2.0), (4.0, 4.0), (6.0, 6.0), (8.0, 8.0), (10.0, 10.0), (12.0, 12.0),
                                            (12.0, 4.0), (4.0, 12.0)])  # fmt: skip
def test_float32_is_near_float64(log_precisions: tuple[float, float], spread: float) -> None:
    """Value within 1e-6 and each gradient within 3e-5 of float64, at every width that clustering reaches, alike or
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
    assert max(errors) < 3e-5, errors


@pytest.mark.parametrize("deviations", [8.0, 9.0, 9.4, 9.6, 11.0, 40.0])
def test_one_far_weight_among_many(deviations: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight so many standard deviations from all components, in the second of four blocks, whose logits may need
    the shift and are clamped where they do not: all float32 gradients within 1e-5 of float64, each weight's too."""
    monkeypatch.setattr(mixture_autograd, "BLOCK", 4 * mixture_autograd.RUN)
    weights = 0.02 * torch.randn(
        4 * mixture_autograd.RUN, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    far = mixture_autograd.RUN + 1
    weights[far] = 0.3 + deviations * math.exp(-4)
    rest = (torch.tensor([0.0, -0.3, 0.3]), torch.full((3,), 8.0), torch.tensor([0.6, 0.2, 0.2]).log())
    single = [t.float().requires_grad_() for t in (weights, *rest)]
    exact = [t.detach().double().requires_grad_() for t in single]
    value, expected = negative_log_likelihood(*single), written_down(*exact)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    found, wanted = torch.autograd.grad(value, single), torch.autograd.grad(expected, exact)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    assert float(found[0][far]) == pytest.approx(float(wanted[0][far]), rel=1e-5)


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
    monkeypatch.setattr(mixture_autograd, "BLOCK", 100)
    monkeypatch.setattr(mixture_autograd, "RUN", 7)
    for in_blocks, at_once in zip(result(), whole, strict=True):
        torch.testing.assert_close(in_blocks, at_once, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("components", [1, 4, 17])
def test_statistics_of_many_weights_keep_their_digits(components: int) -> None:
    """Float32 counts of 300,000 weights are right to 1e-6: −∂/∂log π, the sum of responsibilities, does not drift."""
    weights = 0.05 * torch.randn(300_000, generator=torch.Generator().manual_seed(3))
    means = torch.linspace(0, 0.3, components)
    proportions = torch.log_softmax(torch.tensor([6.0] + (components - 1) * [0.0]), dim=0).requires_grad_()
    value = negative_log_likelihood(weights, means, torch.full_like(means, 4.0), proportions)
    (gradient,) = torch.autograd.grad(value, [proportions])
    assert float(-gradient.double().sum()) == pytest.approx(len(weights), rel=1e-6)


def test_nothing_of_weights_times_components_is_kept() -> None:
    """What is saved for the backward pass is one number per weight and a few per component."""
    inputs = arguments(1000, 7)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        negative_log_likelihood(*inputs)
    assert 8 * 1000 <= sum(sizes) <= 8 * (1000 + 10 * 7)


@pytest.mark.parametrize("weights", [0, 1, 2])
@pytest.mark.parametrize("components", [1, 2])
def test_the_smallest_inputs(weights: int, components: int) -> None:
    """No weight at all, one weight, one component: value and gradients are those of plain autograd."""
    inputs = arguments(weights, components)
    value, expected = negative_log_likelihood(*inputs), written_down(*inputs)
    torch.testing.assert_close(value, expected)
    for found, wanted in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_component_of_proportion_zero_is_not_there() -> None:
    """log π = −∞ leaves value and gradients as without the component, whose own gradients are zero."""
    weights, means, log_precisions, log_proportions = (t.detach() for t in arguments(50, 3))
    log_proportions[1] = -math.inf
    whole = [t.requires_grad_() for t in (weights, means, log_precisions, log_proportions)]
    part = [weights, *(t.detach()[[0, 2]].requires_grad_() for t in whole[1:])]
    value, expected = negative_log_likelihood(*whole), negative_log_likelihood(*part)
    torch.testing.assert_close(value, expected)
    found, wanted = torch.autograd.grad(value, whole), torch.autograd.grad(expected, part)
    torch.testing.assert_close(found[0], wanted[0])
    for with_it, without in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(with_it[[0, 2]], without)
        assert float(with_it[1].abs()) < 1e-20


@pytest.mark.parametrize("wrong", range(4))
def test_wrong_shapes_are_refused(wrong: int) -> None:
    """A matrix in one place alone, and a mixture whose parts differ in length, raise ValueError."""
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


def learned(strength: float, pi_zero: float = 0.9) -> Mixture:
    means = torch.tensor([-0.5, 0.2, 0.5], dtype=torch.float64)
    return Mixture(means, pi_zero, 0.1, (5.0, 2.0), (3.0, 0.5), pi_zero_strength=strength)


def test_pi_zero_is_learned_only_if_asked() -> None:
    """At strength 0 the zero component's proportion gets no gradient and no mean of its own exists; above, it does."""
    weights = torch.linspace(-1, 1, 50, dtype=torch.float64)
    for strength in (0.0, 10.0):
        model = learned(strength)
        model.complexity(weights).backward()
        moved = {name: p.grad is not None for name, p in model.named_parameters()}
        assert moved == {"free_means": True, "log_precisions": True, "free_logits": True, "zero_logit": strength > 0}
        assert len(model.free_means) == 3 and float(model.means[0].detach()) == 0


@pytest.mark.parametrize("pi_zero", [0.1, 0.9, 0.99])
def test_without_weights_pi_zero_rests_at_its_mode(pi_zero: float) -> None:
    """With no weight to say otherwise, the hyper-prior's gradient is zero at `pi_zero` and leads back to it."""
    model = learned(100.0, pi_zero)
    rest = float(model.zero_logit.detach())
    gradients = []
    for shift in (-0.5, 0.0, 0.5):
        model.zero_logit.data.fill_(rest + shift)
        (gradient,) = torch.autograd.grad(model.complexity(model.free_means.new_empty(0)), [model.zero_logit])
        gradients.append(float(gradient))
    assert gradients[0] < -0.1 and gradients[1] == pytest.approx(0, abs=1e-9) and gradients[2] > 0.1


def test_hyper_prior_of_pi_zero_is_a_beta_density() -> None:
    """As π₀ moves, complexity without weights changes as −log Beta(1 + s π₀, 1 + s (1 − π₀))."""
    beta = Beta(torch.tensor(1 + 20 * 0.9).double(), torch.tensor(1 + 20 * 0.1).double())
    model = learned(20.0)
    gaps = []
    for logit in (-1.0, 0.5, 3.0):
        model.zero_logit.data.fill_(logit)
        density = beta.log_prob(model.log_proportions[0].exp())
        gaps.append(float((model.complexity(model.free_means.new_empty(0)) + density).detach()))
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-9)


def test_many_weights_at_zero_raise_a_learned_pi_zero() -> None:
    """Descent on weights of which three quarters sit at zero takes π₀ from 0.5 to about 0.75, against a weak prior."""
    model = Mixture(torch.tensor([0.5]).double(), 0.5, 0.05, (2.0, 0.005), (2.0, 0.005), pi_zero_strength=1.0)
    weights = torch.tensor(300 * [0.0] + 100 * [0.5]).double()
    optimiser = torch.optim.Adam([model.zero_logit], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        model.complexity(weights).backward()
        optimiser.step()
    assert float(model.log_proportions[0].detach().exp()) == pytest.approx((300 + 0.5) / 401, abs=1e-3)


def density(model: Mixture) -> Tensor:
    """Of the mixture, on a grid, with step 0.01."""
    grid = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    family = MixtureSameFamily(
        Categorical(logits=model.log_proportions), Normal(model.means, torch.exp(-0.5 * model.log_precisions))
    )
    return family.log_prob(grid).exp().detach()


def five() -> Mixture:
    """Components at 0, −1, 0.04, 1 and 1.05, of which the last two are the closest pair."""
    means = torch.tensor([-1.0, 0.04, 1.0, 1.05], dtype=torch.float64)
    model = Mixture(means, 0.6, 0.1, (5.0, 2.0), (3.0, 0.5), pi_zero_strength=7.0)
    model.log_precisions.data += torch.tensor([0.5, 0.0, -0.5, 0.1, 0.0])
    model.free_logits.data += torch.tensor([0.0, 1.0, 0.5, -0.5])
    return model


def test_threshold_zero_merges_nothing() -> None:
    """Not even twins; parameters, buffers and what learns stay as they were, in a copy."""
    model = five()
    model.free_means.data[3] = model.free_means.data[2]
    model.log_precisions.data[4] = model.log_precisions.data[3]
    merged = model.merged(0.0)
    assert merged is not model and merged.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, merged.state_dict()[name]) for name, t in model.state_dict().items())


def test_the_closest_pair_merges_by_its_moments() -> None:
    """One merge: the pair's proportion, mean and variance are kept, so the whole mixture's first two moments are too;
    proportions sum to one; the other components and the model merged from do not move."""
    model = five()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    distance = symmetric_kl(model.means, model.log_precisions)
    pairs = distance[torch.triu(torch.ones(5, 5), diagonal=1).bool()].sort().values
    merged = model.merged(float(pairs[:2].detach().mean()))
    assert torch.equal(pairs[0], distance[3, 4]) and len(merged.means) == 4
    grid = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    for power in range(3):
        moments = [float((density(m) * grid**power).sum() * 0.01) for m in (model, merged)]
        assert moments[0] == pytest.approx(moments[1], rel=1e-8)
    pi, pi_merged = model.log_proportions.exp().detach(), merged.log_proportions.exp().detach()
    assert float(pi_merged.sum()) == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(pi_merged, torch.cat([pi[:3], pi[3:].sum().reshape(1)]))
    torch.testing.assert_close(merged.means[:3], model.means[:3])
    torch.testing.assert_close(merged.log_precisions[:3], model.log_precisions[:3])
    assert merged.gamma_shape.tolist() == [5, 3, 3, 3] and merged.gamma_rate.tolist() == [2, 0.5, 0.5, 0.5]
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())


def test_what_merges_with_the_zero_component_becomes_zero() -> None:
    """Component 0 takes the proportion of its neighbour at 0.04, keeps mean zero, and widens by 0.04² × its share."""
    model = five()
    merged = model.merged(math.inf)
    assert len(merged.means) == 2 and merged.means[0] == 0
    model.free_means.data[2:] += torch.tensor([5.0, 8.0])
    merged = model.merged(1.0)
    assert len(merged.means) == 4 and merged.means[0] == 0
    pi, variance = model.log_proportions.exp().detach(), model.log_precisions.neg().exp().detach()
    joint = pi[0] + pi[2]
    torch.testing.assert_close(merged.log_proportions[0].exp(), joint)
    wanted = (pi[0] * variance[0] + pi[2] * (variance[2] + 0.04**2)) / joint
    torch.testing.assert_close(merged.log_precisions[0].neg().exp(), wanted)


def test_identical_components_merge_without_a_trace() -> None:
    """Three twins become one and the density is the same to rounding; the rest is learned on, π₀ too if it was."""
    for strength in (0.0, 7.0):
        model = Mixture(torch.tensor([0.3, -0.7, 0.3, 0.3]).double(), 0.6, 0.1, (5.0, 2.0), (3.0, 0.5), strength)
        model.free_logits.data += torch.tensor([0.0, 1.0, 0.5, -0.5])
        merged = model.merged(1e-9)
        assert len(merged.means) == 3
        torch.testing.assert_close(density(merged), density(model))
        merged.complexity(torch.linspace(-1, 1, 20).double()).backward()
        trained = {name for name, p in merged.named_parameters() if p.grad is not None}
        assert ("zero_logit" in trained) == (strength > 0) and {"free_means", "log_precisions"} <= trained


def test_a_large_pi_zero_survives_a_merge_in_float32() -> None:
    """Beside a proportion within 1e-9 of one, where float32 rounds it to one, the others still add up to the rest."""
    model = Mixture(torch.tensor([0.0, 0.5, 0.9]), 0.5, 0.1, (5.0, 2.0), (3.0, 0.5))
    model.zero_logit.data.fill_(20.0)
    merged = model.merged(1e-6)
    assert len(merged.means) == 3 and bool(merged.zero_logit.isfinite())
    rest = model.log_proportions[2:].logsumexp(dim=0)
    torch.testing.assert_close(merged.log_proportions[1:].logsumexp(dim=0), rest, rtol=1e-5, atol=0)


def test_symmetric_kl_is_the_sum_of_both_divergences() -> None:
    """Against torch.distributions in float64, for every pair; zero on the diagonal."""
    _, means, log_precisions, _ = (t.detach() for t in arguments(1, 6))
    normal = Normal(means, torch.exp(-0.5 * log_precisions))
    columns = Normal(means[:, None], torch.exp(-0.5 * log_precisions)[:, None])
    wanted = kl_divergence(columns, normal) + kl_divergence(normal, columns)
    found = symmetric_kl(means, log_precisions)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert found.diagonal().tolist() == 6 * [0] and torch.equal(found, found.t())


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
    monkeypatch.setattr(mixture_autograd, "BLOCK", 40)
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

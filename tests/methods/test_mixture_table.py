"""The tabulated prior is the prior: as exact as float32 in every sum, or it declines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from study.methods.sws import mixture_table
from study.methods.sws.mixture import negative_log_likelihood
from study.methods.sws.mixture_autograd import BlockNLL


def clustered(components: int, sigma: float = 0.028, count: int = 100_000, width: float = 0.2) -> tuple[Tensor, ...]:
    """Weights and a mixture as clustering has them: most weights near zero, some at each mean, a few between."""
    random = torch.Generator().manual_seed(2)
    means = torch.cat([torch.zeros(1), torch.linspace(-width, width, components - 1)])
    log_precisions = torch.full_like(means, -2 * math.log(sigma))
    log_proportions = torch.cat([torch.tensor([0.98]), torch.full((components - 1,), 0.02 / (components - 1))]).log()
    weights = 0.6 * sigma * torch.randn(count, generator=random)
    weights[::50] += means[torch.randint(components, (len(weights[::50]),), generator=random)]
    weights[::977] = 1.2 * width * (2 * torch.rand(len(weights[::977]), generator=random) - 1)
    return weights, means, log_precisions, log_proportions


def exact(weights: Tensor, *mixture: Tensor) -> tuple[Tensor, ...]:
    """Value and gradients in float64, by autograd of the formula."""
    inputs = [t.double().requires_grad_() for t in (weights, *mixture)]
    w, means, log_precisions, log_proportions = inputs
    peak = log_proportions + 0.5 * (log_precisions - math.log(2 * math.pi))
    value = -torch.logsumexp(peak - 0.5 * log_precisions.exp() * (w[:, None] - means) ** 2, dim=1).sum()
    return value.detach(), *torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("components", [8, 33, 64])
@pytest.mark.parametrize("sigma", [0.05, 0.028, 0.01])
def test_value_and_gradients_are_as_exact_as_float32(components: int, sigma: float) -> None:
    """Within 2e-6 of the largest entry of each, as the direct way in blocks is."""
    inputs = clustered(components, sigma)
    assert mixture_table.moments(*inputs) is not None
    own = [t.clone().requires_grad_() for t in inputs]
    value = negative_log_likelihood(*own)
    for name, got, wanted in zip(
        ("value", "weights", "means", "log precisions", "log proportions"),
        (value.detach(), *torch.autograd.grad(value, own)),
        exact(*inputs),
        strict=True,
    ):
        assert (got.double() - wanted).abs().max() <= 2e-6 * wanted.abs().max(), name


def test_components_far_apart_need_finer_steps_and_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two narrow components the responsibilities change within σ² / distance, a fraction of σ."""
    inputs = clustered(8, sigma=0.012, width=0.6, count=1_000_000)
    wanted = exact(*inputs)[1]

    def error() -> float:
        table = mixture_table.moments(*inputs)
        assert table is not None
        return float((table[1].double() - wanted).abs().max() / wanted.abs().max())

    assert error() <= 2e-6
    monkeypatch.setattr(mixture_table, "TOLERANCE", math.inf)
    assert error() > 5e-6


def test_a_cubic_is_interpolated_and_summed_exactly() -> None:
    """What lies between the nodes is lost from the fourth power on; half of the weights lie on one node."""
    nodes = 2.0**-6 * torch.arange(-100, 101, dtype=torch.float32)
    weights = torch.cat([torch.zeros(70_000), torch.linspace(-1.4, 1.3, 70_001)])

    def cubic(x: Tensor) -> Tensor:
        return 1 + x * (2 + x * (-3 + 4 * x))

    slope, spread = mixture_table._interpolate(weights, 2.0**-6, -100, cubic(nodes))
    torch.testing.assert_close(slope, cubic(weights), rtol=0, atol=1e-5)
    for power in range(4):
        total = (weights.double() ** power).sum()
        torch.testing.assert_close(spread @ nodes.double() ** power, total, rtol=1e-7, atol=1e-2)
    fourth = (weights.double() ** 4).sum()
    assert abs(spread @ nodes.double() ** 4 - fourth) < 1e-6 * fourth


def test_a_component_that_takes_no_part_changes_nothing() -> None:
    weights, means, log_precisions, log_proportions = clustered(12)
    absent = (torch.tensor([0.1]), torch.tensor([40.0]), torch.tensor([-math.inf]))
    padded = [torch.cat(pair) for pair in zip((means, log_precisions, log_proportions), absent, strict=True)]
    alone = mixture_table.moments(weights, means, log_precisions, log_proportions)
    together = mixture_table.moments(weights, *padded)
    assert alone is not None and together is not None
    torch.testing.assert_close(together[0], alone[0], rtol=1e-9, atol=0)
    # Not bit for bit on every processor: its products of 13 columns may add up in another order than those of 12.
    torch.testing.assert_close(together[1], alone[1], rtol=0, atol=1e-6 * float(alone[1].abs().max()))
    torch.testing.assert_close(together[2][:, :-1], alone[2], rtol=1e-9, atol=0)
    assert not together[2][:, -1].any()


@pytest.mark.parametrize(
    "change",
    [
        lambda w, *m: (w.double(), *(t.double() for t in m)),
        lambda w, *m: (w[:500], *m),  # more nodes than it would save
        lambda w, *m: (w.index_fill(0, torch.tensor([7]), 1e6), *m),  # one weight far from all others
        lambda w, *m: (w.index_fill(0, torch.tensor([7]), math.nan), *m),
        lambda w, *m: (w.index_fill(0, torch.tensor([7]), math.inf), *m),
        lambda w, means, precisions, proportions: (w, means, precisions + 40, proportions),
        lambda w, *m: (w, *(t[:4] for t in m)),
    ],
)
def test_where_it_does_not_pay_or_cannot_be_exact_the_direct_way_is_taken(change: object) -> None:
    inputs = change(*clustered(12, count=20_000))  # type: ignore[operator]
    assert mixture_table.moments(*inputs) is None
    value = BlockNLL.apply(*inputs)
    assert value.dtype == inputs[0].dtype


def test_a_call_repeats_bit_for_bit() -> None:
    """A trial that goes on from its checkpoint has the result of one that was never stopped."""
    inputs = clustered(33)
    first, second = mixture_table.moments(*inputs), mixture_table.moments(*inputs)
    assert first is not None and second is not None
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

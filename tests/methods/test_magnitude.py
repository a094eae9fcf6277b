"""Pruning, one-dimensional k-means, the codebook of the survivors, and plain post-training quantisation."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from study.compression.kmeans import kmeans, nearest
from study.compression.quantised_weights import flatten, shared_parameters
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common import pinning
from study.methods.magnitude import pruning
from study.methods.magnitude.pruning import Hparams
from study.models.registry import build
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate

HPARAMS = Hparams(density=0.1, codebook_size=6, epochs=4, batch_size=32, codebook_epochs=2)


def weights_of(model: nn.Module) -> Tensor:
    return flatten(shared_parameters(model)).detach().clone()


def pruned(model: nn.Module, hparams: Hparams, digits: Splits, on_epoch: Any = lambda row: None) -> Tensor:
    loss = distillation.accuracy_loss(Targets(), 1.0, 0.0)
    return pinning.prune(model, hparams, digits, loss, on_epoch)[0]


def objective(values: Tensor, centroids: Tensor) -> float:
    return float((values.double() - centroids[nearest(values, centroids)]).square().sum())


# --- pruning


def test_schedule_by_hand() -> None:
    """The share of zeros starts at 0, never falls, is 7/8 of the target at half the ramp, and ends at the target."""
    path = [pinning.pruned_share(i / 100, density=0.04) for i in range(101)]
    assert path[0] == 0 and path == sorted(path)
    assert path[50] == pytest.approx(0.96 * 7 / 8)
    assert path[100] == pytest.approx(0.96)


def test_the_largest_stay(monkeypatch: pytest.MonkeyPatch, digits: Splits, pretrained: nn.Module) -> None:
    """round(density × weights) stay: those of all tensors together whose magnitude is largest at the last pruning."""
    seen: list[Tensor] = []
    largest = pinning.largest

    def watched(scores: Tensor, count: int) -> Tensor:
        seen.append(scores.clamp(min=0))  # pinned ones are below every other
        return largest(scores, count)

    monkeypatch.setattr(pinning, "largest", watched)
    kept = pruned(copy.deepcopy(pretrained), HPARAMS, digits)
    assert int(kept.sum()) == round(0.1 * len(kept))
    last = seen[-1].abs()
    assert float(last[kept].min()) >= float(last[~kept].max())
    zeros = [int((weights == 0).sum()) for weights in seen]
    assert len(seen) >= 50 and zeros[0] == 0 and zeros == sorted(zeros)


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
def test_every_ramp_ends_at_the_target(ramp: float, digits: Splits, pretrained: nn.Module) -> None:
    """Whether pruned at once, half-way, or until the last step: the target is met."""
    kept = pruned(copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, epochs=2, ramp=ramp), digits)
    assert int(kept.sum()) == round(0.1 * len(kept))


def test_pruned_weights_stay_zero(digits: Splits, pretrained: nn.Module) -> None:
    """A weight that was zero at the end of one epoch is zero at the end of all later ones; most others move."""
    model = copy.deepcopy(pretrained)
    seen: list[Tensor] = []
    kept = pruned(model, HPARAMS, digits, lambda row: seen.append(weights_of(model)))
    for before, after in zip(seen, seen[1:], strict=False):
        assert bool((after[before == 0] == 0).all())
    assert torch.equal(seen[-1] != 0, kept)
    assert float((seen[-1] != seen[-2])[kept].double().mean()) > 0.9  # all but those behind units that are always off


def test_provisional_score_leaves_the_network_alone(digits: Splits, pretrained: nn.Module) -> None:
    """Clustering for a provisional score does not touch the weights that pruning goes on with."""
    model = copy.deepcopy(pretrained)
    distinct: list[int] = []
    pruned(model, HPARAMS, digits, lambda row: distinct.append(weights_of(model).unique().numel()))
    assert min(distinct) > 2000  # not a codebook of six


def zeros(model: nn.Module) -> nn.Module:
    """A copy with every weight at zero."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def test_nothing_kept_is_a_failed_trial(digits: Splits, pretrained: nn.Module) -> None:
    """A share that rounds to no weight, or a rate that overflows, ends in TrialFailed with its reason."""
    with pytest.raises(TrialFailed, match="every weight was pruned: density is too small") as error:
        pruning.fit(copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, density=1e-7), digits, lambda row: None)
    assert "tau" not in str(error.value) and "pi_zero" not in str(error.value)
    with pytest.raises(TrialFailed) as error:  # a network that is all zero before it is rounded
        pruning.fit(zeros(pretrained), dataclasses.replace(HPARAMS, bits=8), digits, lambda row: None)
    assert str(error.value) == "every weight was pruned"
    with pytest.raises(TrialFailed, match="training loss became"):
        pruning.fit(copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, weight_rate=1e30), digits, lambda row: None)


@pytest.mark.parametrize(
    "wrong",
    [{"density": 0.0}, {"density": 1.5}, {"density": float("nan")}, {"codebook_size": 1}, {"bits": 1}, {"bits": 17},
     {"bits": -8}, {"ramp": 1.1}, {"epochs": 0}],
)  # fmt: skip
def test_bad_hyperparameters_are_refused(wrong: dict[str, Any]) -> None:
    """What cannot be meant fails before training, and names the value."""
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"{name} {wrong[name]}"):
        Hparams(**wrong)


# --- k-means on a line


@pytest.mark.parametrize("clusters", [1, 3, 15])
def test_kmeans_never_raises_its_objective(clusters: int) -> None:
    """More iterations never fit worse, also where the first centroids have no values and must move."""
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)).pow(5)  # long tails: most start empty
    path = [objective(values, kmeans(values, clusters, iterations=i)) for i in range(60)]
    assert all(after <= before * (1 + 1e-12) for before, after in zip(path, path[1:], strict=False))
    if clusters > 1:
        assert path[-1] < path[0]


@pytest.mark.parametrize("clusters", [2, 7, 20])
def test_kmeans_agrees_with_sklearn(clusters: int) -> None:
    """From the same first centroids, the objective is scikit-learn's, and so are the centroids."""
    values = torch.rand(500, generator=torch.Generator().manual_seed(1)) * 3 - 1
    first = np.linspace(float(values.min()), float(values.max()), clusters)[:, None]
    theirs = KMeans(clusters, init=first, n_init=1, tol=0, max_iter=1000).fit(values.double().numpy()[:, None])
    ours = kmeans(values, clusters)
    assert objective(values, ours) == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_allclose(ours.numpy(), np.sort(theirs.cluster_centers_.ravel()), rtol=1e-9)


def test_no_cluster_is_empty() -> None:
    """Every centroid has values, and is their mean, however uneven the values lie."""
    generator = torch.Generator().manual_seed(2)
    values = torch.cat([torch.randn(1000, generator=generator) * 0.01, torch.tensor([5.0, 9.0, -30.0])])
    centroids = kmeans(values, 16)
    index = nearest(values, centroids)
    assert len(centroids) == 16
    assert torch.bincount(index, minlength=16).min() > 0
    means = torch.stack([values.double()[index == i].mean() for i in range(16)])
    torch.testing.assert_close(means, centroids)


def test_fewer_distinct_values_than_clusters() -> None:
    """Then each distinct value is a centroid."""
    values = torch.tensor([0.5, -1.0, 0.5, 2.0, 2.0, 0.25])
    torch.testing.assert_close(kmeans(values, 8), torch.tensor([-1.0, 0.25, 0.5, 2.0], dtype=torch.float64))
    torch.testing.assert_close(kmeans(torch.ones(3), 4), torch.ones(1, dtype=torch.float64))


# --- all of it


def test_every_weight_is_a_codebook_value(digits: Splits, pretrained: nn.Module) -> None:
    """After all phases each weight equals its codebook value bit for bit, as many are zero as were pruned, and every
    epoch was reported."""
    model = copy.deepcopy(pretrained)
    rows: list[dict] = []
    quantised, metrics = pruning.fit(model, HPARAMS, digits, rows.append)
    weights = weights_of(model)
    assert torch.equal(weights, quantised.values[quantised.assignment])
    assert float(quantised.values[0]) == 0 and len(quantised.values) == 6
    assert int((quantised.assignment != 0).sum()) == round(0.1 * len(weights))
    assert metrics["sparsity"] == pytest.approx(100 * float((weights == 0).double().mean()))
    assert metrics["val_accuracy"] == evaluate(model, digits.validation, digits).accuracy
    assert [row["phase"] for row in rows] == ["prune"] * 4 + ["codebook"] * 2
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    needed = {"train_loss", "val_loss", "val_accuracy", "sparsity", "entropy_ratio", "codebook_values_used"}
    assert all(needed <= row.keys() for row in rows)
    assert all(("unquantised_val_accuracy" in row) == (row["phase"] == "prune") for row in rows)


def test_pruned_network_keeps_its_accuracy(digits: Splits, pretrained: nn.Module) -> None:
    """With a tenth of the weights and five values beside zero, digits loses less than three points."""
    before = evaluate(pretrained, digits.validation, digits).accuracy
    _, metrics = pruning.fit(copy.deepcopy(pretrained), HPARAMS, digits, lambda row: None)
    assert before - metrics["val_accuracy"] < 3


def test_a_teacher_changes_the_result(digits: Splits, pretrained: nn.Module) -> None:
    """With alpha above 0 the teacher's logits are used in pruning and in the codebook's training."""
    targets = Targets(logits=distillation.teacher_logits(pretrained, digits.train, digits, "none"))
    taught = dataclasses.replace(HPARAMS, alpha=0.9, temperature=4.0)
    ends: list[list[float]] = []
    for hparams in (HPARAMS, taught):
        rows: list[dict] = []
        pruning.fit(copy.deepcopy(pretrained), hparams, digits, rows.append, targets)
        ends.append([row["train_loss"] for row in rows])
    assert all(alone != with_teacher for alone, with_teacher in zip(*ends, strict=True))


def test_a_seed_repeats_bit_for_bit(digits: Splits, pretrained: nn.Module) -> None:
    """Two runs of one configuration end with the same weights and metrics; another seed with others."""
    ends = []
    for seed in (0, 0, 1):
        model = copy.deepcopy(pretrained)
        hparams = dataclasses.replace(HPARAMS, epochs=2, codebook_epochs=1, seed=seed)
        _, metrics = pruning.fit(model, hparams, digits, lambda row: None)
        ends.append((weights_of(model), metrics))
    assert torch.equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    assert not torch.equal(ends[0][0], ends[2][0])


def test_batch_norm_takes_no_part(digits: Splits) -> None:
    """Clustering MiniVGG leaves batch-norm as it was; every other parameter is a codebook value."""
    model = build("minivgg", (1, 32, 32), 10, width=0.125)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [t.clone() for m in norms for t in m.state_dict().values()]
    quantised = pinning.cluster(model, pinning.largest(weights_of(model).abs(), 500), codebook_size=5)
    after = [t for m in norms for t in m.state_dict().values()]
    assert before and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert set(weights_of(model).tolist()) <= set(quantised.values.tolist())


# --- post-training quantisation


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_post_training_error_is_half_a_step(bits: int, pretrained: nn.Module) -> None:
    """Every weight moves by half its tensor's step at most, and becomes one of 2^bits − 1 multiples of it."""
    model = copy.deepcopy(pretrained)
    before = [p.detach().clone() for p in shared_parameters(model)]
    quantised = pruning.post_training(model, bits)
    for old, new, step in zip(before, shared_parameters(model), quantised.scales, strict=True):
        assert float(step) == pytest.approx(float(old.abs().max()) / (2 ** (bits - 1) - 1))
        assert float((old - new.detach()).abs().max()) <= float(step) / 2 * (1 + 1e-5)
    weights = torch.cat([t.reshape(-1) for t in quantised.tensors(before)])
    assert torch.equal(weights, weights_of(model))
    assert quantised.values[0] == 0 and bool((quantised.values == quantised.values.round()).all())
    assert len(quantised.values) <= 2**bits - 1 == 2 * (2 ** (bits - 1) - 1) + 1


def test_post_training_by_hand() -> None:
    """At three bits −0.3, 0.04, 0.06, 0.16 are −3, 0, 1 and 2 tenths; a tensor of zeros stays zeros."""
    model = nn.Sequential(nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-0.3, 0.04, 0.06, 0.16]]))
        model[0].bias.zero_()
    quantised = pruning.post_training(model, 3)
    assert quantised.values.tolist() == [0, -3, 1, 2]
    assert quantised.assignment.tolist() == [1, 0, 2, 3, 0]
    torch.testing.assert_close(weights_of(model), torch.tensor([-0.3, 0, 0.1, 0.2, 0]))


def test_eight_bits_cost_less_than_a_point(digits: Splits, pretrained: nn.Module) -> None:
    """Without any training 8 bits lose less than one point on digits, through `fit`, which has no epoch to report."""
    model = copy.deepcopy(pretrained)
    rows: list[dict] = []
    quantised, metrics = pruning.fit(model, Hparams(bits=8), digits, rows.append)
    assert not rows
    assert evaluate(pretrained, digits.validation, digits).accuracy - metrics["val_accuracy"] < 1
    assert metrics["codebook_values_used"] == len(quantised.values) <= 255

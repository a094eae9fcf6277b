"""Clustering, retraining and quantising: codebook values, each improvement's effect, and trials that fail."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.sws import weight_sharing
from study.methods.sws.mixture import Mixture, even_means
from study.methods.sws.weight_sharing import Hparams
from study.models.registry import build
from study.training import distillation
from study.training.batches import Batch
from study.training.distillation import Targets
from study.training.loop import logits_of
from study.training.network import Training

HPARAMS = Hparams(
    tau=1e-3, components=6, pi_zero=0.9, epochs=3, batch_size=32, sigma=0.02, precision_rate=0.05, codebook_epochs=2
)
CROSS_ENTROPY = distillation.accuracy_loss(Targets(), 1.0, 0.0)


@pytest.fixture(scope="module")
def pretrained(digits: Splits) -> nn.Module:
    return weight_sharing.pretrain(
        Training("lenet_300_100", epochs=3, batch_size=32, weight_decay=0.0), digits, lambda row: None
    )


def ones(model: nn.Module) -> Tensor:
    return torch.ones(len(shared_parameters(model)))


def weights_of(model: nn.Module) -> Tensor:
    return flatten(shared_parameters(model)).detach()


def written(quantised: QuantisedWeights, model: nn.Module) -> bool:
    """Whether the network's weights are the quantised ones, bit for bit."""
    parameters = shared_parameters(model)
    return all(torch.equal(p, w) for p, w in zip(parameters, quantised.tensors(parameters), strict=True))


@pytest.mark.parametrize(
    "changes",
    [{}, {"anneal": 0.5}, {"merge": 1.0}, {"layer_scales": True}, {"retrain_epochs": 2}, {"pi_zero_strength": 1e4}],
)
def test_every_weight_is_a_codebook_value(changes: dict, digits: Splits, pretrained: nn.Module) -> None:
    """After all phases, with each improvement: weights are codebook values bit for bit, zero first, none unused."""
    model = copy.deepcopy(pretrained)
    rows: list[dict] = []
    hparams = dataclasses.replace(HPARAMS, **changes)
    quantised, metrics = weight_sharing.fit(model, hparams, digits, rows.append)
    assert written(quantised, model)
    assert float(quantised.values[0]) == 0 and bool((torch.bincount(quantised.assignment) > 0).all())
    assert metrics["sparsity"] == pytest.approx(100 * float((weights_of(model) == 0).double().mean()))
    assert [r["phase"] for r in rows] == ["cluster"] * 3 + ["retrain"] * hparams.retrain_epochs + ["codebook"] * 2
    assert [r["epoch"] for r in rows] == list(range(1, len(rows) + 1))
    assert all({"val_accuracy", "sparsity"} <= row.keys() for row in rows)


def test_provisional_score_leaves_the_network_alone(digits: Splits, pretrained: nn.Module) -> None:
    """Quantising for a provisional score does not touch the weights that clustering goes on with."""
    seen = []
    model = copy.deepcopy(pretrained)
    weight_sharing.cluster(
        model, ones(model), HPARAMS, digits, CROSS_ENTROPY, lambda row: seen.append(weights_of(model).unique().numel())
    )
    assert min(seen) > 10_000  # thousands of distinct values: not a codebook of six


def test_a_seed_repeats_bit_for_bit(digits: Splits, pretrained: nn.Module) -> None:
    """Two runs of one configuration end with the same weights and metrics."""
    runs = []
    for _ in range(2):
        model = copy.deepcopy(pretrained)
        _, metrics = weight_sharing.fit(model, dataclasses.replace(HPARAMS, retrain_epochs=1), digits, lambda row: None)
        runs.append((weights_of(model), metrics))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_retraining_holds_pruned_weights_at_zero(digits: Splits, pretrained: nn.Module) -> None:
    """What clustering pruned is exactly zero after retraining, what it kept has moved; later training is free again."""
    model = copy.deepcopy(pretrained)
    mixture = weight_sharing.cluster(model, ones(model), HPARAMS, digits, CROSS_ENTROPY, lambda row: None)
    before, pruned = weights_of(model), mixture.assign(weights_of(model)) == 0
    hparams = dataclasses.replace(HPARAMS, retrain_epochs=2)
    weight_sharing.retrain(model, mixture, ones(model), hparams, digits, CROSS_ENTROPY, lambda row: None)
    after = weights_of(model)
    assert 0 < int(pruned.sum()) < len(pruned)
    assert not after[pruned].any() and float((after != before)[~pruned].double().mean()) > 0.99
    nn.functional.cross_entropy(model(torch.rand(8, *digits.shape)), torch.zeros(8, dtype=torch.int64)).backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in shared_parameters(model) if p.grad is not None])
    assert gradient[pruned].any()


def test_annealed_tau_rises_from_nothing(
    digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With anneal 0.5 the prior's factor is 1/n of tau in the first of n rising steps, and whole from there on."""
    factors: list[float] = []
    hparams = dataclasses.replace(HPARAMS, anneal=0.5, epochs=2)

    def steps(model: nn.Module, data: Splits, loss: Any, *rest: Any, before_step: Any, **others: Any) -> None:
        for step in range(1, 2 * rising + 2):
            before_step(step)
            factors.append(float(loss(model, Batch(*[torch.zeros(0)] * 4))))

    rising = weight_sharing._steps(hparams, digits) // 2
    monkeypatch.setattr(weight_sharing, "train", steps)
    monkeypatch.setattr(Mixture, "complexity", lambda self, weights: torch.tensor(float(len(digits.train))))

    def nothing(model: nn.Module, batch: Batch) -> Tensor:
        return torch.zeros(())

    weight_sharing.cluster(copy.deepcopy(pretrained), ones(pretrained), hparams, digits, nothing, lambda row: None)
    assert factors[0] == pytest.approx(hparams.tau / rising) and factors[rising // 2 - 1] < hparams.tau
    assert factors[rising - 1 :] == pytest.approx([hparams.tau] * (rising + 2))


def test_merging_shortens_the_codebook(digits: Splits, pretrained: nn.Module) -> None:
    """A large merging threshold leaves fewer values than none does, and two at least."""
    used = []
    for merge in (0.0, 1e9):
        quantised, _ = weight_sharing.fit(
            copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, merge=merge), digits, lambda row: None
        )
        used.append(len(quantised.values))
    assert used[0] > used[1] == 2


def test_layer_scales_leave_the_overall_size(digits: Splits, pretrained: nn.Module) -> None:
    """Scales are each layer's width over all weights' width, also for its bias; the scaled layers are equally wide."""
    scales = weight_sharing.layer_scales(pretrained)
    parameters = shared_parameters(pretrained)
    widths = torch.stack([p.square().mean().sqrt() / s for p, s in zip(parameters, scales, strict=True)])[::2]
    torch.testing.assert_close(widths, widths[:1].expand(3))
    assert float(widths[0].detach()) == pytest.approx(float(weights_of(pretrained).square().mean().sqrt()))
    assert torch.equal(scales[::2], scales[1::2])


def test_a_teacher_takes_the_labels_place(digits: Splits, pretrained: nn.Module) -> None:
    """With alpha 1 the labels have no part: clustering under a teacher that says other classes follows the teacher."""
    wrong = 20.0 * nn.functional.one_hot((digits.train.labels + 1) % 10, 10).float()
    hparams = dataclasses.replace(HPARAMS, tau=1e-6, alpha=1.0, temperature=2.0, epochs=8, codebook_epochs=0)
    rows: list[dict] = []
    model = copy.deepcopy(pretrained)
    loss = distillation.accuracy_loss(Targets(wrong[None]), hparams.temperature, hparams.alpha)
    weight_sharing.cluster(model, ones(model), hparams, digits, loss, rows.append)
    assert rows[-1]["unquantised_val_accuracy"] < 20


def test_a_teacher_teaches_by_the_loss_that_is_chosen(digits: Splits, pretrained: nn.Module) -> None:
    """The first epoch's loss is that of the pretrained network under the chosen one: squared error of equal logits."""
    own = logits_of(pretrained, digits.train.images, digits)
    hparams = dataclasses.replace(HPARAMS, tau=1e-9, alpha=1.0, weight_rate=1e-6, epochs=1, codebook_epochs=0)
    losses: dict[str, float] = {}
    for loss, offset in (("kd", 2.0), ("mse", 2.0), ("mse", 0.0)):
        rows: list[dict] = []
        chosen = dataclasses.replace(hparams, loss=loss)
        weight_sharing.fit(copy.deepcopy(pretrained), chosen, digits, rows.append, Targets(own[None] + offset))
        losses[f"{loss} {offset:g}"] = rows[0]["train_loss"]
    assert losses["mse 2"] == pytest.approx(2.0, rel=0.02)
    assert losses["kd 2"] < 0.05 and losses["mse 0"] < 0.05


def test_a_loss_that_is_not_a_number_is_a_failed_trial(digits: Splits, pretrained: nn.Module) -> None:
    """An absurd learning rate ends in TrialFailed, not in a network."""
    absurd = dataclasses.replace(HPARAMS, precision_rate=1e4, weight_rate=1e4)
    with pytest.raises(TrialFailed):
        weight_sharing.fit(copy.deepcopy(pretrained), absurd, digits, lambda row: None)


@pytest.mark.parametrize("values", [{"tau": math.nan}, {"tau": math.inf}, {"weight_rate": 1e30}])
def test_clustering_that_diverges_is_a_failed_trial(
    values: dict[str, float], digits: Splits, pretrained: nn.Module
) -> None:
    """A tau that is no finite number, or a rate that overflows, ends clustering itself as TrialFailed."""
    with pytest.raises(TrialFailed, match="training loss became"):
        weight_sharing.fit(copy.deepcopy(pretrained), dataclasses.replace(HPARAMS, **values), digits, lambda row: None)


def test_a_prior_that_prunes_everything_names_its_hyperparameters(digits: Splits, pretrained: nn.Module) -> None:
    """Where clustering leaves no weight, the message says what to change: tau or pi_zero."""
    everything = dataclasses.replace(HPARAMS, components=2, pi_zero=1 - 1e-7, sigma=10.0, epochs=1)
    with pytest.raises(TrialFailed, match="every weight was pruned: tau is too large, or pi_zero too close to 1"):
        weight_sharing.fit(copy.deepcopy(pretrained), everything, digits, lambda row: None)


@pytest.mark.parametrize("name", ["minivgg", "lenet5"])
def test_convolutions_are_quantised_and_batch_norm_is_not(name: str) -> None:
    """Quantising leaves batch-norm's weights, biases and statistics as they were; all the rest has codebook values."""
    model = build(name, (1, 32, 32), 10)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [t.clone() for m in norms for t in m.state_dict().values()]
    flat = weights_of(model)
    mixture = Mixture(even_means(flat, 4), 0.5, 0.05, (5e3, 2.0), (250.0, 0.1))
    quantised = weight_sharing.quantise(model, mixture, ones(model))
    after = [t for m in norms for t in m.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(quantised.assignment) == flat.numel()
    assert set(weights_of(model).tolist()) <= set(quantised.values.tolist())


@pytest.mark.parametrize("whole", [False, True])
def test_a_network_with_shared_layers_goes_through_all_phases(whole: bool, digits: Splits) -> None:
    """Two layers that share a weight, or one layer used twice, stay so, each weight a codebook value of the result."""
    side = digits.shape[1] * digits.shape[2]
    third = nn.Linear(32, 32)
    fifth = third if whole else nn.Linear(32, 32)
    fifth.weight = third.weight
    model = nn.Sequential(nn.Flatten(), nn.Linear(side, 32), nn.ReLU(), third, nn.ReLU(), fifth, nn.Linear(32, 10))
    once = dataclasses.replace(HPARAMS, epochs=1, retrain_epochs=1, codebook_epochs=1, layer_scales=True)
    quantised, _ = weight_sharing.fit(model, once, digits, lambda row: None)
    assert model[3].weight is model[5].weight
    assert len(quantised.assignment) == sum(p.numel() for p in model.parameters())
    assert written(quantised, model)

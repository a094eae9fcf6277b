"""The score of a weight, the ramp that pins the smallest at zero, and what comes of both in either method."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.compression import compressed_file
from study.compression.quantised_weights import flatten, shared_parameters
from study.data import registry
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.methods.common import pinning
from study.methods.magnitude import pruning
from study.methods.sws import hard
from study.models.registry import build
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate

HARD = hard.Hparams(density=0.03, components=8, epochs=6, ramp=0.4, ramp_power=3.0, batch_size=32)
LOSS = distillation.accuracy_loss(Targets(), 1.0, 0.0)


def weights_of(model: nn.Module) -> Tensor:
    return flatten(shared_parameters(model)).detach().clone()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_score_by_hand(power: float) -> None:
    """w² v̂ᵖ, with v̂ = Σ (1 − β) β^(t − s) g_s² / (1 − β^t) from the gradients of three steps; frozen weights have 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    frozen = model[1].bias.requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    squares: list[Tensor] = []
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn(p.shape) if p is not frozen else None
        squares.append(flatten([p.grad.square() if p.grad is not None else 0 * p for p in model.parameters()]).detach())
        optimiser.step()
    parameters = shared_parameters(model)
    moment = 0.001 * (0.999**2 * squares[0] + 0.999 * squares[1] + squares[2]) / (1 - 0.999**3)
    weights = weights_of(model)
    expected = weights.square() * moment.pow(power)
    moments = pinning.second_moments(optimiser, parameters)
    assert moments is not None
    scores = pinning.pruning_scores(weights, flatten(moments), power)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=0)
    assert not expected[-2:].any() and bool(expected[:-2].all())


def test_without_power_or_a_step_the_order_is_that_of_magnitudes() -> None:
    """p = 0 is |w|, bit for bit; before Adam's first step every squared gradient counts as 1."""
    model = nn.Sequential(nn.Linear(3, 2))
    optimiser = torch.optim.Adam(model.parameters())
    weights, parameters = weights_of(model), shared_parameters(model)
    assert pinning.second_moments(optimiser, parameters) is None
    assert torch.equal(pinning.pruning_scores(weights, None, 0.0), weights.abs())
    assert torch.equal(pinning.pruning_scores(weights, None, 1.0), weights.square())


def pruned(
    model: nn.Module, hparams: hard.Hparams, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, list[int], list[Tensor]]:
    """Which weights stay, the steps before which some were pinned, and the marks after each."""
    steps: list[int] = []
    marks: list[Tensor] = []
    step, largest, train = 0, pinning.largest, pinning.train

    def watched(scores: Tensor, count: int) -> Tensor:
        steps.append(step)
        marks.append(largest(scores, count))
        return marks[-1]

    def counting(*arguments: Any, before_step: Any, **others: Any) -> None:
        def counted(number: int) -> None:
            nonlocal step
            step = number
            before_step(number)

        train(*arguments, before_step=counted, **others)

    monkeypatch.setattr(pinning, "largest", watched)
    monkeypatch.setattr(pinning, "train", counting)
    survives, _ = pinning.prune(model, hparams, digits, LOSS, lambda row: None)
    return survives, steps, marks


def test_what_is_pinned_stays_pinned_and_the_density_is_met(
    digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By score, after 50 steps: marks only shrink, pinned weights are zero at the end, and exactly round(density ×
    weights) survive, which are others than those of largest magnitude."""
    model = copy.deepcopy(pretrained)
    hparams = dataclasses.replace(HARD, epochs=8, ramp=0.5)
    survives, steps, marks = pruned(model, hparams, digits, monkeypatch)
    assert steps[0] == pinning.WARM + 1 and len(steps) > 30 and steps[-1] == hparams.pruning_epochs * 34 == 136
    assert all(not bool((after & ~before).any()) for before, after in zip(marks, marks[1:], strict=False))
    weights = weights_of(model)
    assert int(survives.sum()) == round(0.03 * len(weights)) and torch.equal(survives, marks[-1])
    assert not weights[~survives].any()
    assert not torch.equal(survives, pinning.largest(weights_of(pretrained).abs(), int(survives.sum())))


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({}, 30, (50, 60, 1)),
        ({"ramp": 0.0}, 30, (29, 30, 1)),
        ({"epochs": 100}, 30, (50, 1200, 12)),
        ({"epochs": 100, "score_power": 0.0}, 30, (0, 1200, 12)),
        ({"epochs": 100, "quantised_training": False, "ramp": 0.01}, 30, (50, 51, 1)),
        ({"epochs": 100, "quantised_training": False, "score_power": 0.0}, 30, (0, 1200, 12)),
        ({"epochs": 2}, 3, (2, 3, 1)),
    ],
)
def test_the_ramps_steps(changes: dict[str, Any], steps: int, expected: tuple[int, int, int]) -> None:
    """Begin and end of the ramp, and the distance of prunings: a score waits for 50 steps, where there are so many, and
    quantised training begins when the ramp has ended."""
    hparams = dataclasses.replace(HARD, **changes)
    assert pinning.ramp_steps(hparams, steps) == expected


def test_a_steeper_ramp_prunes_earlier_and_ends_at_the_same_density() -> None:
    """By hand: with the power 8, 1 − 1/2⁸ of the pruning is done at half the ramp, with 3 only 1 − 1/2³."""
    assert pinning.pruned_share(0.5, 0.2, 8) == pytest.approx(0.8 * 255 / 256)
    assert pinning.pruned_share(0.5, 0.2) == pytest.approx(0.8 * 7 / 8)
    assert pinning.pruned_share(1.0, 0.2, 8) == pinning.pruned_share(1.0, 0.2) == pytest.approx(0.8)


@pytest.mark.parametrize("quantised_training", [False, True])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_all_four_recipes_end_in_a_file(
    power: float, quantised_training: bool, digits: Splits, pretrained: nn.Module
) -> None:
    """Magnitude's score or that of the loss, k-means or quantised training: the network has its values bit for bit, no
    more weights than the density says, and the decoded file gives the scored accuracy."""
    model = copy.deepcopy(pretrained)
    rows: list[dict] = []
    hparams = dataclasses.replace(HARD, score_power=power, quantised_training=quantised_training, codebook_epochs=2)
    quantised, metrics = pinning.fit(model, hparams, digits, rows.append)
    ends = ["quantise"] * 4 if quantised_training else ["prune"] * 4 + ["codebook"] * 2
    assert [row["phase"] for row in rows] == ["prune"] * 2 + ends
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    weights = weights_of(model)
    assert torch.equal(weights, quantised.values[quantised.assignment]) and len(quantised.values) <= 8
    assert 0.5 * 0.03 < float((weights != 0).double().mean()) <= round(0.03 * len(weights)) / len(weights)
    file = compressed_file.encode(model, quantised, compressed_file.network_of("lenet_300_100", {}, digits))
    decoded = compressed_file.decode(file)
    assert evaluate(decoded.model, digits.validation, digits).accuracy == metrics["val_accuracy"] > 80


def test_magnitude_with_the_same_settings_is_the_hard_variant(digits: Splits, pretrained: nn.Module) -> None:
    """One code: `magnitude` with the score and quantised training ends with the same weights, bit for bit."""
    models = [copy.deepcopy(pretrained) for _ in range(2)]
    pinning.fit(models[0], HARD, digits, lambda row: None)
    names = {f.name for f in dataclasses.fields(pruning.Hparams)}
    same = {name: value for name, value in vars(HARD).items() if name in names}
    pruning.fit(models[1], pruning.Hparams(**same, codebook_size=8), digits, lambda row: None)
    assert torch.equal(weights_of(models[0]), weights_of(models[1]))


def test_a_seed_repeats_bit_for_bit_and_a_teacher_counts(digits: Splits, pretrained: nn.Module) -> None:
    """Two runs end with the same weights; another seed, or a teacher, with others."""
    targets = Targets(distillation.teacher_logits(pretrained, digits.train, digits, "shift1"))
    taught = dataclasses.replace(HARD, epochs=3, alpha=0.9, temperature=4.0, augment="shift1")
    ends = []
    for hparams in (taught, taught, dataclasses.replace(taught, seed=1), dataclasses.replace(taught, alpha=0.0)):
        model = copy.deepcopy(pretrained)
        pinning.fit(model, hparams, digits, lambda row: None, targets)
        ends.append(weights_of(model))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2]) and not torch.equal(ends[0], ends[3])


def test_batch_norm_keeps_the_statistics_that_training_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of every step of both phases, and of no pass over plain images afterwards."""
    monkeypatch.setattr("study.compression.codebook_training.recalibrate", lambda *_: pytest.fail("another pass"))
    torch.manual_seed(0)
    model = build("minivgg", (1, 32, 32), 10, width=0.125)
    larger = registry.load("digits", None, size=32)[0]
    few = dataclasses.replace(larger, train=Part(larger.train.images[:256], larger.train.labels[:256]))
    pinning.fit(model, dataclasses.replace(HARD, epochs=2, density=0.2, batch_size=64), few, lambda row: None)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {8}  # type: ignore[arg-type]
    assert all(bool(norm.running_mean.abs().any()) for norm in norms)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong",
    [{"density": 0.0}, {"components": 1}, {"score_power": -1.0}, {"ramp_power": 0.5}, {"ramp": 2.0}, {"epochs": 1}],
)
def test_bad_hyperparameters_are_refused(wrong: dict[str, Any]) -> None:
    """What cannot be meant fails before training, and names the value. Two phases need two epochs."""
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} {value}"):
        dataclasses.replace(HARD, **wrong)


def test_nothing_kept_is_a_failed_trial(digits: Splits, pretrained: nn.Module) -> None:
    """A share that rounds to no weight ends with a hint about density, not about tau."""
    with pytest.raises(TrialFailed, match="every weight was pruned: density is too small"):
        pinning.fit(copy.deepcopy(pretrained), dataclasses.replace(HARD, density=1e-7), digits, lambda row: None)

"""Optimisers, schedules, clipping and averages against PyTorch's own, and trainings that are stopped."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shown import batches
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler
from torch.optim.swa_utils import AveragedModel

from study.artifacts.checkpoints import Progress
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.methods.kd.student import Hparams, fit_student
from study.training.batches import EpochBatches
from study.training.distillation import Targets
from study.training.loop import evaluate
from study.training.network import Training, build_network, fit_teacher
from study.training.optimiser import WeightAverage, make_optimiser
from study.training.recipe import MILESTONES, OPTIMIZERS, Recipe, parse_milestones
from study.training.schedules import learning_rates

TINY = Training("minivgg", {"width": 0.125}, epochs=3, batch_size=16, precision="float32", augment="flip")
RECIPES = {
    "adam": Recipe(optimizer="adam"),
    "sgd": Recipe(optimizer="sgd"),
    "sgd without momentum": Recipe(optimizer="sgd", momentum=0.0),
    "nesterov": Recipe(optimizer="nesterov", momentum=0.8),
    "step": Recipe(schedule="step", milestones="0.4,0.7"),
    "constant": Recipe(schedule="constant"),
    "warm-up": Recipe(warmup_epochs=1),
    "clipping": Recipe(clip_norm=0.1),
    "average": Recipe(ema=0.9),
    "mixup": Recipe(mixup=0.4),
    "smoothing": Recipe(label_smoothing=0.1),
    "all": Recipe(optimizer="sgd", schedule="step", warmup_epochs=1, clip_norm=1.0, ema=0.9, mixup=0.4,
                  label_smoothing=0.1),
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Splits:
    splits, _ = registry.load("digits", None, size=32)
    return dataclasses.replace(splits, train=subset_per_class(splits.train, 4, 0))


def state(model: nn.Module) -> Tensor:
    """All parameters and buffers as one vector."""
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def quiet(row: dict[str, Any]) -> None:
    """Hears of an epoch."""


def by_hand(
    training: Training,
    data: Splits,
    optimiser: Callable[..., Optimizer],
    scheduler: Callable[[Optimizer], lr_scheduler.LRScheduler],
    clip_norm: float = 0.0,
    average: Callable[[nn.Module], AveragedModel] | None = None,
) -> nn.Module:
    """A training as PyTorch's tutorials write it, on the same batches. The scheduler moves after every step."""
    model = build_network(training, data)
    optimiser = optimiser(model.parameters())
    scheduler, averaged = scheduler(optimiser), average(model) if average else None
    generator = torch.Generator().manual_seed(training.seed)
    for _ in range(training.epochs):
        model.train()
        for batch in batches(data, training.batch_size, training.augment, generator):
            optimiser.zero_grad()
            F.cross_entropy(model(batch.images), batch.labels).backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimiser.step()
            scheduler.step()
            if averaged:
                averaged.update_parameters(model)
    return averaged.module if averaged else model


def steps_of(training: Training, data: Splits) -> int:
    return training.epochs * len(EpochBatches(data, "none").split(training.batch_size))


def cosine(training: Training, data: Splits) -> Callable[[Optimizer], lr_scheduler.LRScheduler]:
    """PyTorch's half cosine over the steps of a training."""
    return partial(lr_scheduler.CosineAnnealingLR, T_max=steps_of(training, data))


def test_the_default_is_pytorchs_own_loop_bit_for_bit(digits: Splits) -> None:
    """Without any setting: fused AdamW with decoupled weight decay under CosineAnnealingLR, and nothing else."""
    expected = by_hand(TINY, digits, partial(AdamW, lr=2e-3, weight_decay=5e-4, fused=True), cosine(TINY, digits))
    assert torch.equal(state(fit_teacher(TINY, digits, quiet)), state(expected))


@pytest.mark.parametrize(
    ("recipe", "reference"),
    [
        (Recipe(optimizer="adam"), partial(Adam)),
        (Recipe(optimizer="sgd", momentum=0.0), partial(SGD)),
        (Recipe(optimizer="sgd"), partial(SGD, momentum=0.9)),
        (Recipe(optimizer="nesterov", momentum=0.8), partial(SGD, momentum=0.8, nesterov=True)),
    ],
)
def test_an_optimiser_takes_pytorchs_steps(recipe: Recipe, reference: Callable[..., Optimizer], digits: Splits) -> None:
    """Weights and statistics after three epochs are those of torch.optim, weight decay and momentum included."""
    training = dataclasses.replace(TINY, learning_rate=5e-3, weight_decay=1e-2, recipe=recipe)
    reference = partial(reference, lr=5e-3, weight_decay=1e-2)
    expected = by_hand(training, digits, reference, cosine(training, digits))
    torch.testing.assert_close(state(fit_teacher(training, digits, quiet)), state(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_step_is_pytorchs_to_rounding(optimizer: str) -> None:
    """Two steps in float64 agree to 1e-12; a parameter without a gradient in the first one is no trouble."""
    reference = {
        "adamw": partial(AdamW),
        "adam": partial(Adam),
        "sgd": partial(SGD, momentum=0.9),
        "nesterov": partial(SGD, momentum=0.9, nesterov=True),
    }[optimizer]
    start = [torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    pairs = (
        (ours, make_optimiser(Recipe(optimizer=optimizer), ours, 0.1, 0.01)),
        (theirs, reference(theirs, lr=0.1, weight_decay=0.01)),
    )
    for step in range(3):
        for parameters, optimiser in pairs:
            optimiser.zero_grad()
            sum((p**2).sin().sum() for p in parameters[: 1 + step]).backward()  # type: ignore[union-attr]
            optimiser.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_step_schedule_is_multisteplr() -> None:
    """Milestones 0.625, 0.75 and 0.875 of 240 epochs are MultiStepLR's 150, 180 and 210, for every group."""
    optimiser = SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 3e-3)], lr=0.0)
    scheduler = lr_scheduler.MultiStepLR(optimiser, [150, 180, 210])
    rates = learning_rates(Recipe(schedule="step"), 240, [0.1, 3e-3], 240 * 7)
    assert len(rates) == 240 * 7 + 1 and parse_milestones(MILESTONES) == [0.625, 0.75, 0.875]
    for epoch in range(240):
        expected = [group["lr"] for group in optimiser.param_groups]
        assert all(step == pytest.approx(expected, rel=1e-12) for step in rates[7 * epoch : 7 * epoch + 7])
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize(("schedule", "warmup", "epochs"), [("cosine", 2, 6), ("constant", 1, 3), ("cosine", 0, 4)])
def test_warm_up_is_linearlr_before_the_schedule(schedule: str, warmup: int, epochs: int) -> None:
    """SequentialLR of LinearLR and what follows gives the same rate in every step; no step has a rate of zero."""
    per_epoch = 5
    before = warmup * per_epoch
    optimiser = SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    after = lr_scheduler.CosineAnnealingLR(optimiser, epochs * per_epoch - before)
    if schedule == "constant":
        after = lr_scheduler.ConstantLR(optimiser, factor=1.0)
    linear = lr_scheduler.LinearLR(optimiser, 1 / (before + 1), total_iters=before)
    scheduler = lr_scheduler.SequentialLR(optimiser, [linear, after], [before]) if before else after
    rates = learning_rates(Recipe(schedule=schedule, warmup_epochs=warmup), epochs, [0.2], epochs * per_epoch)
    assert len(rates) == epochs * per_epoch + 1
    for (rate,) in rates[:-1]:
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9) and rate > 0
        optimiser.step()
        scheduler.step()


def test_clipping_is_clip_grad_norm(digits: Splits) -> None:
    """A training with a small norm ends where clip_grad_norm_ before each step ends, and not where none does."""
    training = dataclasses.replace(TINY, learning_rate=0.05, recipe=Recipe(optimizer="sgd", clip_norm=0.5))
    reference = partial(SGD, lr=0.05, momentum=0.9, weight_decay=training.weight_decay)
    clipped = by_hand(training, digits, reference, cosine(training, digits), clip_norm=0.5)
    free = by_hand(training, digits, reference, cosine(training, digits))
    found = state(fit_teacher(training, digits, quiet))
    torch.testing.assert_close(found, state(clipped), rtol=1e-3, atol=1e-3)
    assert (found - state(free)).abs().max() > 0.01


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_averagedmodels(decay: float, digits: Splits) -> None:
    """Weights and batch-norm's statistics are AveragedModel's with use_buffers and the same decay in each step; the
    last row's validation accuracy is that of the network that comes out."""

    def ours(average: Tensor, weights: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return weights
        return average.lerp(weights, 1 - min(decay, float(updates) / (9 + float(updates))))

    training = dataclasses.replace(TINY, recipe=Recipe(ema=decay))
    reference = partial(AdamW, lr=2e-3, weight_decay=5e-4, fused=True)
    average = partial(AveragedModel, avg_fn=ours, use_buffers=True)
    expected = by_hand(training, digits, reference, cosine(training, digits), average=average)
    rows: list[dict[str, Any]] = []
    model = fit_teacher(training, digits, rows.append)
    torch.testing.assert_close(state(model), state(expected), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(state(model), state(fit_teacher(TINY, digits, quiet)), rtol=1e-3)
    score = evaluate(model, digits.validation, digits)
    assert (rows[-1]["val_accuracy"], rows[-1]["val_loss"]) == (score.accuracy, score.loss)


def test_a_network_has_its_own_weights_again_after_a_look_at_the_average() -> None:
    """Inside the context the model has the average, and after it its weights bit for bit; a buffer with infinities
    stays as it is."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    average = WeightAverage(model, 0.9)
    optimiser = SGD(model.parameters(), lr=1.0)
    average.follow(optimiser)
    for _ in range(4):
        optimiser.zero_grad()
        model(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        optimiser.step()
    before = state(model)
    with average.in_model():
        inside = state(model)
    assert torch.equal(state(model), before) and not torch.equal(inside, before)
    average.keep()
    assert torch.equal(state(model), inside) and torch.equal(model.get_buffer("mask"), torch.tensor([0.0, -math.inf]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(name: str, digits: Splits) -> None:
    """Stopped after each epoch and continued from the saved state alone, it ends bit for bit where it would have, and
    elsewhere than the default does."""
    training = dataclasses.replace(TINY, learning_rate=0.01, recipe=RECIPES[name])

    class Stopped(Exception):
        pass

    saved = io.BytesIO()
    progress, epochs = Progress(), list[int]()

    def save(row: dict[str, Any]) -> None:
        epochs.append(row["epoch"])
        saved.seek(0)
        torch.save(progress.states, saved)
        raise Stopped

    for _ in range(training.epochs):
        with pytest.raises(Stopped):
            fit_teacher(training, digits, save, progress)
        saved.seek(0)
        progress = Progress(torch.load(saved, weights_only=True))
    model = fit_teacher(training, digits, save, progress)
    complete = state(fit_teacher(training, digits, quiet))
    assert epochs == [1, 2, 3] and torch.equal(state(model), complete)
    assert not torch.equal(complete, state(fit_teacher(dataclasses.replace(training, recipe=Recipe()), digits, quiet)))


def test_a_recipe_is_in_the_key_of_a_cache_where_it_differs() -> None:
    """The default adds nothing to the key that networks had before; what has no effect adds nothing either."""
    before = {"network", "options", "epochs", "batch_size", "learning_rate", "weight_decay", "augment", "seed"}
    assert TINY.key().keys() == before | {"precision"}
    for name, recipe in RECIPES.items():
        key = dataclasses.replace(TINY, recipe=recipe).key()
        assert key != TINY.key() and key.items() >= TINY.key().items(), name
    idle = Recipe(momentum=0.5, milestones="0.5")
    assert dataclasses.replace(TINY, recipe=idle).key() == TINY.key()
    assert Recipe(optimizer="sgd", momentum=0.5).key() == {"optimizer": "sgd", "momentum": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "lion"}, "optimizer lion must be one of adamw, adam, sgd, nesterov"),
        ({"schedule": "linear"}, "schedule linear must be one of cosine, step, constant"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum 1.0 must be 0 or more and below 1"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"ema": 1.0}, "ema 1.0 must be 0 or more and below 1"),
        ({"ema": math.nan}, "ema nan must be"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1 must be"),
        ({"clip_norm": math.inf}, "clip_norm inf must be 0 or more, and finite"),
        ({"mixup": -1.0}, "mixup -1.0 must be 0 or more"),
        ({"milestones": "0.5,0.5"}, "milestones 0.5,0.5: must be rising shares"),
        ({"milestones": "0.5,1.0"}, "milestones 0.5,1.0: must be rising shares"),
        ({"milestones": "150"}, "milestones 150: must be rising shares"),
        ({"milestones": "half"}, "milestones half: must be rising shares"),
        ({"milestones": ""}, "must be rising shares"),
        ({"warmup_epochs": 2}, "warmup_epochs 2 must be fewer than the 2 epochs of training"),
    ],
)
def test_a_trial_refuses_what_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    """A searched value is refused by the hyperparameters, in words that name it."""
    with pytest.raises(ValueError, match=message):
        Hparams(student="minivgg", alpha=0.5, epochs=2, **values)


def test_a_students_recipe_is_its_hyperparameters(digits: Splits) -> None:
    """Each searched field of the recipe reaches the training of the student, and changes what comes out."""
    hparams = Hparams(student="minivgg", student_width=0.125, alpha=0.0, epochs=2, batch_size=16, precision="float32")
    plain = state(fit_student(hparams, digits, Targets(), quiet))
    for name, recipe in RECIPES.items():
        changed = dataclasses.replace(hparams, **vars(recipe))
        assert changed.training.recipe == recipe
        assert not torch.equal(plain, state(fit_student(changed, digits, Targets(), quiet))), name

"""The training loop: what an epoch shows, how the rate falls, when it gives up, and what a score means."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from shown import batches
from torch import Tensor, nn

from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.models import registry
from study.training.batches import AUGMENTATIONS, Batch, EpochBatches, shift
from study.training.loop import evaluate, logits_of, train
from study.training.precision import best_precision, logits
from study.training.schedules import cosine_schedule


def splits(count: int, side: int = 16, classes: int = 3) -> Splits:
    """Made-up images; the same ones are the validation part, unnormalised by the mean 0 and deviation 1."""
    images = torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(0))
    part = Part(images.to(torch.uint8), torch.arange(count) % classes)
    return Splits("made", "Made up", tuple("abcdefghij"[:classes]), part, part, (0.0,), (1.0,), 0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("count", [1, 40, 41, 47, 64])
def test_an_epoch_shows_each_example_once(augment: str, count: int) -> None:
    """Every training row comes exactly once, with its own label, in batches whose sizes differ by one at most."""
    data = splits(count)
    shown = list(batches(data, 16, augment, seeded()))
    assert sorted(torch.cat([b.index for b in shown]).tolist()) == list(range(count))
    assert all(torch.equal(b.labels, data.train.labels[b.index]) for b in shown)
    sizes = [len(b.index) for b in shown]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= 16
    assert all(b.images.shape == (len(b.index), 1, 16, 16) and b.images.dtype == torch.float32 for b in shown)


@pytest.mark.parametrize("batch_size", [2, 3, 4, 7, 16])
def test_no_example_is_left_over_alone(batch_size: int) -> None:
    """Whatever remains, no batch holds a single example, on which batch normalisation would have no variance."""
    for count in range(2, 40):
        assert min(len(b.index) for b in batches(splits(count, 8), batch_size, "none", seeded())) > 1, count


def test_the_order_is_fresh_in_each_epoch_and_repeats_with_the_seed() -> None:
    """One generator gives two epochs different orders; the same seed gives the same epoch, pixel for pixel."""

    def order(generator: torch.Generator) -> Tensor:
        return torch.cat([b.index for b in batches(splits(30), 8, "crop", generator)])

    going_on = seeded(1)
    assert not torch.equal(order(going_on), order(going_on))
    pairs = zip(*(batches(splits(30), 8, "crop", seeded(1)) for _ in range(2)), strict=True)
    assert all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) for a, b in pairs)


def test_shifted_images_are_moved_and_not_mirrored() -> None:
    """`shift` shows an image as it is or up to an eighth of its side away, each of the 25 ways about as often."""
    data = splits(400)
    seen = {(down, across): 0 for down in range(5) for across in range(5)}
    for b in batches(data, 16, "shift", seeded()):
        assert not bool(b.view.any())
        for index, image in zip(b.index, b.images, strict=True):
            padded = F.pad(data.train.images[index].float() / 255, (2, 2, 2, 2))
            ways = [(y, x) for y, x in seen if torch.allclose(padded[:, y : y + 16, x : x + 16], image)]
            seen[ways[0]] += 1
    assert min(seen.values()) >= 4 and max(seen.values()) <= 40


def test_the_view_says_which_images_are_mirrored() -> None:
    """`flip` shows an image as it is or mirrored, as the batch says, and about half of them each way."""
    data = splits(200)
    mirrored = 0
    for b in batches(data, 16, "flip", seeded()):
        for index, flipped, image in zip(b.index, b.view, b.images, strict=True):
            original = data.train.images[index].float() / 255
            torch.testing.assert_close(image, original.flip(-1) if flipped else original)
            mirrored += int(flipped)
    assert 70 < mirrored < 130


def drawn(images: Tensor) -> list[Tensor]:
    """Where `EpochBatches` would move these images."""
    part = Part(images, torch.zeros(len(images), dtype=torch.int64))
    views = EpochBatches(dataclasses.replace(splits(1), train=part), "shift")
    views.shuffle(seeded())
    return views._moves


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (16, 32), (32, 8)])
def test_a_shift_is_an_eighth_at_most(height: int, width: int) -> None:
    """Shape and type are kept, a bright pixel moves by an eighth of each side at most, and every shift comes up."""
    images = torch.zeros(500, 2, height, width, dtype=torch.uint8)
    images[:, :, height // 2, width // 2] = 255
    shifted = shift(images, *drawn(images))
    assert shifted.shape == images.shape and shifted.dtype == images.dtype
    example, channel, row, column = shifted.nonzero(as_tuple=True)
    assert len(example) == 2 * len(images)  # in every image one pixel is bright still, in both channels the same one
    assert torch.equal(row[channel == 0], row[channel == 1])
    for moved, side in ((row - height // 2, height), (column - width // 2, width)):
        assert int(moved.abs().max()) <= max(1, side // 8)
        assert len(moved.unique()) > 1


def test_what_comes_in_is_black() -> None:
    """A white image keeps white where its pixels went, and gets black at the edge that it left."""
    white = torch.full((50, 1, 16, 16), 255, dtype=torch.uint8)
    shifted = shift(white, *drawn(white))
    assert set(shifted.unique().tolist()) == {0, 255}
    assert bool((shifted[:, :, 2:-2, 2:-2] == 255).all())


def run(loss_factor: float = 1.0, epochs: int = 3, rates: list[float] | None = None) -> list[tuple[int, float]]:
    """Train a linear model on 20 made-up images; what `after_epoch` was told."""
    data, told = splits(20, 8), []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    optimiser = torch.optim.SGD([{"params": [model[1].weight]}, {"params": [model[1].bias], "lr": 0.3}], lr=0.1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        if rates is not None:
            rates.append(optimiser.param_groups[0]["lr"])
        return loss_factor * F.cross_entropy(model(batch.images), batch.labels)

    train(model, data, loss, optimiser, epochs=epochs, batch_size=8, generator=seeded(),
          after_epoch=lambda epoch, value: told.append((epoch, value)))  # fmt: skip
    return told


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_failed_trial(factor: float) -> None:
    """NaN and infinity end the run as TrialFailed, before that epoch is reported."""
    with pytest.raises(TrialFailed, match="the training loss became"):
        run(factor)


def test_epochs_count_from_one_and_the_loss_falls() -> None:
    """`after_epoch` hears 1, 2, … and a mean loss per example, which training lowers."""
    told = run(epochs=8)
    assert [epoch for epoch, _ in told] == list(range(1, 9))
    assert told[-1][1] < told[0][1]


def test_every_rate_falls_along_half_a_cosine_to_zero() -> None:
    """Step k of K runs at half of 1 + cos(π k / K) of the peak; after the last, every group's rate is zero."""
    rates: list[float] = []
    run(epochs=2, rates=rates)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])
    assert cosine_schedule([0.1, 0.3], 6)[-1] == pytest.approx([0, 0], abs=1e-12)


def test_precision_is_for_networks_with_convolutions() -> None:
    """In bfloat16 their logits are rounded; others, and float32, are left alone; the gradients are float32."""
    images = torch.randn(4, 1, 16, 16)
    for network, precision, rounded in (
        ("lenet5", "bfloat16", True),
        ("lenet5", "float32", False),
        ("lenet_300_100", "bfloat16", False),
        ("lenet5", None, best_precision("cpu") == "bfloat16"),
    ):
        model = registry.build(network, (1, 16, 16), 10)
        found = logits(model, images, precision)
        assert found.dtype == torch.float32
        assert torch.equal(found, found.bfloat16().float()) == rounded, (network, precision)
        found.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_rates_are_those_of_pytorch(steps: int) -> None:
    """In every step they are CosineAnnealingLR's to the last bit, for groups with different peaks."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 3e-3)]
    optimiser = torch.optim.SGD(groups, lr=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    for rates in cosine_schedule([0.1, 3e-3], steps):
        assert rates == [group["lr"] for group in optimiser.param_groups]
        optimiser.step()
        schedule.step()


class Fixed(nn.Module):
    """Says class 0 with logit 2 for bright images, class 1 with logit 1 for dark ones; dropout must be off."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) > 0.5
        return self.dropout(
            torch.where(bright[:, None], images.new_tensor([2.0, 0, 0]), images.new_tensor([0.0, 1, 0]))
        )


def test_a_score_by_hand() -> None:
    """Three of four right is 75 %, and the loss is the mean of the four cross-entropies, in evaluation mode."""
    images = torch.tensor([255, 255, 0, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    part = Part(images, torch.tensor([0, 1, 1, 1]))
    data, model = splits(4, 8), Fixed()
    score = evaluate(model, part, data)
    bright, dark = math.log(math.exp(2) + 2), math.log(math.exp(1) + 2)
    assert score.accuracy == 75
    assert score.loss == pytest.approx((bright - 2 + bright + 2 * (dark - 1)) / 4)
    assert not model.training


def test_logits_do_not_depend_on_the_batch_size() -> None:
    """Logits of a part come in its order, in blocks of any size."""
    data = splits(11, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    whole = logits_of(model, data.train.images, data)
    torch.testing.assert_close(logits_of(model, data.train.images, data, batch_size=4), whole)
    assert whole.shape == (11, 3)

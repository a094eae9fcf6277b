"""Random crops and colours: what they show of an image, that they repeat, and that a teacher is asked about them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from shown import batches

from study.artifacts.cache import SharedWork
from study.data.splits import Part, Splits
from study.training.batches import AUGMENTATIONS, LEAST_AREA, SHIFTING, EpochBatches, jitter, resized_crop
from study.training.distillation import Targets, stored_logits, targets_from
from study.training.network import Training, build_network, state_arrays

HALF = torch.full((1,), 0.5)
ONE, ZERO = torch.ones(1), torch.zeros(1)


def colours(count: int, height: int = 12, width: int = 16) -> Splits:
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0))
    part = Part(images.to(torch.uint8), torch.arange(count) % 2)
    return Splits("made", "Made up", ("a", "b"), part, part, (0.0,) * 3, (1 / 255,) * 3, 0)


def test_the_largest_crop_is_the_image() -> None:
    """All of the area at ratio 1 shows each pixel where it was; of an image that is not square, too."""
    images = colours(1, 12, 12).train.images.float()
    torch.testing.assert_close(resized_crop(images, ONE, HALF, HALF, HALF), images, atol=1e-3, rtol=0)
    wide = torch.arange(8.0).repeat(4, 1)[None, None]
    shown = resized_crop(wide, ONE, HALF, HALF, HALF)  # a square of 32 pixels is higher than the image: cut to it
    torch.testing.assert_close(shown[0, 0].mean(dim=0).mean(), torch.tensor(3.5))
    assert 0.5 < float(shown[0, 0, 0, 0]) < 1.5


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_a_crop_is_what_pillow_cuts_and_enlarges(place: float) -> None:
    """By hand: 35 % of 40 × 40 at ratio 4/3 is 27.3 × 20.5 pixels, in a corner, which Pillow enlarges too."""
    image = np.random.default_rng(0).integers(0, 256, (10, 10)).astype(np.uint8)
    smooth = Image.fromarray(image).resize((40, 40), Image.Resampling.BICUBIC)
    width, height = np.sqrt(LEAST_AREA * 1600 * 4 / 3), np.sqrt(LEAST_AREA * 1600 * 3 / 4)
    left, top = place * (40 - width), place * (40 - height)
    wanted = np.asarray(smooth.resize((40, 40), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)))
    chance = torch.full((1,), place)
    pixels = torch.from_numpy(np.asarray(smooth).copy())[None, None].float()
    shown = resized_crop(pixels, ZERO, ONE, chance, chance)[0, 0]
    assert np.abs(shown.numpy() - wanted)[1:-1, 1:-1].max() <= 2  # at its edges Pillow does not look outside the box


def test_colours_change_one_after_another() -> None:
    """By hand: in the middle nothing changes; brightness multiplies, contrast moves from the mean, saturation from
    grey; grey images have no saturation."""
    images = torch.tensor([[100.0, 200.0], [50.0, 50.0], [0.0, 100.0]]).view(1, 3, 1, 2)
    torch.testing.assert_close(jitter(images, HALF, HALF, HALF), images)
    torch.testing.assert_close(jitter(images, ONE, HALF, HALF), (1.4 * images).clamp(max=255))
    grey = torch.tensor([0.299 * 100 + 0.587 * 50, 0.299 * 200 + 0.587 * 50 + 0.114 * 100])
    mean = grey.mean()
    torch.testing.assert_close(jitter(images, HALF, ZERO, HALF), mean + 0.6 * (images - mean))
    torch.testing.assert_close(jitter(images, HALF, HALF, ZERO), grey + 0.6 * (images - grey))
    torch.testing.assert_close(jitter(images[:, :1], HALF, HALF, ONE), images[:, :1])
    assert 0 <= float(jitter(images, ONE, ONE, ONE).min()) and float(jitter(images, ONE, ONE, ONE).max()) <= 255


@pytest.mark.parametrize("augment", ["resized-crop", "resized-crop-jitter"])
def test_views_are_fresh_and_repeat_with_the_seed(augment: str) -> None:
    """Bytes, another view in each epoch; with the same generator the same ones, for a member of a pack as alone."""
    data = colours(12)
    generator = torch.Generator().manual_seed(3)
    first, second = ([*batches(data, 12, augment, generator)][0] for _ in range(2))
    (again,) = batches(data, 12, augment, torch.Generator().manual_seed(3))
    assert torch.equal(first.images, again.images) and first.view.any() and not first.view.all()
    views = [b.images[b.index.argsort()] for b in (first, second)]
    assert not torch.isclose(views[0], views[1]).flatten(1).all(dim=1).any()
    assert torch.allclose(first.images, first.images.round(), atol=1e-3) and float(first.images.min()) >= 0
    pack = EpochBatches(data, augment, members=2)
    pack.shuffle(torch.Generator().manual_seed(9), torch.Generator().manual_seed(3))
    (index,) = pack.split(12)
    assert torch.equal(pack.batch(index).images[1], first.images)


def test_plain_views_draw_what_they_always_drew() -> None:
    """A study that was started before goes on with the same images: the new draws come after all others."""
    for augment in ("none", "flip", "crop"):
        generator, by_hand = (torch.Generator().manual_seed(1) for _ in range(2))
        EpochBatches(colours(12), augment).shuffle(generator)
        torch.randperm(12, generator=by_hand)
        torch.rand(12, generator=by_hand)
        for most in (1, 2) if augment == "crop" else ():
            torch.randint(0, 2 * most + 1, (12,), generator=by_hand)
        assert torch.equal(generator.get_state(), by_hand.get_state())


def moved(image: torch.Tensor, view: int) -> torch.Tensor:
    """One image, (channels, height, width), as the numbered view of `shift1` shows it, pixel by pixel."""
    down, across = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))[view]
    shown = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - across < width:
                shown[:, row, column] = image[:, row - down, column - across]
    return shown


def test_half_of_the_images_move_by_one_pixel() -> None:
    """`shift1` shows each image as the batch's view says, half of them unmoved and each neighbour as often. Members of
    a pack see what they see alone."""
    data = colours(400, 5, 6)
    seen = torch.zeros(5)
    for b in batches(data, 40, "shift1", torch.Generator().manual_seed(2)):
        for index, view, image in zip(b.index, b.view, b.images, strict=True):
            torch.testing.assert_close(image, moved(data.train.images[index].float(), int(view)), rtol=1e-4, atol=1e-3)
        seen += torch.bincount(b.view, minlength=5)
    assert 170 <= seen[0] <= 230 and 35 <= seen[1:].min() and seen[1:].max() <= 65
    (alone,) = batches(data, 400, "shift1", torch.Generator().manual_seed(3))
    pack = EpochBatches(data, "shift1", members=2)
    pack.shuffle(torch.Generator().manual_seed(9), torch.Generator().manual_seed(3))
    (index,) = pack.split(400)
    assert torch.equal(pack.batch(index).images[1], alone.images)
    assert torch.equal(pack.batch(index).view[1], alone.view)


def test_a_teacher_of_moved_images_is_not_asked_again() -> None:
    """With `shift1` the logits of five views are stored, and a batch gets exactly those of the images that it shows."""
    data = colours(30, 5, 6)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 5 * 6, 2))
    (logits,) = stored_logits(model, data.train, data, "shift1").values()
    assert logits.shape == (5, 30, 2)
    targets = Targets(torch.from_numpy(logits))
    for b in batches(data, 10, "shift1", torch.Generator().manual_seed(0)):
        torch.testing.assert_close(targets.of(b), model(b.images).detach(), rtol=1e-4, atol=1e-3)


def test_logits_of_other_views_are_not_taken() -> None:
    """Five stored views of shifts say nothing of a mirror image, nor two of a mirror image of shifts: the teacher is
    asked then. The image as it is, is among all of them."""
    data = colours(6, 28, 28)
    training = Training("lenet_300_100", epochs=1)
    teacher = build_network(training, data)
    for stored, augment, asked in (("shift1", "flip", True), ("flip", "shift1", True), ("shift1", "none", False),
                                   ("flip", "flip", False), ("shift1", "shift1", False)):  # fmt: skip
        shared = SharedWork({**state_arrays(teacher), **stored_logits(teacher, data.train, data, stored)})
        targets = targets_from(shared, training, data, augment)
        assert (targets.teacher is not None) == asked, (stored, augment)


def test_stored_logits_are_of_both_views() -> None:
    """With flip they are stored, in pieces, of the images and of their mirror images; random crops have none."""
    data = colours(5)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 16, 2))
    (logits,) = stored_logits(model, data.train, data, "flip").values()
    images = data.train.images.float()  # mean 0 and deviation 1/255 leave pixels as they are
    wanted = torch.stack([model(images), model(images.flip(-1))]).detach()
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=1e-3)
    assert all(stored_logits(model, data.train, data, augment) == {} for augment in SHIFTING)
    assert {a for a in AUGMENTATIONS if a.startswith("resized")} <= set(SHIFTING)

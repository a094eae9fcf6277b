"""What a trial is given by the work that all trials share."""

from __future__ import annotations

import pytest
import torch
from shown import batches

from study import data, trainables
from study.cache import Shared
from study.settings import KD, SWS, resolve
from study.training import Progress


@pytest.mark.parametrize("augment", ["none", "flip", "shift"])
@pytest.mark.parametrize("teacher", ["self", "lenet_300_100"])
def test_a_compressed_network_is_taught_what_its_teacher_says_of_each_view(teacher: str, augment: str) -> None:
    """Of the images as they are shown, by the teacher as it was trained, however the network has changed meanwhile."""
    network = "lenet_300_100" if teacher == "self" else "minivgg"
    settings = resolve(
        SWS(network=network, network_width=1.0 if teacher == "self" else 0.125, teacher=teacher, teacher_epochs=1,
            pretrain_epochs=1, augment=augment)  # type: ignore[arg-type]
    )  # fmt: skip
    splits, _ = data.load("digits", None, split_seed=0, size=32)
    shared = trainables._pretrain({}, settings, splits, None, lambda row: None, Progress())
    student, targets = trainables.start(settings, splits, Shared(shared.arrays))
    teaching, _ = trainables.start(settings, splits, Shared(shared.arrays))
    if teacher != "self":
        training = trainables.compression_teacher(settings)
        assert training is not None
        weights = {k.removeprefix("teacher/"): v for k, v in shared.arrays.items() if k.startswith("teacher/")}
        teaching = trainables.kd.load(Shared(weights).tensors(), training, splits)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    teaching.eval()
    for batch in batches(splits, 64, augment, torch.Generator().manual_seed(0)):
        expected = teaching(batch.images)
        torch.testing.assert_close(targets.of(batch), expected, rtol=1e-4, atol=1e-4)


def test_a_teacher_of_the_same_architecture_begins_elsewhere() -> None:
    """From the same weights, and with the same order of images, it would say little that its student does not know."""
    same = resolve(KD(teacher="minivgg", student="minivgg", teacher_width=0.25, student_width=0.25))
    other = resolve(KD(teacher="minivgg", student="minivgg", teacher_width=0.5, student_width=0.25))
    assert trainables.teacher_training(same).seed != trainables.student_training(same).seed
    assert trainables.teacher_training(other).seed == trainables.student_training(other).seed == other.seed
    compressing = resolve(SWS(network="lenet_300_100", teacher="lenet_300_100", seed=2**32 - 1))
    teacher = trainables.compression_teacher(compressing)
    assert teacher is not None and 0 <= teacher.seed < 2**32 and teacher.seed != compressing.seed

"""What a trial is given by the work that all trials share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shown import batches

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data import registry
from study.methods.common import pretrained
from study.methods.kd import method
from study.methods.kd.settings import KDSettings
from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.training.network import load_network


@pytest.mark.parametrize("augment", ["none", "flip", "shift"])
@pytest.mark.parametrize("teacher", ["self", "lenet_300_100"])
def test_a_compressed_network_is_taught_what_its_teacher_says_of_each_view(teacher: str, augment: str) -> None:
    """Of the images as they are shown, by the teacher as it was trained, however the network has changed meanwhile."""
    network = "lenet_300_100" if teacher == "self" else "minivgg"
    settings = resolve(
        SWSSettings.of(network=network, network_width=1.0 if teacher == "self" else 0.125, teacher=teacher,
            teacher_epochs=1, pretrain_epochs=1, augment=augment)  # type: ignore[arg-type]
    )  # fmt: skip
    splits, _ = registry.load("digits", None, split_seed=0, size=32)
    shared = pretrained.pretrain({}, settings, splits, None, lambda row: None, Progress())
    student, targets = pretrained.start(settings, splits, SharedWork(shared.arrays))
    teaching, _ = pretrained.start(settings, splits, SharedWork(shared.arrays))
    if teacher != "self":
        training = pretrained.teacher_training(settings)
        assert training is not None
        weights = {k.removeprefix("teacher/"): v for k, v in shared.arrays.items() if k.startswith("teacher/")}
        teaching = load_network(SharedWork(weights).tensors(), training, splits)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    teaching.eval()
    for batch in batches(splits, 64, augment, torch.Generator().manual_seed(0)):
        expected = teaching(batch.images)
        torch.testing.assert_close(targets.of(batch), expected, rtol=1e-4, atol=1e-4)


def test_a_teacher_is_trained_as_long_as_asked_and_one_from_a_file_not_at_all(tmp_path: Path) -> None:
    """Its epochs are those of `--teacher-epochs`; none of none, and of a teacher that was brought."""
    (tmp_path / "teacher.safetensors").touch()
    settings = resolve(KDSettings())
    for epochs, file, trained in (
        (7, None, 7),
        (0, None, 0),
        (None, None, 0),
        (7, tmp_path / "teacher.safetensors", 0),
    ):
        given = settings.changed(teacher_epochs=epochs, teacher_checkpoint=file)
        assert method.teacher_training(given).epochs == trained
    batches_of = [method.teacher_training(settings.changed(batch_size=size)).batch_size for size in (None, 16, 64, 65)]
    assert batches_of == [64, 64, 64, 65]


def test_a_teacher_of_the_same_architecture_starts_elsewhere() -> None:
    """From the same weights, and with the same order of images, it would say little that its student does not know."""
    same = resolve(KDSettings.of(teacher="minivgg", student="minivgg", teacher_width=0.25, student_width=0.25))
    other = resolve(KDSettings.of(teacher="minivgg", student="minivgg", teacher_width=0.5, student_width=0.25))
    assert method.teacher_training(same).seed != method.student_training(same).seed
    assert method.teacher_training(other).seed == method.student_training(other).seed == other.seed
    compressing = resolve(SWSSettings.of(network="lenet_300_100", teacher="lenet_300_100", seed=2**32 - 1))
    teacher = pretrained.teacher_training(compressing)
    assert teacher is not None and 0 <= teacher.seed < 2**32 and teacher.seed != compressing.seed


def test_every_epoch_of_a_student_reports_its_size() -> None:
    """The one that its end has: halving judges by all objectives, and a size may be one."""
    settings = resolve(
        KDSettings.of(teacher="minivgg", teacher_width=0.125, student_width=0.125, teacher_epochs=1, epochs=2)
    )
    splits, _ = registry.load("digits", None, split_seed=0, size=32)
    shared = SharedWork(method.train_teacher({}, settings, splits, None, lambda row: None, Progress()).arrays)
    rows: list[dict[str, object]] = []
    few = method.students_data(settings, splits)
    ended = method.trial({"temperature": 2.0, "alpha": 0.5}, settings, few, shared, rows.append, Progress())
    assert [row["weight_bytes"] for row in rows] == [ended.metrics["weight_bytes"]] * 2
    assert [row["parameters"] for row in rows] == [ended.metrics["parameters"]] * 2

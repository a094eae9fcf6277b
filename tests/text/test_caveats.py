"""What a reader would not think of: images that were seen before they were scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.stats.summary import summarise
from analysis.text.caveats import caveats
from study.records import study_folder
from study.records.study_folder import load


def warnings_with(folder: Path, settings: dict[str, Any], **data: Any) -> str:
    meta = study_folder.read_meta(folder)
    changed = {"data": {**meta["data"], **data}, "settings": {**meta["settings"], **settings}}
    study_folder.write_meta(folder, {**meta, **changed})
    return " ".join(caveats(summarise(load(folder))))


def test_images_in_two_parts_are_a_caveat(tmp_path: Path) -> None:
    """With their counts, of validation and of test; older studies, which did not count them, have none."""
    folder = synthetic.write_kd(tmp_path / "kd")
    assert "pixel for pixel" not in warnings_with(folder, {}, repeated={"validation": 0, "test": 0})
    text = warnings_with(folder, {}, repeated={"validation": 1, "test": 1200}, validation=360, test=10_000)
    assert "1 of 360 validation images is also among the training images, pixel for pixel: " in text
    assert "1,200 of 10,000 test images are also among the training or validation images, pixel for pixel: " in text


def test_what_has_no_shape_of_an_image_is_an_example(tmp_path: Path) -> None:
    """Words for arrays of any shape."""
    folder = synthetic.write_kd(tmp_path / "kd")
    assert "validation part has 100 images: one image is" in warnings_with(folder, {}, validation=100)
    assert "validation part has 100 examples: one example is" in warnings_with(folder, {}, validation=100, shape=[24])


@pytest.mark.parametrize("write", [synthetic.write_kd, synthetic.write_sws])
def test_a_teacher_from_a_file_is_a_caveat(write: Any, tmp_path: Path) -> None:
    """Nobody knows what it was trained on."""
    folder = write(tmp_path / "study")
    assert "--teacher-checkpoint" not in warnings_with(folder, {"teacher_checkpoint": None})
    text = warnings_with(folder, {"teacher_checkpoint": "/home/me/teacher.pt"})
    assert "It may have been trained on the validation or test images" in text


@pytest.mark.parametrize("name", ["checkpoint", "weights"])
def test_a_network_that_was_brought_is_a_caveat(name: str, tmp_path: Path) -> None:
    """Nobody knows what it was trained on; and where there are fresh seeds, all start from it."""
    folder = synthetic.write_sws(tmp_path / "study")
    assert "one trained network" not in warnings_with(folder, {name: None})
    text = warnings_with(folder, {name: "net"})
    assert f"(--{name}). It may have been trained on the validation or test images" in text
    assert ("All fresh seeds start from one trained network" in text) == (not summarise(load(folder)).fresh.empty)


def test_a_baseline_of_another_network_is_a_caveat(tmp_path: Path) -> None:
    """Where students are searched, the reference may be another one than the headline trial."""
    folder = synthetic.write_kd(tmp_path / "kd")
    meta, trials = study_folder.read_meta(folder), study_folder.read_trials(folder, {})
    for student, said in (("vgg8", True), ("minivgg", False)):
        trials["student"] = student
        study_folder.write_frame(folder / "trials.csv", trials)
        space = {**meta["space"], "student": {"type": "choice", "values": ["minivgg", "vgg8"]}}
        study_folder.write_meta(folder, {**meta, "space": space})
        text = " ".join(caveats(summarise(load(folder))))
        assert ("“student alone” is a minivgg, the headline trial a vgg8" in text) == said
    assert "headline trial a" not in " ".join(caveats(summarise(load(synthetic.write_kd(tmp_path / "other")))))


def test_a_trial_of_several_seeds_is_a_caveat(tmp_path: Path) -> None:
    """What its score is, and which network was tested."""
    folder = synthetic.write_kd(tmp_path / "kd")
    assert (
        "means over 3 seeds, all from one teacher; the network that was tested is that of the first"
        in warnings_with(folder, {"seeds_per_trial": 3})
    )

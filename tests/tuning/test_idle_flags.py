"""Flags that nothing of a study would use are refused, and hyperparameters that no trial would use, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from study import run
from study.errors import UserError
from study.pipeline import preflight
from study.settings import Settings, resolve
from study.tuning.idle_flags import check_idle_flags
from study.tuning.space import SearchSpace

MOMENTUM = "has no effect without --optimizer sgd or nesterov; leave it out"
MILESTONES = "has no effect without --schedule step; leave it out"
SPACE = """from ray import tune
SPACE = {"alpha": tune.uniform(0.0, 1.0)}
OBJECTIVES = {"val_accuracy": "max"}
BASELINES = {"sgd": {"alpha": 0.0, "temperature": 4.0, "optimizer": "sgd"}}
"""


def study_of(command: str) -> tuple[Settings, SearchSpace]:
    """A command's settings and what it searches."""
    settings = resolve(run.parse(command.split()))
    return settings, SearchSpace.of_study(settings)


@pytest.fixture
def resume(tmp_path: Path) -> Callable[[str], None]:
    """What a command does before anything starts."""

    def resume(command: str) -> None:
        preflight.resume(*study_of(f"{command} --results-dir {tmp_path}"))

    return resume


@pytest.mark.parametrize(
    "command",
    [
        "kd --milestones 0.5,0.7 --choice schedule=step,cosine",
        "kd --milestones 0.5,0.7 --choice schedule=cosine,step",
        "kd_sws --momentum 0.8 --choice optimizer=adam,nesterov",
        "kd --momentum 0.8 --choice optimizer=sgd,nesterov",
        "kd --momentum 0.8 --fix optimizer=sgd",
        "kd --momentum 0.8 --teacher-optimizer sgd",
        "kd --momentum 0.8 --optimizer sgd --fix optimizer=adamw",  # the teacher's
        "kd --milestones 0.5 --teacher-schedule step",
        "sws --momentum 0.8 --optimizer sgd",
        "sws --momentum 0.8 --teacher lenet5 --teacher-optimizer sgd",
        "magnitude --milestones 0.5 --schedule step",
        "kd --dkd-beta 2 --choice loss=kd,dkd",
        "kd --dkd-beta 2 --loss dkd",
        "kd --dkd-beta 8",  # which it is anyway
        "sws --teacher lenet5 --loss dist --dist-gamma 2",
        "kd --range momentum=0.5:0.9 --choice optimizer=adamw,sgd",
        "kd --fix milestones=0.5,0.7 --schedule step",
    ],
)
def test_what_some_trial_or_the_teacher_uses_is_taken(command: str, resume: Callable[[str], None]) -> None:
    """Whether by a flag, a searched value or one that is fixed."""
    resume(command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("kd --momentum 0.8", f"--momentum 0.8: {MOMENTUM}"),
        ("kd_sws --momentum 0.8 --choice optimizer=adam,adamw", f"--momentum 0.8: {MOMENTUM}"),
        ("ptq --momentum 0.8", f"--momentum 0.8: {MOMENTUM}"),
        ("kd --momentum 0.8 --optimizer sgd --fix optimizer=adamw --teacher-optimizer adam",
         f"--momentum 0.8: {MOMENTUM}"),
        (f"kd --momentum 0.8 --teacher-checkpoint {__file__}", f"--momentum 0.8: {MOMENTUM}"),
        ("kd --milestones 0.5", f"--milestones 0.5: {MILESTONES}"),
        ("sws --milestones 0.5 --schedule constant", f"--milestones 0.5: {MILESTONES}"),
        ("kd --dkd-beta 2", "--dkd-beta 2.0: has no effect without --loss dkd; leave it out"),
        ("kd --dist-gamma 3 --choice loss=kd,ttm", "--dist-gamma 3.0: has no effect without --loss dist; leave it out"),
        ("kd_sws --dist-gamma 3", "--dist-gamma 3.0: has no effect without --loss dist; leave it out"),
        ("sws --loss dkd", "--loss dkd: has no effect without --teacher; leave it out"),
        ("sws --dkd-beta 2", "--dkd-beta 2.0: has no effect without --teacher; leave it out"),
        ("magnitude --temperature 2", "--temperature 2.0: has no effect without --teacher; leave it out"),
        ("sws --teacher self --loss mse --temperature 2",
         "--temperature 2.0: has no effect with --loss mse; leave it out"),
        ("kd --range momentum=0.5:0.9", f"--range momentum=0.5:0.9: momentum: {MOMENTUM}"),
        ("kd_sws --range momentum=0.5:0.9 --teacher-optimizer sgd",
         f"--range momentum=0.5:0.9: momentum: {MOMENTUM}"),
        ("kd --fix milestones=0.5,0.7", f"--fix milestones=0.5,0.7: milestones: {MILESTONES}"),
    ],
)  # fmt: skip
def test_what_nothing_uses_is_refused(command: str, message: str, resume: Callable[[str], None]) -> None:
    """In one line that names the flag and what would give it an effect."""
    with pytest.raises(UserError) as refused:
        resume(command)
    assert str(refused.value) == message


def test_a_baseline_counts_as_a_trial(tmp_path: Path) -> None:
    """A momentum that one baseline alone uses is taken."""
    (tmp_path / "mine.py").write_text(SPACE)
    check_idle_flags(*study_of(f"kd --momentum 0.8 --space {tmp_path / 'mine.py'}"))
    (tmp_path / "mine.py").write_text(SPACE.replace("sgd", "adam"))
    with pytest.raises(UserError, match="--momentum 0.8: has no effect"):
        check_idle_flags(*study_of(f"kd --momentum 0.8 --space {tmp_path / 'mine.py'}"))

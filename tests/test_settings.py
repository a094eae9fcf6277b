"""Defaults that depend on the data set, and settings that contradict a study."""

from __future__ import annotations

import dataclasses

import pytest

from study.errors import UserError
from study.settings import KD, SWS, contradiction, resolve


@pytest.mark.parametrize("kind", [KD, SWS])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100", "folder"])
def test_every_default_is_filled(kind: type, dataset: str) -> None:
    """After `resolve` only what may be absent is None, for every data set."""
    resolved = resolve(kind(dataset=dataset))
    absent = {f.name for f in dataclasses.fields(resolved) if getattr(resolved, f.name) is None}
    assert absent <= {"data_dir", "max_concurrent", "gpus_per_trial", "address", "teacher_checkpoint"}


def test_a_flag_wins_over_the_default() -> None:
    """What the user gave stays, zero included."""
    resolved = resolve(KD(epochs=7, student_examples=0))
    assert resolved.epochs == 7 and resolved.student_examples == 0 and resolved.teacher_epochs == 20


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", ".hidden", "-x"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    """A study's name is a plain folder name."""
    with pytest.raises(UserError, match="--name"):
        resolve(KD(name=name))


def test_only_defining_settings_contradict() -> None:
    """More samples or fewer CPUs go with a study; another temperature schedule, seed or network does not."""
    begun = resolve(KD()).defining()
    assert contradiction(resolve(KD(num_samples=99, cpus_per_trial=2, verbose=True)), begun) == ""
    assert contradiction(resolve(KD(seed=1)), begun) == "--seed 1 (the study has 0)"

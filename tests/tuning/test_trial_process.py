"""What the process of a trial says of itself."""

from __future__ import annotations

import io
import sys

import pytest

from study.tuning import trial_process
from study.tuning.trial_process import TrialOutput


def test_every_line_begins_with_the_trial() -> None:
    """Once a line, however it is written; nothing is changed, and nothing is added where nothing is written."""
    below = io.StringIO()
    out = TrialOutput(below, "t007")
    for text in ("one\ntwo", " and more", "", "\n\nthree\n"):
        assert out.write(text) == len(text)
    assert below.getvalue() == "t007  one\nt007  two and more\nt007  \nt007  three\n"


def test_a_process_says_what_it_trains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Study, trial, epoch and values are in its title; its streams are its own again when the trial has ended."""
    titles: list[str] = []
    monkeypatch.setattr(trial_process, "set_title", titles.append)
    before = sys.stdout, sys.stderr
    config = {"trial_id": "t007", "seed": 3, "temperature": 4.03125, "loss": "kd"}
    with pytest.raises(ValueError), trial_process.trial_process("kd-digits", config) as process:
        process.epoch({"epoch": 2, "val_accuracy": 91.25, "spent": 4.0, "reported": "epoch"})
        print("a warning", file=sys.stderr)
        raise ValueError
    assert (sys.stdout, sys.stderr) == before
    assert titles == [
        "ray::kd-digits t007 starting: temperature=4.031, loss=kd",
        "ray::kd-digits t007 epoch 2 done: temperature=4.031, loss=kd",
        "ray::kd-digits between two trials",
    ]
    lines = capsys.readouterr()
    assert lines.out.splitlines() == [
        "t007  starts in kd-digits, seed=3, temperature=4.031, loss=kd",
        "t007  epoch 2: val_accuracy=91.25",
        "t007  has ended",
    ]
    assert lines.err == "t007  a warning\n"


def test_a_trial_without_values_has_no_colon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the shared work has none."""
    titles: list[str] = []
    monkeypatch.setattr(trial_process, "set_title", titles.append)
    with trial_process.trial_process("kd-digits", {"trial_id": "teacher", "seed": 0}):
        pass
    assert titles[0] == "ray::kd-digits teacher starting"
    assert capsys.readouterr().out.splitlines()[0] == "teacher  starts in kd-digits, seed=0"

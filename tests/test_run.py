"""The command line: every kind of bad input is one line that names the flag, status 2, and nothing left on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from study import run
from study.methods.kd.settings import KDSettings
from study.methods.sws.settings import SWSSettings


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("kd --num-sample 3", "--num-samples"),
        ("kd --num-samples x", "--num-samples"),
        ("kd --num-samples 0", "--num-samples 0"),
        ("kd --searcher foo", "--searcher"),
        ("kd --epochs 0", "--epochs 0"),
        ("kd --name ../x", "--name"),
        ("kd --student nope", "nope"),
        ("kd --dataset nope", "--dataset nope"),
        ("kd --dataset folder", "--data-dir"),
        ("kd --teacher-checkpoint /nope.safetensors", "--teacher-checkpoint /nope.safetensors"),
        ("kd --student-examples 1000", "--student-examples 1000"),
        ("kd --student lenet5 --student-width 0.5", "--student-width 0.5: network lenet5: "),
        ("kd --student lenet5 --teacher lenet_300_100 --teacher-width 0.25", "--teacher-width 0.25: network lenet_300"),
        ("kd --teacher resnet18 --teacher-width 0.5", "--teacher-width 0.5: network resnet18: "),
        ("sws --network-width 0.5", "--network-width 0.5: network lenet_300_100: "),
        ("sws --teacher lenet5 --teacher-width 0.5", "--teacher-width 0.5: network lenet5: "),
        ("kd_sws --student lenet5 --student-width 1", "--student lenet5: kd_sws searches its width from 0.125 to 1"),
        ("sws --network minivgg --network-width -1", "--network-width"),
        ("", "kd, sws"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input gives exit status 2, one line on stderr that names it, and leaves no folder behind."""
    monkeypatch.chdir(tmp_path)
    assert run.main(arguments.split()) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and named in printed
    assert "\n" not in printed
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("kd --teacher-checkpoint /nope.pt", "--teacher-checkpoint /nope.pt: no such file"),
        ("kd --teacher-checkpoint text.pt", "text.pt: not weights of vgg13 here (it is no .safetensors file"),
        ("sws --warm-start /nope", "/nope: no study here"),
        ("kd_sws --student lenet5", "--student lenet5"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(
    arguments: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher's file or another study that is not there is the same line with `--dry-run` and without it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("text")
    assert run.main([*arguments.split(), "--dry-run"]) == 2
    dry = capsys.readouterr()
    assert "weights_only" not in dry.err  # torch's advice is to run whatever such a file says
    assert named in dry.err and dry.err.startswith("error: ") and dry.err.count("\n") == 1 and not dry.out
    assert run.main(arguments.split()) == 2
    assert capsys.readouterr().err == dry.err
    assert [path.name for path in tmp_path.glob("**/*") if path.is_file()] == ["text.pt"]


def test_defaults_are_those_of_the_dataclasses() -> None:
    """With no flags, the command line gives the dataclasses' own defaults."""
    assert run.parse(["kd"]) == KDSettings()
    assert run.parse(["sws", "--num-samples", "5"]) == SWSSettings.of(num_samples=5)


@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_help_names_each_flag_with_its_default(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists every setting, and ends with status 0."""
    with pytest.raises(SystemExit) as ended:
        run.main([kind, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("--num-samples", "--dataset", "--epochs", "--searcher", "--scheduler", "--dashboard", "--seed"):
        assert flag in shown
    assert "default" in shown.lower()


def test_dry_run_tells_the_cost_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--dry-run` names trials, epochs, parameters and the time of each stage, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    assert run.main(["sws", "--dry-run", "--num-samples", "7", "--max-concurrent", "2"]) == 0
    shown = capsys.readouterr().out
    assert "7 trials" in shown and "50,610 parameters" in shown and "a trial of 70 epochs: " in shown
    times = [float(t) for t in re.findall(r"about ([0-9.]+) (?:s|min|h)\b", shown.replace(",", ""))]
    assert len(times) == 4 and all(t > 0 for t in times)
    assert not list(tmp_path.iterdir())

"""The command line: every kind of bad input is one line that names the flag, status 2, and nothing left on disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from study import run
from study.methods import registry
from study.methods.kd.settings import KDSettings
from study.methods.sws.settings import SWSSettings

ROOT = Path(__file__).parents[1]


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
        (
            "kd_sws --student lenet5 --student-width 1",
            "--student lenet5: kd_sws searches student_width, and at 0.125 it cannot be built (",
        ),
        ("sws --network minivgg --network-width -1", "--network-width"),
        ("", "kd, kd_sws, magnitude, ptq or sws"),
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
        (
            "kd --teacher-checkpoint text.pt",
            "text.pt: it is no .safetensors file, and no file of torch.save with tensors alone",
        ),
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


KINDS = ("kd", "kd_sws", "magnitude", "ptq", "sws")


@pytest.mark.parametrize("kind", KINDS)
def test_help_names_each_flag_with_its_default(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists every setting, each under its group, and ends with status 0."""
    with pytest.raises(SystemExit) as ended:
        run.main([kind, "--help"])
    assert ended.value.code == 0
    shown = re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯|]", " ", capsys.readouterr().out)  # without colours and boxes
    groups = [
        "options",
        *(
            f"{group} options"
            for group in ("budget", "search", "searched", "files", "resources", "watching", "tracking", "measuring")
        ),
    ]
    _, *rest = re.split(r"^ +((?:[a-z]+ )?options) +$", shown, flags=re.MULTILINE)
    parts = dict(zip(rest[::2], rest[1::2], strict=True))
    assert list(parts) == groups
    for flag, group in {
        "--num-samples": "budget options",
        "--dry-run": "budget options",
        "--searcher": "search options",
        "--scheduler": "search options",
        "--range": "searched options",
        "--results-dir": "files options",
        "--max-concurrent": "resources options",
        "--dashboard": "watching options",
        "--dataset": "options",
        **({} if kind == "ptq" else {"--epochs": "options"}),  # nothing is trained
        "--seed": "options",
    }.items():
        assert [
            title for title, part in parts.items() if re.search(rf"^ {{1,3}}{flag}\b(?!-)", part, re.MULTILINE)
        ] == [group]
    for name in registry.default_settings(kind).flat().keys() - {"contiguous", "default_rate"}:  # not given
        assert re.search(rf"^ {{1,3}}--{name.replace('_', '-')}\b(?!-)", shown, re.MULTILINE), name
    assert "default" in shown.lower()
    assert "--kind" not in shown and "--budget" not in shown


@pytest.mark.parametrize("arguments", ["--help", *(f"{kind} --help" for kind in KINDS)])
def test_help_waits_for_neither_torch_nor_ray(arguments: str) -> None:
    """What takes seconds to import is imported for a study alone."""
    code = (
        "import sys; from study import run\n"
        "try:\n    run.main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    slow = {'torch', 'ray', 'optuna', 'pandas', 'plotly'} & set(sys.modules)\n"
        "    print(ended.code, sorted(slow))"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout[-300:]
    assert not done.stderr


def test_help_lists_the_kinds_of_study(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it does, in the order of the alphabet."""
    with pytest.raises(SystemExit) as ended:
        run.main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    described = [line.split() for line in lines if line[:1].isalpha() and line.split()[0] in KINDS]
    assert [words[0] for words in described] == list(KINDS) and all(len(words) > 5 for words in described)


def test_dry_run_says_the_cost_and_writes_nothing(
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


NAMES = ("analysis", "search_spaces", "random", "torch", "ray", "plotly", "rich", "tyro", "pandas")


@pytest.mark.parametrize(
    ("module", "names", "flags"),
    [("study.run", NAMES, []), ("analysis.query", ("study", *NAMES[1:]), []), ("study.run", ("study", *NAMES), ["-P"])],
)
def test_files_of_the_current_folder_hide_no_module(
    module: str, names: tuple[str, ...], flags: list[str], tmp_path: Path
) -> None:
    """A user's own random.py, torch.py or analysis.py is left alone. A study.py hides the command from Python itself,
    unless Python is told not to look there."""
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py is in the way')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *flags, "-m", module, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "usage" in done.stdout.lower() and not done.stderr, done.stderr[-500:]


def test_output_that_nobody_reads_ends_quietly() -> None:
    """As in `--help | head -0`: status 0, and nothing of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "study.run", "--help"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == 0 and not done.stderr

"""The command line: every kind of bad input is one line that names the flag, status 2, and nothing left on disk."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from study import help_text, run
from study.flag_marks import HEADINGS
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


def printed(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends at once, with status 0."""
    with pytest.raises(SystemExit) as ended:
        run.main(arguments.split())
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_by_group(page: str) -> dict[str, str]:
    """Heading of the help → what stands under it."""
    _, *rest = re.split(r"^([A-Z][a-z]+)$", page, flags=re.MULTILINE)
    return dict(zip(rest[::2], rest[1::2], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_help_all_names_each_flag_with_its_default(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help-all` lists every setting once, each under its group, and ends with status 0."""
    shown = printed(f"{kind} --help-all", capsys)
    parts = flags_by_group(shown)
    assert tuple(parts) == HEADINGS
    for flag, group in {
        "--num-samples": "Study",
        "--dry-run": "Study",
        "--searcher": "Search",
        "--scheduler": "Search",
        "--range": "Search",
        "--results-dir": "Output",
        "--data-dir": "Data",
        "--max-concurrent": "Resources",
        "--dashboard": "Output",
        "--dataset": "Data",
        "--epochs": "Training" if kind != "ptq" else "",  # where nothing is trained
        "--seed": "Study",
        "--student": "Networks" if kind.startswith("kd") else "",
        "--network": "Networks" if not kind.startswith("kd") else "",
        "--pack": "Resources" if kind in ("kd", "sws", "magnitude") else "",
    }.items():
        assert [
            title for title, part in parts.items() if re.search(rf"^ {{1,3}}{flag}\b(?!-)", part, re.MULTILINE)
        ] == [group][: bool(group)], flag
    for name in registry.default_settings(kind).flat().keys() - {"contiguous", "default_rate"}:  # not given
        assert len(re.findall(rf"^ {{1,3}}--{name.replace('_', '-')}\b(?!-)", shown, re.MULTILINE)) == 1, name
    assert not re.search(r"^ {1,3}--(kind|budget)", shown, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_help_is_short(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At 80 columns it has fewer than 100 lines, no flag more than two, no line more than 80 letters."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = printed(f"{kind} --help", capsys)
    lines = shown.splitlines()
    assert len(lines) < 100 and max(map(len, lines)) <= 80
    assert tuple(flags_by_group(shown)) == HEADINGS
    flags = re.split(r"^ {2}(?=--)", shown, flags=re.MULTILINE)[1:]
    assert len(flags) > 30
    for text in flags:
        own = text.split("\n\n")[0].rstrip()
        assert own.count("\n") < 2 and own.count("[") <= 1, own
    assert f"{kind} --help-all" in lines[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_help_has_true_defaults(kind: str) -> None:
    """In brackets stands what a command without the flag has, unless it depends on the machine or the data set."""
    settings = registry.default_settings(kind).flat()
    shown = [entry for entry in help_text.entries(registry.default_settings(kind)) if "[" in entry.brief]
    for entry in shown:
        value, stated = settings[entry.name], re.findall(r"\[(.*)\]$", entry.brief)
        if value is not None:
            words = {True: "on"} if isinstance(value, bool) else {}
            default = words.get(value, f"{value:g}" if isinstance(value, float) else str(value))
            assert stated == [default], entry.name
        assert f"{entry.text} {entry.default}".count("Default: ") == 1, entry.name
    assert len(shown) > 25


def test_words_that_stand_for_values_are_read_by_people(capsys: pytest.CaptureFixture[str]) -> None:
    """No types of Python, and no {None}."""
    shown = printed("sws --help-all", capsys)
    for usage in ("--num-samples N", "--space FILE", "--results-dir DIR", "--min-accuracy PERCENT", "--time TIME",
                  "--trial-timeout SECONDS", "--variant {soft,hard}", "--dashboard, --no-dashboard", "--dry-run",
    ):  # fmt: skip
        assert re.search(rf"^  {re.escape(usage)}( |$)", shown, re.MULTILINE), usage
    assert not re.search(r"\b(INT|FLOAT|STR|PATH)\b|{None", shown)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the name of the command."""
    assert printed("--version", capsys) == f"compression-study {metadata.version('compression-study')}\n"


def test_an_installation_adds_a_command(tmp_path: Path) -> None:
    """`compression-study` is `python -m study.run`, and calls itself by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"][project["name"]].split(":")
    script = tmp_path / project["name"]  # as pip writes it
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments, code, words in (
        (["kd", "--help"], 0, "usage: compression-study kd [FLAGS]"),
        (["kd", "--num-sample", "3"], 2, "did you mean --num-samples? (see compression-study kd --help)"),
    ):
        command = [sys.executable, str(script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == code and words in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_shells_complete_kinds_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script is of the installed command, with every kind and its flags."""
    script = printed(f"--tyro-print-completion {shell}", capsys)
    assert "compression-study" in script and all(word in script for word in (*KINDS, "--num-samples", "--variant"))


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
def test_bash_completes_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a reader's shell does it: `sws --num` becomes `--num-samples`."""
    (tmp_path / "script").write_text(printed("--tyro-print-completion bash", capsys))
    typed = "COMP_WORDS=(compression-study sws --num-s) COMP_CWORD=2; _tyro_compression_study; echo ${COMPREPLY[@]}"
    command = ["bash", "-c", f"source {tmp_path}/script; {typed}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "--num-samples"


def test_somebody_at_a_terminal_is_answered_at_once(tmp_path: Path) -> None:
    """The first line of a study comes after less than a second of computing, before torch and Ray are loaded."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "study.run", "kd", "--teacher-checkpoint", "/nope.pt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as study:
        os.close(theirs)
        first = os.read(ours, 1000).decode()
        times = Path(f"/proc/{study.pid}/stat").read_text().rpartition(")")[2].split()[11:13]  # user and system
        study.kill()
    os.close(ours)
    assert first.splitlines()[0] == "Loading PyTorch and Ray ..."
    assert sum(map(int, times)) / os.sysconf("SC_CLK_TCK") < 1


def test_a_shell_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It names those that are."""
    assert run.main(["--tyro-print-completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "error: --tyro-print-completion tcsh: give bash, fish or zsh\n"


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

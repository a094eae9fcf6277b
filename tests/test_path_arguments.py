"""Paths on the command line: `~` is expanded, and what is no path of this machine is one line, in every command."""

from __future__ import annotations

import importlib.util
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from analysis import query, report
from study import addresses, evaluate, export, reproduce, run
from study.commandline import parse
from study.errors import UserError
from study.methods import registry
from study.path_arguments import File, Folder, PathTo, _marks, complete_paths

COMMANDS: list[tuple[ModuleType, type, str]] = [
    *(
        (run, registry.settings_class(k), f"{k} --results-dir=@ --data-dir @ --warm-start @ --space @")
        for k in registry.names()
    ),  # fmt: skip
    (reproduce, reproduce.Options, "@ t001 --data-dir @"),
    (evaluate, evaluate.Options, "@ @ --data-dir @"),
    (export, export.Options, "@ --to @ --data-dir @"),
    (report, report.Arguments, "@ @ --out @ --png @ --svg @"),
    (query, query.Options, "@ max --csv @ --json @"),
]
"""Each command, its options, and all its paths, each in the place of an @."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, which is also where the command runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_teacher(options: type, arguments: str) -> list[str]:
    flags = [f"--{n.replace('_', '-')} @" for n in ("teacher_checkpoint", "checkpoint") if n in path_fields(options)]
    return " ".join([arguments, *flags]).split()


def parsed(module: ModuleType, options: type, argv: list[str]) -> object:
    return run.parse(argv) if module is run else parse(options, module.PROG, None, argv)


def paths_in(options: object) -> list[Path]:
    """Every path in a dataclass, at any depth."""
    if isinstance(options, Path):
        return [options]
    parts = options if isinstance(options, tuple) else getattr(options, "__dict__", {}).values()
    return [path for part in parts for path in paths_in(part)]


def path_fields(options: type) -> dict[str, PathTo]:
    """Name → mark of every field that is a path, at any depth."""
    fields = {}
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        if hasattr(hint, "__dataclass_fields__"):
            fields |= path_fields(hint)
        elif "Path" in str(hint):
            fields[name] = next(_marks(hint))  # every path says what it leads to
    return fields


@pytest.mark.parametrize(("module", "options", "arguments"), COMMANDS)
def test_a_home_folder_is_meant_by_a_tilde(module: ModuleType, options: type, arguments: str, home: Path) -> None:
    """In every path that the command takes, also where no shell expands it, as after `--flag=`."""
    argv = with_teacher(options, arguments)
    given = [argument.replace("@", f"~/{i}") for i, argument in enumerate(argv)]
    paths = paths_in(parsed(module, options, given))
    assert sorted(paths) == sorted(home / str(i) for i, argument in enumerate(argv) if "@" in argument)
    hints = typing.get_type_hints(options)
    several = {name for name in path_fields(options) if "tuple" in str(hints.get(name))}
    assert len(paths) == len(path_fields(options)) + len(several), "a path that this test does not know"


@pytest.mark.parametrize(("module", "options", "arguments"), COMMANDS)
def test_every_command_refuses_an_address(
    module: ModuleType, options: type, arguments: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With status 2 and one line, where it would be a local folder `hdfs:` otherwise; but for those of buckets."""
    argv = arguments.replace("@", "here" if module is run else "hdfs://bucket/NAME").split()
    if module is run:
        argv[1] = "--results-dir=hdfs://bucket/NAME"
    try:
        status = module.main(argv)
    except SystemExit as ended:
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and not list(home.iterdir())
    assert "hdfs://bucket/NAME: hdfs:// is not supported; give a path on this machine" in error
    assert error.startswith("error: --results-dir hdfs://" if module is run else "error: hdfs://")


def test_the_address_of_a_bucket_stands_for_its_copy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the folder of the results, and for a study or a file that is read; the copies of both are apart, nothing is
    downloaded yet, and the path knows its address. Without the package, or a bucket, it is one line."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    results = run.parse("kd --results-dir s3://bucket//some/results/".split()).files.results_dir
    assert results.is_relative_to(home / ".cache/compression-study")
    assert addresses.address_of(results / "kd-digits") == "s3://bucket/some/results/kd-digits"
    options = parse(query.Options, query.PROG, None, ["s3://bucket/some/results/kd-digits", "max"])
    assert addresses.address_of(options.study) == "s3://bucket/some/results/kd-digits"
    assert addresses.is_reading_copy(options.study) and not addresses.is_reading_copy(results / "kd-digits")
    assert (
        addresses.address_of(home / "results") is None
        and not (results / "kd-digits").exists()
        and not options.study.exists()
    )
    for wrong in ("s3://", "s3:///x", "gs://a/../b"):
        with pytest.raises(UserError, match=f"^--results-dir {wrong}: is no address of a bucket"):
            run.parse(["kd", "--results-dir", wrong])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--results-dir gs://b/r: needs the package gcsfs.*pip install gcsfs"):
        run.parse("kd --results-dir gs://b/r".split())


@dataclass(frozen=True)
class Group:
    a_folder: Folder | None = None


@dataclass(frozen=True)
class Options:
    group: Group = field(default_factory=Group)
    a_file: File | None = None
    others: tuple[Folder, ...] = ()


def completed(flag: str, path: str) -> list[Path]:
    """The path, as the value of a flag of `Options`, or without a flag."""
    options = {
        "--a-folder": Options(group=Group(Path(path))),
        "--a-file": Options(a_file=Path(path)),
        "": Options(others=(Path("."), Path(path))),
    }
    return paths_in(complete_paths(options[flag], [flag, path] if flag else [".", path]))


def refusal(flag: str, path: str) -> str:
    with pytest.raises(UserError) as refused:
        completed(flag, path)
    line = str(refused.value)
    assert line.startswith(f"{flag} {path[:150]}".strip().split("\0")[0]) and len(line) < 320 and line.isprintable()
    return line


FLAGS = ["--a-folder", "--a-file", ""]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("scheme", ["s3", "gs", "hdfs", "file", "https", "abfs+x"])
def test_an_address_is_refused(flag: str, scheme: str, home: Path) -> None:
    """Of any scheme."""
    for address in (f"{scheme}://bucket/study", f"{scheme}://", f"{scheme}:///a/b"):
        assert f": {scheme}:// is not supported; give a path on this machine" in refusal(flag, address)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a" * 5000, "is too long; give a shorter path"),
        ("/".join(["a" * 200] * 25), "is too long; give a shorter path"),
        ("new/" + "é" * 130, "is too long; give a shorter path"),
        ("a\0b", "is no path (embedded null byte); give another one"),
        ("~nobody-of-this-name/a", "is no path (Could not determine home directory.); give another one"),
        ("loop", "cannot be used (Too many levels of symbolic links); give another path"),
        ("file/inside", "cannot be used (Not a directory); give another path"),
    ],
)
def test_what_cannot_be_a_path_is_one_line(flag: str, path: str, problem: str, home: Path) -> None:
    """It names the flag and what is wrong, and is no page long."""
    (home / "file").write_text("")
    (home / "loop").symlink_to("loop")
    assert refusal(flag, path).endswith(f": {problem}")


def test_a_folder_is_no_file_and_a_file_no_folder(home: Path) -> None:
    """What is right is taken, and so is what is not there yet."""
    (home / "folder").mkdir()
    (home / "file").write_text("")
    os.mkfifo(home / "pipe")
    assert refusal("--a-file", "folder") == "--a-file folder: is a folder; give a file"
    for path in ("file", "pipe"):
        assert refusal("--a-folder", path) == f"--a-folder {path}: is no folder; give a folder"
        assert refusal("", path) == f"{path}: is no folder; give a folder"
        assert completed("--a-file", path) == [Path(path)]
    for path in ("folder", "new", "new/new"):
        assert completed("--a-folder", path) == [Path(path)]


def test_a_local_folder_may_have_a_colon(home: Path) -> None:
    """Only an address is one: `scheme://` as it was typed."""
    for name in ("s3:/bucket", "a:b", "x/s3://y", "./s3://y"):
        assert completed("--a-folder", name) == [Path(name)]


def test_a_name_longer_than_a_folder_can_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It is part of a path."""
    assert run.main(["kd", "--name", "a" * 300]) == 2
    assert capsys.readouterr().err == f"error: --name {'a' * 50}…: is too long; give 255 letters at most\n"

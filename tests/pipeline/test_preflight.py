"""What a command builds on is checked before anything starts: a refusal is one line, status 2, and writes nothing."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray import tune

from study import reproduce, run
from study.errors import UserError
from study.pipeline import metadata, preflight
from study.pipeline.configurations import configuration_of
from study.records import columns, paths, study_folder
from study.records.identity import configuration_hash
from study.settings import resolve
from study.tuning import ray_start
from study.tuning.space import SearchSpace


def images(folder: Path, seed: int) -> Path:
    """A tiny data set for --dataset folder."""
    noise = np.random.default_rng(seed)
    for part, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(folder / part / name / f"{i}.png")
    return folder


SOFT = ("sws", "--variant", "soft")


def start_study(*arguments: str) -> Path:
    """The folder of a study that was started with this command, and then cut off."""
    settings = resolve(run.parse([*arguments]))
    space = SearchSpace.of_study(settings)
    data, test = preflight.load_data(settings)
    networks = preflight.describe_networks(settings, space, data)
    meta = metadata.study_metadata(settings, space, data, test, networks, ["", *arguments])
    study_folder.write_meta(settings.folder, meta)
    return settings.folder


class Started(Exception):
    """The command got as far as Ray."""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The line with which a command is refused; raises `Started` if it is not."""

    def start(settings: Any) -> str:
        raise Started

    def line(*arguments: str) -> str:
        before = files()
        assert run.main([*arguments]) == 2
        printed = capsys.readouterr().err.strip()
        assert printed.startswith("error: ") and "\n" not in printed and files() == before
        return printed

    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in tmp_path.glob("results/**/*") if p.is_file() and p.name != ".lock"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_start, "start_ray", start)
    return line


def change(folder: Path, **changed: Any) -> None:
    """Replace entries of a study's study.json."""
    study_folder.write_meta(folder, {**study_folder.read_meta(folder), **changed})


def test_a_study_keeps_its_data(tmp_path: Path, refused: Any) -> None:
    """Other images under another --data-dir are refused; the same ones elsewhere are not, nor is a study that did not
    yet record which images it has."""
    first, moved, other = images(tmp_path / "a", 0), images(tmp_path / "moved", 0), images(tmp_path / "b", 1)
    command = ["sws", "--dataset", "folder", "--data-dir"]
    folder = start_study(*command, str(first))
    line = refused(*command, str(other))
    assert f"--data-dir {other}: " in line and f"which lay in {first}" in line and "train, validation, test" in line
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(first / "test" / "cat" / "0.png")
    assert "its test images" in refused(*command, str(first))
    with pytest.raises(Started):
        run.main([*command, str(moved)])
    meta = json.loads((folder / paths.STUDY).read_text())
    change(folder, data={k: v for k, v in meta["data"].items() if k != "fingerprints"})
    with pytest.raises(Started):
        run.main([*command, str(other)])


def test_a_study_keeps_its_search_space(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range, an objective or a baseline that was edited since is refused with what it is and was, all in one line;
    the space as it was goes on."""
    folder = start_study(*SOFT)
    spaces = importlib.import_module("search_spaces.sws")
    with monkeypatch.context() as edited:
        edited.setitem(spaces.SPACE, "components", tune.randint(4, 200))
        line = refused(*SOFT)
        assert "search_spaces/sws.py: space 'components' is " in line and "'high': 199" in line and "has {" in line
        edited.setitem(spaces.SPACE, "anneal", tune.uniform(0, 1))
        edited.setitem(spaces.OBJECTIVES, "sparsity", "min")
        edited.delitem(spaces.BASELINES, "paper mixture")
        line = refused(*SOFT)
        assert "space 'anneal' is " in line and "objectives 'sparsity' is min (the study has max)" in line
        assert "baselines 'paper mixture' is None (the study has {" in line
    change(folder, **SearchSpace.load("sws").as_json())
    with pytest.raises(Started):
        run.main([*SOFT])


def test_a_study_keeps_its_precision(refused: Any) -> None:
    """A command without --precision goes on with the one that the study recorded, or with float32 where it is older
    than that; one that was asked for must be the study's own. A new study has none yet."""
    arguments = [*SOFT, "--precision", "bfloat16"]
    settings, space = resolve(run.parse([*SOFT])), SearchSpace.load("sws")
    new, recorded = preflight.resume(settings, space)
    assert new.precision is None and recorded is None
    folder = start_study(*arguments)
    continued, recorded = preflight.resume(settings, space)
    assert continued.precision == "bfloat16" and recorded is not None
    assert preflight.resume(resolve(run.parse(arguments)), space)[0].precision == "bfloat16"
    assert "other settings: " in refused(*SOFT, "--precision", "float32")
    meta = study_folder.read_meta(folder)
    change(folder, settings={k: v for k, v in meta["settings"].items() if k != "precision"})
    assert preflight.resume(settings, space)[0].precision == "float32"
    assert "other settings: " in refused(*arguments)


def test_a_study_keeps_its_networks_code(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `module:function` that was edited since is refused by its flag, whichever role it has; one that is as it was
    goes on, and so does a study that did not record it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two of these files are of one length and one second

    def write(act: str) -> None:
        (tmp_path / "own.py").write_text(
            "from torch import nn\n\n\ndef build(input_shape, classes):\n"
            "    pixels = input_shape[0] * input_shape[1] * input_shape[2]\n"
            f"    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.{act}(), nn.Linear(8, classes))\n"
        )
        sys.modules.pop("own", None)

    for command in (["sws", "--network", "own:build"], ["kd", "--student", "own:build"]):
        write("ReLU")
        folder = start_study(*command)
        with pytest.raises(Started):
            run.main(command)
        write("Tanh")
        assert refused(*command).startswith(f"error: {' '.join(command[1:])}: its code is not what it was when ")
        described = study_folder.read_meta(folder)["models"]
        change(folder, models={r: {k: v for k, v in m.items() if k != "code"} for r, m in described.items()})
        with pytest.raises(Started):
            run.main(command)


def test_a_trial_is_not_reproduced_without_what_it_was_built_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher's file that has gone, and a kind that this version does not have, are one line that names study.json;
    the file is recorded so that it is found from any folder."""
    monkeypatch.chdir(tmp_path)
    folder = start_study("kd", "--teacher-checkpoint", "teacher.pt").resolve()
    assert study_folder.read_meta(folder)["settings"]["teacher_checkpoint"] == str(tmp_path.resolve() / "teacher.pt")
    row = {"trial_id": "t001", "state": "complete", "epochs": 1}
    study_folder.write_rows(folder / paths.TRIALS, [row], columns.TRIAL_COLUMNS)
    assert reproduce.main([str(folder), "t001"]) == 2
    printed = capsys.readouterr().err
    teacher = tmp_path.resolve() / "teacher.pt"
    assert printed.startswith(f"error: {folder / paths.STUDY}: --teacher-checkpoint {teacher}")
    assert printed.count("\n") == 1
    change(folder, kind="nope")
    assert reproduce.main([str(folder), "t001"]) == 2
    printed = capsys.readouterr().err
    assert printed == (f"error: {folder / paths.STUDY}: kind 'nope' is unknown; this version of the harness has "
                    "kd, kd_sws, magnitude, ptq, sws\n")  # fmt: skip


def test_a_users_network_is_not_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study folder may come from a stranger, and its code with it: `reproduce` imports a network of the user's own
    only if its name is given."""
    monkeypatch.chdir(tmp_path)
    folder = start_study(*SOFT)
    (tmp_path / "strange_net.py").write_text("raise RuntimeError('imported')")
    change(folder, settings={**study_folder.read_meta(folder)["settings"], "network": "strange_net:build"})
    study_folder.write_rows(
        folder / paths.TRIALS, [{"trial_id": "t001", "state": "complete", "epochs": 1}], columns.TRIAL_COLUMNS
    )
    for given, words in (([], "add --network strange_net:build"), (["--network", "strange_net:build"], "imported")):
        assert reproduce.main([str(folder), "t001", *given]) == 2
        printed = capsys.readouterr().err
        assert words in printed and printed.count("\n") == 1
        assert ("imported" in printed) == bool(given)


@pytest.mark.parametrize("kind", ["sws", "sws --variant hard", "magnitude"])
def test_a_network_that_cannot_be_packed(
    kind: str, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that decides by what it sees is refused with the flag before anything starts; without the flag it is not."""
    (tmp_path / "branching.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = [*kind.split(), "--network", "branching:build", "--num-samples", "1"]
    line = refused(*command, "--pack", "4")
    assert line.startswith("error: --pack 4: branching:build cannot be trained in packs (") and "vmap" in line
    with pytest.raises(Started):
        refused(*command)
    with pytest.raises(Started):
        refused(*kind.split(), "--pack", "4", "--num-samples", "1")


def test_a_student_that_cannot_be_packed(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is one of several that are searched, by its name; so is a search of what members share."""
    (tmp_path / "branching.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["kd", "--teacher", "lenet_300_100", "--student", "lenet_300_100", "--num-samples", "1"]
    packed = [*command, "--pack", "4"]
    for given in (["--student", "branching:build"], ["--choice", "student=lenet_300_100,branching:build"]):
        line = refused(*packed, *given)
        assert line.startswith("error: --pack 4: branching:build cannot be trained in packs (") and "vmap" in line
        with pytest.raises(Started):
            refused(*command, *given)
    line = refused(*packed, "--range", "learning_rate=0.001:0.1:log")
    reason = "search_spaces/kd.py sets learning_rate, which all trials of a pack have in common"
    assert line == f"error: --pack 4: lenet_300_100 cannot be trained in packs ({reason}); leave --pack out"
    with pytest.raises(Started):
        refused(*packed)


BRANCHING = """
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return logits if logits.sum() > 0 else -logits

def build(input_shape, classes):
    return Branching()
"""


def test_a_study_that_lost_its_description_is_not_started_again(tmp_path: Path) -> None:
    """Its trials may have had other settings; the command says which file is missing."""
    settings = resolve(run.parse([*SOFT, "--results-dir", str(tmp_path), "--name", "lost"]))
    settings.folder.mkdir()
    (settings.folder / paths.TRIALS).write_text("trial_id,state\n")
    with pytest.raises(UserError, match="study.json: missing, though trials.csv is there"):
        preflight.resume(settings, SearchSpace.load("sws"))


def test_what_is_doubtful_about_the_data_is_recorded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in two parts with their count, links that were not followed, and a teacher from a file, a line each; of
    clean data no line, also if a study started before they were counted."""
    monkeypatch.chdir(tmp_path)
    clean = images(tmp_path / "clean", 0)
    folder = start_study("kd", "--student-examples", "2", "--dataset", "folder", "--data-dir", str(clean))
    meta = study_folder.read_meta(folder)
    assert meta["data"]["repeated"] == {"validation": 0, "test": 0} and metadata.data_warnings(meta) == []
    old = {name: value for name, value in meta["data"].items() if name not in ("repeated", "links_left_out")}
    assert metadata.data_warnings({**meta, "data": old}) == []

    for i in range(30):
        (clean / f"train/cat/copy{i}.png").write_bytes((clean / "test/dog/1.png").read_bytes())
    (clean / "train/cat/up").symlink_to("..")
    given = ["--teacher-checkpoint", "teacher.pt", "--name", "second"]
    folder = start_study("kd", "--student-examples", "2", "--dataset", "folder", "--data-dir", str(clean), *given)
    meta = study_folder.read_meta(folder)
    validation = meta["data"]["repeated"]["validation"]
    assert 1 <= validation <= 5 and meta["data"]["repeated"]["test"] == 1 and meta["data"]["links_left_out"] == 1
    assert metadata.data_warnings(meta) == [
        "Warning: also in an earlier part of the data, pixel for pixel: "
        f"{validation} of 5 validation images, 1 of 4 test images",
        "Links left out, since they lead to what is read anyway or was hidden: 1",
        "Warning: the teacher of --teacher-checkpoint may have seen the validation or test images when it was trained",
    ]


def test_a_path_that_is_not_utf8_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """study.json is UTF-8 all the same, and has the very path; the command is printable."""
    monkeypatch.chdir(tmp_path)
    data = images(tmp_path / os.fsdecode(b"caf\xe9"), 0)
    folder = start_study("magnitude", "--dataset", "folder", "--data-dir", str(data))
    assert (folder / paths.STUDY).read_bytes().decode("utf-8")
    meta = study_folder.read_meta(folder)
    assert Path(meta["settings"]["data_dir"]) == data and meta["command"].isprintable()
    assert meta["data"]["title"] == r"caf\udce9"


def test_another_study_that_is_none_names_the_flag(refused: Any, tmp_path: Path) -> None:
    """A folder without one, or none at all."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert refused("kd", "--warm-start", str(folder)).startswith(f"error: --warm-start {folder}: no study here ")


def test_results_of_an_older_version_stay_those_of_their_trials(refused: Any) -> None:
    """A setting that `study.json` does not have yet is no part of the hash of what that study tested."""
    folder = start_study(*SOFT)
    settings, space = resolve(run.parse([*SOFT])), SearchSpace.load("sws")
    row = {"baseline": "paper mixture"}
    recorded = json.loads((folder / paths.STUDY).read_text())["settings"]
    now = configuration_of(settings, space, row, 0)
    assert (
        now == configuration_hash("sws", settings.defining(), "paper mixture", space.baselines["paper mixture"], 0)
        and "optimizer" in settings.defining()
    )
    older = {name: value for name, value in recorded.items() if name not in ("optimizer", "ema")}
    change(folder, settings=older)
    known = {name: value for name, value in settings.defining().items() if name in older}
    assert configuration_of(settings, space, row, 0) != now
    assert configuration_of(settings, space, row, 0) == configuration_hash(
        "sws", known, "paper mixture", space.baselines["paper mixture"], 0
    )

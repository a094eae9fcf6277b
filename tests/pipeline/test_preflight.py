"""What a command builds on is checked before anything starts: a refusal is one line, status 2, and writes nothing."""

from __future__ import annotations

import importlib
import json
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
from study.records import columns, paths, study_folder
from study.settings import resolve
from study.tuning import cluster, space


def images(folder: Path, seed: int) -> Path:
    """A tiny data set for --dataset folder."""
    noise = np.random.default_rng(seed)
    for part, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(folder / part / name / f"{i}.png")
    return folder


def begin(*arguments: str) -> Path:
    """The folder of a study that was begun with this command, and then cut off."""
    settings = resolve(run.parse([*arguments]))
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    data, test = preflight.load_data(settings)
    networks = preflight.describe_networks(settings, spaces, data)
    study_folder.write_meta(
        settings.folder, metadata.study_metadata(settings, spaces, data, test, networks, ["", *arguments])
    )
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
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said and files() == before
        return said

    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in tmp_path.glob("results/**/*") if p.is_file() and p.name != ".lock"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "start_ray", start)
    return line


def change(folder: Path, **changed: Any) -> None:
    """Replace entries of a study's study.json."""
    study_folder.write_meta(folder, {**study_folder.read_meta(folder), **changed})


def test_a_study_keeps_its_data(tmp_path: Path, refused: Any) -> None:
    """Other images under another --data-dir are refused; the same ones elsewhere are not, nor is a study that did not
    yet record which images it has."""
    first, moved, other = images(tmp_path / "a", 0), images(tmp_path / "moved", 0), images(tmp_path / "b", 1)
    command = ["sws", "--dataset", "folder", "--data-dir"]
    folder = begin(*command, str(first))
    said = refused(*command, str(other))
    assert f"--data-dir {other}: " in said and f"which lay in {first}" in said and "train, validation, test" in said
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
    the space as it was goes on, and so does a study that did not record it."""
    folder = begin("sws")
    spaces = importlib.import_module("search_spaces.sws")
    with monkeypatch.context() as edited:
        edited.setitem(spaces.SPACE, "components", tune.randint(4, 200))
        said = refused("sws")
        assert "search_spaces/sws.py: space 'components' is " in said and "'high': 199" in said and "has {" in said
        edited.setitem(spaces.SPACE, "anneal", tune.uniform(0, 1))
        edited.setitem(spaces.OBJECTIVES, "sparsity", "min")
        edited.delitem(spaces.BASELINES, "paper mixture")
        said = refused("sws")
        assert "space 'anneal' is " in said and "objectives 'sparsity' is min (the study has max)" in said
        assert "baselines 'paper mixture' is None (the study has {" in said
        meta = study_folder.read_meta(folder)
        study_folder.write_meta(
            folder, {k: v for k, v in meta.items() if k not in ("space", "objectives", "baselines")}
        )
        with pytest.raises(Started):
            run.main(["sws"])
    change(folder, **space.searched(spaces))
    with pytest.raises(Started):
        run.main(["sws"])


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
        folder = begin(*command)
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
    folder = begin("kd", "--teacher-checkpoint", "teacher.pt").resolve()
    assert study_folder.read_meta(folder)["settings"]["teacher_checkpoint"] == str(tmp_path.resolve() / "teacher.pt")
    study_folder.write_rows(folder / paths.TRIALS, [{"trial_id": "t001", "state": "complete"}], columns.TRIAL_COLUMNS)
    assert reproduce.main([str(folder), "t001"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder / paths.STUDY}: --teacher-checkpoint {tmp_path.resolve() / 'teacher.pt'}")
    assert said.count("\n") == 1
    change(folder, kind="nope")
    assert reproduce.main([str(folder), "t001"]) == 2
    said = capsys.readouterr().err
    assert said == (f"error: {folder / paths.STUDY}: kind 'nope' is unknown; this version of the harness has "
                    "kd, sws, magnitude, kd_sws\n")  # fmt: skip


def test_a_network_that_cannot_be_packed(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that decides by what it sees is refused with the flag before anything starts; without the flag it is not."""
    (tmp_path / "branching.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["sws", "--network", "branching:build", "--num-samples", "1"]
    said = refused(*command, "--pack", "4")
    assert said.startswith("error: --pack 4: branching:build cannot be trained in packs (") and "vmap" in said
    with pytest.raises(Started):
        refused(*command)
    with pytest.raises(Started):
        refused("sws", "--pack", "4", "--num-samples", "1")


BRANCHING = """
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        found = self.layer(images.flatten(1))
        return found if found.sum() > 0 else -found

def build(input_shape, classes):
    return Branching()
"""


def test_a_study_that_lost_its_description_is_not_begun_anew(tmp_path: Path) -> None:
    """Its trials may have had other settings; the command says which file is missing."""
    settings = resolve(run.parse(["sws", "--results-dir", str(tmp_path), "--name", "lost"]))
    settings.folder.mkdir()
    (settings.folder / paths.TRIALS).write_text("trial_id,state\n")
    with pytest.raises(UserError, match="study.json: missing, though trials.csv is there"):
        preflight.resume(settings, importlib.import_module("search_spaces.sws"))

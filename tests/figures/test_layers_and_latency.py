"""What the report says of latency and of single layers, for studies that measured them, and for those that did not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.latency import latency_groups
from analysis.figures.layers import layer_groups
from analysis.page import study_page
from analysis.stats.layers import layers_of, left_out_share
from analysis.stats.summary import Summary, summarise
from analysis.text.deployment import deployment, layer_table
from study.records import paths, study_folder
from study.records.columns import LAYER_COLUMNS, SENSITIVITY_COLUMNS, Row
from tests import synthetic

LAYERS: list[Row] = [
    {"tensor": "1.weight", "tensor_shape": "300×64", "weights": 19_200, "compressed": 1, "nonzero": 960, "values": 8,
     "coded_bytes": 1200, "units": 300, "units_left": 114},
    {"tensor": "1.bias", "tensor_shape": "300", "weights": 300, "compressed": 1, "nonzero": 30, "values": 4,
     "coded_bytes": 30},
    {"tensor": "norm.weight", "tensor_shape": "500", "weights": 500, "compressed": 0},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A magnitude study whose trials have a latency, with the tables of its layers."""
    folder = synthetic.write_sized(tmp_path_factory.mktemp("studies") / "m", "magnitude", trials=12)
    trials = study_folder.read_frame(folder / paths.TRIALS, [])
    searched = trials["baseline"] == ""
    ratios = np.where(searched, np.linspace(0.3, 0.9, len(trials)), 1.0)
    study_folder.write_frame(folder / paths.TRIALS, trials.assign(latency_ratio=ratios, latency_ms=ratios / 50))
    s = summarised(folder)
    assert s.best is not None
    trial = str(s.best["trial_id"])
    study_folder.write_rows(paths.layers_of(folder, trial), LAYERS, LAYER_COLUMNS)
    paths.model_of(folder, trial, ".codebook").write_bytes(b"x" * 1234)
    rows: list[Row] = [{"tensor": "", "remaining": 100.0, "val_accuracy": 98.0}]
    rows += [
        {"tensor": n, "remaining": k, "val_accuracy": 97 - 20 / k}
        for n in ("1.weight", "2.weight")
        for k in (50.0, 2.0)
    ]
    study_folder.write_rows(folder / paths.SENSITIVITY, rows, SENSITIVITY_COLUMNS)
    return folder


def summarised(folder: Path) -> Summary:
    return summarise(study_folder.load(folder))


def test_accuracy_against_latency(folder: Path) -> None:
    """One mark a trial, the front of accuracy and latency as a line, and the network that it starts from at 1."""
    s = summarised(folder)
    (group,) = latency_groups(s)
    (drawn,) = group.figures
    trials = next(t for t in drawn.figure.data if t.name == "trial")
    assert sorted(trials.x) == sorted(s.searched["latency_ratio"])
    front = next(t for t in drawn.figure.data if t.name == "front")
    pairs = list(zip(trials.x, trials.y, strict=True))
    best = {(x, y) for x, y in pairs if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in pairs)}
    assert set(zip(front.x, front.y, strict=True)) == best
    assert "uncompressed" in drawn.caption


def test_layers_are_shown(folder: Path) -> None:
    """Sparsity, bits, bytes and units of each parameter, and what share of all takes no part."""
    s = summarised(folder)
    trial, layers = layers_of(s)
    assert s.best is not None and trial == s.best["trial_id"]
    assert layers["zeros"].tolist()[:2] == [95.0, 90.0] and np.isnan(layers["zeros"].iloc[2])
    assert layers["bits"].tolist() == [0.5, 0.8, 32.0] and layers["bytes"].tolist() == [1200, 30, 2000]
    assert left_out_share(layers) == 2.5
    facts, sensitivity = layer_groups(s)[0].figures
    bars = {trace.xaxis: list(trace.x) for trace in facts.figure.data}
    assert bars["x"][1:] == [90.0, 95.0] and bars["x2"] == [32.0, 0.8, 0.5] and bars["x4"][2] == 38.0
    assert "2.5 % of all parameters" in facts.caption
    lines = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in sensitivity.figure.data}
    assert lines == {name: [(50.0, 96.6), (2.0, 87.0)] for name in ("1.weight", "2.weight")}
    table, heading, lead = layer_table(s)
    assert [row.name for row in table.rows] == ["1.weight", "1.bias", "norm.weight"] and trial in heading
    assert table.rows[0].cells == ["300×64", "19,200", "96.00", "yes", "95.00", "8", "0.50", "1,200", "114 of 300"]
    assert table.rows[2].cells[3] == "no" and "2.50 % of them take no part" in lead


def test_many_layers_are_told_apart(tmp_path: Path) -> None:
    """Of thirteen layers twelve are drawn, without the one that loses least; no two lines look alike, and the first
    five are solid."""
    folder = synthetic.write_layers(synthetic.write_sized(tmp_path / "m", "magnitude", trials=12), layers=13)
    sensitivity = layer_groups(summarised(folder))[0].figures[1]
    assert [t.name for t in sensitivity.figure.data] == [f"block.{i}.weight" for i in range(1, 13)]
    assert "Not drawn: 1 layer that loses less." in sensitivity.caption
    looks = [(t.line.color, t.line.dash) for t in sensitivity.figure.data]
    assert len(set(looks)) == 12 and [dash for _, dash in looks[:6]] == ["solid"] * 5 + ["dash"]


def test_what_can_be_deployed(folder: Path) -> None:
    """The commands name the study and the headline trial; the sentence its bytes and its latency."""
    s = summarised(folder)
    assert s.best is not None
    lines, commands = deployment(s)
    trial = s.best["trial_id"]
    assert f"models/{trial}.codebook, 1,234 bytes" in lines[0] and f"{s.best['latency_ratio']:.2f} ×" in lines[0]
    assert commands[0] == f"python -m study.export {folder} --trial {trial} --formats onnx,onnx-codebook,onnx-int8"
    assert commands[1].startswith(f"python -m study.evaluate {folder}/exported/{trial}.onnx ")
    page = study_page.build(study_folder.load(folder))
    for words in ("What you can deploy", commands[0], f"Layers of {trial}", "Accuracy against latency."):
        assert words in page


def test_the_network_that_is_exported_is_the_one_that_the_report_chose(folder: Path, tmp_path: Path) -> None:
    """Wherever it stands on the front; without a choice the front's first; only a network whose weights lie there, in a
    file that compression made or in another one, which has fewer formats."""
    shutil.copytree(folder, tmp_path / "m")
    s = summarised(tmp_path / "m")
    assert len(s.front) > 2
    first, second, last = (str(s.front.iloc[i]["trial_id"]) for i in (0, 1, -1))
    for trial, suffix in ((first, ".codebook"), (last, ".safetensors")):
        paths.model_of(s.study.folder, trial, suffix).write_bytes(b"x" * 99)
    for best, trial in ((s.front.iloc[-1], last), (s.front.iloc[0], first), (None, first)):
        lines, (export, evaluate) = deployment(dataclasses.replace(s, best=best))
        compressed = trial == first
        assert f"models/{trial}.{'codebook' if compressed else 'safetensors'}, 99 bytes" in lines[0]
        assert f"--trial {trial} --formats onnx,{'onnx-codebook,' * compressed}onnx-int8" in export
        ends = [".onnx", *([".codebook.onnx"] * compressed), ".int8.onnx"]
        assert evaluate.split()[3:] == [f"{s.study.folder}/exported/{trial}{end}" for end in ends]
    paths.model_of(s.study.folder, second, ".codebook").unlink(missing_ok=True)
    assert deployment(dataclasses.replace(s, best=s.front.iloc[1])) == ([], [])
    assert deployment(dataclasses.replace(s, best=None, front=s.front.iloc[:0])) == ([], [])
    unmeasured = s.front.iloc[-1].copy()
    unmeasured["latency_ratio"] = np.nan
    sentences = [len(deployment(dataclasses.replace(s, best=best))[0]) for best in (unmeasured, s.front.iloc[-1])]
    assert sentences == [3, 2]  # one more: that its latency was not measured


def test_a_study_that_measured_none_of_it(tmp_path: Path) -> None:
    """Its report has none of these parts, and a damaged table costs no more than its own figure."""
    folder = synthetic.write_sized(tmp_path / "plain", "magnitude", trials=6)
    s = summarised(folder)
    assert latency_groups(s) == [] == layer_groups(s) and deployment(s) == ([], [])
    assert layer_table(s)[0].rows == []
    assert s.best is not None
    table = paths.layers_of(folder, str(s.best["trial_id"]))
    table.parent.mkdir(exist_ok=True)
    table.write_text("tensor,weights\n1.weight")
    assert layer_table(s)[0].rows == []
    page = study_page.build(s.study)
    assert "Layer by layer" in page and "Not drawn, since a file of this study is damaged" in page

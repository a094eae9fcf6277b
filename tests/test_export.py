"""Finished networks outside a study: exported as files, scored by `study.evaluate`, chosen by a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from analysis import selection
from study import evaluate as study_evaluate
from study import export
from study.artifacts import cache
from study.compression import compressed_file, exported_files
from study.compression.compressed_file import Network
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.data import registry
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import UserError
from study.models.registry import build
from study.models.zoo import Shape
from study.records import paths, study_folder
from study.training.loop import evaluate
from study.training.network import state_arrays

ROWS = [
    # trial, state, accuracy, drop, sparsity, ratio
    ("t000", "complete", 98.0, 0.1, 90.0, 30.0),
    ("t001", "complete", 97.9, 0.2, 95.0, 60.0),
    ("t002", "complete", 97.0, 1.1, 98.0, 150.0),
    ("t003", "complete", 96.0, 2.1, 97.0, 100.0),  # beaten by t002
    ("t004", "failed", np.nan, np.nan, np.nan, np.nan),
    ("t005", "complete", 96.9, 1.2, 99.0, 200.0),  # on the front, its weights not kept
]


@pytest.fixture(scope="module")
def digits() -> tuple[Splits, Part]:
    return registry.load("digits", None)


def quantised_network(network: Network, seed: int) -> tuple[torch.nn.Module, QuantisedWeights]:
    torch.manual_seed(seed)
    model = build(network.name, network.input_shape, network.classes, **network.options)
    parameters = shared_parameters(model)
    codes = torch.cat([torch.zeros(1), torch.randn(7) / 8])
    assignment = torch.randint(0, 8, (sum(p.numel() for p in parameters),))
    quantised = QuantisedWeights(assignment, codes, torch.ones(len(parameters)))
    quantised.write(parameters)
    return model.eval(), quantised


def described(digits: Splits, name: str = "lenet_300_100", **options: Any) -> Network:
    return Network(name, options, digits.shape, len(digits.classes), digits.mean, digits.std, "digits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Splits, Part]) -> Path:
    """An SWS study on digits with the trials of ROWS, as its confirm stage leaves it."""
    path = tmp_path_factory.mktemp("results") / "sws-digits"
    splits, network = digits[0], described(digits[0])
    role = {"name": network.name, "options": {}, "parameters": 50_610}
    shape, classes = list(splits.shape), list(splits.classes)
    study_folder.write_meta(path, {
        "kind": "sws", "name": "sws-digits", "seed": 0, "models": {"network": role},
        "objectives": {"val_accuracy": "max", "sparsity": "max"}, "space": {},
        "data": {"name": "digits", "shape": shape, "classes": classes, "mean": splits.mean, "std": splits.std},
    })  # fmt: skip
    columns = ["trial_id", "state", "val_accuracy", "accuracy_drop", "sparsity", "compression_ratio"]
    frame = pd.DataFrame([("uncompressed", "complete", 98.1, 0.0, 0.0, 1.0), *ROWS], columns=columns)
    frame = frame.assign(reason="", seconds=1.0, epochs=1, baseline=["uncompressed"] + [""] * len(ROWS))
    study_folder.write_frame(path / paths.TRIALS, frame)
    for seed, trial in enumerate(("uncompressed", "t000", "t001", "t002", "t003")):
        model, quantised = quantised_network(network, seed)
        if trial != "uncompressed":
            compressed_file.save(path / paths.MODELS / f"{trial}.codebook", model, quantised, network)
        extra = {"logits": np.zeros((1, 3, 10), np.float32)} if trial == "uncompressed" else {}
        cache.write_arrays(path / paths.MODELS / f"{trial}.safetensors", {**state_arrays(model), **extra})
    return path


@pytest.mark.parametrize("width_too", [False, True])
def test_a_searched_network_is_exported(width_too: bool, digits: tuple[Splits, Part], tmp_path: Path) -> None:
    """Of the row's own name and width; where that has no width, it is the study's, or none for a network without."""
    splits, folder = digits[0], tmp_path / "kd"
    part: dict[str, Any] = {"shape": list(splits.shape), "classes": list(splits.classes), "name": "digits"}
    space: dict[str, Any] = {"student": {"type": "choice", "values": ["lenet_300_100", "vgg8"]}}
    if width_too:
        space["student_width"] = {"type": "float", "low": 0.05, "high": 1.0, "when": {"student": ["vgg8"]}}
    study_folder.write_meta(folder, {
        "kind": "kd", "name": "kd", "seed": 0, "objectives": {"val_accuracy": "max"}, "space": space,
        "models": {role: {"name": "vgg8", "options": {"width": 0.125}} for role in ("teacher", "student")},
        "data": {**part, "mean": splits.mean, "std": splits.std},
    })  # fmt: skip
    rows = [("t001", "lenet_300_100", np.nan), ("t002", "vgg8", 0.25)]
    frame = pd.DataFrame(rows, columns=["trial_id", "student", "student_width"])
    frame = frame.drop(columns=[] if width_too else ["student_width"])
    frame = frame.assign(state="complete", reason="", baseline="", seconds=1.0, epochs=1, val_accuracy=90.0)
    study_folder.write_frame(folder / paths.TRIALS, frame)
    wanted: tuple[dict[str, float], ...] = ({}, {"width": 0.25 if width_too else 0.125})
    for (trial, name, _), options in zip(rows, wanted, strict=True):
        model, _ = quantised_network(described(splits, name, **options), 0)
        cache.write_arrays(folder / paths.MODELS / f"{trial}.safetensors", state_arrays(model))
        arguments = [str(folder), "--trial", trial, "--to", str(tmp_path), "--formats", "safetensors"]
        assert export.main(arguments) == 0
        exported = load_file(tmp_path / f"{trial}.safetensors")
        assert all(torch.equal(exported[key], value) for key, value in kept_state(folder, trial).items())


def no_images() -> torch.Tensor:
    raise AssertionError("only onnx-int8 looks at images")


def kept_state(folder: Path, trial: str) -> dict[str, torch.Tensor]:
    return load_file(folder / paths.MODELS / f"{trial}.safetensors")


def members(folder: Path) -> pd.DataFrame:
    return selection.front(study_folder.load(folder))


# --- files


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [("lenet_300_100", (1, 8, 8), {}), ("lenet5", (1, 28, 28), {}), ("minivgg", (3, 32, 32), {"width": 0.25})],
)
def test_onnx_predicts_the_same(name: str, shape: Shape, options: dict[str, Any]) -> None:
    """ONNX Runtime gives the network's logits to 1e-4 and its very predictions, for batches of any size."""
    network = Network(name, options, shape, 10, (0.5,) * shape[0], (0.25,) * shape[0], "digits")
    model, _ = quantised_network(network, 0)
    exported = exported_files.onnx_bytes("onnx", model, network, no_images)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 33):
        images = torch.randn(batch, *shape)
        logits = session.run(["logits"], {"images": images.numpy()})[0]
        with torch.no_grad():
            ours = model(images).numpy()
        np.testing.assert_allclose(logits, ours, atol=1e-4 * abs(ours).max())
        assert (logits.argmax(1) == ours.argmax(1)).all()
    metadata = {p.key: p.value for p in onnx.load_from_string(exported).metadata_props}
    assert metadata["std"] == str(network.std) and metadata["dataset"] == "digits"


def test_safetensors_are_the_decoded_network(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exported state dict equals the decoded one, the compressed file is copied whole, one line is printed each."""
    arguments = [str(folder), "--trial", "t001", "--to", str(tmp_path), "--formats", "codebook,safetensors"]
    assert export.main(arguments) == 0
    exported, decoded = (
        load_file(tmp_path / "t001.safetensors"),
        compressed_file.load(tmp_path / "t001.codebook").state_dict(),
    )
    assert exported.keys() == decoded.keys()
    assert all(torch.equal(exported[name], decoded[name]) for name in decoded)
    assert all(torch.equal(exported[name], kept) for name, kept in kept_state(folder, "t001").items())
    sizes = [(tmp_path / f"t001.{suffix}").stat().st_size for suffix in ("codebook", "safetensors")]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"{size:,} bytes" for size in sizes]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t001.codebook", "t001.safetensors"]


def test_the_front_is_exported(folder: Path, tmp_path: Path) -> None:
    """`--pareto` takes the members whose weights were kept: none that is beaten, failed or a baseline."""
    assert export.main([str(folder), "--pareto", "--to", str(tmp_path), "--formats", "safetensors"]) == 0
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["t000", "t001", "t002"]


def test_an_uncompressed_network_is_exported_too(folder: Path, tmp_path: Path) -> None:
    """Without a compressed file, as in KD studies, weights and ONNX come from `study.json`; logits are left out."""
    assert export.main([str(folder), "--trial", "uncompressed", "--to", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["uncompressed.onnx", "uncompressed.safetensors"]
    exported, kept = load_file(tmp_path / "uncompressed.safetensors"), kept_state(folder, "uncompressed")
    assert exported.keys() == kept.keys() - {"logits"}
    assert all(torch.equal(exported[name], kept[name]) for name in exported)


ALL = ("codebook", "safetensors", "onnx", "onnx-codebook", "onnx-int8", "exported-program")


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """t001, of whose 300 units every third and all their weights are zero, in every format; and what was printed."""
    own, to = tmp_path_factory.mktemp("own") / "sws-digits", tmp_path_factory.mktemp("exported")
    shutil.copytree(folder, own)
    decoded = compressed_file.read(own / paths.MODELS / "t001.codebook")
    index = decoded.quantised.assignment.clone()
    index[:19_200].view(300, 64)[::3] = 0
    index[19_200:19_500][::3] = 0
    dead = QuantisedWeights(index, decoded.quantised.values, decoded.quantised.scales)
    dead.write(shared_parameters(decoded.model))
    compressed_file.save(own / paths.MODELS / "t001.codebook", decoded.model, dead, decoded.network)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert export.main([str(own), "--trial", "t001", "--to", str(to), "--formats", ",".join(ALL)]) == 0
    return to, out.getvalue()


def test_every_format_gives_the_networks_answers(exported: tuple[Path, str], digits: tuple[Splits, Part]) -> None:
    """Each file, opened as `study.evaluate` does, gives the logits of the decoded network; int8 its classes, nearly."""
    folder, printed = exported
    assert "shrunk: 50,610 →" in printed and "(300 → 200 units)" in printed
    suffixes = [exported_files.SUFFIXES[name] for name in ALL]
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"t001{suffix}" for suffix in suffixes)
    images = normalise(digits[1].images, digits[0].mean, digits[0].std)
    expected = logits_of_file(folder / "t001.codebook", images)
    largest = expected.abs().max()
    for suffix in suffixes[1:]:
        found = logits_of_file(folder / f"t001{suffix}", images)
        if suffix == ".int8.onnx":
            assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.95
        else:
            assert float((found - expected).abs().max()) < 1e-5 * largest
    size = {suffix: (folder / f"t001{suffix}").stat().st_size for suffix in suffixes}
    assert size[".onnx"] < 0.75 * size[".safetensors"] and size[".codebook.onnx"] < size[".onnx"] / 5
    assert size[".int8.onnx"] < size[".onnx"] / 2


def logits_of_file(path: Path, images: torch.Tensor) -> torch.Tensor:
    opened = exported_files.open_file(path, custom="lenet_300_100" if path.suffix == ".pt2" else None)
    assert (opened.network.dataset, opened.network.name) == ("digits", "lenet_300_100")
    with torch.no_grad():
        return opened.model(images)


def test_files_are_evaluated_next_to_each_other(
    exported: tuple[Path, str], digits: tuple[Splits, Part], capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy and bytes of each, and latency as a ratio to the first; the table names every file."""
    files = [str(exported[0] / f"t001{s}") for s in (".onnx", ".codebook.onnx", ".safetensors", ".codebook")]
    assert study_evaluate.main([*files, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == files and rows[0]["latency_ratio"] == 1
    wanted = evaluate(compressed_file.load(Path(files[3])), digits[1], digits[0])
    for row in rows:
        assert row["accuracy"] == pytest.approx(wanted.accuracy) and row["loss"] == pytest.approx(wanted.loss)
        assert row["file_bytes"] == Path(row["file"]).stat().st_size
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"] and 0.01 < row["latency_ratio"] < 1000
    assert [row["runtime"] for row in rows] == ["onnxruntime", "onnxruntime", "PyTorch", "PyTorch"]
    assert study_evaluate.main(files[:2]) == 0
    shown = capsys.readouterr().out
    assert "÷ first" in shown and f"{rows[1]['file_bytes']:,}" in shown


def test_files_that_say_too_little(
    exported: tuple[Path, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that does not say what feeds it, runs code, is cut or is something else: one line with the file."""
    proto = onnx.load(exported[0] / "t001.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "plain.onnx")
    for name in ("t001.onnx", "t001.pt2", "t001.safetensors"):
        content = (exported[0] / name).read_bytes()
        (tmp_path / f"cut{Path(name).suffix}").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("hello")
    for path, words in (
        (folder / paths.MODELS / "t000.safetensors", "does not say of which network"),
        (exported[0] / "t001.pt2", "If you trust it, add --network lenet_300_100"),
        (tmp_path / "plain.onnx", "'mean' is missing"),
        (tmp_path / "cut.onnx", "does not load it"),
        (tmp_path / "cut.pt2", "no exported program"),
        (tmp_path / "cut.safetensors", "damaged"),
        (tmp_path / "text.onnx", "does not load it"),
        (tmp_path / "nope.onnx", "no such file"),
        (tmp_path / "nope.pt2", "no such file"),
    ):
        assert_one_line(study_evaluate.main([str(path)]), words, capsys)


def test_a_description_is_no_longer_than_a_mebibyte(exported: tuple[Path, str], tmp_path: Path) -> None:
    """Blanks in it are harmless up to there; what is longer is refused by name before it is read as JSON."""
    good = exported[0] / "t001.safetensors"
    arrays, metadata = cache.read_arrays(good), cache.read_metadata(good)
    path, text = tmp_path / "t001.safetensors", metadata[exported_files.DESCRIPTION]
    for length, refused in ((2**20, False), (2**20 + 1, True)):
        cache.write_arrays(path, arrays, {**metadata, exported_files.DESCRIPTION: text.ljust(length)})
        if refused:
            with pytest.raises(UserError, match=r"t001.safetensors: its description .* damaged .*too long"):
                exported_files.open_file(path)
        else:
            assert exported_files.open_file(path).network.name == "lenet_300_100"


def test_int8_without_its_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the data set is missing, one line names the format, and nothing is written, no other format either."""
    own = tmp_path / "s"
    shutil.copytree(folder, own)
    meta = study_folder.read_meta(own)
    study_folder.write_meta(own, {**meta, "data": {**meta["data"], "name": "folder"}})
    given = [str(own), "--trial", "uncompressed", "--to", str(tmp_path / "to"), "--formats", "onnx,onnx-int8"]
    assert_one_line(export.main([*given, "--data-dir", str(tmp_path / "none")]), "--formats onnx-int8", capsys)
    assert not (tmp_path / "to").exists()


# --- the sentence


@pytest.mark.parametrize(
    ("sentence", "chosen"),
    [
        ("max compression with accuracy drop <= 0.2", "t001"),
        ("max compression with accuracy drop<=.15", "t000"),
        ("max compression", "t002"),
        ("max sparsity with accuracy >= 97.5 %", "t001"),
        ("max accuracy", "t000"),
        ("max accuracy with compression >= 100", "t002"),
        ("max accuracy with sparsity >= 95", "t001"),
    ],
)
def test_the_best_of_the_front(folder: Path, sentence: str, chosen: str) -> None:
    """A sentence chooses by validation columns among the members of the front whose weights were kept."""
    assert selection.best(sentence, members(folder)) == chosen


def test_a_drop_at_the_limit_is_within_it(folder: Path) -> None:
    """98.2 − 98.0 is a little above 0.2 in binary; it counts as 0.2."""
    rows = members(folder).assign(accuracy_drop=98.2 - 98.0)
    assert float(rows["accuracy_drop"].iloc[0]) > 0.2
    assert selection.best("max compression with accuracy drop <= 0.2", rows) == "t002"


# --- scoring


def test_evaluate_scores_what_was_compressed(
    folder: Path, digits: tuple[Splits, Part], capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy and loss are those of the network itself on each part; the sizes are those of the file."""
    file = folder / paths.MODELS / "t000.codebook"
    model, _ = quantised_network(described(digits[0]), 1)
    for part, images in (("test", digits[1]), ("validation", digits[0].validation)):
        assert study_evaluate.main([str(file), "--part", part, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        wanted = evaluate(model, images, digits[0])
        assert (found["accuracy"], found["loss"]) == (wanted.accuracy, wanted.loss)
        assert found["file_bytes"] == file.stat().st_size
        assert found["compression_ratio"] == pytest.approx(4 * found["weights"] / found["file_bytes"])
        assert sum(row["weights"] for row in found["tensors"]) == found["weights"] == 50_610
    assert study_evaluate.main([str(file)]) == 0
    shown = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes" in shown and "300×64" in shown


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("{folder}", "--pareto, --trial ID, --best"),
        ("{folder} --pareto --trial t000", "--pareto and --trial"),
        ("{folder} --trial t005", "weights were not kept"),
        ("{folder} --trial nope", "t000, t001, t002, t003, uncompressed"),
        ("{folder} --best smallest", "'smallest'"),
        ("{folder} --best all", 'ask "max COLUMN where CONDITION"'),
        ("{folder} --best max__import__('os')", "is not allowed"),
        ("{folder} --best max|accuracy|with|accuracy|>=|99", "the nearest has val_accuracy 98"),
        ("{folder} --pareto --formats pickle", "codebook,safetensors,onnx"),
        ("{folder} --trial uncompressed --formats codebook", "was not compressed"),
        ("{folder} --pareto --to {folder}/study.json", "--to"),
        ("{folder}/models --pareto", "study.json"),
        ("{folder} --paret", "--pareto"),
    ],
)
def test_bad_export_is_one_line(arguments: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each wrong use of `study.export` is one line on stderr that names it, and status 2; nothing is written."""
    given = [a.format(folder=folder).replace("|", " ") for a in arguments.split()]
    assert_one_line(export.main(given), named, capsys)
    assert not (folder / export.FOLDER).exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "FILE"),
        ("{folder}/nope.codebook", "nope.codebook"),
        ("{folder}/models/t000.safetensors", "study.export wrote, or the .codebook file"),
        ("{folder}/models/t000.codebook --dataset nope", "--dataset nope"),
        ("{folder}/models/t000.codebook --part train", "--part"),
        ("{folder}/models/t000.codebook --part validation --split-seed 1", "--split-seed 1"),
        ("{folder}/models/t000.codebook --data-set digits", "--dataset"),
        ("{folder}/models/t000.codebook --split-seed -1", "--split-seed -1: must be between 0 and"),
        ("{folder}/models/t000.codebook --split-seed 100000000000000000000", "must be between 0 and 4294967295"),
    ],
)
def test_bad_evaluate_is_one_line(arguments: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each wrong use of `study.evaluate` is one line on stderr that names it, and status 2."""
    assert_one_line(study_evaluate.main(arguments.format(folder=folder).split()), named, capsys)


def assert_one_line(status: int, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = capsys.readouterr()
    assert status == 2 and not printed.out
    assert printed.err.startswith("error: ") and named in printed.err
    assert printed.err.count("\n") == 1


def test_numbers_that_are_none_are_null(
    folder: Path, tmp_path: Path, digits: tuple[Splits, Part], capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of finite weights can have a loss that is none: `--json` is JSON all the same."""
    network = described(digits[0])
    model, quantised = quantised_network(network, 0)
    large = QuantisedWeights(quantised.assignment, quantised.values * 1e37, quantised.scales)
    compressed_file.save(tmp_path / "x.codebook", model, large, network)
    assert study_evaluate.main([str(tmp_path / "x.codebook"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["loss"] is None


def test_a_limit_of_parameters(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands that build what a file describes refuse more parameters than `--max-parameters`, and say so."""
    file = folder / paths.MODELS / "t001.codebook"
    for command, given in (
        (study_evaluate, [str(file)]),
        (export, [str(folder), "--trial", "t001", "--to", str(tmp_path), "--formats", "safetensors"]),
        (export, [str(folder), "--trial", "uncompressed", "--to", str(tmp_path), "--formats", "safetensors"]),
    ):
        assert command.main([*given, "--max-parameters", "1000"]) == 2
        printed = capsys.readouterr().err
        assert "more than 1,000 parameters" in printed and "--max-parameters" in printed and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_from_a_stranger_is_checked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What study.json says of a network is checked as a compressed file's header is; a user's code is not imported."""
    stranger = tmp_path / "s"
    shutil.copytree(folder, stranger)
    meta = study_folder.read_meta(stranger)
    for role, data, words in (
        ({"name": "vgg19", "options": {"width": 1e9}}, {}, "option 'width'"),
        ({"name": "lenet_300_100", "options": {}}, {"std": [0.0]}, "data.std"),
        ({"name": "lenet_300_100", "options": {}}, {"shape": [1, 10**6, 10**6]}, "input shape"),
        ({"name": "evil\x1b[31m:build", "options": {}}, {}, "characters"),
    ):
        changed = {**meta, "models": {"network": {**role, "parameters": 1}}, "data": {**meta["data"], **data}}
        study_folder.write_meta(stranger, changed)
        assert export.main([str(stranger), "--trial", "uncompressed", "--to", str(tmp_path / "to")]) == 2
        printed = capsys.readouterr().err
        assert words in printed and printed.count("\n") == 1 and "\x1b" not in printed


@pytest.mark.parametrize(("shape", "classes", "words"), [((3, 8, 8), 10, "3×8×8"), ((1, 8, 8), 7, "7")])
def test_data_that_do_not_fit(
    shape: Shape, classes: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set of another shape or number of classes is one line with both, and status 2."""
    network = Network("lenet_300_100", {}, shape, classes, (0.5,) * shape[0], (0.2,) * shape[0], "mnist")
    compressed_file.save(tmp_path / "x.codebook", *quantised_network(network, 0), network)
    status = study_evaluate.main([str(tmp_path / "x.codebook"), "--dataset", "digits"])
    assert_one_line(status, words, capsys)


def test_onnx_without_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the optional packages are absent, the error says how to install them, before anything is written."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxscript; pip install 'compression-study\[onnx\]'"):
        export.check_onnx()


@pytest.mark.parametrize("command", [export, study_evaluate])
def test_help_ends_well(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists the flags with status 0."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    assert "--network" in capsys.readouterr().out


def test_the_codebook_onnx_of_a_network_with_batch_norm_is_small(digits: tuple[Splits, Part]) -> None:
    """Shrinking folds batch-norm into the weights, which then have many values: the network before it is smaller."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3),
        torch.nn.BatchNorm2d(64), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 10),
    )  # fmt: skip
    parameters = shared_parameters(model)
    index = torch.randint(1, 8, (sum(p.numel() for p in parameters),))
    index[: 8 * 9] = 0  # eight channels go
    index[32 * 9 : 32 * 9 + 8] = 0
    codes = torch.cat([torch.zeros(1), torch.randn(7) / 8])
    QuantisedWeights(index, codes, torch.ones(len(parameters))).write(parameters)
    for norm in (model[1], model[4]):
        norm.weight.data.uniform_(0.5, 1.5)
    model.eval()
    network = described(digits[0])
    shrunk, words = export._shrunk(model, network)
    assert "(32 → 24 units)" in words
    content = export._content("onnx-codebook", Path(), model, shrunk, network, no_images)
    assert len(content) < sum(p.numel() for p in parameters) / 2 + 10_000
    images = torch.randn(3, *network.input_shape)
    found = onnxruntime.InferenceSession(content).run(None, {"images": images.numpy()})[0]
    np.testing.assert_allclose(found, model(images).detach().numpy(), atol=1e-4)

"""Networks as people write them: each is tried in one training step before any trial, and compressed whole."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from old_codebook import old_file

from study import run
from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression import compressed_file
from study.compression.quantised_weights import flatten, leave_out, left_out, shared_parameters
from study.compression.size_metrics import ratio
from study.data import registry as data_registry
from study.data.splits import Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import TrialResult
from study.models.registry import build, parameter_count
from study.models.state import tensors_of
from study.pipeline import preflight
from study.pipeline.network_checks import trainable_settings
from study.settings import Settings, resolve
from study.training.network import Training
from study.training.rehearsal import CannotTrain, rehearse
from study.tuning import ray_start
from study.tuning.space import SearchSpace

sys.path.append(str(Path(__file__).parent))  # as a user's module is found in his folder
MODULE = "real_life_networks"

WEIGHTS = {
    "weight_norm": 64 * 32 + 32 + 32 * 10 + 10,  # without the 32 scales of its rows
    "spectral_norm": 64 * 32 + 32 + 32 * 10 + 10,
    "attention": 8 * 16 + 16 + 8 * 16 + 16 + 48 * 16 + 16 * 16 + 16 + 16 * 10 + 10,  # without in_proj_bias
    "lstm": 64 * 8 + 64 * 16 + 16 * 10 + 10,
    "gru": 48 * 8 + 48 * 16 + 16 * 10 + 10,
    "embedding": 17 * 12 + 12 * 10,
    "view": 9 * 4 + 4 + 9 * 16 + 4 + 256 * 10 + 10,
    "extra_state": 64 * 16 + 16 + 16 * 10 + 10,
    "auxiliary": 9 * 4 + 4 + 9 * 16 + 4 + 2 * (256 * 10 + 10),
    "dictionary": 9 * 4 + 4 + 9 * 16 + 4 + 256 * 10 + 10,
    "mask": 9 * 4 + 4 + 9 * 16 + 4 + 256 * 10 + 10,
    "four_dimensions": 9 * 4 + 4 + 9 * 16 + 4 + 256 * 10,
    "relative_file": 64 * 12 + 12 + 12 * 10 + 10,
    "tied": 64 * 64 + 2 * 64 + 64 * 10 + 10,
    "attention_mask": 64 * 10 + 10,
}
"""Network → how many of its numbers take part in compression."""
CONTIGUOUS = {"view", "four_dimensions"}
FLOAT32 = {"mask"}


@pytest.fixture(scope="module")
def digits() -> Splits:
    """A few of the digits."""
    data, _ = data_registry.load("digits", None)
    few = torch.arange(96)
    return replace(data, train=data.train[few], validation=data.validation[few])


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which a command is given, with the file that one of the networks opens."""
    (tmp_path / "width.txt").write_text("12")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("study.pipeline.network_checks.best_precision", lambda device: "bfloat16")


def settings_for(kind: str, network: str, *arguments: str) -> Settings:
    short = "--pretrain-epochs 1 --epochs 2 --codebook-epochs 1"
    return resolve(run.parse([kind, "--network", f"{MODULE}:{network}", *short.split(), *arguments]))


def trial(settings: Settings, data: Splits, **values: Any) -> TrialResult:
    """One trial of a study in this process, its shared work included."""
    method, rows = registry.method(settings.kind), list[dict]()
    torch.manual_seed(0)
    stage = method.shared_work.run({}, settings, data, None, rows.append, Progress())
    shared = SharedWork(stage.arrays, {"metrics": stage.metrics})
    return method.trial(values, settings, data, shared, rows.append, Progress())


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_network_is_tried_trained_and_compressed(
    name: str, digits: Splits, capsys: pytest.CaptureFixture
) -> None:
    """Every tensor of two or more dimensions takes part, once; what fails in channels last or bfloat16 falls back and
    says so; a trial of magnitude pruning with what was settled leaves a file that decodes to what it left."""
    settings = settings_for("magnitude", name)
    space = SearchSpace.load("magnitude")
    described = preflight.describe_networks(settings, space, digits)["network"]
    assert described["parameters"] - described["left_out"]["parameters"] == WEIGHTS[name]
    settled = trainable_settings(settings, space, digits, None)
    said = capsys.readouterr().out
    assert (settled.contiguous == f"{MODULE}:{name}") == (name in CONTIGUOUS) == ("contiguous memory layout" in said)
    assert settled.precision == ("float32" if name in FLOAT32 else None)
    assert (name in FLOAT32) == ("trains in float32" in said)
    result = trial(settled.changed(precision=settled.precision or "bfloat16"), digits, density=0.3, codebook_size=8)
    decoded = compressed_file.decode(result.file, custom=f"{MODULE}:{name}")
    assert len(decoded.quantised.assignment) == WEIGHTS[name]
    assert result.metrics["sparsity"] == pytest.approx(70, abs=0.1)
    state = tensors_of(decoded.model)
    assert state.keys() == result.arrays.keys()
    assert all(torch.equal(state[key], torch.from_numpy(array)) for key, array in result.arrays.items())
    parameters = shared_parameters(decoded.model)
    assert float((flatten(parameters) == 0).double().mean()) == pytest.approx(0.7, abs=1e-3)
    assert result.metrics["compression_ratio"] == ratio(parameters, len(result.file))


@pytest.mark.parametrize("name", ["attention", "gru", "embedding", "view"])
@pytest.mark.parametrize("variant", ["hard", "soft", "soft --layer-scales"])
def test_soft_weight_sharing_takes_them_too(name: str, variant: str, digits: Splits) -> None:
    """Also with a scale for each tensor, of which one begins with zeros alone."""
    settings = settings_for("sws", name, "--precision", "float32", "--variant", *variant.split())
    settings = settings.changed(contiguous=f"{MODULE}:{name}" if name in CONTIGUOUS else None)
    values = {"density": 0.3} if variant == "hard" else {"tau": 1e-7, "pi_zero": 0.2}
    result = trial(settings, digits, components=8, **values)
    decoded = compressed_file.decode(result.file, custom=f"{MODULE}:{name}")
    assert len(decoded.quantised.assignment) == WEIGHTS[name] and 0 < result.metrics["sparsity"] < 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", ["RuntimeError: only in training", "in layer 0 (Net)", "real_life_networks.py, line "]),
        ("forgetful", ["built again from its state dict it gives other answers"]),
        ("unwritten", ["as it is built, 640 of the 640 numbers in head are NaN or infinite"]),
    ],
)
def test_what_cannot_be_trained_is_one_line_with_the_cause(name: str, said: list[str], digits: Splits) -> None:
    """The flag, the network, the layer and the line of the user's file."""
    settings = settings_for("sws", name)
    with pytest.raises(UserError) as error:
        trainable_settings(settings, SearchSpace.of_study(settings), digits, None)
    line = str(error.value)
    assert line.startswith(f"--network {MODULE}:{name}: cannot be trained (") and "\n" not in line
    assert all(words in line for words in said), line


def test_a_precision_that_was_asked_for_is_not_changed(digits: Splits) -> None:
    """Where the user asked for bfloat16 the command is refused, and says what to type."""
    settings = settings_for("sws", "mask", "--precision", "bfloat16")
    with pytest.raises(UserError, match=r"^--precision bfloat16: .*:mask cannot .*give --precision float32$"):
        trainable_settings(settings, SearchSpace.of_study(settings), digits, None)


def test_a_study_that_goes_on_keeps_its_layout(digits: Splits) -> None:
    """What the first command settled is recorded with the settings; what was settled otherwise is refused."""
    space = SearchSpace.of_study(settings_for("sws", "view"))
    recorded: dict[str, Any] = {"settings": {}}
    with pytest.raises(UserError, match="cannot be trained here as .* was started .*choose another --name"):
        trainable_settings(settings_for("sws", "view"), space, digits, recorded)
    settings = settings_for("sws", "view").changed(contiguous=f"{MODULE}:view", precision="bfloat16")
    assert trainable_settings(settings, space, digits, recorded) == settings
    assert json.loads(json.dumps(settings.defining()))["contiguous"] == f"{MODULE}:view"


def test_memory_that_nothing_wrote_is_noticed(digits: Splits) -> None:
    """MobileNetV3 on 8×8 pixels reads it in bfloat16 and channels last, mostly without a NaN; it falls back."""
    with pytest.raises(CannotTrain, match="the gradient of .* has numbers that were not computed"):
        rehearse(Training("mobilenet_v3_small", precision="bfloat16"), digits)
    rehearse(Training("mobilenet_v3_small", precision="bfloat16", contiguous=True), digits)


def test_the_step_leaves_the_callers_random_numbers(digits: Splits) -> None:
    """Also with a network that draws some."""
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    rehearse(Training("lenet5"), replace(digits, **{n: _larger(getattr(digits, n)) for n in ("train", "validation")}))
    assert torch.equal(torch.rand(3), expected)


def _larger(part: Any) -> Any:
    return replace(part, images=part.images.repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The line with which a command is refused before Ray starts."""
    monkeypatch.setattr(ray_start, "start_ray", lambda settings: pytest.fail("the command got as far as Ray"))

    def line(*arguments: str) -> str:
        assert run.main([*arguments]) == 2
        printed = capsys.readouterr().err.strip()
        assert printed.startswith("error: ") and "\n" not in printed
        return printed

    return line


def test_what_is_left_out_is_said_or_refused(refused: Any, digits: Splits) -> None:
    """A vector that holds most of the weights needs --skip; then it is stored as it is, and study.json names it."""
    command = ["magnitude", "--network", f"{MODULE}:flat"]
    line = refused(*command)
    assert f"--network {MODULE}:flat: 86 % of its parameters take no part" in line and "add --skip weights" in line
    assert "--skip wieghts: " in (line := refused(*command, "--skip", "wieghts")) and "did you mean weights?" in line
    assert "--skip head,weights: leaves nothing" in refused(*command, "--skip", "head,weights")
    assert "names nothing" in refused(*command, "--skip", ",")
    assert "none of its parameters can be compressed" in refused("sws", "--network", f"{MODULE}:vectors")
    settings = settings_for("magnitude", "flat", "--skip", "weights")
    described = preflight.describe_networks(settings, SearchSpace.load("magnitude"), digits)["network"]
    assert described["left_out"] == {"share": 100 * 2048 / 2378, "parameters": 2048, "names": ["weights"]}


def test_a_layer_is_left_out_on_purpose(digits: Splits) -> None:
    """`--skip` takes modules and parameters; these stay float32, in the trial and in the file that is decoded."""
    settings = settings_for("magnitude", "attention", "--skip", "attention,position", "--precision", "float32")
    result = trial(settings, digits, density=0.3, codebook_size=4)
    decoded = compressed_file.decode(result.file, custom=f"{MODULE}:attention")
    names = {"position", "attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight",
             "attention.out_proj.bias"}  # fmt: skip
    assert set(left_out(decoded.model)) == names and decoded.network.skip == ("attention", "position")
    weights = torch.from_numpy(result.arrays["attention.in_proj_weight"])
    assert len(weights.unique()) > 700 and torch.equal(tensors_of(decoded.model)["attention.in_proj_weight"], weights)
    assert decoded.model.get_parameter("head.weight").unique().numel() <= 4
    assert len(decoded.quantised.assignment) == WEIGHTS["attention"] - 8 * 16 - 48 * 16 - 16 * 16 - 16


def test_files_of_version_one_left_more_out(digits: Splits) -> None:
    """In a file of the first version linear and convolution layers alone are shared, whatever else the network has."""
    name = f"{MODULE}:gru"
    model = build(name, digits.shape, 10)
    leave_out(model, ["layer"])
    quantised = registry_quantise(model)
    header = compressed_file.network_of(name, {}, digits)
    decoded = compressed_file.decode(old_file(model, quantised, header, version=1), custom=name)
    assert len(decoded.quantised.assignment) == 16 * 10 + 10 < parameter_count(model)
    assert all(torch.equal(t, tensors_of(model)[k]) for k, t in tensors_of(decoded.model).items())


def registry_quantise(model: torch.nn.Module) -> Any:
    from study.methods.common.pinning import cluster as to_codebook

    return to_codebook(model, torch.ones(sum(p.numel() for p in shared_parameters(model)), dtype=torch.bool), 4)

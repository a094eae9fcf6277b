"""What is read back to be tested."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ray import tune

from study.artifacts.cache import write_arrays
from study.artifacts.checkpoints import path_of, weights_of
from study.compression import compressed_file
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.data import registry
from study.errors import UserError
from study.methods.kd.method import student_training
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.models.registry import build as registry_build
from study.pipeline import final_test
from study.records import paths
from study.settings import resolve
from study.training.network import build_network, state_arrays
from study.tuning.space import SearchSpace


def damaged(path: Path) -> Path:
    write_arrays(path, {"1.weight": np.zeros((3, 3), np.float32)})
    path.write_bytes(path.read_bytes()[:-5])
    return path


def test_damaged_weights_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    """Weights cut short, in `models/` or where a trial left them, are refused by name, and stay where they are."""
    stored = damaged(tmp_path / "models/t001.safetensors")
    waiting = damaged(weights_of(path_of(tmp_path, "t002")))
    splits, _ = registry.load("digits", None)
    with pytest.raises(UserError) as first:
        row = {"baseline": "uncompressed"}
        final_test.load_trained(resolve(MagnitudeSettings()), SearchSpace.load("magnitude"), stored, row, splits)
    with pytest.raises(UserError) as second:
        final_test.keep_weights(tmp_path, "t002", "0123456789abcdef")
    for path, refused in ((stored, first), (waiting, second)):
        line = str(refused.value)
        assert line.startswith(f"{path}: damaged (") and line.endswith("; restore it from a copy") and "\n" not in line
        assert path.exists()


@pytest.mark.parametrize(("baseline", "width"), [("", 0.25), ("narrow", 0.125), ("student alone", 0.5)])
def test_what_is_tested_has_the_width_that_it_was_trained_with(baseline: str, width: float, tmp_path: Path) -> None:
    """A trial's is in its row, a baseline's in the search space where that names one, and else among the settings."""
    settings = resolve(KDSettings.of(student_width=0.5))
    objectives, baselines = {"val_accuracy": "max"}, {"narrow": {"student_width": 0.125}, "student alone": {}}
    space = SearchSpace.of("kd", {"student_width": tune.uniform(0.125, 1.0)}, objectives, baselines)
    splits, _ = registry.load("digits", None, size=32)
    network = build_network(student_training(settings.changed(student_width=width)), splits)
    path = tmp_path / "models" / "t001.safetensors"
    write_arrays(path, state_arrays(network))
    row = {"baseline": baseline, "student_width": 0.25 if not baseline else math.nan}
    loaded = final_test.load_trained(settings, space, path, row, splits)
    states = loaded.state_dict(), network.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_a_users_network_that_is_searched_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code runs since the trial's own configuration names it, though the flags name another network."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "chosen.py").write_text(
        "from torch import nn\n\n\ndef build(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    settings = resolve(KDSWSSettings.of(student="lenet_300_100"))
    domains = {"student": tune.choice(["lenet_300_100", "chosen:build"])}
    space = SearchSpace.of("kd_sws", domains, {"val_accuracy": "max"}, {})
    splits, _ = registry.load("digits", None)
    training = student_training(settings.changed(student="chosen:build"))
    network = build_network(training, splits)
    parameters = shared_parameters(network)
    assignment = torch.ones(sum(p.numel() for p in parameters), dtype=torch.long)
    quantised = QuantisedWeights(assignment, torch.tensor([0.0, 0.5]), torch.ones(len(parameters)))
    quantised.write(parameters)
    path = tmp_path / "models" / "t001.safetensors"
    header = compressed_file.network_of(training.network, training.options, splits)
    compressed_file.save(path.with_suffix(compressed_file.SUFFIX), network, quantised, header)
    row = {"baseline": "", "student": "chosen:build"}
    loaded = final_test.load_trained(settings, space, path, row, splits)
    assert all(map(torch.equal, loaded.parameters(), network.parameters()))


def test_a_table_of_layers_is_as_new_as_its_compressed_file(tmp_path: Path) -> None:
    """It is written where there is none, and again if it is older than the file; a network that was not compressed has
    none."""
    settings, space = resolve(MagnitudeSettings()), SearchSpace.load("magnitude")
    splits, _ = registry.load("digits", None)
    row, path = {"trial_id": "t001", "baseline": "uncompressed"}, tmp_path / "models" / "t001.safetensors"
    final_test._record_layers(settings, space, tmp_path, row, path)
    table = paths.layers_of(tmp_path, "t001")
    assert not table.exists()
    network = registry_build("lenet_300_100", splits.shape, 10)
    parameters = shared_parameters(network)
    assignment = torch.ones(sum(p.numel() for p in parameters), dtype=torch.long)
    quantised = QuantisedWeights(assignment, torch.tensor([0.0, 0.5]), torch.ones(len(parameters)))
    compressed = path.with_suffix(compressed_file.SUFFIX)
    header = compressed_file.network_of("lenet_300_100", {}, splits)
    compressed_file.save(compressed, network, quantised, header)
    final_test._record_layers(settings, space, tmp_path, row, path)
    written = table.read_text()
    assert written.count("\n") == 7 and "19200" in written
    for seconds, content in ((0, "kept"), (5, "kept"), (-5, written)):
        table.write_text("kept")
        at = compressed.stat().st_mtime + seconds
        os.utime(table, (at, at))
        final_test._record_layers(settings, space, tmp_path, row, path)
        assert table.read_text() == content

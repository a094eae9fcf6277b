"""Studies that start from networks which were trained before."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.stats.summary import summarise
from analysis.text.caveats import caveats
from study import evaluate, export, reproduce
from study.artifacts.cache import FINE_TUNED, SharedWork
from study.artifacts.checkpoints import Progress
from study.compression import compressed_file
from study.compression.file_checks import check_entries
from study.data.splits import Splits
from study.errors import UserError
from study.methods.common import pretrained
from study.methods.kd import method as kd
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws import method as kd_sws
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws.settings import SWSSettings
from study.pipeline.initial_weights import check_weights, digest_of, lines_about, load_initial_weights
from study.records.columns import Row
from study.records.study_folder import load
from study.settings import resolve
from study.training.loop import evaluate as score
from study.training.network import Training, build_network, fit_teacher, start_network, state_arrays
from study.tuning.space import SearchSpace

NETWORK = "lenet_300_100"
TRAINING = Training(NETWORK, epochs=6, seed=4)


@pytest.fixture(scope="module")
def trained(digits: Splits) -> dict[str, Tensor]:
    """The state of a network that knows the digits well."""
    model = fit_teacher(TRAINING, digits, lambda row: None)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def file(trained: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in trained.items()}}, path)
    return path


def run_stage(settings: Any, digits: Splits, stage: Any = pretrained.STAGE) -> tuple[SharedWork, list[Row]]:
    """The shared work of a study, and what it reported."""
    rows: list[Row] = []
    weights = load_initial_weights(settings, digits)
    result = stage.run({}, settings, digits, weights, rows.append, Progress())
    return SharedWork(result.arrays, {"metrics": dict(result.metrics), "history": rows}), rows


def same(arrays: Any, tensors: dict[str, Tensor]) -> bool:
    return arrays.keys() == tensors.keys() and all((arrays[k] == tensors[k].numpy()).all() for k in tensors)


def test_without_fine_tuning_trials_start_from_the_file(file: Path, trained: dict[str, Tensor], digits: Splits) -> None:
    """No epoch is trained, the accuracy is that of the file's network, and there is no other baseline."""
    settings = resolve(MagnitudeSettings(checkpoint=file))
    assert (settings.pretrain_epochs, settings.finetune_epochs, settings.finetune_rate) == (0, 0, 1e-4)
    shared, rows = run_stage(settings, digits)
    assert not rows and same(shared.weights().arrays, trained) and same(shared.start().arrays, trained)
    whole = start_network(TRAINING, digits, trained)
    assert shared.record["metrics"]["val_accuracy"] == score(whole, digits.validation, digits).accuracy > 90
    assert pretrained.STAGE.further(shared) == {}
    assert same(state_arrays(pretrained.start(settings, digits, shared)[0]), trained)


def test_the_reference_is_the_network_as_it_was_brought(file: Path, trained: dict[str, Tensor], digits: Splits) -> None:
    """Trials start after the fine-tuning, which is a baseline of its own with the accuracy of its last epoch; a
    network that teaches itself does so as it is then."""
    settings = resolve(SWSSettings(checkpoint=file, finetune_epochs=2, finetune_rate=1e-2, teacher="self"))
    shared, rows = run_stage(settings, digits)
    assert [row["phase"] for row in rows] == ["fine-tune"] * 2 and same(shared.weights().arrays, trained)
    further = pretrained.STAGE.further(shared)["fine-tuned"]
    tuned = start_network(TRAINING, digits, further.tensors())
    after = score(tuned, digits.validation, digits)
    before = shared.record["metrics"]
    assert not same(further.arrays, trained) and same(shared.start().arrays, tuned.state_dict())
    assert further.record["metrics"]["val_accuracy"] == after.accuracy == rows[-1]["val_accuracy"]
    assert further.record["metrics"]["accuracy_drop"] == before["val_accuracy"] - after.accuracy
    assert before["accuracy_drop"] == 0 and further.record["metrics"]["file_bytes"] == before["file_bytes"]
    network, targets = pretrained.start(settings, digits, shared)
    assert same(state_arrays(network), tuned.state_dict()) and targets.logits is not None
    logits = network.eval()((digits.train.images[:5] / 255 - digits.mean[0]) / digits.std[0])
    torch.testing.assert_close(targets.logits[0, :5], logits, atol=1e-4, rtol=1e-4)


def test_a_network_with_a_fresh_layer_is_the_reference_after_its_training(
    file: Path, trained: dict[str, Tensor], digits: Splits
) -> None:
    """What was never whole is no reference; a warning says that nothing trains the layer."""
    settings = resolve(MagnitudeSettings(checkpoint=file, reinit="5", finetune_epochs=2, finetune_rate=3e-3))
    shared, rows = run_stage(settings, digits)
    assert len(rows) == 2 and pretrained.STAGE.further(shared) == {} and not any(FINE_TUNED in k for k in shared.arrays)
    assert shared.record["metrics"]["val_accuracy"] == rows[-1]["val_accuracy"] > 80
    weights = load_initial_weights(settings, digits)
    assert weights is not None and weights.part("network/").arrays.keys() == trained.keys() - {"5.weight", "5.bias"}
    assert lines_about(settings, digits, weights)[-1] == "Starts fresh: 5"
    untrained = settings.changed(finetune_epochs=0)
    assert lines_about(untrained, digits, weights)[-1].startswith("Warning: 5 starts fresh and is not trained first")


def test_a_name_that_starts_nothing_fresh_is_refused(file: Path, digits: Splits) -> None:
    """With the flag, and what was perhaps meant; so is one that leaves nothing."""
    for reinit, line in (("fc", "--reinit fc: lenet_300_100 has no layer or tensor of that name; give the name of a"),
                         ("1,3,5", f"--checkpoint {file}: --reinit 1,3,5 leaves nothing of it")):  # fmt: skip
        with pytest.raises(UserError) as refused:
            load_initial_weights(resolve(SWSSettings(checkpoint=file, reinit=reinit)), digits)
        assert str(refused.value).startswith(line)


def test_the_cache_knows_what_was_brought(
    file: Path, trained: dict[str, Tensor], digits: Splits, tmp_path: Path
) -> None:
    """The key of the shared work changes with the numbers, the layers that start fresh, the fine-tuning and the
    normalisation; not with the path. Without any of them it is what it always was."""

    def key(data: Splits = digits, **values: Any) -> str:
        settings = resolve(MagnitudeSettings.of(**values))
        return json.dumps(pretrained.STAGE.key(settings, data, load_initial_weights(settings, data)), sort_keys=True)

    other, copied = tmp_path / "other.pt", tmp_path / "copy.pt"
    copied.write_bytes(file.read_bytes())
    torch.save({**trained, "5.bias": trained["5.bias"] + 1e-6}, other)
    normalised = dataclasses.replace(digits, mean=(0.5,), train_mean=digits.mean)
    keys = [key(), key(checkpoint=file), key(checkpoint=other), key(checkpoint=file, reinit="5"),
            key(checkpoint=file, finetune_epochs=1), key(checkpoint=file, finetune_epochs=1, finetune_rate=1e-3),
            key(normalised, checkpoint=file), key(teacher=NETWORK), key(teacher=NETWORK, teacher_checkpoint=file),
            key(teacher=NETWORK, teacher_checkpoint=other)]  # fmt: skip
    assert len(set(keys)) == len(keys) and key(checkpoint=copied) == keys[1]
    assert not {"given", "normalise"} & json.loads(keys[0]).keys()


def test_a_teacher_that_was_brought_is_not_trained(file: Path, trained: dict[str, Tensor], digits: Splits) -> None:
    """In `sws` as in `kd`: its logits are those of the file."""
    whole = start_network(TRAINING, digits, trained)
    accuracy = score(whole, digits.validation, digits).accuracy
    settings = resolve(SWSSettings(teacher=NETWORK, teacher_checkpoint=file, pretrain_epochs=1))
    shared, rows = run_stage(settings, digits)
    assert [row["phase"] for row in rows] == ["train"] and shared.record["metrics"]["teacher_val_accuracy"] == accuracy
    assert same(shared.teacher().weights().arrays, trained)
    settings = resolve(KDSettings(teacher=NETWORK, teacher_checkpoint=file, student=NETWORK))
    shared, rows = run_stage(settings, digits, kd.STAGE)
    assert not rows and shared.record["metrics"]["val_accuracy"] == accuracy and same(shared.weights().arrays, trained)


def test_a_student_that_was_brought_starts_from_its_weights(
    file: Path, trained: dict[str, Tensor], digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `kd_sws`: they come to the trials with the teacher, are no part of its weights, and fix the width."""
    settings = resolve(KDSWSSettings(student=NETWORK, teacher=NETWORK, checkpoint=file, teacher_epochs=1))
    shared, _ = run_stage(settings, digits, kd_sws.METHOD.shared_work)
    assert not same(shared.weights().arrays, trained) and shared.weights().arrays.keys() == trained.keys()
    given: list[Any] = []

    def fit_student(*arguments: Any) -> None:
        given.append(arguments[-1])
        raise InterruptedError

    monkeypatch.setattr(kd_sws.student, "fit_student", fit_student)
    values = {"temperature": 4.0, "alpha": 0.5, "tau": 0.1, "components": 8, "pi_zero": 0.99}
    with pytest.raises(InterruptedError):
        kd_sws.trial(values, settings, digits, shared, lambda row: None, Progress())
    assert same({name: tensor.numpy() for name, tensor in given[0].items()}, trained)
    assert "student_width" not in SearchSpace.of_study(settings).domains
    without = settings.changed(checkpoint=None)
    assert "student_width" in SearchSpace.of_study(without).domains
    keys = [kd_sws.METHOD.shared_work.key(s, digits, load_initial_weights(s, digits)) for s in (settings, without)]
    assert keys[0] == {**keys[1], "student": keys[0]["student"]}


def test_the_constants_that_are_used_are_said(file: Path, digits: Splits) -> None:
    """Of a network from a file without `--normalise`; with it there is nothing to say."""
    settings = resolve(SWSSettings(checkpoint=file))
    weights = load_initial_weights(settings, digits)
    (line,) = lines_about(settings, digits, weights)
    assert line.startswith("Images are normalised by mean 0.3055, std 0.3759: those of the training part.")
    assert lines_about(settings.changed(normalise="0.3/0.3"), digits, weights) == []
    assert lines_about(resolve(SWSSettings()), digits, None) == []


def test_weights_that_changed_under_a_study_are_refused(file: Path, trained: Any, digits: Splits) -> None:
    """By the flag; a study that did not record them is let through."""
    settings = resolve(SWSSettings(checkpoint=file))
    recorded = {"models": {"network": {"weights": digest_of(load_initial_weights(settings, digits), "network")}}}
    torch.save({**trained, "5.bias": trained["5.bias"] + 1}, file)
    now: dict[str, Any] = {"network": {"weights": digest_of(load_initial_weights(settings, digits), "network")}}
    with pytest.raises(UserError, match=f"^--checkpoint {file}: its weights are not those that .* was started with"):
        check_weights(recorded, settings, now)
    check_weights({"models": {"network": {}}}, settings, now)


def test_a_compressed_file_keeps_the_constants_and_knows_its_split(
    digits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mean and std are those that the network was fed with; the split is still told by the training part's own
    mean, and one that is another is refused."""
    data = dataclasses.replace(digits, mean=(0.5,), std=(0.25,), train_mean=digits.mean)
    model = build_network(TRAINING, data)
    network = compressed_file.network_of(NETWORK, {}, data)
    from study.methods.magnitude.pruning import post_training

    path = tmp_path / "net.codebook"
    path.write_bytes(compressed_file.encode(model, post_training(model, 8), network))
    read = compressed_file.read(path).network
    assert (read.mean, read.std, read.train_mean) == ((0.5,), (0.25,), digits.mean)
    assert evaluate.main([str(path), "--part", "validation"]) == 0
    assert evaluate.main([str(path), "--part", "validation", "--split-seed", "3"]) == 2
    assert "not the split that" in capsys.readouterr().err
    entries = [NETWORK, {}, [1, 8, 8], 10, [0.5], [0.25], "digits", []]
    for wrong in (0, "x", {}, [0.1, 0.2], ["0.1"], [float("nan")]):
        with pytest.raises(ValueError, match="^its training mean is not one finite number for each of its 1 channels"):
            check_entries(*entries, wrong)


@pytest.mark.slow
def test_a_study_from_a_checkpoint(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the report: both baselines are tested, over fresh seeds too, where the network as it was
    brought is the same for each; what cannot be told from its test is said; a trial and the fine-tuning are reproduced;
    a file that changed is refused."""
    flags = ["--checkpoint", file, "--normalise", "0.3/0.3", "--finetune-epochs", 1, "--epochs", 1]
    flags += ["--codebook-epochs", 1, "--num-samples", 1, "--confirm", 1, "--seeds", 2, "--no-dashboard"]
    command = [sys.executable, "-m", "study.run", "magnitude", *map(str, flags), "--results-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    study = load(tmp_path / "magnitude-digits")
    assert study.meta["data"]["mean"] == [0.3] and study.meta["reference"] == "uncompressed"
    assert study.meta["dense"] == {"uncompressed": "network", "fine-tuned": "network"}
    trials = study.trials.set_index("trial_id")
    assert list(trials.index[:2]) == ["uncompressed", "fine-tuned"] and set(trials["state"]) == {"complete"}
    tested = study.confirmed.groupby("trial_id")["test_accuracy"]
    assert set(tested.size()) == {3} and {"uncompressed", "fine-tuned", "t001"} <= set(tested.groups)
    assert tested.nunique()["uncompressed"] == 1
    said = " ".join(caveats(summarise(study)))
    assert "The network came from a file (--checkpoint)" in said
    assert "start from one trained network" in said
    for trial in ("t001", "fine-tuned"):
        assert reproduce.main([str(study.folder), trial]) == 0, capsys.readouterr()
    assert export.main([str(study.folder), "--trial", "fine-tuned", "--formats", "safetensors"]) == 0
    file.write_bytes(b"")
    assert reproduce.main([str(study.folder), "t001"]) == 2
    assert f"--checkpoint {file}: is empty" in capsys.readouterr().err


def test_a_dry_run_takes_no_time_for_what_was_brought(
    file: Path, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared work of a study whose networks are there already costs nothing, and the fine-tuning does."""
    from study.pipeline import cost_estimate
    from study.pipeline.cost_estimate import estimate

    monkeypatch.setattr(cost_estimate, "AFFORDABLE", 0.0)  # no trial is trained to time it
    settings = resolve(MagnitudeSettings(checkpoint=file, teacher=NETWORK, teacher_checkpoint=file))
    space = SearchSpace.of_study(settings)
    assert estimate(settings, space, digits).shared == 0
    assert estimate(settings.changed(finetune_epochs=3), space, digits).shared > 0

"""`--measure latency`: what it measures, and what is refused before a study starts."""

from __future__ import annotations

import pytest
import torch

from study.compression import latency, measured_cost
from study.compression.layer_facts import KEPT, layer_rows, sensitivity_rows
from study.data.splits import Splits
from study.errors import TrialFailed, UserError
from study.methods.kd.settings import KDSettings
from study.methods.method import TrialResult
from study.methods.sws.settings import SWSSettings
from study.records.columns import COLUMNS, LAYER_COLUMNS, MEASURED, SENSITIVITY_COLUMNS
from study.settings import Settings, contradiction, resolve
from study.training.loop import evaluate
from study.training.network import Training, build_network, state_arrays
from study.tuning import measuring
from study.tuning.scheduler import measured_objectives
from study.tuning.space import SearchSpace

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_cost, "SECONDS", 0.05)
    monkeypatch.setattr(latency, "WARM_UP", 0.01)


def half_dead(digits: Splits) -> torch.nn.Module:
    """LeNet-300-100 of whose first layer every second unit is zero."""
    model = build_network(Training("lenet_300_100"), digits)
    with torch.no_grad():
        first = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
        first.weight[::2] = first.bias[::2] = 0
    return model


def test_a_trial_has_its_measured_cost(digits: Splits) -> None:
    """Of the shrunk network: 150 units cost 64·150 + 150·100 + 1000 multiply-adds, of 50,200 before. Ratios of the
    network that the study starts from are 1. Every column is declared."""
    settings = SWSSettings.of(kind="sws", measure="latency", latency_batch=8, epochs=1)
    result = measuring.with_cost(TrialResult({"val_loss": 1.0}, state_arrays(half_dead(digits))), settings, digits)
    assert result.metrics["multiply_adds"] == 64 * 150 + 150 * 100 + 1000 and result.metrics["val_loss"] == 1
    assert set(result.metrics) - {"val_loss"} == set(MEASURED) <= set(COLUMNS)
    assert all(float(str(value)) > 0 for value in result.metrics.values())
    assert float(str(result.metrics["latency_ms"])) <= float(str(result.metrics["latency_p95_ms"]))
    first = measuring.first_cost(settings, digits)
    assert first["multiply_adds"] == 64 * 300 + 300 * 100 + 1000
    assert first["latency_ratio"] == first["batch_latency_ratio"] == 1


def test_nothing_is_measured_unless_asked_for(digits: Splits) -> None:
    """Without the flag a result stays what it is."""
    result = TrialResult({"val_loss": 1.0}, {})
    assert measuring.with_cost(result, SWSSettings.of(kind="sws"), digits) is result


def test_a_network_that_cannot_be_measured_fails_its_trial(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is recorded as failed, with the reason, rather than retried."""

    def refuse(*arguments: object, **others: object) -> None:
        raise UserError("torch cannot trace the network")

    monkeypatch.setattr(measured_cost, "onnx_proto", refuse)
    with pytest.raises(TrialFailed, match="cost cannot be measured: torch cannot trace"):
        measured_cost.measured_cost(half_dead(digits), b"", digits.shape)


def test_objectives_that_nothing_measures() -> None:
    """An objective of latency without the flag that measures it is refused, with that flag."""
    space = SearchSpace("sws", {}, {"val_accuracy": "max", "latency_ratio": "min"}, {})
    with pytest.raises(UserError, match="latency_ratio is not measured; add --measure latency"):
        measuring.check_objectives(SWSSettings.of(), space)
    measuring.check_objectives(SWSSettings.of(measure="latency"), space)
    batch = SearchSpace("sws", {}, {"val_accuracy": "max", "batch_latency_ms": "min"}, {})
    with pytest.raises(UserError, match="add --latency-batch N"):
        measuring.check_objectives(SWSSettings.of(measure="latency"), batch)
    assert measured_objectives(space.objectives) == {"val_accuracy": "max"}
    assert measured_objectives({"latency_ms": "min"}) == {"val_accuracy": "max"}


def test_what_is_measured_is_fixed_for_a_study() -> None:
    """Columns of a table do not change midway; a study older than the flag measured nothing, and sensitivity may be
    added to any. No trial's configuration depends on it."""
    plain, measured = SWSSettings.of(kind="sws"), SWSSettings.of(kind="sws", measure="latency")
    older = plain.defining()
    assert contradiction(plain, older) == "" == contradiction(plain.changed(sensitivity=True), older)
    assert contradiction(measured, older) == "--measure latency (the study has none)"
    assert plain.defining() == measured.defining()
    with pytest.raises(UserError, match="--latency-batch 8: has no effect without --measure latency"):
        resolve(KDSettings.of(latency_batch=8))


def test_packages_that_are_absent(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line before Ray starts, that says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings: Settings = SWSSettings.of(kind="sws", measure="latency")
    with pytest.raises(UserError, match=r"--measure latency: .*onnxruntime; pip install 'compression-study\[onnx\]'"):
        measuring.check(settings, digits)
    measuring.check(settings.changed(measure="none"), digits)


def test_sensitivity_prunes_one_layer_at_a_time(digits: Splits) -> None:
    """Each layer alone at each share, the network itself first; its weights are what they were afterwards."""
    model = half_dead(digits).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    rows = sensitivity_rows(model, digits)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(tuple(row) == SENSITIVITY_COLUMNS for row in rows)
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert [(r["tensor"], r["remaining"]) for r in rows] == [("", 100.0), *((n, k) for n in weights for k in KEPT)]
    assert rows[0]["val_accuracy"] == pytest.approx(evaluate(model, digits.validation, digits).accuracy)
    last = dict(model.named_parameters())[weights[-1]]
    order = last.detach().abs().flatten().argsort()
    with torch.no_grad():
        last.view(-1)[order[: round(0.95 * len(order))]] = 0
    by_hand = evaluate(model, digits.validation, digits).accuracy
    assert next(r["val_accuracy"] for r in rows if (r["tensor"], r["remaining"]) == (weights[-1], 5.0)) == by_hand


def test_what_compression_did_to_each_layer(digits: Splits) -> None:
    """One row a parameter: what took part, its zeros, values, bytes in the file, and the units that are left."""
    from study.compression import compressed_file
    from study.compression.quantised_weights import QuantisedWeights, leave_out, shared_parameters

    model = leave_out(build_network(Training("lenet_300_100"), digits), ())
    skipped = [name for name, p in model.named_parameters()][-2:]
    leave_out(model, skipped)
    parameters = shared_parameters(model)
    index = torch.randint(1, 4, (sum(p.numel() for p in parameters),), generator=torch.Generator().manual_seed(0))
    index[:19_200].view(300, 64)[::2] = 0
    index[19_200:19_500][::2] = 0
    quantised = QuantisedWeights(index, torch.tensor([0.0, -0.1, 0.1, 0.2]), torch.ones(len(parameters)))
    quantised.write(parameters)
    network = compressed_file.network_of("lenet_300_100", {}, digits, tuple(skipped))
    rows = layer_rows(compressed_file.decode(compressed_file.encode(model, quantised, network)))
    assert {key for row in rows for key in row} == set(LAYER_COLUMNS)
    assert [row["weights"] for row in rows] == [19_200, 300, 30_000, 100, 1000, 10]
    assert [row["compressed"] for row in rows] == [1, 1, 1, 1, 0, 0]
    assert (rows[0]["nonzero"], rows[0]["values"], rows[0]["tensor_shape"]) == (9600, 4, "300×64")
    assert (rows[0]["units"], rows[0]["units_left"]) == (300, 150) and rows[0]["coded_bytes"] < 19_200
    assert "nonzero" not in rows[4] and "units" not in rows[1]

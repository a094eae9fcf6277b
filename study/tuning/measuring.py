"""What `--measure latency` adds to the trials of a study; `study.compression.measured_cost` measures it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from study.artifacts.cache import SharedWork
from study.compression.measured_cost import as_onnx, check_packages, measured_cost
from study.data.splits import Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import TrialResult
from study.records.columns import MEASURED
from study.records.search_domains import Value
from study.settings import Settings, flag
from study.training.network import Training, build_network, load_network
from study.tuning.space import SearchSpace


def check_objectives(settings: Settings, space: SearchSpace) -> None:
    """Refuse an objective that nothing measures.

    Raises:
        UserError: with the flag that it takes.
    """
    measuring = settings.measuring
    for name in space.objectives:
        if name not in MEASURED:
            continue
        place = space.origins.get(name, space.file)
        if measuring.measure == "none":
            raise UserError(f"{place}: the objective {name} is not measured; add --measure latency")
        if name.startswith("batch_") and measuring.latency_batch is None:
            raise UserError(f"{place}: the objective {name} is not measured; add --latency-batch N")


def check(settings: Settings, data: Splits) -> None:
    """Try to export the networks of a study that is to be measured.

    Raises:
        UserError: a package is absent, or a network that torch cannot export.
    """
    if settings.measuring.measure == "none":
        return
    check_packages()
    method = registry.method(settings.kind)
    for role, training in {
        method.shared_work.role: _first_network(settings),
        "student" if method.student else method.shared_work.role: method.searched_network(settings),
    }.items():
        try:
            _reference(training, data)
        except UserError as error:
            reason = str(error).removeprefix("--formats onnx: ").removesuffix("; leave onnx out")
            raise UserError(f"--measure latency: {flag(role)} {training.network}: {reason}; leave --measure out"
                            ) from error  # fmt: skip


def with_cost(result: TrialResult, settings: Settings, data: Splits) -> TrialResult:
    """A trial's result with its measured cost, if the study measures it.

    Args:
        settings: of the trial: those that are searched are set.
    Raises:
        TrialFailed: its network cannot be exported, or not run.
    """
    if settings.measuring.measure == "none":
        return result
    training = registry.method(settings.kind).searched_network(settings)
    model = load_network(SharedWork(result.arrays).tensors(), training, data)
    reference = _reference(_first_network(settings), data)
    cost = measured_cost(model, reference, data.shape, settings.measuring.latency_batch)
    return replace(result, metrics={**result.metrics, **cost})


def first_cost(settings: Settings, data: Splits) -> Mapping[str, Value]:
    """Measured cost of the network that the study starts from, which others are compared with: its ratios are 1."""
    training = _first_network(settings)
    reference = _reference(training, data)
    cost = measured_cost(build_network(training, data), reference, data.shape, settings.measuring.latency_batch)
    return {name: 1.0 if name.endswith("_ratio") else value for name, value in cost.items()}


def _first_network(settings: Settings) -> Training:
    """The network that the shared work leaves: uncompressed, or the teacher."""
    method = registry.method(settings.kind)
    return method.shared_work.networks(settings)[method.shared_work.role]


_EXPORTED: dict[str, bytes] = {}
"""ONNX of the networks that others are compared with, of this process. What the weights are does not change how long
they take, so those are fresh."""


def _reference(training: Training, data: Splits) -> bytes:
    key = json.dumps([training.network, training.options, list(data.shape), len(data.classes)])
    if key not in _EXPORTED:
        _EXPORTED[key] = as_onnx(build_network(training, data), data.shape)
    return _EXPORTED[key]

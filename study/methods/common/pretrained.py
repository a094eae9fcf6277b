"""The shared work of compression methods: one trained network, and its teacher, that every trial starts from."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from study.artifacts.cache import TEACHER, SharedWork
from study.artifacts.checkpoints import Progress
from study.compression import compressed_file
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.size_metrics import ratio
from study.data.fingerprint import identity
from study.data.splits import Splits
from study.methods.common.settings import CompressionSettings
from study.methods.method import TrialResult, shift_epochs
from study.methods.sws import weight_sharing
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import Report, evaluate
from study.training.network import (
    RECIPE,
    Training,
    custom_code_key,
    fit_teacher,
    load_network,
    state_arrays,
    teacher_apart,
    width_option,
)

# --- compressing one trained network


def pretraining(s: CompressionSettings) -> Training:
    return Training(s.network, width_option(s.network_width), s.pretrain_epochs or 0, s.batch_size or 0,
                       s.learning_rate, 0.0, s.augment or "none", s.seed, s.precision)  # fmt: skip


def compression_teacher(s: CompressionSettings) -> Training | None:
    """Training of a teacher of its own; None where there is no teacher, or the network is it."""
    if s.teacher in ("none", "self"):
        return None
    training = Training(s.teacher, width_option(s.teacher_width), s.teacher_epochs, s.batch_size or 0,
                           s.learning_rate, 5e-4, s.augment or "none", s.seed, s.precision)  # fmt: skip
    return teacher_apart(training, pretraining(s))


def pretrain_network(
    values: dict, s: CompressionSettings, data: Splits, given: SharedWork | None, on_epoch: Report, progress: Progress
) -> TrialResult:
    """The network, and the logits of its teacher: itself, or another one that is trained first."""
    teacher, metrics, before = None, {}, 0
    if training := compression_teacher(s):
        before = training.epochs
        teacher = fit_teacher(training, data, lambda row: on_epoch({**row, "phase": "teacher"}), progress)
        metrics = {"teacher_val_accuracy": evaluate(teacher, data.validation, data).accuracy}
    network = weight_sharing.pretrain(pretraining(s), data, shift_epochs(before, on_epoch), progress)
    score = evaluate(network, data.validation, data)
    metrics |= {"val_accuracy": score.accuracy, "val_loss": score.loss, "accuracy_drop": 0.0, **uncompressed(network)}
    arrays = state_arrays(network)
    if s.teacher != "none":
        arrays |= distillation.stored_logits(teacher or network, data.train, data, s.augment or "none")
    if teacher:
        arrays |= {TEACHER + name: array for name, array in state_arrays(teacher).items()}
    return TrialResult(metrics, arrays)


def network_key(s: CompressionSettings, data: Splits, given: SharedWork | None) -> dict[str, Any]:
    training = compression_teacher(s)
    teacher = vars(training) if training else s.teacher
    key = {"training": vars(pretraining(s)), "teacher": teacher, "data": identity(data)}
    return {**key, "torch": torch.__version__, "recipe": RECIPE, **custom_code_key(data, pretraining(s), training)}


def start(s: CompressionSettings, data: Splits, shared: SharedWork) -> tuple[nn.Module, Targets]:
    """The trained network, to be compressed in place, and its teacher."""
    network = load_network(shared.weights().tensors(), pretraining(s), data)
    if s.teacher == "none":
        return network, Targets()
    return network, distillation.targets_from(shared.teacher(), compression_teacher(s) or pretraining(s), data,
                                    s.augment or "none")  # fmt: skip


def teaching(s: CompressionSettings) -> dict[str, Any]:
    return {"temperature": s.temperature, "alpha": 0.0 if s.teacher == "none" else s.alpha}


def compressed(
    network: nn.Module,
    quantised: QuantisedWeights,
    metrics: dict[str, Any],
    training: Training,
    data: Splits,
    first: SharedWork,
) -> TrialResult:
    """What a compressing trial leaves: its metrics with the size of its file, measured, and the file."""
    file = compressed_file.encode(
        network, quantised, compressed_file.network_of(training.network, training.options, data)
    )
    size = {"file_bytes": len(file), "compression_ratio": ratio(shared_parameters(network), len(file))}
    drop = first.record["metrics"]["val_accuracy"] - metrics["val_accuracy"]
    return TrialResult({**metrics, **size, "accuracy_drop": drop}, state_arrays(network), file)


def uncompressed(network: nn.Module) -> dict[str, float]:
    """Metrics of size of a network as it was trained."""
    return {"sparsity": 0.0, "nonzero_ratio": 1.0, "entropy_ratio": 1.0, "compression_ratio": 1.0,
            "file_bytes": 4 * sum(p.numel() for p in shared_parameters(network))}  # fmt: skip


def compressing_networks(s: CompressionSettings) -> dict[str, Training]:
    teacher = compression_teacher(s)
    return {"network": pretraining(s), **({"teacher": teacher} if teacher else {})}

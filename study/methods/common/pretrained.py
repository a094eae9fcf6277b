"""The shared work of compression methods: one trained network, and its teacher, that every trial starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import nn

from study.artifacts.cache import FINE_TUNED, NETWORK, TEACHER, SharedWork, arrays_digest
from study.artifacts.checkpoints import Progress
from study.compression import compressed_file
from study.compression.quantised_weights import (
    QuantisedWeights,
    leave_out,
    leave_out_as_version_1,
    left_out,
    names_in,
    shared_parameters,
)
from study.compression.size_metrics import ratio
from study.data.fingerprint import identity
from study.data.splits import Splits
from study.methods.common.settings import CompressionSettings, NetworkSettings, loss_without_effect
from study.methods.method import Stage, TrialResult, shift_epochs
from study.models.state import tensors_of
from study.models.zoo import BUILDERS
from study.records.search_domains import Value
from study.settings import Values
from study.training import distillation
from study.training.distillation import LossHparams, Targets
from study.training.loop import Report, evaluate
from study.training.network import (
    RECIPE,
    Training,
    build_network,
    custom_code_key,
    fit_teacher,
    is_listed,
    load_network,
    normalisation_key,
    start_network,
    state_arrays,
    teacher_apart,
    width_option,
)


def pretraining(settings: NetworkSettings) -> Training:
    """How the network is trained that every trial starts from: from fresh weights, or further than it was brought."""
    brought = settings.checkpoint or settings.weights
    rate = settings.learning_rate or settings.default_rate(settings.optimizer)
    return Training(
        network=settings.network,
        options=width_option(settings.network_width),
        epochs=(settings.finetune_epochs if brought else settings.pretrain_epochs) or 0,
        batch_size=settings.batch_size or 0,
        learning_rate=settings.finetune_rate or 0.0 if brought else rate,
        weight_decay=settings.weight_decay,
        augment=settings.augment or "none",
        seed=settings.seed,
        precision=settings.precision,
        recipe=settings.recipe(),
        contiguous=is_listed(settings.network, settings.contiguous),
    )


def teacher_name(settings: NetworkSettings) -> str:
    """What `--teacher` says; "none" for methods that have no such flag."""
    return settings.teacher or "none" if isinstance(settings, CompressionSettings) else "none"


def teacher_training(settings: NetworkSettings) -> Training | None:
    """How a teacher of its own is trained; None where there is no teacher, or the network is it."""
    if not isinstance(settings, CompressionSettings) or settings.teacher in (None, "none", "self"):
        return None
    training = Training(
        network=settings.teacher,
        options=width_option(settings.teacher_width),
        epochs=0 if settings.teacher_checkpoint else settings.teacher_epochs,
        batch_size=settings.batch_size or 0,
        learning_rate=settings.teacher_rate(settings.learning_rate),
        weight_decay=settings.teacher_decay(),
        augment=settings.augment or "none",
        seed=settings.seed,
        precision=settings.precision,
        recipe=settings.teacher_recipe(),
        contiguous=is_listed(settings.teacher, settings.contiguous),
    )
    return teacher_apart(training, pretraining(settings))


def networks(settings: NetworkSettings) -> dict[str, Training]:
    """Role → training, of all that the shared work trains."""
    teacher = teacher_training(settings)
    return {"network": pretraining(settings), **({"teacher": teacher} if teacher else {})}


def pretrain(
    values: Values,
    settings: NetworkSettings,
    data: Splits,
    shared: SharedWork | None,
    on_epoch: Report,
    progress: Progress,
) -> TrialResult:
    """Train the network, and compute the logits of its teacher: itself, or another one that is trained first.

    What the user gave of either is taken. A network that was brought with all of its layers is the reference as it
    was, and trials start from it after its fine-tuning.

    Args:
        shared: the weights that the user gave.
    """
    given = shared or SharedWork({})
    teacher: nn.Module | None = None
    metrics: dict[str, Value] = {}
    epochs_before = 0
    if training := teacher_training(settings):
        epochs_before = training.epochs
        initial = given.part(TEACHER).tensors()
        teacher = fit_teacher(training, data, lambda row: on_epoch({**row, "phase": "teacher"}), progress, initial)
        metrics = {"teacher_val_accuracy": evaluate(teacher, data.validation, data).accuracy}
    training, brought = pretraining(settings), given.part(NETWORK).tensors()
    phase = {"phase": "fine-tune"} if brought else {}
    report = shift_epochs(epochs_before, lambda row: on_epoch({**row, **phase}))
    trained = fit_teacher(training, data, report, progress, brought)
    network = trained
    if brought and training.epochs and tensors_of(network).keys() == brought.keys():
        network = start_network(training, data, brought)
    score = evaluate(network, data.validation, data)
    metrics |= {"val_accuracy": score.accuracy, "val_loss": score.loss, "accuracy_drop": 0.0}
    metrics |= uncompressed_sizes(leave_out(network, names_in(settings.skip)))
    arrays = state_arrays(network)
    if teacher_name(settings) != "none":
        arrays |= distillation.stored_logits(teacher or trained, data.train, data, settings.augment or "none")
    if teacher:
        arrays |= {TEACHER + name: array for name, array in state_arrays(teacher).items()}
    if trained is not network:
        arrays |= {FINE_TUNED + name: array for name, array in state_arrays(trained).items()}
    return TrialResult(metrics, arrays)


def fine_tuned(shared: SharedWork) -> dict[str, SharedWork]:
    """The network after its fine-tuning, where the reference is the one before; see `Stage.further`."""
    arrays = shared.part(FINE_TUNED).arrays
    if not arrays:
        return {}
    before = shared.record["metrics"]
    history = [row for row in shared.record["history"] if row["phase"] == "fine-tune"]
    after = {name: history[-1][name] for name in ("train_loss", "val_loss", "val_accuracy")}
    drop = {"accuracy_drop": before["val_accuracy"] - after["val_accuracy"]}
    record = {"metrics": {**before, **after, **drop}, "history": history}
    return {FINE_TUNED.removesuffix("/"): SharedWork(arrays, record)}


def network_key(settings: NetworkSettings, data: Splits, initial_weights: SharedWork | None) -> Mapping[str, object]:
    """What determines the shared work, as JSON values."""
    training = teacher_training(settings)
    teacher = training.key() if training else teacher_name(settings)
    key = {"training": pretraining(settings).key(), "teacher": teacher, "data": identity(data)}
    code = custom_code_key(data, pretraining(settings), training)
    counted = counted_key(pretraining(settings), names_in(settings.skip), data)
    given = {"given": arrays_digest(initial_weights.arrays)} if initial_weights else {}
    normalised = normalisation_key(data)
    return {**key, "torch": torch.__version__, "recipe": RECIPE, **code, **counted, **given, **normalised}


def counted_key(training: Training, skip: tuple[str, ...], data: Splits) -> Mapping[str, object]:
    """Part of the key of shared work whose metrics count a network's weights, where the count is not that of linear
    and convolution layers alone, as it was first for every network."""
    if training.network in BUILDERS and not skip:
        return {}
    network = build_network(training, data)
    counted = {id(p) for p in shared_parameters(leave_out(network, skip))}
    if counted == {id(p) for p in shared_parameters(leave_out_as_version_1(network))}:
        return {}
    return {"left_out": list(left_out(leave_out(network, skip)))}


def fine_tuned_names(settings: NetworkSettings) -> tuple[str, ...]:
    """The row that `fine_tuned` may give."""
    return (FINE_TUNED.removesuffix("/"),) if settings.finetune_epochs else ()


STAGE = Stage(
    name="uncompressed",
    run=pretrain,
    key=network_key,
    networks=networks,
    role="network",
    further=fine_tuned,
    further_names=fine_tuned_names,
)


def start(settings: NetworkSettings, data: Splits, shared: SharedWork) -> tuple[nn.Module, Targets]:
    """The trained network, to be compressed in place, and its teacher."""
    network = load_network(shared.start().tensors(), pretraining(settings), data)
    leave_out(network, names_in(settings.skip))
    if teacher_name(settings) == "none":
        return network, Targets()
    teacher = teacher_training(settings) or pretraining(settings)
    return network, distillation.targets_from(shared.teacher(), teacher, data, settings.augment or "none")


def no_teacher(settings: NetworkSettings) -> dict[str, Value]:
    """Fixed hyperparameters where labels alone teach, whatever `--alpha` says; see `hparams_from`."""
    return {"alpha": 0.0} if teacher_name(settings) == "none" else {}


def without_effect(settings: NetworkSettings) -> dict[str, str]:
    """Hyperparameters that do nothing with these settings, and why; see `Method.without_effect`."""
    if teacher_name(settings) == "none":
        return dict.fromkeys((f.name for f in fields(LossHparams)), "without --teacher")
    assert isinstance(settings, CompressionSettings)
    return loss_without_effect(settings)


def compressed(
    network: nn.Module,
    quantised: QuantisedWeights,
    metrics: Mapping[str, Value],
    settings: NetworkSettings,
    data: Splits,
    shared: SharedWork,
) -> TrialResult:
    """What a trial leaves that compressed the trained network."""
    training, skip = pretraining(settings), names_in(settings.skip)
    return compressed_result(network, quantised, metrics, training, data, shared, skip)


def compressed_result(
    network: nn.Module,
    quantised: QuantisedWeights,
    metrics: Mapping[str, Value],
    training: Training,
    data: Splits,
    shared: SharedWork,
    skip: tuple[str, ...] = (),
) -> TrialResult:
    """What a trial leaves that compressed any network: its metrics with the size of its file, measured, and the file.

    Args:
        training: names the network.
        shared: the accuracy that was lost is counted from its own.
        skip: names that the network has left out.
    """
    header = compressed_file.network_of(training.network, training.options, data, skip)
    file = compressed_file.encode(network, quantised, header)
    size = {"file_bytes": len(file), "compression_ratio": ratio(shared_parameters(network), len(file))}
    drop = shared.record["metrics"]["val_accuracy"] - metrics["val_accuracy"]
    return TrialResult({**metrics, **size, "accuracy_drop": drop}, state_arrays(network), file)


METRICS = (
    "val_accuracy",
    "val_loss",
    "accuracy_drop",
    "file_bytes",
    "compression_ratio",
    "sparsity",
    "nonzero_ratio",
    "entropy_ratio",
    "codebook_values_used",
)
"""What every trial reports that leaves a compressed network."""


def uncompressed_sizes(network: nn.Module) -> dict[str, float]:
    """Metrics of size of a network as it was trained."""
    return {
        "sparsity": 0.0,
        "nonzero_ratio": 1.0,
        "entropy_ratio": 1.0,
        "compression_ratio": 1.0,
        "file_bytes": 4 * sum(p.numel() for p in shared_parameters(network)),
    }

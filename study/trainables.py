"""Tune config → frozen hparams → `fit(hparams, data, on_epoch=report)`. Translation only; each function is one trial.

Every kind of study has two stages: work that all trials share (the teacher, the pretrained network), itself run as a
trial, and the trials that are searched.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from study import kd, models, sws
from study.cache import Shared, digest, fingerprint, identity, write_arrays
from study.data import Splits, subset_per_class
from study.errors import TrialFailed
from study.quantised import COUNTS_OVER
from study.settings import KD, SWS, Common
from study.training import evaluate

ARRAYS = "arrays.safetensors"
"""A finished trial's checkpoint: the weights it ended with, and what else its stage hands on."""

Arrays = dict[str, np.ndarray]


def device(settings: Common) -> torch.device:
    """The device that Ray gave this trial, with as many threads as it has CPUs."""
    torch.set_num_threads(max(1, int(settings.cpus_per_trial)))
    return torch.device("cuda" if settings.gpus_per_trial and torch.cuda.is_available() else "cpu")


def finish(metrics: dict[str, Any], arrays: Arrays) -> None:
    """A trial's last report. Only a trial that sends it is complete; one without it was stopped."""
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(Path(folder) / ARRAYS, arrays)
        tune.report({**metrics, "finished": True}, checkpoint=tune.Checkpoint.from_directory(folder))


def trial(run: Callable[..., tuple[dict[str, Any], Arrays]]) -> Callable[..., None]:
    """Make a Tune trainable of a function that returns metrics and arrays."""

    def trainable(config: dict[str, Any], settings: Any, data: Splits, shared: Shared | None = None) -> None:
        last: dict[str, Any] = {}

        def on_epoch(row: dict[str, Any]) -> None:
            last.update(row)
            tune.report(row)

        values = {k: v for k, v in config.items() if k != "trial_id"}
        try:
            metrics, arrays = run(values, settings, data.to(device(settings)), shared, on_epoch)
        except TrialFailed as error:
            tune.report({"failure": str(error)})
        else:
            finish({**last, **metrics}, arrays)

    trainable.__name__ = run.__name__
    return trainable


# --- knowledge distillation


def teacher_training(s: KD) -> kd.Training:
    return kd.Training(s.teacher, width(s.teacher_width), s.teacher_epochs or 0, max(s.batch_size or 0, 64),
                       s.learning_rate, s.weight_decay, s.augment or "none", s.seed)  # fmt: skip


def student_training(s: KD) -> kd.Training:
    return kd.Training(s.student, width(s.student_width), s.epochs or 0, s.batch_size or 0,
                       s.learning_rate, s.weight_decay, s.augment or "none", s.seed)  # fmt: skip


def width(value: float | None) -> dict[str, Any]:
    """Only the VGG kinds have a width, so 1 is not passed on."""
    return {} if value in (None, 1.0) else {"width": value}


def students_data(s: KD, data: Splits) -> Splits:
    """The splits with the training part that students see. Normalisation stays the teacher's."""
    if not s.student_examples:
        return data
    return Splits(**{**vars(data), "train": subset_per_class(data.train, s.student_examples, s.seed)})


def _teach(values: dict, s: KD, data: Splits, given: Shared | None, on_epoch: kd.Report) -> tuple[dict, Arrays]:
    training = teacher_training(s)
    if given is None:
        teacher = kd.fit_teacher(training, data, on_epoch)
    else:
        teacher = kd.load(given.tensors(), training, data)
    score = evaluate(teacher, data.validation, data)
    logits = kd.teacher_logits(teacher, students_data(s, data).train, data, training.augment)
    arrays = {**kd.state_arrays(teacher), "logits": logits.cpu().numpy()}
    return {"val_accuracy": score.accuracy, "val_loss": score.loss}, arrays


def _distil(values: dict, s: KD, data: Splits, shared: Shared, on_epoch: kd.Report) -> tuple[dict, Arrays]:
    hparams = kd.Hparams(student=student_training(s), **values)
    targets = kd.targets_from(shared, teacher_training(s), data, hparams.student.augment)
    return {}, kd.state_arrays(kd.fit(hparams, data, targets, on_epoch))


def _teacher_key(s: KD, data: Splits, given: Shared | None) -> dict[str, Any]:
    weights = [hashlib.sha256(v.tobytes()).hexdigest() for v in given.arrays.values()] if given else None
    return {
        "training": vars(teacher_training(s)),
        "given": digest(weights),
        "data": identity(data),
        "transfer": fingerprint(students_data(s, data).train),
        "torch": torch.__version__,
    }


# --- soft weight-sharing


def pretraining(s: SWS) -> kd.Training:
    return kd.Training(s.network, width(s.network_width), s.pretrain_epochs or 0, s.batch_size or 0,
                       s.learning_rate, 0.0, "none", s.seed)  # fmt: skip


def _pretrain(values: dict, s: SWS, data: Splits, given: Shared | None, on_epoch: kd.Report) -> tuple[dict, Arrays]:
    network = sws.pretrain(pretraining(s), data, on_epoch)
    score = evaluate(network, data.validation, data)
    metrics = {"val_accuracy": score.accuracy, "val_loss": score.loss, "sparsity": 0.0, "nonzero_ratio": 1.0,
               "entropy_ratio": 1.0, "accuracy_drop": 0.0}  # fmt: skip
    return metrics, kd.state_arrays(network)


def _share_weights(values: dict, s: SWS, data: Splits, shared: Shared, on_epoch: kd.Report) -> tuple[dict, Arrays]:
    hparams = sws.Hparams(
        tau=values.pop("tau"),
        components=values.pop("components"),
        pi_zero=1 - values.pop("one_minus_pi_zero"),
        epochs=s.epochs or 0,
        batch_size=s.batch_size or 0,
        weight_rate=s.weight_rate,
        precision_rate=s.precision_rate or 0.0,
        sigma=s.sigma,
        codebook_epochs=s.codebook_epochs or 0,
        codebook_rate=s.codebook_rate,
        seed=s.seed,
        **values,
    )
    network = kd.load(shared.tensors(), pretraining(s), data)
    _, metrics = sws.fit(network, hparams, data, on_epoch)
    drop = shared.record["metrics"]["val_accuracy"] - metrics["val_accuracy"]
    return {**metrics, "accuracy_drop": drop}, kd.state_arrays(network)


def _network_key(s: SWS, data: Splits, given: Shared | None) -> dict[str, Any]:
    return {"training": vars(pretraining(s)), "data": identity(data), "torch": torch.__version__}


# --- the kinds of study


@dataclass(frozen=True)
class Kind:
    """One kind of study, as the tuner runs it.

    Attributes:
        first: name of the shared work, which is also the name of its baseline row.
        prepare, search: trainables of the two stages.
        key: what determines the shared work.
        networks: role → training, of every network in the study.
        trial_data: the splits as the searched trials see them.
        epochs: most epochs that a searched trial reports.
    """

    first: str
    prepare: Callable[..., None]
    search: Callable[..., None]
    key: Callable[[Any, Splits, Shared | None], dict[str, Any]]
    networks: Callable[[Any], dict[str, kd.Training]]
    trial_data: Callable[[Any, Splits], Splits]
    epochs: Callable[[Any], int]
    counts_over: str = ""


KINDS = {
    "kd": Kind(
        first="teacher",
        prepare=trial(_teach),
        search=trial(_distil),
        key=_teacher_key,
        networks=lambda s: {"teacher": teacher_training(s), "student": student_training(s)},
        trial_data=students_data,
        epochs=lambda s: s.epochs,
    ),
    "sws": Kind(
        first="uncompressed",
        prepare=trial(_pretrain),
        search=trial(_share_weights),
        key=_network_key,
        networks=lambda s: {"network": pretraining(s)},
        trial_data=lambda s, data: data,
        epochs=lambda s: s.epochs + s.codebook_epochs,
        counts_over=COUNTS_OVER,
    ),
}


def trained_network(settings: Any, baseline: str) -> kd.Training:
    """The network whose weights a finished trial, or a baseline, left behind."""
    networks = KINDS[settings.kind].networks(settings)
    return networks["teacher"] if baseline == "teacher" else networks["student" if settings.kind == "kd" else "network"]


def least_size(settings: Any) -> int:
    """Side that images must have for every network of the study, in pixels."""
    return max(models.minimum_size(t.network) for t in KINDS[settings.kind].networks(settings).values())


def given_weights(path: Path) -> Shared:
    """A trained teacher from a file; nothing in it is executed.

    Raises:
        OSError, ValueError: missing, or not weights.
    """
    from safetensors.torch import load_file

    state = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    with suppress(KeyError, TypeError):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError("it holds no state dict of tensors")
    return Shared({k: v.numpy() for k, v in state.items()})

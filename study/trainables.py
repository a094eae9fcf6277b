"""Tune config → frozen hparams → `fit(hparams, data, on_epoch=report)`. Translation only; each function is one trial.

Every kind of study has two stages: work that all trials share (the teacher, the pretrained network), itself run as a
trial, and the trials that are searched.
"""

from __future__ import annotations

import faulthandler
import hashlib
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from ray import tune
from torch import nn

from study import codebook, kd, magnitude, models, sws
from study.cache import TEACHER, Shared, digest, fingerprint, identity, write_arrays
from study.checkpoints import HUNG, Checkpoint, codebook_of, path_of, weights_of
from study.data import Splits, subset_per_class
from study.errors import TrialFailed
from study.files import write_bytes
from study.quantised import COUNTS_OVER, Quantised, shared_parameters
from study.results import trace_of
from study.settings import KD, KDSWS, MOST_SEED, SWS, Common, Compressing, Magnitude, Sharing
from study.sizes import ratio
from study.trace import pack
from study.training import Progress, evaluate

RECIPE = 1
"""To be raised when this project trains or initialises networks otherwise: what is in caches is then another's work."""

APART = 1_000_003
"""Added to the seed of a teacher of the same architecture; far from the seeds that phases and fresh seeds take."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Left:
    """What a trial leaves behind: its final metrics, its arrays, and the compressed file if it wrote one."""

    metrics: dict[str, Any]
    arrays: Arrays
    file: bytes = b""


def device(settings: Common) -> torch.device:
    """The device that Ray gave this trial."""
    return torch.device("cuda" if settings.gpus_per_trial and torch.cuda.is_available() else "cpu")


Run = Callable[[dict[str, Any], Any, Splits, Shared | None, kd.Report, Progress], Left]
"""One trial: searched values, settings, data, shared work, what hears of every epoch, and where the trial stands."""


class Telling:
    """What one trial tells Tune, and leaves in the study folder, whoever trains it.

    Args:
        folder: of the study.
        config: of the trial. It goes on from its checkpoint if there is one.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.values = dict(config)
        """The searched ones."""
        self.trial_id, self.seed = self.values.pop("trial_id"), self.values.pop("seed")
        self.path = path_of(folder, self.trial_id)
        self.checkpoint = Checkpoint.open(self.path, config)
        self.last: dict[str, Any] = {}

    def _with_time(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "spent": self.checkpoint.spent}

    def earlier(self) -> list[dict[str, Any]]:
        """The epochs before the checkpoint, which a new listener has not heard of."""
        for row in self.checkpoint.rows:
            self.last.update(row)
        return [self._with_time(row) for row in self.checkpoint.rows]

    def epoch(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """An epoch that has ended; None if it was told before: a packed trial begins anew where another goes on."""
        if self.checkpoint.rows and row["epoch"] <= self.checkpoint.rows[-1]["epoch"]:
            return None
        self.checkpoint.write(row)
        self.last.update(row)
        return self._with_time(row)

    def failed(self, reason: object) -> dict[str, Any]:
        return self._with_time({"failure": f"{reason} (after epoch {self.last.get('epoch', 0)})"})

    def finished(self, left: Left) -> dict[str, Any]:
        """Writes the trial's files. Only a trial that says it has finished is complete; another was stopped."""
        write_arrays(weights_of(self.path), left.arrays)
        if left.file:
            write_bytes(codebook_of(self.path), left.file)
        if self.checkpoint.progress.trace.frames:
            write_bytes(trace_of(self.folder, self.trial_id), pack(self.checkpoint.progress.trace.arrays()))
        metrics = {**self.last, **left.metrics, "threads": torch.get_num_threads()}
        return self._with_time({**metrics, "finished": True})


def trial(run: Run, name: str) -> Callable[..., None]:
    """Make a Tune trainable of a function that trains a network.

    Args:
        name: by which Ray's dashboard knows the processes. They run one trial after another, so it is the study's;
            their logs, which the dashboard shows, say when which trial began.
    """

    def trainable(
        config: dict[str, Any], settings: Any, folder: Path, data: Splits, shared: Mapping[int, Shared | None]
    ) -> None:
        telling = Telling(folder, config)
        values, seed = telling.values, telling.seed
        settings = replace(settings, seed=seed)
        print(f"{telling.trial_id}, seed {seed}: {values}", flush=True)

        _limit_memory(settings.memory_per_trial)
        torch.set_num_threads(telling.checkpoint.threads or settings.threads)
        torch.manual_seed(seed)  # the process may have run another trial before
        try:
            with _watched(telling.path.with_suffix(HUNG), settings.trial_timeout) as alive:

                def on_epoch(row: dict[str, Any]) -> None:
                    alive()
                    if told := telling.epoch(row):
                        tune.report(told)

                for row in telling.earlier():
                    tune.report(row)
                progress = telling.checkpoint.progress
                left = run(values, settings, data.to(device(settings)), shared[seed], on_epoch, progress)
        except TrialFailed as error:
            tune.report(telling.failed(error))
            return
        tune.report(telling.finished(left))

    trainable.__name__ = name
    return trainable


@contextmanager
def _watched(path: Path, seconds: float | None) -> Iterator[Callable[[], None]]:
    """End this process, with its stack in `path`, if what is yielded is not called for so many seconds.

    The watch is a thread of C, which Python code that holds the interpreter for ever cannot stop.
    """
    path.unlink(missing_ok=True)  # an earlier process of this trial may have been taken for hung
    if seconds is None:
        yield lambda: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def alive() -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)

        alive()
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()


def _limit_memory(gigabytes: float | None) -> None:
    """Let this process's allocations fail beyond so much, rather than let the machine choose whom to kill."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 1e9) if gigabytes else most, most))


def later(epochs: int, on_epoch: kd.Report) -> kd.Report:
    """Reports what comes after so many epochs."""
    return lambda row: on_epoch({**row, "epoch": epochs + row["epoch"]})


# --- knowledge distillation


def teacher_training(s: KD) -> kd.Training:
    training = kd.Training(s.teacher, width(s.teacher_width), s.teacher_epochs or 0, max(s.batch_size or 0, 64),
                           s.learning_rate, s.weight_decay, s.augment or "none", s.seed, s.precision)  # fmt: skip
    return _apart(training, student_training(s))


def student_training(s: KD) -> kd.Training:
    return kd.Training(s.student, width(s.student_width), s.epochs or 0, s.batch_size or 0,
                       s.learning_rate, s.weight_decay, s.augment or "none", s.seed, s.precision)  # fmt: skip


def _apart(teacher: kd.Training, taught: kd.Training) -> kd.Training:
    """A teacher, not begun from the same weights as the network it teaches where both are of one architecture."""
    if (teacher.network, teacher.options) != (taught.network, taught.options):
        return teacher
    return replace(teacher, seed=(teacher.seed + APART) % (MOST_SEED + 1))


def width(value: float | None) -> dict[str, Any]:
    """Only the VGG kinds have a width, so 1 is not passed on."""
    return {} if value in (None, 1.0) else {"width": value}


def students_data(s: KD, data: Splits) -> Splits:
    """The splits with the training part that students see, fixed with the split. Normalisation stays the teacher's."""
    if not s.student_examples:
        return data
    return Splits(**{**vars(data), "train": subset_per_class(data.train, s.student_examples, data.split_seed)})


def _teach(values: dict, s: KD, data: Splits, given: Shared | None, on_epoch: kd.Report, progress: Progress) -> Left:
    training = teacher_training(s)
    if given is None:
        teacher = kd.fit_teacher(training, data, on_epoch, progress)
    else:
        teacher = kd.load(given.tensors(), training, data)
    score = evaluate(teacher, data.validation, data)
    logits = kd.kept_logits(teacher, students_data(s, data).train, data, training.augment)
    return Left({"val_accuracy": score.accuracy, "val_loss": score.loss}, {**kd.state_arrays(teacher), **logits})


def _distil(values: dict, s: KD, data: Splits, shared: Shared, on_epoch: kd.Report, progress: Progress) -> Left:
    hparams = kd.Hparams(student=student_training(s), **values)
    targets = kd.targets_from(shared, teacher_training(s), data, hparams.student.augment)
    return Left({}, kd.state_arrays(kd.fit(hparams, data, targets, on_epoch, progress)))


def _teacher_key(s: KD, data: Splits, given: Shared | None) -> dict[str, Any]:
    weights = [hashlib.sha256(v.tobytes()).hexdigest() for v in given.arrays.values()] if given else None
    return {
        "training": vars(teacher_training(s)),
        "given": digest(weights),
        "data": identity(data),
        "transfer": fingerprint(students_data(s, data).train),
        "torch": torch.__version__,
        "recipe": RECIPE,
        **_own_code(data, teacher_training(s)),
    }


def _own_code(data: Splits, *trainings: kd.Training | None) -> dict[str, Any]:
    """What belongs to the key of shared work where networks are a user's own: their names do not say what they are.

    Where nobody can say, it is a key that comes once: such work is not found again.
    """
    own = [t for t in trainings if t and codebook.is_custom(t.network)]
    return {"code": [models.identity(t.network, kd.build(t, data)) or uuid4().hex for t in own]} if own else {}


# --- compressing one trained network


def pretraining(s: Compressing) -> kd.Training:
    return kd.Training(s.network, width(s.network_width), s.pretrain_epochs or 0, s.batch_size or 0,
                       s.learning_rate, 0.0, s.augment or "none", s.seed, s.precision)  # fmt: skip


def compression_teacher(s: Compressing) -> kd.Training | None:
    """Training of a teacher of its own; None where there is no teacher, or the network is it."""
    if s.teacher in ("none", "self"):
        return None
    training = kd.Training(s.teacher, width(s.teacher_width), s.teacher_epochs, s.batch_size or 0,
                           s.learning_rate, 5e-4, s.augment or "none", s.seed, s.precision)  # fmt: skip
    return _apart(training, pretraining(s))


def _pretrain(
    values: dict, s: Compressing, data: Splits, given: Shared | None, on_epoch: kd.Report, progress: Progress
) -> Left:
    """The network, and the logits of its teacher: itself, or another one that is trained first."""
    teacher, metrics, before = None, {}, 0
    if training := compression_teacher(s):
        before = training.epochs
        teacher = kd.fit_teacher(training, data, lambda row: on_epoch({**row, "phase": "teacher"}), progress)
        metrics = {"teacher_val_accuracy": evaluate(teacher, data.validation, data).accuracy}
    network = sws.pretrain(pretraining(s), data, later(before, on_epoch), progress)
    score = evaluate(network, data.validation, data)
    metrics |= {"val_accuracy": score.accuracy, "val_loss": score.loss, "accuracy_drop": 0.0, **uncompressed(network)}
    arrays = kd.state_arrays(network)
    if s.teacher != "none":
        arrays |= kd.kept_logits(teacher or network, data.train, data, s.augment or "none")
    if teacher:
        arrays |= {TEACHER + name: array for name, array in kd.state_arrays(teacher).items()}
    return Left(metrics, arrays)


def _network_key(s: Compressing, data: Splits, given: Shared | None) -> dict[str, Any]:
    training = compression_teacher(s)
    teacher = vars(training) if training else s.teacher
    key = {"training": vars(pretraining(s)), "teacher": teacher, "data": identity(data)}
    return {**key, "torch": torch.__version__, "recipe": RECIPE, **_own_code(data, pretraining(s), training)}


def start(s: Compressing, data: Splits, shared: Shared) -> tuple[nn.Module, kd.Targets]:
    """The trained network, to be compressed in place, and its teacher."""
    network = kd.load(shared.weights().tensors(), pretraining(s), data)
    if s.teacher == "none":
        return network, kd.Targets()
    return network, kd.targets_from(shared.teacher(), compression_teacher(s) or pretraining(s), data,
                                    s.augment or "none")  # fmt: skip


def teaching(s: Compressing) -> dict[str, Any]:
    return {"temperature": s.temperature, "alpha": 0.0 if s.teacher == "none" else s.alpha}


def _share_weights(values: dict, s: SWS, data: Splits, shared: Shared, on_epoch: kd.Report, progress: Progress) -> Left:
    network, targets = start(s, data, shared)
    hparams = sharing(s, values, epochs=s.epochs or 0, **teaching(s))
    quantised, metrics = sws.fit(network, hparams, data, on_epoch, targets, progress)
    return compressed(network, quantised, metrics, pretraining(s), data, shared)


def _prune(values: dict, s: Magnitude, data: Splits, shared: Shared, on_epoch: kd.Report, progress: Progress) -> Left:
    network, targets = start(s, data, shared)
    hparams = magnitude.Hparams(
        epochs=s.epochs or 0,
        batch_size=s.batch_size or 0,
        weight_rate=s.weight_rate,
        codebook_epochs=s.codebook_epochs or 0,
        codebook_rate=s.codebook_rate,
        augment=s.augment or "none",
        seed=s.seed,
        precision=s.precision,
        **teaching(s),
        **values,
    )
    quantised, metrics = magnitude.fit(network, hparams, data, on_epoch, targets, progress)
    return compressed(network, quantised, metrics, pretraining(s), data, shared)


def sharing(s: Sharing, values: dict[str, Any], **others: Any) -> sws.Hparams:
    """The hyperparameters of soft weight-sharing from the settings and a trial's searched values."""
    searched = {k: v for k, v in values.items() if k != "one_minus_pi_zero"}
    return sws.Hparams(
        pi_zero=1 - values["one_minus_pi_zero"],
        batch_size=s.batch_size or 0,  # type: ignore[attr-defined]
        weight_rate=s.weight_rate,
        precision_rate=s.precision_rate or 0.0,
        sigma=s.sigma,
        pi_zero_strength=s.pi_zero_strength,
        anneal=s.anneal,
        merge=s.merge,
        layer_scales=s.layer_scales,
        retrain_epochs=s.retrain_epochs or 0,
        codebook_epochs=s.codebook_epochs or 0,
        codebook_rate=s.codebook_rate,
        augment=s.augment or "none",  # type: ignore[attr-defined]
        seed=s.seed,
        precision=s.precision,
        **others,
        **searched,
    )


def compressed(
    network: nn.Module,
    quantised: Quantised,
    metrics: dict[str, Any],
    training: kd.Training,
    data: Splits,
    first: Shared,
) -> Left:
    """What a compressing trial leaves: its metrics with the size of its file, measured, and the file."""
    file = codebook.encode(network, quantised, codebook.network_of(training.network, training.options, data))
    size = {"file_bytes": len(file), "compression_ratio": ratio(shared_parameters(network), len(file))}
    drop = first.record["metrics"]["val_accuracy"] - metrics["val_accuracy"]
    return Left({**metrics, **size, "accuracy_drop": drop}, kd.state_arrays(network), file)


def uncompressed(network: nn.Module) -> dict[str, float]:
    """Metrics of size of a network as it was trained."""
    return {"sparsity": 0.0, "nonzero_ratio": 1.0, "entropy_ratio": 1.0, "compression_ratio": 1.0,
            "file_bytes": 4 * sum(p.numel() for p in shared_parameters(network))}  # fmt: skip


# --- distillation, then soft weight-sharing


def _teach_sized(
    values: dict, s: KDSWS, data: Splits, given: Shared | None, on_epoch: kd.Report, progress: Progress
) -> Left:
    """The teacher, with its size: here size is an objective, which a plain KD study does not have."""
    left = _teach(values, s, data, given, on_epoch, progress)
    return replace(left, metrics={**left.metrics, **uncompressed(kd.build(teacher_training(s), data))})


def _sized_teacher_key(s: KDSWS, data: Splits, given: Shared | None) -> dict[str, Any]:
    return {**_teacher_key(s, data, given), "sized": True}


def _distil_and_share(
    values: dict, s: KDSWS, data: Splits, shared: Shared, on_epoch: kd.Report, progress: Progress
) -> Left:
    searched = dict(values)
    s = replace(s, student_width=searched.pop("student_width", s.student_width))
    training = student_training(s)
    teaching = {"temperature": searched.pop("temperature", 1.0), "alpha": searched.pop("alpha")}
    targets = kd.targets_from(shared, teacher_training(s), data, training.augment)
    student = kd.fit(kd.Hparams(student=training, **teaching), data, targets, on_epoch, progress)
    hparams = sharing(s, searched, epochs=s.cluster_epochs or 0, **teaching)
    progress.trace.before = training.epochs
    quantised, metrics = sws.fit(student, hparams, data, later(training.epochs, on_epoch), targets, progress)
    return compressed(student, quantised, metrics, training, data, shared)


# --- the kinds of study


@dataclass(frozen=True)
class Kind:
    """One kind of study, as the tuner runs it.

    Attributes:
        first: name of the shared work, which is also the name of its baseline row.
        prepare, search: the two stages; `trial` makes trainables of them.
        key: what determines the shared work.
        networks: role → training, of every network in the study.
        trial_data: the splits as the searched trials see them.
        epochs: most epochs that a searched trial reports.
        clustered: those of them under a mixture prior.
        before: those of them before the network begins to be compressed.
    """

    first: str
    prepare: Callable[..., Left]
    search: Callable[..., Left]
    key: Callable[[Any, Splits, Shared | None], dict[str, Any]]
    networks: Callable[[Any], dict[str, kd.Training]]
    trial_data: Callable[[Any, Splits], Splits]
    epochs: Callable[[Any], int]
    clustered: Callable[[Any], int] = lambda s: 0
    before: Callable[[Any], int] = lambda s: 0
    counts_over: str = ""


def compressing_networks(s: Compressing) -> dict[str, kd.Training]:
    teacher = compression_teacher(s)
    return {"network": pretraining(s), **({"teacher": teacher} if teacher else {})}


_KD = Kind(
    first="teacher",
    prepare=_teach,
    search=_distil,
    key=_teacher_key,
    networks=lambda s: {"teacher": teacher_training(s), "student": student_training(s)},
    trial_data=students_data,
    epochs=lambda s: s.epochs,
)
_SWS = Kind(
    first="uncompressed",
    prepare=_pretrain,
    search=_share_weights,
    key=_network_key,
    networks=compressing_networks,
    trial_data=lambda s, data: data,
    epochs=lambda s: s.epochs + s.retrain_epochs + s.codebook_epochs,
    clustered=lambda s: s.epochs,
    counts_over=COUNTS_OVER,
)
KINDS = {
    "kd": _KD,
    "sws": _SWS,
    "magnitude": replace(_SWS, search=_prune, epochs=lambda s: s.epochs + s.codebook_epochs, clustered=lambda s: 0),
    "kd_sws": replace(
        _KD,
        prepare=_teach_sized,
        search=_distil_and_share,
        key=_sized_teacher_key,
        epochs=lambda s: s.epochs + s.cluster_epochs + s.retrain_epochs + s.codebook_epochs,
        clustered=lambda s: s.cluster_epochs,
        before=lambda s: s.epochs,
        counts_over=COUNTS_OVER,
    ),
}


def searched_network(settings: Any) -> kd.Training:
    """The network that a searched trial of these settings trains."""
    networks = KINDS[settings.kind].networks(settings)
    return networks.get("network") or networks["student"]


def trained_network(settings: Any, baseline: str) -> kd.Training:
    """The network whose weights a finished trial, or a baseline, left behind."""
    return KINDS[settings.kind].networks(settings)["teacher"] if baseline == "teacher" else searched_network(settings)


def least_size(settings: Any) -> int:
    """Side that images must have for every network of the study, in pixels."""
    return max(models.minimum_size(t.network) for t in KINDS[settings.kind].networks(settings).values())


def given_weights(path: Path) -> Shared:
    """A trained teacher from a file; nothing in it is executed.

    Raises:
        OSError, ValueError: missing, or not weights.
    """
    from safetensors.torch import load_file

    try:
        given = path.suffix == ".safetensors"
        state = load_file(path) if given else torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, LookupError, UnpicklingError) as error:  # torch's advice is to run whatever the file says
        raise ValueError("it is no .safetensors file, and no .pt file of a state dict alone") from error
    with suppress(KeyError, TypeError):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError("it holds no state dict of tensors")
    return Shared({k: v.numpy() for k, v in state.items()})

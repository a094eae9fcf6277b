"""Training the values of a codebook after quantising, and scoring what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.artifacts.weight_trace import Trace
from study.compression.batch_norm import recalibrate, round_batch_norm
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.compression.size_metrics import size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.models.state import load_tensors, tensors_of
from study.training.batches import Batch
from study.training.distillation import LossHparams
from study.training.loop import Loss, Report, Score, epoch_row, evaluate, train
from study.training.sparse_layers import SparseLayers
from study.training.torch_optimisers import Adam


@dataclass(frozen=True, kw_only=True)
class CodebookHparams(LossHparams):
    """Hyperparameters of every method that ends in a codebook. Every field is a number, a string or a bool.

    Attributes:
        epochs: of the method's own compression, such as clustering or pruning.
        batch_size: images a step, in every phase.
        weight_rate: Adam's learning rate for the weights during `epochs`; it falls to zero along half a cosine.
        codebook_epochs: epochs that train the codebook's values alone, after quantising; 0 for none.
        codebook_rate: Adam's learning rate in these epochs, with the same schedule.
        loss, temperature, alpha, dkd_beta, dist_gamma: see `LossHparams`; alpha 0 is cross-entropy on the labels.
        augment: one of `batches.AUGMENTATIONS`, in every phase.
        precision: as `precision.logits` takes it.
    """

    epochs: int = 20
    batch_size: int = 256
    weight_rate: float = 3e-3
    codebook_epochs: int = 4
    codebook_rate: float = 1e-3
    alpha: float = 0.0
    augment: str = "none"
    seed: int = 0
    precision: str | None = None

    ALL_PRUNED_HINT: ClassVar[str] = ""
    """What a trial that pruned every weight should change, for its error message."""


def train_values(
    model: nn.Module,
    quantised: QuantisedWeights,
    loss: Loss,
    data: Splits,
    on_epoch: Report,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    augment: str = "none",
    first_epoch: int = 1,
    progress: Progress | None = None,
) -> QuantisedWeights:
    """Train the codebook's values, and the scales if there are any; zero stays zero.

    A value's gradient is the sum over the weights that share it (Han et al. 2015, sec. 3.3). Which weight has which
    value does not change, so neither does the size of the compressed network. The model is changed in place. Weights
    that are frozen, or that the loss does not depend on, add no gradient.

    Args:
        loss: of the model and a batch; scalar, nats per example.
    Returns: the same assignment with the trained values, rounded as `QuantisedWeights.rounded` says.
    Raises:
        TrialFailed: the loss is not a finite number.
    """
    parameters = shared_parameters(model)
    free = nn.Parameter(quantised.values[1:].clone())
    scaled = not bool((quantised.scales == 1).all())
    log_scales = nn.Parameter(quantised.scales.log(), requires_grad=scaled)
    sparse = SparseLayers(model, parameters, lambda: quantised.assignment != 0)

    def current() -> QuantisedWeights:
        scales = log_scales.exp() if scaled else quantised.scales
        return replace(quantised, values=torch.cat([free.new_zeros(1), free]), scales=scales)

    def after_epoch(epoch: int, train_loss: float) -> None:
        now = current().rounded()
        now.write(parameters)
        on_epoch(epoch_row(first_epoch + epoch - 1, "codebook", train_loss, score(model, now, data)))

    train(
        model,
        data,
        _through_values(sparse.of(loss), parameters, current),
        Adam([free, *([log_scales] if scaled else [])], lr=learning_rate, fused=True),
        epochs=epochs,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        augment=augment,
        after_epoch=after_epoch,
        progress=progress,
    )
    trained = current().rounded()
    return replace(trained, values=trained.values.detach(), scales=trained.scales.detach())


def _through_values(loss: Loss, parameters: Sequence[nn.Parameter], current: Callable[[], QuantisedWeights]) -> Loss:
    """The loss of a network with the current values and scales, with the gradient that the chain rule gives these.

    Weights at zero have a value that is not trained, and so add nothing; only the others are looked at.

    Args:
        parameters: `shared_parameters` of the network, into which the weights are written.
        current: differentiable in the values and scales that are trained; the assignment stays as it is.
    """
    assignment = current().assignment
    survivors = assignment.nonzero().flatten()
    index = assignment.index_select(0, survivors)
    ends = torch.tensor([p.numel() for p in parameters], device=survivors.device).cumsum(0)
    tensor = torch.searchsorted(ends, survivors, right=True)  # which of the parameters each is in

    def chained(model: nn.Module, batch: Batch) -> Tensor:
        now = current()
        now.write(parameters)
        value = loss(model, batch)
        trained = [p for p in parameters if p.requires_grad]
        pulls = torch.autograd.grad(value, trained, allow_unused=True, materialize_grads=True)
        pull_of = dict(zip(trained, pulls, strict=True))
        pull = flatten([pull_of[p] if p in pull_of else torch.zeros_like(p) for p in parameters])
        weights = now.values.index_select(0, index) * now.scales.index_select(0, tensor)
        pulled = (weights * pull.index_select(0, survivors)).sum()
        return value.detach() + pulled - pulled.detach()

    return chained


def finish(
    model: nn.Module,
    quantised: QuantisedWeights,
    loss: Loss,
    hparams: CodebookHparams,
    data: Splits,
    on_epoch: Report,
    *,
    seed: int,
    first_epoch: int,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """The last phase of every method: train the codebook's values and score the network.

    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: the loss is not a finite number, or `ensure_usable` refuses the weights.
    """
    ensure_usable(quantised, hparams.ALL_PRUNED_HINT)
    if hparams.codebook_epochs:
        quantised = train_values(
            model,
            quantised,
            loss,
            data,
            on_epoch,
            epochs=hparams.codebook_epochs,
            learning_rate=hparams.codebook_rate,
            batch_size=hparams.batch_size,
            augment=hparams.augment,
            seed=seed,
            first_epoch=first_epoch,
            progress=progress,
        )
    trace = progress.trace if progress else None
    trained = hparams.codebook_epochs > 0
    return conclude(model, quantised, hparams, data, trace, first_epoch - 1 + hparams.codebook_epochs, trained=trained)


def conclude(
    model: nn.Module,
    quantised: QuantisedWeights,
    hparams: CodebookHparams,
    data: Splits,
    trace: Trace | None,
    epoch: int,
    *,
    trained: bool,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Round a network that has its quantised weights to numbers that its file stores in two bytes, and score it.

    The scored network is therefore the one in the file, bit for bit. It ends the trace, if there is one.

    Where nothing was trained since quantising, batch-norm still has the statistics of the weights before that, so they
    are computed anew. Training keeps them up to date by itself, and then another pass measures no better.

    Args:
        trained: whether it was trained with its quantised weights.
    Returns: the rounded weights, and the final metrics.
    Raises:
        TrialFailed: `ensure_usable` refuses the weights.
    """
    ensure_usable(quantised, hparams.ALL_PRUNED_HINT)
    quantised = quantised.rounded()
    quantised.write(shared_parameters(model))
    if not trained:
        recalibrate(model, data)
    round_batch_norm(model)
    if trace:
        trace_end(trace, epoch, model, quantised)
    return quantised, score(model, quantised, data)


def trace_end(trace: Trace, epoch: int, model: nn.Module, quantised: QuantisedWeights) -> None:
    """Record a network that has its quantised weights in a trace that has earlier frames."""
    parameters = shared_parameters(model)
    names = {p: name for name, p in model.named_parameters()}
    weights = flatten([p / scale for p, scale in zip(parameters, quantised.scales, strict=True)])
    layers = [(names[p], p.numel()) for p in parameters]
    trace.end(epoch, weights, quantised.values, quantised.assignment, layers)


def ensure_usable(quantised: QuantisedWeights, all_pruned_hint: str = "") -> None:
    """Raise `TrialFailed` where quantising has left no network: not a number, all pruned, or one shared value.

    Args:
        all_pruned_hint: what to change where every weight was pruned; it ends the message.
    """
    used = torch.bincount(quantised.assignment, minlength=len(quantised.values)).nonzero().flatten().tolist()
    if not bool(quantised.values.isfinite().all() & quantised.scales.isfinite().all()):
        raise TrialFailed("the codebook's values are not finite numbers")
    if used == [0]:
        raise TrialFailed("every weight was pruned" + (f": {all_pruned_hint}" if all_pruned_hint else ""))
    if len(used) == 1:
        raise TrialFailed(f"the codebook collapsed: every weight has the value {float(quantised.values[used[0]]):.6g}")


def score(model: nn.Module, quantised: QuantisedWeights, data: Splits) -> dict[str, float]:
    """Validation loss (nats) and accuracy (%) of a network that has its quantised weights, and their size."""
    return validation_metrics(evaluate(model, data.validation, data), size_metrics(quantised))


def validation_metrics(score: Score, size: dict[str, float], unquantised: Score | None = None) -> dict[str, float]:
    """A score on the validation part, and a size, under the names that trials report.

    Args:
        unquantised: score of the same network before it is quantised, while it is still trained.
    """
    before = {"unquantised_val_accuracy": unquantised.accuracy} if unquantised else {}
    return {"val_loss": score.loss, "val_accuracy": score.accuracy, **size, **before}


def score_if_quantised(model: nn.Module, quantise: Callable[[], QuantisedWeights], data: Splits) -> dict[str, float]:
    """Metrics that `quantise`, which changes the model, would give now; the model is restored."""
    unquantised = evaluate(model, data.validation, data)
    state = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    quantised = quantise()
    metrics = validation_metrics(evaluate(model, data.validation, data), size_metrics(quantised), unquantised)
    load_tensors(model, state)
    return metrics

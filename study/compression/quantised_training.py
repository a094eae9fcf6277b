"""Quantised training: the network computes with shared values in every step, while weights and values both learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.artifacts.weight_trace import nonzero_by_layer
from study.compression.codebook_training import CodebookHparams, score
from study.compression.kmeans import kmeans
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters, unit_scales
from study.compression.unread_weights import unread
from study.data.splits import Splits
from study.errors import TrialFailed
from study.training.batches import Batch, steps_per_epoch
from study.training.loop import Loss, Report, epoch_row, train
from study.training.sparse_layers import SparseLayers
from study.training.torch_optimisers import Adam

DROP_AT = 0.6
"""Share of the steps after which the weights that are zero then are zero for good."""

PHASE = "quantise"


class SharedValues:
    """The weights of a network that survived pruning, and the few values that they share.

    Attributes:
        weights: of the survivors, (survivors,); trained, and never seen by the network.
        values: the codebook without its zero, (values − 1,); trained.
        alive: which survivors may have a value other than zero, (survivors,), bool.

    Args:
        parameters: `shared_parameters` of the network.
        survives: which of their weights do, (weights,), bool.
        values: the first codebook without its zero, (values − 1,).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], survives: Tensor, values: Tensor) -> None:
        self.parameters = parameters
        self.survivors = survives.nonzero().flatten()
        self.weights = nn.Parameter(flatten(parameters).detach()[self.survivors])
        self.values = nn.Parameter(values.to(self.weights.dtype))
        self.alive = torch.ones_like(self.survivors, dtype=torch.bool)
        self._flat = torch.zeros_like(survives, dtype=self.weights.dtype)

    def assignment(self) -> Tensor:
        """Index of the value nearest to each survivor, (survivors,), int64; 0 is zero, which has index 0."""
        distances = (self.weights.detach()[:, None] - self.codebook().detach()).abs()
        return distances.argmin(dim=1) * self.alive

    def codebook(self) -> Tensor:
        """The values, zero first, (values,); differentiable."""
        return F.pad(self.values, (1, 0))

    @torch.no_grad()
    def write(self, assignment: Tensor) -> None:
        """Give the network the values of this assignment, and zero elsewhere."""
        self._flat.index_copy_(0, self.survivors, self.codebook().index_select(0, assignment))
        for p, part in zip(self.parameters, self._flat.split([p.numel() for p in self.parameters]), strict=True):
            p.copy_(part.view_as(p))

    def drop_zeros(self) -> None:
        """Survivors that have the value zero now stay at zero from here on."""
        self.alive &= self.assignment() != 0

    @torch.no_grad()
    def drop(self, weights: Tensor) -> None:
        """These weights of the network stay at zero from here on, (weights,), bool."""
        self.alive &= ~weights[self.survivors]

    def left(self) -> Tensor:
        """Which weights of the network may have a value other than zero, (weights,), bool."""
        return torch.zeros_like(self._flat, dtype=torch.bool).index_copy_(0, self.survivors, self.alive)

    @torch.no_grad()
    def all_weights(self) -> Tensor:
        """The trained weights, and zero elsewhere, (weights,)."""
        return torch.zeros_like(self._flat).index_copy_(0, self.survivors, self.weights * self.alive)

    @torch.no_grad()
    def quantised(self) -> QuantisedWeights:
        """The network as it would be stored now: values without a weight leave the codebook."""
        assignment = torch.zeros_like(self._flat, dtype=torch.int64)
        assignment[self.survivors] = self.assignment()
        return QuantisedWeights(assignment, self.codebook().detach(), unit_scales(self.parameters)).without_unused()


def straight_through(loss: Loss, shared: SharedValues) -> Loss:
    """The loss at the quantised weights, with gradients for the weights, their values, and all other parameters.

    With gradient g of the loss at the quantised weights, a weight has gradient gᵢ, as if it had not been rounded
    (Bengio et al. 2013, https://arxiv.org/abs/1308.3432), and a value the sum of gᵢ over the weights that share it
    (Han et al. 2015, sec. 3.3). Weights are assigned to their nearest value in every step. The network's parameters
    are overwritten.

    Args:
        loss: of the model and a batch; scalar, nats per example.
    """

    def total(model: nn.Module, batch: Batch) -> Tensor:
        assignment = shared.assignment()
        shared.write(assignment)
        value = loss(model, batch)
        trained = [p for p in model.parameters() if p.requires_grad]
        pulls = torch.autograd.grad(value, trained, allow_unused=True, materialize_grads=True)
        gradients = dict(zip(trained, pulls, strict=True))
        own = [gradients.pop(p) if p in gradients else torch.zeros_like(p) for p in shared.parameters]
        pull = flatten(own).index_select(0, shared.survivors)
        pulled = (pull * (shared.weights + shared.codebook().index_select(0, assignment))).sum()
        for p, gradient in gradients.items():
            pulled = pulled + (p * gradient).sum()
        return value.detach() + pulled - pulled.detach()

    return total


def train_quantised(
    model: nn.Module,
    survives: Tensor,
    codebook_size: int,
    loss: Loss,
    hparams: CodebookHparams,
    data: Splits,
    on_epoch: Report,
    *,
    epochs: int,
    first_epoch: int,
    seed: int,
    before: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
) -> QuantisedWeights:
    """Train a pruned network at its quantised weights, from the k-means values of its survivors.

    Weights that no output depends on are dropped at the start, after `DROP_AT` of the steps, and at the end; with them
    after `DROP_AT` those that are zero then. Every epoch reports the quantised network. The model is changed in place.

    Args:
        survives: which weights may be other than zero, (weights,), bool.
        codebook_size: values, zero included.
        loss: of the model and a batch; scalar, nats per example.
        before: the optimiser of the training before, whose moments the weights take over.
    Raises:
        TrialFailed: the loss is not a finite number, or every weight was pruned.
    """
    progress = progress or Progress()
    shared = _start(model, survives & ~unread(model, data.shape), codebook_size, hparams.ALL_PRUNED_HINT)
    sparse = SparseLayers(model, shared.parameters, shared.left)
    drop_before = 1 + round(DROP_AT * epochs * steps_per_epoch(len(data.train), hparams.batch_size))

    def before_step(step: int) -> None:
        if step == drop_before:
            shared.drop_zeros()
            _drop_unread(model, shared, data)
            sparse.changed()

    def after_epoch(epoch: int, train_loss: float) -> None:
        now = shared.quantised()
        now.write(shared.parameters)
        epoch += first_epoch - 1
        counts = nonzero_by_layer(now.assignment, [p.numel() for p in shared.parameters])
        progress.trace.add(epoch, PHASE, shared.all_weights(), nonzero=counts)
        on_epoch(epoch_row(epoch, PHASE, train_loss, score(model, now, data)))

    train(
        model,
        data,
        straight_through(sparse.of(loss), shared),
        _adam(model, shared, hparams, before),
        epochs=epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(seed),
        augment=hparams.augment,
        before_step=before_step,
        after_epoch=after_epoch,
        progress=progress,
        also=[shared.alive],
    )
    _drop_unread(model, shared, data)
    quantised = shared.quantised()
    quantised.write(shared.parameters)
    return quantised


def _start(model: nn.Module, survives: Tensor, codebook_size: int, all_pruned_hint: str) -> SharedValues:
    """The survivors, with the values that k-means gives them."""
    if not bool(survives.any()):
        raise TrialFailed(f"every weight was pruned: {all_pruned_hint}")
    parameters = shared_parameters(model)
    survivors = flatten(parameters).detach()[survives]
    return SharedValues(parameters, survives, kmeans(survivors, codebook_size - 1))


def _drop_unread(model: nn.Module, shared: SharedValues, data: Splits) -> None:
    """Give the network its values, and drop the weights that no output depends on."""
    shared.write(shared.assignment())
    shared.drop(unread(model, data.shape))


def _adam(
    model: nn.Module, shared: SharedValues, hparams: CodebookHparams, before: torch.optim.Optimizer | None
) -> torch.optim.Adam:
    """`adam_over` one network."""
    own, rates = set(shared.parameters), (hparams.weight_rate, hparams.codebook_rate)
    others = [p for p in model.parameters() if p not in own]

    def survivors_of(parts: list[Tensor]) -> Tensor:
        return flatten(parts)[shared.survivors]

    return adam_over(shared.weights, shared.values, others, rates, before, shared.parameters, survivors_of)


def adam_over(
    weights: nn.Parameter,
    values: nn.Parameter,
    others: Sequence[nn.Parameter],
    rates: tuple[float, float],
    before: torch.optim.Optimizer | None,
    own: Sequence[Tensor],
    survivors_of: Callable[[list[Tensor]], Tensor],
) -> torch.optim.Adam:
    """Adam over weights, values, and the parameters that are not shared, with the moments of the training before.

    Args:
        others: those not shared; of them what is trained.
        rates: of the weights, and of the values.
        own: the shared tensors that the weights come from.
        survivors_of: numbers of all weights, in tensors as `own` has them → those of `weights`.
    """
    others = [p for p in others if p.requires_grad]
    groups = [{"params": [weights, *others], "lr": rates[0]}, {"params": [values], "lr": rates[1]}]
    optimiser = Adam(groups, fused=True)
    states = {p: state for p, state in before.state.items() if state} if before else {}
    known = [p for p in own if p in states]
    if not known:  # a trial that goes on in a later epoch has them in its checkpoint
        return optimiser
    optimiser.state[weights] = {
        "step": states[known[0]]["step"].clone(),
        **{
            name: survivors_of([states[p][name] if p in states else torch.zeros_like(p) for p in own]).clone()
            for name in ("exp_avg", "exp_avg_sq")
        },
    }
    optimiser.state.update({p: states[p] for p in others if p in states})
    return optimiser

"""Soft weight-sharing in three phases: `pretrain`, `cluster`, `quantise`.

Nowlan & Hinton (1992); Ullrich, Meeds & Welling (2017), https://arxiv.org/abs/1702.04008.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.data import Splits
from study.errors import TrialFailed
from study.kd import Training, fit_teacher
from study.mixture import Mixture, even_means
from study.training import Batch, evaluate, train

Report = Callable[[dict[str, Any]], None]

COUNTS_OVER = (
    "Sparsity, and every ratio, counts the weights and biases of all linear and convolution layers; "
    "batch-norm parameters are neither compressed nor counted."
)


@dataclass(frozen=True)
class Hparams:
    """One soft weight-sharing trial: the searched values first.

    Attributes:
        tau: weight of the prior. It multiplies the mixture's negative log-likelihood summed over weights and divided
            by the number of training examples (Ullrich et al. 2017, eq. 3), so it compares across data sets.
        components: all Gaussians of the mixture, the one at zero included.
        pi_zero: fixed mixing proportion of the zero component, in (0, 1).
        epochs: of phase two, clustering.
        weight_rate, mean_rate, precision_rate, proportion_rate: Adam's learning rates in phase two, each falling to
            zero along half a cosine. The last two move logarithms.
        sigma: initial standard deviation of every component, in units of weight. About the pretrained weights' own:
            with the tutorial's 0.25 the precisions spend the whole phase growing, and weights stay between components.
        gamma_zero, gamma_rest: shape and rate of the Gamma hyper-priors on the precisions; the values of the paper's
            tutorial. Narrower ones leave weights between components, which quantising then ruins.
        codebook_epochs, codebook_rate: training of the codebook's values alone after quantising; 0 epochs for none.
    """

    tau: float
    components: int
    pi_zero: float
    epochs: int = 20
    batch_size: int = 256
    weight_rate: float = 3e-3
    mean_rate: float = 1e-4
    precision_rate: float = 3e-3
    proportion_rate: float = 3e-3
    sigma: float = 0.05
    gamma_zero: tuple[float, float] = (5e3, 2.0)
    gamma_rest: tuple[float, float] = (250.0, 0.1)
    codebook_epochs: int = 4
    codebook_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Quantised:
    """Which component every weight belongs to, and the value that it shares with the others there.

    Attributes:
        assignment: (weights,), int64; 0 is pruned.
        values: (components,), float32; the first is zero.
    """

    assignment: Tensor
    values: Tensor

    def weights(self) -> Tensor:
        """(weights,), each one a codebook value."""
        return self.values[self.assignment]


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that take part: weights and biases of linear and convolution layers. Batch-norm does not."""
    layers = (m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
    return list(dict.fromkeys(p for layer in layers for p in layer.parameters(recurse=False)))


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """All of them as one vector, (weights,)."""
    return torch.cat([p.reshape(-1) for p in parameters])


def pretrain(training: Training, data: Splits, on_epoch: Report) -> nn.Module:
    """Phase one: an ordinary network, trained on the labels."""
    return fit_teacher(training, data, on_epoch)


def cluster(model: nn.Module, hparams: Hparams, data: Splits, on_epoch: Report) -> Mixture:
    """Phase two: move the weights and the mixture towards each other, minimising Ullrich et al. (2017), eq. 3.

    cross-entropy + τ / N · (−log p(weights | mixture) − log p(precisions)), N the number of training examples.

    Every epoch reports what quantising now would give. The model is changed in place.

    Returns: the mixture at the end.
    Raises:
        TrialFailed: the loss is not a finite number.
    """
    parameters = shared_parameters(model)
    with torch.no_grad():
        means = even_means(flatten(parameters), hparams.components)
    mixture = Mixture(means, hparams.pi_zero, hparams.sigma, hparams.gamma_zero, hparams.gamma_rest)
    mixture = mixture.to(means.device)
    factor = hparams.tau / len(data.train)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        accuracy_term = F.cross_entropy(model(batch.images), batch.labels)
        return accuracy_term + factor * mixture.complexity(flatten(parameters))

    def after_epoch(epoch: int, train_loss: float) -> None:
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        unquantised = evaluate(model, data.validation, data)
        row = _score(model, quantise(model, mixture), data)
        model.load_state_dict(kept)
        on_epoch(
            {
                "epoch": epoch,
                "phase": "cluster",
                "train_loss": train_loss,
                **row,
                "unquantised_val_accuracy": unquantised.accuracy,
            }
        )

    train(
        model,
        data,
        loss,
        torch.optim.Adam(
            [
                {"params": list(model.parameters()), "lr": hparams.weight_rate},
                {"params": [mixture.free_means], "lr": hparams.mean_rate},
                {"params": [mixture.log_precisions], "lr": hparams.precision_rate},
                {"params": [mixture.free_logits], "lr": hparams.proportion_rate},
            ]
        ),
        epochs=hparams.epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(hparams.seed),
        after_epoch=after_epoch,
    )
    return mixture


@torch.no_grad()
def quantise(model: nn.Module, mixture: Mixture) -> Quantised:
    """Phase three: set every weight to the mean of its most responsible component; those of component 0 become zero.

    The model is changed in place.
    """
    parameters = shared_parameters(model)
    quantised = Quantised(mixture.assign(flatten(parameters)), mixture.means.detach().clone())
    _write(parameters, quantised)
    return quantised


def train_codebook(
    model: nn.Module, quantised: Quantised, hparams: Hparams, data: Splits, on_epoch: Report
) -> Quantised:
    """After phase three: train the codebook's values alone, each the sum of its weights' gradients; zero stays zero.

    Which weight has which value does not change, so neither does the size of the compressed network.
    The model is changed in place.

    Returns: the same assignment with the trained values.
    """
    parameters = shared_parameters(model)
    free = nn.Parameter(quantised.values[1:].clone())

    def current() -> Quantised:
        return Quantised(quantised.assignment, torch.cat([free.new_zeros(1), free]))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            _write(parameters, current())
        value = F.cross_entropy(model(batch.images), batch.labels)
        pulls = flatten(torch.autograd.grad(value, parameters))
        sums = torch.zeros_like(quantised.values).index_add_(0, quantised.assignment, pulls)[1:]
        # The value of the loss, with the gradient that the chain rule gives the codebook: each value's summed pulls.
        return value.detach() + (sums * (free - free.detach())).sum()

    def after_epoch(epoch: int, train_loss: float) -> None:
        with torch.no_grad():
            _write(parameters, current())
        on_epoch(
            {
                "epoch": hparams.epochs + epoch,
                "phase": "codebook",
                "train_loss": train_loss,
                **_score(model, current(), data),
            }
        )

    train(
        model,
        data,
        loss,
        torch.optim.Adam([free], lr=hparams.codebook_rate),
        epochs=hparams.codebook_epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(hparams.seed + 1),
        after_epoch=after_epoch,
    )
    return Quantised(quantised.assignment, current().values.detach())


def fit(model: nn.Module, hparams: Hparams, data: Splits, on_epoch: Report) -> tuple[Quantised, dict[str, float]]:
    """Phases two and three on a pretrained network, which is changed in place.

    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: a loss is not a finite number, or nothing worth keeping is left of the mixture.
    """
    mixture = cluster(model, hparams, data, on_epoch)
    quantised = quantise(model, mixture)
    check(quantised)
    if hparams.codebook_epochs:
        quantised = train_codebook(model, quantised, hparams, data, on_epoch)
        check(quantised)
    return quantised, _score(model, quantised, data)


def check(quantised: Quantised) -> None:
    """Raise `TrialFailed` where quantising has left no network: not a number, all pruned, or one shared value."""
    used = torch.bincount(quantised.assignment, minlength=len(quantised.values)).nonzero().flatten().tolist()
    if not bool(quantised.values.isfinite().all()):
        raise TrialFailed("the mixture's means are not finite numbers")
    if used == [0]:
        raise TrialFailed("every weight was pruned: tau is too large, or pi_zero too close to 1")
    if len(used) == 1:
        raise TrialFailed(f"the mixture collapsed: every weight belongs to component {used[0]}")


def _write(parameters: Sequence[nn.Parameter], quantised: Quantised) -> None:
    sizes = [p.numel() for p in parameters]
    for p, w in zip(parameters, quantised.weights().split(sizes), strict=True):
        p.data.copy_(w.view_as(p))


def _score(model: nn.Module, quantised: Quantised, data: Splits) -> dict[str, float]:
    score = evaluate(model, data.validation, data)
    return {"val_loss": score.loss, "val_accuracy": score.accuracy, **size_metrics(quantised)}


def size_metrics(quantised: Quantised) -> dict[str, float]:
    """How small the quantised weights are; see `COUNTS_OVER`.

    `entropy_ratio` is float32 bits over the bits of an ideal entropy coder of the assignment plus a float32 codebook.
    It is the bound that a file can come near, not a file's size.
    """
    counts = torch.bincount(quantised.assignment, minlength=len(quantised.values)).double()
    n = float(counts.sum())
    used = counts[counts > 0]
    bits = float((used * (n / used).log2()).sum()) + 32 * len(used)
    nonzero = n - float(counts[0])
    return {
        "sparsity": 100 * float(counts[0]) / n,
        **({"nonzero_ratio": n / nonzero} if nonzero else {}),
        "entropy_ratio": 32 * n / bits,
        "components_used": len(used),
    }

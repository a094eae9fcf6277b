"""What compression did to each tensor of a network, and how much each layer alone bears: rows for the report."""

from __future__ import annotations

import torch
from torch import nn

from study.compression.compressed_file import Decoded
from study.compression.quantised_weights import shared_parameters
from study.compression.shrinking import shrink_with_report
from study.compression.size_metrics import tensor_table
from study.data.splits import Part, Splits
from study.records.columns import Row
from study.training.loop import evaluate

KEPT = (50.0, 20.0, 10.0, 5.0, 2.0)
"""Percent of a layer's weights that `sensitivity_rows` leaves, one after another."""
MOST_IMAGES = 2000
"""Validation images on which a pruned network is scored; a layer more or less is seen well before."""


def layer_rows(decoded: Decoded) -> list[Row]:
    """One row for each parameter of a compressed network, in its order, with the columns of `LAYER_COLUMNS`.

    `units` and `units_left` are the outputs of a layer before and after exact shrinking; only rows of linear and
    convolution weights have them, of a network that can be shrunk. What took no part has its weights alone.
    """
    model = decoded.model
    _, report = shrink_with_report(model, decoded.network.input_shape)
    units = {f"{row.name}.weight".lstrip("."): row.units for row in report.layers}
    facts = {row.name: row for row in tensor_table(model, decoded.quantised, decoded.network)}
    rows: list[Row] = []
    for name, parameter in model.named_parameters():
        row: Row = {"tensor": name, "tensor_shape": "×".join(map(str, parameter.shape)), "weights": parameter.numel(),
                    "compressed": int(name in facts)}  # fmt: skip
        if fact := facts.get(name):
            row |= {"nonzero": fact.nonzero, "values": fact.values, "coded_bytes": fact.coded_bytes}
        if name in units:
            row |= {"units": units[name][0], "units_left": units[name][1]}
        rows.append(row)
    return rows


@torch.no_grad()
def sensitivity_rows(model: nn.Module, data: Splits) -> list[Row]:
    """Validation accuracy of a network of which one layer is pruned by magnitude and all others are as they were (Han
    et al. 2015, fig. 6), with the columns of `SENSITIVITY_COLUMNS`; `remaining` is the percentage of weights left.

    Args:
        model: in evaluation mode; each tensor is restored.
    """
    part = data.validation
    step = max(1, len(part) // MOST_IMAGES)  # those of a folder come class by class
    part = Part(part.images[::step][:MOST_IMAGES], part.labels[::step][:MOST_IMAGES])
    names = {p: name for name, p in model.named_parameters()}
    rows: list[Row] = [{"tensor": "", "remaining": 100.0, "val_accuracy": evaluate(model, part, data).accuracy}]
    for parameter in shared_parameters(model):
        if parameter.dim() < 2:
            continue
        before = parameter.detach().clone()
        order = before.abs().flatten().argsort()
        for kept in KEPT:
            pruned = before.flatten().clone()
            pruned[order[: round(order.numel() * (1 - kept / 100))]] = 0
            parameter.copy_(pruned.view_as(parameter))
            rows.append(
                {"tensor": names[parameter], "remaining": kept, "val_accuracy": evaluate(model, part, data).accuracy}
            )
        parameter.copy_(before)
    return rows

"""What can be deployed of a study: the table of the chosen network's layers, and the commands that export it."""

from __future__ import annotations

import shlex

import pandas as pd

from analysis.formatting import format_cell
from analysis.stats.layers import layers_of, left_out_share
from analysis.stats.names import LATENCY_RATIO
from analysis.stats.summary import Summary
from analysis.text.tables import Row, Table
from study.errors import UserError
from study.records import paths
from study.records.columns import column

HEADINGS = [
    "shape",
    "weights",
    "share of all (%)",
    "compressed",
    "zeros (%)",
    "values",
    "bits a weight",
    "bytes",
    "units left",
]


def layer_table(s: Summary) -> tuple[Table, str, str]:
    """One line for each parameter of the chosen network, a heading, and what is said above it; no rows where the study
    recorded none."""
    try:
        trial_id, layers = layers_of(s)
    except UserError:  # where the figure of the layers stands, the page says so
        return Table([], []), "", ""
    rows = [
        Row(str(r["tensor"]), "", [
            str(r["tensor_shape"]), f"{r['weights']:,.0f}", f"{r['share']:.2f}", "no yes".split()[r["compressed"] == 1],
            _number(r["zeros"], 2), _number(r["values"], 0), _number(r["bits"], 2), _number(r["bytes"], 0),
            "" if pd.isna(r["units"]) else f"{r['units_left']:.0f} of {r['units']:.0f}",
        ])
        for r in layers.to_dict("records")
    ]  # fmt: skip
    if not rows:
        return Table([], []), "", ""
    out = left_out_share(layers)
    lead = (
        f"Every parameter of {trial_id}, in the order of the network. "
        + (
            f"{out:.2f} % of them take no part in compression and stay float32"
            if out
            else "All take part in compression"
        )
        + ". Bytes are of the compressed file. Units left are what exact shrinking keeps, channels of images in "
        "eights: outputs of the network do not change, and only removed units make it faster."
    )
    return Table(HEADINGS, rows, hidden=[2, 6]), f"Layers of {trial_id}", lead


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:,.{digits}f}"


def deployment(s: Summary) -> tuple[list[str], list[str]]:
    """Sentences about the network that the report chose, and the commands that export it and score the files; none
    where its weights were not kept."""
    row = s.best if s.best is not None else (s.front.iloc[0] if len(s.front) else None)
    if row is None:
        return [], []
    trial_id = str(row["trial_id"])
    kept = [
        suffix for suffix in (".codebook", ".safetensors") if paths.model_of(s.study.folder, trial_id, suffix).exists()
    ]
    if not kept:
        return [], []
    facts = [
        f"{column(name).label} {format_cell(column(name), row[name])} {column(name).unit}".strip()
        for name in ("file_bytes", "latency_ms", LATENCY_RATIO, "multiply_adds", "peak_memory_mb")
        if name in row and pd.notna(row[name])
    ]
    compressed = ".codebook" in kept
    size = paths.model_of(s.study.folder, trial_id, kept[0]).stat().st_size
    lines = [
        f"{trial_id} is in models/{trial_id}{kept[0]}, {size:,} bytes" + (f" ({'; '.join(facts)})." if facts else ".")
    ]
    if LATENCY_RATIO not in row or pd.isna(row[LATENCY_RATIO]):
        lines.append("Its latency was not measured; a study with --measure latency measures that of every trial.")
    lines.append(
        "ONNX files and the exported program hold the network after exact shrinking. Zeros and few values make a file "
        "small; removed units, and int8 on processors that compute with it, make a network fast."
    )
    folder = shlex.quote(str(s.study.folder))
    formats = "onnx,onnx-codebook,onnx-int8" if compressed else "onnx,onnx-int8"
    files = " ".join(
        f"{folder}/exported/{trial_id}{end}" for end in (".onnx", *([".codebook.onnx"] * compressed), ".int8.onnx")
    )
    return lines, [
        f"python -m study.export {folder} --trial {trial_id} --formats {formats}",
        f"python -m study.evaluate {files}",
    ]

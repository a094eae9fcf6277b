"""Several studies on one page: which of them gives the most accurate network at which size of file, and how surely.

`python -m analysis.report results/A results/B` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import html, theme, verdict
from analysis.epsilon import Epsilon
from analysis.figures import MOST_MARKS
from analysis.items import Item
from analysis.merged import Merged, Side, merge
from analysis.methods import methods, title
from analysis.summary import configuration
from analysis.tables import Row, Table, below, counted, listed, table, text, trial_records
from analysis.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, figure, focus, plain
from analysis.uncertainty import BY_IMAGES
from study import results
from study.results import Study, label

PAGE = "comparison.html"

LOOKS = [*zip((BLUE, VERMILLION, GREEN, ORANGE, PURPLE), ("circle", "square", "diamond", "triangle-up", "cross"),
              strict=True),
         *zip((VERMILLION, GREEN, ORANGE, PURPLE, BLUE), ("star", "hexagon", "x", "pentagon", "triangle-down"),
              strict=True)]
"""Colour and symbol of each study; the symbol alone tells them apart too."""

DENSE = ("A distilled student and an uncompressed network are dense: their size is 4 bytes for each parameter "
         "(float32). Every other size is that of the compressed file, everything included that decoding needs.")


def write(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, list[Item]]:
    """Build the page of these study folders and put it where `out` says, by default beside the first folder.

    Returns: where it lies, and its figures.
    Raises:
        UserError: no study in one of them, a damaged one, or studies that do not compare.
    """
    path = out or folders[0].resolve().parent / PAGE
    merged = merge([results.load(folder) for folder in folders])
    items = _items(merged)
    results.write_text(path, _rendered(merged, items))
    return path, items


def build(studies: Sequence[Study]) -> str:
    """The whole page, also of studies that have only begun."""
    merged = merge(studies)
    return _rendered(merged, _items(merged))


def _rendered(merged: Merged, items: list[Item]) -> str:
    studies = [side.summary.study for side in merged.sides]
    everything = pd.concat([rows for side in merged.sides for rows in (side.baselines, side.trials)])
    shown = ["trial_id", "state", "baseline", "study", "val_accuracy", "file_bytes", "sparsity", "compression_ratio",
             "nonzero_ratio", "epochs", "seconds", "reason"]
    front, epsilons = front_table(merged), epsilon_table(merged)
    sections = [("answer", "Answer", True), ("caveats", "Limits", True), ("front", "Front", bool(front.rows)),
                ("behind", "Distance", bool(epsilons.rows)), ("trials", "Trials", True), ("methods", "Methods", True)]
    data = studies[0].meta.get("data", {})
    return html.render(
        PAGE, items, trial_records(everything.reindex(columns=shown), ["study"]), "comparison",
        title=f"Comparison of {len(studies)} studies",
        counts=counted(sum(len(side.trials) for side in merged.sides), "complete trial"),
        eyebrow=f"{len(studies)} studies · {data.get('title') or data.get('name') or 'data not recorded'}",
        sections=[(anchor, said) for anchor, said, there in sections if there], answer=verdict.answer(merged),
        main_figure=items[0] if items else None, caveats=verdict.caveats(merged), front_table=front,
        front_lead=_front_lead(merged), epsilon_table=epsilons, epsilon_lead=_epsilon_lead(),
        methods=[(side.name, title(side.summary.study), methods(side.summary.study)) for side in merged.sides])


def front_table(m: Merged) -> Table:
    """The merged front with what is known of each member, the smallest last."""
    tested = {f"{side.name}/{row['trial_id']}": row["test_accuracy"] for side in m.sides
              for row in side.summary.tested.to_dict("records")}
    rows = m.front.assign(test_accuracy=m.front["trial_id"].map(tested).astype(float),
                          fresh=m.front["trial_id"].map(verdict.fresh_of(m)),
                          probability=[f"{100 * p:.0f}" if np.isfinite(p) else np.nan for p in m.front["probability"]])
    columns = ["val_accuracy", "file_bytes", "test_accuracy", "fresh", "probability", "sparsity", "compression_ratio",
               "nonzero_ratio"]
    return table([("best", rows)], columns, {
        "fresh": "test accuracy, mean of fresh seeds ± 95 % interval (%)", "file_bytes": "size (bytes)",
        "probability": "probability of being on this front (%)"})


def _front_lead(m: Merged) -> list[str]:
    runs = [f"{row['study']} from {row['low']:,.0f} bytes on" for row in m.held.to_dict("records")]
    which = f"Most accurate, by size: {listed(runs)}." if 1 < len(runs) <= 12 else ""
    return ["Every trial that none of any study matches in both validation accuracy and size and beats in one, the "
            f"smallest last. {DENSE} {which}".strip(), BY_IMAGES]


def epsilon_table(m: Merged) -> Table:
    """Row a, column b: `epsilon.epsilon` of a against b."""
    sides = [side.name for side in m.sides if len(side.trials)]
    if len(sides) < 2:
        return Table([], [])
    rows = [Row(a, "", ["–" if a == b else _cell(m.epsilons[a, b]) for b in sides]) for a in sides]
    return Table([f"against {name}" for name in sides], rows)


def _cell(e: Epsilon) -> str:
    return verdict.times(e.value) + verdict.resampled(e, "")


def _epsilon_lead() -> list[str]:
    return ["The multiplicative epsilon indicator on validation error and size: each member of the column’s front is "
            "matched by one of the row’s with at most so many times its error and so many times its bytes. 1 or less "
            "says that the row’s study is nowhere behind. An error of zero counts as half a validation image.",
            "In brackets the middle 95 % after resampling each study’s trials, where there are enough: how much hangs "
            "on a few of them. Another search lies outside more often than that, and other seeds may."]


def accuracy_vs_bytes(m: Merged) -> go.Figure:
    """Validation accuracy against the size of the file, on a logarithmic axis that runs backwards: every complete
    trial in its study's colour and symbol, large where it is on its study's front, baselines open, and the merged
    front as a line."""
    drawn = figure(height=520)
    drawn.add_scatter(
        x=m.front["file_bytes"].tolist(), y=m.front["val_accuracy"].tolist(), mode="lines", name="merged front",
        line={"color": GREY, "width": 2.5, "shape": "vh"}, hoverinfo="skip")
    for i, side in enumerate(m.sides):
        colour, symbol = LOOKS[i % len(LOOKS)]
        others = side.trials.drop(side.front.index)
        if len(others) > MOST_MARKS:
            others = others.sample(MOST_MARKS, random_state=0)
        for rows, size, opacity, shape in ((others, 7, 0.55, symbol), (side.front, 10, 1.0, symbol),
                                           (side.baselines, 11, 1.0, f"{symbol}-open")):
            drawn.add_scatter(
                x=rows["file_bytes"].tolist(), y=rows["val_accuracy"].tolist(), mode="markers", opacity=opacity,
                name=plain(side.name), legendgroup=str(i), showlegend=rows is side.front,
                marker={"size": size, "symbol": shape, "color": colour, "line": {"width": 1.8 * ("open" in shape)}},
                text=_hover(side, rows), hovertemplate="%{text}<extra></extra>", customdata=rows["trial_id"].tolist())
    everything = pd.concat([rows for side in m.sides for rows in (side.trials, side.baselines)])
    drawn.update_xaxes(_size_axis(everything["file_bytes"]))
    fronts = pd.concat([side.front for side in m.sides])
    drawn.update_yaxes(title={"text": label("val_accuracy")}, range=focus(fronts["val_accuracy"],
                                                                           everything["val_accuracy"]))
    return drawn


def _size_axis(sizes: pd.Series) -> dict[str, Any]:
    """`theme.size_axis` with short labels, and few of them: dense and compressed networks are decades apart."""
    axis = theme.size_axis("size of the network’s file", sizes)
    ticks = axis["tickvals"]
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if f"{tick:g}".startswith("1")]
    said = [_short(tick) for tick in ticks]
    return {**axis, "tickvals": ticks, "ticktext": said if len(set(said)) == len(said) else axis["ticktext"]}


def _short(size: float) -> str:
    scale, unit = next((pair for pair in ((1e6, "MB"), (1e3, "kB")) if size >= pair[0]), (1.0, "bytes"))
    return f"{float(f'{size / scale:.3g}'):,g} {unit}"


def _hover(side: Side, rows: pd.DataFrame) -> list[str]:
    said = []
    for _, row in rows.iterrows():
        lines = [f"<b>{plain(row['trial_id'])}</b> {plain(row['baseline'])}",
                 f"{row['val_accuracy']:.2f} % validation accuracy", f"{row['file_bytes']:,.0f} bytes"]
        if np.isfinite(row.get("sparsity", np.nan)):
            lines.append(f"{text('sparsity', row['sparsity'])} % of the weights at zero")
        said.append("<br>".join([*lines, plain(configuration(side.summary, row))]))
    return said


def _items(m: Merged) -> list[Item]:
    if m.front.empty:
        return []
    drawn = accuracy_vs_bytes(m)
    caption = ("Up and to the right is better; the axis of sizes is logarithmic and runs backwards. Large marks are on "
               "their study’s front, open ones are baselines, which are on none. The grey line is the front of all "
               f"together. {DENSE}")
    window = drawn.layout.yaxis.range
    if window is not None:
        caption += below(window[0], {noun: [y for side in m.sides for y in getattr(side, f"{noun}s")["val_accuracy"]]
                                     for noun in ("trial", "baseline")})
    if any(len(side.trials) > MOST_MARKS for side in m.sides):
        caption += f" Of each study at most {MOST_MARKS:,} trials are drawn, its front whole."
    alt = (f"Scatter plot of validation accuracy against size in bytes for {len(m.sides)} studies, one colour and "
           f"symbol each; {counted(len(m.front), 'trial')} form{'s' * (len(m.front) == 1)} the merged front.")
    return [Item("main", drawn, "Accuracy against size.", caption, alt)]

"""Dark knowledge: what a teacher says of an image beside its class, as the temperature rises (Hinton et al. 2015)."""

from __future__ import annotations

import base64
import io
import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import sample_colorscale
from scipy.special import softmax

from analysis.figures.item import ReportFigure
from analysis.figures.theme import SEQUENTIAL, escape, figure, ink_on
from analysis.figures.weights import animate
from analysis.formatting import counted
from analysis.stats.summary import Summary
from analysis.stats.weight_trace import Trace
from study.records import study_folder
from study.records.study_folder import Study

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
START = 3.0
DEPTHS = [[0.0, "#123F73"], *SEQUENTIAL[1:]]
"""`SEQUENTIAL` from a darker blue, so that the many small numbers are white and the large ones black."""
MOST_CLASSES = 10
"""Of a data set with more classes this many images are shown, with those classes alone."""


def asked(study: Study) -> Trace:
    """The images the teacher was asked about, and its logits; empty where the study kept none."""
    trace = study_folder.read_trace(study.folder, "teacher")
    return trace if {"images", "labels", "logits"} <= trace.keys() else {}


def classes_shown(trace: Trace) -> int:
    """Of how many classes, the first ones, an image is shown."""
    return min(len(trace["images"]), MOST_CLASSES)


def softened(trace: Trace, temperature: float) -> np.ndarray:
    """The teacher's probabilities at this temperature, (images, classes): softmax of logits / T."""
    found: np.ndarray = softmax(trace["logits"].astype(float) / temperature, axis=1)
    return found


def dark_knowledge(study: Study, best: pd.Series | None = None) -> go.Figure:
    """Probabilities of every class for one image of each class, with the images, and a slider over the temperature.

    Args:
        best: a trial, whose temperature is one of the slider's.
    """
    trace = asked(study)
    names = [str(name) for name in study.meta["data"]["classes"]]
    shown = np.arange(classes_shown(trace))
    labels = trace["labels"][shown]
    own = float(best.get("temperature", np.nan)) if best is not None else np.nan
    at = sorted({*TEMPERATURES, *([float(f"{own:.3g}")] if np.isfinite(own) else [])})
    drawn = figure(height=150 + 34 * len(shown))
    columns = [escape(names[i]) for i in labels]

    places = [*itertools.product(range(len(shown)), range(len(shown)))]  # rows, columns

    def marks(temperature: float) -> list[Any]:
        share = softened(trace, temperature)[shown][:, labels]
        depth = np.sqrt(share).round(4)
        said = [[f"{100 * p:.0f}" if p >= 0.005 else "" for p in row] for row in share]
        inks = [ink_on(colour) for colour in sample_colorscale(DEPTHS, depth.ravel().tolist())]
        return [
            # Classes in the text: rows are numbered, and the page takes customdata for the name of a trial.
            go.Heatmap(
                z=depth.tolist(),
                x=columns,
                y=list(range(len(shown))),
                zmin=0,
                zmax=1,
                text=[
                    [f"image of {columns[i]}: {p or 'below 0.5'} % {columns[j]}" for j, p in enumerate(row)]
                    for i, row in enumerate(said)
                ],
                colorscale=DEPTHS,
                showscale=False,
                xgap=2,
                ygap=2,
                hovertemplate="%{text}<extra></extra>",
            ),
            # Not the heatmap's own text, whose grey is hard to read in the middle of the scale.
            go.Scatter(
                x=[columns[j] for _, j in places],
                y=[i for i, _ in places],
                mode="text",
                text=list(itertools.chain(*said)),
                textfont={"color": inks, "size": 12},
                hoverinfo="skip",
                showlegend=False,
            ),
        ]

    mine = f"{own:.3g}" if own else ""
    animate(
        drawn,
        [(f"T = {t:g}" + (", the best trial’s" if f"{t:.3g}" == mine else ""), marks(t)) for t in at],
        at.index(START),
    )
    for row, i in enumerate(shown):
        drawn.add_layout_image(
            source=_picture(trace["images"][i]),
            xref="paper",
            yref="y",
            x=-0.005,
            y=row,
            xanchor="right",
            yanchor="middle",
            sizex=0.09,
            sizey=0.92,
            sizing="contain",
        )
    drawn.update_xaxes(
        type="category",
        side="top",
        title={"text": "the teacher’s probability (%) of"},
        showline=False,
        showgrid=False,
        ticks="",
        range=[-0.5, len(shown) - 0.5],
    )
    drawn.update_yaxes(
        range=[len(shown) - 0.5, -0.5], showticklabels=False, showline=False, showgrid=False, ticks="", automargin=False
    )
    drawn.update_layout(margin={"l": 70})
    return drawn


def _picture(image: np.ndarray) -> str:
    """(channels, height, width), uint8, as a PNG in a data address, each pixel so large that no browser blurs it."""
    pixels = image[0] if len(image) == 1 else np.moveaxis(image[:3], 0, -1)
    held = io.BytesIO()
    times = max(1, 64 // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    Image.fromarray(np.ascontiguousarray(pixels)).save(held, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def dark_knowledge_figure(s: Summary, asked: Trace) -> ReportFigure:
    shown, classes = classes_shown(asked), len(s.study.meta.get("data", {}).get("classes", []))
    some = f" (the first {shown} of {classes}; the others have the rest of each row)" if shown < classes else ""
    caption = (
        f"Of each class{some} the validation image that the teacher gets right with the smallest lead. Colours "
        "grow with the square root of the probability. A student that is trained at a higher temperature is "
        "told more of which classes an image resembles."
    )
    return ReportFigure(
        "knowledge",
        dark_knowledge(s.study, s.best),
        "Dark knowledge.",
        caption,
        f"Table of {counted(shown, 'image')} and the softened probabilities that the teacher gives each class, "
        "which spread over more classes as the temperature rises.",
    )

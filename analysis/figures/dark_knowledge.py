"""Dark knowledge: which other classes a teacher sees in an image, as the temperature rises (Hinton et al. 2015)."""

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

from analysis.figures.animation import animate
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import SEQUENTIAL, escape, figure, ink_on
from analysis.formatting import counted
from analysis.stats.summary import Summary
from analysis.stats.weight_trace import Trace
from study.records import study_folder
from study.records.study_folder import Study

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
START = 3.0
TEMPERATURE = "temperature"
"""The hyperparameter whose best value the slider marks, in a study that searched it."""
DEPTHS = [[0.0, "#123F73"], *SEQUENTIAL[1:]]
"""`SEQUENTIAL` from a darker blue, so that the many small numbers are white and the large ones black."""
MOST_CLASSES = 10
"""Of a data set with more classes this many images are shown, with those classes alone."""


def teacher_trace(study: Study) -> Trace:
    """The images that the teacher was asked about, and its logits; empty for a study without them."""
    shared = str(study.meta["shared_baseline"])
    trace = study_folder.read_trace(study.folder, shared) if shared else {}
    if not trace.keys() >= {"images", "labels", "logits"}:
        return {}
    fits = trace["logits"].shape[1] == len(study.meta.get("data", {}).get("classes", ()))
    return trace if fits else {}


def classes_shown(trace: Trace) -> int:
    """Of how many classes, the first ones, an image is shown."""
    return min(len(trace["images"]), MOST_CLASSES)


def soften(trace: Trace, temperature: float) -> np.ndarray:
    """The teacher's probabilities at this temperature, (images, classes): softmax of logits / T."""
    probabilities: np.ndarray = softmax(trace["logits"].astype(float) / temperature, axis=1)
    return probabilities


def dark_knowledge(study: Study, best: pd.Series | None = None) -> go.Figure:
    """Probabilities of every class for one image of each class, with the images, and a slider over the temperature.

    Args:
        best: a trial; if it has a temperature, that is one of the slider's.
    """
    trace = teacher_trace(study)
    names = [str(name) for name in study.meta["data"]["classes"]]
    count = classes_shown(trace)
    classes = [escape(names[i]) for i in trace["labels"][:count]]
    own = float(best.get(TEMPERATURE, np.nan)) if best is not None else np.nan
    steps = sorted({*TEMPERATURES, *([float(f"{own:.3g}")] if np.isfinite(own) else [])})
    drawing = figure(height=150 + 34 * count)
    frames = [
        (f"T = {t:g}" + (", the headline trial’s" if f"{t:.3g}" == f"{own:.3g}" else ""), _marks(trace, classes, t))
        for t in steps
    ]
    animate(drawing, frames, steps.index(START))
    for row in range(count):
        drawing.add_layout_image(
            source=_picture(trace["images"][row]),
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
    drawing.update_xaxes(
        type="category",
        side="top",
        title={"text": "the teacher’s probability (%) of"},
        showline=False,
        showgrid=False,
        ticks="",
        range=[-0.5, count - 0.5],
    )
    drawing.update_yaxes(
        range=[count - 0.5, -0.5], showticklabels=False, showline=False, showgrid=False, ticks="", automargin=False
    )
    drawing.update_layout(margin={"l": 70})
    return drawing


def _marks(trace: Trace, classes: list[str], temperature: float) -> list[Any]:
    """A frame: a row an image, a column a class, both in the order of `classes`."""
    count = len(classes)
    share = soften(trace, temperature)[:count][:, trace["labels"][:count]]
    depth = np.sqrt(share).round(4)
    numbers = [[f"{100 * p:.0f}" if p >= 0.005 else "" for p in row] for row in share]
    inks = [ink_on(colour) for colour in sample_colorscale(DEPTHS, depth.ravel().tolist())]
    places = [*itertools.product(range(count), range(count))]  # rows, columns
    return [
        # Classes in the text: rows are numbered, and the page takes customdata for the name of a trial.
        go.Heatmap(
            z=depth.tolist(),
            x=classes,
            y=list(range(count)),
            zmin=0,
            zmax=1,
            text=[
                [f"image of {classes[i]}: {p or 'below 0.5'} % {classes[j]}" for j, p in enumerate(row)]
                for i, row in enumerate(numbers)
            ],
            colorscale=DEPTHS,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{text}<extra></extra>",
        ),
        # Not the heatmap's own text, whose grey is hard to read in the middle of the scale.
        go.Scatter(
            x=[classes[j] for _, j in places],
            y=[i for i, _ in places],
            mode="text",
            text=list(itertools.chain(*numbers)),
            textfont={"color": inks, "size": 12},
            hoverinfo="skip",
            showlegend=False,
        ),
    ]


def _picture(image: np.ndarray) -> str:
    """(channels, height, width), uint8, as a PNG in a data address, each pixel so large that no browser blurs it."""
    pixels = image[0] if len(image) == 1 else np.moveaxis(image[:3], 0, -1)
    times = max(1, 64 // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    png = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(png, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def dark_knowledge_groups(s: Summary) -> list[FigureGroup]:
    """What the teacher knows; none for a study without a teacher that was asked."""
    trace = teacher_trace(s.study)
    if not trace:
        return []
    count, classes = classes_shown(trace), len(s.study.meta.get("data", {}).get("classes", []))
    some = (
        f" (the first {count} of {classes}; the other classes share what is missing from 100 % in a row)"
        if count < classes
        else ""
    )
    caption = (
        f"Each row is one class{some}. Its image is the validation image that the teacher classifies correctly by the "
        "smallest margin. Colour grows with the square root of the probability. At a higher temperature a student "
        "learns more about which other classes an image resembles."
    )
    alt = (
        f"Table of {counted(count, 'image')} and the softened probabilities that the teacher gives each class, "
        "which spread over more classes as the temperature rises."
    )
    report_figure = ReportFigure("knowledge", dark_knowledge(s.study, s.best), "Dark knowledge.", caption, alt)
    return [FigureGroup("What the teacher knows", [report_figure])]

"""Figures with a slider: where the reader chooses the epoch or the temperature, and a button plays through all."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from analysis.figures import theme
from analysis.figures.theme import BLUE, GREY


def animate(drawing: go.Figure, frames: list[tuple[str, list[Any]]], start: int) -> None:
    """A slider through frames that each replace the first traces of the figure, and a button that plays them.

    Args:
        frames: (name, traces); the one at `start` is shown first.
    """
    drawing.add_traces(frames[start][1])
    which = list(range(len(frames[0][1])))
    drawing.frames = [go.Frame(name=str(i), data=data, traces=which) for i, (_, data) in enumerate(frames)]
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    playing = {**now, "frame": {"duration": 350, "redraw": True}, "fromcurrent": True}
    steps = [{"label": name, "method": "animate", "args": [[str(i)], now]} for i, (name, _) in enumerate(frames)]
    drawing.update_layout(
        sliders=[
            {
                "steps": steps,
                "active": start,
                "pad": {"t": 46, "l": 56},
                "currentvalue": {"prefix": ""},
                "tickcolor": "rgba(0,0,0,0)",
                "font": {"color": "rgba(0,0,0,0)", "size": 1},
                "bgcolor": GREY,
                "activebgcolor": BLUE,
                "borderwidth": 0,
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "x": 0,
                "y": 0,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 52},
                "showactive": False,
                "buttons": [{"label": "▶", "method": "animate", "args": [None, playing]}],
            }
        ],
    )
    # For notebooks, where the template is the light one; the page has a slider of its own.
    drawing.layout.sliders[0].currentvalue.font = {"size": 13, "color": theme.LIGHT.layout.font.color}

"""How figures look: the palette, the light and the dark Plotly template, and text as Plotly shows it.

Figures carry no colour of their own for text, grid or background; those come from the template, so the page can
turn a drawn figure from light to dark by exchanging the template alone.
"""

from __future__ import annotations

import html

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, unlabel_rgb

from study.records.columns import Column

# Okabe & Ito's set, told apart with any colour vision (https://jfly.uni-koeln.de/color/); the blue is a little lighter
# than theirs so that it keeps its contrast on near-black too. Kinds of marks differ in symbol or dash as well.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#2E8BC7", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
GREY = "#8A8F98"
BASELINE_COLOURS = (GREEN, PURPLE, ORANGE)
DIVERGING = [[0.0, "#0072B2"], [0.3, "#7FB4D6"], [0.5, "#D9D9D9"], [0.7, "#F0A56B"], [1.0, "#D55E00"]]
SEQUENTIAL = [[0.0, "#1F66B0"], [0.5, "#9A958C"], [1.0, "#EDB500"]]

FONT = '"Inter", "Helvetica Neue", Helvetica, Arial, sans-serif'


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on "#rrggbb" or "rgb(…)": at least one has a contrast of 4.58."""
    shares = [part / 255 for part in (hex_to_rgb if colour.startswith("#") else unlabel_rgb)(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)  # WCAG 2.2
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#FFFFFF"


def template(ink: str, muted: str, line: str, card: str) -> go.layout.Template:
    """A Plotly template in four colours.

    Args:
        ink: of titles and of text in the figure; muted: of axes and their labels; line: of the grid; card: behind a
            hover text.
    """
    axis = {
        "gridcolor": line,
        "linecolor": muted,
        "tickcolor": muted,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickfont": {"color": muted, "size": 12},
        "automargin": True,
        "title": {"font": {"color": ink, "size": 13}, "standoff": 10},
    }
    layout = {
        "font": {"family": FONT, "color": ink, "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "xanchor": "left",
            "x": 0,
            "font": {"size": 12, "color": ink},
            "bgcolor": "rgba(0,0,0,0)",
            "itemsizing": "constant",
        },
        "hoverlabel": {
            "bgcolor": card,
            "bordercolor": muted,
            "align": "left",
            "font": {"family": FONT, "size": 12, "color": ink},
        },
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": muted, "activecolor": ink},
        "coloraxis": {"colorbar": {"outlinewidth": 0, "thickness": 10, "tickfont": {"color": muted}}},
    }
    return go.layout.Template(layout=layout)


LIGHT = template(ink="#1B1F24", muted="#5B6570", line="#E8E8E4", card="#FFFFFF")
DARK = template(ink="#E9EBEE", muted="#9BA5B0", line="#2A3038", card="#1B2026")


def figure(height: int = 400) -> go.Figure:
    """An empty figure in the project's template; it fills the width it is given."""
    return go.Figure(layout={"template": LIGHT, "height": height, "autosize": True})


def axis_title(column: Column) -> str:
    """A column's label with its unit as Plotly shows it as text, whatever a study calls its columns."""
    return escape(f"{column.label} ({column.unit})" if column.unit else column.label)


def escape(text: str) -> str:
    """`text` as Plotly shows it letter by letter. It renders a few elements and decodes a few entities; that of a
    double quote is not among them, and quotes have no meaning outside a tag."""
    return html.escape(text, quote=False)

"""A figure as the page shows it, and figures that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its words.

    Attributes:
        id: the page's element that it is drawn into has this id; a picture of it has this file name.
        figure: the drawing.
        title: a few words that end with a full stop; the caption goes on from there.
        caption: what the marks are, and what to look for.
        alt: what the figure shows, for readers who do not see it.
    """

    id: str
    figure: go.Figure
    title: str
    caption: str
    alt: str

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.figure.layout.height)


@dataclass(frozen=True)
class FigureGroup:
    """Figures under one heading.

    Attributes:
        lead: sentences between the heading and the figures, or in their place.
        narrow: whether the figures are small, as many in a row as the page has room for.
    """

    heading: str
    figures: list[ReportFigure]
    narrow: bool = False
    lead: str = ""

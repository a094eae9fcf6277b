"""A figure as the page shows it, and figures that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go


@dataclass(frozen=True)
class ReportFigure:
    """A figure on the page. `alt` says in words what it shows, for those who do not see it."""

    id: str
    figure: go.Figure
    title: str
    caption: str
    alt: str

    @property
    def height(self) -> int:
        return int(self.figure.layout.height)


@dataclass(frozen=True)
class FigureGroup:
    heading: str
    items: list[ReportFigure]
    narrow: bool = False
    lead: str = ""

"""Figures of a report as PNG and SVG for papers, drawn by kaleido in a Chromium that is started once."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from analysis.figures import theme
from analysis.figures.report_figure import ReportFigure
from study.errors import UserError
from study.records.atomic_files import write_bytes

FORMATS = ("png", "svg")
WIDTH = 640
"""In CSS pixels of 1/96 inch: the text width of a page, 6.7 inches, in which the figures' 12 px print as 9 pt."""
DOTS = 300 / 96
"""Pixels of a PNG for each of those: 300 dots an inch."""
INSTALL = "pip install 'compression-study[images]', and a browser: apt install chromium, or BROWSER_PATH=/its/chrome"


def write(figures: Iterable[ReportFigure], folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write figures as `folder`/ID.FORMAT, light on white; and never half a file.

    Args:
        figures: as the report has them; of an animated one the frame that it starts with.
        formats: some of `FORMATS`.
    Returns: the files.
    Raises:
        UserError: kaleido or its browser is not there or does not start, or the folder cannot be written.
    """
    wanted = [(Path(folder) / f"{_safe(figure.id)}.{name}", figure) for figure in figures for name in formats]
    try:
        from kaleido import Kaleido
    except ImportError:
        raise UserError(f"pictures need kaleido; {INSTALL}") from None
    logging.getLogger("choreographer").setLevel(logging.ERROR)  # it warns of its own closing of the browser
    asyncio.run(_draw(Kaleido, wanted))
    return [path for path, _ in wanted]


async def _draw(kaleido: Any, wanted: list[tuple[Path, ReportFigure]]) -> None:
    from choreographer.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError

    try:
        # Without MathJax, which it would load from the network; no figure has formulas.
        async with kaleido(mathjax=False) as browser:
            for path, figure in wanted:
                size = {
                    "format": path.suffix[1:],
                    "width": WIDTH,
                    "height": figure.height,
                    "scale": DOTS if path.suffix == ".png" else 1,
                }
                _write_file(path, await browser.calc_fig(_for_paper(figure.figure), size))
    except (BrowserClosedError, BrowserFailedError, ChromeNotFoundError, OSError) as error:
        message = next((part for part in error.args if isinstance(part, str)), type(error).__name__)
        reason = " ".join(message.split()).split(". ")[0].rstrip(".")
        raise UserError(f"pictures need a browser that starts ({reason}); {INSTALL}") from error


def _write_file(path: Path, picture: bytes) -> None:
    try:
        write_bytes(path, picture)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another folder") from error


def _for_paper(figure: go.Figure) -> go.Figure:
    """A copy in the light template on white, without the buttons of an animation."""
    white = {"template": theme.LIGHT, "paper_bgcolor": "#FFFFFF", "plot_bgcolor": "#FFFFFF"}
    copy = go.Figure(figure.data, figure.layout).update_layout(white)
    copy.layout.sliders = copy.layout.updatemenus = ()  # an update with an empty list would leave them
    return copy


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "figure"

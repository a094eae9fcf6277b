"""What every page shares: its template, the data that its script reads, and the policy that lets nothing else run.

A page is a template of `analysis/page/` with `report.css` and `report.js` inside it. Text from a study is escaped by
the template, or travels as JSON that the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from analysis.figures import theme
from analysis.figures.report_figure import ReportFigure

PAGE = Path(__file__).parent


def render(
    template: str,
    figures: Sequence[ReportFigure],
    trials: dict[str, Any],
    name: str,
    details: dict[str, Any] | None = None,
    **context: Any,
) -> str:
    """The complete page as HTML.

    Args:
        template: a file of `PAGE`.
        figures: every figure on the page; the script draws each into the element that has its id.
        trials: see `tables.trial_records`.
        name: of the study; the CSV file that the page offers is called after it.
        details: see `trial_details`; without them no trial can be opened.
        context: what the template needs besides `css`, `scripts`, `policy` and `data`.
    """
    scripts = [get_plotlyjs() if figures else "var Plotly = null;", read("report.js")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(template).render(
        **context,
        name=name,
        trials=trials,
        data=_data(figures, trials, name, details),
        css=read("report.css"),
        scripts=scripts,
        policy=_policy(scripts),
    )


def _data(figures: Sequence[ReportFigure], trials: dict[str, Any], name: str, details: dict[str, Any] | None) -> str:
    drawings = {}
    for figure in figures:
        drawing = json.loads(figure.figure.to_json())
        drawing["layout"].pop("template", None)
        drawings[figure.id] = drawing
    safe_name = re.sub(r"[^\w.-]+", "_", name).strip("._") or "study"
    templates = {"light": theme.LIGHT.to_plotly_json(), "dark": theme.DARK.to_plotly_json()}
    csv = f"{safe_name}-trials.csv"
    content = {"figures": drawings, "templates": templates, "trials": trials, "csv": csv, "details": details}
    # No "<" reaches the page, so neither "</script" nor "<!--" can end or change the block.
    return (
        json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        .replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
    )


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, and nothing is fetched: whatever slips past escaping still does nothing."""
    runs = " ".join(map(allowed, scripts))
    return f"default-src 'none'; script-src {runs}; style-src 'unsafe-inline'; img-src data: blob:"


def allowed(script: str) -> str:
    """How a policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _unbroken(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=%|points|bytes|±)|(?<=±) (?=\d)", "\u00a0", text)


def read(name: str) -> str:
    """A file of `PAGE`."""
    return (PAGE / name).read_text(encoding="utf-8")

"""Several studies on one page: which of them gives the most accurate network at which size of file, and how surely.

`python -m analysis.report results/A results/B` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures.comparison import comparison_figures
from analysis.figures.report_figure import ReportFigure
from analysis.formatting import counted
from analysis.page.render import render
from analysis.stats import several_studies
from analysis.stats.several_studies import MergedStudies, merge_studies
from analysis.text import comparison
from analysis.text.comparison import epsilon_lead, epsilon_table, front_lead, front_table
from analysis.text.methods_section import methods, title
from analysis.text.tables import trial_records
from study.records import study_folder
from study.records.columns import COLUMNS
from study.records.outputs import write_output
from study.records.study_folder import Study

PAGE = "comparison.html"


def write(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, list[ReportFigure]]:
    """Build the page of these study folders and put it where `out` says, by default next to the first folder.

    Returns: where it lies, and its figures.
    Raises:
        UserError: no study in one of them, a damaged one, or studies that do not compare.
    """
    path = out or folders[0].resolve().parent / PAGE
    merged = merge_studies([study_folder.load(folder) for folder in folders])
    figures = comparison_figures(merged)
    if out is None:
        study_folder.write_text(path, _rendered(merged, figures))
    else:
        write_output("--out", out, _rendered(merged, figures))
    return path, figures


def build(studies: Sequence[Study]) -> str:
    """The complete page as HTML. Works for studies that have just started, too."""
    merged = merge_studies(studies)
    return _rendered(merged, comparison_figures(merged))


def _rendered(merged: MergedStudies, figures: list[ReportFigure]) -> str:
    studies = [entry.summary.study for entry in merged.entries]
    rows = pd.concat([rows for entry in merged.entries for rows in (entry.baselines, entry.trials)])
    first = ["trial_id", "state", "baseline", "study", *several_studies.OBJECTIVES]
    sizes = [name for name, column in COLUMNS.items() if column.scale != "linear" and name not in first]
    searched_for = [name for study in studies for name in study.objectives]
    shown = list(dict.fromkeys([*first, *searched_for, *sizes, "epochs", "seconds", "reason"]))
    front, epsilons = front_table(merged), epsilon_table(merged)
    sections = [
        ("answer", "Answer", True),
        ("caveats", "Limits", True),
        ("front", "Front", bool(front.rows)),
        ("behind", "Distance", bool(epsilons.rows)),
        ("trials", "Trials", True),
        ("methods", "Methods", True),
    ]
    data = studies[0].meta.get("data", {})
    return render(
        PAGE,
        figures,
        trial_records(rows.reindex(columns=shown), ["study"], objectives=list(several_studies.OBJECTIVES)),
        "comparison",
        title=f"Comparison of {len(studies)} studies",
        counts=counted(sum(len(entry.trials) for entry in merged.entries), "complete trial"),
        eyebrow=f"{len(studies)} studies · {data.get('title') or data.get('name') or 'data not recorded'}",
        sections=[(anchor, text) for anchor, text, there in sections if there],
        answer=comparison.comparison_headline(merged),
        main_figure=figures[0] if figures else None,
        caveats=comparison.comparison_caveats(merged),
        front_table=front,
        front_lead=front_lead(merged),
        epsilon_table=epsilons,
        epsilon_lead=epsilon_lead(),
        methods=[(entry.name, title(entry.summary.study), methods(entry.summary.study)) for entry in merged.entries],
    )

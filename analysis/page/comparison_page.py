"""Several studies on one page: which of them gives the most accurate network at which size of file, and how surely.

`python -m analysis.report results/A results/B` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures.comparison import comparison_figures
from analysis.figures.item import ReportFigure
from analysis.formatting import counted
from analysis.page.render import render
from analysis.stats.several_studies import MergedStudies, merge_studies
from analysis.text import comparison
from analysis.text.comparison import epsilon_lead, epsilon_table, front_lead, front_table
from analysis.text.methods_section import methods, title
from analysis.text.tables import trial_records
from study.records import study_folder
from study.records.study_folder import Study

PAGE = "comparison.html"


def write(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, list[ReportFigure]]:
    """Build the page of these study folders and put it where `out` says, by default beside the first folder.

    Returns: where it lies, and its figures.
    Raises:
        UserError: no study in one of them, a damaged one, or studies that do not compare.
    """
    path = out or folders[0].resolve().parent / PAGE
    merged = merge_studies([study_folder.load(folder) for folder in folders])
    items = comparison_figures(merged)
    study_folder.write_text(path, _rendered(merged, items))
    return path, items


def build(studies: Sequence[Study]) -> str:
    """The whole page, also of studies that have only begun."""
    merged = merge_studies(studies)
    return _rendered(merged, comparison_figures(merged))


def _rendered(merged: MergedStudies, items: list[ReportFigure]) -> str:
    studies = [side.summary.study for side in merged.sides]
    everything = pd.concat([rows for side in merged.sides for rows in (side.baselines, side.trials)])
    shown = [
        "trial_id",
        "state",
        "baseline",
        "study",
        "val_accuracy",
        "file_bytes",
        "sparsity",
        "compression_ratio",
        "nonzero_ratio",
        "epochs",
        "seconds",
        "reason",
    ]
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
        items,
        trial_records(everything.reindex(columns=shown), ["study"]),
        "comparison",
        title=f"Comparison of {len(studies)} studies",
        counts=counted(sum(len(side.trials) for side in merged.sides), "complete trial"),
        eyebrow=f"{len(studies)} studies · {data.get('title') or data.get('name') or 'data not recorded'}",
        sections=[(anchor, said) for anchor, said, there in sections if there],
        answer=comparison.comparison_headline(merged),
        main_figure=items[0] if items else None,
        caveats=comparison.comparison_caveats(merged),
        front_table=front,
        front_lead=front_lead(merged),
        epsilon_table=epsilons,
        epsilon_lead=epsilon_lead(),
        methods=[(side.name, title(side.summary.study), methods(side.summary.study)) for side in merged.sides],
    )

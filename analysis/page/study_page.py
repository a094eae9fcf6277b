"""The page of one study: its figures, sentences and tables put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.page import gallery
from analysis.page.render import render
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary, summarise
from analysis.text.caveats import caveats
from analysis.text.cost_table import HEADING as COST_HEADING
from analysis.text.cost_table import cost_table
from analysis.text.deployment import deployment, layer_table
from analysis.text.front_table import best_table, trial_counts
from analysis.text.headline import headline
from analysis.text.held_out_tables import fresh_lead, fresh_table, search_lead, search_table
from analysis.text.methods_section import SELECTION, UNTOUCHED, methods, title
from analysis.text.tables import trial_records
from analysis.text.trial_details import trial_details
from study.records import paths, study_folder
from study.records.outputs import write_output
from study.records.study_folder import Study


@dataclass(frozen=True)
class Page:
    """A study with its figures drawn.

    Attributes:
        main: the figure next to the answer; seeds: those next to the table of fresh seeds; groups: all others.
    """

    study: Study
    summary: Summary
    main: ReportFigure | None
    seeds: list[ReportFigure]
    groups: list[FigureGroup] = field(default_factory=list)

    @property
    def figures(self) -> list[ReportFigure]:
        """All of them, in the order of the page."""
        main = [self.main] if self.main else []
        return [*main, *self.seeds, *(figure for group in self.groups for figure in group.figures)]


def page_of(study: Study) -> Page:
    """Draw the figures of a study."""
    summary = summarise(study)
    return Page(study, summary, gallery.main_figure(summary), gallery.seeds_figures(summary), gallery.groups(summary))


def build(study: Study) -> str:
    """The complete page as HTML. Works for a study that has just started, was cut off, or failed throughout."""
    return rendered(page_of(study))


def rendered(page: Page) -> str:
    """A study whose figures are drawn as a complete page."""
    study, summary = page.study, page.summary
    trials = trial_records(
        summary.trials, study.hyperparameters, summary.headings, summary.column, [ACCURACY, *study.objectives]
    )
    name = str(study.meta.get("name", study.folder.name))
    return render("report.html", page.figures, trials, name, trial_details(summary), **_context(page))


def write(folder: str | Path, out: Path | None = None) -> Path:
    """Build the report of the study in `folder` and put it there, or where `out` says; a reader never sees half of it.

    Returns: where the page lies.

    Raises:
        UserError: no study there, or a damaged one.
    """
    return write_page(Path(folder), out)[0]


def write_page(folder: Path, out: Path | None) -> tuple[Path, list[ReportFigure]]:
    """`write` for a caller that needs the page's figures too.

    Returns: where the page lies, and its figures.
    """
    page = page_of(study_folder.load(folder))
    path = out or folder / paths.REPORT
    if out is None:
        study_folder.write_text(path, rendered(page))
    else:
        write_output("--out", out, rendered(page))
    return path, page.figures


def _context(page: Page) -> dict[str, Any]:
    study, summary = page.study, page.summary
    best, heading, lead = best_table(summary)
    test, fresh = search_table(summary), fresh_table(summary)
    warnings = caveats(summary)
    layers, layers_heading, layers_lead = layer_table(summary)
    deploy_lead, deploy_commands = deployment(summary)
    costs, cost_lead = cost_table(summary)
    sections = [
        ("answer", "Answer", True),
        ("caveats", "Limits", bool(warnings)),
        ("best", "Best", bool(best.rows)),
        ("seeds", "Seeds", bool(fresh.rows)),
        ("deploy", "Deploy", bool(deploy_commands)),
        ("figures", "Figures", bool(page.groups)),
        ("layer-table", "Layers", bool(layers.rows)),
        ("test", "Test", bool(test.rows)),
        ("cost", "Cost", bool(costs.rows)),
        ("trials", "Trials", True),
        ("methods", "Methods", True),
    ]
    return {
        "title": title(study),
        "counts": trial_counts(summary),
        "answer": headline(summary),
        "caveats": warnings,
        "selection": UNTOUCHED if summary.tested.empty and summary.fresh.empty else SELECTION,
        "main_figure": page.main,
        "sections": [(anchor, text) for anchor, text, there in sections if there],
        "groups": page.groups,
        "best_table": best,
        "best_heading": heading,
        "best_lead": lead,
        "deploy_lead": deploy_lead,
        "deploy_commands": deploy_commands,
        "layers_table": layers,
        "layers_heading": layers_heading,
        "layers_lead": layers_lead,
        "test_table": test,
        "test_lead": search_lead(summary),
        "cost_table": costs,
        "cost_lead": cost_lead,
        "cost_heading": COST_HEADING,
        "fresh_table": fresh,
        "fresh_lead": fresh_lead(summary),
        "fresh_figures": page.seeds,
        "methods": methods(study),
    }

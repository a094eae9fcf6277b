"""The report: a study folder as one HTML page that needs nothing else, neither files nor a network; of several folders
one page that compares them.

    python -m analysis.report results/NAME
    python -m analysis.report results/A results/B
    python -m analysis.report results/NAME --live

The page is `analysis/page/`: a template, its style and its script; `analysis.html` puts them together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

from analysis import comparison, gallery, html, images, live
from analysis.answer import answer
from analysis.caveats import caveats
from analysis.front import hypervolume, knee
from analysis.items import Group, Item
from analysis.methods import SELECTION, UNTOUCHED, methods, title
from analysis.summary import Summary, counts_of, summarise
from analysis.tables import Table, table, trial_records
from analysis.tested import fresh_lead, fresh_table, search_table
from analysis.uncertainty import BY_IMAGES, probability_on_front
from study import commandline, results
from study.errors import UserError
from study.results import Study

PROG = "python -m analysis.report"
BEST_SHOWN = 5


@dataclass(frozen=True)
class Page:
    """What the template is given beside the fixed parts."""

    study: Study
    summary: Summary
    main: Item | None
    seeds: list[Item]
    groups: list[Group] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        main = [self.main] if self.main else []
        return [*main, *self.seeds, *(item for group in self.groups for item in group.items)]


def page_of(study: Study) -> Page:
    """A study with its figures drawn."""
    summary = summarise(study)
    return Page(study, summary, gallery.main_figure(summary), gallery.seeds_figures(summary), gallery.groups(summary))


def build(study: Study) -> str:
    """The whole page. Works for a study that has just begun, was cut off, or failed throughout."""
    return _rendered(page_of(study))


def _rendered(page: Page) -> str:
    study, summary = page.study, page.summary
    trials = trial_records(summary.trials, study.hyperparameters, summary.headings)
    name = str(study.meta.get("name", study.folder.name))
    return html.render("report.html", page.items, trials, name, **_context(page))


def write(folder: str | Path, out: Path | None = None) -> Path:
    """Build the report of the study in `folder` and put it there, or where `out` says; whole at every instant.

    Raises:
        UserError: no study there, or a damaged one.
    """
    return _write(Path(folder), out)[0]


def _write(folder: Path, out: Path | None) -> tuple[Path, list[Item]]:
    """`write`, and the page's figures."""
    page = page_of(results.load(folder))
    path = out or folder / results.REPORT
    results.write_text(path, _rendered(page))
    return path, page.items


def _context(page: Page) -> dict[str, Any]:
    study, summary = page.study, page.summary
    best, heading, lead = _best_table(summary)
    test, fresh = search_table(summary), fresh_table(summary)
    said = caveats(summary)
    sections = [("answer", "Answer", True), ("caveats", "Limits", bool(said)), ("best", "Best", bool(best.rows)),
                ("seeds", "Seeds", bool(fresh.rows)), ("figures", "Figures", bool(page.groups)),
                ("test", "Test", bool(test.rows)), ("trials", "Trials", True), ("methods", "Methods", True)]
    return {
        "title": title(study), "counts": _counts(summary), "answer": answer(summary), "caveats": said,
        "selection": UNTOUCHED if summary.tested.empty and summary.fresh.empty else SELECTION, "main_figure": page.main,
        "sections": [(anchor, text) for anchor, text, there in sections if there], "figures": page.groups,
        "best_table": best, "best_heading": heading, "best_lead": lead, "test_table": test,
        "fresh_table": fresh, "fresh_lead": fresh_lead(summary), "fresh_figures": page.seeds,
        "methods": methods(study),
    }


def _best_table(s: Summary) -> tuple[Table, str, str]:
    measured = ["val_accuracy", "change", "accuracy_drop", "sparsity", "file_bytes", "compression_ratio",
                "entropy_ratio", "nonzero_ratio", "components_used", "test_accuracy", "probability", "epochs",
                "seconds"]
    rows = s.front if s.compresses else s.feasible.nlargest(BEST_SHOWN, "val_accuracy", keep="first")
    if s.compresses:
        heading, lead = "Baselines and the front", _front_lead(s)
        measured.remove("change" if "accuracy_drop" in s.trials else "accuracy_drop")
    else:
        best = f"The {len(rows)} best complete trials" if len(rows) > 1 else "The best complete trial"
        heading, lead = "Baselines and the best trials", f"{best} on validation data." if len(rows) else ""
    chances = probability_on_front(s.study)
    kinds = (("baseline", s.baselines), ("best", rows))
    groups = [(kind, _with_comparison(s, frame, chances)) for kind, frame in kinds]
    known = [c for c in s.trials.columns if c in ("label_smoothing", "bits")]
    reference = "the reference" if s.reference is None else str(s.reference["baseline"])
    of = "of being on the front" if s.compresses else "of being the best"
    return table(groups, [*s.study.hyperparameters, *known, *measured],
                 {**s.headings, "change": f"against {reference} (points)",
                  "probability": f"probability {of} (%)"}), heading, \
        f"{lead} {_probability_lead(chances)}".strip()


def _front_lead(s: Summary) -> str:
    least = "" if s.least_accuracy is None else f" of at least {s.least_accuracy:g} % validation accuracy"
    lead = f"Every trial{least} that no other matches in all objectives and beats in one, the smallest last."
    sizes = np.log(s.front["file_bytes"] if s.size == "file_bytes" else (100 - s.front["sparsity"]).clip(lower=1e-3))
    bend = knee(s.front.assign(log_size=sizes), {"val_accuracy": "max", "log_size": "min"})
    if bend is not None:
        lead += f" Its knee is {bend['trial_id']}, farthest from the line through both ends as the figure is scaled."
    return lead + _covered(s)


def _covered(s: Summary) -> str:
    """The front's hypervolume in words, where a reference point suggests itself: chance, and nothing compressed."""
    worst, span, unit, said = 0.0, 100.0, "%²", "sparsity 0 %"
    if s.size == "file_bytes":
        if s.reference is None:
            return ""
        worst = span = float(s.reference.get("file_bytes", np.nan))
        unit, said = "% · bytes", f"the {worst:,.0f} bytes of “{s.reference['baseline']}”"
    known = np.isfinite(s.chance) and set(s.study.objectives) == {"val_accuracy", s.size} and span > 0
    if s.front.empty or not known:
        return ""
    covered = hypervolume(s.front, s.study.objectives, {"val_accuracy": s.chance, s.size: worst})
    share = 100 * covered / (100 - s.chance) / span
    return (f" The front covers {share:.1f} % of the area between its reference point (chance accuracy "
            f"{s.chance:.3g} %, {said}) and perfection: its hypervolume is {covered:,.0f} {unit}.")


def _probability_lead(chances: pd.DataFrame) -> str:
    if chances.empty:
        return ""
    if chances["basis"].iloc[0] == "fresh seeds":
        return ("Probabilities are by Student's t over the fresh seeds, paired by seed, among the "
                f"{len(chances)} trials that were trained with them.")
    return BY_IMAGES


def _with_comparison(s: Summary, rows: pd.DataFrame, chances: pd.DataFrame) -> pd.DataFrame:
    tested = dict(zip(s.tested["trial_id"], s.tested["test_accuracy"], strict=True))
    level = float("nan") if s.reference is None else float(s.reference["val_accuracy"])
    probable = dict(zip(chances["trial_id"], chances["probability"], strict=True))
    return rows.assign(change=rows["val_accuracy"] - level,
                       test_accuracy=[tested.get(trial, float("nan")) for trial in rows["trial_id"]],
                       probability=[f"{100 * probable[trial]:.0f}" if trial in probable else float("nan")
                                    for trial in rows["trial_id"]])


def _counts(s: Summary) -> str:
    counts = counts_of(s)
    wanted = max(s.study.meta.get("settings", {}).get("num_samples") or 0, sum(counts.values()))
    return (f"{counts['complete']} complete" + (f" of {wanted}" if wanted else "")
            + "".join(f" · {counts[state]} {state}" for state in ("pruned", "failed", "running") if counts[state]))


@dataclass(frozen=True)
class Arguments:
    """Write a study's report, or one page that compares several studies, and print where it lies."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The folder that a study wrote, results/NAME. Several are compared on one page."""
    out: Path | None = None
    """Where the page goes. Default: report.html in the folder; a comparison goes to comparison.html beside the first
    one."""
    live: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Serve the page on 127.0.0.1 instead, and follow the study while it runs."""
    png: Path | None = None
    """Write the page's figures into this folder as PNG files, for papers."""
    svg: Path | None = None
    """The same as SVG files."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Bad input is one line on stderr and exit status 2, bad usage included."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    status = commandline.status(lambda: _run(commandline.parse(Arguments, PROG, None, given)))
    if status:
        raise SystemExit(status)


def _run(arguments: Arguments) -> int:
    if not arguments.folders:
        raise UserError(f"give a study folder, as in: {PROG} results/NAME")
    if arguments.live:
        if len(arguments.folders) > 1 or arguments.out or arguments.png or arguments.svg:
            raise UserError("--live serves the page of one study: leave out the other folders, --out, --png and --svg")
        live.serve(arguments.folders[0], build)
        return 0
    if arguments.out and arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: is a folder; give a file, such as {arguments.out}/{results.REPORT}")
    try:
        if len(arguments.folders) == 1:
            path, items = _write(arguments.folders[0], arguments.out)
        else:
            path, items = comparison.write(arguments.folders, arguments.out)
    except OSError as error:
        raise UserError(f"the page could not be written: {error}") from None
    print(path)
    for kind, folder in (("png", arguments.png), ("svg", arguments.svg)):
        if folder is not None:
            print(*images.write(items, folder, (kind,)), sep="\n")
    return 0


if __name__ == "__main__":
    main()

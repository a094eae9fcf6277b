"""The report: a study folder as one HTML page that needs nothing else, neither files nor a network.

    python -m analysis.report results/NAME

The page is `analysis/page/`: a template, its style and its script. Text from the study is escaped by the template,
or travels as JSON that the script shows as text, and the page's own policy forbids it every other script and every
request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jinja2
import pandas as pd
import tyro
from plotly.offline import get_plotlyjs

from analysis import gallery, theme
from analysis.answer import answer
from analysis.caveats import caveats
from analysis.front import hypervolume
from analysis.gallery import Group, Item
from analysis.methods import SELECTION, UNTOUCHED, methods, title
from analysis.summary import Summary, counts_of, summarise
from analysis.tables import Table, table, trial_records
from analysis.tested import fresh_lead, fresh_table, search_table
from study import results
from study.errors import UserError
from study.results import Study

PAGE = Path(__file__).parent / "page"
BEST_SHOWN = 5


@dataclass(frozen=True)
class Page:
    """What the template is given beside the fixed parts."""

    study: Study
    summary: Summary
    main: Item | None
    seeds: Item | None
    groups: list[Group] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        first = [item for item in (self.main, self.seeds) if item]
        return [*first, *(item for group in self.groups for item in group.items)]


def build(study: Study) -> str:
    """The whole page. Works for a study that has just begun, was cut off, or failed throughout."""
    summary = summarise(study)
    page = Page(study, summary, gallery.main_figure(summary), gallery.seeds_figure(summary),
                gallery.groups(summary))
    scripts = [get_plotlyjs() if page.items else "var Plotly = null;", _read("report.js")]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters["unbroken"] = _unbroken
    template = environment.from_string(_read("report.html"))
    return template.render(**_context(page), css=_read("report.css"), scripts=scripts, policy=_policy(scripts))


def write(folder: str | Path) -> Path:
    """Build the report of the study in `folder` and put it there; whole at every instant.

    Raises:
        UserError: no study there, or a damaged one.
    """
    path = Path(folder) / results.REPORT
    results.write_text(path, build(results.load(folder)))
    return path


def _context(page: Page) -> dict[str, Any]:
    study, summary = page.study, page.summary
    best, heading, lead = _best_table(summary)
    test, fresh = search_table(summary), fresh_table(summary)
    trials = trial_records(summary.trials, study.hyperparameters)
    name = str(study.meta.get("name", study.folder.name))
    said = caveats(summary)
    sections = [("answer", "Answer", True), ("caveats", "Limits", bool(said)), ("best", "Best", bool(best.rows)),
                ("seeds", "Seeds", bool(fresh.rows)), ("figures", "Figures", bool(page.groups)),
                ("test", "Test", bool(test.rows)), ("trials", "Trials", True), ("methods", "Methods", True)]
    return {
        "name": name, "title": title(study), "counts": _counts(summary), "answer": answer(summary), "caveats": said,
        "selection": UNTOUCHED if summary.tested.empty and summary.fresh.empty else SELECTION, "main_figure": page.main,
        "sections": [(anchor, text) for anchor, text, there in sections if there], "figures": page.groups,
        "best_table": best, "best_heading": heading, "best_lead": lead, "test_table": test,
        "fresh_table": fresh, "fresh_lead": fresh_lead(summary), "fresh_figure": page.seeds, "trials": trials,
        "methods": methods(study), "data": _data(page, trials, name),
    }


def _best_table(s: Summary) -> tuple[Table, str, str]:
    measured = ["val_accuracy", "change", "accuracy_drop", "sparsity", "file_bytes", "compression_ratio",
                "entropy_ratio", "nonzero_ratio", "components_used", "test_accuracy", "epochs", "seconds"]
    rows = s.front if s.compresses else s.feasible.nlargest(BEST_SHOWN, "val_accuracy", keep="first")
    if s.compresses:
        heading, lead = "Baselines and the front", _front_lead(s)
        measured.remove("change" if "accuracy_drop" in s.trials else "accuracy_drop")
    else:
        heading, lead = "Baselines and the best trials", f"The {len(rows)} best complete trials on validation data."
    groups = [(kind, _with_comparison(s, frame)) for kind, frame in (("baseline", s.baselines), ("best", rows))]
    known = [c for c in s.trials.columns if c in ("label_smoothing", "bits")]
    reference = "the reference" if s.reference is None else str(s.reference["baseline"])
    return table(groups, [*s.study.hyperparameters, *known, *measured],
                 {"change": f"against {reference} (points)"}), heading, lead


def _front_lead(s: Summary) -> str:
    least = "" if s.least_accuracy is None else f" of at least {s.least_accuracy:g} % validation accuracy"
    lead = f"Every trial{least} that no other beats in all objectives at once, the smallest last."
    classes = len(s.study.meta.get("data", {}).get("classes", []))
    if s.front.empty or not classes or set(s.study.objectives) != {"val_accuracy", "sparsity"}:
        return lead
    chance = 100 / classes
    covered = hypervolume(s.front, s.study.objectives, {"val_accuracy": chance, "sparsity": 0.0})
    return (f"{lead} The front covers {covered / (100 - chance):.1f} % of the area between its reference point (chance "
            f"accuracy {chance:.3g} %, sparsity 0 %) and perfection: its hypervolume is {covered:,.0f} %².")


def _with_comparison(s: Summary, rows: pd.DataFrame) -> pd.DataFrame:
    tested = dict(zip(s.tested["trial_id"], s.tested["test_accuracy"], strict=True))
    level = float("nan") if s.reference is None else float(s.reference["val_accuracy"])
    return rows.assign(change=rows["val_accuracy"] - level,
                       test_accuracy=[tested.get(trial, float("nan")) for trial in rows["trial_id"]])


def _counts(s: Summary) -> str:
    counts = counts_of(s)
    wanted = s.study.meta.get("settings", {}).get("num_samples")
    return (f"{counts['complete']} complete" + (f" of {wanted}" if wanted else "")
            + "".join(f" · {counts[state]} {state}" for state in ("pruned", "failed", "running") if counts[state]))


def _data(page: Page, trials: dict[str, Any], name: str) -> str:
    drawn = {}
    for item in page.items:
        parts = json.loads(item.figure.to_json())
        parts["layout"].pop("template", None)
        drawn[item.id] = parts
    safe_name = re.sub(r"[^\w.-]+", "_", name).strip("._") or "study"
    templates = {"light": theme.LIGHT.to_plotly_json(), "dark": theme.DARK.to_plotly_json()}
    content = {"figures": drawn, "templates": templates, "trials": trials, "csv": f"{safe_name}-trials.csv"}
    # No "<" reaches the page, so neither "</script" nor "<!--" can end or change the block.
    return (json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            .replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, and nothing is fetched: whatever slips past escaping still does nothing."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _unbroken(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=%|points|±)|(?<=±) (?=\d)", "\u00a0", text)


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Bad input is one line on stderr and exit status 2, bad usage included."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asks_help = bool({"-h", "--help"} & set(given))
    try:
        folder = tyro.cli(_arguments, args=given, prog="python -m analysis.report", console_outputs=asks_help)
    except SystemExit as ended:
        if asks_help or not ended.code:
            raise
        _stop("give one study folder, as in: python -m analysis.report results/NAME")
    try:
        print(write(folder))
    except (UserError, OSError) as error:
        _stop(str(error))


def _arguments(folder: Annotated[Path, tyro.conf.Positional]) -> Path:
    """Write report.html into a study folder and print where it lies.

    Args:
        folder: the folder that a study wrote, results/NAME.
    """
    return folder


def _stop(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()

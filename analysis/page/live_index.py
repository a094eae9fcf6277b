"""An index of several studies that run, on the server of the live pages: one line each, and a link to its page."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from analysis.formatting import format_cell
from analysis.page.live import Page, plain_page, stamps
from study.errors import UserError
from study.records import paths, study_folder
from study.records.columns import FINAL_STATES
from study.records.study_folder import Study

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 sans-serif; max-width: 60em; margin: 3em auto; padding: 0 1em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .5em 1em .5em 0; border-bottom: 1px solid #8884; vertical-align: top; }
"""

_BODY = """<main><h1>Studies</h1><p class="counts">{counts}</p><div class="scroll"><table>
<thead><tr><th>study</th><th>what it is</th><th>trials</th><th>best so far</th></tr></thead>
<tbody>{rows}</tbody></table></div></main>"""


class SeveralStudies:
    """An index at /, and the page of each study at /NAME/.

    Args:
        folders: study folders, or folders that hold them; a study that appears there afterwards is shown, too.
        build: a study → its page, such as `analysis.page.study_page.build`.
    """

    def __init__(self, folders: Sequence[Path], build: Callable[[Study], str]) -> None:
        self._folders, self._build = folders, build
        self._index = _Index(self)
        self._pages: dict[Path, Page] = {}
        self._lock = threading.Lock()

    def page(self, path: str) -> Page | None:
        """See `Site.page`."""
        if path == "/":
            return self._index
        folder = self.studies().get(path)
        if folder is None:
            return None
        with self._lock:
            return self._pages.setdefault(folder, Page(folder, self._build, home=True))

    def studies(self) -> dict[str, Path]:
        """Path of a page → its study folder, by name."""
        named: dict[str, Path] = {}
        for folder in sorted(set(self._study_folders()), key=lambda folder: (folder.name, folder)):
            path, number = f"/{quote(folder.name, safe='')}/", 2
            while path in named:  # two folders of one name
                path, number = f"/{quote(folder.name, safe='')}-{number}/", number + 1
            named[path] = folder
        return named

    def _study_folders(self) -> Iterator[Path]:
        for folder in self._folders:
            if (folder / paths.STUDY).exists() or not folder.is_dir():
                yield folder
            else:
                yield from (file.parent for file in folder.glob(f"*/{paths.STUDY}"))


def holds_studies(folder: Path) -> bool:
    """Whether a folder is no study, but has some in it."""
    return not (folder / paths.STUDY).exists() and any(folder.glob(f"*/{paths.STUDY}"))


class _Index(Page):
    """The page of all studies; see `Page`."""

    def __init__(self, site: SeveralStudies) -> None:
        super().__init__(Path(), lambda study: "")
        self._site = site

    def _stamps(self) -> object:
        return [(path, stamps(folder)) for path, folder in self._site.studies().items()]

    def _made(self) -> str:
        studies = self._site.studies()
        rows = "".join(_row(path, folder) for path, folder in studies.items())
        return plain_page("Studies", _STYLE, _BODY.format(counts=f"{len(studies)} studies", rows=rows))


def _row(path: str, folder: Path) -> str:
    try:
        cells = _cells(study_folder.load(folder))
    except (UserError, KeyError, ValueError, TypeError) as error:  # a damaged study; the others are shown all the same
        cells = (str(error), "", "")
    link = f'<a href="{html.escape(path)}">{html.escape(folder.name)}</a>'
    return f"<tr><td>{link}</td>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _cells(study: Study) -> tuple[str, str, str]:
    """What it is, how far it is, and its best value of the first objective."""
    searched = study.trials[study.trials["baseline"] == ""]
    done = int(searched["state"].isin(FINAL_STATES).sum())
    wanted = study.meta["settings"].get("num_samples", done)
    name, direction = next(iter(study.objectives.items()))
    values = searched[searched["state"] == "complete"].reindex(columns=[name])[name].dropna()
    column = study.column(name)
    best = "none yet"
    if len(values):
        value = format_cell(column, float(values.max() if direction == "max" else values.min()))
        best = f"{value} {column.unit}, {column.label}"
    what = f"{study.meta.get('title', '')}, {study.meta.get('data', {}).get('title', '')}".strip(", ")
    return what, f"{done} of {wanted}", best

"""Pages as they were when somebody last looked at them: every word of theirs, and how every figure is laid out.

After a change that is meant, look at the pages, and write the new ones down:

    python tests/page/test_looks.py
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "fixtures" / "looks"
if __name__ == "__main__":
    sys.path.append(str(FOLDER.parents[1]))

import synthetic  # noqa: E402

from analysis.page import study_page  # noqa: E402
from analysis.stats.summary import summarise  # noqa: E402
from study.records import study_folder  # noqa: E402
from study.records.study_folder import load  # noqa: E402

KINDS = ("kd", "sws", "seeds", "empty", "layers", "accuracy", "single")
LONGEST = 8
"""Lists that are longer are data, of which the length alone is written down."""
FITTED = ("importance", "interaction", "effect", "pairs")
"""Figures with numbers that an optimiser found, which may differ from machine to machine: no digits of these."""


class _Words(HTMLParser):
    """The text of a page, a line for each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.silent and data.strip():
            self.lines.append(" ".join(data.split()))


def study_folder_of(kind: str, root: Path) -> Path:
    if kind == "kd":
        folder = synthetic.write_kd(root / "study")
        synthetic.write_knowledge(folder)
        return folder
    if kind == "empty":
        return synthetic.write_bare(root / "study", "kd", "none")
    if kind == "layers":
        folder = synthetic.write_layers(synthetic.write_sized(root / "study", "magnitude", trials=20))
        synthetic.write_pruned_trace(folder, summarise(load(folder)).front["trial_id"].iloc[0])
        return folder
    if kind == "accuracy":  # alone, over more than two hyperparameters
        folder = synthetic.write_sized(root / "study", "kd_sws", trials=20)
        study_folder.write_meta(folder, {**study_folder.read_meta(folder), "objectives": {"val_accuracy": "max"}})
        return folder
    if kind == "single":
        return synthetic.write_sws(root / "study", trials=1, epochs=6)
    folder = synthetic.write_sws(root / "study", fresh=5 if kind == "seeds" else 0)
    if kind == "sws":
        best = summarise(load(folder)).best
        assert best is not None
        synthetic.write_trace(folder, best["trial_id"])
    return folder


def plain(value: Any) -> Any:
    """What is written down of a part of a figure: numbers to two digits, no data."""
    if isinstance(value, dict) and "bdata" in value:
        return "data"
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items()) if key not in ("template", "source")}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value] if len(value) <= LONGEST else f"{len(value)} items"
    if isinstance(value, float):
        return float(f"{value:.2g}")
    return value if isinstance(value, str | int | bool | None) else str(type(value).__name__)


def without_digits(text: str) -> str:
    return re.sub(r"\d", "#", text)


def look(kind: str, root: Path) -> dict[str, Any]:
    page = study_page.page_of(load(study_folder_of(kind, root)))
    words = _Words()
    words.feed(study_page.rendered(page).replace(str(root), "ROOT"))
    figures, fitted_words = {}, ""
    for figure in page.figures:
        drawing = json.loads(figure.figure.to_json())
        parts = {"alt": figure.alt, "layout": drawing["layout"], "traces": drawing["data"]}
        if figure.id.startswith(FITTED):
            fitted_words += f"{figure.title} {figure.caption}"
            parts = {"alt": without_digits(figure.alt), "layout": {"height": figure.height}}
        figures[figure.id] = plain(parts)
    lines = [without_digits(line) if line in fitted_words else line for line in words.lines]
    template = json.loads(page.figures[0].figure.to_json())["layout"].get("template") if page.figures else None
    return {"figures": figures, "template": plain(template), "words": lines}


def differences(now: Any, then: Any, path: str = "") -> list[str]:
    """Where two looks differ, each in one line."""
    if isinstance(now, dict) and isinstance(then, dict):
        keys = sorted(now.keys() | then.keys())
        return [line for key in keys for line in differences(now.get(key), then.get(key), f"{path}/{key}")]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [line for i in range(len(now)) for line in differences(now[i], then[i], f"{path}/{i}")]
    return [] if now == then else [f"{path}: {then!r} has become {now!r}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_looks_as_it_did(kind: str, tmp_path: Path) -> None:
    """Words, axes, marks and places of all figures, of a study of each kind."""
    then = json.loads((FOLDER / f"{kind}.json").read_text())
    assert not differences(look(kind, tmp_path), then), "if this is meant: python tests/page/test_looks.py"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in KINDS:
        with tempfile.TemporaryDirectory() as root_folder:
            text = json.dumps(look(name, Path(root_folder)), indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n")

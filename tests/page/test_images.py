"""Pictures for papers: what is drawn, how large, and what is said where they cannot be drawn."""

from __future__ import annotations

import os
import shutil
import sys
from io import BytesIO
from pathlib import Path

import plotly.graph_objects as go
import pytest
import synthetic
from PIL import Image

from analysis.figures import theme
from analysis.figures.animation import animate
from analysis.figures.report_figure import ReportFigure
from analysis.page import gallery, images
from analysis.stats.summary import summarise
from study.errors import UserError
from study.records import study_folder

BROWSER = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[ReportFigure]:
    """The main figure of a small study, and one in the page's dark dress with an animation's buttons and a bad name."""
    summary = summarise(study_folder.load(synthetic.write_sws(tmp_path_factory.mktemp("images") / "s", trials=12)))
    main = gallery.main_figure(summary)
    assert main is not None
    drawn = go.Figure(main.figure).update_layout(template=theme.DARK)
    animate(drawn, [(f"epoch {i}", [go.Scatter(x=[1, 10], y=[97, 97])]) for i in range(3)], 1)
    return [main, ReportFigure("../dark/figure", drawn, "", "", "")]


def test_figures_become_png_and_svg(figures: list[ReportFigure], tmp_path: Path) -> None:
    """Each figure is a PNG of 300 dots an inch and an SVG, 6.7 inches wide, as high as on the page, dark ink on white,
    without buttons, in the folder and under its id; nothing else is left there, and the page's figure is as it was."""
    pytest.importorskip("kaleido")
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    before = [figure.figure.to_json() for figure in figures]
    paths = images.write(figures, tmp_path / "new" / "figures")
    assert [p.name for p in paths] == ["main.png", "main.svg", "dark_figure.png", "dark_figure.svg"]
    assert sorted(paths) == sorted((tmp_path / "new" / "figures").iterdir())
    assert [figure.figure.to_json() for figure in figures] == before
    for path, figure in zip(paths, [figure for figure in figures for _ in images.FORMATS], strict=True):
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            picture = Image.open(BytesIO(data)).convert("RGB")
            assert picture.size == (2000, pytest.approx(figure.height * 300 / 96, abs=1))
            assert picture.getpixel((1, 1)) == (255, 255, 255)
        else:
            text = data.decode()
            assert text.startswith("<svg") and f'width="640" height="{figure.height}"' in text
            assert "Pareto front" in text and "▶" not in text and "epoch" not in text and "slider" not in text
            assert "rgb(27, 31, 36)" in text and "rgb(233, 235, 238)" not in text


def test_a_picture_has_no_buttons(figures: list[ReportFigure]) -> None:
    """Nothing that only moves on a page is in a picture's layout; the figure it is drawn of keeps it."""
    drawn = figures[1].figure
    layout = images._for_paper(drawn).layout
    assert len(drawn.layout.sliders) == len(drawn.layout.updatemenus) == 1
    assert len(layout.sliders) == len(layout.updatemenus) == 0


def test_only_the_wanted_format_is_written_and_over_the_old_one(figures: list[ReportFigure], tmp_path: Path) -> None:
    """Asked for one format, the other is not written; a picture that was there is replaced."""
    pytest.importorskip("kaleido")
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    (tmp_path / "main.svg").write_text("old")
    assert images.write(figures[:1], tmp_path, ["svg"]) == [tmp_path / "main.svg"]
    assert [p.name for p in tmp_path.iterdir()] == ["main.svg"]
    assert (tmp_path / "main.svg").read_text().startswith("<svg")
    with pytest.raises(UserError, match="cannot be written"):
        images._write_file(tmp_path / "main.svg" / "below.svg", b"")


def test_without_kaleido_it_says_what_to_install(
    figures: list[ReportFigure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the extra; nothing is written."""
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UserError, match=r"\A[^\n]*kaleido[^\n]*compression-study\[images\][^\n]*\Z"):
        images.write(figures, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("path", ["/nowhere/chrome", "/bin/false"])
def test_without_a_browser_it_says_what_to_install(
    figures: list[ReportFigure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A browser that is not there, or does not start, is one line that says how to get one."""
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", path)
    with pytest.raises(UserError, match=r"\Apictures need a browser[^\n]*apt install chromium[^\n]*\Z"):
        images.write(figures, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()

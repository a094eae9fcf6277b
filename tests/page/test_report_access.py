"""The report by finger, by keyboard, on paper, and for eyes that need contrast."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from analysis.figures import weights
from analysis.figures.dark_knowledge import dark_knowledge
from analysis.page import render, study_page
from study.records import study_folder

DRAWN = "() => !document.querySelector('.plot:not(:has(.main-svg))')"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with all that one can have."""
    return study_page.write(
        synthetic.write_traced(tmp_path_factory.mktemp("studies") / "sws", "sws", epochs=12)
    ).as_uri()


def opened(browser: Any, address: str, width: int = 1400, **how: Any) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce", **how)
    page.goto(address)
    page.wait_for_function(DRAWN)
    return page


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", by WCAG 2.2."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(ink: str, ground: str) -> float:
    low, high = sorted(map(luminance, (ink, ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ink", ["ink", "muted", "accent", "warm"])
def test_text_has_contrast(ink: str, scheme: int) -> None:
    """Every colour of text on every ground that the page has: at least 4.5 to 1, light and dark (WCAG 2.2, AA)."""
    css = (render.PAGE / "report.css").read_text(encoding="utf-8")
    colours = {name: pair for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    for ground in ("paper", "card", "wash", "mark"):
        assert contrast(colours[ink][scheme], colours[ground][scheme]) >= 4.5, (ink, ground)


def shade(scale: list[list[Any]], share: float) -> str:
    """The colour of a scale at `share`, as Plotly blends it: each of red, green and blue along a line."""
    places = [place for place, _ in scale]
    parts = [[int(colour[i : i + 2], 16) for _, colour in scale] for i in (1, 3, 5)]
    return "#" + "".join(f"{round(np.interp(share, places, part)):02x}" for part in parts)


def test_numbers_on_colours_have_contrast(tmp_path: Path) -> None:
    """Every number in the figure of dark knowledge at every temperature, and in the bars of the layers, is read at 4.5
    to 1 on its own cell. Cells and bars let nothing through, so the page's colours do not matter."""
    folder = synthetic.write_kd(tmp_path / "kd")
    synthetic.write_knowledge(folder)
    drawn = dark_knowledge(study_folder.load(folder))
    for frame in drawn.frames:
        cells, numbers = frame.data
        scale = [list(pair) for pair in cells.colorscale]
        shares = [cells.z[y][cells.x.index(x)] for x, y in zip(numbers.x, numbers.y, strict=True)]
        assert len(shares) == len(numbers.textfont.color) == 100 and cells.opacity is None
        assert (
            min(contrast(ink, shade(scale, share)) for ink, share in zip(numbers.textfont.color, shares, strict=True))
            >= 4.5
        )
    synthetic.write_trace(tmp_path, "t")
    bars = weights.layer_sparsity(study_folder.read_trace(tmp_path, "t")).data[0]
    assert contrast(bars.insidetextfont.color, bars.marker.color) >= 4.5 and bars.opacity is None


def test_by_finger(browser: Any, address: str) -> None:
    """On a touched screen sliders, buttons, boxes and trials' names are high enough to hit (24 px, WCAG 2.5.8), sliders
    lie within the page, nothing scrolls sideways but tables, and a row keeps its name when its table does."""
    page = opened(browser, address, width=390, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = page.evaluate("""() => [...document.querySelectorAll(
        'input[type=range], main button:not(.modebar-btn), #theme, .tools label')].filter((e) => e.checkVisibility())
        .map((e) => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height, e.getBoundingClientRect().right])""")
    assert len(boxes) > 60 and [box for box in boxes if box[1] < 24] == []
    assert [box for box in boxes if "range" in box[0] and not 0 < box[2] <= 390] == []
    moved = page.evaluate("""() => { const table = document.querySelector('#best .scroll'); table.scrollLeft = 300;
        const name = table.querySelector('tbody th'), edge = table.getBoundingClientRect().left;
        return [table.scrollLeft, name.getBoundingClientRect().left - edge]; }""")
    assert moved[0] > 100 and abs(moved[1]) < 3
    page.close()


def test_no_button_sends_a_figure_away(browser: Any, address: str) -> None:
    """Of the buttons that Plotly puts on a figure, "Share chart", which uploads it, is not there."""
    page = opened(browser, address)
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map((b) => b.dataset.title ?? b.ariaLabel)")
    assert "Download plot as a PNG" in titles and not re.search("share|cloud|chart studio", " ".join(titles), re.I)
    page.close()


def test_by_keyboard(browser: Any, address: str) -> None:
    """Tab reaches the filters, thresholds, animations, tables, headings and trials; what has the focus shows it and
    lies under no bar."""
    page = opened(browser, address)
    reached: list[str] = []
    while "trial-table BUTTON pick" not in reached:
        page.keyboard.press("Tab")
        name, outline, seen = page.evaluate("""() => { const e = document.activeElement, style = getComputedStyle(e);
            const box = e.getBoundingClientRect(), near = (size) => Math.min(size / 2, 20);
            const top = document.elementFromPoint(box.left + near(box.width), box.top + near(box.height));
            return [`${e.closest('[id]')?.id} ${e.tagName} ${e.className}`,
                    `${style.outlineStyle} ${style.outlineWidth}`, e.contains(top) || top?.contains(e)]; }""")
        reached.append(name)
        assert len(reached) < 400 and outline == ("solid 1px" if "modebar" in name else "solid 2px") and seen, name
    assert {
        "theme BUTTON ",
        "best BUTTON pick",
        "states INPUT ",
        "limit-val_accuracy INPUT ",
        "limit-sparsity INPUT ",
        "csv BUTTON ",
        "trials DIV scroll",
        "trial-table BUTTON ",
        "trial-table BUTTON pick",
    } <= set(reached)
    assert sum(name == "figures INPUT " for name in reached) == 2  # the animations
    page.close()


def test_bars_hide_no_heading(browser: Any, address: str) -> None:
    """The filters stay in sight below the header, and a section that one jumps to begins below both."""
    page = opened(browser, address)
    for section in ("answer", "best", "figures", "trials", "methods"):
        page.evaluate(f"() => {{ location.hash = '{section}' }}")
        page.wait_for_timeout(100)
        bar, filters, heading = page.evaluate(f"""() => ['.bar', '#filters', '#{section} :is(h1, h2)'].map((e) => {{
            const box = document.querySelector(e).getBoundingClientRect(); return [box.top, box.bottom]; }})""")
        assert bar[0] == 0 and heading[0] >= bar[1] - 1, section
        if section in ("figures", "trials"):
            assert filters[0] >= bar[1] - 1 and heading[0] >= filters[1] - 1, section
    assert abs(filters[0] - bar[1]) < 1
    page.close()


def test_on_paper(browser: Any, address: str) -> None:
    """Printed from a wide dark window, figures are as wide as their place on the paper and no table is wider than it,
    all dark on light and without buttons; after it the page is as before."""
    page = opened(browser, address, color_scheme="dark")
    page.set_viewport_size({"width": 560, "height": 1000})
    page.wait_for_timeout(300)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.wait_for_function("""() => [...document.querySelectorAll('.plot')].every((plot) => Math.abs(
        plot.querySelector('.main-svg').getBoundingClientRect().width - plot.clientWidth) < 2)""")
    assert page.evaluate("document.documentElement.scrollWidth") <= 560
    tables = page.locator(".scroll").evaluate_all("all => all.map((e) => e.scrollWidth - e.clientWidth)")
    assert len(tables) == 5 and max(tables) <= 1
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("button:not(table button):visible, input:visible, .modebar:visible").count() == 0
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert page.locator("#theme").is_visible()
    page.close()

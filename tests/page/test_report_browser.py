"""The report in a real browser, opened from the disk as a reader would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

from analysis.page import study_page
from analysis.stats.summary import summarise
from study.records import columns, paths, study_folder

WIDTHS = pytest.mark.parametrize("width", [1400, 390])
"""A desk's screen, and a phone's, which is touched."""

HOSTILE = "</script ><!--</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
HOSTILE_NAME = "<script>window.hacked=1<img src=x onerror='window.hacked=1'>"
"""As a baseline's name, which has no / in it, or the tables would be refused."""

FORMULA = "=HYPERLINK(A1)"

TAG = "<b onmouseover='window.hacked=1'><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A study of each kind, one of them full of markup, each with its report."""
    root = tmp_path_factory.mktemp("studies")
    made = {
        "kd": synthetic.write_kd(root / "kd"),
        "sws": synthetic.write_sws(root / "sws"),
        "seeds": synthetic.write_sws(root / "seeds", fresh=5),
        "foreign": synthetic.rename(synthetic.write_sws(root / "foreign", 24, epochs=6), "tau", TAG),
        "hostile": synthetic.write_kd(root / "hostile", fresh=2),
        "empty": synthetic.write_bare(root / "empty", "kd", "none"),
    }
    synthetic.write_knowledge(made["kd"])
    best = summarise(study_folder.load(made["sws"])).best
    assert best is not None
    synthetic.write_trace(made["sws"], best["trial_id"])
    trials = study_folder.read_frame(made["hostile"] / paths.TRIALS, columns.TRIAL_COLUMNS)
    trials.loc[trials["state"] == "failed", "reason"] = HOSTILE
    trials.loc[trials.index[trials["state"] == "failed"][0], "reason"] = FORMULA
    trials.loc[trials["baseline"] == "teacher", "baseline"] = HOSTILE_NAME
    study_folder.write_frame(made["hostile"] / paths.TRIALS, trials)
    confirmed = study_folder.read_frame(made["hostile"] / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    named = confirmed.replace({"baseline": {"teacher": HOSTILE_NAME}})
    study_folder.write_frame(made["hostile"] / paths.CONFIRMED, named)
    study_folder.write_meta(made["hostile"], {**study_folder.read_meta(made["hostile"]), "name": HOSTILE})
    for folder in made.values():
        study_page.write(folder)
    return made


class Visit:
    """A page and everything it complained of or asked for."""

    def __init__(self, browser: Any, folder: Path, width: int = 1400, scheme: str = "light") -> None:
        touched = {"has_touch": True, "is_mobile": True} if width < 500 else {}
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **touched)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = (folder / paths.REPORT).as_uri()
        self.page.goto(self.url)
        # Those out of sight are drawn a moment later.
        self.page.wait_for_function("() => !document.querySelector('.plot:not(:has(.main-svg))')")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.complaints == []
        assert [r for r in self.requests if r != self.url and not r.startswith(("data:", "blob:"))] == []


@WIDTHS
@pytest.mark.parametrize("kind", ["kd", "sws", "seeds", "empty"])
def test_opens_from_disk_without_complaint(browser: Any, folders: dict[str, Path], kind: str, width: int) -> None:
    """No console error, no request beyond the file itself, no sideways scrolling, every figure is drawn, and a wide
    screen shows the answer and the whole main figure at once."""
    with Visit(browser, folders[kind], width) as page:
        assert page.locator(".plot").count() == {"kd": 9, "sws": 25, "seeds": 22, "empty": 0}[kind]
        assert page.locator(".plot:not(:has(.main-svg))").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in ("h1", "#main") if width == 1400 and kind != "empty" else ():
            box = page.locator(selector).bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] < 900


@WIDTHS
def test_headings_sort_the_table(browser: Any, folders: dict[str, Path], width: int) -> None:
    """The first press on a number's heading puts the largest on top, the second the smallest, missing ones last."""
    with Visit(browser, folders["kd"], width) as page:
        heads = page.locator("#trial-table thead th")
        column = next(i for i in range(heads.count()) if "validation accuracy" in heads.nth(i).inner_text())
        for direction in ("descending", "ascending"):
            heads.nth(column).locator("button").click()
            assert heads.nth(column).get_attribute("aria-sort") == direction
            shown = page.locator(f"#trial-table tbody tr > :nth-child({column + 1})").all_inner_texts()
            numbers = [float(text) for text in shown if text != "–"]
            assert numbers == sorted(numbers, reverse=direction == "descending")
            assert shown[-1] == "–"


def test_a_download_has_no_formulas(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    """Words that a spreadsheet would run have a ' in front; negative numbers stay."""
    with Visit(browser, folders["hostile"]) as page:
        with page.expect_download() as waiting:
            page.locator("#csv").click()
        waiting.value.save_as(tmp_path / "trials.csv")
    cells = pd.read_csv(tmp_path / "trials.csv", dtype=str).stack()
    assert f"'{FORMULA}" in set(cells) and FORMULA not in set(cells)
    assert not cells[cells.str.startswith("'")].str[1:].str.fullmatch(r"[-+.\deE]+").any()


@WIDTHS
def test_filter_and_download_agree(browser: Any, folders: dict[str, Path], tmp_path: Path, width: int) -> None:
    """Unticking a state hides its rows, and the CSV holds exactly the rows that are left, with full precision."""
    with Visit(browser, folders["kd"], width) as page:
        page.locator("#states input[value=pruned]").uncheck()
        page.locator("#states input[value=baseline]").uncheck()
        with page.expect_download() as waiting:
            page.locator("#csv").click()
        waiting.value.save_as(tmp_path / "trials.csv")
        rows = page.locator("#trial-table tbody tr").count()
    got = pd.read_csv(tmp_path / "trials.csv", dtype=str)
    all_trials = study_folder.load(folders["kd"]).trials
    expected = all_trials[(all_trials["state"] != "pruned") & (all_trials["baseline"] == "")]
    assert waiting.value.suggested_filename == "kd-digits-trials.csv"
    assert rows == len(expected) and list(got["trial_id"]) == list(expected["trial_id"])
    assert [float(t) for t in got["temperature"]] == list(expected["temperature"])


FADED = """id => document.getElementById(id).calcdata.filter((t) => /^(trial|complete)$/.test(t[0].trace.name)).flatMap(
    (t) => [...document.querySelectorAll(`#${id} .point.out`)].filter((mark) => getComputedStyle(mark).opacity < 0.1
        && t.includes(mark.__data__)).map((mark) => t[0].trace.customdata[t.indexOf(mark.__data__)]))"""


@pytest.mark.parametrize(
    ("kind", "figure", "column", "width"),
    [("kd", "plane", "val_accuracy", 1400), ("kd", "plane", "val_accuracy", 390), ("sws", "main", "sparsity", 1400)],
)
def test_a_threshold_leaves_the_same_trials_in_table_and_figures(
    browser: Any, folders: dict[str, Path], kind: str, figure: str, column: str, width: int
) -> None:
    """Moved with the keyboard, or on a phone with a finger, a slider names its threshold; trials that miss it leave the
    table and fade in figures, and back at its start it leaves out none."""
    trials = study_folder.load(folders[kind]).trials
    values = sorted(set(trials[column].dropna()))
    steps = 5 + sum(value < trials.loc[trials["state"] == "complete", column].min() for value in values)
    with Visit(browser, folders[kind], width) as page:
        slider = page.locator(f"#limit-{column}")
        if width == 390:
            box = slider.bounding_box()
            slider.tap(position={"x": 0.8 * box["width"], "y": box["height"] / 2})
        else:
            for _ in range(steps):
                slider.press("ArrowRight")
        limit = values[int(slider.input_value())]
        assert (0.6 < values.index(limit) / len(values) < 0.9) if width == 390 else limit == values[steps]
        assert f"≥ {limit:.2f}" in slider.get_attribute("aria-valuetext")
        complete = trials[(trials["state"] == "complete") & (trials["baseline"] == "")]
        missed = set(complete.loc[complete[column] < limit, "trial_id"])
        page.wait_for_function(f"() => ({FADED})('{figure}').length === {len(missed)}")  # figures follow a little later
        assert missed and missed == set(page.evaluate(f"({FADED})('{figure}')"))
        shown = set(page.locator("#trial-table tbody tr").evaluate_all("rows => rows.map(r => r.dataset.trial)"))
        assert shown == set(trials.loc[trials[column] >= limit, "trial_id"])
        slider.press("Home")
        page.wait_for_function(f"() => ({FADED})('{figure}').length === 0")
        assert page.locator("#trial-table tbody tr").count() == len(trials)


def test_an_animated_figure_is_stepped_with_the_keyboard(browser: Any, folders: dict[str, Path]) -> None:
    """The slider under the histogram begins at the end of clustering, shows the quantised weights one step on, and
    plays through all frames from the first."""
    heights = "document.getElementById('weights').data[0].y.filter(v => v > 0).length"
    with Visit(browser, folders["sws"]) as page:
        box = page.locator("figure:has(#weights) .animation")
        assert box.locator("output").inner_text() == "cluster, epoch 6"
        box.locator("input").press("ArrowRight")
        page.wait_for_function(f"() => {heights} === 5")
        assert box.locator("output").inner_text() == "quantised"
        page.evaluate(
            "const said = document.querySelector('figure:has(#weights) output'); window.seen = [];"
            "new MutationObserver(() => window.seen.push(said.textContent)).observe(said, {childList: true})"
        )
        box.locator("button").click()
        page.wait_for_function(
            "() => document.querySelector('figure:has(#weights) .animation button').textContent === 'Play'"
        )
        assert page.evaluate("window.seen") == ["before", *(f"cluster, epoch {i}" for i in range(1, 7)), "quantised"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(browser: Any, folders: dict[str, Path], scheme: str) -> None:
    """Page and figures start in the system's colours, change together with the button, and print dark on light."""
    ink = "document.querySelector('#main .xtitle').style.fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    with Visit(browser, folders["sws"], scheme=scheme) as page:
        before = page.evaluate(ink), page.evaluate(paper)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.locator("#theme").click()
        page.wait_for_function(f"() => {ink} !== {before[0]!r}")
        assert page.evaluate(paper) != before[1]
        page.locator("#theme").click()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme


@WIDTHS
def test_a_picked_trial_is_marked_everywhere(browser: Any, folders: dict[str, Path], width: int) -> None:
    """Picking a trial marks its row and, with a round ring, its place in every figure that has it, on logarithmic axes
    too; Escape, or the button on what is said of it, takes the marks away."""
    rings = "[...document.querySelectorAll('.plot')].filter(p => p.layout.shapes?.some(s => s.name === 'mark')).length"
    with Visit(browser, folders["kd"], width) as page:
        page.locator("#best .pick").first.click()
        page.wait_for_function(f"() => {rings} >= 3")
        assert page.locator("#marked").is_visible() and page.locator("#trial-table tr.marked").count() == 1
        off = page.evaluate("""() => { const p = document.getElementById('plane'), box = p.getBoundingClientRect();
            const t = p.data.find((t) => t.name === 'complete'), l = p._fullLayout;
            const i = t.customdata.indexOf(document.querySelector('#trial-table tr.marked').dataset.trial);
            const ring = p.querySelector('.shapelayer path').getBoundingClientRect();
            return [ring.width - 19, ring.height - 19, ring.x + 9.5 - box.x - l.xaxis._offset - l.xaxis.d2p(t.x[i]),
                    ring.y + 9.5 - box.y - l.yaxis._offset - l.yaxis.d2p(t.y[i])]; }""")
        assert max(map(abs, off)) < 1
        if width == 390:
            page.locator("#marked button").tap()
        else:
            page.keyboard.press("Escape")
        page.wait_for_function(f"() => {rings} === 0")
        assert not page.locator("#marked").is_visible()


@WIDTHS
def test_a_clicked_mark_names_its_trial_and_configuration(browser: Any, folders: dict[str, Path], width: int) -> None:
    """A mark hovers to its configuration, and a click on it marks that trial's row; a finger's touch does both."""
    with Visit(browser, folders["kd"], width) as page:
        # The best trial's mark lies on top of the plane, so the pointer surely meets it.
        place = page.evaluate("""() => { const p = document.getElementById('plane');
            const t = p.data.find((t) => t.name === 'complete'), i = t.x.length - 1, l = p._fullLayout;
            p.scrollIntoView({block: 'center', behavior: 'instant'}); const box = p.getBoundingClientRect();
            return [box.x + l.xaxis._offset + l.xaxis.d2p(t.x[i]), box.y + l.yaxis._offset + l.yaxis.d2p(t.y[i]),
                    t.customdata[i]]; }""")
        if width == 390:
            page.touchscreen.tap(place[0], place[1])
        else:
            page.mouse.move(place[0] - 3, place[1])
            page.mouse.move(place[0], place[1])
        hover = page.locator("#plane .hoverlayer .hovertext")
        hover.wait_for()
        assert place[2] in hover.text_content() and "temperature" in hover.text_content()
        if width == 1400:
            page.mouse.click(place[0], place[1])
        page.locator("#marked").wait_for()
        assert page.locator("#trial-table tr.marked").get_attribute("data-trial") == place[2]


RINGED = """() => [...document.querySelectorAll('.plot')].map((plot) => {
    const marked = document.querySelector('#trial-table tr.marked')?.dataset.trial ?? null, wanted = [];
    for (const trace of plot.data) {
        if (!Array.isArray(trace.customdata) || marked === null || trace.visible === false) continue;
        const at = trace.customdata.map((owner, i) => i).filter((i) =>
            trace.customdata[i] === marked && trace.x[i] != null && trace.y[i] != null);
        if (trace.mode !== 'lines') wanted.push(...at.map((i) => `${trace.x[i]} ${trace.y[i]}`));
        else if (at.length) wanted.push(`M${at.map((i) => `${trace.x[i]},${trace.y[i]}`).join('L')}`);
    }
    const rings = (plot.layout.shapes ?? []).filter((shape) => shape.name === 'mark');
    const got = rings.map((shape) => (shape.xanchor === undefined ? shape.path : `${shape.xanchor} ${shape.yanchor}`));
    const painted = [...plot.querySelectorAll('.shapelayer path')].filter((p) => p.style.strokeWidth === '3px').length;
    return [plot.id, wanted.join(';') === got.join(';') && painted === got.length, got.length]; })"""
"""Of every figure its id, whether its rings are those of the trial that the table marks, in the data and as painted,
and how many they are."""


@pytest.mark.parametrize("kind", ["kd", "seeds"])
def test_a_mark_moves_from_trial_to_trial_in_every_figure(browser: Any, folders: dict[str, Path], kind: str) -> None:
    """A trial, another one, none, and a double-click on every figure after each: rings are on the marked trial in every
    figure that has it and nowhere else, lines and bands of the figure stay, and nothing complains."""
    s = summarise(study_folder.load(folders[kind]))
    assert s.best is not None
    fresh = s.fresh if len(s.fresh) else s.searched.iloc[:0]
    others = fresh.loc[(fresh["baseline"] == "") & (fresh["trial_id"] != s.best["trial_id"]), "trial_id"]
    rows = [str(s.best["trial_id"]), *(others.head(1) if len(others) else s.searched["trial_id"].tail(1))]
    follow = "() => document.querySelectorAll('#trial-table tr.marked').length === %d"
    with Visit(browser, folders[kind]) as page:
        own = page.evaluate("[...document.querySelectorAll('.plot')].map((p) => (p.layout.shapes ?? []).length)")
        for step, trial in enumerate([rows[0], rows[1], rows[1], rows[0], rows[0], rows[1]]):
            page.locator(f'#trial-table .pick[data-trial="{trial}"]').evaluate("button => button.click()")
            marked = step not in (2, 4)
            page.wait_for_function(follow % marked)
            page.wait_for_function(f"() => ({RINGED})().every(([, right]) => right)")
            assert (sum(count for *_, count in page.evaluate(f"({RINGED})()")) > 3) == marked
            if step in (1, 2):
                for i in range(page.locator(".plot").count()):
                    place = page.locator(".plot").nth(i).locator(".nsewdrag").first
                    place.dblclick(position={"x": 3, "y": 3}, force=True)
                page.wait_for_function(f"() => ({RINGED})().every(([, right]) => right)")
                if page.evaluate("document.querySelector('#trial-table tr.marked')?.dataset.trial ?? ''") != (
                    trial if marked else ""
                ):  # one of the clicks met a mark
                    page.locator(f'#trial-table .pick[data-trial="{trial}"]').evaluate("button => button.click()")
                    if not marked:
                        page.keyboard.press("Escape")
        left = page.evaluate("""[...document.querySelectorAll('.plot')].map((p) =>
            (p.layout.shapes ?? []).filter((shape) => !/mark$/.test(shape.name)).length)""")
        assert left == own and sum(own) > 0


VISIBLE = """() => [...document.querySelectorAll('.scroll table')].map((table) => [...table.tHead.rows[0].cells].filter(
    (th) => th.checkVisibility()).length)"""


@WIDTHS
def test_tables_show_seven_columns_until_all_are_asked_for(browser: Any, folders: dict[str, Path], width: int) -> None:
    """No table has more than seven columns or a heading of more than five lines before its box is ticked with the
    keyboard; then it has all, and none again after another press."""
    with Visit(browser, folders["seeds"], width) as page:
        before = page.evaluate(VISIBLE)
        assert len(before) == 5 and max(before) == 7
        lines = page.evaluate("""() => Math.max(...[...document.querySelectorAll('thead button')].filter(
            (b) => b.checkVisibility()).map((b) => { const range = document.createRange(); range.selectNodeContents(b);
            return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size; }))""")
        assert lines <= 5
        box = page.get_by_label("Show all").first
        box.press("Space")
        count = page.locator("#best thead th").count()
        assert count > 7 and page.evaluate(VISIBLE)[0] == count
        box.press("Space")
        assert page.evaluate(VISIBLE) == before


def test_the_best_table_sorts_and_shows_it(browser: Any, folders: dict[str, Path]) -> None:
    """A heading's first press puts the largest number on top, the second the smallest, and an arrow and aria-sort say
    so in that column alone; missing cells stay last, and a row keeps its trial."""
    with Visit(browser, folders["sws"]) as page:
        heads = page.locator("#best thead th")
        names = heads.all_inner_texts()
        for name in ("validation accuracy (%)", "test accuracy (%)", "sparsity (%)"):
            column = names.index(name)
            for direction, arrow in (("descending", "↓"), ("ascending", "↑")):
                heads.nth(column).locator("button").click()
                assert heads.nth(column).get_attribute("aria-sort") == direction
                assert arrow in heads.nth(column).inner_text()
                assert page.locator('#best [aria-sort="none"]').count() == heads.count() - 1
                shown = page.locator(f"#best tbody tr > :nth-child({column + 1})").all_inner_texts()
                numbers = [float(text.replace("−", "-")) for text in shown if text != "–"]
                assert numbers == sorted(numbers, reverse=direction == "descending")
                assert "–" not in shown[: len(numbers)]
        assert page.evaluate("""[...document.querySelectorAll('#best tbody tr:has(.pick)')].every(
            (row) => row.dataset.trial === row.querySelector('.pick').textContent)""")


@WIDTHS
def test_sections_fold_and_links_lead_to_them(browser: Any, folders: dict[str, Path], width: int) -> None:
    """A heading folds its section with the keyboard, one button folds all; a link in the bar, which a phone has too,
    opens its section and shows its heading; what was marked meanwhile is there; print unfolds all."""
    with Visit(browser, folders["kd"], width) as page:
        tall = page.evaluate("document.documentElement.scrollHeight")
        page.locator("#figures > details > summary").press("Enter")
        assert not page.locator("#figures .plot").first.is_visible()
        page.locator("#fold").click()
        assert page.locator("details.fold[open]").count() == 0
        assert page.evaluate("document.documentElement.scrollHeight") < tall / 2
        link = page.locator("nav a", has_text="Figures")
        link.scroll_into_view_if_needed()
        assert link.is_visible()
        link.click()
        page.locator("#figures > details > summary").wait_for()
        assert page.locator("#figures > details").get_attribute("open") is not None
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details.fold:not([open])").count() == 0
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("#methods > details").get_attribute("open") is None
        page.locator("#fold").click()
        page.locator("#fold").click()
        assert page.locator("details.fold:not([open])").count() == 0
        page.locator("#best .pick").first.click()
        page.wait_for_function(f"() => ({RINGED})().every(([, right]) => right)")


def test_injected_script_never_runs(browser: Any, folders: dict[str, Path]) -> None:
    """Markup in a name, a baseline and a reason is shown as the text it is, in tables, legends and the marked trial."""
    with Visit(browser, folders["hostile"]) as page:
        failed = page.locator("#trial-table tbody tr", has_text="onerror").last
        failed.locator(".pick").click()
        page.wait_for_timeout(200)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0 and page.locator("script").count() == 3
        assert "<script>" in page.locator("header .name").inner_text()
        assert "<script>" in page.locator("#main .legend").text_content()
        assert "<script>" in page.locator("#seeds-figure .yaxislayer-above").text_content()


def test_a_column_called_like_an_element_is_text(browser: Any, folders: dict[str, Path]) -> None:
    """Markup in a hyperparameter's name is shown as the text it is, on axes, hovers, captions and headings."""
    with Visit(browser, folders["foreign"]) as page:
        page.locator("#trial-table .pick").last.click()
        page.locator("#marked").wait_for()
        titles = page.locator("#slice-0-0 .xtitle")
        titles.hover(force=True)
        assert page.evaluate("() => window.hacked") is None
        assert page.locator("[onmouseover]").count() == 0 and page.locator("script").count() == 3
        for place in (
            titles,
            page.locator("figure:has(#slice-0-0) figcaption"),
            page.locator("#marked p"),
            page.locator("#trial-table thead"),
            page.locator("#methods"),
        ):
            assert "<b onmouseover" in place.text_content()


def test_a_confirmed_trial_is_marked_among_its_seeds(browser: Any, folders: dict[str, Path]) -> None:
    """Picking a trial in the table of fresh seeds marks it in the figure of differences and in the main one."""
    with Visit(browser, folders["seeds"]) as page:
        page.locator("#seeds .pick").first.click()
        page.wait_for_function(
            "() => ['main', 'seeds-figure'].every(id => document.getElementById(id).layout.shapes?."
            "some(s => s.name === 'mark'))"
        )

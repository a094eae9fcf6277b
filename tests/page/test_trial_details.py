"""A single trial in the report: opened by its link, by the keyboard and by the address, and filtered on its axes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import synthetic
from test_report_browser import Visit

from analysis.page import study_page
from analysis.stats.summary import summarise
from analysis.text.trial_details import MOST_VALUES, curves, trial_details
from study.records import paths
from study.records.study_folder import Study, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SWS study with fresh seeds and one file of weights, and its report."""
    made = synthetic.write_sws(tmp_path_factory.mktemp("studies") / "sws", 24, epochs=6, fresh=2)
    (made / paths.MODELS).mkdir(exist_ok=True)
    (made / paths.MODELS / "t004.safetensors").touch()
    study_page.write(made)
    return made


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return load(folder)


def test_a_curve_is_the_trials_history(study: Study) -> None:
    """Every trial has its validation accuracy by epoch, to two decimals; epochs are left out where they are 1, 2, …"""
    every = curves(summarise(study))
    for trial_id, rows in study.history.groupby("trial_id"):
        epochs, values = every[trial_id]
        assert epochs == [] and values == pytest.approx(rows["val_accuracy"].tolist(), abs=0.0051)


def test_a_long_study_has_as_many_epochs_as_the_page_has_room_for(study: Study) -> None:
    """Curves are thinned to their first, last and some between; with too many trials only the front and the baselines
    have one, and the page says so."""
    s = summarise(study)
    thin = curves(s, most=len(s.trials) * 3 + 200)
    assert sum(len(values) for _, values in thin.values()) <= len(s.trials) * 3 + 200
    assert all(epochs[0] == 1 and epochs[-1] == len(study.history.query("trial_id == @i")) for i, (epochs, _) in
               thin.items() if epochs)  # fmt: skip
    few = curves(s, most=64)
    assert set(few) <= {*s.front["trial_id"], *s.trials["trial_id"][s.trials["baseline"] != ""]} and len(few) <= 8
    assert not trial_details(s)["partial"] and MOST_VALUES >= 10_000


def test_details_have_tests_and_files(study: Study) -> None:
    """What the test part said, of the search's network and over fresh seeds; which files there are; which commands."""
    s = summarise(study)
    details = trial_details(s)
    tested = s.tested.set_index("trial_id")["test_accuracy"]
    assert details["tests"][tested.index[0]][0].startswith(f"{tested.iloc[0]:.2f} % test accuracy")
    assert any("mean over 2 fresh seeds" in line for lines in details["tests"].values() for line in lines)
    assert details["files"] == {"t004": ["models/t004.safetensors"]}
    assert details["reproduce"] == f"python -m study.reproduce {study.folder}"


def test_details_of_missing_numbers_are_left_out(study: Study) -> None:
    """A history without accuracies has no curves, and a page without a history is built."""
    nothing = dataclasses.replace(study, history=study.history.assign(val_accuracy=float("nan")))
    assert curves(summarise(nothing)) == {} and "test accuracy" not in str(trial_details(summarise(nothing))["curves"])
    study_page.build(dataclasses.replace(study, history=study.history.iloc[:0]))


@pytest.mark.parametrize("width", [1400, 390])
def test_a_trial_opens_by_its_address_and_by_the_keyboard(browser: Any, folder: Path, width: int) -> None:
    """#t004 shows its numbers, curve, file and commands; Escape closes it, and the address is the page's again; the
    link in the table opens another one, and so does the button to the next; nothing is wider than the screen."""
    with Visit(browser, folder, width) as page:
        page.evaluate("location.hash = '#t004'")
        panel = page.locator("#panel")
        panel.locator(".main-svg").first.wait_for()
        text = panel.inner_text()
        row = load(folder).trials.set_index("trial_id").loc["t004"]
        assert f"{row['val_accuracy']:.2f}" in text and "models/t004.safetensors" in text
        assert f"study.export {folder} --trial t004" in text and f"study.reproduce {folder} t004" in text
        assert panel.evaluate("(p) => p.scrollWidth <= p.clientWidth && p.getBoundingClientRect().right <= innerWidth")
        page.keyboard.press("Escape")
        panel.wait_for(state="hidden")
        assert page.evaluate("location.hash") == ""
        link = page.locator("#trial-table a.open").nth(1)
        link.focus()
        page.keyboard.press("Enter")
        panel.wait_for()
        first = page.locator("#panel-h").inner_text()
        panel.get_by_role("button", name="Next").click()
        page.wait_for_function("(name) => document.getElementById('panel-h').textContent !== name", arg=first)
        panel.get_by_role("button", name="Close").click()
        panel.wait_for(state="hidden")


def test_a_section_and_a_bad_address_open_no_trial(browser: Any, folder: Path) -> None:
    """#trials leads to the section of that name; what names nothing, or is no address, opens nothing."""
    with Visit(browser, folder) as page:
        for address in ("#trials", "#t999", "#constructor"):
            page.evaluate("(hash) => { location.hash = hash; }", address)
            page.wait_for_timeout(100)
            assert not page.locator("#panel").is_visible()


def test_a_brushed_axis_filters_the_page(browser: Any, folder: Path) -> None:
    """Dragged along an axis, or moved by the arrows, a range keeps exactly its trials in the table and in the figure;
    Delete lets go."""
    rows = load(folder).trials
    searched = rows[rows["baseline"] == ""]
    with Visit(browser, folder) as page:
        page.locator("#parallel").scroll_into_view_if_needed()
        axis = page.locator(".brushes > div").first
        box = axis.bounding_box()
        x = box["x"] + box["width"] / 2
        page.mouse.move(x, box["y"] + 1)
        page.mouse.down()
        page.mouse.move(x, box["y"] + box["height"] * 0.4, steps=4)
        page.mouse.up()
        page.wait_for_function("() => document.querySelector('#shown').textContent !== ''")
        low, high = map(float, axis.get_attribute("aria-valuetext").split(" to "))
        kept = set(searched[searched["tau"].between(low * 0.999, high * 1.001)]["trial_id"])
        shown = "() => [...document.querySelectorAll('#trial-table tbody tr')].map((row) => row.dataset.trial)"
        assert set(page.evaluate(shown)) == kept and 0 < len(kept) < len(searched)
        drawn = """() => [...new Set(document.getElementById('parallel').data.slice(1).flatMap(
            (t) => t.customdata.filter((id, i) => t.y[i] !== null)))]"""
        page.wait_for_function("(n) => document.getElementById('parallel').data[0].customdata.length > n", arg=1)
        assert set(page.evaluate(drawn)) <= kept
        axis.focus()
        page.keyboard.press("Delete")
        assert len(page.evaluate(shown)) == len(rows)
        page.keyboard.press("ArrowUp")
        assert axis.get_attribute("aria-valuenow") == "5" and len(page.evaluate(shown)) < len(rows)


def test_the_menu_changes_the_plane(browser: Any, folder: Path) -> None:
    """The chosen pair's surface and trials are shown, on its own axes."""
    with Visit(browser, folder) as page:
        menu = page.locator("select[name=pairs]")
        if not menu.count():
            pytest.skip("the trials of this study carry no response")
        menu.select_option(index=1)
        visible = page.evaluate("document.getElementById('pairs').data.map((t) => t.visible)")
        assert [i for i, is_shown in enumerate(visible) if is_shown] == [2, 3]

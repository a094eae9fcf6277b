"""The page that compares studies says what their files say, refuses what does not compare, and runs nothing."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis import report
from analysis.figures.comparison import accuracy_vs_bytes
from analysis.page import comparison_page
from analysis.stats.pareto_front import pareto_front
from analysis.stats.several_studies import OBJECTIVES, merge_studies, size_ranges_won
from analysis.text import comparison
from study.records import columns, paths, study_folder
from study.records.study_folder import Study, load

HOSTILE = "</script ><!--</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
HOSTILE_NAME = "<script>window.hacked=1<img src=x onerror='window.hacked=1'>"
"""As a baseline's name, which has no / in it, or the tables would be refused."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_four(tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def studies(folders: list[Path]) -> list[Study]:
    return [load(folder) for folder in folders]


def words(page: str) -> str:
    """Text of a page outside scripts and styles, as one line."""
    plain = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.S)
    return " ".join(plain.replace("\u00a0", " ").split())


def change_meta(folder: Path, **changes: Any) -> Path:
    study_folder.write_meta(folder, {**study_folder.read_meta(folder), **changes})
    return folder


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error with status 2."""
    with pytest.raises(SystemExit) as stopped:
        report.main(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_the_merged_front_is_that_of_all_trials(studies: list[Study]) -> None:
    """By brute force over every complete searched trial of every study, and each has an id that no other study has."""
    m = merge_studies(studies)
    rows = []
    for study in studies:
        trials = study.trials[(study.trials["state"] == "complete") & (study.trials["baseline"] == "")]
        size = trials["file_bytes"] if "file_bytes" in trials else pd.Series(4 * 25_418, trials.index)
        rows += list(zip(study.meta["name"] + "/" + trials["trial_id"], trials["val_accuracy"], size, strict=True))
    expected = {name for name, a, s in rows if not any(b >= a and t <= s and (b > a or t < s) for _, b, t in rows)}
    assert set(m.front["trial_id"]) == expected and len(expected) == len(m.front)
    assert len({name for name, *_ in rows}) == len(rows)
    assert (np.diff(m.front["file_bytes"]) <= 0).all() and m.front["probability"].between(0, 1).all()


def test_dense_networks_have_four_bytes_for_each_parameter(studies: list[Study]) -> None:
    """A distilled student and the baselines that were not compressed: 4 × parameters of their own network; compressed
    ones, baselines too, have their file. The page says so."""
    kd, sws, _, both = merge_studies(studies).entries
    assert set(kd.trials["file_bytes"]) == {4 * 25_418.0}
    assert kd.baselines.set_index("baseline")["file_bytes"].to_dict() == {
        "teacher": 4 * 592_906,
        "student alone": 4 * 25_418,
        "label smoothing": 4 * 25_418,
    }
    assert sws.baselines.set_index("baseline")["file_bytes"].to_dict() == {
        "uncompressed": 4 * 266_610,
        "paper settings": 21_000,
    }
    assert both.baselines.set_index("baseline")["file_bytes"]["teacher"] == 4 * 592_906
    assert "4 bytes for each parameter (float32)" in words(comparison_page.build(studies))


@pytest.mark.parametrize("column", ["weight_bytes", "parameters"])
def test_a_searched_network_has_its_own_bytes(column: str, tmp_path: Path) -> None:
    """A distilled student's row says how large it is, where a study searches the student; others, and networks that
    were compressed, are as before."""
    kd, sws, *_ = (load(folder) for folder in synthetic.write_four(tmp_path))
    each = {"weight_bytes": 1, "parameters": 4}[column]
    ids = kd.trials["trial_id"]
    trials = kd.trials.assign(**{column: np.where(ids == "t000", np.nan, 4000.0 / each)})
    kd = dataclasses.replace(kd, trials=trials)
    sws = dataclasses.replace(sws, trials=sws.trials.assign(**{column: 1.0}))
    first, second = merge_studies([kd, sws]).entries
    expected = {i: 4 * 25_418.0 if i == "t000" else 4000.0 for i in first.trials["own_id"]}
    assert first.trials.set_index("own_id")["file_bytes"].to_dict() == expected
    assert "student minivgg of 25,418 parameters" in words(comparison_page.build([kd, sws]))
    student = {"type": "choice", "values": ["lenet5", "minivgg"]}
    kd = dataclasses.replace(kd, meta={**kd.meta, "space": {**kd.meta["space"], "student": student}})
    page = words(comparison_page.build([kd, sws]))
    assert "student lenet5 or minivgg" in page and "minivgg of 25,418 parameters" not in page
    files = second.summary.searched.set_index("trial_id")["file_bytes"]
    assert second.trials.set_index("own_id")["file_bytes"].to_dict() == files[second.trials["own_id"]].to_dict()


def test_who_holds_which_sizes_by_hand() -> None:
    """a from 10 bytes on, b from 100 on, a again from 1,000 on, up to 10,000 bytes: a third each; a tie is shared."""
    front = pd.DataFrame({"study": list("abbaa"), "file_bytes": [10.0, 100, 300, 1000, 2000]})
    rows = size_ranges_won(front.iloc[::-1], 10_000).to_dict("records")
    assert [(r["study"], r["low"], r["high"]) for r in rows] == [("a", 10, 100), ("b", 100, 1000), ("a", 1000, np.inf)]
    assert [r["share"] for r in rows] == pytest.approx([100 / 3] * 3)
    tied = size_ranges_won(pd.DataFrame({"study": ["a", "b"], "file_bytes": [10.0, 10.0]}), 10)
    assert tied[["study", "share"]].to_numpy().tolist() == [["a and b", 100.0]]
    assert size_ranges_won(front.head(0), np.nan).empty


def test_the_answer_names_studies_sizes_and_factors(studies: list[Study]) -> None:
    """The first sentence names each study that holds a range of sizes, with the range; the most accurate trial, the
    members of each study and the factors with their intervals follow."""
    m = merge_studies(studies)
    said, page = comparison.comparison_headline(m), words(comparison_page.build(studies))
    for row in m.ranges.to_dict("records"):
        assert row["study"] in said.sentence and f"{row['low']:,.0f}" in said.sentence
    assert said.sentence in page
    assert m.front["trial_id"].iloc[0] in said.details[0]
    counts = m.front["study"].value_counts()
    assert [value for value, _ in said.tiles] == [f"{counts.get(s.name, 0)} of {len(m.front)}" for s in m.entries]
    assert len(said.details) == len(m.entries) and all("when trials are resampled" in line for line in said.details[1:])
    for member in m.front["trial_id"]:
        assert member in page
    for e in m.epsilons.values():
        assert comparison._cell(e) in page


def test_many_alternations_are_told_as_shares(studies: list[Study]) -> None:
    """More ranges than a sentence can carry become shares of the range of sizes, which add up to all of it."""
    front = pd.DataFrame({"study": list("ababab"), "file_bytes": 10.0 ** np.arange(1, 7)})
    said = comparison._sentence(size_ranges_won(front, 1e7))
    assert [int(n) for n in re.findall(r"(\d+) %", said)] == [50, 50]
    tied = size_ranges_won(pd.DataFrame({"study": ["a", "b"], "file_bytes": [10.0, 10.0]}), 100.0)
    assert comparison._sentence(tied).startswith("a and b give the most") and said.startswith("a gives the most")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"name": "mnist"}, "data set digits and mnist"),
        ({"split_seed": 7}, "seed of the split 0 and 7"),
        ({"validation": 100}, "validation images 360 and 100"),
        ({"classes": ["a", "b"]}, "classes"),
    ],
)
def test_other_data_are_refused(
    tmp_path: Path, data: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another data set, split or set of classes: one line that names both folders and what differs, and no page."""
    a, b = synthetic.write_kd(tmp_path / "a", epochs=5), synthetic.write_sized(tmp_path / "b", "sws")
    change_meta(b, data={**study_folder.read_meta(b)["data"], **data})
    said = refusal([str(a), str(b)], capsys)
    assert str(a) in said and str(b) in said and named in said
    assert not (tmp_path / "comparison.html").exists()


def test_other_images_under_one_name_are_refused(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All folders of images are the data set "folder": their titles and their hashes tell them apart."""
    data = {**study_folder.read_meta(folders[0])["data"], "fingerprints": {"train": "1", "test": "2"}}
    one, two = (change_meta(shutil.copytree(folders[0], tmp_path / n), data=data) for n in ("one", "two"))
    change_meta(two, data={**data, "fingerprints": {"train": "1", "test": "3"}})
    assert "their images or labels are not the same" in refusal([str(one), str(two)], capsys)
    change_meta(two, data={**data, "title": "cats"})
    assert "and cats; give" in refusal([str(one), str(two)], capsys)


def test_bad_input_is_one_line(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No folder, one that is no study, one given twice, an unknown flag, and a page that cannot be written."""
    first, second = map(str, folders[:2])
    assert "results/NAME" in refusal([], capsys)
    assert "no study here" in refusal([first, str(tmp_path)], capsys)
    assert f"--out {tmp_path}: is a folder; give a file" in refusal([first, "--out", str(tmp_path)], capsys)
    assert "given twice" in refusal([first, second, f"{second}/../{folders[1].name}"], capsys)
    assert "--bogus" in refusal([first, "--bogus"], capsys)
    assert "study.json/x.html: cannot be used" in refusal(
        [first, second, "--out", f"{folders[0]}/study.json/x.html"], capsys
    )


def test_where_the_page_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the first folder, or where --out says, for one study too; the path is printed and nothing else is left."""
    a, b = synthetic.write_kd(tmp_path / "r" / "a", epochs=5), synthetic.write_sized(tmp_path / "r" / "b", "sws")
    report.main([str(a), str(b)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "r" / "comparison.html")
    for given in ([str(a), str(b)], [str(a)]):
        out = tmp_path / f"{len(given)}.html"
        report.main([*given, "--out", str(out)])
        assert capsys.readouterr().out.strip() == str(out)
        assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"a", "b", "comparison.html"}
    assert not (a / paths.REPORT).exists()


def test_differences_are_stated_as_limits(studies: list[Study], tmp_path: Path) -> None:
    """Training subset, lengths, networks and numbers of trials that differ are said; of equal studies they are not,
    and a front whose members were all retrained is not called one of single runs."""
    said = " ".join(comparison.comparison_caveats(merge_studies(studies)))
    for part in (
        "trained on different images: kd-digits: Only 20 labelled",
        "different lengths",
        "pretrain_epochs 40",
        "different networks",
        "different numbers of trials",
        "one is 0.28 points",
        "were trained once",
    ):
        assert part in said
    pair = [load(change_meta(synthetic.write_sized(tmp_path / n, "sws"), name=n)) for n in "ab"]
    said = " ".join(comparison.comparison_caveats(merge_studies(pair)))
    assert "different" not in said.replace("different seeds", "") and "were trained once" in said
    seeds = study_folder.read_meta(tmp_path / "b")
    change_meta(tmp_path / "b", seed=5, settings={**seeds["settings"], "min_accuracy": 95.0})
    said = " ".join(comparison.comparison_caveats(merge_studies([pair[0], load(tmp_path / "b")])))
    assert "different seeds: a: seed 0; b: seed 5" in said and "a: 0 %; b: 95 %" in said


def test_the_length_of_a_training_that_was_not_is_no_difference(tmp_path: Path) -> None:
    """A teacher's epochs are told of a study that has a teacher, and of no other."""
    made = []
    for name, teacher, epochs in (("a", "none", 20), ("b", "none", 30), ("c", "vgg13", 20)):
        settings = study_folder.read_meta(synthetic.write_sized(tmp_path / name, "sws"))["settings"]
        made.append(
            load(
                change_meta(
                    tmp_path / name, name=name, settings={**settings, "teacher": teacher, "teacher_epochs": epochs}
                )
            )
        )
    assert "different lengths" not in " ".join(comparison.comparison_caveats(merge_studies(made[:2])))
    (said,) = [line for line in comparison.comparison_caveats(merge_studies(made)) if "different lengths" in line]
    assert said.count("teacher_epochs") == 1 and said.endswith("teacher_epochs 20.")


def test_two_studies_of_one_name_keep_apart(tmp_path: Path) -> None:
    """Studies with the same name in other folders are told apart by their folders, in every id."""
    pair = [load(synthetic.write_sized(tmp_path / n / "sws-digits", "sws", seed=i)) for i, n in enumerate("ab")]
    m = merge_studies(pair)
    assert [side.name for side in m.entries] == [str(tmp_path / n / "sws-digits") for n in "ab"]
    assert not set(m.entries[0].trials["trial_id"]) & set(m.entries[1].trials["trial_id"])


def test_trials_without_a_size_are_left_out_and_said(tmp_path: Path) -> None:
    """A study from before files were measured gives no point and no error, and the page says how many it left out."""
    old = synthetic.write_sized(tmp_path / "old", "sws")
    frame = study_folder.read_frame(old / paths.TRIALS, columns.TRIAL_COLUMNS)
    study_folder.write_frame(old / paths.TRIALS, frame.drop(columns="file_bytes"))
    m = merge_studies([load(old), load(synthetic.write_sized(tmp_path / "new", "magnitude"))])
    assert m.entries[0].trials.empty and set(m.front["study"]) == {"magnitude-digits"}
    assert "have no size on record" in comparison.comparison_caveats(m)[0]
    assert "at every size" in comparison.comparison_headline(m).sentence


def test_studies_without_a_score_give_a_page(tmp_path: Path) -> None:
    """Two that have only begun, and one beside a finished one."""
    bare = [load(change_meta(synthetic.write_bare(tmp_path / n, "kd", "running"), name=n)) for n in "ab"]
    assert "nothing to compare" in words(comparison_page.build(bare))
    done = load(synthetic.write_kd(tmp_path / "done", epochs=5))
    said = words(comparison_page.build([bare[0], done]))
    assert "kd-digits gives the most accurate searched network on validation data at every size" in said


def test_the_figure_has_every_study_in_its_own_look(studies: list[Study]) -> None:
    """One colour and one symbol a study, the merged front as it is, and each mark's id in the table below."""
    m = merge_studies(studies)
    drawn = accuracy_vs_bytes(m)
    legend = [t for t in drawn.data if t.showlegend]
    assert [t.name for t in legend] == [side.name for side in m.entries]
    looks = [(t.marker.color, t.marker.symbol) for t in legend]
    assert len({c for c, _ in looks}) == len({s for _, s in looks}) == len(looks)
    assert list(drawn.data[0].x) == list(m.front["file_bytes"])
    known = {i for side in m.entries for rows in (side.trials, side.baselines) for i in rows["trial_id"]}
    marked = {i for t in drawn.data[1:] for i in t.customdata}
    assert marked == known and set(pareto_front(m.front, OBJECTIVES)["trial_id"]) <= marked


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two studies full of markup."""
    made = synthetic.write_four(tmp_path_factory.mktemp("hostile"), fresh=2)[:2]
    for folder in made:
        meta = study_folder.read_meta(folder)
        change_meta(
            folder,
            name=HOSTILE + meta["kind"],
            data={**meta["data"], "title": HOSTILE},
            command=HOSTILE,
            settings={**meta["settings"], "student_examples": 20, "x_epochs": HOSTILE},
        )
        trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
        trials.loc[trials["baseline"] != "", "baseline"] = HOSTILE_NAME
        study_folder.write_frame(folder / paths.TRIALS, trials)
    return made


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("which", ["folders", "hostile"])
def test_in_a_browser(browser: Any, which: str, width: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """From the disk: no complaint, no request, no sideways scrolling, no markup of a study alive; a member picked in
    the table of the front is marked in the figure and in the table of all trials; a click on its mark ends that."""
    page, complaints, asked = browser.new_page(viewport={"width": width, "height": 900}), [], []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: asked.append(r.url))
    path, _ = comparison_page.write(request.getfixturevalue(which), tmp_path / "page.html")
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    pick = page.locator("#front .pick").first
    chosen = pick.get_attribute("data-trial")
    pick.click()
    page.wait_for_function("() => document.getElementById('main').layout.shapes?.some(s => s.name === 'mark')")
    assert page.locator("#trial-table tr.marked").get_attribute("data-trial") == chosen
    page.locator("#marked").wait_for()
    assert "validation accuracy" in page.locator("#marked").inner_text()
    place = page.evaluate(
        """(id) => { const p = document.getElementById('main');
        const t = p.data.find((t) => t.customdata && t.customdata.includes(id)), i = t.customdata.indexOf(id);
        p.scrollIntoView({block: 'center', behavior: 'instant'}); const box = p.getBoundingClientRect();
        const l = p._fullLayout; return [box.x + l.xaxis._offset + l.xaxis.d2p(t.x[i]),
                                         box.y + l.yaxis._offset + l.yaxis.d2p(t.y[i])]; }""",
        chosen,
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.locator("#main .hoverlayer .hovertext").wait_for()
    page.mouse.click(*place)
    page.wait_for_function("() => !document.getElementById('main').layout.shapes?.some(s => s.name === 'mark')")
    page.close()
    assert complaints == []
    assert [url for url in asked if url != path.as_uri() and not url.startswith(("data:", "blob:"))] == []


def test_baselines_that_no_searched_network_matches_are_named(folders: list[Path], tmp_path: Path) -> None:
    """A quantised baseline that is smaller and better than all that was searched stands under the answer."""
    both = [shutil.copytree(folder, tmp_path / folder.name) for folder in folders[1:3]]
    before = " ".join(comparison.comparison_headline(merge_studies([load(folder) for folder in both])).details)
    assert "no searched network matches" not in before
    trials = load(both[0]).trials
    row = trials[trials["baseline"] == "paper settings"].assign(
        trial_id="b777", baseline="8-bit quantisation", val_accuracy=99.9, file_bytes=900.0
    )
    study_folder.write_frame(both[0] / paths.TRIALS, pd.concat([trials, row]))
    m = merge_studies([load(folder) for folder in both])
    after = comparison.comparison_headline(m)
    assert after.sentence.count("searched network") == 1
    assert (
        f"Baselines that no searched network matches: {m.entries[0].name}’s 8-bit quantisation, 99.90 % in 900 bytes."
        in after.details
    )

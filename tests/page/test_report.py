"""The report says what the study's files say, whatever state the study is in, and runs nothing it was not given."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis import report
from analysis.figures import fresh_seeds, learning_curves
from analysis.formatting import format_percent, format_points, format_sparsity
from analysis.page import gallery, study_page
from analysis.stats.standard_error import half_width
from analysis.stats.summary import summarise
from analysis.text import front_table
from analysis.text.caveats import caveats
from analysis.text.evidence import evidence_of
from analysis.text.headline import headline
from analysis.text.held_out_tables import fresh_table, search_table
from analysis.text.tables import trial_records
from study.errors import UserError
from study.records import columns, paths, study_folder
from study.records.study_folder import Study, load

ROOT = Path(__file__).parents[2]
HOSTILE = "</script ><!--</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
HOSTILE_NAME = "<script>window.hacked=1<img src=x onerror='window.hacked=1'>"
"""As a baseline's name, which has no / in it, or the tables would be refused."""


class Page(HTMLParser):
    """What a browser would make of a page: its elements and its text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words.append(data)


def page_of(study: Study) -> Page:
    return Page(study_page.build(study))


def change(folder: Path, column: str, values: dict[str, Any]) -> None:
    """Set one column of some trials."""
    path = folder / paths.TRIALS
    trials = study_folder.read_frame(path, columns.TRIAL_COLUMNS).astype({column: object})
    for trial_id, value in values.items():
        trials.loc[trials["trial_id"] == trial_id, column] = value
    study_folder.write_frame(path, trials)


def change_meta(folder: Path, **changes: Any) -> None:
    study_folder.write_meta(folder, {**study_folder.read_meta(folder), **changes})


@pytest.fixture
def kd(tmp_path: Path) -> Path:
    return synthetic.write_kd(tmp_path / "kd", epochs=5)


@pytest.fixture
def sws(tmp_path: Path) -> Path:
    return synthetic.write_sws(tmp_path / "sws", epochs=5)


def test_kd_answer_states_gain_over_the_student_alone(kd: Path) -> None:
    """The first sentence has the best accuracy, that of the student alone, their difference and the teacher's; without
    test data it says that it is about validation data."""
    (kd / paths.CONFIRMED).unlink()
    study = load(kd)
    best = study.trials[(study.trials["state"] == "complete") & (study.trials["baseline"] == "")]["val_accuracy"].max()
    sentence = headline(summarise(study)).sentence
    for part in (f"{best:.1f} %", "94.2 %", format_points(best - 94.1667), "98.9 %"):
        assert part in sentence
    assert "on validation data" in sentence and sentence in page_of(study).text


def test_sws_answer_states_accuracy_loss_and_sparsity(sws: Path) -> None:
    """The first sentence has accuracy, its change against the uncompressed network, and the weights at zero; without
    test data it says that it is about validation data."""
    (sws / paths.CONFIRMED).unlink()
    summary = summarise(load(sws))
    best = summary.best
    assert best is not None and best["val_accuracy"] >= 98.2 - summary.error
    assert headline(summary).sentence == (
        f"Keeps {best['val_accuracy']:.1f} % accuracy on validation data "
        f"({format_points(best['val_accuracy'] - 98.2)}) with {best['sparsity']:.1f} % of the "
        "weights at zero."
    )


@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_the_answer_is_about_test_data_where_they_were_read(tmp_path: Path, kind: str) -> None:
    """Of a network tested once the first sentence and the tiles have its test accuracy and the difference from the
    reference's, not the better ones of validation data; where the reference was not tested there is no difference."""
    study = load((synthetic.write_kd if kind == "kd" else synthetic.write_sws)(tmp_path, epochs=5))
    best, reference = summarise(study).best, "student alone" if kind == "kd" else "uncompressed"
    assert best is not None
    mine = study.confirmed["trial_id"] == best["trial_id"]
    confirmed = study.confirmed.assign(test_accuracy=study.confirmed["test_accuracy"].mask(mine, 93.75))
    other = confirmed.loc[confirmed["baseline"] == reference, "test_accuracy"].iloc[0]
    said = headline(summarise(dataclasses.replace(study, confirmed=confirmed)))
    assert "93.8 % test accuracy" in said.sentence and format_points(93.75 - other) in said.sentence
    assert "validation" not in said.sentence and ("93.8 %") in [number for number, _ in said.tiles]
    assert f"On validation data, which chose it, it has {best['val_accuracy']:.2f} %" in " ".join(said.details)
    alone = headline(summarise(dataclasses.replace(study, confirmed=confirmed[confirmed["baseline"] != reference])))
    assert "93.8 % test accuracy" in alone.sentence and "points" not in alone.sentence


def test_validation_and_test_of_one_network_are_compared(tmp_path: Path) -> None:
    """Where trials have several seeds, the tested network's own validation accuracy stands next to its test accuracy,
    in the answer and in the table of test results, and the mean is called one."""
    study = load(synthetic.write_kd(tmp_path, epochs=5))
    best = summarise(study).best
    assert best is not None
    own = study.trials["val_accuracy"] - 1.5
    study = dataclasses.replace(study, trials=study.trials.assign(first_val_accuracy=own))
    details = " ".join(headline(summarise(study)).details)
    mean, level = best["val_accuracy"], 94.1667
    assert f"The mean over its seeds on validation data, {mean:.2f} %, chose it" in details
    own_part = f"this network itself has {mean - 1.5:.2f} % against {level - 1.5:.2f} % (student alone)"
    assert f"{own_part}: {format_points(mean - level)}" in details and "which chose it, it has" not in details
    text = page_of(study).text
    assert "each with the first of its seeds" in text and "validation accuracy of the tested network" in text
    assert "each trained with its one seed" not in text


@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_the_answer_quotes_fresh_seeds_where_there_are_some(tmp_path: Path, kind: str) -> None:
    """Mean test accuracy over fresh seeds and its paired difference, each with its interval, in place of the search's
    own validation accuracy; what they are is said below, and no row of another trial or seed enters."""
    write = synthetic.write_kd if kind == "kd" else synthetic.write_sws
    study = load(write(tmp_path, fresh=5))
    s = summarise(study)
    assert s.best is not None
    rows = study.confirmed[study.confirmed["seed"] > 0].pivot(index="seed", columns="trial_id", values="test_accuracy")
    mine, alone = rows[s.best["trial_id"]], rows["b001" if kind == "kd" else "b000"]
    said = headline(s)
    half, wide = half_width(mine), half_width(mine - alone)
    assert f"{format_percent(mine.mean(), half)} test accuracy" in said.sentence and " ± " in format_percent(
        mine.mean(), half
    )
    assert format_points((mine - alone).mean(), wide) in said.sentence and "5 fresh seeds" in said.sentence
    assert "validation accuracy" not in said.sentence and "95 % Student-t interval" in said.details[0]
    assert said.sentence in page_of(study).text


def test_one_fresh_seed_has_no_interval(tmp_path: Path) -> None:
    """Of one fresh seed the first sentence has no interval: it is about the search's own network on test data, or that
    seed's where that was not tested; and the page says that it is only one."""
    one = load(synthetic.write_sws(tmp_path / "b", fresh=1))
    best = summarise(one).best
    assert best is not None
    tests = one.confirmed[one.confirmed["trial_id"] == best["trial_id"]].set_index("seed")["test_accuracy"]
    assert f"Keeps {tests[0]:.1f} % test accuracy" in headline(summarise(one)).sentence
    bare = dataclasses.replace(one, confirmed=one.confirmed[one.confirmed["seed"] == 1])
    said = headline(summarise(bare))
    assert f"Keeps {tests[1]:.1f} % test accuracy" in said.sentence and "one fresh seed" in " ".join(said.details)
    assert "Only 1 fresh seed confirms" in " ".join(caveats(summarise(one)))


def test_fresh_seeds_of_others_are_not_the_answers(tmp_path: Path) -> None:
    """Where the headline trial was not retrained, the sentence is about its own network, the best retrained member of
    the front is named in a detail, and the page warns of the one seed."""
    folder = synthetic.write_sws(tmp_path, fresh=4)
    best = summarise(load(folder)).best
    assert best is not None
    rows = load(folder).confirmed
    study_folder.write_frame(
        folder / paths.CONFIRMED, rows[(rows["trial_id"] != best["trial_id"]) | (rows["seed"] == 0)]
    )
    study = load(folder)
    said = headline(summarise(study))
    assert "test accuracy" in said.sentence and "fresh" not in said.sentence
    assert any("not trained with fresh seeds" in line and "test accuracy" in line for line in said.details)
    assert f"Trial {best['trial_id']} itself was trained with one seed" in " ".join(caveats(summarise(study)))


def test_only_seeds_that_the_reference_has_too_are_compared(tmp_path: Path) -> None:
    """Where the headline trial shares no fresh seed with the reference, its mean is quoted without the reference's and
    without a difference; with two seeds in common, with both."""
    study = load(synthetic.write_sws(tmp_path, fresh=4))
    best, rows = summarise(study).best, study.confirmed
    assert best is not None
    mine, reference = rows["trial_id"] == best["trial_id"], rows["baseline"] == "uncompressed"
    for theirs, compared in (((3, 4), False), ((1, 2, 3), True)):
        unlike = (mine & rows["seed"].isin([3, 4])) | (reference & (rows["seed"] > 0) & ~rows["seed"].isin(theirs))
        s = summarise(dataclasses.replace(study, confirmed=rows[~unlike]))
        quoted = evidence_of(s, best)
        assert (quoted.basis, quoted.seeds) == ("fresh seeds", 2)
        assert quoted.score.startswith(f"{rows.loc[mine & rows['seed'].isin([1, 2]), 'test_accuracy'].mean():.1f}")
        assert bool(quoted.reference) == bool(quoted.change) == compared
        level = rows.loc[reference & rows["seed"].isin(theirs), "test_accuracy"].mean()
        assert quoted.reference == (f"{level:.1f} %" if compared else "")
        assert "nan" not in headline(s).sentence


def test_the_change_of_accuracy_stands_in_one_column(sws: Path, kd: Path) -> None:
    """A compression study that measured the drop of each trial has a column of it, and none of the change against the
    reference; where no drop was measured, and where nothing is traded for accuracy, it is the other way round."""
    for folder, drop in ((sws, True), (kd, False)):
        s = summarise(load(folder))
        headings = front_table.best_table(s)[0].headings
        against = [h for h in headings if h.startswith("against ")]
        name = s.column("accuracy_drop").heading
        assert (name in headings, len(against)) == ((True, 0) if drop else (False, 1)), headings
    study = load(sws)
    bare = summarise(dataclasses.replace(study, trials=study.trials.drop(columns="accuracy_drop")))
    assert "against uncompressed (points)" in front_table.best_table(bare)[0].headings
    shown = front_table.best_table(summarise(study))[0]
    assert 1 + shown.headings.index(s.column("accuracy_drop").heading) not in shown.hidden


def test_one_seed_is_warned_of_until_there_are_three(tmp_path: Path) -> None:
    """Without fresh seeds the page warns of one seed, with one or two it says how many, with three it is silent."""
    for seeds, said in ((0, "one seed"), (1, "Only 1 fresh seed"), (2, "Only 2 fresh seeds"), (3, "")):
        text = " ".join(caveats(summarise(load(synthetic.write_kd(tmp_path / str(seeds), fresh=seeds)))))
        assert said in text and ("one seed" in text) == (seeds == 0) and ("fresh seed" in text) == (seeds in (1, 2))


@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_seeds_that_score_the_same_have_no_interval(tmp_path: Path, kind: str) -> None:
    """Where every fresh seed gives the same score the page says that there is no interval, calls no difference more
    than luck, and prints no ± 0.00."""
    study = load((synthetic.write_kd if kind == "kd" else synthetic.write_sws)(tmp_path, fresh=3))
    trial = study.confirmed.groupby("trial_id")["test_accuracy"]
    s = summarise(dataclasses.replace(study, confirmed=study.confirmed.assign(test_accuracy=trial.transform("first"))))
    said = headline(s)
    text = " ".join([said.sentence, *said.details, *caveats(s)])
    assert "no interval, since the difference is the same" in text and "score the same on the test images" in text
    assert "± 0.0" not in text and "luck of the seed explains" not in text and " nan" not in text
    assert not [cell for row in fresh_table(s).rows for cell in row.cells if "±" in cell or "accurate" in cell]
    drawn = fresh_seeds.paired_differences(s.study).data[-1]
    assert all(" points, 3 seeds" in line and "nan" not in line and "±" not in line for line in drawn.text)


def test_fresh_seeds_have_their_section(tmp_path: Path) -> None:
    """Each confirmed configuration has a row with its mean, interval and paired difference, the methods name the seeds,
    and the table of the search's own networks has each of them once; without fresh seeds the section is not there."""
    study = load(synthetic.write_sws(tmp_path / "a", fresh=5))
    page, s = page_of(study), summarise(study)
    assert "Confirmed with fresh seeds" in page.text and "fresh seeds 1, 2, 3, 4, 5: trained again" in page.text
    table = fresh_table(s)
    assert [row.trial_id for row in table.rows] == list(s.fresh["trial_id"]) and len(table.rows) == 7
    row, mean = table.rows[-1].cells, s.fresh.iloc[-1]
    assert f"{mean['test_accuracy']:.2f} ± {mean['test_half']:.2f}" in row and "less\u00a0accurate" in row
    assert f"−{-mean['difference']:.2f} ± {mean['difference_half']:.2f}" in row
    own = [row.trial_id for row in search_table(s).rows]
    assert len(own) == len(set(own)) == (study.confirmed["seed"] == 0).sum()
    assert "Confirmed with fresh seeds" not in page_of(load(synthetic.write_sws(tmp_path / "b"))).text


def test_complete_trials_without_a_score_are_said_to_have_none(kd: Path) -> None:
    """They are complete, so it is not said that none is, and a score that is not there is not quoted."""
    study = load(kd)
    bare = study.trials.assign(val_accuracy=study.trials["val_accuracy"].where(study.trials["baseline"] != ""))
    for settings in (study.meta["settings"], {**study.meta["settings"], "min_accuracy": 90}):
        s = summarise(dataclasses.replace(study, trials=bare, meta={**study.meta, "settings": settings}))
        said = headline(s)
        assert said.sentence == "No complete trial has validation accuracy on record, so this study has no answer."
        assert "nan" not in " ".join(said.details)


@pytest.mark.parametrize("kind", ["kd_sws", "magnitude"])
def test_a_ratio_says_what_it_is_against(tmp_path: Path, kind: str) -> None:
    """After distillation accuracy is against the teacher but the ratio against the student's own size: its tile and the
    heading of every table say so. Where there is one network only they need not."""
    study = load(synthetic.write_sized(tmp_path, kind, fresh=2))
    s, own = summarise(study), "its own uncompressed student"
    tiles = dict((what, number) for number, what in headline(s).tiles)
    headings = [t.headings for t in (front_table.best_table(s)[0], search_table(s), fresh_table(s))]
    headings.append([c["label"] for c in trial_records(s.trials, study.hyperparameters, s.headings)["columns"]])
    said = [heading for row in headings for heading in row if "compression ratio" in heading]
    assert len(said) == 4 and all((own in heading) == (kind == "kd_sws") for heading in said)
    assert (f"compression ratio against {own}" if kind == "kd_sws" else "smaller on disk") in tiles


def test_no_bound_is_claimed_that_files_beat(sws: Path) -> None:
    """A file that learns where zeros lie is smaller than the entropy of its symbols, so that is called no bound."""
    assert "ratio by the entropy of the symbols" in page_of(load(sws)).text
    assert not [column for column in columns.COLUMNS if "bound" in columns.label(column)]


def test_provisional_sparsity_is_explained_by_what_the_method_does(sws: Path) -> None:
    """A caption speaks of components only where there are some: magnitude pruning has none."""
    study = load(sws)
    for phase, components in (("cluster", True), ("prune", False)):
        history = study.history.assign(phase=phase)
        figures = learning_curves.learning_curve_figures(summarise(dataclasses.replace(study, history=history)))
        (caption,) = [figure.caption for figure in figures if figure.id == "sparsity-curves"]
        assert ("components" in caption) == components and ("gradually" in caption) != components


@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_one_is_singular(tmp_path: Path, kind: str) -> None:
    """Of a study with one complete trial and one that runs, no sentence speaks of one in the plural."""
    study = load((synthetic.write_kd if kind == "kd" else synthetic.write_sws)(tmp_path, 12, epochs=6, fresh=3))
    s = summarise(study)
    assert s.best is not None
    other = study.trials[(study.trials["baseline"] == "") & (study.trials["trial_id"] != s.best["trial_id"])].index[:1]
    kept = (study.trials["baseline"] != "") | (study.trials["trial_id"] == s.best["trial_id"])
    trials = study.trials[kept | study.trials.index.isin(other)].copy()
    trials.loc[other, "state"] = "running"
    one = dataclasses.replace(study, trials=trials)
    page = study_page.page_of(one)
    text = " ".join([page_of(one).text, *(f"{figure.caption} {figure.alt}" for figure in page.figures)])
    assert "1 was running" in text
    assert ("Best of 1 complete trial:" if kind == "kd" else "1 of 1 complete trial is on the front") in text
    assert not re.findall(r"\b1 (?:(?!of )\w+ ){0,2}(?:trials|seeds|are|were|have)\b", text)


@pytest.mark.parametrize(("column", "value"), [("tau", -1.0), ("tau", float("inf")), ("sparsity", "n/a%")])
def test_what_a_hand_mistyped_is_named(tmp_path: Path, column: str, value: object) -> None:
    """A value that was not searched, and text for a number, are refused with the trial: nothing is drawn from them."""
    folder = synthetic.write_sws(tmp_path, 12, epochs=6)
    trials = load(folder).trials.astype({column: object})
    done = trials.index[(trials["state"] == "complete") & (trials["baseline"] == "")][0]
    trials.loc[done, column] = value
    study_folder.write_frame(folder / paths.TRIALS, trials)
    with pytest.raises(UserError, match=rf"{column} .*{trials.loc[done, 'trial_id']}"):
        load(folder)


def test_a_constraint_is_kept_and_said(sws: Path, kd: Path) -> None:
    """With `min_accuracy` front, best trials and answer have none below it, and answer and methods say so."""
    for folder in (sws, kd):
        scores = summarise(load(folder)).searched["val_accuracy"].nlargest(3)
        settings = study_folder.read_meta(folder)["settings"]
        change_meta(folder, settings={**settings, "min_accuracy": float(scores.iloc[-1])})
        s = summarise(load(folder))
        assert s.front["val_accuracy"].min() >= scores.iloc[-1] and len(s.feasible) >= 3
        text = page_of(load(folder)).text
        assert f"at least {scores.iloc[-1]:g} % (min_accuracy)" in text and "were left out" in text
        change_meta(folder, settings={**settings, "min_accuracy": 99.9})
        s, text = summarise(load(folder)), page_of(load(folder)).text
        assert s.front.empty and s.best is None
        assert "No complete trial reaches the 99.9 % validation accuracy" in text


def test_a_change_that_rounds_to_nothing_has_no_direction() -> None:
    """+0.04 and −0.04 points print as 0.0, larger ones with their sign; a narrow interval gets a second digit."""
    assert [format_points(v) for v in (0.04, -0.04, 0.06, -1.26)] == [
        "0.0 points",
        "0.0 points",
        "+0.1 points",
        "−1.3 points",
    ]
    assert [
        format_points(-1.26, 0.4),
        format_points(0.01, 0.4),
        format_points(-0.42, 0.03),
        format_percent(97.561, 0.0312),
    ] == ["−1.3 ± 0.4 points", "0.0 ± 0.4 points", "−0.42 ± 0.03 points", "97.56 ± 0.03 %"]


def test_methods_name_everything_that_repeats_the_study(sws: Path) -> None:
    """Data, split, models, objectives, space, budget, seeds, versions, commit, command and device are on the page."""
    text = page_of(load(sws)).text
    for part in (
        "50,000 train, 10,000 validation, 10,000 test",
        "split with seed 0",
        "lenet_300_100",
        "266,610 parameters",
        "maximise sparsity",
        "0.001 to 1, log-uniform",
        "4 to 64, uniform, whole",
        "0.0001 to 0.2, log-uniform",
        "num_samples = 64",
        "searcher = tpe",
        "torch 2.14.1",
        "0123456789abcdef",
        "python -m study.run sws --num-samples 64",
        "AMD EPYC",
        "all linear layers: 266,610 values",
    ):
        assert part in text


def test_methods_tell_each_command_and_what_it_ran_with(sws: Path) -> None:
    """A study that another command went on with has both, and what differs between them, on its page."""
    meta = study_folder.read_meta(sws)
    run = {k: meta[k] for k in ("command", "versions", "git_commit", "device", "created")}
    other = {
        **run,
        "command": "python -m study.run sws --num-samples 99",
        "created": "2026-12-01T10:00:00+00:00",
        "versions": {**meta["versions"], "torch": "2.15.0"},
        "device": "GPU, 0.25 of it a trial",
    }
    study_folder.write_meta(sws, {**meta, "continued": [{**run, "created": "2026-11-30T10:00:00+00:00"}, other]})
    text = page_of(load(sws)).text
    assert f"continued 2026-11-30T10:00:00+00:00: {run['command']}" in text
    assert (
        "continued 2026-12-01T10:00:00+00:00: python -m study.run sws --num-samples 99 "
        "(torch 2.15.0, on GPU, 0.25 of it a trial)"
    ) in text


def test_what_compression_leaves_out_is_a_warning(sws: Path) -> None:
    """Its number, its share and some names; none where nothing is left out, or an older study does not say."""
    assert "leaves out" not in " ".join(caveats(summarise(load(sws))))
    meta = study_folder.read_meta(sws)
    names = ["1.weight", "1.bias", "4.weight", "4.bias"]
    meta["models"]["network"] |= {"left_out": {"share": 12.34, "parameters": 1234, "names": names}, "parameters": 10000}
    study_folder.write_meta(sws, meta)
    name = meta["models"]["network"]["name"]
    assert (f"Compression leaves out 1,234 of the 10,000 parameters of {name} (12 %: 1.weight, 1.bias, 4.weight and 1 "
            "more); sparsity and ratios do not count them.") in caveats(summarise(load(sws)))  # fmt: skip


def test_a_baseline_that_beats_the_answer_is_named(sws: Path, kd: Path) -> None:
    """One at least as good in every objective stands in the warnings, with its numbers; a better teacher does not."""
    said = " ".join(caveats(summarise(load(sws))))
    assert "at least as good" not in said
    best = summarise(load(sws)).best
    assert best is not None
    for column, value in (("val_accuracy", 98.25), ("sparsity", 99.9)):
        change(sws, column, {"b001": value})  # the second baseline of the synthetic studies
    said = " ".join(caveats(summarise(load(sws))))
    assert (
        "The baseline “paper mixture” is at least as good as the headline trial in every objective: validation "
        f"accuracy (%) 98.25 against {best['val_accuracy']:.2f}, sparsity (%) 99.90 against "
    ) in said
    assert "at least as good" not in " ".join(caveats(summarise(load(kd))))
    (smoothed,) = load(kd).trials.query("baseline == 'label smoothing'")["trial_id"]
    change(kd, "val_accuracy", {smoothed: 97.5})
    assert "“label smoothing” is at least as good" in " ".join(caveats(summarise(load(kd))))


def test_guessing_is_called_guessing(sws: Path) -> None:
    """A study in which every network collapsed has no answer and says why."""
    assert "guessing" not in page_of(load(sws)).text
    trials = load(sws).trials
    change(sws, "val_accuracy", dict.fromkeys(trials.loc[trials["baseline"] == "", "trial_id"], 10.0))
    s = summarise(load(sws))
    assert s.best is None and s.front.empty
    assert "No complete trial is told apart from guessing among 10 classes" in headline(s).sentence
    assert "the most accurate has 10.0 %" in page_of(load(sws)).text


def test_a_network_that_guesses_on_test_data_is_no_answer(sws: Path) -> None:
    """One that validation data choose, and of which test data say that it guesses, is named with both numbers."""
    study = load(sws)
    chosen = summarise(study).chosen
    assert chosen is not None
    mine = study.confirmed["trial_id"] == chosen["trial_id"]
    confirmed = study.confirmed.assign(test_accuracy=study.confirmed["test_accuracy"].mask(mine, 10.3))
    s = summarise(dataclasses.replace(study, confirmed=confirmed))
    assert s.best is None and s.chosen is not None and s.chosen["trial_id"] == chosen["trial_id"]
    said = headline(s).sentence
    assert (
        f"Trial {chosen['trial_id']} has {chosen['val_accuracy']:.1f} %" in said and "its 10.3 % on test data" in said
    )


def test_a_reference_without_a_score_is_none(sws: Path) -> None:
    """A table that lost the reference's accuracy gives a page that says there is none, and no "nan"."""
    change(sws, "val_accuracy", {"b000": np.nan})
    text = page_of(load(sws)).text
    assert "There is no complete baseline “uncompressed”" in text and "nan" not in text.split()


def test_a_network_of_zeros_is_not_claimed(sws: Path) -> None:
    """A sparsity that rounds to 100 % gets the digits that tell it from that."""
    assert [format_sparsity(v) for v in (97.25, 99.94, 99.97, 99.9996, 100.0)] == [
        "97.2",
        "99.9",
        "99.97",
        "99.9996",
        "100.0",
    ]
    best = summarise(load(sws)).best
    assert best is not None
    change(sws, "sparsity", {str(best["trial_id"]): 99.98})
    assert "99.98 % of the weights at zero" in page_of(load(sws)).text


def test_a_cropped_axis_of_curves_says_so(sws: Path) -> None:
    """A trial whose whole curve lies below the visible range is counted under the figure; of more trials than are
    drawn it says of how many."""
    study = load(sws)
    shown = study.history.groupby("trial_id")["val_accuracy"].max().drop(study.trials["trial_id"][:2])
    inside = shown[shown > shown.quantile(0.5)].index  # far above the axis' beginning
    history = study.history[study.history["trial_id"].isin([*inside, "t003"])]
    low = history.assign(val_accuracy=history["val_accuracy"].where(history["trial_id"] != "t003", 5.0))
    figure = learning_curves.learning_curve_figures(summarise(dataclasses.replace(study, history=low)))[0]
    assert "1 trial lies below the visible range" in figure.caption
    figure = learning_curves.learning_curve_figures(
        summarise(dataclasses.replace(study, history=low[low["trial_id"] != "t003"]))
    )[0]
    assert "below the visible range" not in figure.caption
    assert "60 of 64 trials thin" in learning_curves.learning_curve_figures(summarise(study))[0].caption


def test_no_band_is_claimed_that_is_not_drawn(sws: Path) -> None:
    """Without the reference baseline the front's figure has no band, its caption none, and the rule names whose
    accuracy it is measured by."""
    study = load(sws)
    without = summarise(dataclasses.replace(study, trials=study.trials[study.trials["baseline"] != "uncompressed"]))
    with_it, figure = gallery.main_figure(summarise(study)), gallery.main_figure(without)
    assert with_it is not None and "grey band" in with_it.caption and figure is not None
    assert "grey band" not in figure.caption and not figure.figure.layout.shapes
    assert "of the most accurate trial" in without.rule and "“uncompressed”" in summarise(study).rule


def test_selection_is_stated(kd: Path) -> None:
    """The page says that selection was on validation data, and whether and how often test data were evaluated."""
    assert "Test data were evaluated once per listed configuration" in page_of(load(kd)).text
    (kd / paths.CONFIRMED).unlink()
    assert "Test data have not been evaluated" in page_of(load(kd)).text


def test_tables_hold_baselines_front_and_test_results(sws: Path) -> None:
    """Every baseline, every member of the front and every confirmed configuration has its row."""
    study = load(sws)
    rows = {attrs["data-trial"] for tag, attrs in page_of(study).elements if tag == "tr" and "data-trial" in attrs}
    summary = summarise(study)
    for frame in (summary.front, summary.baselines, study.confirmed):
        assert rows >= set(frame["trial_id"])


def test_every_trial_travels_with_the_page(kd: Path) -> None:
    """The page's data hold all rows of trials.csv with full precision, failed ones with their reason."""
    study = load(kd)
    data = json.loads(next(s for s in page_of(study).scripts if s.startswith("{")))
    keys = [column["key"] for column in data["trials"]["columns"]]
    frame = pd.DataFrame(data["trials"]["rows"], columns=keys)
    assert list(frame["trial_id"]) == list(study.trials["trial_id"])
    assert list(frame["temperature"].dropna()) == list(study.trials["temperature"].dropna())
    assert (frame.loc[frame["state"] == "failed", "reason"] != "").all()


def test_one_file_of_reasonable_size_without_addresses(sws: Path) -> None:
    """Nothing on the page is loaded from elsewhere, plotly.js is there once, and 64 trials stay below 8 MB."""
    html = study_page.build(load(sws))
    page = Page(html)
    linked = [v for _, attrs in page.elements for k, v in attrs.items() if k in ("src", "href") and v]
    assert all(v.startswith(("#", "data:")) for v in linked)
    assert html.count("* plotly.js v") == 1 and len(html.encode()) < 8e6
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe-eval" not in policy


def test_figures_have_words(kd: Path) -> None:
    """Every figure has a caption and an alternative text, and headings descend without a gap."""
    page = page_of(load(kd))
    plots = [attrs for tag, attrs in page.elements if attrs.get("class") == "plot"]
    assert plots and all(len(attrs["aria-label"] or "") > 40 and attrs["role"] == "group" for attrs in plots)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("kind", ["kd", "sws"])
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("none", "No trial has ended yet"),
        ("failed", "All 3 trials failed"),
        ("running", "No trial is complete yet"),
        ("pruned", "None of the 3 trials is complete"),
    ],
)
def test_a_study_without_scores_says_so(tmp_path: Path, kind: str, state: str, said: str) -> None:
    """Empty, all-failed, all-pruned and just-begun studies give a page that says that, with the reasons it knows."""
    page = page_of(load(synthetic.write_bare(tmp_path, kind, state)))
    assert said in page.text
    assert ("3 × out of memory" in page.text) == (state == "failed")


def test_a_half_finished_study_says_how_far_it_is(kd: Path) -> None:
    """A study that was cut off reports what it has and how many trials it still owes."""
    change(kd, "state", {f"t{i:03d}": "running" for i in range(40, 64)})
    text = page_of(load(kd)).text
    assert "not finished: 40 of 64 trials" in text and "24 were running" in text


def test_missing_history_and_baselines_are_no_error(kd: Path) -> None:
    """Without history.csv and without any baseline the page is there, and says that no gain can be stated."""
    (kd / paths.HISTORY).unlink()
    trials = study_folder.read_frame(kd / paths.TRIALS, columns.TRIAL_COLUMNS)
    study_folder.write_frame(kd / paths.TRIALS, trials[trials["baseline"] == ""])
    confirmed = study_folder.read_frame(kd / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    study_folder.write_frame(kd / paths.CONFIRMED, confirmed[confirmed["baseline"] == ""])
    text = page_of(load(kd)).text
    assert "no complete baseline “student alone”" in text and "Learning curves" not in text


def test_warnings_appear_where_they_apply_and_only_there(tmp_path: Path) -> None:
    """One seed, few trials, untouched test data and a coarse validation part are said when, and only when, true."""
    full = " ".join(caveats(summarise(load(synthetic.write_kd(tmp_path / "a", fresh=3)))))
    assert "one image is 0.28 points" in full
    assert not any(part in full for part in ("one seed", "fewer than 20", "not touched", "not finished"))
    small = synthetic.write_kd(tmp_path / "b", trials=12, confirm=False)
    said = " ".join(caveats(summarise(load(small))))
    assert all(part in said for part in ("one seed", "fewer than 20", "not touched"))
    stopped = load(small)
    other = stopped.trials[stopped.trials["baseline"] == ""].assign(state="pruned")
    other["trial_id"] = "p" + other["trial_id"]
    more = dataclasses.replace(stopped, trials=pd.concat([stopped.trials, other], ignore_index=True))
    said = " ".join(caveats(summarise(more)))  # those that a scheduler stopped were tried, too
    tried = int((more.trials["state"].isin(["complete", "pruned"]) & (more.trials["baseline"] == "")).sum())
    assert tried > 20 and "fewer than 20" not in said and f"The best of {tried} trials" in said
    fine = " ".join(caveats(summarise(load(synthetic.write_sws(tmp_path / "c")))))
    assert "one image is" not in fine and "one seed" in fine


def test_injected_text_is_never_an_element(kd: Path) -> None:
    """Markup in a name, a title, a setting, a version, a baseline or a reason adds no element and ends no script."""
    clean = len([tag for tag, _ in page_of(load(kd)).elements if tag in ("script", "img")])
    change(kd, "reason", {"t003": HOSTILE})
    change(kd, "state", {"t003": "failed"})
    change(kd, "baseline", {"b002": HOSTILE_NAME})
    confirmed = study_folder.read_frame(kd / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    again = pd.concat([confirmed, confirmed.assign(seed=1), confirmed.assign(seed=2)]).replace(
        {"baseline": {"student alone": HOSTILE_NAME, "label smoothing": f"{HOSTILE_NAME} 2"}}
    )
    study_folder.write_frame(kd / paths.CONFIRMED, again)
    meta = study_folder.read_meta(kd)
    change_meta(
        kd,
        name=HOSTILE,
        command=HOSTILE,
        device=HOSTILE,
        settings={**meta["settings"], HOSTILE: HOSTILE},
        versions={"python": HOSTILE},
        data={**meta["data"], "title": HOSTILE, "note": HOSTILE},
        space={**meta["space"], HOSTILE: {"type": "choice", "values": [HOSTILE]}},
    )
    page = page_of(load(kd))
    assert len([tag for tag, _ in page.elements if tag in ("script", "img")]) == clean
    assert not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    assert HOSTILE in page.text
    data = next(s for s in page.scripts if s.startswith("{"))
    assert "<" not in data and HOSTILE_NAME in json.loads(data)["trials"]["rows"][2]


def test_command_writes_the_page_and_leaves_nothing_beside_it(sws: Path) -> None:
    """`python -m analysis.report FOLDER` prints the path of a whole report.html and leaves no temporary file."""
    done = run_report(str(sws))
    assert (done.returncode, done.stdout.strip()) == (0, str(sws / "report.html"))
    assert (sws / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert not [p for p in sws.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("case", ["absent", "damaged", "schema", "nothing", "two"])
def test_bad_input_is_one_line(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a study, a damaged one, a future schema and bad usage: one line on stderr, exit status 2."""
    if case in ("damaged", "schema"):
        (tmp_path / "study.json").write_text("{" if case == "damaged" else '{"schema": 99}')
    arguments = {"nothing": [], "two": ["a", "b"], "absent": [str(tmp_path / "x")]}.get(case, [str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        report.main(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1


def test_report_needs_neither_torch_nor_ray(sws: Path) -> None:
    """With torch, Ray and Optuna impossible to import, a study folder still gives its report and answers a question."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'ray', 'optuna'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from analysis import query, report\n"
        f"report.main([{str(sws)!r}])\n"
        f"assert query.main([{str(sws)!r}, 'max sparsity']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (sws / "report.html").is_file()


def run_report(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis.report", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

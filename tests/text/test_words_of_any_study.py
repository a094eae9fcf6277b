"""Sentences, tables and numbers of studies that nobody planned for: other kinds, other metrics, other search spaces."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis import query
from analysis.questions.question import answer_question, parse
from analysis.stats.importance import trade_offs
from analysis.stats.metrics import cost_metrics
from analysis.stats.pareto_front import finished
from analysis.stats.several_studies import merge_studies
from analysis.stats.summary import summarise
from analysis.stats.targets import targets
from analysis.text.caveats import caveats
from analysis.text.comparison import comparison_headline
from analysis.text.front_table import best_table
from analysis.text.headline import headline
from analysis.text.held_out_tables import fresh_table, search_table
from analysis.text.methods_section import methods, title
from analysis.text.tables import trial_records
from study.records import paths, study_folder
from study.records.schema import upgrade
from study.records.study_folder import Study, load

CHOICES = {
    "augment": {"type": "choice", "values": ["none", "flip"]},
    "merge": {"type": "choice", "values": [True, False]},
    "batch_size": {"type": "choice", "values": [32, 64, 128]},
    "momentum": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1, "log": False},
}


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws"), trials=40, epochs=6, fresh=3))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study read from its files that searched choices and steps as well; accuracy depends on one of the choices."""
    folder = synthetic.write_kd(tmp_path_factory.mktemp("kd"), trials=60, epochs=5)
    study, rng = load(folder), np.random.default_rng(0)
    trials = study.trials[study.trials["state"] != "pruned"].copy()
    searched, n = trials["baseline"] == "", len(trials)
    values = {
        "augment": rng.choice(["none", "flip"], n),
        "merge": rng.random(n) < 0.5,
        "batch_size": rng.choice([32, 64, 128], n),
        "momentum": rng.choice([0.5, 0.6, 0.7, 0.8, 0.9], n),
    }
    trials.loc[searched, "val_accuracy"] -= 8.0 * (values["augment"] == "none")[searched]
    trials = trials.assign(**{k: pd.Series(v, trials.index, dtype=object).where(searched) for k, v in values.items()})
    study_folder.write_frame(folder / paths.TRIALS, trials)
    left = study.history[study.history["trial_id"].isin(trials["trial_id"])]
    study_folder.write_frame(folder / paths.HISTORY, left)
    meta = {k: v for k, v in study.meta.items() if k != "columns"}
    study_folder.write_meta(folder, {**meta, "space": {**meta["space"], **CHOICES}})
    return load(folder)


def traded(study: Study, column: str, values: Any, **facts: Any) -> Study:
    """A study whose objectives are accuracy and this column, to be small, and that has no other metric of size."""
    columns = [c for c in study.trials.columns if c not in ("sparsity", "nonzero_ratio", "entropy_ratio")]
    objectives = {"val_accuracy": "max", column: "min"}
    meta = {k: v for k, v in study.meta.items() if k != "columns"}
    meta = upgrade({**meta, "objectives": objectives, **facts})
    return dataclasses.replace(study, trials=study.trials[columns].assign(**{column: values}), meta=meta)


def words_of(study: Study) -> str:
    """All that analysis says of a study, without its figures."""
    s = summarise(study)
    answer, (table, heading, lead) = headline(s), best_table(s)
    tables = [table, search_table(s), fresh_table(s)]
    cells = [text for t in tables for text in (*t.headings, *(cell for row in t.rows for cell in row.cells))]
    sections = [line for _, lines in methods(study) for line in lines]
    tiles = [text for tile in answer.tiles for text in tile]
    return " ".join([answer.sentence, *answer.details, *tiles, *caveats(s), heading, lead, *cells, *sections])


def test_a_time_is_traded_as_a_size_is(sws: Study) -> None:
    """The quickest trial within one standard error answers; the sentence ends with its latency, the front is sorted by
    it, covers an area from the reference on, and has a knee on its logarithmic scale."""
    latency = 0.2 + (100 - sws.trials["sparsity"]) / 50
    study = traded(sws, "latency_ms", latency)
    s = summarise(dataclasses.replace(study, confirmed=study.confirmed.iloc[:0]))
    near = s.front[s.front["val_accuracy"] >= 98.2 - s.error]
    assert s.cost == "latency_ms" and s.has_cost and s.best is not None
    assert s.best["trial_id"] == near.loc[near["latency_ms"].idxmin(), "trial_id"]
    sentence = headline(s).sentence
    assert re.fullmatch(
        r"Keeps \d+\.\d % accuracy on validation data \(.* points\) with a latency of 0\.\d+ ms\.", sentence
    ), sentence
    assert "student" not in sentence and s.rule.startswith("the lowest latency within one standard error")
    assert s.front["latency_ms"].is_monotonic_decreasing
    lead = best_table(s)[2]
    assert "the lowest latency last" in lead and "Its knee is" in lead and "the 2.2 ms of “uncompressed”" in lead
    assert [t.log for t in targets(s, s.searched) if t.key == "latency_ms"] == [True]
    assert "given latency ≤" in targets(s, s.searched)[-1].title


@pytest.mark.parametrize(
    ("column", "direction", "costs", "share", "corner"),
    [
        # chance is 10 %: (70 · 60 + 40 · 30) / (90 · 100)
        ("sparsity", "max", [0.0, 60.0, 90.0], 60.0, "sparsity 0 %"),
        # (70 · 120 + 40 · 60) / (90 · 200)
        ("file_bytes", "min", [200.0, 80.0, 20.0], 60.0, "the 200 bytes of “uncompressed”"),
        ("rounding_error", "min", [200.0, 80.0, 20.0], None, ""),
    ],
)
def test_the_area_that_a_front_covers(
    column: str, direction: str, costs: list[float], share: float | None, corner: str, sws: Study
) -> None:
    """By hand, of two trials with 80 % and 50 % accuracy: the share of the rectangle from chance and the network to
    which nothing was done up to perfection. Without a natural worst cost nothing is said."""
    plain = sws.trials[sws.trials["baseline"] == "uncompressed"].assign(val_accuracy=90.0)
    trials = finished(sws.trials).iloc[:2].assign(val_accuracy=[80.0, 50.0])
    frame = pd.concat([plain, trials]).drop(columns="sparsity").assign(**{column: costs})
    study = dataclasses.replace(traded(sws, column, 0.0), trials=frame, confirmed=sws.confirmed.iloc[:0])
    study = dataclasses.replace(study, meta={**study.meta, "objectives": {"val_accuracy": "max", column: direction}})
    lead = best_table(summarise(study))[2]
    assert ("of the area" in lead) is (share is not None)
    if share is not None:
        assert f"The front covers {share:.1f} % of the area" in lead and f"(chance accuracy 10 %, {corner})" in lead


def test_a_time_comes_before_sizes_in_a_sentence(sws: Study) -> None:
    """What the study trades is said first, then the zeros and the file, if the row has them."""
    trials = sws.trials.assign(latency_ms=0.25, file_bytes=8321.0)
    meta = {**sws.meta, "objectives": {"val_accuracy": "max", "latency_ms": "min"}}
    study = dataclasses.replace(sws, trials=trials, meta=meta, confirmed=sws.confirmed.iloc[:0])
    answer = headline(summarise(study))
    assert " with a latency of 0.25 ms and " in answer.sentence
    assert answer.sentence.endswith(" % of the weights at zero, in a file of 8,321 bytes.")
    assert ("0.25 ms", "latency") in answer.tiles


def test_a_metric_that_nobody_declared_is_an_objective(sws: Study) -> None:
    """It is called by its name without underscores, in the sentence, the tables and the methods, with its digits."""
    study = traded(sws, "rounding_error", 0.01 + (100 - sws.trials["sparsity"]) / 500)
    s = summarise(study)
    assert cost_metrics(study, s.trials) == ["rounding_error"]
    text = words_of(study)
    assert re.search(r"with a rounding error of 0\.0\d+", text) and "minimise rounding error" in text
    assert "rounding_error" not in headline(s).sentence and " nan" not in text
    assert {"rounding_error", "given", "hypervolume"} <= {t.key for t in targets(s, s.searched)}


def test_undeclared_metrics_are_in_the_tables_of_test_results(sws: Study) -> None:
    """A number that `confirmed.csv` has and no column declares is shown, with its mean over seeds; text is not."""
    confirmed = sws.confirmed.assign(energy_mj=2.5, remark="fine")
    s = summarise(dataclasses.replace(sws, confirmed=confirmed))
    assert "energy mj" in search_table(s).headings and "energy mj" in fresh_table(s).headings
    assert "remark" not in search_table(s).headings
    assert fresh_table(s).rows[-1].cells[-1] == "2.50"


def test_a_kind_that_analysis_does_not_know(sws: Study) -> None:
    """Its own name is the title, no baseline is missing, and it is compared with its most accurate trial."""
    meta = {k: v for k, v in sws.meta.items() if k in synthetic.meta_of("sws", 1)}
    study = dataclasses.replace(sws, meta=upgrade({**meta, "kind": "lottery", "schema": 2}))
    s = summarise(study)
    assert title(study).startswith("lottery · ") and s.reference is None and "of the most accurate trial" in s.rule
    assert headline(s).sentence.startswith("Over 3 fresh seeds, keeps ") or "Keeps " in headline(s).sentence
    assert "no complete baseline" not in " ".join(caveats(s))
    one = dataclasses.replace(study, meta={**study.meta, "objectives": {"val_accuracy": "max"}})
    alone = dataclasses.replace(one, confirmed=one.confirmed.iloc[:0])
    assert re.fullmatch(
        r"The best trial reaches \d+\.\d % accuracy on validation data\.", headline(summarise(alone)).sentence
    )
    assert "hypervolume" not in words_of(alone)


def test_accuracy_alone_is_said_in_the_words_of_the_study(sws: Study) -> None:
    """Subject and reference come from study.json: a compressing study of accuracy alone speaks of its networks."""
    meta = {**sws.meta, "objectives": {"val_accuracy": "max"}}
    s = summarise(dataclasses.replace(sws, meta=meta, confirmed=sws.confirmed.iloc[:0]))
    sentence = headline(s).sentence
    assert sentence.startswith("The compressed network reaches ") and "; the uncompressed network 98.2 %: " in sentence
    assert "student" not in words_of(s.study)


def test_a_study_without_accuracy_among_its_objectives(sws: Study) -> None:
    """Its best trial by what it asked for answers, and nothing is said of a standard error or of probabilities."""
    meta = {**sws.meta, "objectives": {"sparsity": "max"}}
    s = summarise(dataclasses.replace(sws, meta=meta))
    assert s.best is not None and s.best["sparsity"] == s.searched["sparsity"].max()
    assert s.rule == "the highest sparsity" and "probability" not in " ".join(best_table(s)[0].headings)


def test_choices_and_steps_are_in_every_sentence_and_table(chosen: Study) -> None:
    """A configuration names words, truths and whole numbers as they were searched; the search space lists them."""
    s = summarise(chosen)
    assert s.best is not None
    details = " ".join(headline(s).details)
    assert re.search(r"augment flip, merge (True|False), batch size (32|64|128), momentum 0\.\d0", details), details
    space = dict(methods(chosen))["Search space"]
    assert "augment: one of none, flip" in space and "merge: one of True, False" in space
    assert "batch_size: one of 32, 64, 128" in space and "momentum: 0.5 to 0.9, uniform, in steps of 0.1" in space
    table, _, _ = best_table(s)
    row = dict(zip(table.headings, table.rows[-1].cells, strict=True))
    assert row["augment"] == "flip" and row["batch size"] in ("32", "64", "128")
    facts = {c["key"]: c for c in trial_records(s.trials, chosen.hyperparameters, s.headings, s.column)["columns"]}
    assert not facts["augment"]["number"] and facts["batch_size"]["number"] and facts["batch_size"]["digits"] == 0
    assert "edge of the searched range of augment" not in " ".join(caveats(s))


def test_searched_networks_and_conditions_are_in_the_methods(tmp_path: Path) -> None:
    """With the networks that trials had, in the title too, the default as that of baselines, and when each
    hyperparameter was searched; what is fixed is called so."""
    study = load(synthetic.write_kd(tmp_path, trials=8, epochs=2))
    assert " · vgg13 → minivgg · " in title(study)
    width = {"type": "float", "low": 0.1, "high": 0.5, "log": True, "when": {"student": ["minivgg", "vgg8"]}}
    space = {"student": {"type": "choice", "values": ["lenet5", "minivgg", "vgg8"]}, "student_width": width}
    lines = methods_with(study, space)
    default = "minivgg (width = 0.125), 25,418 parameters"
    students = "student: lenet5 or minivgg or vgg8, see the search space"
    assert lines["Models"][1] == f"{students}; baselines that do not name theirs have {default}"
    assert lines["Search space"][-1].endswith("0.1 to 0.5, log-uniform, where student is minivgg or vgg8")
    assert " · vgg13 → lenet5 or minivgg or vgg8 · " in lines["title"][0]
    many = methods_with(study, {"student": {"type": "choice", "values": ["lenet5", "vgg8", "vgg11", "vgg13"]}})
    assert " · vgg13 → one of 4 networks · " in many["title"][0]
    fixed = methods_with(study, {"student": {"type": "choice", "values": ["lenet5"]}})
    assert fixed["Models"][1] == "student: lenet5, see the search space" and " → lenet5 · " in fixed["title"][0]
    assert fixed["Search space"][-1] == "student: fixed at lenet5"
    wide = methods_with(study, {"student_width": {"type": "float", "low": 0.1, "high": 0.5}})
    assert (
        wide["Models"][1] == f"student: minivgg, see the search space; baselines that do not name theirs have {default}"
    )


def methods_with(study: Study, searched: dict[str, Any]) -> dict[str, list[str]]:
    """The methods of a study that searches this as well, and its title, by heading."""
    meta = {k: v for k, v in study.meta.items() if k != "columns"}
    study = dataclasses.replace(study, meta=upgrade({**meta, "space": {**meta["space"], **searched}}))
    return {**dict(methods(study)), "title": [title(study)]}


def test_importance_takes_choices_and_steps(chosen: Study) -> None:
    """The choice that accuracy depends on has most of its variance; effects have one row a choice, with its value."""
    t = trade_offs(chosen)
    assert set(t.names) == set(chosen.hyperparameters), t.notes
    shares = t.importances()
    shares = shares[shares["measure"] == "functional ANOVA"].set_index("hyperparameter")["share"]
    assert shares.idxmax() == "augment" and shares["augment"] > 0.5
    effect = t.effect("val_accuracy", "augment")
    assert effect["value"].tolist() == ["none", "flip"] and np.diff(effect["mean"])[0] == pytest.approx(8, abs=2)
    assert t.effect("val_accuracy", "batch_size")["value"].tolist() == [32.0, 64.0, 128.0]
    assert len(t.effect("val_accuracy", "momentum")) == 41
    plane, gain = t.interaction("val_accuracy"), t.gain()
    assert plane is not None and plane["surface"].shape == (len(plane["y"]), len(plane["x"]))
    assert gain is not None and gain["gain"].shape == (len(gain["y"]), len(gain["x"])) and "augment" in gain["names"]


@pytest.mark.parametrize(
    ("question", "column", "values"),
    [
        ("all where augment == 'flip' and batch_size > 32", "augment", {"flip"}),
        ("all where merge == True", "merge", {"True"}),
        ("merge in [False]", "merge", {"False"}),
        ("all where batch size == 64 and momentum <= 0.7", "batch_size", {64.0}),
    ],
)
def test_questions_about_choices(chosen: Study, question: str, column: str, values: set[Any]) -> None:
    """Words are asked in quotes, truths as True and False, numbers as numbers."""
    table = query.table_of(chosen)
    answers = answer_question(parse(question, table), table[table["baseline"] == ""])
    assert len(answers) and set(answers[column]) == values


def test_dense_sizes_follow_from_the_study(tmp_path: Path) -> None:
    """Which networks are dense is what study.json says, whatever the kind and its baselines are called."""
    study = load(synthetic.write_kd(tmp_path / "a", trials=20, epochs=5))
    meta = {**study.meta, "kind": "hints", "name": "hints", "dense": {"": "student", "teacher": "teacher"}}
    other = load(synthetic.write_sized(tmp_path / "b", "magnitude", trials=20))
    m = merge_studies([dataclasses.replace(study, meta=meta), other])
    assert set(m.entries[0].trials["file_bytes"]) == {4.0 * 25_418}
    assert set(m.entries[0].baselines["baseline"]) == {"teacher"} and comparison_headline(m).sentence


def test_no_warning_about_a_hyperparameter_that_was_not_searched(tmp_path: Path) -> None:
    """A magnitude study whose networks are all zero is not warned about the prior weight of another method."""
    study = load(synthetic.write_sized(tmp_path, "magnitude", trials=20))
    zero = study.trials["baseline"] == ""
    trials = study.trials.assign(
        sparsity=study.trials["sparsity"].where(~zero, 100.0),
        val_accuracy=study.trials["val_accuracy"].where(~zero, 10.0),
    )
    text = words_of(dataclasses.replace(study, trials=trials))
    assert "No complete trial is told apart from guessing among 10 classes" in text
    assert not re.search(r"\btau\b|τ", text)


def test_the_source_names_no_kind_no_baseline_and_no_hyperparameter() -> None:
    """Sentences, statistics and questions take kinds, baselines and hyperparameters from the study."""
    root = Path(__file__).parents[2] / "analysis"
    files = [*root.glob("*.py"), *(root / "text").glob("*.py"), *(root / "stats").glob("*.py")]
    names = (
        "kd|sws|magnitude|kd_sws|uncompressed|student alone|label smoothing|temperature|alpha|tau|components|sparsity"
    )
    pattern = re.compile(rf"""["'](?:{names})["']""")
    lines = {f"{f.name}: {line.strip()}" for f in files for line in f.read_text().splitlines() if pattern.search(line)}
    own = {line for line in lines if line.startswith(("published.py", "weight_trace.py"))}  # frames of their own
    assert not {line for line in lines - own if "only for figures" not in line.lower() and "REFERENCE" not in line}

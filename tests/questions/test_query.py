"""Questions to a study: what is understood, what is refused, and that answers are pandas' own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis import query
from analysis.questions import conditions
from analysis.questions.question import NoMatch, answer_question, parse
from study.errors import UserError
from study.records import paths, study_folder
from study.records.study_folder import Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_sws(tmp_path_factory.mktemp("query") / "sws")


def table() -> pd.DataFrame:
    """Six trials; t3 equals t2 but for its accuracy, t5 has no scores."""
    nan = np.nan
    return pd.DataFrame(
        {
            "trial_id": [f"t{i}" for i in range(6)],
            "state": ["complete"] * 5 + ["failed"],
            "baseline": "",
            "val_accuracy": [98.2, 98.1, 98.0, 98.05, 90.0, nan],
            "accuracy_drop": [0.0, 0.1, 98.2 - 98.0, 0.15, 8.2, nan],
            "compression_ratio": [1.0, 40.0, 80.0, 80.0, 300.0, nan],
        }
    )


def asked(question: str, rows: pd.DataFrame, top: int = 1) -> list[str]:
    return list(answer_question(parse(question, rows), rows, top)["trial_id"])


@pytest.mark.parametrize(
    ("question", "chosen"),
    [
        ("max compression_ratio where accuracy_drop <= 0.2", ["t3", "t2"]),  # 98.2 − 98.0 counts as 0.2
        ("max compression with accuracy drop <= 0.2 %", ["t3", "t2"]),
        ("MAX compression WHERE accuracy drop<=.12", ["t1"]),
        ("min accuracy_drop where compression_ratio > 1", ["t1"]),
        ("max val_accuracy where state in ['failed', 'complete'] and not compression_ratio < 50", ["t3"]),
        ("max accuracy_drop", ["t4"]),
        ("all where 0.1 <= accuracy_drop < 1", ["t1", "t2", "t3"]),
        ("100 - val_accuracy == 1.9 or trial_id == 't4'", ["t1", "t4"]),
        ("trial_id not in ('t0', 't1') and accuracy_drop != 8.2", ["t2", "t3"]),
        ("compression_ratio / 2 >= -3 + 43", ["t2", "t3", "t4"]),
        ("trial_id == 'accuracy'  or trial_id == 't0'", ["t0"]),
        ("all", ["t0", "t1", "t2", "t3", "t4", "t5"]),
    ],
)
def test_answers_worked_out_by_hand(question: str, chosen: list[str]) -> None:
    """Ties are all given, the most accurate first, and the sentences of `study.export --best` mean the same here."""
    assert asked(question, table()) == chosen


def test_top_gives_the_best_and_what_equals_the_last_of_them() -> None:
    """The second best of two equal ones brings its equal with it."""
    assert asked("max compression_ratio", table(), top=2) == ["t4", "t3", "t2"]
    assert asked("min compression_ratio", table(), top=2) == ["t0", "t1"]


def test_a_missing_value_meets_neither_a_condition_nor_its_opposite() -> None:
    """A trial without a score is not one whose score is bad; a part that needs no score can still decide."""
    rows = table()
    assert "t5" not in asked("val_accuracy > 98", rows) + asked("not val_accuracy > 98", rows)
    assert "t5" not in asked("val_accuracy != 98", rows) + asked("val_accuracy not in [98]", rows)
    assert asked("not val_accuracy > 98 and state == 'failed' or trial_id == 't5'", rows) == ["t5"]


@pytest.mark.parametrize("seed", range(30))
def test_conditions_are_those_of_pandas_query(seed: int) -> None:
    """On random tables and random nested conditions the rows are those of pandas' own `query`."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({name: rng.integers(0, 6, 80).astype(float) for name in "abc"}).assign(
        word=rng.choice(["red", "green", "blue"], 80), trial_id=[f"t{i}" for i in range(80)]
    )

    def number(depth: int) -> str:
        if depth == 0 or rng.random() < 0.4:
            return str(rng.choice(["a", "b", "c", "2", "0.5", "-3"]))
        return f"({number(depth - 1)} {rng.choice(list('+-*'))} {number(depth - 1)})"

    def condition(depth: int) -> str:
        if depth == 0:
            return str(
                rng.choice(
                    [
                        f"{number(2)} {rng.choice(['<', '<=', '>', '>=', '==', '!='])} {number(2)}",
                        f"1 <= {number(1)} < b",
                        "word in ['red', 'blue']",
                        "word != 'red'",
                        "a not in [1, 2]",
                    ]
                )
            )
        return f"({condition(depth - 1)}) {rng.choice(['and', 'or', 'and not', 'or not'])} ({condition(depth - 1)})"

    for _ in range(8):
        text = f"a == a and ({condition(int(rng.integers(0, 3)))})"  # pandas cannot take a condition without a column
        expected = list(rows.query(text, engine="python")["trial_id"])
        assert list(rows[conditions.meets(conditions.parse(text), rows)]["trial_id"]) == expected, text


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("__import__('os').system('true') == 0", "\"__import__('os').system('true')\" is not allowed"),
        ("max val_accuracy where open('x') == 1", "open('x')"),
        ("val_accuracy.mean() > 3", "'val_accuracy.mean()' is not allowed"),
        ("val_accuracy.__class__ == 1", "'val_accuracy.__class__' is not allowed"),
        ("trial_id[0] == 't'", "'trial_id[0]' is not allowed"),
        ("val_accuracy > @limit", "from '@limit' on"),
        ("val_accuracy @ 3 > 1", "'val_accuracy @ 3' is not allowed"),
        ("__builtins__ == 1", "'__builtins__' is no column"),
        ("[x for x in val_accuracy] == 1", "is not allowed"),
        ("(lambda: 1)() == 1", "is not allowed"),
        ("(val_accuracy := 3) > 1", "is not allowed"),
        ("f'{val_accuracy}' == 'x'", "is not allowed"),
        ("val_accuracy ** 9 > 1", "'val_accuracy ** 9' is not allowed"),
        ("val_accuracy > 98 & accuracy_drop < 1", "'98 & accuracy_drop' is not allowed"),
        ("2j > 1", "'2j' is not allowed"),
        ("max val_acuracy", "'val_acuracy' is no column, did you mean val_accuracy? columns: trial_id, state"),
        ("state == complete", "'complete' is no column"),
        ("max state", "state holds words"),
        ("val_accuracy", "'val_accuracy' is a number where a comparison must stand"),
        ("state > 'a'", "cannot be compared"),
        ("val_accuracy == 'high'", "cannot be compared"),
        ("val_accuracy in 3", "takes a list"),
        ("val_accuracy = 98", "from '= 98' on"),
        ("max val_accuracy where", 'ask "max|min COLUMN'),
        ("smallest one", "from "),
        ("", "not a question"),
        ("val_accuracy > 1" + " and val_accuracy > 1" * 200, "not a question"),
        ("val_accuracy > " + "9" * 500, "too large a number"),
        ("val_accuracy > " + "(" * 400, "not understood"),
        ("val_accuracy > 1\0", "not understood"),
    ],
)
def test_all_else_is_refused_by_its_part(question: str, says: str) -> None:
    """Calls, attributes, subscripts and whatever else Python has are refused in one line that names the part."""
    with pytest.raises(UserError) as refused:
        parse(question, table())
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert not isinstance(refused.value, NoMatch)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("max compression_ratio where accuracy_drop < 0", "the nearest has accuracy_drop 0 (t0)"),
        (
            "accuracy_drop <= 0.1 and compression_ratio >= 60",
            "the nearest has accuracy_drop 0.15 (t3), or compression_ratio 40 (t1)",
        ),
        ("60 <= compression_ratio and accuracy_drop <= 0.1 and trial_id == 't1'", "compression_ratio 40 (t1)"),
        (
            "accuracy_drop < 0 and compression_ratio > 400",
            "each alone, the nearest have accuracy_drop 0 (t0), compression_ratio 300 (t4)",
        ),
        ("trial_id == 'nobody'", "none of 6 trials matches"),
        ("max compression_ratio where state == 'failed'", "but none has a value of compression_ratio"),
    ],
)
def test_without_a_match_the_nearest_is_named(question: str, says: str) -> None:
    """Where nothing matches, the answer is how far each bound would have to give way, with the trial that shows it."""
    with pytest.raises(NoMatch, match=r"\A[^\n]*\Z") as none:
        asked(question, table())
    assert says in str(none.value)


def test_the_table_gets_the_drop_and_the_test_accuracy(folder: Path) -> None:
    """A study that wrote no accuracy_drop gets it from its uncompressed baseline, and the tested networks of the search
    have their test accuracy."""
    study = study_folder.load(folder)
    without = Study(
        study.folder, study.meta, study.trials.drop(columns="accuracy_drop"), study.history, study.confirmed
    )
    made, wrote = query.table_of(without).set_index("trial_id"), query.table_of(study).set_index("trial_id")
    scored = wrote["accuracy_drop"].notna()
    assert made.loc[scored, "accuracy_drop"].tolist() == pytest.approx(wrote.loc[scored, "accuracy_drop"].tolist())
    tested = study.confirmed.set_index("trial_id")["test_accuracy"]
    assert wrote["test_accuracy"].dropna().to_dict() == pytest.approx(tested.to_dict())


def test_the_command_answers_in_labels_and_units(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best trial is printed with its configuration, and nothing of it is a bare column name."""
    assert query.main([str(folder), "max sparsity where accuracy_drop <= 0.2"]) == 0
    output = capsys.readouterr().out
    trials = study_folder.load(folder).trials
    best = trials[(trials["accuracy_drop"] <= 0.2 + 1e-9) & (trials["baseline"] == "")].nlargest(1, "sparsity").iloc[0]
    assert best["trial_id"] in output and f"{best['sparsity']:.2f}" in output and f"{best['tau']:.4f}" in output
    assert "prior weight τ" in output and "sparsity (%)" in output and "accuracy_drop" not in output


def test_the_command_writes_every_column_in_full(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV and JSON hold the same trials with all digits; - is standard output and nothing but the data."""
    question = "all where sparsity > 90"
    files = ["--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    assert query.main([str(folder), question, *files]) == 0
    assert "sparsity" in capsys.readouterr().out
    csv, listed = study_folder.read_frame(tmp_path / "a.csv", ()), json.loads((tmp_path / "a.json").read_text())
    trials = study_folder.load(folder).trials
    expected = trials[(trials["sparsity"] > 90) & (trials["baseline"] == "")]
    for got in (csv, pd.DataFrame(listed)):
        assert got["trial_id"].tolist() == expected["trial_id"].tolist() and len(got)
        assert got["tau"].tolist() == expected["tau"].tolist()
    assert query.main([str(folder), question, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == listed


@pytest.mark.parametrize(
    ("question", "note"),
    [
        ("max components", "Equal to the last of these: 4 more. --top 6 shows them."),
        ("all", "The first 2 of 6 matches, in no order; max COLUMN or min COLUMN orders them."),
    ],
)
def test_top_is_never_more(tmp_path: Path, question: str, note: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--top 2` gives two trials, also where others equal them or have no order, and says what it left out."""
    folder = synthetic.write_bare(tmp_path / "s", "sws", "complete", trials=6)
    trials = study_folder.read_frame(folder / paths.TRIALS, ())
    trials.loc[trials["baseline"] == "", "components"] = 8
    study_folder.write_frame(folder / paths.TRIALS, trials)
    searched = (trials["baseline"] == "").sum()
    assert query.main([str(folder), question, "--top", "2", "--csv", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 + 2
    assert printed.err == note.replace("6", str(searched)).replace(": 4", f": {searched - 2}") + "\n"
    assert query.main([str(folder), question, "--top", "9", "--csv", "-"]) == 0
    assert capsys.readouterr().err == ""


def test_names_from_strangers_are_printed_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes in a table, in a message, in CSV and in JSON are written out; a formula is a word."""
    folder = synthetic.write_bare(tmp_path / "s", "sws", "complete")
    trials = study_folder.read_frame(folder / paths.TRIALS, ())
    trials.loc[0, "reason"] = "=cmd()\x1b]0;title\x07"
    study_folder.write_frame(folder / paths.TRIALS, trials)
    every = ["all", "--baselines", "--states", "complete,pruned,failed,running"]
    for flags in ([], ["--csv", "-"], ["--json", "-"]):
        assert query.main([str(folder), *every, *flags]) == 0
        printed = capsys.readouterr().out
        assert "\x1b" not in printed and "\x07" not in printed, flags
        assert flags != ["--csv", "-"] or r"'=cmd()\x1b]0;title" in printed
    assert query.main([str(folder), "max \x1b[31mre"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_states_and_baselines_are_asked_where_a_flag_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default complete trials of the search alone; with the flags failed ones and baselines too."""
    counts = []
    for flags in ([], ["--baselines"], ["--states", "failed,complete"]):
        assert query.main([str(folder), "all", "--csv", "-", *flags]) == 0
        counts.append(capsys.readouterr().out.count("\n") - 1)
    trials = study_folder.load(folder).trials
    failed, baselines = int((trials["state"] == "failed").sum()), int((trials["baseline"] != "").sum())
    assert failed and baselines
    assert counts == [len(trials) - failed - baselines, len(trials) - failed, len(trials) - baselines]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{folder}", "max sparsity where accuracy_drop < -5"], 1, "the nearest has accuracy_drop"),
        (["{folder}", "all where baseline == 'paper mixture'"], 1, "; with --baselines 1 would"),
        (["{folder}", "all where state == 'failed'"], 1, "; with --states complete,failed "),
        (["{folder}", "all where tau = 1"], 2, "not understood from '= 1' on; equal is =="),
        (["{folder}", "max spars"], 2, "'spars' is no column"),
        (["{folder}/nothing", "all"], 2, "no study here"),
        (["{folder}", "all", "--top", "0"], 2, "--top 0"),
        (["{folder}", "all", "--states", "done"], 2, "'done' is not a state; give any of"),
        (["{folder}", "all", "--csv", "/proc/none/a.csv"], 2, "--csv /proc/none/a.csv: cannot be written"),
        (["{folder}", "all", "--json", "{folder}"], 2, "--json {folder}: is a folder; give a file"),
        (["{folder}", "all", "--csv", "-", "--json", "/dev/stdout"], 2, "are one file; give two"),
        (["{folder}"], 2, "QUESTION"),
    ],
)
def test_status_and_one_line(
    folder: Path, arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 without a match, 2 after bad input, one line either way."""
    assert query.main([a.format(folder=folder) for a in arguments]) == status
    output = capsys.readouterr()
    assert says.format(folder=folder) in output.err and output.err.count("\n") == 1 and output.out == ""


@pytest.mark.parametrize("state", ["none", "running"])
def test_a_study_without_scores_has_no_match(tmp_path: Path, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A study that has just started answers that nothing matches."""
    folder = synthetic.write_bare(tmp_path / "s", "kd", state)
    assert query.main([str(folder), "all where temperature > 0"]) == 1
    assert "none of 0 trials matches" in capsys.readouterr().err


def test_a_question_by_test_accuracy_is_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever chooses by test data is warned that the number flatters."""
    assert query.main([str(folder), "max test_accuracy"]) == 0
    assert "flatters" in capsys.readouterr().err

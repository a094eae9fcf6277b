"""Questions to a study's table of trials, asked in one line.

    python -m analysis.query results/NAME "max compression_ratio where accuracy_drop <= 0.2"
    python -m analysis.query results/NAME "all where 2 < temperature <= 4 and alpha > 0.5" --csv -

A question is `max COLUMN`, `min COLUMN` or `all`, then, if wanted, `where CONDITION`; a condition alone is one too.
See `analysis.questions.conditions` for what may stand in a condition.

Complete trials of the search are asked, unless flags say otherwise. A trial without a value that a condition needs
meets neither it nor its opposite. Exit status: 0 with an answer, 1 without a match, 2 after a bad question.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.formatting import counted, format_cell
from analysis.questions import conditions
from analysis.questions.question import NoMatch, Question, answer_question, parse, short
from analysis.stats import held_out_results
from analysis.stats.guessing import may_answer
from analysis.stats.names import ACCURACY, ACCURACY_DROP, TEST_ACCURACY
from analysis.stats.summary import column_of, numeric, row_of
from analysis.text.tables import columns_with_values
from study import commandline
from study.errors import UserError, printable
from study.path_arguments import File, StudyFolder
from study.records import study_folder
from study.records.columns import COLUMNS, COST_COLUMNS, FINAL_STATES, TRIAL_COLUMNS
from study.records.outputs import csv_text, is_stdout, json_text, write_output
from study.records.study_folder import Study

PROG = "python -m analysis.query"
UPRIGHT = 4
"""Trials up to which the printed table has a line for each column; more have a line each."""


@dataclass(frozen=True)
class Options:
    """Arguments of the command."""

    study: Annotated[tyro.conf.Positional[StudyFolder], tyro.conf.arg(metavar="results/NAME")]
    """Folder of the study."""
    question: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="QUESTION")]
    """Such as "max compression_ratio where accuracy_drop <= 0.2"."""
    top: int | None = None
    """How many trials at most, the best first. Default: all that match; of max and min, the best and what equals it."""
    states: str = "complete"
    """States of the trials that are asked, with commas: complete,pruned,failed,running."""
    baselines: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask the baselines as well."""
    csv: File | None = None
    """File to write the answer to as CSV, every column in full; - is standard output, instead of the table. A word that
    a spreadsheet would take for a formula has a ' in front."""
    json: File | None = None
    """The same as JSON, a list of trials."""


def table_of(study: Study) -> pd.DataFrame:
    """All trials, numbers as floats, choices among words as text, without columns that are empty.

    Where trials start from the reference, `accuracy_drop` (points below it) is there even if the study did not write
    it. `test_accuracy` (%) is that of the networks that the search left, where any was tested.
    """
    needed = list(dict.fromkeys([*TRIAL_COLUMNS, *study.hyperparameters, *study.objectives, ACCURACY]))
    trials = numeric(study.trials, needed, study.meta["space"])
    start = str(study.meta["shared_baseline"])
    level = row_of(trials[trials[ACCURACY].notna()], "baseline", start) if start == study.meta["reference"] else None
    if level is not None and not columns_with_values(trials, [ACCURACY_DROP]):
        trials[ACCURACY_DROP] = level[ACCURACY] - trials[ACCURACY]
    tested = held_out_results.search_test_rows(study).set_index("trial_id")[TEST_ACCURACY]
    trials[TEST_ACCURACY] = trials["trial_id"].map(tested).astype(float)
    return trials[columns_with_values(trials, list(trials.columns)) or needed]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return commandline.status(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    options: Options = commandline.parse(Options, PROG, __doc__, argv)
    if options.top is not None and options.top < 1:
        raise UserError(f"--top {options.top}: give 1 or more")
    to = {"--csv": options.csv, "--json": options.json}
    if options.csv is not None and (options.csv == options.json or all(map(is_stdout, to.values()))):
        raise UserError(f"--csv {options.csv} --json {options.json}: are one file; give two")
    states, known = [state.strip() for state in options.states.split(",")], (*FINAL_STATES, "running")
    for state in states:
        if state not in known:
            raise UserError(f"--states {options.states}: {state!r} is not a state; give any of {','.join(known)}")
    study = study_folder.load(options.study)
    table = table_of(study)
    question = parse(options.question, table)
    rows = table[table["state"].isin(states)]
    if not options.baselines:
        rows = rows[rows["baseline"] == ""]
    asked = rows[may_answer(rows, study.meta)] if _asks_for_the_best(question, study) else rows
    try:
        answers = answer_question(question, asked, options.top or 1)
    except NoMatch as none:
        print(printable(f"{short(options.question)}: {none}{_elsewhere(question, table, rows)}"), file=sys.stderr)
        _say_guesses(len(rows) - len(asked))
        return 1
    shown = answers.head(options.top or len(answers))
    for flag, path in to.items():
        if path is not None:
            write_output(flag, path, csv_text(shown) if flag == "--csv" else _json(shown))
    if not any(map(is_stdout, to.values())):
        _print(question, study, shown)
    if rest := len(answers) - len(shown):
        print(_left_out(question, len(shown), rest), file=sys.stderr)
    _say_guesses(len(rows) - len(asked))
    if TEST_ACCURACY in question.names:
        print("Chosen by test data, so its test accuracy flatters.", file=sys.stderr)
    return 0


def _left_out(question: Question, shown: int, rest: int) -> str:
    """What `--top` cut off."""
    if question.goal == "all":
        return f"The first {shown} of {shown + rest} matches, in no order; max COLUMN or min COLUMN orders them."
    return f"Equal to the last of these: {rest} more. --top {shown + rest} shows them."


def _asks_for_the_best(question: Question, study: Study) -> bool:
    """Whether a question asks for the best value of a metric, rather than for its worst, or for a hyperparameter's."""
    return question.goal in ("min", "max") and question.goal == (
        study.objectives.get(question.column) or study.column(question.column).direction
    )


def _say_guesses(number: int) -> None:
    if number:
        print(f"Left out: {counted(number, 'trial')} not told apart from guessing.", file=sys.stderr)


def _elsewhere(question: Question, table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What of the rows that were not asked would have matched, and the flag that asks them; "" if nothing."""
    others = table.drop(rows.index)
    others = others[conditions.meets(question.condition, others)]
    baselines = int((others["baseline"] != "").sum())
    states = sorted(set(others.loc[others["baseline"] == "", "state"]))
    hints = [f"with --baselines {baselines} would"] if baselines else []
    if states:
        hints.append(
            f"with --states complete,{','.join(s for s in states if s != 'complete')} {len(others) - baselines} would"
        )
    return f"; {', and '.join(hints)}" if hints else ""


def _json(rows: pd.DataFrame) -> str:
    return json_text(rows.astype(object).where(rows.notna(), None).to_dict("records"))


def _print(question: Question, study: Study, rows: pd.DataFrame) -> None:
    """The answer as a table: what was asked for, the configuration, and of a few trials all else."""
    first = ["trial_id", "baseline", *question.names, *study.hyperparameters, *study.objectives]
    others = [c for c in (*COLUMNS, *rows.columns) if c not in ("state", "reason", *COST_COLUMNS)]
    shown = list(dict.fromkeys([*first, *(others if len(rows) <= UPRIGHT else [])]))
    shown = [c for c in columns_with_values(rows, shown) if (rows[c] != "").any()]
    facts = {c: column_of(study, c) for c in shown}
    lines = [[facts[c].heading, *(format_cell(facts[c], value) for value in rows[c])] for c in shown]
    upright = len(rows) <= UPRIGHT
    lines = lines if upright else [list(line) for line in zip(*lines, strict=True)]
    table = Table()
    for i, cell in enumerate(lines[0]):
        table.add_column(Text(printable(cell)), justify="right" if i else "left")
    for line in lines[1:]:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Questions to a table of trials: understanding one, and answering it.

A question is `max COLUMN`, `min COLUMN` or `all`, then, if wanted, `where CONDITION`; a condition alone is one too.
See `analysis.questions.conditions` for what may stand in a condition.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import pandas as pd

from analysis.questions import conditions
from analysis.questions.conditions import ROUNDING
from study.errors import UserError

GRAMMAR = '"max|min COLUMN [where CONDITION]", "all [where CONDITION]" or a condition alone'
ACCURACY = "val_accuracy"
"""The accuracy that a question means where it does not say which, and by which equal answers are ordered."""
RATIO = "_ratio"
"""A ratio may be called by the rest of its name: max compression."""
LONGEST = 1000
"""Characters of a question."""


class NoMatch(UserError):
    """A good question that no trial answers; the message says what comes nearest."""


@dataclass(frozen=True)
class Question:
    """A question as it was understood.

    Attributes:
        goal: `max`, `min` or `all`.
        column: what is to be largest or smallest; "" for `all`.
        condition: None without one.
    """

    goal: str
    column: str = ""
    condition: ast.expr | None = None

    @property
    def names(self) -> list[str]:
        """The columns in it."""
        nodes = ast.walk(self.condition) if self.condition else ()
        return list(dict.fromkeys([*filter(None, [self.column]), *(n.id for n in nodes if isinstance(n, ast.Name))]))


def parse(asked: str, rows: pd.DataFrame) -> Question:
    """Understand a question about a table like `rows`.

    Raises:
        UserError: it is no question, or none about this table; the message names the part and what would be right.
    """
    written = _written_out(asked, list(rows.columns))
    match = re.fullmatch(r"\s*(?:(max|min)\s+(\S+)|(all))(?:\s+(?:where|with)\s+(.+?))?\s*", written, re.I | re.S)
    goal, column, where = (
        ((match[1] or match[3]).lower(), match[2] or "", match[4] or "") if match else ("all", "", written.strip())
    )
    if len(asked) > LONGEST or (not match and re.match(r"(max|min|all|where|with)\b|$", where, re.I)):
        raise UserError(f"{short(asked)}: not a question; ask {GRAMMAR}")
    try:
        if column and conditions.kind(conditions.column(column, rows)) != "number":
            raise UserError(f"{column} holds words, which have no {goal}")
        question = Question(goal, column, conditions.parse(where) if where else None)
        conditions.meets(question.condition, rows.iloc[:0])  # finds what may not be in it
    except UserError as error:
        raise UserError(f"{short(asked)}: {error}") from None
    return question


def answer_question(question: Question, rows: pd.DataFrame, top: int = 1) -> pd.DataFrame:
    """The rows that answer, the best first.

    Args:
        rows: one row a trial, of the table that `parse` was given.
        top: how many of the best of `max` or `min`; as many more as are equal to the last of them. Equal ones stand
            in the order of their validation accuracy. `all` has every match, in the order of the table.
    Raises:
        NoMatch: no row answers.
    """
    matches = rows[conditions.meets(question.condition, rows)]
    if not len(matches):
        nearest = conditions.nearest(question.condition, rows)
        raise NoMatch(f"none of {len(rows)} trials matches" + (f"; {nearest}" if nearest else ""))
    if question.goal == "all":
        return matches
    score = (-1 if question.goal == "max" else 1) * matches[question.column].dropna()
    if score.empty:
        raise NoMatch(f"{len(matches)} of {len(rows)} trials match, but none has a value of {question.column}")
    score = score[score <= score.nsmallest(top).iloc[-1] + ROUNDING].round(9)
    accuracy = matches[ACCURACY] if ACCURACY in matches else 0.0
    order = pd.DataFrame({"score": score, "lost": 0.0 - accuracy}, index=score.index)
    return matches.loc[order.sort_values(["score", "lost"], kind="stable").index]


def short(asked: str) -> str:
    """A question on one line of a message."""
    line = " ".join(asked.split())
    return repr(line if len(line) <= 90 else f"{line[:89]}…")


def _written_out(asked: str, columns: list[str]) -> str:
    """The question with short names written out, and without the % that may follow a number; quoted words stay."""
    names = _short_names(columns)
    parts = re.split(r"""('[^']*'|"[^"]*")""", asked)
    for i in range(0, len(parts), 2):
        for name, column in names.items():
            parts[i] = re.sub(rf"\b{re.escape(name).replace('_', ' +')}\b", column, parts[i])
        parts[i] = re.sub(r"(?<=[\d.]) *%(?= *(?:$|\)|and\b|or\b))", "", parts[i])
    return "".join(parts)


def _short_names(columns: list[str]) -> dict[str, str]:
    """How a question may also call a column, as a sentence of `study.export --best` does: with spaces for underscores,
    a ratio without that word, and the validation accuracy without "validation"."""
    spaced = {name: name for name in columns if "_" in name}
    ratios = {name.removesuffix(RATIO): name for name in columns if name.endswith(RATIO)}
    accuracy = {ACCURACY.split("_")[-1]: ACCURACY} if ACCURACY in columns else {}
    return spaced | {short: name for short, name in (ratios | accuracy).items() if short not in columns}

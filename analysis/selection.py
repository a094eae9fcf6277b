"""Which trials of a finished study to export: one by its id, the front, or the best by a question."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.questions.question import answer_question, parse
from analysis.stats.guessing import chance, told_from_guessing
from analysis.stats.names import ACCURACY
from analysis.stats.pareto_front import feasible, finished, pareto_front
from analysis.stats.summary import summarise
from study.errors import UserError
from study.records import paths
from study.records.study_folder import Study


def trials_with_weights(folder: Path) -> list[str]:
    """Ids of the trials and baselines whose weights the study has."""
    return sorted({path.stem for path in (folder / paths.MODELS).glob("*.safetensors")})


def require_trial(trial_id: str, study: Study) -> str:
    """The id, if it is one of `trials_with_weights`.

    Raises:
        UserError: an unknown trial, or one whose weights the study does not have.
    """
    with_weights = trials_with_weights(study.folder)
    known = trial_id in set(study.trials["trial_id"])
    if trial_id not in with_weights or not known:
        what = "its weights were not kept" if known else "no such trial"
        rows = [i for i in with_weights if i in set(study.trials["trial_id"])]
        raise UserError(f"--trial {trial_id}: {what} in {study.folder}; there are {', '.join(rows) or 'none yet'}")
    return trial_id


def front(study: Study) -> pd.DataFrame:
    """Rows of `trials.csv` on the front whose weights the study has; it saves them when it ends.

    Raises:
        UserError: there is none.
    """
    complete = finished(study.trials)
    allowed = feasible(complete, study.meta)
    if allowed.empty and len(complete):
        if not told_from_guessing(complete[ACCURACY], study.meta).any():
            raise UserError(
                f"{study.folder}: no trial is told apart from guessing, so there is no front to export; name one with "
                "--trial"
            )
        raise UserError(f"{study.folder}: no trial reaches its --min-accuracy; start a study that asks for less")
    members = pareto_front(allowed, study.objectives)
    members = members[members["trial_id"].isin(trials_with_weights(study.folder))]
    if not len(members):
        raise UserError(f"{study.folder}: no weights of its front are kept; its command does that when it ends")
    return members


def to_confirm(study: Study, count: int) -> list[str]:
    """Trials to retrain with fresh seeds: the one that the report answers with, and members of the front spread over
    it to both ends, as far as they are nearer to the best accuracy than to guessing; of a single objective, its best
    trials. None of them guesses, see `feasible`."""
    trials = feasible(finished(study.trials), study.meta)
    first, direction = next(iter(study.objectives.items()))
    if len(study.objectives) > 1:
        trials = pareto_front(trials, study.objectives)
        trials = trials[trials[ACCURACY] >= (trials[ACCURACY].max() + chance(study.meta)) / 2]
    ranked = trials.sort_values(first, ascending=direction == "min", kind="stable")["trial_id"].tolist()
    if len(study.objectives) == 1 or len(ranked) <= count:
        return ranked[:count]
    answer = summarise(study).chosen  # not by test data, which must not decide what is trained
    headline = ranked[0] if answer is None else answer["trial_id"]
    # It may be one of the others: then the next in line fill up.
    chosen = [headline, *_spread(ranked, count - 1), *_spread(ranked, count), *ranked]
    return list(dict.fromkeys(chosen))[:count]


def _spread(ranked: list[str], count: int) -> list[str]:
    """So many of them, as far apart as can be; if only one, the last."""
    if count < 2:
        return ranked[-1:] * count
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def best(sentence: str, members: pd.DataFrame) -> str:
    """Id of the row that a question chooses, in the language of `analysis.query`; among equal ones the most accurate.

    Raises:
        UserError: no such question, one of a column that the study lacks, or no row within the limit.
    """
    try:
        question = parse(sentence, members)
        if question.goal == "all":
            raise UserError(f'{sentence!r} does not say of what the most; ask "max COLUMN where CONDITION"')
        return str(answer_question(question, members)["trial_id"].iloc[0])
    except UserError as error:
        raise UserError(f"--best {error}") from None

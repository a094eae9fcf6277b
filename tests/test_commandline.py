"""Usage errors: one line that names the flag, what is wrong and what would be right, and status 2."""

from __future__ import annotations

from types import ModuleType

import pytest

from analysis import query
from study import export, reproduce, run


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (run, "kd --epochs zero", "--epochs zero: give a whole number"),
        (run, "kd --seed 1.5", "--seed 1.5: give a whole number"),
        (run, "sws --memory-per-trial lots", "--memory-per-trial lots: give a number"),
        (run, "sws --searcher tpee", "--searcher tpee: give gp, nsga2, random or tpe"),
        (run, "kd --augment fli", "--augment fli: give crop, flip, none or shift"),
        (run, "kd --num-samples", "--num-samples: its value is missing"),
        (run, "kd --no-dashboardd", "--no-dashboardd: not understood; did you mean --dashboard?"),
        (run, "kd extra words", "extra words: not understood"),
        (run, "magnitude --pack 3", "--pack 3: not a flag of magnitude, but of sws, as in python"),
        (run, "", "nothing given: name the study first: kd, kd_sws, magnitude or sws"),
        (run, "swss --seed 3", "swss: name the study first: kd, kd_sws, magnitude or sws; did you mean python"),
        (run, "--seed 3 kd", "--seed: name the study first: kd, kd_sws, magnitude or sws; did you mean python"),
        (run, "--seed 3", "--seed: name the study first: kd, kd_sws, magnitude or sws, as in python"),
        (run, "kd --tau 3", "--tau 3: not a flag; kd does not have it, and kd_sws or sws searches it"),
        (run, "kd --temperature 3", "--temperature 3: not a flag, because kd searches it"),
        (run, "kd --out x", "--out x: not understood (see"),
        (export, "", "missing: results/NAME: Folder of the study"),
        (reproduce, "", "missing: results/NAME: Folder of the study; TRIAL: A complete trial, such as t014, or"),
        (query, "folder question --top x", "--top x: give a whole number"),
    ],
)
def test_a_usage_error_is_one_line_in_our_words(
    command: ModuleType, arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What tyro says of the types behind a flag, or of subcommands, is not what a user can act on."""
    assert command.main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {line}") and printed.err.count("\n") == 1 and not printed.out
    assert printed.err.rstrip().endswith("--help)")


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (run, "kd --student-width 1e9", "--student-width 1000000000.0: must be 16 or less"),
        (run, "kd --learning-rate inf", "--learning-rate inf: must be a finite number"),
        (reproduce, "folder t001 --tolerance -1", "--tolerance -1: must be 0 or more"),
    ],
)
def test_a_value_out_of_range_is_one_line(
    command: ModuleType, arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the flag, what was given and what may be."""
    assert command.main(arguments.split()) == 2
    assert capsys.readouterr().err == f"error: {line}\n"

"""The search space on the command line: `--range`, `--choice`, `--fix`, `--when`, `--objective`, `--space`."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest

from study import run
from study.errors import UserError
from study.methods import registry
from study.pipeline import preflight
from study.records.ledger import Ledger
from study.records.search_domains import Choice, Condition, Range, domain_from_json, is_active
from study.settings import resolve
from study.tuning import measuring
from study.tuning.searcher import LedgerSearch, make_sampler, optuna_study, recorded_trial
from study.tuning.space import SearchSpace
from study.tuning.space_text import described


def space_of(command: str) -> SearchSpace:
    settings = resolve(run.parse(command.split()))
    space = SearchSpace.of_study(settings)
    space.check(registry.method(settings.kind), settings)
    measuring.check_objectives(settings, space)
    return space


@pytest.mark.parametrize(
    ("flags", "name", "domain"),
    [
        ("--range temperature=2:8", "temperature", Range(2.0, 8.0)),
        ("--range temperature=2:8:log", "temperature", Range(2.0, 8.0, log=True)),
        ("--range temperature=1:8:int", "temperature", Range(1.0, 8.0, integer=True)),
        ("--range alpha=0:1:step=0.25", "alpha", Range(0.0, 1.0, step=0.25)),
        ("--range epochs=5:40", "epochs", Range(5.0, 40.0, integer=True)),  # whole numbers without a word
        ("--range epochs=5:40:log", "epochs", Range(5.0, 40.0, log=True, integer=True)),
        ("--range epochs=5:40:step=5", "epochs", Range(5.0, 40.0, step=5.0, integer=True)),
        ("--range learning-rate=1e-4:1e-2:log", "learning_rate", Range(1e-4, 1e-2, log=True)),
        ("--choice batch_size=32,64,128", "batch_size", Choice((32, 64, 128))),
        ("--choice augment=none,flip", "augment", Choice(("none", "flip"))),
        ("--choice student=lenet5,minivgg", "student", Choice(("lenet5", "minivgg"))),
        ("--fix alpha=0.9", "alpha", Choice((0.9,))),
        ("--fix student=lenet5", "student", Choice(("lenet5",))),
    ],
)
def test_a_flag_says_what_is_searched(flags: str, name: str, domain: Range | Choice) -> None:
    """It replaces what the kind has of that hyperparameter, or is added; the rest stays; and `study.json` has it."""
    space, before = space_of(f"kd {flags}"), space_of("kd")
    assert space.domains == {**before.domains, name: domain}
    assert domain_from_json(space.as_json()["space"][name]) == domain
    assert space.origins == {name: flags}


@pytest.mark.parametrize("kind", registry.names())
def test_every_hyperparameter_of_every_kind_can_be_fixed(kind: str) -> None:
    """At the middle of where it is searched; and it is then searched nowhere else."""
    for name, domain in space_of(kind).domains.items():
        fixed = space_of(f"{kind} --fix {name}={domain.middle()}").domains[name]
        assert fixed == Choice((domain.middle(),)) and str(fixed) == f"fixed at {domain.middle()}"


def test_what_is_fixed_holds_for_baselines_that_do_not_say_it() -> None:
    """A baseline without the teacher keeps its own alpha."""
    baselines = space_of("kd --fix alpha=0.9 --fix epochs=3").baselines
    assert baselines["student alone"] == {"alpha": 0.0, "epochs": 3}
    soft = space_of("sws --variant soft --fix pi_zero=0.99 --fix anneal=0.5")
    assert "one_minus_pi_zero" not in soft.domains
    assert soft.baselines["paper mixture"]["one_minus_pi_zero"] == 1e-3
    assert "pi_zero" not in soft.baselines["paper mixture"] and soft.baselines["paper mixture"]["anneal"] == 0.5


def test_objectives_are_added_turned_and_left_out() -> None:
    """One to four; the others stay as the kind has them."""
    assert space_of("kd --objective weight_bytes:min").objectives == {"val_accuracy": "max", "weight_bytes": "min"}
    assert space_of("sws --objective file_bytes:none").objectives == {"val_accuracy": "max"}
    measured = "sws --objective latency_ms:min --objective sparsity:max --measure latency"
    assert list(space_of(measured).objectives) == ["val_accuracy", "file_bytes", "latency_ms", "sparsity"]


WRONG = {
    "kd --range temprature=1:2": "temprature: no such hyperparameter; did you mean temperature?",
    "kd --range temperature=8:2": "is empty; give a range with its smaller end first",
    "kd --range temperature=2:2": "is one number; give a range of two or more, or --fix for one: 2",
    "kd --range temperature=0:2:log": "has a logarithmic scale from 0; give one from a number above 0",
    "kd --range temperature=1:2:log:step=0.1": "has steps on a logarithmic scale; leave one of them out",
    "kd --range temperature=1:2:step=-1": "has the step -1; give one above 0",
    "kd --range temperature=2:8:step=100": "is one number; give a range of two or more",
    "kd --range temperature=1:2:lin": "has lin behind a colon; give log, int or step=NUMBER there",
    "kd --range temperature=1": "has one end; give it as in ",
    "kd --range temperature=1:x": "x is no number",
    "kd --range temperature=1:inf": "inf is no finite number",
    "kd --range temperature": "is not understood; give it as in --range temperature=2:8",
    "kd --range =1:2": "is not understood; give it as in --range temperature=2:8",
    "kd --range epochs=1.5:4": "give whole numbers",
    "kd --range alpha=0:2": "alpha of 2: no trial takes it (alpha 2.0 must be between 0 and 1)",
    "kd --range num_samples=1:9": "num_samples: no such hyperparameter; ",
    "kd --choice alpha=0.5": "one value is no choice; give two or more with commas, or --fix for one: 0.5",
    "kd --choice alpha=0.5,0.5": "has the choice 0.5 twice; leave one out",
    "kd --choice augment=none,flop": "augment of flop: must be none, flip, ",
    "kd --choice epochs=3,some": "epochs of some: must be a whole number",
    "kd --fix alpha=2": "alpha of 2: no trial takes it (alpha 2 must be between 0 and 1)",
    "kd --fix alpha=": "is not understood; give it as in --fix alpha=0.9",
    "kd --fix alpha=0.9 --range alpha=0:1": "--range alpha=0:1 says something of alpha already",
    "sws --variant soft --fix pi_zero=0.9 --range one_minus_pi_zero=0.1:0.2": "says something of it already",
    "sws --range tau=0.1:0.2": "has no effect with --variant hard",
    "kd --objective bytes:min": "no trial of this study reports bytes; did you mean weight_bytes?",
    "kd --objective weight_bytes:up": "gives the direction 'up'; give max or min, or none",
    "kd --objective weight_bytes": "is not understood; give it as in --objective file_bytes:min",
    "kd --objective val_accuracy:none": "makes 0 objectives; there must be 1 to 4",
    "kd --objective sparsity:none": "is none of the objectives; they are val_accuracy",
    "kd --objective latency_ms:min": "the objective latency_ms is not measured; add --measure latency",
    "sws --objective sparsity:max --objective entropy_ratio:max --objective nonzero_ratio:max": "makes 5 objectives",
    "kd --when alpha:student=lenet5": "student is not searched; give one of temperature, alpha",
    "kd --choice student=lenet5,minivgg --when alpha:student=vgg11": "student is never vgg11; it is one of lenet5, ",
    "kd --when student_width:alpha=0.5": "it is not searched; add it to SPACE, or with --range or --choice",
    "kd --when alpha": "is not understood; give it as in --when ",
    "kd --when alpha:temperature=4": "temperature is never 4; it is 1 to 20",
    "kd --choice loss=kd,dkd --when alpha:loss=dkd": "no trial does without alpha; give it no condition",
    "kd --space nothing.py": "--space nothing.py: there is none",
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_space_is_one_line(command: str) -> None:
    """It begins with the flag as it was typed, and says what is wrong and what to give."""
    with pytest.raises(UserError) as refused:
        space_of(command)
    line = str(refused.value)
    assert line.startswith("--") and WRONG[command] in line and "\n" not in line


def test_a_space_of_ones_own(tmp_path: Path) -> None:
    """A file with the three parts, and conditions; flags change it as they change those that come with the harness."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from ray import tune\nSPACE = {'student': tune.choice(['lenet5', 'minivgg']),"
        " 'student_width': tune.uniform(0.125, 1.0), 'alpha': tune.uniform(0.5, 1.0)}\n"
        "OBJECTIVES = {'val_accuracy': 'max'}\nBASELINES = {}\n"
        "CONDITIONS = {'student_width': {'student': ['minivgg']}}\n"
    )
    space = space_of(f"kd --space {path} --fix alpha=0.75")
    assert list(space.domains) == ["student", "student_width", "alpha"] and space.domains["alpha"] == Choice((0.75,))
    assert space.conditions == {"student_width": Condition("student", ("minivgg",))}
    assert space.file == f"--space {path}"
    path.write_text("SPACE = {")
    with pytest.raises(UserError, match=f"^--space {path}: cannot be read "):
        space_of(f"kd --space {path}")


CONDITIONAL = "kd --choice student=lenet5,minivgg --range student_width=0.125:1 --when student_width:student=minivgg"


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_conditional_hyperparameter_is_asked_where_it_counts(tmp_path: Path, sampler: str) -> None:
    """Of one student alone; what the ledger has of it is what Optuna is told again."""
    space = space_of(CONDITIONAL)
    ledger = Ledger.open(tmp_path)
    study = optuna_study(ledger, space, sampler=make_sampler(sampler, 0, 0, conditional=True))
    search = LedgerSearch(ledger, study, space, [], 20, lambda: 1)
    for number in range(20):
        values = search.suggest(str(number))
        assert ("student_width" in values) == (values["student"] == "minivgg")
        ledger.finish(values["trial_id"], "complete", "", {"val_accuracy": 70.0 + number}, 1.0)
        search.on_trial_complete(str(number), {"val_accuracy": 70.0 + number, "finished": True})
    ledger.flush()
    told = [recorded_trial(row, space) for row in Ledger.open(tmp_path).of_state("complete")]
    assert [t.params for t in told] == [t.params for t in study.trials]
    assert {t.params["student"] for t in told} == {"lenet5", "minivgg"}
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in told)
    recorded = space.as_json()["space"]
    frame = pd.read_csv(tmp_path / "trials.csv")
    assert (frame["student_width"].isna() == (frame["student"] == "lenet5")).all()
    assert [is_active(recorded["student_width"], row) for row in frame.to_dict("records")] == [
        "student_width" in t.params for t in told
    ]


def test_a_conditional_study_goes_on(tmp_path: Path) -> None:
    """A trial without what its condition leaves out is whole; one that lacks what it should have is not."""
    space = space_of(CONDITIONAL)
    meta = {"schema": 2, "kind": "kd", "name": "study", "seed": 0, "settings": {}, **space.as_json()}
    (tmp_path / "study.json").write_text(json.dumps(meta))
    rows = "trial_id,state,reason,baseline,student,student_width,temperature,alpha,val_accuracy,seconds,epochs\n"
    trials = tmp_path / "trials.csv"
    trials.write_text(
        rows + "t001,complete,,,lenet5,,4.0,0.5,90.0,1.0,2\nt002,complete,,,minivgg,0.25,4.0,0.5,91.0,1.0,2\n"
    )
    ledger = Ledger.open(tmp_path)
    assert [sorted(space.configuration(row)) for row in ledger.of_state("complete")] == [
        ["alpha", "student", "temperature"], ["alpha", "student", "student_width", "temperature"]]  # fmt: skip
    trials.write_text(rows + "t001,complete,,,minivgg,,4.0,0.5,90.0,1.0,2\n")
    with pytest.raises(UserError, match="trial 't001' has no student_width"):
        Ledger.open(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "kd --choice loss=kd,dkd --range mixup=0:0.4 --when mixup:loss=kd",
        "kd --choice optimizer=adamw,nesterov --range momentum=0.1:0.9 --when momentum:optimizer=nesterov",
        "kd --range epochs=5:40 --range warmup_epochs=0:10",
        "kd --choice loss=kd,dkd --choice mixup=0.0,0.2",
    ],
)
def test_a_value_is_fine_that_some_trials_take(command: str) -> None:
    """Whether a trial takes it may depend on the others."""
    space_of(command)


OWN = """from ray import tune
SPACE = {'alpha': tune.uniform(0.0, 1.0)}
OBJECTIVES = {'val_accuracy': 'max'}
BASELINES = {}
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SPACE = {1: tune.uniform(0.0, 1.0)}", "1 in SPACE: must be a name, in quotes"),
        ("OBJECTIVES = {1: 'max'}", "1 in OBJECTIVES: must be a name, in quotes"),
        ("BASELINES = {1: {'alpha': 0.5}}", "1 in BASELINES: must be a name, in quotes"),
        ("BASELINES = {'mine': 3}", "baseline 'mine' in BASELINES: must be a dict of hyperparameters"),
        ("BASELINES = {'mine': {1: 3}}", "baseline 'mine' in BASELINES: must be a dict of hyperparameters"),
        ("BASELINES = {'t001': {'alpha': 0.5}}", "is the name of another row of the tables"),
        ("BASELINES = {'teacher': {'alpha': 0.5}}", "is the name of another row of the tables"),
        ("BASELINES = {'../x': {'alpha': 0.5}}", "a name has no / or"),
        ("CONDITIONS = {'alpha': {1: [1]}}", "CONDITIONS of alpha: give another one and its values"),
        ("CONDITIONS = {'temperature': {'alpha': [1]}}", "CONDITIONS of temperature: it is not searched"),
        ("SPACE['one_minus_alpha'] = tune.uniform(0.0, 1.0)", "are one hyperparameter; leave one of them out"),
        ("raise SystemExit(0)", "cannot be read (0)"),
        ("1 / 0", "cannot be read (division by zero)"),
    ],
)
def test_an_odd_file_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    """Whatever it has where names, dicts and domains belong."""
    path = tmp_path / "mine.py"
    path.write_text(f"{OWN}{line}\n")
    with pytest.raises(UserError) as refused:
        space_of(f"kd --space {path}")
    assert str(refused.value).startswith(f"--space {path}: ") and said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_baselines_train_a_network_that_is_searched() -> None:
    """The study's own where it is among those, otherwise the first."""
    assert space_of("kd --choice student=vgg8,resnet8x4").baselines["student alone"]["student"] == "vgg8"
    assert "student" not in space_of("kd --choice student=vgg8,minivgg").baselines["student alone"]


def test_every_searched_student_is_built_with_its_widths() -> None:
    """One that has none is refused before a trial is, unless a condition says for which the width counts."""
    command = "kd --choice student=lenet5,minivgg --range student_width=0.125:0.5"
    settings = resolve(run.parse(command.split()))
    data, _ = preflight.load_data(settings)
    with pytest.raises(UserError, match=r"student lenet5: kd searches student_width, .* or say --when it counts"):
        preflight.describe_networks(settings, space_of(command), data)
    preflight.describe_networks(settings, space_of(f"{command} --when student_width:student=minivgg"), data)


def test_a_study_goes_on_with_the_space_it_has() -> None:
    """Whichever flags give it; another one is refused with what differs and what helps."""
    command = "kd --range temperature=2:8"
    recorded = {**space_of(command).as_json()}
    preflight.check_space(recorded, space_of(command), Path("results/kd-digits"))
    with pytest.raises(UserError, match=r"space 'temperature' is .* give the flags of the search space as they were"):
        preflight.check_space(recorded, space_of("kd"), Path("results/kd-digits"))


def test_what_is_searched_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """`--show-space` prints it and stops, without Ray: every domain, objective and baseline, and what else there is."""
    assert run.main([*CONDITIONAL.split(), "--objective", "weight_bytes:min", "--show-space"]) == 0
    text = capsys.readouterr().out
    assert "student_width  0.125 to 1, where student is minivgg" in text and "weight_bytes  min" in text
    assert "temperature    1 to 20, logarithmic" in text and "learning_rate" in text.partition("Could be")[2]
    settings = resolve(run.parse(["kd", "--fix", "alpha=0.9"]))
    assert "alpha        fixed at 0.9  (--fix alpha=0.9)" in described(settings)

"""A study folder is all the analysis needs: its commands run on a machine that has neither Ray nor torch nor Optuna."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "torchvision", "optuna")
# As on a machine that lacks them: found nowhere, rather than refused by the import statement alone.
LACKING = """
import runpy, sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {lacking!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Lacking())
sys.argv = {argv!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def run(module: str, *arguments: object, lacking: tuple[str, ...] = HEAVY) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` where the packages `lacking` cannot be imported."""
    code = LACKING.format(lacking=lacking, module=module, argv=[module, *map(str, arguments)])
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study of each kind on the same split, one with the trace of a network and what its teacher says."""
    folders = synthetic.write_four(tmp_path_factory.mktemp("studies"), fresh=3)
    synthetic.write_knowledge(folders[0])
    synthetic.write_trace(folders[1], "t001")
    return folders


@pytest.mark.parametrize(
    ("name", "module"),
    [("ray", "study.tuning.tune_run"), ("torch", "study.methods.kd.student"), ("optuna", "study.pipeline.driver")],
)
def test_what_is_lacking_is_lacking(name: str, module: str) -> None:
    """The same way of running fails for a module that needs the package, so the tests below could fail."""
    done = run(module, lacking=(name,))
    assert done.returncode != 0 and f"No module named '{name}" in done.stderr


@pytest.mark.parametrize(("number", "lacking"), [(0, HEAVY), (1, HEAVY), (0, ("optuna",))])
def test_report_and_its_figures(studies: list[Path], number: int, lacking: tuple[str, ...]) -> None:
    """The report of a KD and of a compression study is written, figures of the weights and the teacher included; where
    Optuna alone is lacking, too."""
    done = run("analysis.report", studies[number], lacking=lacking)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip()).read_text(encoding="utf-8")
    assert ('id="knowledge"', 'id="weights"')[number] in page


def test_comparison(studies: list[Path], tmp_path: Path) -> None:
    """Studies of all four kinds are compared on one page."""
    done = run("analysis.report", *studies, "--out", tmp_path / "all.html")
    assert done.returncode == 0, done.stderr
    assert all(folder.name in (tmp_path / "all.html").read_text(encoding="utf-8") for folder in studies)


def test_query(studies: list[Path]) -> None:
    """A question is answered, as a table and as CSV."""
    for form in ((), ("--csv", "-")):
        done = run("analysis.query", studies[1], "max sparsity where val_accuracy > 50", *form)
        assert done.returncode == 0 and "t0" in done.stdout, done.stderr


@pytest.mark.parametrize("module", ["analysis.report", "analysis.query"])
def test_nothing_heavy_is_imported_where_it_is_there(studies: list[Path], module: str) -> None:
    """Nor do the commands import them where they are installed, so a report begins in a second, not in ten. Optuna may
    come in later, for the one figure that it computes."""
    more = ["max val_accuracy"] if module == "analysis.query" else []
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, str(studies[0]), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "pandas" in imported and not imported & {"ray", "torch", "torchvision", "kaleido"}

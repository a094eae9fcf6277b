"""Parts of the package that run with a few light packages, as the pages say how to install them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import synthetic

ROOT = Path(__file__).parents[1]
OURS = {"study", "analysis", "search_spaces"}
BLOCKED = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
"""What makes modules look as if they were not installed."""


def listed_in(page: str) -> list[str]:
    """Packages of the one line of a page that installs ours without its dependencies."""
    lines = re.findall(r"^pip install --no-deps \S+ && pip install (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert len(lines) == 1
    return [re.split("[<>=]", word.strip("'"))[0] for word in lines[0].split()]


def missing_without(packages: list[str]) -> set[str]:
    """Names of all modules that are installed, but for those of these packages, of what they require, and of ours."""
    needed: set[str] = set()
    todo = list(packages)
    while todo:
        name = _normal(todo.pop())
        if name in needed:
            continue
        needed.add(name)
        try:
            todo += [re.split(r"[^\w.-]", text)[0] for text in requires(name) or [] if "extra ==" not in text]
        except PackageNotFoundError:  # for another system or Python
            continue
    modules = packages_distributions()
    return {name for name, owners in modules.items() if not needed & set(map(_normal, owners))} - OURS


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def run_with(packages: list[str], code: str, folder: Path) -> str:
    """What the code prints in a Python that has these packages alone."""
    blocked = missing_without(packages)
    assert "ray" in blocked and "pytest" in blocked
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BLOCKED.format(blocked=blocked) + code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_analysis_needs_neither_ray_nor_torch(tmp_path: Path) -> None:
    """With the packages of its page, a study folder becomes a report, questions are answered, figures are drawn."""
    folder = synthetic.write_kd(tmp_path / "kd", trials=12)
    packages = listed_in("analysis/README.md")
    assert not {"torch", "ray", "optuna"} & set(packages)
    shown = run_with(
        packages,
        "import analysis\n"
        "from analysis import plots, query, report\n"
        f"study = analysis.load({str(folder)!r})\n"
        "study._repr_html_(), plots.main(study)\n"
        f"report.main([{str(folder)!r}])\n"
        f"raise SystemExit(query.main([{str(folder)!r}, 'max val_accuracy']))\n",
        tmp_path,
    )
    page = (folder / "report.html").read_text()
    assert "<h1>" in page and "No report yet" not in page and "Not drawn" not in page
    assert str(folder / "report.html") in shown and "t0" in shown


@pytest.mark.parametrize("name", ["version2.codebook", "version3.codebook"])
def test_a_compressed_file_needs_three_packages(name: str, tmp_path: Path) -> None:
    """NumPy, torch and constriction decode it to a network that classifies."""
    packages = listed_in("study/README.md")
    assert sorted(packages) == ["constriction", "numpy", "torch"]
    shown = run_with(
        packages,
        "import torch\n"
        "from study.compression import compressed_file\n"
        f"network = compressed_file.load({str(ROOT / 'tests' / 'fixtures' / 'codebook' / name)!r})\n"
        "print(sum(p.numel() for p in network.parameters()))\n",
        tmp_path,
    )
    assert int(shown) > 1000

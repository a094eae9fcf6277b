"""What the documentation names is there: links, commands, flags, files and definitions."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study import run as study_run
from study.errors import UserError

ROOT = Path(__file__).parent.parent
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True
)
if LISTED.returncode:
    pytest.skip("the folder is no git checkout, so its pages are not known", allow_module_level=True)
PAGES = [ROOT / name for name in LISTED.stdout.split("\n") if name]

FOLDERS = "study|analysis|search_spaces|tests"
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
"""A word such as NAME or DIR, which the reader replaces."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fenced_blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)


def prose(text: str) -> str:
    return re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)


def code_spans(text: str) -> list[str]:
    """Inline code, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command on a page, from `python` on, without comments."""
    text = page.read_text()
    lines = [line for block in fenced_blocks(text) for line in block.replace("\\\n", " ").split("\n")]
    for line in [*lines, *code_spans(text)]:
        for part in re.split(r"&&|;", line):
            at = re.search(r"\bpython (-m|[\w./]+\.py)", part)
            if at:
                yield shlex.split(part[at.start() :], comments=True)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page.read_text()), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def is_path_there(path: str) -> bool:
    """Whether a file or folder exists; one with a placeholder in it counts as there."""
    return any(PLACEHOLDER.fullmatch(Path(part).stem) for part in Path(path).parts) or (ROOT / path).exists()


def is_name_defined(dotted: str) -> bool:
    """Whether a dotted name, from a package of ours on, is a module, or what a module defines or imports."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        source = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)
        if source:
            rest = parts[length:]
            return not rest or rest[0] in top_level_names(source)
    return False


def top_level_names(source: Path) -> set[str]:
    names = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_readme_is_short() -> None:
    """README.md has at most 180 lines and 10,240 bytes."""
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme) <= 10_240
    assert len(readme.splitlines()) <= 180


@pages
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file, and every anchor to a heading of its page."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_modules_and_scripts_of_commands_exist(page: Path) -> None:
    """The X of every `python -m X` can be imported, and every script that Python is given is a file."""
    for words in commands(page):
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]), " ".join(words)
        else:
            assert is_path_there(words[1]), " ".join(words)


@pages
def test_files_and_folders_exist(page: Path) -> None:
    """Every path such as `study/run.py` or `study/methods/` on a page is there, apart from placeholders."""
    text = page.read_text()
    named = re.findall(rf"(?<![\w/.-])((?:{FOLDERS}|\.github|\.ci)/[\w./-]+\.(?:py|md|yml|html|css|js|png))\b", text)
    named += [span for span in code_spans(text) if re.fullmatch(rf"(?:{FOLDERS}|\.github|\.ci)/[\w./-]*", span)]
    missing = [path for path in named if not is_path_there(path)]
    assert not missing


@pages
def test_dotted_names_are_defined(page: Path) -> None:
    """Every name such as `study.settings.resolve` in code is a module of ours, or defined in one."""
    for span in code_spans(page.read_text()):
        at = re.match(rf"((?:{FOLDERS})(?:\.\w+)+)(?:\(.*\))?$", span)
        assert not at or span in ("study.json", "study.py") or is_name_defined(at[1]), span


@pages
def test_flags_of_studies_are_known(page: Path) -> None:
    """The command line takes every `python -m study.run` command: its method, its flags, and numbers as numbers."""
    for words in commands(page):
        if words[1:3] == ["-m", "study.run"] and words[3:] and not PLACEHOLDER.fullmatch(words[3]):
            study_run.parse([word for word in words[3:] if word != "--help"])


def test_a_page_of_mistakes_fails(tmp_path: Path) -> None:
    """Each of the tests above finds its own mistake on a page that has one of each."""
    page = tmp_path / "page.md"
    mistakes: dict[Callable[[Path], None], str] = {
        test_links_resolve: "[there](nowhere.md)",
        test_modules_and_scripts_of_commands_exist: "`python -m study.nowhere` does nothing",
        test_files_and_folders_exist: "See `study/nowhere.py`.",
        test_dotted_names_are_defined: "See `study.settings.nowhere`.",
        test_flags_of_studies_are_known: "```\npython -m study.run kd --nowhere 3   # a comment\n```",
    }
    for check, text in mistakes.items():
        page.write_text(text + "\n")
        with pytest.raises((AssertionError, UserError)):
            check(page)
    page.write_text("# A page\n\n[a](#a-page), `study/methods/NAME/method.py`, `python -m study.run sws --pack 8`.\n")
    for check in mistakes:
        check(page)


def test_every_measured_table_says_where_it_is_from() -> None:
    """Each section of the page of measurements has a command, a machine, a date and a result, in this order."""
    sections = (ROOT / "tests" / "benchmarks" / "README.md").read_text().split("\n## ")[1:]
    assert len(sections) > 20
    for section in sections:
        assert re.findall(r"^- \*\*(\w+):\*\*", section, flags=re.M) == ["Command", "Machine", "Date", "Result"], (
            section
        )
        assert re.search(r"\*\*Date:\*\* (20\d\d-\d\d-\d\d|in the table)\n", section), section

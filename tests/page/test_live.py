"""The live page: it follows the study's files by itself, keeps what the reader chose, and serves nothing else."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis import report
from analysis.page import live, study_page
from analysis.page.live import OneStudy, Page
from analysis.page.live_index import SeveralStudies
from study.errors import UserError
from study.records import columns, paths, study_folder
from study.records.study_folder import Study

PAGE = (
    "<!doctype html><html><head><meta http-equiv='Content-Security-Policy' content='script-src x'></head>"
    "<body>{} trials</body></html>"
)


def small(study: Study) -> str:
    return PAGE.format(len(study.trials))


@contextmanager
def served(folder: Path | live.Site, build: Callable[[Study], str] = small) -> Iterator[int]:
    with live.server(OneStudy(folder, build) if isinstance(folder, Path) else folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def ask(port: int, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def add_trial(folder: Path) -> None:
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    best = trials.loc[[trials["val_accuracy"].idxmax()]].assign(trial_id="t999", baseline="", alpha=0.5)
    study_folder.write_rows(folder / paths.TRIALS, [*trials.to_dict("records"), *best.to_dict("records")], list(trials))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    monkeypatch.setattr(live, "REST", 0.0)
    return synthetic.write_kd(tmp_path / "kd", trials=30)


def test_a_changed_file_gives_a_new_page_under_a_new_version(folder: Path) -> None:
    """The page has as many trials as the table has, and its ETag, which the page also bears, changes with it alone."""
    with served(folder) as port:
        _, headers, first = ask(port)
        assert "33 trials" in first and headers["ETag"].strip('"') in first
        assert ask(port, method="HEAD")[1:] == (headers | {"Date": ask(port)[1]["Date"]}, "")
        os.utime(folder / paths.TRIALS)  # written anew with the same content
        assert ask(port)[1]["ETag"] == headers["ETag"]
        add_trial(folder)
        _, later, second = ask(port)
        assert "34 trials" in second and later["ETag"] != headers["ETag"]


def test_it_builds_when_asked_after_a_change_and_not_too_often(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change, and within the interval after a build, the last page is served again."""
    built: list[int] = []

    def build(study: Study) -> str:
        built.append(len(study.trials))
        return small(study)

    page = Page(folder, build)
    for _ in range(3):
        page.current()
    assert built == [33]
    monkeypatch.setattr(live, "INTERVAL", 1000.0)
    add_trial(folder)
    page.current()
    add_trial(folder)
    assert b"34 trials" in page.current()[0] and built == [33, 34]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1.evil.example:{port}"]
)
def test_another_name_for_this_machine_reads_nothing(folder: Path, host: str) -> None:
    """A request whose Host is not this server's own address is refused: a page from elsewhere cannot read the study by
    having its name point to 127.0.0.1."""
    with served(folder) as port:
        status, _, body = ask(port, host=host.format(port=port) or " ")
        assert status == 403 and "trials" not in body
        assert ask(port, host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/study.json", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/?x", 404),
        ("POST", "/", 501),
        ("PUT", "/", 501),
        ("DELETE", "/", 501),
        ("OPTIONS", "/", 501),
        ("HEAD", "/x", 404),
    ],
)
def test_nothing_but_the_page_is_served(folder: Path, method: str, path: str, status: int) -> None:
    """There is one path and there are two methods; no file of the study is served."""
    with served(folder) as port:
        got, _, body = ask(port, path, method)
        assert got == status and "trials" not in body


def test_it_listens_on_this_machine_alone(folder: Path) -> None:
    """The server is bound to 127.0.0.1, and a port that is taken is said in one line."""
    with served(folder) as port, live.server(OneStudy(folder, small)) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"--port {port}: cannot be used"):
            live.server(OneStudy(folder, small), port)
    with pytest.raises(UserError, match="--port 65536: cannot be used .a port is a number up to 65535"):
        live.server(OneStudy(folder, small), 65536)


@pytest.mark.parametrize(("error", "written"), [(BrokenPipeError(), False), (ZeroDivisionError("seven"), True)])
def test_only_a_browser_that_went_away_is_no_error(
    error: Exception, written: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection that the browser closed leaves the terminal as it is; any other error is written there."""
    with live.server(OneStudy(folder, small)) as server:
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))  # type: ignore[arg-type]
    assert ("seven" in capsys.readouterr().err) is written


def test_an_absent_or_damaged_study_gives_a_page_that_says_so(folder: Path, tmp_path: Path) -> None:
    """No traceback and no end: the page says what is wrong, escaped, and the report appears when the study does."""
    absent = tmp_path / "<b>later"
    with served(absent) as port:
        status, _, body = ask(port)
        assert status == 200 and "no study here" in body and "&lt;b&gt;later" in body and "<b>" not in body
        shutil.copytree(folder, absent)
        assert "33 trials" in ask(port)[2]
        (absent / paths.TRIALS).write_text("nonsense\n1,2,3\n")
        assert "damaged" in ask(port)[2] or "missing" in ask(port)[2]

    def broken(study: Study) -> str:
        raise ValueError("no <i>such</i> thing")

    with served(folder, broken) as port:
        assert "ValueError: no &lt;i&gt;such" in ask(port)[2]


def test_ctrl_c_ends_it_with_status_zero(folder: Path) -> None:
    """The command prints its address, and Ctrl-C ends it without a traceback."""
    # A process that was started in the background of a script ignores Ctrl-C, and so do its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from analysis.page import live; "
        "from pathlib import Path; site = "
        f"live.OneStudy(Path({str(folder)!r}), lambda study: {PAGE!r}.format(len(study.trials))); live.serve(site)"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as run:
        assert run.stdout is not None
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ .*\n", run.stdout.readline())[1])  # type: ignore[index]
        assert "33 trials" in ask(port)[2]
        run.send_signal(signal.SIGINT)
        try:
            assert run.communicate(timeout=60)[1].strip() == "" and run.returncode == 0
        finally:
            run.kill()  # or a failure would wait for ever


def test_several_studies_have_an_index(folder: Path, tmp_path: Path) -> None:
    """The results folder gives a line and a page for each study, one that appears later too, and a damaged one does
    not hide the others; no other path is known."""
    with served(SeveralStudies([tmp_path], small)) as port:
        status, headers, index = ask(port)
        assert status == 200 and "1 studies" in index and '<a href="/kd/">kd</a>' in index and "30 of 30" in index
        assert "Knowledge distillation" in index and "validation accuracy" in index
        page = ask(port, "/kd/")[2]
        assert "33 trials" in page and '<meta name="home" content="/">' in page
        assert ask(port, "/kd")[0] == ask(port, "/nope/")[0] == ask(port, "/kd/../kd/")[0] == 404
        synthetic.write_kd(tmp_path / "<b>x y", trials=4)
        index = ask(port)[2]
        assert "2 studies" in index and '<a href="/%3Cb%3Ex%20y/">&lt;b&gt;x y</a>' in index and "<b>" not in index
        assert "7 trials" in ask(port, "/%3Cb%3Ex%20y/")[2]
        (tmp_path / "kd" / paths.TRIALS).write_text("nonsense\n")
        index = ask(port)[2]
        assert "2 studies" in index and "4 of 4" in index and ask(port)[1]["ETag"] != headers["ETag"]


def test_named_studies_have_an_index(folder: Path, tmp_path: Path) -> None:
    """In the order of their names, two of one name apart; one that is not there yet has its page."""
    other = synthetic.write_kd(tmp_path / "other" / "kd", trials=4)
    with served(SeveralStudies([folder, other, tmp_path / "later"], small)) as port:
        index = ask(port)[2]
        assert all(f'href="/{name}/"' in index for name in ("kd", "kd-2", "later"))
        assert "no study here" in ask(port, "/later/")[2]


def test_the_command_serves_an_index_of_the_results_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds studies, or several studies, with the port that was asked for; one study has no index."""
    served_sites: list[tuple[live.Site, int]] = []
    monkeypatch.setattr(report, "serve", lambda site, port: served_sites.append((site, port)))
    report.main([str(folder.parent), "--live", "--port", "8800"])
    report.main([str(folder), str(folder), "--live"])
    report.main([str(folder), "--live"])
    assert [(type(site), port) for site, port in served_sites] == [
        (SeveralStudies, 8800), (SeveralStudies, 0), (OneStudy, 0),
    ]  # fmt: skip


# --- in a browser


def test_the_page_refreshes_itself_and_keeps_what_the_reader_chose(browser: Any, folder: Path) -> None:
    """After a trial more the page shows it without being asked to, and the marked trial, the theme, an unticked state,
    a moved threshold, the order of the table and the place on the page are as they were; nothing is complained of."""
    complaints: list[str] = []
    with served(folder, study_page.build) as port:
        page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light")
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        drawn = "() => !document.querySelector('.plot:not(:has(.main-svg))')"
        page.wait_for_function(drawn)
        page.locator("#theme").click()
        page.locator("#best .pick").first.click()
        page.locator("#states input[value=pruned]").uncheck()
        threshold = page.locator("#limit-val_accuracy")
        if threshold.count():  # the lowest accuracy but two
            threshold.evaluate("e => { e.value = 2; e.dispatchEvent(new Event('input')); }")
        page.locator("#trial-table thead button").nth(3).click()
        page.evaluate("document.querySelector('#trials').scrollIntoView({behavior: 'instant'})")
        chosen = """() => ({marked: document.querySelector('#marked p').textContent.split(' ')[0],
            ringed: [...document.querySelectorAll('.plot')].filter(p => p.layout.shapes?.some(
                s => s.name === 'mark')).length,
            theme: document.documentElement.dataset.theme,
            pruned: document.querySelector('#states input[value=pruned]').checked,
            limit: document.querySelector('#limit-val_accuracy')?.ariaValueText,
            sort: [...document.querySelectorAll('#trial-table thead th')].filter(th => th.ariaSort !== 'none').map(
                th => th.innerText),
            top: Math.round(document.querySelector('#trials').getBoundingClientRect().top)})"""
        before = page.evaluate(chosen)
        assert before["marked"].startswith("t") and before["ringed"] >= 3 and before["theme"] == "dark"
        assert not before["pruned"] and len(before["sort"]) == 1 and abs(before["top"]) < 200
        assert "t999" not in page.locator("#trial-table").inner_text()
        add_trial(folder)
        page.locator("#trial-table tr[data-trial=t999]").wait_for(timeout=30_000)
        page.wait_for_function(drawn)
        after = page.evaluate(chosen)
        assert abs(after.pop("top") - before.pop("top")) <= 2  # pixels, rounded
        assert after == before
        assert page.locator(".counts", has_text="live").count() == 1
        page.close()
    assert complaints == []


def test_the_waiting_page_becomes_the_report(browser: Any, folder: Path, tmp_path: Path) -> None:
    """A page that was opened before the study began turns into its report."""
    with served(tmp_path / "later", study_page.build) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        assert page.locator("h1").inner_text() == "No report yet"
        shutil.copytree(folder, tmp_path / "later")
        page.locator("#answer").wait_for(timeout=30_000)
        page.close()

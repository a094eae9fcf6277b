"""What the report of a long study costs to build and to read: `python tests/benchmarks/report_size.py`.

Made-up studies of 10,000 trials of 50 epochs, and of 64 trials with all a report can show. Each page is built by
`python -m analysis.report` in a process of its own, imports included, then opened in Debian's chromium, where a trial
is marked, the table sorted and a threshold moved. Times are of the wall clock and, in brackets, of the CPU: the
process's own, or the page's main thread. In the browser a time ends when the figures in sight have followed and are
painted; "all" is when those out of sight have followed too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
STUDIES = {
    "kd, {long}": "write_kd(path, {trials}, epochs={epochs}, fresh=5)",
    "sws, {long}": "write_sws(path, {trials}, epochs={epochs}, fresh=5)",
    "kd, 64 trials with traces": "write_traced(path, 'kd')",
    "sws, 64 trials with traces": "write_traced(path, 'sws')",
}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ACTIONS: dict[str, tuple[str, str]] = {
    "open": ("", "document.readyState === 'complete' && p.querySelector('.main-svg')"),
    "mark a trial": (
        "document.querySelector('#best .best .pick').click()",
        "owners(p).includes(marked()) === ringed(p)",
    ),
    "unmark it": ("document.querySelector('#marked button').click()", "!ringed(p)"),
    "sort by accuracy": ("head('validation accuracy').click()", "true"),
    "sort by trial": ("head('trial').click()", "true"),
    "move a threshold": ("slide(1)", "out(p) || !marks(p).length"),
    "move it back": ("slide(0)", "!out(p)"),
    "change the colours": ("document.getElementById('theme').click()", "p._fullLayout.font.color === ink()"),
}
"""What a reader does, and how a figure `p` looks that has followed it."""

MEASURE = """async () => {
    const marks = (p) => p.data.filter((t) => Array.isArray(t.customdata) && /markers/.test(t.mode ?? ''));
    const owners = (p) => p.data.flatMap((t) => t.customdata ?? []);
    const marked = () => document.querySelector('#best .best .pick').dataset.trial;
    const out = (p) => p.querySelector('.point.out') !== null;
    const ringed = (p) => (p.layout.shapes ?? []).some((s) => s.name === 'mark');
    const ink = () => document.documentElement.dataset.theme === 'dark' ? '#E9EBEE' : '#1B1F24';
    const head = (text) => [...document.querySelectorAll('#trial-table thead button')].find(
        (button) => button.textContent.startsWith(text));
    const slide = (share) => { const slider = document.querySelector('#limit-val_accuracy');
        slider.value = Math.floor(share * slider.max); slider.dispatchEvent(new Event('input', {bubbles: true})); };
    const away = (p) => { const box = p.getBoundingClientRect(); return box.top >= innerHeight || box.bottom <= 0; };
    const painted = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
    const plots = () => [...document.querySelectorAll('.plot')], followed = (p) => FOLLOWED;
    const start = `ACT` ? performance.now() : 0;
    const until = async (good) => {
        do { await painted(); } while (!good() && performance.now() < start + 30000);
        return good() ? performance.now() : NaN;
    };
    ACT;
    return [await until(() => plots().length && plots().every((p) => away(p) || followed(p))) - start,
            await until(() => plots().every(followed)) - start];
}"""


def write(call: str, folder: Path) -> None:
    """Write a study in a child process, since a process inherits the peak memory of the one that starts it."""
    code = f"import pathlib, synthetic; path = pathlib.Path({str(folder)!r}); synthetic.{call}"
    paths = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    subprocess.run([sys.executable, "-c", code], cwd=TESTS, env=paths, check=True)


def build(folder: Path) -> str:
    """Build the report in a child process; what that took, as a line."""
    start = time.perf_counter()
    run = subprocess.Popen(
        [sys.executable, "-m", "analysis.report", str(folder)], cwd=TESTS.parent, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(run.pid, 0)
    seconds = time.perf_counter() - start
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"{folder}: the report failed")
    size = (folder / "report.html").stat().st_size
    return (
        f"built in {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s), {used.ru_maxrss / 1e3:.0f} MB memory, "
        f"page {size / 1e6:.2f} MB"
    )


def read(folder: Path) -> None:
    """Open the page and do what a reader does, at the top of the page and among the figures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return 1000 * next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")

        used = 0.0
        page.goto((folder / "report.html").as_uri(), wait_until="commit")
        for place in ("answer", "figures"):
            if place != "answer":
                page.evaluate(f"document.getElementById('{place}').scrollIntoView({{behavior: 'instant'}})")
            for name, (act, followed) in ACTIONS.items():
                if name == "open" and place != "answer":
                    continue
                sight, all_ = page.evaluate(MEASURE.replace("ACT", act).replace("FOLLOWED", followed))
                now = busy()
                print(
                    f"    {name:20} at the {place:8} {sight:6.0f} ms in sight, {all_:6.0f} ms all, "
                    f"({now - used:.0f} ms)"
                )
                used = now
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()
    long = f"{given.trials:,} trials of {given.epochs} epochs"
    for name, call in STUDIES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(call.format(trials=given.trials, epochs=given.epochs), Path(folder))
            print(f"{name.format(long=long)}: {build(Path(folder))}", flush=True)
            if CHROMIUM:
                read(Path(folder))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()

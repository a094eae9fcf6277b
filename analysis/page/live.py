"""The report of a study while it runs: a page on 127.0.0.1 that follows the study's files.

    python -m analysis.report results/NAME --live
    python -m analysis.report results --live --port 8800

The page is the report with one script more, `page/live.js`, which asks for the page's ETag every few seconds and loads
a new page where the reader stood. It is rebuilt only when a reader asks and a file has changed. Of several studies
there is an index, `page/live_index.py`, which leads to the page of each. The server knows these pages: no other path,
no other method, and no other name of itself than 127.0.0.1 and localhost, so that a page from elsewhere whose name
points here (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import hashlib
import html
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from analysis.page.render import allowed, read
from study.errors import UserError
from study.records import paths, study_folder
from study.records.study_folder import Study

HOST = "127.0.0.1"
INTERVAL = 5.0
"""Least seconds from one build to the next."""
REST = 3.0
"""The same in durations of the build, so that a long table does not take the study's processor."""

WATCHED = (paths.STUDY, paths.TRIALS, paths.TRIAL_LOG, paths.HISTORY, paths.CONFIRMED)

_PLAIN = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src ; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>{body}</body>
</html>
"""

_WAITING_STYLE = "body { font: 17px/1.6 sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em; }"


def plain_page(title: str, style: str, body: str) -> str:
    """A page that needs nothing of the report's, but that `alive` can make follow its files.

    Args:
        title, style, body: as HTML and CSS.
    """
    return _PLAIN.format(title=title, style=style, body=body)


def stamps(folder: Path) -> list[tuple[int, int] | None]:
    """When each watched file of a study was written, and its size."""
    changes: list[tuple[int, int] | None] = []
    for name in WATCHED:
        try:
            stat = (folder / name).stat()
            changes.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            changes.append(None)
    return changes


class Page:
    """The page as it stands, for any number of threads."""

    def __init__(self, folder: Path, build: Callable[[Study], str], home: bool = False) -> None:
        self._folder, self._build, self._home = folder, build, home
        self._lock = threading.Lock()
        self._seen: object = None
        self._next = 0.0
        self._content: tuple[bytes, str] = (b"", "")

    def current(self) -> tuple[bytes, str]:
        """The page and its version, rebuilt first if a file of the study changed and the last build is long ago."""
        with self._lock:
            start = time.monotonic()
            if start >= self._next and (seen := self._stamps()) != self._seen:
                self._content = alive(self._made(), self._home)
                self._seen = seen
                took = time.monotonic() - start
                self._next = start + took + max(INTERVAL, REST * took)
            return self._content

    def _stamps(self) -> object:
        """What changes with the page. Taken before a file is read, so that a change after it is seen."""
        return stamps(self._folder)

    def _made(self) -> str:
        try:
            return self._build(study_folder.load(self._folder))
        except UserError as error:
            reason = str(error)
        except Exception as error:  # a damaged study can break any step; whoever watches learns of it in the page
            reason = f"{self._folder}: the report cannot be built ({type(error).__name__}: {error})"
        title = "No report yet"
        body = f"<h1>{title}</h1><p>{html.escape(reason)}</p><p>This page looks again by itself.</p>"
        return plain_page(title, _WAITING_STYLE, body)


def alive(page: str, home: bool = False) -> tuple[bytes, str]:
    """A page that reloads itself when there is another one: with its version, the script, and the policy to run it.

    Args:
        home: whether the page gets a link to the index of all studies.
    Returns: the page in UTF-8, and its version.
    """
    script = read("live.js")
    version = hashlib.sha256(page.encode()).hexdigest()[:16]
    link = '<meta name="home" content="/">\n' if home else ""
    for old, new in (
        ("script-src ", f"connect-src 'self'; script-src {allowed(script)} "),
        ("</head>", f'<meta name="version" content="{version}">\n{link}<script>{script}</script>\n</head>'),
    ):
        assert old in page, f"the page has no {old!r}"
        page = page.replace(old, new, 1)
    return page.encode(), version


class _Server(ThreadingHTTPServer):
    def handle_error(self, *given: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a browser that went away
            super().handle_error(*given)


class Site(Protocol):
    """The pages that a server has."""

    def page(self, path: str) -> Page | None:
        """The page at a path, such as "/"."""


class OneStudy:
    """The page of one study, and no other."""

    def __init__(self, folder: Path, build: Callable[[Study], str]) -> None:
        self._page = Page(folder, build)

    def page(self, path: str) -> Page | None:
        """See `Site.page`."""
        return self._page if path == "/" else None


def server(site: Site, port: int = 0) -> ThreadingHTTPServer:
    """A server of these pages that waits for `serve_forever`; its port is `server_address[1]`.

    Raises:
        UserError: the port is taken, or may not be used.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "compression-study", ""
        timeout = 30  # a client that sends nothing holds no thread for ever

        def do_GET(self) -> None:
            own = self.connection.getsockname()[1]
            if self.headers.get("Host") not in (f"{HOST}:{own}", f"localhost:{own}"):
                return self.send_error(HTTPStatus.FORBIDDEN)
            page = site.page(self.path)
            if page is None:
                return self.send_error(HTTPStatus.NOT_FOUND)
            content, version = page.current()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{version}"')
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing: a request every few seconds is no news."""

    try:
        return _Server((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "a port is a number up to 65535"
        raise UserError(f"--port {port}: cannot be used ({reason}); give another, or 0") from error


def serve(site: Site, port: int = 0) -> None:
    """Serve these pages until Ctrl-C, and print their address.

    Args:
        port: 0 is any free one.
    Raises:
        UserError: the port is taken, or may not be used.
    """
    with server(site, port) as running:
        print(f"http://{HOST}:{running.server_address[1]}/  Ctrl-C ends it.", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)  # after the ^C

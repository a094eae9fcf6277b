"""HTTP servers on this machine, for tests of downloads."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class _Server(ThreadingHTTPServer):
    """One whose threads have ended when it is closed, and which is silent about clients that hang up.

    A traceback printed in a thread that outlives its test parses source while the next test does; Python before 3.11.8
    then raises SystemError there (CPython's issue 106905).
    """

    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of a server, which ends with the block. The handler's own log is silenced, and it waits for a second, not
    for ever, for what a client has left open."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None, "timeout": 1})
    with _Server(("127.0.0.1", 0), quiet) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

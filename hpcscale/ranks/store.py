"""Keys and values over HTTP, at which ranks tell one another where they are: rank 0 or the launcher serves.

Horovod's Gloo reads and writes such a store in C++: PUT and GET of /SCOPE/KEY, where 404 means not yet, and
DELETE of its rank by each that has met all others. A key keeps its first value. No files, no proxies.
"""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

POLL = 0.1  # seconds between two checks
MOST = 16 << 20  # bytes of a value


class Store(ThreadingTCPServer):
    """Listens on one address, at a port of the system's choice; serves within `served`."""

    daemon_threads = True
    request_queue_size = 1024  # all ranks may come at once

    def __init__(self, address: str) -> None:
        """Raises OSError where it cannot listen."""
        self.values: dict[str, bytes] = {}
        super().__init__((address, 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Within it, a thread answers."""
        threading.Thread(target=self.serve_forever, args=(POLL,), daemon=True).start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A rank that hangs up in the middle, or something that is no rank: nobody has to know."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 3.0
    server: Store

    def do_GET(self) -> None:
        value = self.server.values.get(self.path)
        self._answer(404 if value is None else 200, value or b"")

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if not 0 <= length <= MOST:
            self._answer(413)
        elif len(value := self.rfile.read(length)) == length:
            self.server.values.setdefault(self.path, value)
            self._answer(200)

    def do_DELETE(self) -> None:
        self._answer(200)  # the store ends before long

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request is no news."""


def request(server: tuple[str, int], method: str, path: str, body: bytes | None = None) -> str | None:
    """The value of a key; None if there is none yet. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(*server, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        response = connection.getresponse()
        text = response.read().decode()
        return text if response.status == 200 else None

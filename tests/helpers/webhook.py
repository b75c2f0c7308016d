"""A webhook on the loopback interface, which keeps what it is sent."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/services/T00000000/B0000/a-long-secret-token"


class Webhook:
    """Answers with ``status``, or not at all while ``hangs``; use it as a context."""

    def __init__(self, *, status: int = 200, hangs: bool = False):
        self.status, self.hangs = status, hangs
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._is_over = threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == PATH
                webhook.received.append(content)
                webhook.headers.append({name.lower(): value for name, value in self.headers.items()})
                if webhook.hangs:
                    webhook._is_over.wait(60)
                    return
                self.send_response(webhook.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the fields of the messages of a kind."""
        return [each["december"] for each in self.received if each["december"]["event"] == kind]

    def __enter__(self) -> Webhook:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()

"""An S3 server process, and a proxy in front of it that can be told to fail."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minio

ACCESS_KEY, SECRET_KEY = "AKIDthisisaccess", "thisisverysecretindeed"
BUCKET = "models"
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nRetry-After: 120\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
)
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
WRONG_KEY = (
    "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature of "
    f"{ACCESS_KEY} does not match {SECRET_KEY}.</Message></Error>"
).encode()


class S3Server:
    """A process of moto's S3 server on loopback, with an empty bucket."""

    def __init__(self, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        keys = {"MOTO_S3_CUSTOM_ENDPOINTS": "", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **keys}
            )
        self._wait(log)
        self.client = minio.Minio(f"127.0.0.1:{self.port}", ACCESS_KEY, SECRET_KEY, secure=False)
        self.client.make_bucket(BUCKET)

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"the S3 server did not start:\n{log.read_text()}")
            time.sleep(0.05)

    def names(self) -> list[str]:
        """Return the names of all objects in the bucket."""
        return sorted(str(found.object_name) for found in self.client.list_objects(BUCKET, recursive=True))

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class Proxy:
    """Forwards connections, until told otherwise by :meth:`fail`.

    ============  =============================================================
    how           what a client sees
    ============  =============================================================
    ``pass``      the server
    ``503``       SlowDown, with the wish to be left alone for two minutes
    ``403``       a refusal that quotes the keys
    ``hang``      a connection, and no answer
    ``stall``     a connection that takes nothing more and does not answer
    ``cut``       the connection ends in the middle of the answer
    ``cut-send``  the connection ends in the middle of what is sent
    ============  =============================================================
    """

    def __init__(self, port: int):
        self._to = port
        self._how = "pass"
        self._times = 0
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.requests = 0
        self.n_received = 0  # bytes, of clients that were forwarded
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(self, how: str, *, times: int = -1) -> None:
        """Treat the next connections like this, and then forward again; -1 is without an end."""
        self._times, self._how = times, how
        for connection in list(self._open):
            _close(connection)

    def close(self) -> None:
        """End everything."""
        _close(self._listening)
        self.fail("pass")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.requests += 1
                threading.Thread(target=self._serve, args=(client, self._next()), daemon=True).start()

    def _next(self) -> str:
        how = self._how
        if self._times > 0:
            self._times -= 1
            if self._times == 0:
                self._how = "pass"
        return how

    def _serve(self, client: socket.socket, how: str) -> None:
        self._open.add(client)
        with contextlib.suppress(OSError):
            if how in ("503", "403"):
                _read_request(client)
                client.sendall(UNAVAILABLE % (len(SLOW_DOWN), SLOW_DOWN) if how == "503" else _denied())
            elif how == "hang":
                while client.recv(65536):
                    pass
            elif how == "stall":
                threading.Event().wait(30)
            else:
                self._forward(client, how)
        self._open.discard(client)
        _close(client)

    def _forward(self, client: socket.socket, how: str) -> None:
        server = socket.create_connection(("127.0.0.1", self._to))
        self._open.add(server)
        limits = {"cut": (None, 600), "cut-send": (100_000, None)}.get(how, (None, None))
        back = threading.Thread(target=_pipe, args=(server, client, limits[1]), daemon=True)
        back.start()
        _pipe(client, server, limits[0], self._note)
        back.join()
        self._open.discard(server)
        _close(server)

    def _note(self, n_bytes: int) -> None:
        self.n_received += n_bytes


def _denied() -> bytes:
    return DENIED % (len(WRONG_KEY), WRONG_KEY)


def _read_request(client: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    left = int(lengths[0]) - len(body) if lengths else 0
    while left > 0:
        left -= len(client.recv(65536))


def _pipe(
    source: socket.socket, sink: socket.socket, limit: int | None, note: Callable[[int], None] = lambda _: None
) -> None:
    sent = 0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if limit is not None and sent + len(data) > limit:
                sink.sendall(data[: limit - sent])
                break
            sink.sendall(data)
            sent += len(data)
            note(len(data))
    for end in (source, sink):
        _close(end)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def store_settings(port: int, **more: Any) -> dict[str, Any]:
    """Return DataJoint's settings of a store on this port."""
    return {
        "protocol": "s3",
        "endpoint": f"127.0.0.1:{port}",
        "bucket": BUCKET,
        "location": "lab/vision",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "secure": False,
        **more,
    }

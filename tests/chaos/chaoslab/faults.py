"""Faults: the server is killed, a disk is full or read-only, a store answers 503, files are damaged."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaoslab.laboratory import Laboratory, wait_for

# ---- the database


def kill_server(laboratory: Laboratory) -> None:
    """``kill -9`` the database server and wait until it is gone."""
    pid = laboratory.server_pid()
    assert pid is not None, "the server does not run"
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: laboratory.server_pid() is None, "the end of the server", pause=0.02)


@contextlib.contextmanager
def server_away(laboratory: Laboratory) -> Iterator[None]:
    """Kill the server for the time of a with block; it recovers from its log then."""
    kill_server(laboratory)
    try:
        yield
    finally:
        laboratory.server.start()


# ---- disks


class SmallDisk:
    """A file system of its own in memory, of a few hundred kilobytes.

    Parameters
    ----------
    folder
        Where it is mounted.
    size
        Bytes.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.filler = folder / "filler"

    def mount(self) -> str:
        """Mount it; return why that is impossible, or an empty string."""
        words = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "there is no mount here"
        return done.stderr.strip()

    def fill(self) -> None:
        """Write until the disk takes no more."""
        with self.filler.open("ab", buffering=0) as file:
            for block in (b"x" * 65536, b"x" * 512, b"x"):
                with contextlib.suppress(OSError):
                    while file.write(block):
                        pass

    def free(self) -> None:
        """Remove what fills it."""
        self.filler.unlink()

    def read_only(self, yes: bool) -> None:
        """Forbid or allow writing; files that are being written at that moment are finished first."""
        words = ["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.folder)]
        wait_for(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0, "the remount")

    def unmount(self) -> None:
        """Unmount it, also if a process has a file open there."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


@contextlib.contextmanager
def folder_gone(folder: Path) -> Iterator[None]:
    """Put a file where a folder was, for the time of a with block: nobody can write there, not even root."""
    aside = folder.with_name(folder.name + ".aside")
    folder.rename(aside)
    folder.write_text("not a folder")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


# ---- an S3 store that fails

HEADERS = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nConnection: close\r\n"
BODY = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Reduce your rate.</Message></Error>"


class Proxy:
    """Stands between the workers and a server; answers 503 to everything while ``unavailable``.

    Parameters
    ----------
    port
        Where the server listens, on the loopback interface.
    """

    def __init__(self, port: int):
        self.server_port = port
        self.unavailable = False
        self.n_refused = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: set[socket.socket] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def fail(self, yes: bool) -> None:
        """Begin or end the outage; connections that are open are cut."""
        self.unavailable = yes
        for connection in list(self.open):
            _close(connection)

    def close(self) -> None:
        """Listen no more."""
        _close(self.listener)
        self.fail(True)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.unavailable:
            self.n_refused += 1
            with contextlib.suppress(OSError):
                client.settimeout(2)
                client.recv(65536)
                client.sendall(HEADERS + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):  # what it still sends: closing now would reset the connection
                    pass
            _close(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port))
        except OSError:
            _close(client)
            return
        self.open |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            self.open.discard(end)
            _close(end)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class S3:
    """An S3 server process (moto's) behind a proxy, with one bucket."""

    KEYS = ("chaos", "not a secret")
    BUCKET, LOCATION = "models", "lab"

    def __init__(self, laboratory: Laboratory, folder: Path):
        self.port = _free_port()
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = laboratory.start(words, log=folder / "s3.log", start_new_session=True)
        wait_for(self._answers, "the start of the S3 server")
        self._client(self.port).make_bucket(self.BUCKET)
        self.proxy = Proxy(self.port)

    @property
    def store(self) -> dict[str, Any]:
        """DataJoint's settings of a store there, through the proxy."""
        return {
            "protocol": "s3",
            "endpoint": f"127.0.0.1:{self.proxy.port}",
            "bucket": self.BUCKET,
            "location": self.LOCATION,
            "access_key": self.KEYS[0],
            "secret_key": self.KEYS[1],
            "secure": False,
        }

    def objects(self) -> dict[str, int]:
        """Return the sizes of all objects by name, past the proxy (bytes)."""
        found = self._client(self.port).list_objects(self.BUCKET, recursive=True)
        return {entry.object_name: entry.size for entry in found}

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.process.kill()
        self.process.wait()

    def _client(self, port: int) -> Any:
        import minio

        return minio.Minio(f"127.0.0.1:{port}", self.KEYS[0], self.KEYS[1], secure=False)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- damaged files


def flip_bit(path: Path, rng: random.Random) -> None:
    """Change one bit somewhere in the middle half of a file."""
    content = bytearray(path.read_bytes())
    position = rng.randrange(len(content) // 4, 3 * len(content) // 4)
    content[position] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    """Leave the first half of a file, as a write that was interrupted does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def pause(rng: random.Random, low: float, high: float) -> float:
    """Sleep for a random time (s), and return it."""
    seconds = rng.uniform(low, high)
    time.sleep(seconds)
    return seconds

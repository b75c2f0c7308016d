"""The entry script of the image, as a real process outside docker: settings, secrets, waiting, signals, GPUs."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import urllib3
from minio.crypto import decrypt
from moto.server import ThreadedMotoServer

from december_plugin.database.embedded import EmbeddedServer

pytestmark = pytest.mark.slow(2)

DOCKER = Path(__file__).parents[2] / "docker"
PASSWORD, STORE_KEY = "s3cr3t-of-the-worker-77", "s3cr3t-of-the-store-88"
READY = "ready"
# A command that says who it is and what it was given, and ends with 7 when it is asked to.
CHILD = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"drained\\n"), os._exit(7)))
print(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), "{READY}", flush=True)
time.sleep(60)
"""


@pytest.fixture
def account(server: EmbeddedServer, admin: Any) -> Iterator[dict[str, str]]:
    """Make an account like the compose file's and yield its settings without the password."""
    admin.execute(f"CREATE OR REPLACE USER 'december_worker'@'%' IDENTIFIED BY '{PASSWORD}'")
    yield {"DJ_HOST": f"127.0.0.1:{server.settings.port}", "DJ_USER": "december_worker"}
    admin.execute("DROP USER 'december_worker'@'%'")


@pytest.fixture
def settings(account: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Return settings with the password in a file and models in a folder."""
    (tmp_path / "store").mkdir()
    (tmp_path / "dj_pass").write_text(PASSWORD + "\n")
    return {
        **account,
        "DJ_PASS_FILE": str(tmp_path / "dj_pass"),
        "DECEMBER_STORE_FOLDER": str(tmp_path / "store"),
    }


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the entry script with nothing but these settings, in a home of its own."""
    processes: list[subprocess.Popen[str]] = []
    home = tmp_path / "home"
    home.mkdir()

    def start(settings: dict[str, str], *words: str) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        processes.append(
            subprocess.Popen(
                [sys.executable, str(DOCKER / "entrypoint.py"), *words],
                cwd=tmp_path,
                env={"HOME": str(home), "PATH": path, "DECEMBER_HOME": str(tmp_path / "december"), **settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def refused(process: subprocess.Popen[str]) -> str:
    """Return the message of a process that ends with an error."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    return err


def line_of(stream: Any, limit: float = 60) -> str:
    """Return the next line that a process prints."""
    assert select.select([stream], [], [], limit)[0], "nothing was printed"
    return stream.readline()


# ---- settings and secrets


def test_secret_from_a_file(enter: Any, settings: dict[str, str], tmp_path: Path) -> None:
    process = enter(settings, sys.executable, "-c", CHILD)
    pid = int(line_of(process.stdout).split()[0])
    assert pid == process.pid  # exec: signals of docker reach the command itself
    file = tmp_path / "home" / ".datajoint_config.json"
    assert file.stat().st_mode & 0o777 == 0o600
    host, port = settings["DJ_HOST"].split(":")
    assert json.loads(file.read_text()) == {
        "database.host": host,
        "database.port": int(port),
        "database.user": "december_worker",
        "database.password": PASSWORD,
        "stores": {"minio": {"protocol": "file", "location": settings["DECEMBER_STORE_FOLDER"]}},
    }


def test_secrets_from_the_environment_do_not_stay_there(enter: Any, account: dict[str, str], tmp_path: Path) -> None:
    store = {"DECEMBER_STORE_ENDPOINT": "minio:9000", "DECEMBER_STORE_ACCESS_KEY": "key-of-the-store"}
    secrets = {"DJ_PASS": PASSWORD, "DECEMBER_STORE_SECRET_KEY": STORE_KEY, "DECEMBER_STORE_SECURE": "true"}
    process = enter({**account, **store, **secrets}, sys.executable, "-c", CHILD)
    line_of(process.stdout)
    known = json.loads((tmp_path / "home" / ".datajoint_config.json").read_text())
    assert known["database.password"] == PASSWORD
    assert known["stores"]["minio"] == {
        "protocol": "s3",
        "endpoint": "minio:9000",
        "bucket": "december",
        "location": "models",
        "access_key": "key-of-the-store",
        "secret_key": STORE_KEY,
        "secure": True,
    }
    environment = Path(f"/proc/{process.pid}/environ").read_text()
    assert "PATH=" in environment
    for secret in (PASSWORD, STORE_KEY, "key-of-the-store"):
        assert secret not in environment


def test_no_secret_on_a_command_line_or_in_the_output(enter: Any, settings: dict[str, str]) -> None:
    process = enter(settings, "december", "pool", "--help")
    seen: set[str] = set()
    while process.poll() is None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(place.read_text(errors="replace"))
        time.sleep(0.01)
    out, err = process.communicate()
    assert any("entrypoint.py" in line for line in seen)
    assert not [line for line in seen if PASSWORD in line]
    assert PASSWORD not in out + err


def test_secrets_that_compose_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCKER))
    import entrypoint

    (tmp_path / "dj_pass").write_text("with spaces and 'quotes' \n")
    assert entrypoint.setting({}, "DJ_PASS", secrets=tmp_path) == "with spaces and 'quotes' "
    assert entrypoint.setting({"DJ_PASS": "own"}, "DJ_PASS", secrets=tmp_path) == "own"
    assert entrypoint.setting({"DJ_PASS": ""}, "DJ_USER", secrets=tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"DJ_PASS_FILE": ""},
            "the database password is missing. Set DJ_PASS, or DJ_PASS_FILE to the path of a file that has it, or "
            "mount it as /run/secrets/dj_pass.",
        ),
        ({"DJ_HOST": ""}, "the database server is missing. Set DJ_HOST, or DJ_HOST_FILE to the path of"),
        ({"DJ_PASS": "x"}, "both DJ_PASS and DJ_PASS_FILE are set. Set one of them."),
        ({"DJ_HOST": "db:x"}, "DJ_HOST is 'db:x'; it must be a host, or host:port."),
        ({"DJ_PASS_FILE": "/nowhere"}, "the file /nowhere with DJ_PASS cannot be read by user id "),
        ({"DJ_PASS_FILE": "/dev/null"}, "the file /dev/null with DJ_PASS is empty. Write the value into it."),
        ({"DECEMBER_STORE_FOLDER": ""}, "no place, or two, for the models. Set either DECEMBER_STORE_ENDPOINT"),
        ({"DECEMBER_STORE_ENDPOINT": "s3:9000"}, "no place, or two, for the models."),
        (
            {"DECEMBER_STORE_FOLDER": "", "DECEMBER_STORE_ENDPOINT": "s3:9000"},
            "the store's access key is missing. Set DECEMBER_STORE_ACCESS_KEY, or",
        ),
    ],
)
def test_wrong_settings(enter: Any, settings: dict[str, str], change: dict[str, str], message: str) -> None:
    said = refused(enter({**settings, **change}, "true"))
    assert said.startswith(f"december entry: error: {message}")
    assert said.count("\n") == 1


def test_settings_that_are_mounted_as_a_file(enter: Any, settings: dict[str, str], tmp_path: Path) -> None:
    local, written = tmp_path / "dj_local_conf.json", tmp_path / "home" / ".datajoint_config.json"
    local.write_text("{}")
    assert refused(enter(settings, "true")) == (
        "december entry: error: dj_local_conf.json is in the working folder and DJ_HOST, DJ_USER, DJ_PASS_FILE set as "
        f"well: DataJoint would mix them. Set DECEMBER_SETTINGS_FILE to {written} for the settings of the environment, "
        f"or to {local} for those of the file.\n"
    )
    process = enter({}, sys.executable, "-c", CHILD)
    line_of(process.stdout)
    assert line_of(process.stderr) == f"december entry: settings from {local}\n"
    assert not written.exists()


# A command that says which server it would use, as every command of december finds it.
WHICH = """
from december_plugin.database.connection import lab_settings
from december_plugin.storage.settings import store_settings
lab = lab_settings()
print(lab.address, lab.user, store_settings()["location"], lab.source)
"""


def test_settings_of_the_project_s_folder_are_not_mixed_in(
    enter: Any, settings: dict[str, str], tmp_path: Path
) -> None:
    local, written = tmp_path / "dj_local_conf.json", tmp_path / "home" / ".datajoint_config.json"
    theirs = {"database.host": "notebooks.example", "database.port": 3307, "database.user": "ada"}
    store = {"minio": {"protocol": "file", "location": "/theirs"}}
    local.write_text(json.dumps({**theirs, "database.password": "x", "stores": store, "december.schema": "theirs"}))
    # As compose does it: the container's own settings hold.
    for _ in range(2):  # also when the container is started again
        process = enter({**settings, "DECEMBER_SETTINGS_FILE": str(written)}, sys.executable, "-c", WHICH)
        out, err = process.communicate(timeout=60)
        assert out == f"{settings['DJ_HOST']} december_worker {tmp_path / 'store'} {written}\n", err
        assert err == f"december entry: {local} is not read: the settings come from the environment\n"
    # The way out for who wants the other ones.
    process = enter({**settings, "DECEMBER_SETTINGS_FILE": str(local)}, sys.executable, "-c", WHICH)
    out, err = process.communicate(timeout=60)
    assert out == f"notebooks.example:3307 ada /theirs {local}\n", err
    assert err == f"december entry: settings from {local}; those of the environment are left out\n"
    gone = refused(enter({**settings, "DECEMBER_SETTINGS_FILE": "/nowhere.json"}, "true"))
    assert gone == (
        "december entry: error: DECEMBER_SETTINGS_FILE is /nowhere.json, and there is no such file in the container. "
        "Mount it, or leave the variable out: then the settings come from the environment.\n"
    )


def test_command_that_does_not_exist(enter: Any, settings: dict[str, str]) -> None:
    said = refused(enter(settings, "no-such-command"))
    assert said == "december entry: error: the command 'no-such-command' cannot be run (No such file or directory).\n"


def test_short_forms_of_commands(enter: Any, settings: dict[str, str]) -> None:
    out, _ = enter(settings, "--help").communicate(timeout=60)
    assert out.startswith("usage: december pool")
    out, _ = enter(settings, "status", "--help").communicate(timeout=60)
    assert out.startswith("usage: december status")


# ---- waiting


def test_refused_password_is_no_reason_to_wait(enter: Any, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dj_pass").write_text("wrong-password")
    said = refused(enter(settings, "december", "worker"))
    assert said.startswith(
        f"december entry: error: The database server {settings['DJ_HOST']} refuses user 'december_worker'"
    )
    assert "wrong-password" not in said


def test_server_that_stays_away(enter: Any, settings: dict[str, str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    lines = refused(enter({**settings, "DJ_HOST": address, "DECEMBER_WAIT": "8"}, "december", "worker")).splitlines()
    assert len(lines) == 2  # the same reason is said once
    assert lines[0].startswith(f"december entry: waiting: The database server {address} cannot be reached")
    assert lines[1].startswith(f"december entry: error: The database server {address} cannot be reached")


def test_waits_until_the_server_answers(enter: Any, settings: dict[str, str]) -> None:
    host, port = settings["DJ_HOST"].split(":")
    with Forwarder((host, int(port))) as forwarder:
        process = enter({**settings, "DJ_HOST": forwarder.address}, "december", "worker")
        assert "waiting: The database server" in line_of(process.stderr)
        forwarder.open()
        _, err = process.communicate(timeout=60)
    # Past the waiting: it is december that speaks now, which finds no tables.
    assert "december entry:" not in err
    assert err.startswith("december: error: ")
    assert process.returncode == 1


def test_sigterm_while_waiting(enter: Any, settings: dict[str, str]) -> None:
    process = enter({**settings, "DJ_HOST": "127.0.0.1:9"}, "december", "worker")
    assert "waiting" in line_of(process.stderr)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


def test_signal_reaches_the_command(enter: Any, settings: dict[str, str]) -> None:
    process = enter(settings, sys.executable, "-c", CHILD)
    assert READY in line_of(process.stdout)
    process.send_signal(signal.SIGTERM)
    assert line_of(process.stdout) == "drained\n"
    assert process.wait(timeout=10) == 7


class Forwarder:
    """A port that refuses connections until it is opened, and then leads to the server."""

    def __init__(self, target: tuple[str, int]):
        self.target = target
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self) -> None:
        self.socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                server = socket.create_connection(self.target)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# ---- GPUs


@pytest.fixture
def machine(settings: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Return settings for containers of one GPU each, on a machine with two, and put a stand-in for december there."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-aa-1)'\necho 'GPU 1: NVIDIA A (UUID: GPU-bb-2)'\n"
    )
    (tools / "december").write_text(f"#!{sys.executable}\n{CHILD}")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (tmp_path / "claims").mkdir()
    return {
        **settings,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "DECEMBER_GPU_CLAIMS": str(tmp_path / "claims"),
        "DECEMBER_GPUS_PER_CONTAINER": "1",
    }


def test_each_container_claims_a_gpu_of_its_own(enter: Any, machine: dict[str, str]) -> None:
    first, second = enter(machine), enter(machine)
    given = {line_of(process.stdout).split()[1] for process in (first, second)}
    assert given == {"GPU-aa-1", "GPU-bb-2"}
    assert refused(enter(machine)) == (
        "december entry: error: 1 of the 2 GPUs of this machine wanted, but 2 are taken by other containers. Start "
        "fewer (--scale worker=N), or set DECEMBER_GPUS_PER_CONTAINER to a smaller number.\n"
    )
    first.kill()
    first.wait()
    assert READY in line_of(enter(machine).stdout)


def test_all_gpus_are_left_to_the_command(enter: Any, machine: dict[str, str]) -> None:
    process = enter({**machine, "DECEMBER_GPUS_PER_CONTAINER": "all"})
    assert line_of(process.stdout).split()[1:] == ["None", READY]


def test_parts_of_a_divided_gpu_are_claimed(enter: Any, machine: dict[str, str], tmp_path: Path) -> None:
    listing = (
        "GPU 0: NVIDIA A (UUID: GPU-aa)\n  MIG 1g.10gb Device 0: (UUID: MIG-x)\n  MIG 1g.10gb Device 1: (UUID: MIG-y)"
    )
    (tmp_path / "tools" / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listing}'\n")
    process = enter({**machine, "DECEMBER_GPUS_PER_CONTAINER": "2"})
    assert line_of(process.stdout).split()[1] == "MIG-x,MIG-y"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Failed to initialize NVML'; exit 9", "nvidia-smi fails (Failed to initialize NVML). Check the driver"),
        (None, "this container sees no GPU (there is no nvidia-smi). Install the NVIDIA Container Toolkit on the host"),
    ],
)
def test_no_gpus(enter: Any, machine: dict[str, str], tmp_path: Path, script: str | None, message: str) -> None:
    driver = tmp_path / "tools" / "nvidia-smi"
    driver.unlink() if script is None else driver.write_text(f"#!/bin/sh\n{script}\n")
    assert refused(enter(machine)).startswith(f"december entry: error: {message}")


def test_number_of_gpus_is_checked(enter: Any, machine: dict[str, str]) -> None:
    said = refused(enter({**machine, "DECEMBER_GPUS_PER_CONTAINER": "two"}))
    assert "DECEMBER_GPUS_PER_CONTAINER is 'two'; it must be all, or a number of at least 1." in said


# ---- the bucket


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 server of this file's own and yield its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


def make_bucket(enter: Any, account: dict[str, str], endpoint: str, **more: str) -> subprocess.CompletedProcess[str]:
    store = {"DECEMBER_STORE_ENDPOINT": endpoint, "DECEMBER_STORE_ACCESS_KEY": "key"}
    process = enter(
        {**account, **store, "DJ_PASS": PASSWORD, "DECEMBER_STORE_SECRET_KEY": STORE_KEY, **more},
        sys.executable,
        str(DOCKER / "make_bucket.py"),
    )
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_bucket_is_made_once(enter: Any, account: dict[str, str], s3: str) -> None:
    done = make_bucket(enter, account, s3)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Made the bucket december at {s3}.\n", "")
    assert make_bucket(enter, account, s3).stdout == f"The bucket december at {s3} exists.\n"


def test_bucket_that_is_refused(enter: Any, account: dict[str, str], s3: str) -> None:
    done = make_bucket(enter, account, s3, DECEMBER_STORE_BUCKET="x" * 64)
    assert done.returncode == 1
    assert done.stderr == f"error: the bucket {'x' * 64} at {s3} cannot be made (invalid bucket name {'x' * 64}).\n"


class Minio(http.server.BaseHTTPRequestHandler):
    """The part of MinIO that makes accounts, in front of an S3 server."""

    behind = ""
    root = ""
    accounts: ClassVar[dict[str, dict[str, Any]]] = {}
    policies: ClassVar[dict[str, Any]] = {}

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        name = url.path.removeprefix("/minio/admin/v3/")
        if name == url.path:
            connection = http.client.HTTPConnection(self.behind)
            headers = {key: value for key, value in self.headers.items() if key != "Host"}
            connection.request(self.command, self.path, body, {**headers, "Host": self.behind})
            response = connection.getresponse()
            self.reply(response.status, response.read())
        elif self.root not in self.headers["Authorization"]:
            self.reply(403, b"{}")
        else:
            if name == "add-canned-policy":
                self.policies[query["name"]] = json.loads(body)
            elif name == "add-user":
                plain = decrypt(urllib3.HTTPResponse(io.BytesIO(body), preload_content=False), STORE_KEY)
                self.accounts.setdefault(query["accessKey"], {}).update(json.loads(plain))
            elif name == "set-user-or-group-policy":
                self.accounts[query["userOrGroup"]]["policy"] = query["policyName"]
            self.reply(200, b"")

    do_GET = do_PUT = do_HEAD = answer  # noqa: N815

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def minio_server(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run it and yield its address; its root account has the access key ``key``."""
    monkeypatch.setattr(Minio, "behind", s3)
    monkeypatch.setattr(Minio, "root", "Credential=key/")
    monkeypatch.setattr(Minio, "accounts", {})
    monkeypatch.setattr(Minio, "policies", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Minio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_accounts_of_the_store_are_made(enter: Any, account: dict[str, str], minio_server: str, tmp_path: Path) -> None:
    secrets = tmp_path / "accounts"
    subprocess.run([DOCKER / "make-secrets", secrets], check=True, capture_output=True)
    sources = {"worker": "store", "admin": "store_admin"}
    for role, source in sources.items():
        for kind in ("access", "secret"):
            (secrets / f"{source}_{kind}_key").rename(secrets / f"{role}_{kind}_key")
    bucket = {"DECEMBER_STORE_BUCKET": "models", "DECEMBER_SECRETS_FOLDER": str(secrets)}
    for said in ("Made the bucket models", "The bucket models"):  # a second time nothing changes
        done = make_bucket(enter, account, minio_server, **bucket)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(said)
        assert done.stdout.endswith(
            "The account of the worker has the policy december-worker.\n"
            "The account of the admin has the policy december-admin.\n"
        )
        assert STORE_KEY not in done.stdout
        keys = {role: (secrets / f"{role}_access_key").read_text() for role in sources}
        assert Minio.accounts == {
            keys[role]: {
                "status": "enabled",
                "secretKey": (secrets / f"{role}_secret_key").read_text(),
                "policy": f"december-{role}",
            }
            for role in sources
        }
    assert sorted(Minio.policies) == ["december-admin", "december-worker"]
    assert Minio.policies["december-worker"]["Statement"][0]["Resource"] == ["arn:aws:s3:::models"]
    # An account that is MinIO's root would have all rights.
    (secrets / "worker_access_key").chmod(0o600)
    (secrets / "worker_access_key").write_text("key")
    done = make_bucket(enter, account, minio_server, **bucket)
    assert done.returncode == 1
    assert "an account has the access key of MinIO's root account: give it another one" in done.stderr

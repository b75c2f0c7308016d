"""A password stays where it belongs while a pool runs a lab's code that gives it away wherever it can."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
import yaml

from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import ENVIRONMENT
from helpers import warm

pytestmark = pytest.mark.slow(10)

PASSWORD = "Geh3im \"w'rt\\1 & more"
PART = "Geh3im"  # in every spelling of it
STORE_KEY = "wJalrXUtnFEMI-K7MDENG"

LEAKY = '''\
"""A lab's functions, which give the password away."""
import logging, os, time, warnings
import torch

def loaders(**config):
    return {"train": {}}

def model(dataloaders, seed, **config):
    return torch.nn.Linear(1, 1)

def trainer(model, dataloaders, seed, *, uid=None, cb=None, **config):
    import datajoint as dj
    password = os.environ["DJ_PASS"]
    print("printed:", password)
    print(dj.config)
    warnings.warn(f"warned: {password}")
    logging.getLogger("december_plugin.training").warning("logged: %s", password)
    logging.getLogger("a.lab").error("logged elsewhere: %r", dj.conn().conn_info)
    time.sleep(1.5)  # it is seen in the list of processes, and its output is passed on, while it runs
    try:
        raise ValueError(f"mysql://lab:{password}@host is refused")
    except ValueError as error:
        raise RuntimeError(f"no login with {password!r} and {dj.config['stores']}") from error
'''


@dataclass
class Leaky:
    """A lab with a password, on a schema of its own; the command runs in processes."""

    schema: str
    folder: Path
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "december_plugin.cli", *words, "--schema", self.schema]

    def run(self, *words: str) -> tuple[int, str]:
        done = warm.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def files(self) -> dict[str, bytes]:
        """Return all files of the lab but those that hold the password on purpose."""
        paths = (Path(folder) / name for folder, _, names in os.walk(self.folder) for name in names)
        return {str(path): path.read_bytes() for path in paths if path.name != "dj_local_conf.json"}


@pytest.fixture
def leaky(database: Any, server: EmbeddedServer, admin: Any, schema_name: str, tmp_path: Path) -> Iterator[Leaky]:
    """Register one training whose function gives the password away."""
    admin.execute("CREATE OR REPLACE USER 'leaky'@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
    pattern = schema_name.replace("_", r"\_")
    for name in (pattern, r"nnfabrik\_core"):
        admin.execute(f"GRANT ALL PRIVILEGES ON `{name}`.* TO 'leaky'@'127.0.0.1'")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "leaky_lab.py").write_text(LEAKY)
    (tmp_path / "code" / "broken_lab.py").write_text(
        # Raised where the module is used: what it raises while it is imported is explained.
        "import os\ndef __getattr__(name):\n    raise OSError(f'no login: {os.environ[\"DJ_PASS\"]}')\n"
    )
    (tmp_path / "models").mkdir()
    store = {"protocol": "file", "location": str(tmp_path / "models")}
    bucket = {"protocol": "s3", "endpoint": "s3.lab:9000", "bucket": "b", "access_key": "lab", "secret_key": STORE_KEY}
    (tmp_path / "dj_local_conf.json").write_text(json.dumps({"stores": {"minio": store, "bucket": bucket}}))
    kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    account = {"DJ_HOST": f"127.0.0.1:{server.settings.port}", "DJ_USER": "leaky", "DJ_PASS": PASSWORD}
    own = {"DECEMBER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "code"), "OMP_NUM_THREADS": "1"}
    yield Leaky(schema_name, tmp_path, {**kept, **account, **own})
    admin.execute("DROP USER 'leaky'@'127.0.0.1'")


def register(leaky: Leaky) -> None:
    content = {
        "seeds": [1],
        "datasets": [{"fn": "leaky_lab.loaders"}],
        "models": [{"fn": "leaky_lab.model"}],
        "trainers": [{"fn": "leaky_lab.trainer"}],
    }
    (leaky.folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    code, printed = leaky.run("register", "sweep.yaml")
    assert code == 0, printed


def command_lines() -> set[str]:
    """Return the command lines of all processes, as `ps` shows them to everybody."""
    lines = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", errors="replace"))
        except OSError:
            continue
    return lines


def tables_as_text(leaky: Leaky, admin: Any) -> dict[str, str]:
    admin.execute(f"SHOW TABLES IN `{leaky.schema}`")
    texts = {}
    for (name,) in admin.fetchall():
        admin.execute(f"SELECT * FROM `{leaky.schema}`.`{name}`")
        texts[name] = repr(admin.fetchall())
    return texts


def test_password_stays_out_of_everything_while_a_pool_runs(leaky: Leaky, admin: Any) -> None:
    register(leaky)
    words = ("pool", "--cpu", "1", "--idle-exit", "1", "--allow-modules", "leaky_lab")
    seen: set[str] = set()
    with (leaky.folder / "pool.out").open("w") as out:
        process = warm.Popen(
            leaky.command(*words),
            cwd=leaky.folder,
            env=leaky.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            warm_children=True,
        )
        try:
            deadline = time.monotonic() + 180
            while process.poll() is None and time.monotonic() < deadline:
                seen |= command_lines()
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    printed = (leaky.folder / "pool.out").read_text()
    assert process.returncode == 3, printed
    assert any("worker --schema" in line for line in seen)
    assert not [line for line in seen if PART in line]

    files = leaky.files()
    logs = b"\n".join(content for path, content in files.items() if path.endswith(".log"))
    for words_of_the_lab in (b"printed: ***", b"warned: ***", b"logged: ***", b"no login with '***'"):
        assert words_of_the_lab in logs, logs.decode()
    for path, content in files.items():
        assert PART.encode() not in content, (path, content)
        assert STORE_KEY.encode() not in content, (path, content)

    tables = tables_as_text(leaky, admin)
    assert "no login with" in tables["~jobs"]
    assert "failed" in tables["pool_job"]
    assert "leaky_lab" in tables["pool"]
    for name, text in tables.items():
        assert PART not in text, (name, text)
        assert STORE_KEY not in text, (name, text)

    code, text = leaky.run("status", "--json")
    assert code == 3, text
    assert re.search(r"no login with '?\*\*\*", text)
    _, listed = leaky.run("jobs", "show")
    _, shown = leaky.run("jobs", "show", re.search(r"^([0-9a-f]{8}) ", listed, re.M)[1])
    assert "mysql://lab:***@host is refused" in shown
    for printed in (text, listed, shown):
        assert PART not in printed
        assert STORE_KEY not in printed


def test_password_stays_out_of_the_traceback_of_a_defect(leaky: Leaky) -> None:
    register(leaky)
    for debug in (False, True):
        code, printed = leaky.run("status", "--nnfabrik", "module:broken_lab", *(["--debug"] if debug else []))
        assert code == 70, printed
        assert "unexpected OSError: no login: ***" in printed
        assert PART not in printed
    (file,) = (leaky.folder / "home" / "errors").iterdir()
    assert "OSError: no login: ***" in file.read_text()
    assert PART not in file.read_text()


def test_password_stays_out_of_a_refused_login(leaky: Leaky, server: EmbeddedServer) -> None:
    leaky.environment["DJ_USER"] = "nobody"
    for words in (("status", "--debug"), ("worker",)):
        _, printed = leaky.run(*words)
        assert PART not in printed
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(host="127.0.0.1", port=server.settings.port, user="nobody", password=PASSWORD)

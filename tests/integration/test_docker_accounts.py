"""The compose file's accounts, made by its script on a real server, do what each service needs, and no more."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import yaml

from december_plugin.database.embedded import EmbeddedServer
from december_plugin.simulate import write_recording

pytestmark = pytest.mark.slow(3)

DOCKER = Path(__file__).parents[2] / "docker"
ROLES = ("admin", "worker", "reader")
SWEEP = {
    "seeds": [1, 2],
    "datasets": [
        {"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["static1-1-1"], "batch_size": 32}}
    ],
    "models": [
        {
            "fn": "december_plugin.models.stacked_core_gaussian_readout",
            "config": {"hidden_channels": 4, "input_kern": 5, "hidden_kern": 3, "layers": 1},
        }
    ],
    "trainers": [
        {
            "fn": "december_plugin.trainers.december_trainer",
            "config": {"n_clusters": 2, "pretrain_epochs": 1, "max_iter": 2, "share_pretraining": False},
        }
    ],
}


def make_accounts(server: EmbeddedServer, secrets: Path, schema: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the MySQL image does: sourced, with its function that feeds SQL to the server."""
    feed = f"docker_process_sql() {{ mariadb --defaults-file={shlex.quote(str(server.credentials))}; }}"
    return subprocess.run(
        ["bash", "-e", "-c", f"{feed}; . {shlex.quote(str(DOCKER / 'mysql-accounts.sh'))}"],
        env={"PATH": os.environ["PATH"], "DECEMBER_SECRETS_FOLDER": str(secrets), "DECEMBER_SCHEMA": schema},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    subprocess.run([DOCKER / "make-secrets", folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def accounts(server: EmbeddedServer, admin: Any, secrets: Path, schema_name: str) -> Iterator[dict[str, str]]:
    """Make the accounts and yield their passwords."""
    done = make_accounts(server, secrets, schema_name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    yield {role: (secrets / f"{role}_password").read_text() for role in ROLES}
    for role in ROLES:
        admin.execute(f"DROP USER 'december_{role}'@'%'")


@pytest.fixture
def container(
    server: EmbeddedServer, accounts: dict[str, str], secrets: Path, schema_name: str, tmp_path: Path
) -> Callable[[str], dict[str, str]]:
    """Return a function that makes the environment of a service of the compose file, by role."""
    (tmp_path / "store").mkdir()

    def environment(role: str) -> dict[str, str]:
        home = tmp_path / f"home_{role}"
        home.mkdir(exist_ok=True)
        return {
            "PATH": str(Path(sys.executable).parent),  # the image has no other programs, such as git
            "GIT_PYTHON_REFRESH": "quiet",
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "DECEMBER_HOME": str(tmp_path / "december"),
            "DECEMBER_SCHEMA": schema_name,
            "DECEMBER_STORE_FOLDER": str(tmp_path / "store"),
            "DJ_HOST": f"127.0.0.1:{server.settings.port}",
            "DJ_USER": f"december_{role}",
            "DJ_PASS_FILE": str(secrets / f"{role}_password"),
        }

    return environment


@pytest.fixture
def service(
    container: Callable[[str], dict[str, str]], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command as a service does, through the entry script."""

    def run(role: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, DOCKER / "entrypoint.py", *words],
            cwd=tmp_path,
            env=container(role),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def register(service: Any, tmp_path: Path) -> None:
    write_recording(tmp_path / "static1-1-1", seed=1, n_neurons=8, n_train=40, n_validation=8, n_test=4, n_repeats=3)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    done = service("admin", "register", "sweep.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The sweep has 2 trainings" in done.stdout


def test_services_from_registration_to_stop(
    container: Callable[[str], dict[str, str]], service: Any, admin: Any, schema_name: str, tmp_path: Path
) -> None:
    """What compose does: register as admin, start a worker, look at its health, send SIGTERM."""
    register(service, tmp_path)
    pool = subprocess.Popen(
        [sys.executable, DOCKER / "entrypoint.py", "--cpu", "1", "--lease", "30"],
        cwd=tmp_path,
        env=container("worker"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 240
        while time.monotonic() < until and pool.poll() is None:
            admin.execute(f"SELECT COUNT(*) FROM `{schema_name}`.__trained_model")
            if admin.fetchone() == (2,):
                break
            time.sleep(0.5)
        # docker runs health checks beside the entry script, with the container's environment.
        health = [str(Path(sys.executable).with_name("december")), "health", "--outage-ok"]
        done = subprocess.run(
            health, cwd=tmp_path, env=container("worker"), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "alive, last heartbeat" in done.stdout
        pool.send_signal(signal.SIGTERM)
        _, said = pool.communicate(timeout=60)
    finally:
        pool.kill()
    assert pool.returncode == 128 + signal.SIGTERM, said
    assert "[pool] ends: SIGTERM" in said
    done = service("reader", "status", "--json")
    table = {table["table"]: table for table in json.loads(done.stdout)["tables"]}["TrainedModel"]
    assert (table["done"], table["running"], table["failed"]) == (2, [], [])


def test_accounts_have_no_more_rights_than_they_need(
    server: EmbeddedServer, accounts: dict[str, str], schema_name: str
) -> None:
    def refused(role: str, statement: str) -> bool:
        own = server.settings
        connection = pymysql.connect(host=own.host, port=own.port, user=f"december_{role}", password=accounts[role])
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        except pymysql.err.OperationalError as error:
            return error.args[0] in (1044, 1142)
        finally:
            connection.close()
        return False

    for table in ("trainer", "pool_job"):
        assert not refused("admin", f"CREATE TABLE `{schema_name}`.{table} (a int)")
        assert not refused("reader", f"SELECT * FROM `{schema_name}`.{table}")
        assert refused("reader", f"INSERT INTO `{schema_name}`.{table} VALUES (1)")
        for role in ("worker", "reader"):
            assert refused(role, f"DROP TABLE `{schema_name}`.{table}")
    for role in ("worker", "reader"):
        assert refused(role, f"CREATE TABLE `{schema_name}`.pool (a int)")
        assert refused(role, "SELECT * FROM mysql.user")
    assert not refused("worker", f"INSERT INTO `{schema_name}`.pool_job VALUES (1)")
    # A row there names a function that workers run.
    assert refused("worker", f"INSERT INTO `{schema_name}`.trainer VALUES (1)")
    # An underscore is no wildcard.
    assert refused("admin", f"CREATE DATABASE `{schema_name.replace('_', 'X')}`")


def test_passwords_that_would_end_the_statement(server: EmbeddedServer, secrets: Path, schema_name: str) -> None:
    (secrets / "worker_password").chmod(0o644)
    (secrets / "worker_password").write_text("it's")
    done = make_accounts(server, secrets, schema_name)
    assert done.returncode == 1
    assert done.stderr == "The password in worker_password has a quote or a backslash. Choose one without.\n"


def test_schema_is_a_name(server: EmbeddedServer, secrets: Path) -> None:
    done = make_accounts(server, secrets, "x; DROP")
    assert done.returncode == 1
    assert done.stderr == "DECEMBER_SCHEMA is 'x; DROP'; it must be of letters, digits and underscores.\n"


def test_rights_are_those_of_the_documentation(secrets: Path) -> None:
    """The page has them for tables that exist; the script gives them before, with CREATE taken back again."""
    print_it = "docker_process_sql() { cat; }"
    done = subprocess.run(
        ["bash", "-e", "-c", f"{print_it}; . {shlex.quote(str(DOCKER / 'mysql-accounts.sh'))}"],
        env={"PATH": os.environ["PATH"], "DECEMBER_SECRETS_FOLDER": str(secrets)},
        capture_output=True,
        text=True,
        check=True,
    )
    page = (DOCKER.parent / "docs" / "security.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^GRANT .*;$", page, flags=re.MULTILINE))
    given = set(re.findall(r"^GRANT .*;$", done.stdout, flags=re.MULTILINE))
    assert {grant.replace("GRANT CREATE, ", "GRANT ") for grant in given} == documented
    assert done.stdout.count("REVOKE CREATE ON ") == done.stdout.count("GRANT CREATE, ") > 10


def test_script_is_sourced_by_the_image() -> None:
    assert not os.access(DOCKER / "mysql-accounts.sh", os.X_OK)  # the image runs others, which lack its function

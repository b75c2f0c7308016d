"""The three roles of docs/security.md: its SQL, as it is, and what an account with each role can and cannot do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pymysql
import pytest
import yaml

from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import ENVIRONMENT
from december_plugin.simulate import write_recording
from helpers import pages, warm

pytestmark = [pytest.mark.database, pytest.mark.slow(2)]

SQL = pages.claim("docs/security.md", "sql")
PYTHON = pages.claim("docs/security.md", "python")
QUICK = {"max_iter": 2, "pretrain_epochs": 1, "device": "cpu", "lr_init": 0.01}
MODEL = {"hidden_channels": 4, "input_kern": 3, "hidden_kern": 3, "layers": 1, "depth_separable": False}
MODEL.update(pad_input=True, gauss_type="isotropic")
HIDDEN = {"~jobs", "~log", "~external_minio"}


def statements() -> dict[str, list[str]]:
    """Return the SQL of each role's section of the page."""
    return {block.section.lower(): [line for line in block.text.split(";\n") if line] for block in SQL}


@dataclass
class Lab:
    """A server of a lab, its administrator, and the command as each role runs it."""

    server: EmbeddedServer
    folder: Path
    administrator: Any
    sql: dict[str, list[str]]

    def execute(self, statement: str, *arguments: Any) -> tuple[tuple[Any, ...], ...]:
        with self.administrator.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall()

    def grant(self, role: str) -> None:
        for statement in self.sql[role]:
            self.execute(statement)

    def password(self, role: str) -> str:
        return re.search(r"IDENTIFIED BY '([^']*)'", self.sql[role][0])[1]

    def environment(self, role: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        account = {"DJ_USER": f"december_{role}", "DJ_PASS": self.password(role)}
        host = f"127.0.0.1:{self.server.settings.port}"
        own = {"DECEMBER_HOME": str(self.folder / "home"), "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        return {**kept, **account, **own, "DJ_HOST": host}

    def run(self, role: str, *words: str, code: int = 0, **environment: str) -> str:
        """Run the command with a role's account; return what it printed."""
        done = warm.run(
            [sys.executable, "-m", "december_plugin.cli", *words],
            cwd=self.folder,
            env={**self.environment(role), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def connect(self, role: str) -> Any:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.server.settings.port,
            user=f"december_{role}",
            password=self.password(role),
            autocommit=True,
        )

    def refused(self, role: str, statement: str) -> str:
        """Return the server's words when it refuses a statement of a role for lack of a privilege."""
        with self.connect(role) as connection, connection.cursor() as cursor:
            with pytest.raises((pymysql.err.OperationalError, pymysql.err.ProgrammingError)) as raised:
                cursor.execute(statement)
            code, words = raised.value.args
        assert code in (1044, 1142, 1227), words
        return words


def sweep(folder: Path) -> Path:
    sizes = {"n_neurons": 12, "n_train": 40, "n_validation": 10, "n_test": 4, "n_repeats": 3}
    paths = [str(write_recording(folder / f"static{i}-1-1-simulated", seed=i, **sizes)) for i in (1, 2)]
    content = {
        "seeds": [1, 2],
        "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": {"paths": paths, "batch_size": 20}}],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout", "config": MODEL}],
        "trainers": [{"fn": "december_plugin.trainers.december_trainer", "config": {**QUICK, "n_clusters": 2}}],
        "clusterings": [{"method": "kmeans", "n_clusters": 2}],
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start a server without any schema, make the roles, register with the admin's; nothing is computed yet."""
    folder = tmp_path_factory.mktemp("roles")
    server = EmbeddedServer(folder / "server_home")
    server.start()
    own = server.settings
    administrator = pymysql.connect(host=own.host, port=own.port, user=own.user, password=own.password, autocommit=True)
    lab = Lab(server, folder, administrator, statements())
    assert list(lab.sql) == ["admin", "worker", "reader"]
    lab.grant("admin")
    lab.run("admin", "register", str(sweep(folder)))
    lab.grant("worker")
    lab.grant("reader")
    yield lab
    administrator.close()
    server.stop()


@pytest.fixture(scope="module")
def computed(lab: Lab) -> Lab:
    """Fill the tables with the worker's account."""
    printed = lab.run("worker", "worker")
    assert (
        "Done: TrainedModel 2, TrainingSummary 2, TestPerformance 2, ClusterAssignment 2, SeedAgreement 1, "
        "Consensus 1, ClusterQuality 2, ConfigurationAgreement 1." in printed
    )
    return lab


def tables_of(lab: Lab) -> set[str]:
    return {name for (name,) in lab.execute("SHOW TABLES IN december")}


# ---- admin


def test_register_makes_every_table_that_is_ever_used(computed: Lab) -> None:
    before = tables_of(computed)
    assert before >= HIDDEN
    computed.run("reader", "status")
    computed.run("reader", "ari")
    assert tables_of(computed) == before


def test_every_table_that_workers_fill_is_on_the_page(lab: Lab) -> None:
    granted = {name for line in lab.sql["worker"] for name in re.findall(r"`december`\.`([^`]+)`", line)}
    filled = {name for name in tables_of(lab) if name.startswith("__") or name.startswith("pool")}
    assert granted == filled | {"~jobs", "~external_minio", "seed_set", "configuration_pair"}


def test_the_first_who_registers_is_entered(lab: Lab) -> None:
    assert lab.execute("SELECT fabrikant_name, dj_username FROM december.fabrikant") == (("december_admin",) * 2,)


def test_admin_has_no_more_than_these_schemas(lab: Lab) -> None:
    assert "to database 'elsewhere'" in lab.refused("admin", "CREATE DATABASE elsewhere")
    assert lab.refused("admin", "SELECT * FROM mysql.global_priv")


# ---- worker


def test_worker_fills_the_tables(computed: Lab) -> None:
    status = json.loads(computed.run("worker", "status", "--json"))
    assert {row["table"]: row["done"] for row in status["tables"]} == {
        "TrainedModel": 2,
        "TrainingSummary": 2,
        "TestPerformance": 2,
        "FeatureCovariance": 0,
        "Alignment": 0,
        "ClusterAssignment": 2,
        "SeedAgreement": 1,
        "LabelAgreement": 0,
        "Consensus": 1,
        "ClusterQuality": 2,
        "WithinModelStability": 0,
        "ClusterConfusion": 0,
        "SurrogateAgreement": 0,
        "ConfigurationAgreement": 1,
        "Mei": 0,
        "MeiConfusion": 0,
    }
    assert computed.execute("SELECT COUNT(*) FROM december.`~jobs`") == ((0,),)
    assert computed.execute("SELECT DISTINCT job_state FROM december.pool_job") == (("done",),)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO december.trainer (trainer_hash, trainer_fn) VALUES ('x', 'os.system')",
        "UPDATE december.trainer SET trainer_fn = 'os.system'",
        "UPDATE december.dataset SET dataset_fn = 'os.system'",
        "INSERT INTO december.model (model_hash, model_fn) VALUES ('x', 'os.system')",
        "INSERT INTO december.training_plan SELECT * FROM december.training_plan",
        "DELETE FROM december.__trained_model",
        "UPDATE december.__cluster_assignment__session SET data_key = 'x'",
        "DELETE FROM december.`~external_minio`",
        "CREATE TABLE december.new (number INT)",
        "DROP TABLE december.pool",
        "ALTER TABLE december.pool ADD COLUMN number INT",
        "DROP DATABASE december",
        "INSERT INTO nnfabrik_core.seed VALUES (1)",
        "CREATE USER 'more'@'%'",
    ],
)
def test_worker_cannot(statement: str, lab: Lab) -> None:
    assert lab.refused("worker", statement)


def test_worker_cannot_register(lab: Lab) -> None:
    path = lab.folder / "another.yaml"
    content = yaml.safe_load((lab.folder / "sweep.yaml").read_text())
    content["trainers"][0]["config"]["n_clusters"] = 3
    path.write_text(yaml.safe_dump(content))
    printed = lab.run("worker", "register", str(path), "--fabrikant", "december_admin", code=1)
    address = f"127.0.0.1:{lab.server.settings.port}"
    assert printed == (
        "december: error: User 'december_worker'@'%' may not INSERT in the table `december`.`trainer` on the database "
        f"server {address}. What the roles admin, worker and reader may do is in docs/security.md; the server's "
        "administrator grants only this right with:\n    GRANT INSERT ON `december`.`trainer` TO "
        "'december_worker'@'%';\n"
    )


def test_models_are_imported_by_the_admin_alone(lab: Lab) -> None:
    np.save(lab.folder / "readouts.npy", np.random.default_rng(0).normal(size=(9, 3)))
    models = {"models": [{"name": "imported", "readouts": "readouts.npy"}]}
    (lab.folder / "models.yaml").write_text(yaml.safe_dump(models))
    printed = lab.run("worker", "import", "models.yaml", "--fabrikant", "december_admin", code=1)
    assert "User 'december_worker'@'%' may not INSERT in the table `december`.`dataset`" in printed
    printed = lab.run("admin", "import", "models.yaml")
    assert "  TrainedModel      1 new     0 existing\n" in printed
    lab.execute("DELETE FROM december.__trained_model__model_storage WHERE trainer_fn LIKE '%%imported_trainer'")
    lab.execute("DELETE FROM december.__trained_model WHERE trainer_fn LIKE '%%imported_trainer'")


# ---- reader


def test_reader_sees_status_and_agreement(computed: Lab) -> None:
    assert "2 trainings planned" in computed.run("reader", "status")
    assert "DECEMber" in computed.run("reader", "ari")
    computed.run("reader", "jobs", "show")
    computed.run("reader", "status", "--json")


def test_reader_needs_no_store(computed: Lab) -> None:
    settings = {"stores": {"minio": {"protocol": "file", "location": "/nowhere/to/be/found"}}}
    place = computed.folder / "dj_local_conf.json"
    place.write_text(json.dumps(settings))
    try:
        computed.run("reader", "status")
        computed.run("reader", "ari")
        assert "The folder /nowhere/to/be/found" in computed.run("worker", "worker", code=1)
    finally:
        place.unlink()


def test_reader_loads_a_model_as_the_page_says(computed: Lab) -> None:
    restricted, own_program = (block.text for block in PYTHON)
    code = (
        "from december_plugin import open_lab, results\n"
        "tables = open_lab(create=False).tables\n"
        "assignment = tables.ClusterAssignment & 'seed = 1'\n"
        f"{restricted}"
        "print(type(model).__name__, len(loaders['train']))\n"
        "import os\n"
        "text = 'logged in with ' + os.environ['DJ_PASS']\n"
        f"{own_program}"
    )
    done = warm.run(
        [sys.executable, "-c", code],
        cwd=computed.folder,
        env=computed.environment("reader"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split()[1] == "2"
    assert second == "logged in with ***"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO december.seed VALUES (9)",
        "UPDATE december.__trained_model SET score = 1",
        "DELETE FROM december.`~jobs`",
        "INSERT INTO december.`~log` (event) VALUES ('x')",
        "UPDATE december.pool SET stop_requested = 1",
        "CREATE TABLE december.new (number INT)",
        "DROP TABLE december.pool",
    ],
)
def test_reader_cannot(statement: str, lab: Lab) -> None:
    assert lab.refused("reader", statement)


def test_reader_who_starts_a_worker_is_told_why_it_ends(lab: Lab) -> None:
    printed = lab.run("reader", "worker", code=1)
    assert "december: error: User 'december_reader'@'%' may not INSERT" in printed
    assert "What the roles admin, worker and reader may do is in docs/security.md" in printed


def test_account_without_the_common_schema_is_told_to_ask_for_select(lab: Lab) -> None:
    right = r"SELECT ON `nnfabrik\_core`.*"
    lab.execute(f"REVOKE {right} FROM 'december_reader'@'%'")
    try:
        printed = lab.run("reader", "status", code=1)
    finally:
        lab.execute(f"GRANT {right} TO 'december_reader'@'%'")
    assert "User 'december_reader'@'%' may not use nnfabrik's common schema `nnfabrik_core` on the database" in printed
    assert f"\n    GRANT {right} TO 'december_reader'@'%';\n" in printed
    lab.run("reader", "status")


def test_admin_without_the_right_to_create_is_told_so(lab: Lab) -> None:
    lab.execute("CREATE DATABASE other")
    printed = lab.run("worker", "status", "--schema", "other", code=1)
    assert "there are no december tables in the schema 'other' yet." in printed
    assert "and that your account may read them." in printed

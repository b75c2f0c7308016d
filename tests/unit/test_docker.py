"""What the image is made of and what compose starts: linted, pinned, without secrets. Docker itself is not needed."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)  # merges (<<) are resolved
OURS = ("bucket", "worker", "cpu", "admin")
TOOLS = Path(sys.executable).parent


def run(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dockerfile_is_linted() -> None:
    assert run(TOOLS / "hadolint", "--failure-threshold", "style", "docker/Dockerfile") == ""


def test_compose_file_fits_its_schema() -> None:
    assert "ok" in run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


@pytest.mark.parametrize("script", ["make-secrets", "mysql-accounts.sh", "pin-images"])
def test_shell_scripts_can_be_read(script: str) -> None:
    shell = (DOCKER / script).read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    run(shell, "-n", DOCKER / script)


# ---- pinned, and as an ordinary user


def images() -> dict[str, str]:
    """Return the images of others, by the variable that replaces each."""
    found = dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", COMPOSE_TEXT))
    found.pop("DECEMBER_IMAGE")
    return found


def test_images_are_pinned_to_a_version_and_can_be_to_a_digest() -> None:
    assert set(images()) == {"MYSQL_IMAGE", "MINIO_IMAGE", "PYTHON_IMAGE"}
    for image in images().values():
        assert re.search(r":(\d+\.\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT)", image), image
    used = [service["image"] for name, service in COMPOSE["services"].items() if name not in OURS]
    assert used == [f"${{{name}:-{images()[name]}}}" for name in ("MYSQL_IMAGE", "MINIO_IMAGE")]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert f"\nARG PYTHON_IMAGE={images()['PYTHON_IMAGE']}\n" in DOCKERFILE


def pin(folder: Path, inspected: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a docker that answers like this."""
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\ncase $1 in pull) echo pulled ;; image) echo "{inspected}" ;; esac\n')
    program.chmod(0o755)
    return subprocess.run(
        [DOCKER / "pin-images", folder / ".env"],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_digests_are_written_for_compose(tmp_path: Path) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    (tmp_path / ".env").write_text("DECEMBER_BIND=10.0.0.1\nMYSQL_IMAGE=mysql:8.0.0@sha256:old\n")
    for _ in range(2):
        done = pin(tmp_path, f"registry.example/any@{digest}")
        assert (done.returncode, done.stdout.count("\n")) == (0, 3)
        lines = (tmp_path / ".env").read_text().splitlines()
        assert lines == ["DECEMBER_BIND=10.0.0.1", *(f"{name}={image}@{digest}" for name, image in images().items())]
    refused = pin(tmp_path, "<no value>")
    assert refused.returncode == 1
    assert refused.stderr.endswith("docker names no digest of mysql:8.4.8: '<no value>'\n")
    assert (tmp_path / ".env").read_text().splitlines() == lines


def test_logs_and_binary_logs_have_an_end() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}, name
    assert COMPOSE["services"]["mysql"]["command"] == ["--binlog-expire-logs-seconds=259200"]


def test_root_of_the_database_comes_from_nowhere_else() -> None:
    assert COMPOSE["services"]["mysql"]["environment"]["MYSQL_ROOT_HOST"] == "localhost"


def test_packages_are_pinned_and_not_cached() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert len(installs) == 3
    assert all("--constraint" in line or "--no-deps" in line for line in installs)
    assert "PIP_NO_CACHE_DIR=1" in DOCKERFILE
    assert "apt-get" not in DOCKERFILE


def test_nnfabrik_is_told_that_there_is_no_git() -> None:
    assert "GIT_PYTHON_REFRESH=quiet" in DOCKERFILE


def test_containers_have_no_rights() -> None:
    assert DOCKERFILE.index("\nUSER ${UID}:${UID}\n") < DOCKERFILE.index("\nENTRYPOINT ")
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["user"] == "${DECEMBER_UID:-10001}:${DECEMBER_UID:-10001}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_context_of_the_image_has_what_it_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = {line[1:] for line in patterns if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, flags=re.MULTILINE)
        for word in line.split()[:-1]
        if not word.startswith("--")
    } | set(re.findall(r"type=bind,source=([\w.]+)", DOCKERFILE))
    assert allowed == copied
    assert not [name for name in allowed if not (ROOT / name).exists()]


# ---- secrets


def test_no_secret_is_written_anywhere() -> None:
    words = re.compile(r"(pass|password|secret_key|access_key)\s*[:=]\s*(?P<value>\S+)", re.IGNORECASE)
    for text in (DOCKERFILE, COMPOSE_TEXT):
        for match in words.finditer(text):
            assert match["value"].startswith(("{file:", '"$')), match[0]
    assert not re.search(r"^(ARG|ENV).*(PASS|SECRET|KEY|TOKEN)", DOCKERFILE, flags=re.MULTILINE)


def test_services_get_secrets_as_files_of_the_names_that_are_looked_for() -> None:
    known = set(COMPOSE["secrets"])
    for name, service in COMPOSE["services"].items():
        secrets = service["secrets"]
        assert {secret if isinstance(secret, str) else secret["source"] for secret in secrets} <= known
        environment = service["environment"]
        assert not [
            key for key in environment if key.endswith(("PASS", "PASSWORD", "KEY", "USER")) and key != "DJ_USER"
        ]
        for key, path in environment.items():
            if key.endswith("_FILE") and key != "DECEMBER_SETTINGS_FILE":
                assert Path(path).name in secrets
        if name in OURS:
            targets = {secret["target"]: secret["source"] for secret in secrets}
            needed = {"dj_pass", "december_store_access_key", "december_store_secret_key"}
            accounts = {f"{role}_{kind}_key" for role in ("worker", "admin") for kind in ("access", "secret")}
            assert set(targets) == (needed | accounts if name == "bucket" else needed)


def test_only_the_bucket_s_service_has_the_root_key_of_the_store() -> None:
    for name, service in COMPOSE["services"].items():
        sources = {secret if isinstance(secret, str) else secret["source"] for secret in service["secrets"]}
        assert bool(sources & {"store_root_user", "store_root_password"}) == (name in ("minio", "bucket")), name
        if name in ("worker", "cpu"):
            assert sources == {"worker_password", "store_access_key", "store_secret_key"}


@pytest.fixture(scope="module")
def make_bucket() -> Any:
    spec = importlib.util.spec_from_file_location("make_bucket", DOCKER / "make_bucket.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def allows(policy: dict[str, Any], action: str, resource: str) -> bool:
    """Decide as S3 does: what is denied anywhere is denied, what is allowed nowhere, too."""
    effects = {
        rule["Effect"]
        for rule in policy["Statement"]
        if f"s3:{action}" in rule["Action"]
        and any(fnmatch.fnmatchcase(f"arn:aws:s3:::{resource}", pattern) for pattern in rule["Resource"])
    }
    return effects == {"Allow"}


@pytest.mark.parametrize(
    ("action", "resource", "worker", "admin"),
    [
        ("ListBucket", "lab", True, True),
        ("GetObject", "lab/models/december/a", True, True),
        ("PutObject", "lab/models/december/a", True, True),
        ("DeleteObject", "lab/models/december/a", False, True),  # models
        ("DeleteObject", "lab/models/december_checkpoints/december/__trained_model/a", True, True),
        ("GetObject", "lab/models/december-store.txt", True, True),
        ("PutObject", "lab/models/december-store.txt", False, True),  # the mark of the store
        ("PutObject", "lab/other/a", False, False),
        ("GetObject", "other/models/a", False, False),
        ("ListBucket", "other", False, False),
        ("DeleteBucket", "lab", False, False),
        ("PutBucketPolicy", "lab", False, False),
    ],
)
def test_accounts_of_the_store(make_bucket: Any, action: str, resource: str, worker: bool, admin: bool) -> None:
    for role, expected in {"worker": worker, "admin": admin}.items():
        assert allows(make_bucket.policy(role, "lab", "models"), action, resource) is expected
    whole = make_bucket.policy("admin", "lab", "")
    assert allows(whole, "DeleteObject", "lab/a")


def test_names_in_the_policy_are_those_of_the_plugin(make_bucket: Any) -> None:
    from december_plugin.pool.worker.checkpoints import CHECKPOINTS
    from december_plugin.storage.base import MARK

    assert (make_bucket.CHECKPOINTS, make_bucket.MARK) == (CHECKPOINTS, MARK)


def test_secrets_stay_out_of_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/docker/secrets/" in ignored
    assert "/docker/.env" in ignored


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    said = run(DOCKER / "make-secrets", folder).splitlines()
    assert said == [f"made {folder / name}" for name in COMPOSE["secrets"]]
    assert folder.stat().st_mode & 0o777 == 0o700
    secrets = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(secrets) == set(COMPOSE["secrets"])
    assert all(re.fullmatch(r"[0-9a-f]{20}|[0-9a-f]{48}", secret) for secret in secrets.values())
    assert len(set(secrets.values())) == len(secrets)
    # Containers' users read them; the folder keeps everybody else on the host out.
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    again = run(DOCKER / "make-secrets", folder).splitlines()
    assert all(line.startswith("kept ") for line in again)
    assert {path.name: path.read_text() for path in folder.iterdir()} == secrets


# ---- what compose starts


def test_services_wait_for_what_they_need() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        for name, condition in service.get("depends_on", {}).items():
            needs_health = condition["condition"] == "service_healthy"
            assert not needs_health or "test" in services[name]["healthcheck"]
    assert set(services["worker"]["depends_on"]) == {"mysql", "bucket"}


def test_workers_have_gpus_and_time_to_drain() -> None:
    (device,) = COMPOSE["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    for name in ("worker", "cpu"):
        service = COMPOSE["services"][name]
        assert service["stop_grace_period"] == "2m"
        assert service["init"] is True
        assert service["restart"] == "unless-stopped"


def test_volumes_are_declared() -> None:
    used = {
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/", "$"))
    }
    assert used == set(COMPOSE["volumes"])


def test_health_check_is_the_command() -> None:
    assert re.search(r'^HEALTHCHECK .*CMD \["december", "health", "--outage-ok"\]$', DOCKERFILE, flags=re.MULTILINE)


def test_settings_of_a_project_are_not_mixed_with_the_container_s() -> None:
    for name in OURS:
        environment = COMPOSE["services"][name]["environment"]
        assert environment["DECEMBER_SETTINGS_FILE"] == (
            "${DECEMBER_SETTINGS_FILE:-" + environment["HOME"] + "/.datajoint_config.json}"
        )

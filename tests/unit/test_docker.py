"""What the image is made of and what compose starts: linted, pinned, without secrets. Docker itself is not needed."""

from __future__ import annotations

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


@pytest.mark.parametrize("script", ["make-secrets", "mysql-accounts.sh"])
def test_shell_scripts_can_be_read(script: str) -> None:
    shell = (DOCKER / script).read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    run(shell, "-n", DOCKER / script)


# ---- pinned, and as an ordinary user


def images() -> list[str]:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    return bases + [service["image"] for name, service in COMPOSE["services"].items() if name not in OURS]


def test_images_are_pinned_to_a_version() -> None:
    assert len(images()) == 4
    for image in images():
        assert re.search(r":(\d+\.\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT)", image), image


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
            if key.endswith("_FILE"):
                assert Path(path).name in secrets
        if name in OURS:
            targets = {secret["target"] for secret in secrets}
            assert targets == {"dj_pass", "december_store_access_key", "december_store_secret_key"}


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

"""The pages of docs/: every command that can run here is run, the others are held against what they name."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from december_plugin import __version__
from december_plugin.cli import build_parser, commands, main
from december_plugin.simulate import write_recording
from helpers import pages, warm
from helpers.driver import gpu, write_driver

pytestmark = pytest.mark.slow(3)

ROOT = Path(__file__).parents[2]
GUIDE_PAGE = "docs/running-on-your-gpus.md"
GUIDE, HELP = pages.text_of(GUIDE_PAGE), pages.text_of("docs/troubleshooting.md")
COMPOSE_TEXT = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SWEEP = {
    "seeds": [1, 2],
    "datasets": [
        {"fn": "december_plugin.datasets.static_loaders", "config": {"paths": [name], "batch_size": 32}}
        for name in ("static1-1-1", "static2-1-1")
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
COMMANDS = pages.claim((GUIDE_PAGE, "docs/tutorials/on-your-cluster.md"), "bash", starting="december ")
DOCKER = pages.claim(GUIDE_PAGE, "bash", starting=("docker ", "cd docker", "./make-secrets", "./pin-images"))
(PERSON,) = pages.claim(GUIDE_PAGE, "python")
(SETTINGS,) = pages.claim(GUIDE_PAGE, "json")
(SERVICE,) = pages.claim(GUIDE_PAGE, "ini")
SIGNALLED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def lab(database: Any, new_schema_name: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the folder of a sweep, one of whose recordings will be missing, and a driver that shows three GPUs."""
    folder = tmp_path_factory.mktemp("docs")
    for seed, name in enumerate(("static1-1-1", "static2-1-1")):
        write_recording(folder / name, seed=seed, n_neurons=8, n_train=40, n_validation=8, n_test=4, n_repeats=3)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    (folder / "webhook.txt").write_text("https://chat.lab.example/hooks/secret")
    (folder / "bin").mkdir()
    write_driver(folder / "bin", [gpu("NVIDIA A100", parts={})] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(folder / "bin"))
        patch.syspath_prepend(folder / "bin")
        patch.delitem(sys.modules, "pynvml", raising=False)
        patch.setenv("DECEMBER_SCHEMA", new_schema_name())
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        yield folder


def run_pool(words: list[str]) -> None:
    """Run a pool until two trainings are done and two have failed, then end it as the page says."""
    pool = warm.Popen(
        [sys.executable, "-m", "december_plugin.cli", *words],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        warm_children=True,
    )
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until and pool.poll() is None:
            time.sleep(2)
            table = trained()
            if (table["done"], table["failed"]) == (2, 2):
                break
        pool.send_signal(signal.SIGTERM)
        _, said = pool.communicate(timeout=60)
    finally:
        pool.kill()
    assert pool.returncode == SIGNALLED, said.decode()
    assert b"worker started" in said


def trained() -> dict[str, Any]:
    done = warm.run(
        [sys.executable, "-m", "december_plugin.cli", "status", "--json"], capture_output=True, text=True, check=False
    )
    tables = {table["table"]: table for table in json.loads(done.stdout)["tables"]}
    counts = tables["TrainedModel"]
    return {name: value if isinstance(value, int) else len(value) for name, value in counts.items() if name != "table"}


def failed_job(lab: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the hash of a job that had failed when it was first asked for: the page's JOB."""
    kept = lab / "job"
    if not kept.exists():
        capsys.readouterr()
        assert main(["jobs", "show"]) == 0
        printed = capsys.readouterr().out
        found = re.search(r"\b[0-9a-f]{8}\b", printed)
        assert found, printed
        kept.write_text(found[0])
    return kept.read_text()


def carry_out(command: pages.Piece, lab: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Run one line of the page; a pool that would not end, and what needs Slurm or a terminal, is only tried out."""
    words = command.words[1:]
    if "JOB" in words:
        words[words.index("JOB")] = failed_job(lab, capsys)
    if words[:1] == ["relocate"] and "--list" not in words:
        words[1:] = [str(lab / "static2-1-1"), str(lab / "lost")]  # which lost it was
    if words[:1] == ["forget"]:
        places = {"/data/recordngs": str(lab / "static2-1-1")}
        words = [*(places.get(word, word) for word in words), "--yes"]
    if words == ["pool"]:
        # The second recording is lost between registration and training.
        shutil.move(lab / "static2-1-1", lab / "lost")
        run_pool(words)
        return 0
    if words[0] == "pool" and words[1:2] not in (["status"], ["stop"]) and "--dry-run" not in words:
        words.append("--dry-run")
    if "--live" in words:
        build_parser().parse_args(words)
        return 0
    return main(words)


def test_commands(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        allowed = (0, 3) if command.words[1] == "status" else (0,)
        if command.words[1] == "health":  # the pool has ended
            allowed = (1,)
        code = carry_out(command, lab, capsys)
        captured = capsys.readouterr()
        assert code in allowed, f"{command} ended with {code}\n{captured.out}\n{captured.err}"


def test_person_of_the_page(lab: Path) -> None:
    namespace: dict[str, Any] = {}
    PERSON.run(namespace)
    people = namespace["open_lab"]().nnfabrik.Fabrikant
    assert (people & {"fabrikant_name": "ada"}).fetch1("dj_username") == "ada"


def test_settings_of_the_page(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datajoint

    from december_plugin.database.tls import check_tls_settings
    from december_plugin.security.allowed_modules import SETTING

    settings = json.loads(SETTINGS.text)
    known = {*datajoint.config, "database.use_tls", "stores", "december.schema", SETTING}
    assert set(settings) <= known
    check_tls_settings(settings["database.use_tls"])
    for store in (settings["stores"]["minio"], {"protocol": "file", "location": "/mnt/lab/december"}):
        monkeypatch.setitem(datajoint.config, "stores", {"minio": store})
        assert datajoint.config.get_store_spec("minio")["protocol"] == store["protocol"]
    assert str({"protocol": "file", "location": "/mnt/lab/december"}).replace("'", '"') in GUIDE


def test_service_of_the_page() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(SERVICE.text)
    assert unit["Service"]["ExecStart"].endswith("/bin/december pool")
    assert unit["Service"]["KillMode"] == "mixed"


# ---- what cannot run here


def test_docker_lines_name_what_exists() -> None:
    lines = [piece.words for piece in DOCKER if piece.words[:2] == ["docker", "compose"]]
    assert len(lines) > 7
    services = {*COMPOSE["services"]}
    for words in lines:
        rest = [word for word in words[3:] if not word.startswith("-") and "=" not in word]
        named = rest[:1] if words[2] == "run" else [word for word in rest if not word.isdigit()]
        assert set(named) <= services, words
        if words[2] == "run":
            assert rest[1] in commands.names()
    (folder,) = [piece.words[1] for piece in DOCKER if piece.words[0] == "cd"]
    scripts = [piece.text for piece in DOCKER if piece.text.startswith("./")]
    assert [script for script in scripts if not os.access(ROOT / folder / script, os.X_OK)] == []
    (build,) = [piece.words for piece in DOCKER if piece.words[:2] == ["docker", "build"]]
    image = build[build.index("--tag") + 1]
    assert (ROOT / build[build.index("--file") + 1]).exists()
    (start,) = [piece.words for piece in DOCKER if piece.words[:2] == ["docker", "run"]]
    build_parser().parse_args(["pool", *start[start.index(image) + 1 :]])
    assert image.split(":")[1] == __version__


def test_variables_of_the_compose_file_are_those_of_the_page() -> None:
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE_TEXT))
    assert len(re.findall(r"\$\{", COMPOSE_TEXT)) == len(re.findall(r"\$\{\w+:-[^}]*\}", COMPOSE_TEXT))
    table = GUIDE[GUIDE.index("Settings go into `docker/.env`") : GUIDE.index("`DECEMBER_PROJECT` must be readable")]
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\|", table, flags=re.MULTILINE)
    assert dict(rows) == used


def test_options_that_are_named_exist() -> None:
    parser = build_parser()
    actions: list[Any] = [parser]
    known: set[str] = set()
    while actions:
        for action in actions.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action.choices, dict):
                actions += action.choices.values()
    known |= {"--scale", "--profile", "--user", "--gpus", "--volume", "--cpus-per-task"}  # of docker and Slurm
    for page in (GUIDE, HELP):
        text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
        inline = " ".join(re.findall(r"`([^`]+)`", text))
        named = set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", inline))
        assert len(named) > 5
        assert named - known - {"--user", "--now", "--rm"} == set()


def test_files_and_links_exist() -> None:
    for page in (GUIDE, HELP):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page):
            assert (ROOT / "docs" / target).exists(), target
    names = {
        name for name in re.findall(r"`(docker/[\w./-]+)`", GUIDE) if name not in ("docker/.env", "docker/secrets")
    }
    assert [name for name in names if not (ROOT / name).exists()] == []

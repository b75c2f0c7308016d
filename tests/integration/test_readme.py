"""Every command and code block of the README and of the pages it begins with is run, on small simulated recordings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from december_plugin.cli import main
from december_plugin.schemas.lab import open_lab
from december_plugin.simulate import write_recording
from december_plugin.sweeps.parse import load_sweep
from helpers import pages

pytestmark = pytest.mark.slow(4)

ROOT = Path(__file__).parents[2]
# In the order in which they are run; the sweep is that of the page on sweeps.
NAMES = ("README.md", "docs/getting-started.md", "docs/sweeps.md", "docs/queries.md", "docs/architecture.md")
PAGES = {name: pages.text_of(name) for name in NAMES}
# Run elsewhere: test_backup.py, and tests/unit/answer/test_page.py. The last needs a terminal.
RUN_ELSEWHERE = ("december db", "december study", "december status --live")
COMMANDS = pages.claim(NAMES, "bash", starting="december ", but=RUN_ELSEWHERE)
PYTHON = pages.claim(NAMES, "python")
(README_SWEEP,) = pages.claim("README.md", "yaml")
SWEEP, SURROGATES = pages.claim("docs/sweeps.md", "yaml")


@pytest.fixture(scope="module")
def lab(database, new_schema_name, tmp_path_factory):
    """Write the sweep of the page on sweeps with its recordings; return the schema and the folder."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sweep.yaml").write_text(SWEEP.text, encoding="utf-8")
    sizes = {"n_neurons": 12, "n_train": 64, "n_validation": 12, "n_test": 4, "n_repeats": 3}
    for seed, path in enumerate(yaml.safe_load(SWEEP.text)["datasets"][0]["config"]["paths"], start=1):
        write_recording(folder / path, seed=seed, **sizes)
        np.save(folder / path / "meta" / "neurons" / "unit_ids.npy", np.arange(12))  # the units that the README names
    for seed in (1, 2, 3):
        np.save(folder / f"seed{seed}.npy", np.random.default_rng(seed).normal(size=(40, 4)))
    labels = [f"1-1-1,{unit},{'ON' if unit % 2 else 'OFF'}" for unit in range(12)]
    (folder / "labels.csv").write_text("\n".join(["data_key,unit_id,type", *labels]), encoding="utf-8")
    schema = new_schema_name()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DECEMBER_PRETRAINING", str(folder / "pretraining"))
        patch.setenv("DECEMBER_SCHEMA", schema)
        yield schema, folder


def test_commands(lab, capsys):
    schema, folder = lab
    commands = {" ".join(command.words): command.words for command in COMMANDS}  # each once
    for command, (_, *words) in commands.items():
        if words == ["pool"]:  # goes on until it is told to stop
            words += ["--cpu", "1", "--idle-exit", "1"]
        assert main(words) == 0, f"{command}\n{capsys.readouterr().err}"
    printed = capsys.readouterr().out
    assert "The sweep is valid. It plans 12 trainings" in printed
    assert len(open_lab(schema=schema).tables.TrainedModel()) == 12
    assert (folder / "agreement.csv").stat().st_size > 0
    assert (folder / "report.html").stat().st_size > 0
    assert (folder / "numbers" / "agreement.csv").stat().st_size > 0
    assert any((folder / "figures").glob("*.pdf"))


def test_the_sweep_of_the_readme(lab):
    _, folder = lab
    path = folder / "readme.yaml"
    path.write_text(README_SWEEP.text, encoding="utf-8")
    assert main(["register", str(path), "--dry-run"]) == 0
    assert [entry.n_draws for entry in load_sweep(path).surrogates] == [99]
    assert len(README_SWEEP.text.splitlines()) <= 22


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_a_sweep_with_surrogates(lab):
    _, folder = lab
    path = folder / "with_surrogates.yaml"
    path.write_text(SWEEP.text + SURROGATES.text, encoding="utf-8")
    assert [entry.n_draws for entry in load_sweep(path).surrogates] == [99]


def test_code_blocks(lab, capsys):
    schema, folder = lab
    namespace = {"schema_name": schema, "fabrikant": "december"}
    for block in PYTHON:
        block.run(namespace)
    assert sorted(set(namespace["study"].agreement["n_clusters"])) == [3, 4, 5, 6]
    assert (folder / "answer.html").stat().st_size > 0
    table, tables = namespace["table"], namespace["tables"]
    assert set(table["method"]) == {"december", "gmm", "kmeans", "t_mixture"}
    assert set(table["trainer_role"]) == {"december", "baseline", "control"}
    assert (table["n_pairs"] == 3).all()
    assert table["test_correlation_mean"].notna().all()
    assert sorted(namespace["neuron"].query("method == 'december' and n_clusters == 3")["seed"]) == [1, 2, 3]
    assert (namespace["stable"]["stability"] == 1).all()
    assert len(namespace["best"]) > 0
    assert namespace["null"].empty
    assert set(namespace["consensus"]["n_seeds"]) == {3}
    assert namespace["confusion"].to_numpy().sum() == 12  # every neuron once
    assert set(namespace["loaders"]) == {"train", "validation", "test"}
    assert list(namespace["model"].readout.keys()) == ["1-1-1", "2-1-1"]
    assert {row["seed"] for row in namespace["rows"]} == {1, 2, 3}
    assert len(tables.LabelAgreement & {"types_name": "my types"}) == len(tables.ClusterAssignment())


def test_files_that_are_named_exist():
    folders = ("december_plugin", "examples", "benchmarks", "docs", "tests", "schemas")
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"`([\w./]+)`", text)) - {"schemas/X"}  # a name for many
    names = [name for name in named if name.split("/")[0] in folders and "/" in name]
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_links_lead_somewhere():
    links = [
        (ROOT / page, target.split("#")[0])
        for page in pages.PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", pages.text_of(page))
        if not target.startswith(("http", "#", "mailto:"))
    ]
    assert len(links) > 100
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []

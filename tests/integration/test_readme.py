"""Every command and code block of the README and of the pages it begins with is run, on small simulated recordings."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from december_plugin.cli import main
from december_plugin.schemas.lab import open_lab
from december_plugin.simulate import write_recording
from december_plugin.sweeps.parse import load_sweep

pytestmark = pytest.mark.slow(4)

ROOT = Path(__file__).parents[2]
# In the order in which they are run; the sweep is that of the page on sweeps.
NAMES = ("README.md", "docs/getting-started.md", "docs/sweeps.md", "docs/queries.md", "docs/architecture.md")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README, SWEEPS = PAGES["README.md"], PAGES["docs/sweeps.md"]
# Run elsewhere: test_{server,packaging,demo,pool,status}.py, and tests/unit/answer/test_page.py.
RUN_ELSEWHERE = ("december db", "pip install", "december demo", "december status --live", "december study")


def blocks(language: str, text: str = "\n".join(PAGES.values())) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def shell_lines() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def lab(database, new_schema_name, tmp_path_factory):
    """Write the sweep of the page on sweeps with its recordings; return the schema and the folder."""
    folder = tmp_path_factory.mktemp("readme")
    (sweep,) = [block for block in blocks("yaml", SWEEPS) if "seeds:" in block]
    (folder / "sweep.yaml").write_text(sweep, encoding="utf-8")
    sizes = {"n_neurons": 12, "n_train": 64, "n_validation": 12, "n_test": 4, "n_repeats": 3}
    for seed, path in enumerate(yaml.safe_load(sweep)["datasets"][0]["config"]["paths"], start=1):
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
    commands = [line for line in shell_lines() if line.startswith("december ")]
    assert commands == [
        line.split("#")[0].strip()
        for text in PAGES.values()
        for line in re.findall(r"^december [a-z].*", text, re.MULTILINE)
    ]
    for command in dict.fromkeys(line for line in commands if not line.startswith(RUN_ELSEWHERE)):
        words = shlex.split(command)[1:]
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
    (block,) = blocks("yaml", README)
    path = folder / "readme.yaml"
    path.write_text(block, encoding="utf-8")
    assert main(["register", str(path), "--dry-run"]) == 0
    assert [entry.n_draws for entry in load_sweep(path).surrogates] == [99]
    assert len(block.splitlines()) <= 22


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_a_sweep_with_surrogates(lab):
    _, folder = lab
    (block,) = [block for block in blocks("yaml", SWEEPS) if "seeds:" not in block]
    path = folder / "with_surrogates.yaml"
    path.write_text((folder / "sweep.yaml").read_text(encoding="utf-8") + block, encoding="utf-8")
    assert [entry.n_draws for entry in load_sweep(path).surrogates] == [99]


def test_code_blocks(lab, capsys):
    schema, folder = lab
    namespace = {"schema_name": schema, "fabrikant": "december"}
    for name, text in PAGES.items():
        for block in blocks("python", text):
            exec(compile(block, name, "exec"), namespace)
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


def test_make_targets_exist():
    targets = [line.split()[1] for line in shell_lines() if line.startswith("make ")]
    assert set(targets) == {"demo", "test"}
    for target in set(targets):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_shell_line_is_accounted_for():
    known = ("make ", "december ", "pip install .")
    assert [line for line in shell_lines() if not line.startswith(known)] == []


def test_files_that_are_named_exist():
    folders = ("december_plugin", "examples", "benchmarks", "docs", "tests", "schemas")
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"`([\w./]+)`", text)) - {"schemas/X"}  # a name for many
    names = [name for name in named if name.split("/")[0] in folders and "/" in name]
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, target.split("#")[0])
        for page in pages
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http", "#", "mailto:"))
    ]
    assert len(links) > 100
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []

"""The sweeps that come with the package, and ``december sweeps``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from december_plugin.cli import main
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.sweeps.laptop_recordings import RECIPES
from december_plugin.sweeps.parse import load_sweep
from december_plugin.sweeps.shipped import FOLDER, copy_sweep, find_sweep, names, shipped_path, summary
from december_plugin.sweeps.training_time import most_epochs

PAPER = [name for name in names() if name.startswith("paper/")]
GUIDE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text(encoding="utf-8")
LAPTOP = [name for name in names() if name.startswith("laptop/")]


@pytest.mark.parametrize("name", names())
def test_each_is_valid(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(shipped_path(name), folder=tmp_path)
    roles = {entry.fn.rpartition(".")[2] for entry in sweep.trainers}
    controls = [entry for entry in sweep.trainers if entry.config.get("stop_after_pretraining")]
    assert "baseline_trainer" in roles
    assert f"`{name}` ({sweep.n_trainings}" in GUIDE
    if name in PAPER:
        assert f" {sweep.n_trainings} trainings x " in shipped_path(name).read_text(encoding="utf-8")
    # A DECEMber number never stands alone: its control, at the same pretraining, and the post hoc methods.
    december = [entry.config for entry in sweep.trainers if entry.fn.endswith("december_trainer")]
    assert {config["pretrain_epochs"] for config in december} == {
        entry.config["pretrain_epochs"] for entry in controls
    } or not december
    counts = {config["n_clusters"] for config in december}
    for method in ("gmm", "kmeans", "t_mixture"):
        assert counts <= {entry.n_clusters for entry in sweep.clusterings if entry.method == method}
    assert len(sweep.seeds) >= (3 if name in PAPER else 2)
    for entry in sweep.datasets:
        paths = [value for key, value in entry.config.items() if re.search(r"(^|_)paths?$", key)]
        assert paths
        for path in (path for value in paths for path in ([value] if isinstance(value, str) else value)):
            assert Path(path).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", PAPER)
def test_each_of_the_paper_says_what_it_is_and_has_a_small_version(name: str) -> None:
    text = shipped_path(name).read_text(encoding="utf-8")
    head = text.partition("\nseeds:")[0]
    assert re.search(r"Figures? \d", head)
    assert re.search(r"Compute.*GPU", head, re.DOTALL)
    assert "What the paper does not specify" in head
    assert name.replace("paper/", "laptop/") in names()


@pytest.mark.parametrize("name", LAPTOP)
def test_each_small_version_is_small_and_has_its_data(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(shipped_path(name), folder=tmp_path)
    epochs = [most_epochs(entry.fn, entry.config) or 0 for entry in sweep.trainers]
    assert sum(epochs) * len(sweep.seeds) * len(sweep.datasets) * len(sweep.models) <= 1800
    assert len(sweep.seeds) == 3
    for method in ("gmm", "kmeans", "t_mixture"):
        assert len({entry.n_clusters for entry in sweep.clusterings if entry.method == method}) >= 3
    counts = {entry.config["n_clusters"] for entry in sweep.trainers if "n_clusters" in entry.config}
    assert not counts or len(counts) >= 3
    (surrogate,) = sweep.surrogates
    assert 1 / (surrogate.n_draws + 1) <= SIGNIFICANT
    plain = name.partition("/")[2]
    written = {path for path, _, _ in RECIPES[plain](tmp_path / "recordings")}
    asked = set()
    for entry in sweep.datasets:
        for key, value in entry.config.items():
            if re.search(r"(^|_)paths?$", key):
                asked |= {Path(path) for path in ([value] if isinstance(value, str) else value)}
    assert all(any(path.is_relative_to(each) for each in written) for path in asked)
    assert all(any(path.is_relative_to(each) for path in asked) for each in written)
    assert f"paper/{plain}" in PAPER or name == "laptop/spaces"  # which no experiment of the paper compares
    assert f"december sweeps data {name} FOLDER" in shipped_path(name).read_text(encoding="utf-8")


def test_every_recipe_has_a_sweep() -> None:
    assert {f"laptop/{name}" for name in RECIPES} == set(LAPTOP)


def test_list_show_and_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweeps", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == names()
    assert all(len(line) < 125 for line in lines)
    assert main(["sweeps", "show", "paper/mouse-v1-strength"]) == 0
    shown = capsys.readouterr().out
    assert shown == (FOLDER / "paper" / "mouse-v1-strength.yaml").read_text()
    assert main(["sweeps", "copy", "paper/mouse-v1-strength.yaml", str(tmp_path / "new")]) == 0
    copy = tmp_path / "new" / "mouse-v1-strength.yaml"
    assert capsys.readouterr().out == (f"Wrote {copy}. Put your own folders into it, then: december register {copy}\n")
    assert copy.read_text() == shown
    copy.write_text("mine")
    with pytest.raises(SettingsError, match=r"mouse-v1-strength\.yaml exists already and differs\. Choose another"):
        copy_sweep("paper/mouse-v1-strength", tmp_path / "new")


def test_data_for_a_sweep_of_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweeps", "data", "paper/mouse-v1-strength", str(tmp_path)]) == 1
    assert "simulated ones are written only for the sweeps under laptop/." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = FOLDER / "paper" / "mouse-v1-strength.yaml"
    assert find_sweep("paper/mouse-v1-strength") == (shipped, tmp_path)
    with pytest.raises(SettingsError, match=r"there is no shipped sweep 'paper/mouse'\. Did you mean|Allowed: laptop/"):
        find_sweep("paper/mouse")
    with pytest.raises(
        SettingsError, match=r"the sweep sweep\.yaml cannot be read: No such file or directory\. Name a"
    ):
        find_sweep("sweep.yaml")
    # A file of one's own comes first.
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mouse-v1-strength").write_text("")
    assert find_sweep("paper/mouse-v1-strength") == (Path("paper/mouse-v1-strength"), tmp_path / "paper")


def test_registering_a_shipped_sweep_whose_recordings_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["register", "paper/mouse-v1-strength"]) == 1
    error = capsys.readouterr().err
    assert f"there is no recording {tmp_path}/recordings/static21067-10-18-GrayImageNet" in error
    assert "`december sweeps copy paper/mouse-v1-strength FOLDER`, put your folders into the copy, and regi" in error


def test_summaries_are_sentences() -> None:
    assert all(summary(name).endswith(".") for name in names())
    assert all(yaml.safe_load(shipped_path(name).read_text()) for name in names())

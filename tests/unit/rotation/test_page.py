"""docs/rotation-invariant-clustering.md: its code runs, one block after the other, and its sweep is read."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

from december_plugin.models import equivariant_core_gaussian_readout
from december_plugin.sweeps.parse import parse_evaluations
from helpers import pages

ROOT = Path(__file__).parents[3]
PAGE = pages.text_of("docs/rotation-invariant-clustering.md")
PYTHON = pages.claim("docs/rotation-invariant-clustering.md", "python")
(SWEEP,) = pages.claim("docs/rotation-invariant-clustering.md", "yaml")
N = 60


@pytest.fixture
def names():
    info = {"session1": {"input_dimensions": [1, 1, 36, 36], "output_dimension": N}}
    model = equivariant_core_gaussian_readout(
        *(None, 0),
        data_info=info,
        features=2,
        orientations=8,
        layers=1,
        input_kern=7,
        hidden_kern=3,
        grid_mean_predictor=None,
        bias_start="zero",
    )
    model.readout["session1"].features.data.normal_(generator=torch.Generator().manual_seed(0))
    dataset = TensorDataset(torch.randn(20, 1, 36, 36), torch.zeros(20, N))
    dataset.neurons = SimpleNamespace(unit_ids=np.arange(N))
    return {"model": model, "dataloaders": {"train": {"session1": DataLoader(dataset, batch_size=10)}}}


@pytest.mark.slow(3)
def test_the_code_of_the_page_runs(names, capsys):
    first, *others = PYTHON
    first.run(names)
    assert capsys.readouterr().out == "1.0\n"
    for block in others:
        block.run(names)
    assert names["readouts"].shape == names["aligned"].shape == names["by_function"].shape == (N, 16)
    assert names["n_clusters"] in names["counts"]
    assert len(names["blocks"].labels) == names["n_clusters"]
    assert len(names["of_amplitudes"].labels) == len(names["of_control"]) == N


def test_the_sweep_of_the_page_is_read():
    found = parse_evaluations(yaml.safe_load(SWEEP.text))
    assert len(found.clusterings) == 9
    assert found.mistakes == []
    assert [each.threshold for each in found.cluster_confusion] == [0.5]
    assert [each.per_cluster for each in found.exciting_images] == [16]


def test_links_and_scripts_exist():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    titles = re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
    scripts = re.findall(r"python ((?:studies|benchmarks)/\S+\.py)", PAGE)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)

"""Neurons as AnnData: one row each, with what every model and clustering says of it. Needs the extra [anndata]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from december_plugin.bundles import annotated_neurons
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.errors import MissingExtraError

VECTORS = {1: np.arange(8, dtype=np.float32).reshape(4, 2), 2: -np.arange(6, dtype=np.float32).reshape(3, 2)}
UNITS = {1: [("a", 5), ("a", 3), ("b", 5), ("b", 7)], 2: [("b", 7), ("a", 3), ("c", 1)]}
DATASET = {"dataset_fn": "loaders", "dataset_hash": "0123456789"}
COVARIANCE = np.array([[2.0, 0.5], [0.5, 1.0]])


def neurons(units: list[tuple[str, int]], **columns: object) -> pd.DataFrame:
    keys, ids = zip(*units, strict=True)
    return pd.DataFrame({"data_key": keys, "unit_id": ids, **columns})


FRAMES = {
    "trainings": pd.DataFrame([{"training": number, **DATASET, "seed": number} for number in (1, 2)]),
    "agreement": pd.DataFrame([{"configuration": 4, **DATASET, "label": "k-means", "locked_in": None}]),
    "assignments": pd.concat(
        [
            neurons(UNITS[1], cluster=[0, 10, 2, -1]).assign(configuration=4, seed=1),
            neurons(UNITS[2], cluster=[1, 1, 0]).assign(configuration=4, seed=2),
        ]
    ),
    "consensus_neurons": neurons([("a", 3), ("b", 7)], cluster=[1, 0], stability=[1.0, 0.5]).assign(configuration=4),
    "performance_neurons": neurons(UNITS[2], test_correlation=[0.1, 0.2, np.nan]).assign(training=2),
    "types": neurons([("a", 5), ("c", 1)], type=["x", "y"]).assign(types_name="of/mine"),
}


def readouts(training: int) -> ReadoutEmbeddings:
    keys, ids = zip(*UNITS[training], strict=True)
    return ReadoutEmbeddings(VECTORS[training], np.array(keys), np.arange(len(ids)), np.array(ids))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtraError, match=r'Install it: pip install "december-plugin\[anndata\]"'):
        annotated_neurons(FRAMES.__getitem__, readouts=readouts, covariance=lambda _: None, provenance={})


def test_every_neuron_has_what_is_known_of_it(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    found = annotated_neurons(
        FRAMES.__getitem__,
        readouts=readouts,
        covariance=lambda number: COVARIANCE if number == 2 else None,
        provenance={"made": "today"},
    )
    assert list(found) == ["012345"]
    found["012345"].write_h5ad(tmp_path / "neurons.h5ad")
    data = anndata.read_h5ad(tmp_path / "neurons.h5ad")
    assert data.obs_names.tolist() == ["a:5", "a:3", "b:5", "b:7", "c:1"]
    assert data.obs["unit_id"].tolist() == [5, 3, 5, 7, 1]
    assert set(data.obsm) == {"readout_1", "readout_2", "functional_2"}
    assert data.obsm["readout_1"].dtype == np.float32
    nan = [np.nan, np.nan]
    np.testing.assert_array_equal(data.obsm["readout_1"], [*VECTORS[1].tolist(), nan])
    second = [nan, VECTORS[2][1].tolist(), nan, VECTORS[2][0].tolist(), VECTORS[2][2].tolist()]
    np.testing.assert_array_equal(data.obsm["readout_2"], second)
    functional = data.obsm["functional_2"][[3, 1, 4]]
    np.testing.assert_allclose(functional @ functional.T, VECTORS[2] @ COVARIANCE @ VECTORS[2].T, rtol=1e-6)

    def shown(column: str) -> list[str]:
        return ["" if pd.isna(value) else str(value) for value in data.obs[column]]

    assert shown("cluster_4_seed1") == ["0", "10", "2", "", ""]
    assert data.obs["cluster_4_seed1"].cat.categories.tolist() == ["0", "2", "10"]
    assert shown("cluster_4_seed2") == ["", "1", "", "1", "0"]
    assert shown("cluster_4") == ["", "1", "", "0", ""]
    assert shown("stability_4") == ["", "1.0", "", "0.5", ""]
    assert shown("test_correlation_2") == ["", "0.2", "", "0.1", ""]
    assert shown("type_of_mine") == ["x", "", "", "", "y"]
    assert data.uns["trainings"]["seed"].tolist() == [1, 2]
    assert data.uns["configurations"]["label"].tolist() == ["k-means"]
    assert json.loads(data.uns["provenance"]) == {"made": "today"}

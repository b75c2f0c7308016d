"""A study of the neurons that their models predict well enough: which are clustered, compared and counted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from december_plugin.answer import Study, study_readouts
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.errors import DecemberError
from december_plugin.evaluation.null import null_agreement

N, LEAST = 80, 0.3
QUICK: dict[str, Any] = {"kmeans": {"n_init": 2}}


def readouts(n_models: int = 3) -> list[np.ndarray]:
    """Return models of three types, each in a basis of its own and with noise of its own."""
    rng = np.random.default_rng(0)
    tuning = 3 * rng.normal(size=(3, 4))[np.arange(N) % 3] + rng.normal(size=(N, 4))
    return [tuning @ np.linalg.qr(rng.normal(size=(4, 4)))[0] + rng.normal(size=(N, 4)) for _ in range(n_models)]


def correlations(n_models: int = 3) -> np.ndarray:
    values = np.random.default_rng(1).uniform(0.0, 0.8, (n_models, N))
    values[:, 0] = np.nan
    return values


@pytest.fixture(scope="module")
def study() -> Study:
    return study_readouts(
        readouts(),
        n_clusters=3,
        methods=QUICK,
        null_draws=3,
        types=[f"type {at % 3}" for at in range(N)],
        test_correlations=correlations(),
        minimum_test_correlation=LEAST,
        tsne=False,
    )


def test_every_model_clusters_its_own_neurons_and_pairs_are_over_those_of_both(study: Study) -> None:
    kept = [np.flatnonzero(own >= LEAST) for own in correlations()]
    labels = []
    for vectors, rows in zip(readouts(), kept, strict=True):
        own = np.full(N, -1)
        own[rows] = cluster_readouts(vectors[rows], method="kmeans", n_clusters=3, n_init=2).labels
        labels.append(own)
    found = study.labels("kmeans", 3)
    assert len(found) == len(set(np.concatenate(kept)))
    for name, own, rows in zip(found, labels, kept, strict=True):
        clusters = found[name].dropna()
        assert clusters.index.get_level_values("unit_id").tolist() == rows.tolist()
        assert clusters.tolist() == own[rows].tolist()
    both = [(a >= 0) & (b >= 0) for a, b in itertools.combinations(labels, 2)]
    pairs = [
        adjusted_rand_score(a[mask], b[mask])
        for mask, (a, b) in zip(both, itertools.combinations(labels, 2), strict=True)
    ]
    assert study.pairs["adjusted_rand_index"].tolist() == pytest.approx(pairs)
    common = np.flatnonzero(np.all([own >= 0 for own in labels], axis=0))
    assert study.neurons["unit_id"].tolist() == common.tolist()
    assert study.consensus["n_neurons"].item() == len(common)

    def cluster(vectors: np.ndarray, _: int) -> np.ndarray:
        return cluster_readouts(vectors, method="kmeans", n_clusters=3, n_init=2).labels

    expected = null_agreement([vectors[common] for vectors in readouts()], cluster, n_draws=3)
    assert study.nulls["null_mean"].item() == pytest.approx(expected.agreements.mean())


def test_neurons_left_out_are_counted_everywhere(study: Study, tmp_path: Path) -> None:
    n_left_out = [N - int((own >= LEAST).sum()) for own in correlations()]
    assert study.models["n_left_out"].tolist() == n_left_out
    assert (study.models["n_neurons"] + study.models["n_left_out"]).eq(N).all()
    assert study.agreement["n_left_out"].item() == pytest.approx(np.mean(n_left_out))
    said = f"Only neurons with test correlation 0.3 and above: {np.mean(n_left_out):,.0f} per model are left out"
    assert said in study.summary()
    page = study.write_report(tmp_path / "answer.html").read_text()
    body = page[: page.index("<script>")]
    assert said in body
    assert "neurons left out" in body
    assert "k-means, test correlation 0.3 and above" in body
    assert "only neurons that the model predicts at least that well" in body


def test_a_filter_that_keeps_all_changes_nothing_but_names() -> None:
    settings: dict[str, Any] = {"n_clusters": 3, "methods": QUICK, "null_draws": 2, "tsne": False}
    one = study_readouts(readouts(2), **settings)
    two = study_readouts(readouts(2), test_correlations=np.full(N, 0.5), minimum_test_correlation=0.5, **settings)
    pd.testing.assert_frame_equal(one.pairs, two.pairs)
    unnamed = ["label", "identity"]
    pd.testing.assert_frame_equal(one.nulls.drop(columns=unnamed), two.nulls.drop(columns=unnamed))
    pd.testing.assert_frame_equal(one.labels("kmeans", 3), two.labels("kmeans", 3))


def test_correlations_of_files(tmp_path: Path) -> None:
    known = correlations(2)
    np.save(tmp_path / "a.npy", known[0])
    units = pd.DataFrame({"data_key": "all", "unit_id": np.arange(N), "test_correlation": known[1]})
    units[::-1].to_csv(tmp_path / "b.csv", index=False)
    settings: dict[str, Any] = {"n_clusters": 3, "methods": QUICK, "null_draws": 0, "tsne": False}
    study = study_readouts(
        readouts(2),
        test_correlations=[tmp_path / "a.npy", tmp_path / "b.csv"],
        minimum_test_correlation=LEAST,
        **settings,
    )
    assert study.models["n_neurons"].tolist() == [int((own >= LEAST).sum()) for own in known]
    of_both = study_readouts(readouts(2), test_correlations=units, **settings)
    np.testing.assert_allclose(of_both.frames.known.test_correlations, known[[1, 1]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minimum_test_correlation": 0.9}, "no neuron of the model 'model 1' has a test correlation of at least 0.9"),
        ({"n_clusters": 70}, "n_clusters goes up to 70, but there are only"),
        (
            {"test_correlations": np.array([np.arange(N) < 50, np.arange(N) >= 40]).astype(float), "n_clusters": 20},
            "n_clusters goes up to 20, but there are only 10 neurons",
        ),
        ({"test_correlations": np.full(N, np.nan)}, "of at least 0.3: none of them is known"),
        ({"test_correlations": [pd.DataFrame({"unit_id": [1]})] * 3}, "3 tables for 2 models"),
        ({"test_correlations": pd.DataFrame({"data_key": ["x"], "unit_id": [1]})}, "no column 'test_correlation'"),
        (
            {"test_correlations": pd.DataFrame({"data_key": ["x"], "unit_id": [1], "test_correlation": [0.5]})},
            "test_correlations has no neuron of the models",
        ),
        (
            {"test_correlations": np.array([np.arange(N) < 2, np.arange(N) < 60]).astype(float), "n_clusters": 2},
            "the models have 2 neurons in common whose test correlation is at least 0.3",
        ),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    given = {"n_clusters": 3, "test_correlations": correlations(2), "minimum_test_correlation": LEAST, **settings}
    with pytest.raises(DecemberError, match=message):
        study_readouts(readouts(2), methods="kmeans", null_draws=0, **given)

"""A study without a database: what it computes, what it says, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from december_plugin.answer import Study, study_readouts
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.errors import DecemberError, SettingsError
from december_plugin.evaluation.null import null_agreement
from december_plugin.evaluation.stability import cluster_stability, stability_null
from december_plugin.evaluation.valleys import valleys_between

N, TYPES = 60, 3
QUICK: dict[str, Any] = {"kmeans": {"n_init": 2}, "gmm": {"n_init": 1}}


def readouts(n_models: int = 3, *, seed: int = 0) -> list[np.ndarray]:
    """Return models of three well separated types, each in a basis of its own."""
    rng = np.random.default_rng(seed)
    tuning = 6 * rng.normal(size=(TYPES, 4))[np.arange(N) % TYPES] + rng.normal(size=(N, 4))
    return [tuning @ np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(n_models)]


KNOWN = [None if at % 7 == 0 else f"type {at % TYPES}" for at in range(N)]


@pytest.fixture(scope="module")
def study() -> Study:
    return study_readouts(
        readouts(),
        n_clusters=[2, 3, 4],
        methods=QUICK,
        null_draws=4,
        names=["a", "b", "c"],
        types=KNOWN,
        test_correlations=np.linspace(0.1, 0.5, N),
    )


def test_numbers_are_those_of_plain_loops(study: Study) -> None:
    for row in study.agreement.to_dict("records"):
        settings = {"method": row["method"], "n_clusters": row["n_clusters"], **QUICK[row["method"]]}
        labels = [cluster_readouts(vectors, **settings).labels for vectors in readouts()]
        pairs = [adjusted_rand_score(a, b) for a, b in itertools.combinations(labels, 2)]
        assert row["agreement_mean"] == pytest.approx(np.mean(pairs))
        assert row["agreement_sd"] == pytest.approx(np.std(pairs, ddof=1), abs=1e-12)
        assert row["n_pairs"] == 3
        known = np.array([name is not None for name in KNOWN])
        types = [adjusted_rand_score(np.array(KNOWN, dtype=object)[known].astype(str), own[known]) for own in labels]
        assert row["types_agreement_mean"] == pytest.approx(np.mean(types))
        silhouettes = [silhouette_score(v, own) for v, own in zip(readouts(), labels, strict=True)]
        at = (study.counts["method"] == row["method"]) & (study.counts["n_clusters"] == row["n_clusters"])
        assert study.counts.loc[at, "silhouette_mean"].item() == pytest.approx(np.mean(silhouettes))


def test_null_is_that_of_the_tables(study: Study) -> None:
    def cluster(vectors: np.ndarray, _: int) -> np.ndarray:
        return cluster_readouts(vectors, method="kmeans", n_clusters=3, n_init=2).labels

    null = null_agreement(readouts(), cluster, n_draws=4)
    expected = null.agreements.mean(axis=1)
    row = study.nulls[(study.nulls["method"] == "kmeans") & (study.nulls["n_clusters"] == 3)].iloc[0]
    assert row["null_mean"] == pytest.approx(expected.mean())
    assert row["p_value"] == (1 + (expected >= row["agreement_mean"]).sum()) / 5
    labels = [cluster(vectors, 0) for vectors in readouts()]
    assert row["valleys_mean"] == pytest.approx(valleys_between(readouts(), labels).mean())
    assert row["null_valleys_mean"] == pytest.approx(null.valleys.mean())
    assert row["valleys_p_value"] == (1 + (null.valleys.mean(axis=1) >= row["valleys_mean"]).sum()) / 5


def test_what_is_shown_one_by_one(study: Study) -> None:
    assert list(study.neurons)[:4] == ["data_key", "unit_id", "cluster", "stability"]
    assert study.neurons["stability"].eq(1).all()
    assert study.neurons["type"].isna().sum() == KNOWN.count(None)
    assert study.neurons["test_correlation"].tolist() == pytest.approx(np.linspace(0.1, 0.5, N))
    assert study.shown["reason"] == "K = 3, the number of known types; k-means"
    assert study.confusion("kmeans", 3).attrs["accuracy"] == 1.0
    labels = study.labels("gmm", 4)
    assert list(labels) == ["a", "b", "c"]
    assert labels.index.names == ["data_key", "unit_id"]
    assert study.clusters_of("gmm", 2)["cluster"].nunique() == 2
    with pytest.raises(SettingsError, match="there is no clustering 'kmeans' with K = 9"):
        study.labels("kmeans", 9)


def test_words(study: Study) -> None:
    text = study.summary()
    assert text.startswith("3 models of 60 neurons, compared by readout vectors\n\n")
    assert "seed" not in text
    assert "1.00 ± 0.00" in text
    assert repr(study).startswith("<Study of 3 models of 60 neurons: ")
    assert "<table" in study._repr_html_()


def test_report_is_complete(study: Study, tmp_path: Path) -> None:
    page = study.write_report(tmp_path / "answer.html", title="Types?", command="december study").read_text()
    body = page[: page.index("<script>")]
    assert "<h1>Types?</h1>" in body
    for part in ("answer", "agreement", "null", "count", "tsne", "types", "clusters", "methods"):
        assert f'id="a1-{part}"' in body
    assert 'id="a1-strength"' not in body
    assert "Agreement between models" in body
    assert "State of the tables" not in body
    assert "december worker" not in body
    assert "seeds" not in body.replace("restarts", "")
    study.write_report(tmp_path / "answer.html")  # replaces its own
    (tmp_path / "other.html").write_text("mine")
    with pytest.raises(SettingsError, match="exists and is not a december report"):
        study.write_report(tmp_path / "other.html")


def test_one_model_has_criteria_and_no_agreement(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_clusters": [2, 3, 4], "methods": {"gmm": QUICK["gmm"]}, "tsne": False}
    found = study_readouts(readouts(1), null_draws=1, **settings)
    assert found.nulls.empty
    assert found.agreement["agreement_mean"].isna().all()
    assert found.choices["silhouette"].tolist() == [3]
    assert found.answer.verdict == "open"
    assert "One model: there is no agreement between models." in found.summary()
    words = " ".join(found.summary().split())
    assert "Not decided yet: there is only one model (3 of 3 clusters are found again in parts of its neurons)" in words
    assert "Gaussian mixture, K = 3: Clustered again, 50% of the neurons at a time (20 draws), 3 of 3 clusters" in words
    assert found.stability("gmm", 3, n_draws=3)["jaccard_mean"].tolist() == pytest.approx([1.0] * 3)
    page = found.write_report(tmp_path / "one.html").read_text()
    assert "Add a second model of the same neurons" in page
    assert "Jaccard in half of the neurons" in page
    assert "that of the clusters of surrogates without clusters" in page
    assert "How clusters split" in page
    assert found.analysis.tree.nodes.groupby("n_clusters")["n_neurons"].sum().to_dict() == {2: N, 3: N, 4: N}
    expected = found.stability("gmm", 3).drop(columns="model")
    pd.testing.assert_frame_equal(found.analysis.chosen.resampled, expected)


def test_stability_of_one_model_is_compared_with_surrogates() -> None:
    (vectors,) = readouts(1)
    settings: dict[str, Any] = {"n_clusters": [2, 3, 4], "methods": {"kmeans": QUICK["kmeans"]}, "tsne": False}
    told: list[tuple[str, int, int]] = []
    found = study_readouts(vectors, null_draws=3, shown=4, progress=lambda *what: told.append(what), **settings)
    assert told[-1] == ("surrogates 3 of 3, k-means", 3 + 3 * 21, 3 + 3 * 21)

    def cluster(part: np.ndarray) -> np.ndarray:
        return cluster_readouts(part, method="kmeans", n_clusters=4, n_init=2).labels

    observed = cluster_stability(vectors, cluster(vectors), cluster).overall
    null = stability_null(vectors, cluster, observed, n_surrogates=3)
    attrs = found.analysis.chosen.resampled.attrs
    assert attrs["jaccard"] == observed
    assert (attrs["null_mean"], attrs["p_value"], attrs["n_surrogates"]) == (null.mean, null.p_value, 3)
    said = f"clusters of surrogates without clusters {null.mean:.3f} (p = {null.p_value:.3g}, one-sided, 3 draws)."
    assert said in " ".join(found.summary().split())
    asked = found.stability("kmeans", 3, n_draws=2, null_draws=1)
    assert asked["p_value"].isin([0.5, 1.0]).all()


def test_processes_change_nothing() -> None:
    settings: dict[str, Any] = {"n_clusters": 3, "methods": {"kmeans": {"n_init": 2}}, "null_draws": 3, "tsne": False}
    one, two = (study_readouts(readouts(2), n_jobs=n, **settings) for n in (1, 2))
    pd.testing.assert_frame_equal(one.pairs, two.pairs)
    pd.testing.assert_frame_equal(one.nulls, two.nulls)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    study_readouts(
        readouts(2),
        n_clusters=3,
        methods={"kmeans": {"n_init": 1}},
        null_draws=2,
        progress=lambda *what: told.append(what),
    )
    assert told == [
        ("k-means, K = 3", 1, 6),
        ("k-means, K = 3", 2, 6),
        ("surrogates 1 of 2, k-means", 4, 6),
        ("surrogates 2 of 2, k-means", 6, 6),
    ]


def test_covariances_ask_for_directions_of_functional_embeddings() -> None:
    found = study_readouts(
        readouts(2), n_clusters=3, methods={"kmeans": {"n_init": 1}}, null_draws=1, covariances=[np.eye(4)] * 2
    )
    assert found.settings.vectors_in_words == "directions of functional embeddings"
    np.testing.assert_allclose(np.linalg.norm(found.frames.models.vectors[0], axis=1), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_clusters": 61}, "n_clusters goes up to 61, but there are only 60 neurons"),
        ({"n_clusters": []}, "it must be a number of clusters, or several"),
        ({"n_clusters": [2.5]}, "it must be a number of clusters, or several"),
        ({"methods": "kmean"}, "there is no method 'kmean'. Did you mean 'kmeans'?"),
        ({"methods": []}, "it must be names of methods"),
        ({"methods": {"kmeans": {"n_start": 3}}}, "kmeans has no setting 'n_start'"),
        ({"methods": {"kmeans": {"space": "functional"}}}, "space is the same for all methods"),
        ({"space": "fuctional"}, "Did you mean 'functional'"),
        ({"space": "readout", "covariances": [np.eye(4)] * 2}, "leave out one of the two"),
        ({"normalize": "l1"}, "normalize is 'l1', which is unknown"),
        ({"null_draws": -1}, "null_draws is -1; it must be at least 0"),
        ({"methods": "hdbscan"}, "leave it out: all methods of the study find the number of clusters"),
        ({"n_clusters": None}, "n_clusters is None; it must be a number of clusters, or several"),
        ({"minimum_test_correlation": 0.3}, "no test correlations are given; pass them as `test_correlations`"),
        ({"minimum_test_correlation": 2}, "must be a test correlation from -1 to 1"),
        ({"methods": {"kmeans": {"alignment": {}}}}, "a study does not align vectors; align them before, with"),
        ({"methods": {"kmeans": {"minimum_test_correlation": 0.3}}}, "is the same for all methods"),
        ({"null_method": "planr"}, "null_method is 'planr'. Did you mean 'planar'"),
        ({"null_draws": 10**6}, "at most 10000 are allowed"),
        ({"seed": -1}, "seed is -1"),
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"shown": 7}, "shown is 7; it must be one of the n_clusters, 3"),
        ({"types": ["a"]}, r"types has the shape \(1,\)"),
        ({"types": [None] * N}, "no neuron of the models whose type is known"),
        ({"types": pd.DataFrame({"unit_id": [1]})}, "types has no column 'data_key'"),
        ({"test_correlations": [0.5]}, r"it must be \(neurons,\) = \(60,\)"),
        ({"test_correlations": [2.0] * N}, "outside of -1 to 1"),
        ({"report": "missing/answer.html"}, "the folder missing does not exist"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DecemberError, match=message):
        study_readouts(readouts(2), **{"n_clusters": 3, "methods": "kmeans", "null_draws": 0, **settings})


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_correlations_that_are_known_of_one_model_alone() -> None:
    known = np.array([np.full(N, np.nan), np.linspace(0, 1, N)])
    found = study_readouts(readouts(2), n_clusters=2, methods="kmeans", null_draws=0, test_correlations=known)
    assert found.agreement["test_correlation_mean"].item() == pytest.approx(0.5)
    np.testing.assert_allclose(found.neurons["test_correlation"], known[1])
    unknown = np.full((2, N), np.nan)
    none = study_readouts(readouts(2), n_clusters=2, methods="kmeans", null_draws=0, test_correlations=unknown)
    assert none.agreement["test_correlation_mean"].isna().all()

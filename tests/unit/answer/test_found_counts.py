"""A study with methods that find the number of clusters themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from december_plugin.answer import Study, study_readouts
from december_plugin.errors import DecemberError, NoClustersError

N = 150
METHODS: dict[str, Any] = {
    "kmeans": {"n_init": 2},
    "hdbscan": {"min_cluster_size": 12},
    "t_neb": {"min_depth": 3.0, "n_components": 5},
}


def readouts(n_types: tuple[int, ...] = (3, 3, 2)) -> list[np.ndarray]:
    """Return a model for every number of types; with fewer than three, types 2 and 1 are one."""
    rng = np.random.default_rng(0)
    centres = 12 * np.eye(3)
    return [
        centres[np.minimum(np.arange(N) % 3, most - 1)]
        + rng.normal(size=(N, 3)) * (1 + 4 * (np.arange(N) % 10 == 0))[:, None]
        for most in n_types
    ]


@pytest.fixture(scope="module")
def study() -> Study:
    return study_readouts(
        readouts(),
        n_clusters=[2, 3, 4],
        methods=METHODS,
        null_draws=2,
        names=["a", "b", "c"],
        types=[f"type {at % 3}" for at in range(N)],
        tsne=False,
    )


def test_found_numbers_agreement_and_null(study: Study) -> None:
    labels = [HDBSCAN(min_cluster_size=12, copy=True).fit_predict(vectors) for vectors in readouts()]
    own = study.clusterings[study.clusterings["method"] == "hdbscan"]
    assert own["n_clusters_found"].tolist() == [len(set(each) - {-1}) for each in labels] == [3, 3, 2]
    assert own["n_without_cluster"].tolist() == [int((each == -1).sum()) for each in labels]
    assert own["n_without_cluster"].gt(0).all()
    row = study.agreement[study.agreement["method"] == "hdbscan"].squeeze()
    assert row["n_clusters"] == 3
    pairs = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = (labels[a] >= 0) & (labels[b] >= 0)
        pairs.append(adjusted_rand_score(labels[a][both], labels[b][both]))
    assert row["agreement_mean"] == pytest.approx(np.mean(pairs))
    null = study.nulls[study.nulls["method"] == "hdbscan"].squeeze()
    assert null["agreement_mean"] == pytest.approx(np.mean(pairs))
    assert 1 / 3 <= null["p_value"] <= 1
    assert study.labels("hdbscan")["c"].nunique() == 3  # two clusters, and neurons without one
    assert study.clusters_of("hdbscan", 3)["cluster"].max() == 2


def test_every_model_is_clustered_once_however_many_counts_there_are(study: Study) -> None:
    assert study.agreement.groupby("method").size().to_dict() == {"kmeans": 3, "hdbscan": 1, "t_neb": 1}
    assert study.agreement["n_clusters"].is_monotonic_increasing
    assert study.choices["method"].tolist() == ["kmeans"]
    with pytest.raises(DecemberError, match="no clustering 'kmeans' without a number of clusters"):
        study.labels("kmeans")
    with pytest.raises(DecemberError, match="no clustering 'hdbscan' with K = 4"):
        study.labels("hdbscan", 4)


def test_words_and_page(study: Study, tmp_path: Path) -> None:
    text = " ".join(study.summary().split())
    assert "HDBSCAN found 3, 3 and 2 clusters; " in text
    assert "of the neurons are without one. Adjusted Rand index over those with one in both models: " in text
    assert "K k-means 2" in text
    page = study.write_report(tmp_path / "answer.html").read_text()
    body = page[: page.index("<script>")]
    assert "HDBSCAN, which found 3 clusters (median over 3 models), consensus of 3 models" in body
    assert "HDBSCAN, K = 3" not in body
    assert "k-means, t-NEB and HDBSCAN have neither likelihood nor BIC." in body
    assert "t-NEB and HDBSCAN find the number of clusters of every model" in body


def test_a_study_of_methods_that_find_the_number_needs_none() -> None:
    found = study_readouts(readouts((3, 3)), methods={"hdbscan": METHODS["hdbscan"]}, null_draws=0, tsne=False)
    assert found.shown["reason"] == "K = 3, the only one; HDBSCAN, which found 3 clusters (median over 2 models)"
    assert found.choices.empty
    assert found.analysis.tree is None
    one = study_readouts(readouts((3,)), methods={"hdbscan": METHODS["hdbscan"]}, null_draws=0, tsne=False)
    assert "HDBSCAN, which found 3 clusters: Clustered again" in " ".join(one.summary().split())


def test_no_clusters_in_a_model_leave_the_others_as_they_are() -> None:
    models = [*readouts((3,)), np.random.default_rng(2).uniform(size=(N, 3))]
    strict = {"hdbscan": {"min_cluster_size": 60}}
    found = study_readouts(
        models, n_clusters=3, methods={"kmeans": {"n_init": 2}, **strict}, null_draws=1, tsne=False, names=["a", "b"]
    )
    assert found.agreement["method"].tolist() == ["kmeans"]
    assert "HDBSCAN: no clusters. In the model 'a': HDBSCAN finds no cluster" in " ".join(found.summary().split())
    assert found.analysis.missing[0].what == "HDBSCAN, which found no clusters"
    with pytest.raises(NoClustersError, match="In the model 'a': HDBSCAN finds no cluster"):
        study_readouts(models, methods=strict, null_draws=0, names=["a", "b"])

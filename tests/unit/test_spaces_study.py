"""The study of spaces and the validity of the null: from end to end at a tiny size, estimates against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.null import null_agreement, null_band
from december_plugin.evaluation.valleys import valleys_between
from helpers.studies import imported

pytestmark = pytest.mark.slow(6)

NAMES = (
    "design",
    "cells",
    "results",
    "figures",
    "analyse",
    "spaces_design",
    "spaces_cells",
    "spaces_nulls",
    "spaces_results",
    "spaces_analyse",
    "spaces_run",
)
TINY = {"n_neurons": 20, "n_train": 48, "n_validation": 12, "n_test": 4, "n_repeats": 2, "type_sizes": (3, 2)}
DIRECTION = "functional, direction"


@pytest.fixture(scope="module")
def study():
    with imported("validation", NAMES) as modules:
        yield modules


@pytest.fixture(scope="module")
def tiny(study, tmp_path_factory):
    """Run a study of one recording, two seeds and the published DECEMber; return folder, populations, table."""
    design, run = study["spaces_design"], study["spaces_run"]
    populations = (
        design.Population(
            "types",
            "types",
            TINY,
            n_clusters=2,
            n_draws=1,
            n_seeds=2,
            central=True,
            pretrain_epochs=2,
            max_iter=3,
        ),
    )
    folder = tmp_path_factory.mktemp("spaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "TRAININGS", design.TRAININGS[:1])
        patch.setattr(
            run, "CLUSTERINGS", {name: design.CLUSTERINGS[name] for name in ("k-means", "t mixture, learned")}
        )
        assert run.run(folder, populations, run.STAGES) == 0
        patch.setattr(study["spaces_cells"], "prepared", lambda *_: pytest.fail("made again"))
        assert run.run(folder, populations, run.STAGES) == 0
    return folder, populations, study["spaces_results"].collect(folder, populations)


def test_every_clustering_is_in_the_table(study, tiny):
    _, _, table = tiny
    roles = table.groupby("role").size().to_dict()
    # Four spaces: k-means of both models, the t mixture of one; DECEMber of one space.
    assert roles == {"baseline": 8, "control": 4, "december": 1}
    assert (table["n_seeds"] == 2).all()
    assert table["truth"].between(-1, 1).all()
    assert set(table["space"]) == {space.phrase for space in study["spaces_design"].SPACES}


def test_scores_are_those_of_the_embeddings(study, tiny):
    folder, populations, table = tiny
    (draw,) = study["spaces_design"].draws_of(populations[0])
    labels, truth = [], None
    for seed in (1, 2):
        with np.load(study["spaces_cells"].embeddings_path(folder, draw, seed)) as cell:
            vectors = cell["baseline_vectors"] @ np.real(sqrtm(cell["baseline_covariance"]))
            truth = cell["truth"]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        labels.append(cluster_readouts(vectors, method="kmeans", n_clusters=2).labels)
    (row,) = table[
        (table["role"] == "baseline") & (table["space"] == DIRECTION) & (table["method"] == "k-means")
    ].itertuples()
    assert row.truth == pytest.approx(np.mean([adjusted_rand_score(truth, own) for own in labels]))
    assert row.seeds == pytest.approx(adjusted_rand_score(*labels))


def test_the_null_of_a_recording(study, tiny):
    folder, populations, _ = tiny
    nulls = study["spaces_nulls"].collect_nulls(folder, populations)
    assert nulls[["space", "surrogates"]].to_numpy().tolist() == [
        [space, method] for space in ("readout vectors", DIRECTION) for method in ("elliptical", "combined")
    ]
    assert (nulls["p_value"] * 20).round(9).isin(range(1, 21)).all()


def test_intervals_draw_recordings_within_their_population(study):
    values = pd.Series(
        [0.1, 0.4, 0.3, 0.9, 0.7],
        index=pd.MultiIndex.from_tuples(
            [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)], names=["population", "draw"]
        ),
    )
    found = study["spaces_results"].over_recordings(values)
    # Every way to draw three of a and two of b, all as likely.
    means = [
        (sum(a) + sum(b)) / 5
        for a in itertools.product([0.1, 0.4, 0.3], repeat=3)
        for b in itertools.product([0.9, 0.7], repeat=2)
    ]
    assert found.mean == pytest.approx(2.4 / 5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)
    assert found.n_recordings == 5
    assert found.verdict == "higher"
    assert study["spaces_results"].over_recordings(values[:2]).verdict == "-"


def test_differences_are_paired_by_recording(study):
    results = study["spaces_results"]
    about = {"population": "a", "role": "baseline", "space": "functional"}
    rows = [
        {**about, "draw": draw, "method": method, "truth": value}
        for method, values in {"k-means": [0.5, 0.7, 0.9], "t mixture": [0.4, 0.5, 0.6]}.items()
        for draw, value in enumerate(values[: 3 if method == "k-means" else 2], start=1)
    ]
    first, second = (("baseline", "functional", method) for method in ("k-means", "t mixture"))
    found = results.difference(pd.DataFrame(rows), ["a", "b"], first, second, "truth")
    assert (found.mean, found.n_recordings) == (pytest.approx(0.15), 2)


def test_the_committed_page_is_that_of_the_committed_results(study):
    analyse = study["spaces_analyse"]
    page = analyse.PAGE.read_text(encoding="utf-8")
    table = study["spaces_results"].load(analyse.RESULTS)
    assert analyse.filled(page, table, pd.read_csv(analyse.RESULTS / analyse.NULLS)) == page


def test_a_page_without_a_block_is_refused(study, tiny):
    with pytest.raises(SystemExit, match="the page has 0 blocks named 'spaces-extent'; write one: <!-- begin spaces-e"):
        study["spaces_analyse"].filled("nothing", tiny[2], pd.DataFrame(columns=["population", "space", "surrogates"]))


def test_the_plan(study):
    design = study["spaces_design"]
    planned = design.tasks()
    assert len({(draw.name, seed) for _, draw, seed in planned}) == len(planned)
    central = [population for population in design.POPULATIONS if population.central]
    assert {population.name for population in central} == {"types", "types-correlated", "unequal"}
    assert all(population.n_draws >= 4 and population.n_seeds >= 4 for population in central)
    seeds = [draw.first_seed for draw in design.draws_of(central[0])]
    assert len({seed + session for seed in seeds for session in (0, 1)}) == 8  # no session twice
    trained = {population: set() for population in ("types", "ring")}
    for training, draw, _ in design.december_tasks():
        trained.get(draw.population, set()).add(training.name)
    of_all = {"readout vectors, uniform", "readout vectors, learned", f"{DIRECTION}, learned"}
    assert trained["ring"] == of_all < trained["types"] == {training.name for training in design.TRAININGS}


# --- the null's validity -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validity():
    with imported("surrogates", ("null_validity",)) as modules:
        yield modules["null_validity"]


def test_p_values_are_those_of_the_null(validity):
    readouts = validity.SCENARIOS["study: ring"][0](40, 2, np.random.default_rng(0))
    found = validity.p_values(readouts, clustering="kmeans", n_clusters=3, n_draws=4)

    def cluster(vectors: np.ndarray, _: int = 0) -> np.ndarray:
        return cluster_readouts(vectors, method="kmeans", n_clusters=3, n_init=1).labels

    observed = adjusted_rand_score(*(cluster(own) for own in readouts))
    valleys = valleys_between(readouts, [cluster(own) for own in readouts]).mean()
    for method in ("elliptical", "planar", "axial", "combined"):
        null = null_agreement(readouts, cluster, n_draws=4, method=method)
        assert found.pop(method) == null_band(null.agreements.mean(axis=1), observed).p_value
        if f"valleys, {method}" in found:
            band = null_band(null.valleys.mean(axis=1), valleys)
            assert found.pop(f"valleys, {method}") == band.p_value
            assert found.pop(f"excess, {method}") == pytest.approx(valleys / band.mean)
    assert not found


def test_simulated_populations_have_the_seeds_in_other_axes(validity):
    for name, (simulate, n_clusters) in validity.SCENARIOS.items():
        first, second = simulate(60, 2, np.random.default_rng(0))
        assert first.shape == second.shape == (60, validity.N_CHANNELS)
        assert not np.allclose(first, second), name
        assert n_clusters in (4, 5, 6)


def test_the_committed_table_is_that_of_the_committed_simulations(validity):
    page = validity.PAGE.read_text(encoding="utf-8")
    assert validity.filled(page, pd.read_csv(validity.RESULTS)) == page
    with pytest.raises(SystemExit, match="the page has 0 blocks for this table"):
        validity.filled("nothing", pd.read_csv(validity.RESULTS))

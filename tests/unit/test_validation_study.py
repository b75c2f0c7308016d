"""The validation study: its estimates against plain loops, its quick version from end to end, and the page's tables."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.studies import imported

pytestmark = pytest.mark.slow(1.5)


@pytest.fixture(scope="module")
def study():
    """Import the study's modules, which are no package: a folder of scripts."""
    with imported("validation", ("design", "cells", "results", "figures", "supplement", "analyse", "run")) as modules:
        yield modules


@pytest.fixture(scope="module")
def quick(study, tmp_path_factory):
    """Run the quick study's cells of one population, and return folder, conditions and results."""
    folder = tmp_path_factory.mktemp("study")
    conditions = [each for each in study["design"].quick_conditions() if each.population == "types"]
    for condition, seed in study["design"].tasks(conditions):
        study["cells"].run_cell(folder, condition, seed)
        study["supplement"].run_supplement(folder, condition, seed)
    return folder, conditions, study["results"].collect(folder, conditions)


def test_every_cell_gives_every_clustering(study, quick):
    _, (condition,), results = quick
    # Two roles, three methods and the t mixture with learned weights, two K; two DECEMber trainings.
    assert len(results.scores) == 2 * (2 * 4 * 2 + 2)
    assert len(results.pairs) == 2 * 4 * 2 + 2
    assert results.scores["truth"].between(-1, 1).all()
    of_strength = results.scores.set_index("variant")["gradient_ratio"]
    assert of_strength["strength auto"].to_numpy() == pytest.approx([0.01, 0.01])
    assert of_strength["strength 0"].tolist() == [0, 0]
    assert condition.name == "types-central"
    control = results.scores[(results.scores["role"] == "control") & (results.scores["method"] == "kmeans")]
    assert control["control"].tolist() == [1.0] * 4


def test_a_supplement_trains_the_same_models(quick):
    rows = quick[2].scores.set_index(["role", "variant", "seed"])["test_correlation"].groupby(level=[0, 1, 2]).unique()
    for seed in (1, 2):
        for role in ("control", "baseline"):
            assert rows[role, "learned weights", seed].tolist() == rows[role, role, seed].tolist()


def test_the_null_is_that_of_the_same_clustering(study, quick):
    folder, (condition,), results = quick
    rows = study["supplement"].null_rows(folder, condition, 3)
    assert [row["n_clusters"] for row in rows] == [3, 2]
    for row in rows:
        own = {"role": "baseline", "method": "kmeans", "n_clusters": row["n_clusters"]}
        pairs = results.pairs.loc[(results.pairs[list(own)] == pd.Series(own)).all(axis=1), "ari"]
        assert row["seeds_mean"] == pytest.approx(pairs.mean(), abs=1e-6)
        assert row["null_low"] <= row["null_mean"] <= row["null_high"]


def test_the_committed_page_is_that_of_the_committed_results(study):
    analyse = study["analyse"]
    page = analyse.PAGE.read_text(encoding="utf-8")
    nulls = pd.read_csv(analyse.RESULTS / analyse.NULLS)
    results = study["results"].load(analyse.RESULTS)
    assert analyse.filled(page, results, study["design"].conditions(), nulls) == page


def test_strength_zero_trains_the_baseline(quick):
    scores = quick[2].scores.set_index(["variant", "seed"])["test_correlation"].groupby(level=[0, 1]).first()
    for seed in (1, 2):
        assert scores["strength 0", seed] == scores["baseline", seed]


def test_finished_cells_are_not_run_again(study, quick, monkeypatch, capsys):
    folder, conditions, _ = quick
    monkeypatch.setattr(study["cells"], "_trainings", lambda *_: pytest.fail("trained again"))
    path = study["cells"].run_cell(folder, conditions[0], 1)
    assert path.exists()


def test_tables_survive_their_files(study, quick, tmp_path):
    results = study["results"]
    results.save(quick[2], tmp_path)
    read = results.load(tmp_path)
    pd.testing.assert_frame_equal(read.scores, quick[2].scores, check_dtype=False, atol=1e-6)
    pd.testing.assert_frame_equal(read.pairs, quick[2].pairs, check_dtype=False, atol=1e-6)


def test_intervals_of_values_per_seed_are_students(study):
    values = pd.Series([-0.1, 0.4, 0.2, 0.5], index=[1, 2, 3, 4])
    found = study["results"].over_seeds(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.verdict == "open"


def test_intervals_over_pairs_are_the_jackknifes(study):
    rng = np.random.default_rng(0)
    seeds = [1, 2, 3, 4, 5]
    pairs = [{"seed_a": a, "seed_b": b, "ari": rng.uniform()} for a, b in itertools.combinations(seeds, 2)]
    found = study["results"].over_pairs(pd.DataFrame(pairs))
    mean = sum(pair["ari"] for pair in pairs) / 10
    pseudo = []
    for seed in seeds:
        kept = [pair["ari"] for pair in pairs if seed not in (pair["seed_a"], pair["seed_b"])]
        assert len(kept) == 6
        pseudo.append(5 * mean - 4 * sum(kept) / 6)
    # Pseudo-values of a U-statistic have its mean.
    assert np.mean(pseudo) == pytest.approx(mean)
    assert found.mean == pytest.approx(mean)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 4) * np.std(pseudo, ddof=1) / np.sqrt(5))


def test_two_seeds_give_no_interval_between_seeds(study):
    found = study["results"].over_pairs(pd.DataFrame({"seed_a": [1], "seed_b": [2], "ari": [0.3]}))
    assert found.mean == 0.3
    assert found.verdict == "-"
    assert str(found) == "+0.300"


def test_differences_are_paired_by_seed(study):
    results = study["results"]
    about = {"population": "types", "factor": "central", "level": "", "n_clusters": 6, "gradient_ratio": np.nan}
    rows = []
    for seed, (own, other) in enumerate([(0.5, 0.4), (0.7, 0.5), (0.2, 0.1)], start=1):
        shared = {**about, "seed": seed, "test_correlation": 0.3}
        rows.append({**shared, "role": "december", "variant": "strength auto", "method": "december", "truth": own})
        rows.append({**shared, "role": "baseline", "variant": "baseline", "method": "gmm", "truth": other})
    found = results.difference(
        results.Results(pd.DataFrame(rows), pd.DataFrame()),
        {**about, **results.december("strength auto")},
        {**about, **results.post_hoc("baseline", "gmm")},
        "truth",
    )
    assert found.mean == pytest.approx(0.4 / 3)
    assert found.n_seeds == 3


def test_a_page_gets_its_tables_and_figures(study, quick, tmp_path, monkeypatch):
    folder, _, _ = quick
    analyse = study["analyse"]
    results, page = tmp_path / "results", tmp_path / "page.md"
    names = (
        "extent",
        "outcome",
        "central",
        "differences",
        "tally",
        "defaults",
        "clusters",
        "factors",
        "weights",
        "lock-in",
        "nulls",
    )
    (folder / analyse.NULLS).write_text(
        "population,method,n_clusters,n_seeds,n_draws,seeds_mean,null_mean,null_low,null_high,p_value\n"
        "types,kmeans,3,2,3,0.5,0.25,0.125,0.375,0.25\n"
    )
    page.write_text(
        "\n\n".join(f"{analyse.BEGIN.format(name)}old{analyse.END.format(name)}" for name in names), encoding="utf-8"
    )
    places = ["--results", str(results), "--page", str(page), "--figures", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["analyse.py", "--quick", "--cells", str(folder), *places])
    assert analyse.main() == 0
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    # The continuum of the quick study was not run here.
    assert "**The study is not finished: 2 of 4 cells are left.**" in text
    assert "| DECEMber, strength auto |" in text
    assert "| planted types | 3 | 0.500 | 0.250 [0.125, 0.375] | 0.250 | 3, 2 |" in text
    assert (tmp_path / "validation-central.png").stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["analyse.py", "--quick", *places])
    assert analyse.main() == 0
    assert page.read_text(encoding="utf-8") == text


def test_a_page_without_a_block_is_refused(study, quick):
    with pytest.raises(SystemExit, match="the page has 0 blocks named 'extent'; write one: <!-- begin extent"):
        study["analyse"].filled("nothing", quick[2], quick[1])


def test_the_whole_study_is_planned_central_conditions_first(study):
    design = study["design"]
    chosen = design.conditions()
    assert len({condition.name for condition in chosen}) == len(chosen)
    assert [condition.population for condition in chosen[:3]] == ["types", "unequal", "continuum"]
    assert all(len(condition.seeds) == 5 for condition in chosen[:3])
    assert all(len(condition.seeds) >= 3 for condition in chosen)

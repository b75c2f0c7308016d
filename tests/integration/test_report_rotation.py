"""What the report and the figures show of rotation-invariant clustering, on models with planted types."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.pool.worker.loop import Worker, WorkerSettings
from december_plugin.report import render_report, static
from december_plugin.results import figures
from december_plugin.results.report import ReportSettings, collect_report
from helpers import rotated_lab
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(8)

FIGURES = (
    *("alignments", "aligned-readouts", "cluster-centres", "cluster-confusion", "block-changes"),
    *("exciting-images", "mei-confusion"),
)


@pytest.fixture(scope="module")
def lab(new_schema_name):
    """Two seeds, clustered aligned, and aligned with permuted features."""
    lab = open_lab(new_schema_name())
    rotated_lab.add_models(lab, [1, 2])
    quick = {"n_restarts": 1, "n_means": 1}
    lab.tables.Clustering().add_entry("kmeans", 3, normalize="l2", alignment=quick)
    lab.tables.Clustering().add_entry("gmm", 3, n_init=1, normalize="l2", alignment={**quick, "control": "features"})
    lab.tables.ClusterConfusionSettings().add_entry(responses="images", clusterings=["kmeans"])
    ascent = {"max_steps": 3, "n_starts": 1, "per_cluster": 2, "least_correlation": -1.0}
    lab.tables.MeiSettings().add_entry(**ascent, clusterings=["kmeans"])
    Worker(lab.tables, WorkerSettings()).run()
    return lab


@pytest.fixture(scope="module")
def data(lab):
    return collect_report(lab.tables, settings=ReportSettings())


def test_aligned_clusters_are_shown_with_what_they_compute_and_prefer(data):
    (analysis,) = data.analyses
    assert analysis.chosen.label.endswith("aligned (restarts 1, one mean)")
    assert analysis.alignments["control"].tolist() == ["none", "none", "features", "features"]
    aligned = analysis.aligned
    assert aligned.title == analysis.functions.title == analysis.preferred.title
    assert aligned.readouts.shape == (72, 12)
    assert set(aligned.clusters) == {0, 1, 2}
    types = np.concatenate([rotated_lab.types(name) for name in rotated_lab.SESSIONS])
    # The sessions are in the order of the model.
    assert len(set(zip(types, aligned.clusters, strict=True))) == 3
    assert sorted(aligned.coordinates.columns) == ["group", "x", "y"]
    preferred = analysis.preferred
    assert preferred.neurons.groupby("cluster").size().tolist() == [2, 2, 2]
    assert preferred.sizes == dict(enumerate(np.bincount(aligned.clusters)))
    assert preferred.blocks == analysis.functions.block_of
    assert preferred.responses.shape == (len(preferred.compared),) * 2
    assert len(preferred.islands) == 72


def test_the_page_has_the_sections(data, monkeypatch):
    monkeypatch.setattr(static, "picture", lambda draw, alt: None)
    page = render_report(data)
    for heading in ("Rotation-invariant clusters", "Which clusters compute the same thing", "Preferred stimuli"):
        assert f"<h2>{heading}</h2>" in page
    assert "For 6 of 6 images the ascent ended before it had converged" in page


def test_the_figures_are_drawn(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {name: figures.ANALYSIS_FIGURES[name] for name in FIGURES})
    monkeypatch.setattr(figures, "COMMON_FIGURES", {})
    drawn = {name: (paths, why) for name, paths, why in figures.draw_all(lab, tmp_path)}
    assert {name: drawn[name][1] for name in FIGURES} == dict.fromkeys(FIGURES, "")
    assert all((tmp_path / f"{name}.svg").stat().st_size > 3000 for name in FIGURES)

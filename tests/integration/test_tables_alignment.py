"""Readout vectors of rotation-equivariant models are aligned, and what follows is made of the aligned ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from december_plugin.results.assignments import assignment_frame
from helpers import rotated_lab
from helpers.lab_tables import open_lab


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    rotated_lab.add_models(lab, [1, 2])
    lab.train("baseline", [1])
    for alignment in (None, {}):
        lab.tables.Clustering().add_entry("kmeans", 3, normalize="l2", alignment=alignment)
    for table in (lab.tables.TrainingSummary, lab.tables.Alignment, lab.tables.ClusterAssignment):
        table.populate()
    return lab


def score(lab, key):
    """Return the adjusted Rand index between an assignment and the planted types."""
    frame = assignment_frame(lab.tables, key)
    truth = np.concatenate([rotated_lab.types(name) for name in dict.fromkeys(frame["data_key"])])
    return adjusted_rand_score(truth, frame["cluster"])


def test_types_at_random_orientations_are_found_once_they_are_aligned(lab):
    rotated = lab.tables.ClusterAssignment * lab.tables.Clustering & {"model_fn": rotated_lab.OURS}
    aligned, plain = (
        (rotated & "alignment_hash IS NOT NULL").fetch("KEY"),
        (rotated & "alignment_hash IS NULL").fetch("KEY"),
    )
    assert [score(lab, key) for key in aligned] == [1, 1]
    assert max(score(lab, key) for key in plain) < 0.2


def test_models_that_are_not_rotation_equivariant_are_not_aligned(lab):
    assert set(lab.tables.Alignment.fetch("model_fn")) == {rotated_lab.OURS}
    planted = lab.tables.ClusterAssignment * lab.tables.Clustering & "model_fn LIKE '%planted_lab%'"
    assert planted.fetch("alignment_hash").tolist() == [None]
    assert len(lab.tables.ClusterAssignment.key_source - lab.tables.ClusterAssignment) == 0

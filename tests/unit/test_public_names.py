"""What ``import december_plugin`` offers, and how results are shown."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import december_plugin
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.consensus import consensus_partition

NAMES = {
    "DECEMber": "december_plugin.clustering.losses",
    "StudentTMixture": "december_plugin.clustering.student_t_mixture",
    "VanillaDEC": "december_plugin.clustering.losses",
    "cluster_readouts": "december_plugin.clustering.post_hoc",
    "compare_partitions": "december_plugin.evaluation.agreement",
    "confusion_matrix": "december_plugin.evaluation.confusion",
    "consensus_partition": "december_plugin.evaluation.consensus",
    "import_models": "december_plugin.intake.write",
    "kl_divergence": "december_plugin.clustering.losses",
    "match_clusters": "december_plugin.evaluation.matching",
    "open_lab": "december_plugin.schemas.lab",
    "readout_embeddings": "december_plugin.embeddings.readout_vectors",
    "target_distribution": "december_plugin.clustering.losses",
    "write_recording": "december_plugin.simulate",
}


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_importable_from_the_package(name: str) -> None:
    assert name in dir(december_plugin)
    assert getattr(december_plugin, name) is getattr(sys.modules[NAMES[name]], name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No december_plugin attribute StudentMixture"):
        _ = december_plugin.StudentMixture


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, december_plugin; print(sorted({'torch', 'datajoint', 'numpy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_show_the_shapes_of_their_arrays() -> None:
    w = np.random.default_rng(0).normal(size=(300, 3))
    shown = repr(cluster_readouts(w, method="kmeans", n_clusters=2))
    assert shown == (
        "PostHocClustering(labels=<300 int64>, confidences=<300 float64>, margins=<300 float64>, n_clusters=2, "
        "log_likelihood=None, converged=True, method='kmeans', settings={'seed': 0, 'n_init': 20})"
    )
    labels = np.arange(300) % 2
    assert repr(consensus_partition([labels, labels])) == (
        "Consensus(clusters=<300 int64>, stability=<300 float64>, votes=<2 x 300 int64>, reference=0)"
    )

"""The study of trained models at random orientations, from end to end at a tiny size, interrupted and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from december_plugin.insilico import match_filters
from december_plugin.simulate import read_truth
from december_plugin.simulate.turned_features import TurnedFeatures
from helpers.studies import imported

pytestmark = pytest.mark.slow(6)

TINY = {"n_neurons": 18, "n_train": 20, "n_validation": 8, "n_test": 4, "n_repeats": 2}


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    with imported("rotation", ("trained",)) as modules:
        trained = modules["trained"]
        for name in set(trained.MODELS) - {"equivariant", "plain, DECEMber, functional"}:
            del trained.MODELS[name]
        del trained.TEACHERS[trained.SUMS]
        yield trained


@pytest.fixture(scope="module")
def results(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    size = study.Size(TINY, epochs=2, pretrain_epochs=1, seeds=(1, 2))
    words = ["--folder", str(folder / "models"), "--results", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECEMBER_PRETRAINING", "")
        assert study.main(words, size) == 0
        whole = (folder / "trained.csv").read_text()
        lines = whole.splitlines(keepends=True)
        (folder / "trained.csv").write_text("".join(lines[:4]))  # interrupted after three rows
        assert study.main(words, size) == 0
    assert (folder / "trained.csv").read_text() == whole
    return folder


def test_tables_have_a_row_for_every_way_and_seed(study: ModuleType, results: Path) -> None:
    recovery, seeds, images = (pd.read_csv(results / f"trained{part}.csv") for part in ("", "_seeds", "_images"))
    assert len(recovery) == 2 * (5 + 1)
    assert len(seeds) == 5 + 1
    truth = read_truth(results / "models" / "static1-1-1-simulated")
    assert images["unit_id"].tolist() == truth.unit_ids.tolist()
    assert images["filter_correlation"].between(-1, 1).all()
    table = study.recovery_table(recovery, seeds)
    assert table.count("\n") == 1 + 5 + 1
    assert "| equivariant | aligned, GMM |" in table
    assert study.image_table(images).splitlines()[-1].startswith("| all | 18 |")
    figure = study.figure_of(recovery, seeds, images, np.load(results / "models" / "images.npy"))
    assert len(figure.axes) == 2 + 4 * study.N_TYPES


def test_planted_filters_are_those_of_the_teacher(study: ModuleType, results: Path) -> None:
    truth = read_truth(results / "models" / "static1-1-1-simulated")
    features = TurnedFeatures.draw(6, 9, (16, 16), 1, features="correlated", cells="single_gabors")
    even, odd = features.kernels(truth.angles, np.full((18, 2), 12.0), (25, 25))
    own = np.arange(18)
    filters, partners = study.planted_filters(truth.types)
    matched = match_filters(even[truth.types, own], filters, n_angles=72)
    # Turned back by the planted angle; filters of pairs, turned by half a circle, are the same or the opposite.
    assert matched.correlations.min() > 0.95
    both = match_filters(odd[truth.types, own], filters, partners=partners, n_angles=72)
    assert both.correlations.min() > 0.95

"""The examples in the docstrings of names that need a database run, and show what they say, on the real server.

An example opens the lab that it needs, as its reader would, and finds it as it was filled, whatever other examples have
done; schemas that it makes are dropped. There are two:

``open_lab(schema="retina")``
    A dataset "two sessions" (sessions "first", 40 neurons, and "second", 30; unit ids 7, 10, 13, ...), a model "small",
    the trainers "DECEMber" (three clusters) and "baseline", seeds 1, 2 and 3: six trained models, with test performance
    and feature covariance. Readout vectors are planted: each seed of the baseline moves four neurons of every session
    to the next cluster, each of DECEMber two.
    Clusterings: DECEMber's own, and k-means of the baseline with 2, 3 and 4 clusters. With them: agreement between
    seeds and with the known types "planted" (three), consensus, cluster quality, surrogates "quick" (three draws),
    stability (two draws), confusion of clusters, and, for three clusters of k-means, maximally exciting images (two
    neurons of every cluster) and their confusion.
``open_lab(schema="cortex")``
    Two seeds of a rotation-equivariant model of two sessions (40 and 32 neurons), trained by a lab's own trainer, with
    their alignments and k-means with three clusters on the aligned vectors. Another model, of other sessions, one of
    which has a single test trial.

Examples of ``december_plugin.bundles`` find ``result.zip``, a bundle of k-means with three clusters of ``retina``. The
fabrikant of both labs is "tester". To add to the labs: :mod:`helpers.examples_lab`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from december_plugin.database.connection import Database
from december_plugin.schemas.lab import open_lab
from december_plugin.sharing import write_bundle
from helpers import examples_lab
from helpers.docstring_examples import examples_of_extra, examples_with_database, failures_of, skipped_lines


@pytest.fixture(scope="module")
def filled(database: Database) -> Iterator[examples_lab.Filled]:
    """Fill the labs; yield what puts them back as they are now."""
    labs = [examples_lab.fill_retina(), examples_lab.fill_cortex()]
    filled = examples_lab.Filled(database.connection, [lab.tables.schema.database for lab in labs])
    yield filled
    filled.drop()


@pytest.fixture(scope="module")
def bundle(filled: examples_lab.Filled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the bundle that examples read."""
    path = tmp_path_factory.mktemp("bundle") / "result.zip"
    write_bundle(path, open_lab(schema="retina").tables, restriction={"method": "kmeans", "n_clusters": 3})
    return path


@pytest.mark.slow(15)
@pytest.mark.filterwarnings("ignore")
def test_examples(filled: examples_lab.Filled, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(folder: Path) -> None:
        (folder / bundle.name).symlink_to(bundle)

    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    tests = examples_with_database()
    assert skipped_lines(tests) == []
    said = []
    for test in tests:
        is_of_bundles = test.name.startswith("december_plugin.bundles.")
        said.append(failures_of(test, tmp_path / test.name, fill=link if is_of_bundles else None))
        filled.restore()
    assert not any(said), "".join(said)


def test_examples_with_anndata(filled: examples_lab.Filled, tmp_path: Path) -> None:
    pytest.importorskip("anndata")
    for test in examples_of_extra("anndata"):
        assert failures_of(test, tmp_path / test.name) == ""
        filled.restore()


def test_what_an_example_changes_is_undone(filled: examples_lab.Filled) -> None:
    lab = open_lab(schema="retina")
    before = [table().fetch(as_dict=True) for table in (lab.tables.Clustering, lab.nnfabrik.Seed)]
    lab.tables.Clustering().add_entry("gmm", 5)
    lab.nnfabrik.Seed.insert1({"seed": 99})
    lab.tables.SeedAgreement.delete_quick()
    filled.connection.query("CREATE DATABASE made_by_an_example")
    filled.restore()
    assert [lab.tables.Clustering().fetch(as_dict=True), lab.nnfabrik.Seed().fetch(as_dict=True)] == before
    assert len(lab.tables.SeedAgreement()) == 12
    assert not filled.connection.query("SHOW DATABASES LIKE 'made\\_by%%'").fetchall()

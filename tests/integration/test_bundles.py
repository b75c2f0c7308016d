"""``december bundle`` and ``december import``: a result from one schema into an empty one, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from december_plugin import cli, results
from december_plugin.answer import study_readouts
from december_plugin.bundles import read_bundle
from december_plugin.bundles.archive import MANIFEST, BundleError
from december_plugin.errors import ExitCode, SettingsError
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.intake.bundles import import_bundle
from december_plugin.results.queries import configuration_key
from december_plugin.schemas import transfer
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.sharing import write_bundle
from helpers import lab_tables, pages, planted_lab, warm

pytestmark = pytest.mark.slow(1)

SEEDS = [1, 2]
COVARIANCE = np.diag([1.0, 2, 3, 1, 1, 1]).tolist()
# What is in the bundle, and must be the same afterwards, column by column.
COPIED = (
    *("TrainingSummary", "TestPerformance", "TestPerformance.Session", "FeatureCovariance"),
    *("ClusterAssignment", "ClusterAssignment.Session", "SeedAgreement", "LabelAgreement"),
    *("Consensus", "Consensus.Cluster", "Consensus.Session", "ClusterQuality", "SurrogateAgreement"),
    *("WithinModelStability", "ClusterConfusion", "Clustering", "KnownTypes", "KnownTypes.Session", "Surrogate"),
)


@pytest.fixture(scope="module")
def filled(new_schema_name: Callable[[], str]) -> lab_tables.Lab:
    """Return a lab with two seeds of DECEMber and of a baseline, and everything that is computed from them."""
    lab = lab_tables.open_lab(new_schema_name())
    lab.plan("december", SEEDS)
    lab.plan("baseline", SEEDS, covariance=COVARIANCE)
    tables = lab.tables
    tables.Clustering().add_entry("kmeans", 3, n_init=1)
    tables.Clustering().add_entry("kmeans", 4, n_init=1, space="functional", normalize="l2")
    tables.KnownTypes().add_entry("planted", lab_tables.truth(), source="by hand")
    tables.Surrogate().add_entry(name="quick", n_draws=1)
    tables.Resampling().add_entry(n_draws=2, clusterings=["kmeans"])
    tables.ClusterConfusionSettings().add_entry(clusterings=["kmeans"])
    for table in tables.computed:
        table.populate()
    return lab


@pytest.fixture
def target(declared: lab_tables.Lab) -> lab_tables.Lab:
    """Return a lab without entries."""
    return lab_tables.emptied(declared)


def options(lab: lab_tables.Lab) -> list[str]:
    name = lab.tables.schema.database
    return ["--schema", name, "--nnfabrik", name]


@pytest.fixture(scope="module")
def file(filled: lab_tables.Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "result.zip"
    assert cli.main(["bundle", str(path), "--no-tsne", *options(filled)]) == 0
    return path


@pytest.fixture(scope="module")
def small(filled: lab_tables.Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of one configuration."""
    path = tmp_path_factory.mktemp("bundle") / "kmeans.zip"
    (baseline,) = set((filled.tables.TrainedModel & "trainer_fn LIKE '%%baseline'").fetch("trainer_hash"))
    words = ["--method", "kmeans", "--trainer", baseline[:8], "--clusters", "4"]
    assert cli.main(["bundle", str(path), *words, *options(filled)]) == 0
    return path


def bring(path: Path, lab: lab_tables.Lab) -> Any:
    return import_bundle(path, nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant="tester")


def table_of(lab: lab_tables.Lab, name: str) -> Any:
    master, _, part = name.partition(".")
    table = getattr(lab.tables, master)
    return getattr(table, part) if part else table


def rows(lab: lab_tables.Lab, name: str) -> list[str]:
    """Return the rows of a table as comparable texts, without times of insertion."""
    found = table_of(lab, name)().fetch(as_dict=True)
    texts = []
    for row in found:
        values = {key: value for key, value in row.items() if not key.endswith("_ts")}
        arrays = {key: (value.dtype.str, value.tobytes()) for key, value in values.items() if hasattr(value, "dtype")}
        texts.append(repr(sorted({**values, **arrays}.items())))
    return sorted(texts)


def n_rows(lab: lab_tables.Lab) -> int:
    """Return the number of all rows but that which says which store it is, written by who opens the tables first."""
    connection, schema = lab.tables.schema.connection, lab.tables.schema.database
    names = [name for (name,) in connection.query(f"SHOW TABLES IN `{schema}`").fetchall()]
    names = [name for name in names if name[0] != "~" and name != "store_identity"]
    return sum(connection.query(f"SELECT COUNT(*) FROM `{schema}`.`{name}`").fetchone()[0] for name in names)


def contents(lab: lab_tables.Lab) -> set[Any]:
    """Return the hashes of the files of state dicts in the store."""
    schema = lab.tables.schema
    return set(schema.connection.schemas[schema.database].external["minio"].fetch("hash"))


def files_of(lab: lab_tables.Lab, store_folder: Path) -> set[Path]:
    return {path for path in (store_folder / lab.tables.schema.database).rglob("*") if path.is_file()}


def altered(path: Path, target: Path, **changes: bytes | None) -> Path:
    """Copy a bundle with other content under some names; None leaves a file out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = changes.get(name, source.read(name))
            if content is not None:
                copy.writestr(name, content)
        for name in changes.keys() - set(source.namelist()):
            copy.writestr(name, changes[name] or b"")
    return target


def test_everything_arrives_in_an_empty_schema_as_it_was(
    filled: lab_tables.Lab, target: lab_tables.Lab, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", str(file), "--fabrikant", "tester", *options(target)]) == 0
    said = capsys.readouterr().out
    assert "TrainedModel" in said
    assert "4 new" in said
    for name in COPIED:
        expected = rows(filled, name)
        assert expected
        assert rows(target, name) == expected, name
    keys = filled.tables.TrainedModel.fetch("KEY")
    assert len(keys) == 4
    for key in keys:
        mine, theirs = (stored_state_dict(lab.tables.TrainedModel, key) for lab in (filled, target))
        assert list(mine) == list(theirs)
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype
            assert tensor.numpy().tobytes() == theirs[name].numpy().tobytes()
    assert contents(target) == contents(filled)  # the very files are the same
    tables = [results.agreement_table(lab.tables, types_name="planted") for lab in (filled, target)]
    pd.testing.assert_frame_equal(*(table.drop(columns="identity") for table in tables))
    nulls = [results.null_table(lab.tables).drop(columns="identity") for lab in (filled, target)]
    assert len(nulls[0]) == 3
    pd.testing.assert_frame_equal(*nulls)
    # Nothing is left to be computed, and nothing was planned.
    for table in target.tables.computed:
        assert not len(table.key_source - table) or table is target.tables.ConfigurationAgreement, table
    assert not len(target.tables.TrainingPlan())


def test_every_computed_table_is_part_of_a_result_or_left_to_the_workers(filled: lab_tables.Lab) -> None:
    computed = {table.__name__ for table in filled.tables.computed}
    left = {"TrainedModel", "ConfigurationAgreement"}  # with its state dict, and compared with other configurations
    assert {*transfer.OF_MODELS, *transfer.OF_CONFIGURATIONS} == computed - left


def test_the_same_bundle_again_adds_nothing(target: lab_tables.Lab, small: Path) -> None:
    bring(small, target)
    before, stored = n_rows(target), contents(target)
    written = bring(small, target)
    assert not any(written.new.values())
    assert written.existing["TrainedModel"] == 2
    assert (n_rows(target), contents(target)) == (before, stored)


def test_it_is_read_without_a_database(file: Path, filled: lab_tables.Lab) -> None:
    with read_bundle(file) as bundle:
        bundle.verify()
        assert (
            bundle.configurations["label"].tolist()
            == results.agreement_table(filled.tables, types_name="planted")["label"].tolist()
        )
        kmeans = bundle.configurations[bundle.configurations["n_clusters"] == 4].iloc[0]
        number = int(kmeans["configuration"])
        trainings = bundle.trainings_of(number)
        assert bundle.trainings.set_index("training").loc[trainings, "seed"].tolist() == SEEDS
        first = bundle.readouts(trainings[0])
        planted = [planted_lab.planted_vectors(1, key) for key in planted_lab.SESSIONS]
        np.testing.assert_array_equal(first.vectors, np.concatenate(planted).astype(np.float32))
        expected = np.concatenate([planted_lab.unit_ids(key) for key in planted_lab.SESSIONS])
        np.testing.assert_array_equal(first.unit_ids, expected)
        np.testing.assert_array_equal(bundle.covariance(trainings[0]), np.array(COVARIANCE))
        gram = first.vectors.astype(float) @ np.array(COVARIANCE) @ first.vectors.astype(float).T
        functional = bundle.functional(trainings[0])
        np.testing.assert_allclose(functional @ functional.T, gram, rtol=1e-9)
        key = {name: kmeans[name] for name in configuration_key(filled.tables)}
        stored = results.assignments.assignment_frame(filled.tables, {**key, "seed": 2})
        pd.testing.assert_frame_equal(bundle.clusters(number, seed=2), stored, check_dtype=False)
        consensus = results.consensus_frame(filled.tables, key)
        pd.testing.assert_frame_equal(bundle.clusters(number)[consensus.columns], consensus, check_dtype=False)
        assert set(bundle.types()["types_name"]) == {"planted"}
        assert bundle.report is not None
        assert bundle.report.startswith("<!DOCTYPE html>")
        state = bundle.state_dict(trainings[1])
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert bundle.provenance["trained_with"] == []
        assert {entry["kind"] for entry in bundle.provenance["entries"]} == {
            *("dataset", "model", "trainer", "clustering")
        }
        study = study_readouts(
            [bundle.readouts(training) for training in trainings],
            covariances=[bundle.covariance(training) for training in trainings],
            **{"n_clusters": [4], "methods": {"kmeans": {"n_init": 1}}, "null_draws": 0},
        )
        assert study.agreement["agreement_mean"].item() == pytest.approx(kmeans["agreement_mean"], abs=1e-12)
        with pytest.raises(BundleError, match="has no frame 'agreements'"):
            bundle.frame("agreements")
        with pytest.raises(BundleError, match="has no training 9; it has 1 to 4"):
            bundle.readouts(9)
        with pytest.raises(BundleError, match=f"configuration {number} of the bundle .* has no seed 7"):
            bundle.clusters(number, seed=7)


def test_nothing_in_it_is_a_pickle_or_code(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        endings = {Path(name).suffix for name in archive.namelist()}
    assert endings == {".json", ".html", ".txt", ".parquet", ".npy", ".safetensors"}


def test_a_part_of_the_result_and_then_the_rest(target: lab_tables.Lab, small: Path, file: Path) -> None:
    with read_bundle(small) as bundle:
        assert bundle.report is None  # it would cover more
        assert len(bundle.configurations) == 1
        assert len(bundle.trainings) == 2
    bring(small, target)
    assert len(target.tables.ClusterAssignment()) == 2
    assert len(target.tables.Clustering()) == 2  # and december, which is always there
    assert len(target.tables.SurrogateAgreement()) == 1
    written = bring(file, target)
    assert (written.new["TrainedModel"], written.existing["TrainedModel"]) == (2, 2)
    assert len(target.tables.ClusterAssignment()) == 6


def test_without_models_it_can_be_read_and_not_imported(
    filled: lab_tables.Lab, target: lab_tables.Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.zip"
    write_bundle(path, filled.tables, restriction={"n_clusters": 4}, models=False)
    before = n_rows(target)
    assert cli.main(["import", str(path), *options(target)]) == ExitCode.ERROR
    assert "was made without the weights of its models" in capsys.readouterr().err
    assert n_rows(target) == before
    with read_bundle(path) as bundle:
        assert len(bundle.readouts(1)) == sum(planted_lab.SESSIONS.values())
        with pytest.raises(BundleError, match="without the weights"):
            bundle.state_dict(1)


def test_mistakes_of_who_bundles(filled: lab_tables.Lab, file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exists; name another file"):
        write_bundle(file, filled.tables)
    with pytest.raises(SettingsError, match="no cluster assignment fits the selection"):
        write_bundle(tmp_path / "none.zip", filled.tables, restriction={"n_clusters": 17})
    others = filled.tables.KnownTypes().add_entry("others", {"elsewhere": ([1, 2], ["a", "b"])})
    with pytest.raises(SettingsError, match="there are several sets of known types"):
        write_bundle(tmp_path / "none.zip", filled.tables)
    (filled.tables.KnownTypes & others).delete(safemode=False)
    with pytest.raises(SettingsError, match="does not exist"):
        write_bundle(tmp_path / "no" / "none.zip", filled.tables)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_cannot_be_finished_leaves_nothing(
    filled: lab_tables.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("december_plugin.bundles.archive.ArchiveWriter.add", full)
    with pytest.raises(BundleError, match="cannot be written: No space left on device"):
        write_bundle(tmp_path / "result.zip", filled.tables, report=False)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_there_with_other_weights(target: lab_tables.Lab, small: Path, store_folder: Path) -> None:
    bring(small, target)
    key = target.tables.TrainedModel.fetch("KEY", order_by="KEY")[-1]
    stored = target.tables.TrainedModel.ModelStorage & key
    state = stored_state_dict(target.tables.TrainedModel, key)
    name = next(iter(state))
    state[name] = state[name] + 1
    path = store_folder.parent / "other.pth.tar"
    torch.save(state, path)
    stored.delete_quick()
    target.tables.TrainedModel.ModelStorage.insert1({**key, "model_state": str(path)}, allow_direct_insert=True)
    path.unlink()
    before = n_rows(target)
    with pytest.raises(SettingsError, match=r"is there already, with other weights.* Nothing was written\."):
        bring(small, target)
    assert n_rows(target) == before


def test_clusters_that_are_there_and_differ(target: lab_tables.Lab, small: Path, store_folder: Path) -> None:
    bring(small, target)
    key = target.tables.ClusterAssignment.fetch("KEY", limit=1)[0]
    target.tables.ClusterAssignment.update1({**key, "labels_md5": "0" * 32})
    before = n_rows(target)
    with pytest.raises(SettingsError, match=r"ClusterAssignment already has a row .* with another labels_md5"):
        bring(small, target)
    assert n_rows(target) == before


def test_an_error_in_the_middle_leaves_neither_rows_nor_files(
    target: lab_tables.Lab, small: Path, store_folder: Path, tmp_path: Path
) -> None:
    target.tables.KnownTypes().add_entry("planted", {"first": ([7], ["another"])})
    before, files = n_rows(target), files_of(target, store_folder)  # those of the tests before
    with pytest.raises(SettingsError, match=r"KnownTypes already has a row with .*, but with another type_names"):
        bring(small, target)
    assert n_rows(target) == before
    assert files_of(target, store_folder) <= files


KILLED = """
import os, signal, sys
from december_plugin.database.connection import connect
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.intake import bundles
from december_plugin.schemas import transfer
from helpers import lab_tables

schema, path, *points = sys.argv[1:]

def killed(module, name, *, at=0, after=False):
    original, calls = getattr(module, name), []
    def function(*arguments, **options):
        calls.append(arguments)
        result = original(*arguments, **options) if after else None
        if len(calls) > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else original(*arguments, **options)
    setattr(module, name, function)

def bring(point):
    connect()
    lab = lab_tables.open_lab(schema)
    if point == "entries":
        killed(bundles, "write_entries", after=True)
    elif point == "first model":
        killed(bundles, "store_trained_model", after=True)
    elif point == "clusters":
        killed(transfer, "insert_rows", at=transfer.names_of_rows(lab.tables).index("ClusterAssignment.Session"))
    else:
        killed(quiet_datajoint().conn(), "commit_transaction", after=point == "committed")
    bundles.import_bundle(path, nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant="tester")

for point in points:
    if (process := os.fork()) == 0:
        bring(point)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL, point
"""


@pytest.mark.slow(8)
@pytest.mark.parametrize("points", [("entries", "first model", "clusters", "commit"), ("committed",)])
def test_an_import_that_is_killed_leaves_nothing_or_all_of_it_and_completes_when_run_again(
    target: lab_tables.Lab, small: Path, points: tuple[str, ...]
) -> None:
    before, is_there = n_rows(target), points == ("committed",)
    words = [sys.executable, "-c", KILLED, target.tables.schema.database, str(small), *points]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = warm.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (n_rows(target) == before) == (not is_there)
    assert bring(small, target).new["TrainedModel"] == (0 if is_there else 2)
    tables = target.tables
    assert (len(tables.TrainedModel()), len(tables.ClusterAssignment.Session())) == (2, 4)
    assert len(tables.SurrogateAgreement()) == 1
    for key in tables.TrainedModel.fetch("KEY"):
        assert stored_state_dict(tables.TrainedModel, key)
    assert not any(bring(small, target).new.values())


def test_damaged_and_foreign_files(
    target: lab_tables.Lab, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = n_rows(target)

    def refused(path: Path, message: str) -> None:
        assert cli.main(["import", str(path), *options(target)]) == ExitCode.ERROR
        said = capsys.readouterr().err
        assert message in said, said
        assert n_rows(target) == before

    content = small.read_bytes()
    (tmp_path / "half.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="is not a bundle of december, or only a part of one"):
        read_bundle(tmp_path / "half.zip")
    refused(altered(small, tmp_path / "a.zip", **{MANIFEST: None}), f"it has no {MANIFEST}")
    manifest = json.loads(zipfile.ZipFile(small).read(MANIFEST))
    newer = json.dumps({**manifest, "format": 2, "version": "9.1"}).encode()
    refused(altered(small, tmp_path / "b.zip", **{MANIFEST: newer}), "made by december 9.1: install that version")
    weights = zipfile.ZipFile(small).read("models/1.safetensors")
    flipped = weights[:-1] + bytes([weights[-1] ^ 1])
    refused(altered(small, tmp_path / "c.zip", **{"models/1.safetensors": flipped}), "is not what was bundled")
    refused(altered(small, tmp_path / "d.zip", **{"models/1.safetensors": None}), "models/1.safetensors is missing")
    refused(altered(small, tmp_path / "e.zip", **{"../evil.py": b"import os"}), "outside of the folder")
    refused(altered(small, tmp_path / "f.zip", **{"extra.txt": b"x"}), "extra.txt is missing, unknown")


def resealed(path: Path, target: Path, **changes: bytes) -> Path:
    """Copy a bundle with other content, and with the checksums of it."""
    manifest = json.loads(zipfile.ZipFile(path).read(MANIFEST))
    for name, content in changes.items():
        manifest["files"][name] = [len(content), hashlib.sha256(content).hexdigest()]
    return altered(path, target, **changes, **{MANIFEST: json.dumps(manifest).encode()})


def test_a_bundle_that_somebody_has_edited(target: lab_tables.Lab, small: Path, tmp_path: Path) -> None:
    before = n_rows(target)
    archive = zipfile.ZipFile(small)

    def refused(name: str, edit: Callable[[list[dict]], Any], message: str) -> None:
        rows = json.loads(archive.read(name))
        edit(rows)
        path = resealed(small, tmp_path / "edited.zip", **{name: json.dumps(rows).encode()})
        with pytest.raises((BundleError, SettingsError), match=message):
            bring(path, target)
        assert n_rows(target) == before

    refused("rows/Trainer.json", lambda rows: rows[0]["trainer_config"].update(n_moved=9), "not that of its settings")
    refused("rows/Clustering.json", lambda rows: rows[-1].update(n_clusters=9), "not named by the hash")
    refused("rows/SeedAgreement.json", lambda rows: rows[0].update(more=1), "a newer version of december")
    refused("rows/SeedAgreement.json", lambda rows: rows[0].pop("v_measure"), "lack the column 'v_measure'")
    refused("rows/SeedAgreement.json", lambda rows: rows[0].update(v_measure="much"), "do not fit the table")
    refused("rows/SeedAgreement.json", lambda rows: rows[0].update(seed_b=77), "do not fit the table")
    refused("rows/SeedAgreement.json", lambda rows: rows[0].update(v_measure={"$": "code"}), "unknown kind 'code'")
    refused("rows/TrainedModel.json", lambda rows: rows[0].pop("training"), "lacks 'training'")
    path = resealed(small, tmp_path / "more.zip", **{"rows/Spectra.json": b"[]"})
    with pytest.raises(BundleError, match="rows of Spectra, a table that this december does not have"):
        bring(path, target)
    pickled = resealed(small, tmp_path / "pickled.zip", **{"models/1.safetensors": b"\x80\x04N."})
    with pytest.raises(BundleError, match=r"models/1\.safetensors is not a state dict"):
        bring(pickled, target)
    assert n_rows(target) == before
    assert not quiet_datajoint().conn().in_transaction


def test_a_dry_run_checks_and_writes_nothing(
    target: lab_tables.Lab, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = n_rows(target)
    assert cli.main(["import", str(small), "--dry-run", *options(target)]) == 0
    assert "The bundle is complete. Nothing was written." in capsys.readouterr().out
    assert n_rows(target) == before


# --- docs/sharing-results.md

PAGE = "docs/sharing-results.md"
COMMANDS = pages.claim(PAGE, "bash", starting="december ")
PYTHON = pages.claim(PAGE, "python")


def test_every_command_and_block_of_the_page(
    filled: lab_tables.Lab,
    target: lab_tables.Lab,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, *others = COMMANDS
    assert whole.words == ["december", "bundle", "result.zip"]  # as the file was made
    shutil.copy(file, "result.zip")
    can_annotate = importlib.util.find_spec("anndata") is not None
    for each in others:
        _, command, *words = each.words
        lab = target if command in ("import", "ari") else filled
        code = cli.main([command, *words, *options(lab)])
        said = capsys.readouterr().err
        if "--anndata" in words and not can_annotate:
            assert 'pip install "december-plugin[anndata]"' in said
            assert not Path("numbers").exists()
        else:
            assert code == 0, (each, said)
    with read_bundle("part.zip") as bundle:
        assert set(bundle.configurations["method"]) == {"kmeans"}
        assert set(bundle.configurations["n_clusters"]) == {3}
    monkeypatch.setenv("DECEMBER_SCHEMA", filled.tables.schema.database)
    for block in PYTHON:
        if "annotated()" not in block.text or can_annotate:
            block.run({})
    said = capsys.readouterr().out
    assert "2 configurations" in said
    assert "k-means" in said
    assert Path("numbers/neurons.h5ad").exists() == can_annotate


def test_the_page_has_every_option() -> None:
    (table,) = [part for part in pages.text_of(PAGE).split("\n\n") if part.startswith("| option |")]
    parser = cli.build_parser()
    (subparsers,) = [action for action in parser._actions if hasattr(action, "choices") and action.choices]
    known = {word for action in subparsers.choices["bundle"]._actions for word in action.option_strings}
    assert set(re.findall(r"`(--[a-z-]+)", table)) == known - {"--help", "-h", "--debug", "--schema", "--nnfabrik"}

"""Tables of an earlier version are recognised, refused, and brought up to date."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.cli import main
from december_plugin.errors import OutdatedSchemaError
from december_plugin.results.consensus import consensus_frame, consensus_table
from december_plugin.schemas import december_tables
from december_plugin.schemas.migration import finish, outdated
from december_plugin.schemas.seed_sets import set_digest
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(5)

OLD_KEY = (  # SurrogateAgreement as it was when its key named the newest seed, without foreign keys
    "ALTER TABLE {table} DROP FOREIGN KEY {largest}, DROP FOREIGN KEY {seed_set}, "
    "CHANGE COLUMN largest_seed newest_seed INT NOT NULL, DROP PRIMARY KEY, "
    "ADD PRIMARY KEY (model_fn, model_hash, dataset_fn, dataset_hash, trainer_fn, trainer_hash, clustering_hash, "
    "newest_seed, smallest_seed, n_seeds, surrogate_hash), DROP COLUMN seed_set"
)


@pytest.fixture
def lab(schema_name):
    lab = open_lab(schema_name)
    lab.tables.Surrogate().add_entry(n_draws=2)
    lab.train("december", [1, 2, 3])
    for table in lab.tables.computed:
        table.populate()
    return lab


def reopened(lab, **options):
    lab.tables.schema.connection.dependencies.clear()
    return december_tables(lab.tables.schema.database, nnfabrik=lab.nnfabrik, **options)


def foreign_key(lab, table, column):
    query = (
        "SELECT constraint_name FROM information_schema.key_column_usage WHERE table_schema = %s AND table_name = %s "
        "AND column_name = %s AND referenced_table_name IS NOT NULL"
    )
    connection = lab.tables.schema.connection
    return connection.query(query, args=(lab.tables.schema.database, table.table_name, column)).fetchone()[0]


def make_old(lab) -> None:
    query = lab.tables.schema.connection.query
    for table in (lab.tables.Consensus.Cluster, lab.tables.Consensus.Session, lab.tables.Consensus):
        query(f"DROP TABLE {table.full_table_name}")
    query(f"CREATE TABLE {lab.tables.Consensus.full_table_name} (newest_seed INT PRIMARY KEY)")
    table = lab.tables.SurrogateAgreement
    names = {"largest": foreign_key(lab, table, "largest_seed"), "seed_set": foreign_key(lab, table, "seed_set")}
    query(OLD_KEY.format(table=table.full_table_name, **names))
    query(f"ALTER TABLE {lab.tables.ClusterAssignment.Session.full_table_name} DROP COLUMN margins")
    query(f"DELETE FROM {lab.tables.SeedSet.full_table_name}")


def test_tables_that_were_just_made_are_current(lab):
    assert outdated(lab.tables) == []
    assert finish(lab.tables) == 0


def test_an_old_schema_is_refused_and_brought_up_to_date(lab, capsys):
    before = lab.tables.SurrogateAgreement.fetch1()
    make_old(lab)
    with pytest.raises(OutdatedSchemaError) as caught:
        reopened(lab)
    name = lab.tables.schema.database
    assert str(caught.value) == (
        f"the tables in the schema {name!r} were made by an earlier version of december_plugin. `december db migrate "
        f"--schema {name}` brings them up to date, with an account that may alter tables; no result is lost."
    )
    old = reopened(lab, allow_outdated=True)
    changes = outdated(old)
    assert [(change.table, change.what) for change in changes] == [
        ("__consensus", "gets another key; workers compute its rows again, which takes seconds"),
        ("__surrogate_agreement", "gets another key; its rows are kept"),
        ("__cluster_assignment__session", "gets the column margins"),
    ]
    for change in changes:
        change.apply()
    halfway = reopened(lab, allow_outdated=True)
    assert len(halfway.SurrogateAgreement()) == 0
    with pytest.raises(OutdatedSchemaError):  # rows are still set aside
        reopened(lab)
    for change in outdated(halfway):  # an interrupted migration goes on
        change.apply()
    new = reopened(lab, allow_outdated=True)
    assert finish(new) == 1
    assert outdated(new) == []
    after = reopened(lab).SurrogateAgreement.fetch1()
    assert after["seed_set"] == set_digest(dict(zip((1, 2, 3), after["labels_md5s"], strict=True)))
    assert after.keys() == before.keys()
    for column, value in before.items():
        np.testing.assert_array_equal(after[column], value, err_msg=column)
    assert main(["db", "migrate", "--schema", name]) == 0
    assert capsys.readouterr().out == f"The tables in {name!r} are up to date.\n"
    new.SurrogateAgreement.populate()
    assert len(new.SurrogateAgreement()) == 1  # nothing is drawn again
    new.Consensus.populate()
    assert consensus_table(new)["n_seeds"].tolist() == [3]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("__cluster_assignment__session", "margins"),
        ("#surrogate", "surrogate_clusterings"),
        ("#clustering", "alignment_hash"),
        ("__cluster_assignment", "n_left_out"),
        ("__training_summary", "normalize_trained"),
        ("known_types", "types_version"),
        ("__surrogate_agreement", "null_valleys"),
        ("pool_worker", "gpu_workers"),
    ],
)
def test_columns_of_later_are_added(lab, table, column):
    lab.tables.KnownTypes().add_entry("a", {"s": ([1], ["x"])}, source="me")
    schema = lab.tables.schema
    key = (
        f"DROP FOREIGN KEY `{foreign_key(lab, lab.tables.Clustering, column)}`, " if column == "alignment_hash" else ""
    )
    schema.connection.query(f"ALTER TABLE `{schema.database}`.`{table}` {key}DROP COLUMN `{column}`")
    with pytest.raises(OutdatedSchemaError, match="were made by an earlier version of december_plugin"):
        reopened(lab)
    changes = outdated(reopened(lab, allow_outdated=True))
    assert [(change.table, change.what) for change in changes] == [(table, f"gets the column {column}")]
    changes[0].apply()
    new = reopened(lab)
    assert key == "" or new.Clustering().parents(as_objects=False) == [new.AlignmentSettings.full_table_name]
    frame = consensus_frame(new, {"method": "december"})
    assert frame["margin"].isna().all() == (column == "margins")
    assert (frame["confidence"] > 0.99).all()
    assert len(new.SurrogateAgreement()) == 1
    assert len(new.SurrogateAgreement().key_source) == 1
    assert new.KnownTypes().overview()[["types_name", "version"]].values.tolist() == [["a", ""]]
    new.KnownTypes().add_entry("b", {"s": ([1], ["x"])}, version="2")
    assert new.KnownTypes().overview()["version"].tolist() == ["", "2"]


def test_labels_of_an_earlier_version_get_room_for_neurons_without_a_cluster(lab):
    assert lab.tables.NeuronCluster().fill() == 210
    before = lab.tables.NeuronCluster.Neuron.fetch("label", order_by="session_uuid, unit_id")
    schema, name = lab.tables.schema, lab.tables.NeuronCluster.Neuron.full_table_name
    schema.connection.query(f"ALTER TABLE {name} MODIFY COLUMN label SMALLINT UNSIGNED NOT NULL COMMENT 'cluster'")
    with pytest.raises(OutdatedSchemaError, match="were made by an earlier version of december_plugin"):
        reopened(lab)
    (change,) = outdated(reopened(lab, allow_outdated=True))
    assert (change.table, change.what) == ("neuron_cluster__neuron", "gets more room in the column label")
    change.apply()
    new = reopened(lab)
    assert outdated(new) == []
    np.testing.assert_array_equal(new.NeuronCluster.Neuron.fetch("label", order_by="session_uuid, unit_id"), before)
    schema.connection.query(f"UPDATE {name} SET label = -1")
    assert set(new.NeuronCluster.Neuron.fetch("label")) == {-1}


def test_the_command_says_what_it_does(lab, capsys):
    make_old(lab)
    name = lab.tables.schema.database
    steps = (
        f"The tables in {name!r} are of an earlier version:\n"
        "  __consensus: gets another key; workers compute its rows again, which takes seconds\n"
        "  __surrogate_agreement: gets another key; its rows are kept\n"
        "  __cluster_assignment__session: gets the column margins\n"
    )
    assert main(["db", "migrate", "--schema", name, "--dry-run"]) == 0
    assert capsys.readouterr().out == steps
    assert main(["ari", "--schema", name]) == 1
    assert "were made by an earlier version" in capsys.readouterr().err
    assert main(["db", "migrate", "--schema", name]) == 0
    assert capsys.readouterr().out == (steps + "They are up to date now. `december worker` computes what is missing.\n")
    assert main(["ari", "--schema", name]) == 0

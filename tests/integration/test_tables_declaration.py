"""What december_tables declares, where, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import datajoint as dj
import pytest

from december_plugin.errors import ServerError, SettingsError
from december_plugin.schemas import DecemberTables, december_tables
from helpers.lab_tables import open_lab

OURS = ("TrainingPlan", "TrainingSummary", "Clustering", "ClusterAssignment", "NeuronCluster")
OURS += ("SeedAgreement", "KnownTypes", "LabelAgreement", "TestPerformance", "TrainedModel")
OURS += ("SeedCount", "SeedSet", "Surrogate", "SurrogateAgreement", "ClusterQuality", "Consensus")
OURS += ("Pool", "PoolWorker", "PoolJob", "StoreIdentity", "Relocation", "FeatureCovariance")
OURS += ("ConfigurationPair", "ConfigurationAgreement", "Resampling", "WithinModelStability")
OURS += ("AlignmentSettings", "Alignment")
OURS += ("ClusterConfusionSettings", "ClusterConfusion", "MeiSettings", "Mei", "MeiConfusion")


@pytest.fixture(scope="module")
def lab(new_schema_name):
    return open_lab(new_schema_name())


def all_tables(tables: DecemberTables):
    for name in OURS:
        table = getattr(tables, name)
        yield table
        yield from (part for part in vars(table).values() if isinstance(part, type) and issubclass(part, dj.Part))


@pytest.mark.slow(4)
def test_importing_opens_no_connection():
    code = (
        "import datajoint as dj, sys; import december_plugin.schemas, december_plugin.results.agreement; "
        "assert not hasattr(dj.conn, 'connection'); assert 'nnfabrik.main' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_all_tables_are_in_the_schema_and_in_the_namespace(lab):
    assert set(lab.tables.context()) == set(OURS)
    for table in all_tables(lab.tables):
        assert table().is_declared
        assert table.database == lab.tables.schema.database
    assert [table.__name__ for table in lab.tables.computed] == [
        "TrainedModel",
        "TrainingSummary",
        "TestPerformance",
        "FeatureCovariance",
        "Alignment",
        "ClusterAssignment",
        "SeedAgreement",
        "LabelAgreement",
        "Consensus",
        "ClusterQuality",
        "WithinModelStability",
        "ClusterConfusion",
        "SurrogateAgreement",
        "ConfigurationAgreement",
        "Mei",
        "MeiConfusion",
    ]


def test_every_table_and_every_column_of_ours_has_a_comment(lab):
    inherited = {"trainedmodel_ts"} | set(lab.tables.TrainedModel.primary_key)
    for table in all_tables(lab.tables):
        assert table().heading.table_status["comment"]
        for name, attribute in table().heading.attributes.items():
            assert attribute.comment or name in inherited, f"{table.__name__}.{name}"


def test_keys_of_computed_tables_are_foreign_keys(lab):
    for table in lab.tables.computed:
        parents = table().parents(primary=True, foreign_key_info=True)
        covered = {name for _, info in parents for name in info["attr_map"]}
        assert covered == set(table.primary_key)


def test_the_tables_are_utf8mb4_and_their_keys_fit(lab):
    query = (
        "SELECT table_name, table_collation FROM information_schema.tables WHERE table_schema = %s "
        "AND table_name NOT LIKE '~%%'"
    )
    connection = lab.tables.schema.connection
    collations = dict(connection.query(query, args=(lab.tables.schema.database,)).fetchall())
    assert {collation.split("_")[0] for collation in collations.values()} == {"utf8mb4"}
    length = (
        "SELECT s.table_name, s.index_name, SUM(COALESCE(c.character_octet_length, 16)) FROM "
        "information_schema.statistics s JOIN information_schema.columns c "
        "USING (table_schema, table_name, column_name) WHERE s.table_schema = %s GROUP BY 1, 2"
    )
    lengths = connection.query(length, args=(lab.tables.schema.database,)).fetchall()
    assert max(size for *_, size in lengths) <= 3072


def test_declaring_again_changes_nothing(lab):
    again = december_tables(lab.tables.schema.database, nnfabrik=lab.nnfabrik)
    assert again.SeedAgreement.describe() == lab.tables.SeedAgreement.describe()
    assert len(again.Clustering()) == 1
    from_schema = december_tables(lab.nnfabrik.schema, nnfabrik=vars(lab.nnfabrik))
    assert from_schema.schema is lab.nnfabrik.schema
    assert from_schema.ClusterAssignment.Session().is_declared


def test_nnfabrik_finds_its_schema_again_with_our_tables_in_it(lab):
    again = open_lab(lab.tables.schema.database)
    assert len(again.tables.Clustering()) == 1


def test_two_schemas_in_one_process_are_apart(lab, schema_name):
    other = december_tables(schema_name, nnfabrik=lab.nnfabrik)
    other.Clustering().add_entry("kmeans", 7)
    assert len(other.Clustering()) == 2
    assert len(lab.tables.Clustering()) == 1
    assert other.ClusterAssignment.Session.database == schema_name
    assert lab.tables.ClusterAssignment.Session.database == lab.tables.schema.database


def test_a_new_schema_takes_the_character_set_of_the_nnfabrik_tables(database, schema_name):
    connection = database.connection
    connection.query(f"CREATE DATABASE `{schema_name}_old` CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    old = open_lab(f"{schema_name}_old", schema=f"{schema_name}_new")
    query = (
        "SELECT collation_name FROM information_schema.columns WHERE table_schema = %s AND column_name = 'model_fn' "
        "AND table_name = '__seed_agreement'"
    )
    assert connection.query(query, args=(old.tables.schema.database,)).fetchall() == (("latin1_swedish_ci",),)


# --- refusals ----------------------------------------------------------------------------------------------------


def test_nnfabrik_must_have_its_tables(schema_name):
    with pytest.raises(SettingsError) as raised:
        december_tables(schema_name, nnfabrik=SimpleNamespace(Seed=1, Fabrikant=1, Model=1, Dataset=1))
    assert str(raised.value) == (
        "nnfabrik has no Trainer; it must have Seed, Fabrikant, Model, Dataset, Trainer. Pass what "
        "nnfabrik.main.my_nnfabrik(...) returns."
    )


def test_the_store_must_be_configured(lab, schema_name):
    with pytest.raises(ServerError, match="The store 'nowhere' cannot be used"):
        december_tables(schema_name, nnfabrik=lab.nnfabrik, storage="nowhere")


def test_a_trained_model_must_be_one(lab, schema_name):
    with pytest.raises(SettingsError) as raised:
        december_tables(schema_name, nnfabrik=lab.nnfabrik, trained_model="TrainedModel")
    assert str(raised.value) == "trained_model is 'TrainedModel'; it must be a DataJoint table class, or None."
    with pytest.raises(SettingsError) as raised:
        december_tables(schema_name, nnfabrik=lab.nnfabrik, trained_model=lab.nnfabrik.Model)
    assert str(raised.value) == (
        "trained_model Model lacks seed in its primary key; build it on nnfabrik's TrainedModelBase."
    )
    with pytest.raises(SettingsError) as raised:
        december_tables(schema_name, nnfabrik=lab.nnfabrik, trained_model=lab.tables.TrainingPlan)
    assert str(raised.value) == (
        "trained_model TrainingPlan lacks the column output or the part ModelStorage; build it on nnfabrik's "
        "TrainedModelBase."
    )


def test_a_schema_object_must_be_active(lab):
    with pytest.raises(SettingsError) as raised:
        december_tables(dj.Schema(), nnfabrik=lab.nnfabrik)
    assert str(raised.value) == ("schema is a DataJoint schema that is not activated; activate it or pass its name.")

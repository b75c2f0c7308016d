"""Declares the tables on a lab's nnfabrik module.

The tables are written as ordinary DataJoint classes that belong to no schema. Binding makes a subclass of each for one
schema, so that one process can use the schemas of several labs, and importing the templates opens no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Any

import datajoint as dj

from december_plugin.database.connection import open_schema
from december_plugin.errors import SettingsError
from december_plugin.schemas.agreement import SeedAgreement
from december_plugin.schemas.alignment import Alignment, AlignmentSettings
from december_plugin.schemas.cluster_functions import ClusterConfusion, ClusterConfusionSettings
from december_plugin.schemas.cluster_quality import ClusterQuality
from december_plugin.schemas.clustering_vectors import ClusteringVectors
from december_plugin.schemas.clusters import ClusterAssignment, Clustering, NeuronCluster
from december_plugin.schemas.configurations import ConfigurationAgreement, ConfigurationPair
from december_plugin.schemas.consensus import Consensus
from december_plugin.schemas.equivariant_models import EQUIVARIANT_MODELS
from december_plugin.schemas.exciting_images import Mei, MeiConfusion, MeiSettings
from december_plugin.schemas.feature_covariance import FeatureCovariance
from december_plugin.schemas.known_types import KnownTypes, LabelAgreement
from december_plugin.schemas.migration import check_current
from december_plugin.schemas.nulls import Surrogate, SurrogateAgreement
from december_plugin.schemas.performance import TestPerformance
from december_plugin.schemas.pool_tables import Pool, PoolJob, PoolWorker
from december_plugin.schemas.relocation import Relocation
from december_plugin.schemas.restrictions import install_quoting
from december_plugin.schemas.running_job import LeasedTable
from december_plugin.schemas.seed_sets import SeedCount, SeedSet
from december_plugin.schemas.stability import Resampling, WithinModelStability
from december_plugin.schemas.store_identity import StoreIdentity
from december_plugin.schemas.training import (
    RelocatedTraining,
    ThreePartTraining,
    TrainingPlan,
    TrainingSummary,
    trained_model_template,
)
from december_plugin.storage.opening import check_store

install_quoting()


def bind(template: type, schema: dj.Schema, context: Mapping[str, Any], **attributes: Any) -> Any:
    """Return a subclass of ``template``, its parts included, that is declared in ``schema``.

    Parameters
    ----------
    template
        A table class without a schema; its name becomes the table's name.
    schema
        Where the table is declared if it does not exist yet.
    context
        The names that foreign keys of the definition refer to.
    **attributes
        Class attributes to set: the other tables that the methods use.
    """
    members: dict[str, Any] = {"__doc__": template.__doc__, "__module__": template.__module__, **attributes}
    for name in dir(template):
        part = getattr(template, name) if name[0].isupper() else None
        if isinstance(part, type) and issubclass(part, dj.Part):
            # DataJoint writes schema and master into a part's class, so each schema needs its own class.
            members[name] = type(name, (part,), {"__doc__": part.__doc__, "__module__": part.__module__})
    bases = (LeasedTable, template) if issubclass(template, dj.Computed) else (template,)
    table = type(template)(template.__name__, bases, members)
    return schema(table, context=dict(context))


NNFABRIK_TABLES = ("Seed", "Fabrikant", "Model", "Dataset", "Trainer")
# Including functions that were registered under the name of the module that defines them.
DECEMBER_TRAINERS = ("december_plugin.*december_trainer",)


@dataclass(frozen=True)
class DecemberTables:
    """The tables of one schema; the attributes are DataJoint table classes.

    Attributes
    ----------
    schema
        The DataJoint schema.
    nnfabrik
        Namespace with the lab's ``Seed``, ``Fabrikant``, ``Model``, ``Dataset`` and ``Trainer``.
    TrainingPlan
        Trainings that were registered.
    Relocation
        Recordings that have moved.
    TrainedModel
        nnfabrik's table of trained models: the lab's own, or ours, which separates fetch, compute and insert. Its
        ``populate`` trains only what is in ``TrainingPlan``.
    TrainingSummary
        Scalars of every training.
    Clustering
        Ways to cluster.
    FeatureCovariance
        The metric of functional embeddings, one for each model.
    AlignmentSettings, Alignment
        Requested alignments; the angles of the neurons of rotation-equivariant models.
    ClusterAssignment
        Clusters of all neurons of a model.
    NeuronCluster
        These clusters as one row per neuron, on demand.
    SeedAgreement
        Agreement between pairs of seeds.
    ConfigurationPair
        Second configurations of pairs.
    ConfigurationAgreement
        Agreement of clusters and similarity of embeddings across configurations.
    KnownTypes
        Known cell types.
    LabelAgreement
        Agreement with them.
    TestPerformance
        Correlations on the test tier.
    Consensus
        The partition that all seeds of a configuration share.
    ClusterQuality
        Criteria for the number of clusters.
    SeedCount, SeedSet, Surrogate
        Numbers and sets of seeds; requested surrogates.
    SurrogateAgreement
        Agreement between seeds on surrogates without clusters.
    Resampling
        Requested resamplings of neurons.
    WithinModelStability
        How well the clusters of one model are found again in parts of its neurons.
    ClusterConfusionSettings
        Requested comparisons of clusters by what they compute.
    ClusterConfusion
        Which clusters of one model compute the same thing.
    MeiSettings
        Requested maximally exciting images.
    Mei, MeiConfusion
        Images of the neurons of each cluster of one model, and how neurons respond to each other's.
    Pool, PoolWorker, PoolJob
        Pools of workers, workers with their heartbeats, and what happened to jobs.
    StoreIdentity
        Which store the models are in.

    See Also
    --------
    december_tables : Declares the tables in a schema, or finds them there.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> tables = open_lab(schema="retina").tables
    >>> [int(n) for n in (tables.Clustering & {"method": "kmeans"}).fetch("n_clusters", order_by="n_clusters")]
    [2, 3, 4]
    >>> len(tables.SeedAgreement & {"seed_a": 1, "seed_b": 2})  # one for each clustering of these seeds
    4
    """

    schema: Any
    nnfabrik: Any
    TrainingPlan: Any
    Relocation: Any
    TrainedModel: Any
    TrainingSummary: Any
    Clustering: Any
    FeatureCovariance: Any
    AlignmentSettings: Any
    Alignment: Any
    ClusterAssignment: Any
    NeuronCluster: Any
    SeedAgreement: Any
    ConfigurationPair: Any
    ConfigurationAgreement: Any
    KnownTypes: Any
    LabelAgreement: Any
    TestPerformance: Any
    SeedCount: Any
    SeedSet: Any
    Consensus: Any
    ClusterQuality: Any
    Surrogate: Any
    SurrogateAgreement: Any
    Resampling: Any
    WithinModelStability: Any
    ClusterConfusionSettings: Any
    ClusterConfusion: Any
    MeiSettings: Any
    Mei: Any
    MeiConfusion: Any
    Pool: Any
    PoolWorker: Any
    PoolJob: Any
    StoreIdentity: Any

    @property
    def computed(self) -> tuple[Any, ...]:
        """The tables that ``populate`` fills, each after those it depends on."""
        return (
            self.TrainedModel,
            self.TrainingSummary,
            self.TestPerformance,
            self.FeatureCovariance,
            self.Alignment,
            self.ClusterAssignment,
            self.SeedAgreement,
            self.LabelAgreement,
            self.Consensus,
            self.ClusterQuality,
            self.WithinModelStability,
            self.ClusterConfusion,
            self.SurrogateAgreement,
            self.ConfigurationAgreement,
            self.Mei,
            self.MeiConfusion,
        )

    @property
    def vectors(self) -> ClusteringVectors:
        """The vectors of trained models in the spaces of clusterings."""
        return self.ClusterAssignment.vectors

    def context(self) -> dict[str, Any]:
        """Return the tables by name, for ``locals().update`` in a notebook."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name[0].isupper()}


def december_tables(
    schema: str | dj.Schema,
    *,
    nnfabrik: ModuleType | Mapping[str, Any] | Any,
    trained_model: Any = None,
    storage: str = "minio",
    december_trainers: tuple[str, ...] = DECEMBER_TRAINERS,
    equivariant_models: tuple[str, ...] = EQUIVARIANT_MODELS,
    allow_outdated: bool = False,
) -> DecemberTables:
    """Declare the tables in a schema, or find them there; calling it again changes nothing.

    Parameters
    ----------
    schema
        Name of a schema, which is created if it does not exist, or an activated DataJoint schema. It may be that of the
        nnfabrik tables.
    nnfabrik
        The lab's nnfabrik tables: what nnfabrik's ``my_nnfabrik`` returned, or anything else with ``Seed``,
        ``Fabrikant``, ``Model``, ``Dataset`` and ``Trainer``.
    trained_model
        The lab's own ``TrainedModel``, built on nnfabrik's template, in any schema. None declares one here.
    storage
        DataJoint store for the state dicts of our ``TrainedModel``.
    december_trainers
        Trainer functions that store a mixture; ``*`` stands for anything. Their models are clustered by it, all others
        post hoc.
    equivariant_models
        Model functions, with ``*``, whose core is rotation-equivariant: its channels are orientations of features,
        orientation-major. Their readout vectors, including those of imported models, are aligned if requested.
    allow_outdated
        Whether to return tables of an earlier version, which cannot be filled before they are migrated.

    Raises
    ------
    SettingsError
        If a table of nnfabrik is missing, or ``trained_model`` is not such a table.
    ServerError
        If the schema does not exist and cannot be created, or our ``TrainedModel`` is new and its store cannot be used.
    OutdatedSchemaError
        If tables of an earlier version have other keys or columns; `december db migrate` brings them up to date.

    See Also
    --------
    december_plugin.open_lab : Connects to the database, and finds the nnfabrik tables of a lab.
    DecemberTables : The tables that are returned.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.schemas import december_tables
    >>> nnfabrik = open_lab(schema="retina").nnfabrik  # or nnfabrik.main.my_nnfabrik("lab_nnfabrik")
    >>> tables = december_tables("retina", nnfabrik=nnfabrik)  # a schema without tables gets them
    >>> len(tables.TrainingPlan()), len(tables.TrainedModel())
    (6, 6)
    """
    lab = _nnfabrik_namespace(nnfabrik)
    opened = _open_schema(schema, lab)
    context = {name: getattr(lab, name) for name in NNFABRIK_TABLES}
    plan = bind(TrainingPlan, opened, context, nnfabrik=lab)
    lab.Relocation = bind(Relocation, opened, context)
    if trained_model is None:
        if not opened.list_tables().count("__trained_model"):
            check_store(storage)
        settings = {"nnfabrik": vars(lab), "storage": storage, "training_plan_table": plan}
        settings["relocation_table"] = lab.Relocation
        trained_model = bind(trained_model_template(), opened, context, **settings)
    else:
        trained_model = _planned_only(_check_trained_model(trained_model), plan, lab.Relocation)
    context |= {"TrainedModel": trained_model, "TrainingPlan": plan}
    patterns = {"december_trainers": tuple(december_trainers), "equivariant_models": tuple(equivariant_models)}
    evaluations = _declare_evaluations(opened, context, lab, **patterns)
    pools = {table.__name__: bind(table, opened, context) for table in (Pool, PoolWorker, PoolJob, StoreIdentity)}
    tables = DecemberTables(
        schema=opened,
        nnfabrik=lab,
        TrainingPlan=plan,
        Relocation=lab.Relocation,
        TrainedModel=trained_model,
        **evaluations,
        **pools,
    )
    if not allow_outdated:
        check_current(tables)
    return tables


def _declare_evaluations(
    schema: dj.Schema,
    context: dict[str, Any],
    lab: SimpleNamespace,
    *,
    december_trainers: tuple[str, ...],
    equivariant_models: tuple[str, ...],
) -> dict[str, Any]:
    """Declare what is computed from trained models; return the tables by name."""
    models = {"trained_model_table": context["TrainedModel"]}
    alignments = bind(AlignmentSettings, schema, context)
    context = {**context, "AlignmentSettings": alignments}
    clustering = bind(Clustering, schema, context, alignment_settings_table=alignments)
    types = bind(KnownTypes, schema, context)
    counts, sets = bind(SeedCount, schema, context), bind(SeedSet, schema, context)
    surrogate = bind(Surrogate, schema, context)
    pairs = bind(ConfigurationPair, schema, context)
    resampling = bind(Resampling, schema, context)
    confusions = bind(ClusterConfusionSettings, schema, context)
    images = bind(MeiSettings, schema, context)
    lookups = {
        "AlignmentSettings": alignments,
        "Clustering": clustering,
        "KnownTypes": types,
        "SeedCount": counts,
        "SeedSet": sets,
        "Surrogate": surrogate,
        "ConfigurationPair": pairs,
        "Resampling": resampling,
        "ClusterConfusionSettings": confusions,
        "MeiSettings": images,
    }
    context = {**context, **lookups}
    others = {"clustering_table": clustering, "nnfabrik": lab, "december_trainers": december_trainers}
    aligning = {"alignment_settings_table": alignments, "equivariant_models": equivariant_models}
    asking = {"confusion_settings_table": confusions, **aligning}
    covariance = bind(FeatureCovariance, schema, context, **others, **asking, **models)
    performance = bind(TestPerformance, schema, context, nnfabrik=lab, **models)
    alignment = bind(
        Alignment,
        schema,
        context,
        nnfabrik=lab,
        feature_covariance_table=covariance,
        december_trainers=december_trainers,
        **aligning,
        **models,
    )
    vectors = ClusteringVectors(context["TrainedModel"], clustering, covariance, performance, alignment, lab)
    assignment = bind(ClusterAssignment, schema, context, vectors=vectors, **others, **models)
    context["ClusterAssignment"] = assignment
    assignments = {"cluster_assignment_table": assignment}
    readouts = {**assignments, **models, "clustering_table": clustering, "vectors": vectors, "nnfabrik": lab}
    tested = {"test_performance_table": performance, "training_plan_table": context["TrainingPlan"]}
    mei = bind(Mei, schema, context, settings_table=images, **tested, **readouts)
    context["Mei"] = mei
    return {
        **lookups,
        "TrainingSummary": bind(TrainingSummary, schema, context, **models),
        "TestPerformance": performance,
        "FeatureCovariance": covariance,
        "Alignment": alignment,
        "ClusterAssignment": assignment,
        "NeuronCluster": bind(NeuronCluster, schema, context, **assignments),
        "SeedAgreement": bind(SeedAgreement, schema, context, **assignments),
        "ConfigurationAgreement": bind(
            ConfigurationAgreement,
            schema,
            context,
            pair_table=pairs,
            clustering_table=clustering,
            vectors=vectors,
            **assignments,
        ),
        "LabelAgreement": bind(LabelAgreement, schema, context, known_types_table=types, **assignments),
        "Consensus": bind(Consensus, schema, context, seed_set_table=sets, **assignments),
        "ClusterQuality": bind(ClusterQuality, schema, context, **readouts),
        "WithinModelStability": bind(WithinModelStability, schema, context, resampling_table=resampling, **readouts),
        "ClusterConfusion": bind(ClusterConfusion, schema, context, settings_table=confusions, **readouts),
        "Mei": mei,
        "MeiConfusion": bind(MeiConfusion, schema, context, mei_table=mei, settings_table=images, **readouts),
        "SurrogateAgreement": bind(
            SurrogateAgreement, schema, context, surrogate_table=surrogate, seed_set_table=sets, **readouts
        ),
    }


def _nnfabrik_namespace(nnfabrik: Any) -> SimpleNamespace:
    members = nnfabrik if isinstance(nnfabrik, Mapping) else vars(nnfabrik)
    missing = [name for name in NNFABRIK_TABLES if name not in members]
    if missing:
        raise SettingsError(
            f"nnfabrik has no {missing[0]}; it must have {', '.join(NNFABRIK_TABLES)}. Pass what "
            "nnfabrik.main.my_nnfabrik(...) returns."
        )
    return SimpleNamespace(**{name: members[name] for name in (*NNFABRIK_TABLES, "DataInfo") if name in members})


def _planned_only(table: Any, plan: Any, relocation: Any) -> Any:
    """Return the lab's table with the registered trainings as key source, instead of the cross product of all entries.

    If it trains by nnfabrik's ``make``, which would lose the result if the server were restarted meanwhile, it then
    does so in three steps; the lab's own ``make`` is kept.
    """
    from nnfabrik.templates.trained_model import TrainedModelBase

    def key_source(self: Any) -> Any:
        return super(planned, self).key_source & plan.proj()

    members = {"__doc__": table.__doc__, "__module__": table.__module__, "key_source": property(key_source)}
    members["relocation_table"] = relocation
    three_part = ThreePartTraining if table.make is TrainedModelBase.make else RelocatedTraining
    mixed_in = () if issubclass(table, three_part) else (three_part,)  # the lab's class may already include it
    planned = type(table)(table.__name__, (LeasedTable, *mixed_in, table), members)
    return planned


def _check_trained_model(table: Any) -> Any:
    if not (isinstance(table, type) and issubclass(table, dj.Table)):
        raise SettingsError(f"trained_model is {table!r}; it must be a DataJoint table class, or None.")
    heading = table().heading
    needed = ("seed", "model_hash", "dataset_hash", "trainer_hash")
    missing = [name for name in needed if name not in heading.primary_key]
    if missing or "output" not in heading.names or not hasattr(table, "ModelStorage"):
        lacks = f"{missing[0]} in its primary key" if missing else "the column output or the part ModelStorage"
        raise SettingsError(f"trained_model {table.__name__} lacks {lacks}; build it on nnfabrik's TrainedModelBase.")
    return table


def _open_schema(schema: str | dj.Schema, lab: SimpleNamespace) -> dj.Schema:
    if not isinstance(schema, str):
        if not schema.is_activated():
            raise SettingsError("schema is a DataJoint schema that is not activated; activate it or pass its name.")
        return schema
    opened = open_schema(schema, connection=lab.Model.connection)
    if not opened.list_tables():
        _adopt_collation(opened, lab.Model)
    return opened


def _adopt_collation(schema: dj.Schema, table: Any) -> None:
    """Give an empty schema the character set of the nnfabrik tables, which keys that refer to them must share."""
    database, name = table.full_table_name.replace("`", "").split(".")
    theirs = schema.connection.query(
        "SELECT character_set_name, collation_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s AND column_name = 'model_fn'",
        args=(database, name),
    ).fetchone()
    ours = schema.connection.query(
        "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata "
        "WHERE schema_name = %s",
        args=(schema.database,),
    ).fetchone()
    if theirs is not None and theirs != ours:
        schema.connection.query(f"ALTER DATABASE `{schema.database}` CHARACTER SET {theirs[0]} COLLATE {theirs[1]}")

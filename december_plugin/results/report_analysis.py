"""Reads what a report says about one dataset and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.errors import DecemberError
from december_plugin.evaluation.cluster_tree import ClusterTree
from december_plugin.evaluation.stability import MOST_RESAMPLED
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import Analysis, Confusion, Embedding, MissingItem, SelectedConfiguration
from december_plugin.findings.embedding import drawn_embedding
from december_plugin.findings.selection import chosen_row
from december_plugin.findings.wording import IMPORTED, SEEDS, Wording
from december_plugin.imports.stored_names import TRAINER as IMPORTED_TRAINER
from december_plugin.results.alignment import alignments
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.confusion import confusion_frame
from december_plugin.results.performance import performance_table, session_performance, with_model_labels
from december_plugin.results.queries import configuration_key, frame_of, known_types_name
from december_plugin.results.report_functions import (
    ShownAssignments,
    aligned_assignment,
    aligned_vectors,
    functional_blocks,
    preferred_assignment,
    preferred_images,
)
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.feature_covariance import FROM_PROBES
from december_plugin.schemas.stored_models import FROM_RECORDING
from december_plugin.text.entry_names import complete_settings

NEURON = ["data_key", "unit_id"]
MOST_CONFUSIONS = 8


def group_columns() -> list[str]:
    """Return the columns that identify a dataset and a model."""
    return ["dataset_fn", "dataset_hash", "model_fn", "model_hash"]


@dataclass(eq=False)
class AnalysisReader:
    """Reads one analysis; ``missing`` lists what is missing, and what to do about it.

    Attributes
    ----------
    tables
        The tables.
    agreement
        Rows of ``agreement_table`` of one dataset and model.
    name
        A heading: the names of the two.
    types_name, n_clusters, tsne, max_neurons_per_session
        See :class:`december_plugin.results.report.ReportSettings`.
    log
        Called with a line of text before each slow step.
    """

    tables: DecemberTables
    agreement: pd.DataFrame
    name: str = ""
    types_name: str | None = None
    n_clusters: int | None = None
    tsne: bool = True
    max_neurons_per_session: int = 2000
    log: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self.missing: list[MissingItem] = []
        self.key = configuration_key(self.tables)
        self.group = {name: self.agreement[name].iloc[0] for name in group_columns()}
        self._drawn: dict[tuple[Any, ...], Embedding] = {}
        self.reference_seed: int | None = None  # whose numbers the chosen clusters have

    def read(self) -> Analysis:
        """Return the analysis."""
        types_name, types = self._known_types()
        nulls, counts, choices, consensus = self._evidence()
        n_types = None if types is None else int(types["type"].nunique())
        row = chosen_row(self.agreement, n_clusters=self.n_clusters, n_types=n_types, choices=choices)
        chosen = self._chosen(row, types)
        dataset, model = self._entry("dataset"), self._entry("model")
        embedding = self._embedding(row)
        return Analysis(
            name=self.name,
            dataset=dataset,
            model=model,
            agreement=self.agreement,
            sessions=self._sessions(row),
            performance=self._performance(),
            **self._compared(),
            nulls=nulls,
            counts=counts,
            choices=choices,
            consensus=consensus,
            tree=self._tree(row),
            chosen=chosen,
            embedding=embedding,
            confusions=self._confusions(types_name, chosen.n_clusters),
            **self._functions(row, embedding),
            types_name=types_name,
            n_types=n_types,
            missing=tuple(self.missing),
            space=self._space(),
            wording=self.wording,
            probes=self._probes(),
        )

    # --- parts

    def _entry(self, kind: str) -> dict[str, Any]:
        table = getattr(self.tables.nnfabrik, kind.capitalize())
        key = {f"{kind}_fn": self.group[f"{kind}_fn"], f"{kind}_hash": self.group[f"{kind}_hash"]}
        row = (table & key).fetch1()
        return {name: row[f"{kind}_{name}"] for name in ("fn", "hash", "comment", "config")}

    def _space(self) -> str:
        """Return what of a neuron is compared, in words; "" if configurations differ in it."""
        phrases = {method.space.phrase for method in self.agreement["identity"]}
        return phrases.pop() if len(phrases) == 1 else ""

    @property
    def wording(self) -> Wording:
        """How the report speaks of what is compared."""
        return IMPORTED if set(self.agreement["trainer_fn"]) == {IMPORTED_TRAINER} else SEEDS

    def _probes(self) -> str:
        """Return which probes the covariances of imported models are from; "" where none is."""
        if not any(method.space.is_functional for method in self.agreement["identity"]):
            return ""
        probed = self.tables.FeatureCovariance & self.group & {"covariance_from": FROM_PROBES}
        for key in probed.fetch("KEY", limit=1):
            output = (self.tables.TrainedModel & key).fetch1("output")
            imported = output.get("imported") if isinstance(output, Mapping) else None
            return str((imported or {}).get("probes", ""))
        return ""

    def _known_types(self) -> tuple[str | None, pd.DataFrame | None]:
        """Return name and types of the neurons of this dataset; None if it has none."""
        name = known_types_name(self.tables, self.types_name)
        if name is None or not self.agreement["types_agreement_mean"].notna().any():
            remedy = (
                "`december types import LABELS.csv --name NAME` stores known types; workers then compare with them."
            )
            self.missing.append(MissingItem("a comparison with known types", remedy))
            return None, None
        return name, known_types_of(self.tables, self.group, name)

    def _evidence(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return null bands, criteria for K, what they pick, and consensus; empty frames where not computed."""
        from december_plugin.results.cluster_counts import choose_cluster_count, cluster_count_table
        from december_plugin.results.consensus import consensus_table
        from december_plugin.results.nulls import null_table

        nulls = self._of_the_analysis(null_table(self.tables, self.group))
        counts = self._of_the_analysis(cluster_count_table(self.tables, self.group))
        choices = pd.DataFrame()
        if not counts.empty:
            choices = choose_cluster_count(counts)
        consensus = self._of_the_analysis(consensus_table(self.tables, self.group))
        return nulls, counts, choices, consensus

    def _of_the_analysis(self, frame: pd.DataFrame) -> pd.DataFrame:
        if frame.empty:
            return pd.DataFrame()
        names = self.agreement[[*self.key, "label", "identity"]]
        return frame.drop(columns=["label", "identity"]).merge(names, on=self.key)

    def _compared(self) -> dict[str, Any]:
        """Return what configurations are compared by: agreement of every pair of seeds, correlations, settings."""
        pairs = (self.tables.SeedAgreement & self.group).proj(agreement="adjusted_rand_index")
        training = [name for name in self.key if name != "clustering_hash"]
        tested = (self.tables.TestPerformance & self.group).proj(test_correlation="single_trial_correlation")
        used = self.agreement[["trainer_fn", "trainer_hash"]].drop_duplicates().to_dict("records")
        trainers = (self.tables.nnfabrik.Trainer & used).fetch("trainer_fn", "trainer_hash", "trainer_config")
        return {
            "configuration": tuple(self.key),
            "pairs": frame_of(pairs, *self.key, "seed_a", "seed_b", "agreement"),
            "tested": frame_of(tested, *training, "seed", "test_correlation").astype({"test_correlation": float}),
            "trainer_settings": {
                (str(function), str(name)): complete_settings(str(function), config)
                for function, name, config in zip(*trainers, strict=True)
            },
            "clustering_settings": dict(
                zip(*self.tables.Clustering().fetch("clustering_hash", "settings"), strict=True)
            ),
        }

    def _sessions(self, row: pd.Series) -> pd.DataFrame:
        """Return the sessions of the models of one configuration, with what is known about their test trials."""
        keys = self._keys(row)
        sessions = pd.DataFrame(
            (self.tables.ClusterAssignment.Session & self._of_all_neurons(keys[0])).fetch(
                *("data_key", "n_session_neurons", "unit_ids_from"), as_dict=True, order_by="data_key"
            )
        ).rename(columns={"n_session_neurons": "n_neurons"})
        scores = session_performance(self.tables, keys)
        return sessions[["data_key", "n_neurons", "unit_ids_from"]].merge(scores, on="data_key", how="left")

    def _of_all_neurons(self, key: dict[str, Any]) -> dict[str, Any]:
        """Return the key of an assignment of the same model that leaves no neuron out; itself if there is none."""
        model = {name: key[name] for name in self.tables.TrainedModel.primary_key}
        complete = self.tables.ClusterAssignment & model & {"n_left_out": 0}
        if complete & key:
            return key
        return next(iter(complete.fetch("KEY", limit=1)), key)

    def _performance(self) -> pd.DataFrame:
        """Return how well the models of every trainer predict the test tier, with the methods that show them."""
        return with_model_labels(self.agreement, performance_table(self.tables, self.group))

    def _keys(self, row: pd.Series) -> list[dict[str, Any]]:
        configuration = {name: row[name] for name in self.key}
        return (self.tables.ClusterAssignment & configuration).fetch("KEY", order_by="seed")

    def _chosen(self, row: pd.Series, types: pd.DataFrame | None) -> SelectedConfiguration:
        from december_plugin.results.consensus import consensus_frame

        keys = self._keys(row)
        if len(keys) > 1:
            neurons = consensus_frame(self.tables, keys)
        else:
            neurons = assignment_frame(self.tables, keys[0])
            neurons["stability"] = np.nan
            remedy = f"{self.wording.add_models} Workers then compute it."
            self.missing.append(
                MissingItem("the stability of each neuron's cluster, for which two seeds are needed", remedy)
            )
        self.reference_seed = int(neurons.attrs.get("reference_seed", keys[0]["seed"]))
        neurons = neurons.merge(self._tested_neurons(keys), on=NEURON, how="left")
        if types is not None:
            neurons = neurons.merge(types, on=NEURON, how="left")
        sources = (self.tables.ClusterAssignment.Session & keys[0]).fetch("unit_ids_from")
        return SelectedConfiguration(
            label=str(row["label"]),
            n_clusters=int(row["n_clusters"]),
            reason=str(row["reason"]),
            n_seeds=len(keys),
            seeds=tuple(int(key["seed"]) for key in keys),
            neurons=neurons,
            from_recording=all(source == FROM_RECORDING for source in sources),
            resampled=self._resampled(keys[0]) if len(keys) == 1 else pd.DataFrame(),
            finds_count=row["identity"].finds_count,
        )

    def _resampled(self, key: dict[str, Any]) -> pd.DataFrame:
        """Return the stability of a single model's clusters; empty, and noted as missing, where it is not computed."""
        from datajoint.errors import DataJointError

        from december_plugin.results.stability import stability_frame, stored_resampling

        n_neurons = int((self.tables.ClusterAssignment & key).fetch1("n_neurons"))
        stored = stored_resampling(self.tables, key)
        if stored is None and n_neurons > MOST_RESAMPLED:
            remedy = f"It takes long for {n_neurons:,} neurons. {self.wording.resample}"
            self.missing.append(MissingItem("the stability of clusters in random parts of the neurons", remedy))
            return pd.DataFrame()
        if stored is None:
            self.log("clusters in random parts of the neurons")
        try:
            return stability_frame(self.tables, key, **(stored or {}))
        except (DecemberError, DataJointError, OSError) as error:
            words = " ".join(str(error).split())
            self.missing.append(MissingItem("the stability of clusters in random parts of the neurons", words))
            return pd.DataFrame()

    def _tree(self, row: pd.Series) -> ClusterTree | None:
        """Return how the clusters of the chosen method split over its numbers of clusters."""
        from december_plugin.results.cluster_trees import cluster_tree_of

        rows = self.agreement[self.agreement["label"] == row["label"]]
        if rows["n_clusters"].nunique() < 2 or rows["n_clusters"].duplicated().any():
            return None
        return cluster_tree_of(self.tables, rows)

    def _tested_neurons(self, keys: list[dict[str, Any]]) -> pd.DataFrame:
        """Return the mean test correlation of every neuron over the models."""
        tested = (self.tables.TestPerformance.Session & keys).fetch(
            "data_key", "tested_unit_ids", "single_trial_correlations", as_dict=True
        )
        frames = [
            pd.DataFrame(
                {
                    "data_key": session["data_key"],
                    "unit_id": session["tested_unit_ids"],
                    "test_correlation": session["single_trial_correlations"].astype(float),
                }
            )
            for session in tested
        ]
        if not frames:
            self.missing.append(MissingItem("test correlations", self.wording.test_models))
            return pd.DataFrame(columns=[*NEURON, "test_correlation"]).astype({"unit_id": "int64"})
        return pd.concat(frames).groupby(NEURON, as_index=False)["test_correlation"].mean()

    def _embedding(self, row: pd.Series) -> Embedding | None:
        if not self.tsne:
            return None
        from datajoint.errors import DataJointError

        key = self._keys(row)[0]
        try:
            return self._computed_embedding(key)
        except (DecemberError, DataJointError, OSError) as error:
            words = " ".join(str(error).split())
            remedy = (
                f"The vectors could not be read or drawn: {words} Run `december report` where the store can be "
                "reached, with an account that may read it."
            )
            self.missing.append(MissingItem("the t-SNE", remedy))
            return None

    def _computed_embedding(self, key: dict[str, Any]) -> Embedding:
        """Return the t-SNE of the vectors of an assignment, by a key that may say more; drawn once."""
        key = {name: key[name] for name in self.tables.ClusterAssignment.primary_key}
        if (drawn := self._drawn.get(tuple(key.values()))) is None:
            drawn = self._drawn[tuple(key.values())] = self._drawn_embedding(key)
        return drawn

    def _drawn_embedding(self, key: dict[str, Any]) -> Embedding:
        embeddings = self.tables.vectors.of(key)
        # The stored clusters, in the order of the vectors: sessions in the model's order, neurons in the session's.
        assigned = dict(list(assignment_frame(self.tables, key).groupby("data_key")))
        order = list(dict.fromkeys(str(name) for name in embeddings.data_keys))
        neurons = pd.concat([assigned[data_key] for data_key in order], ignore_index=True)
        return drawn_embedding(
            embeddings.vectors,
            neurons,
            seed=int(key["seed"]),
            max_per_session=self.max_neurons_per_session,
            what=self.tables.vectors.in_words(key),
            log=self.log,
        )

    def _functions(self, row: pd.Series, embedding: Embedding | None) -> dict[str, Any]:
        """Return alignments, which clusters respond alike, and what they prefer, as far as that was asked for."""
        shown = ShownAssignments(self.tables, self.agreement, row, self.reference_seed)
        functions, table = functional_blocks(shown, self.group)
        with_tsne = embedding is not None
        preferred = preferred_assignment(shown, self.group)
        return {
            "alignments": alignments(self.tables, self.group),
            "aligned": self._aligned(shown, with_tsne),
            "functions": functions,
            "functions_table": table,
            "preferred": None if preferred is None else self._preferred(shown, preferred, functions, with_tsne),
        }

    def _preferred(
        self, shown: ShownAssignments, key: dict[str, Any], functions: FunctionalBlocks | None, with_tsne: bool
    ) -> PreferredImages:
        """Return what clusters prefer, with the t-SNE of their own vectors where these can be read."""
        from datajoint.errors import DataJointError

        points = None
        if with_tsne:
            try:
                points = self._computed_embedding(key).neurons
            except (DecemberError, DataJointError, OSError) as error:
                words = " ".join(str(error).split())
                self.missing.append(MissingItem("the t-SNE next to maximally exciting images", words))
        return preferred_images(shown, key, functions, points)

    def _aligned(self, shown: ShownAssignments, with_tsne: bool) -> AlignedVectors | None:
        """Return vectors before and after their alignment; None, and noted as missing, where they cannot be read."""
        from datajoint.errors import DataJointError

        key = aligned_assignment(shown)
        if key is None:
            return None
        try:
            points = self._computed_embedding(key).neurons if with_tsne else None
            return aligned_vectors(shown, key, points)
        except (DecemberError, DataJointError, OSError) as error:
            self.missing.append(MissingItem("readout vectors before and after alignment", " ".join(str(error).split())))
            return None

    def _confusions(self, types_name: str | None, n_clusters: int) -> tuple[Confusion, ...]:
        if types_name is None:
            return ()
        rows = self.agreement[
            (self.agreement["n_clusters"] == n_clusters) & self.agreement["types_agreement_mean"].notna()
        ]
        found = []
        for row in rows.head(MOST_CONFUSIONS).to_dict("records"):
            configuration = {name: row[name] for name in self.key}
            frame = confusion_frame(self.tables, configuration, types_name=types_name)
            found_count = row["identity"].finds_count
            found.append(Confusion(str(row["label"]), n_clusters, types_name, frame, found_count))
        return tuple(found)


def known_types_of(tables: DecemberTables, group: Mapping[str, Any], types_name: str) -> pd.DataFrame:
    """Return the known types of the neurons of a dataset with a model: ``data_key``, ``unit_id``, ``type``."""
    sessions = (tables.ClusterAssignment.Session & group).fetch("data_key")
    types = tables.KnownTypes().frame(types_name)
    return types[types["data_key"].isin(set(sessions))].reset_index(drop=True)

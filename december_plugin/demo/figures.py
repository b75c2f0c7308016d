"""The figures of the demonstration, from the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.methods import Method
from december_plugin.plots import agreement_figure, embedding_figure, null_figure, save_figure, training_curves_figure
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.consensus import consensus_frame
from december_plugin.results.queries import configuration_key
from december_plugin.schemas.lab import Lab

NEURON = ["data_key", "unit_id"]


def draw_figures(
    lab: Lab,
    folder: Path,
    table: pd.DataFrame,
    nulls: pd.DataFrame,
    plan: Sequence[dict[str, Any]],
    *,
    types_name: str | None,
) -> list[Path]:
    """Draw agreement against its null for all datasets, and agreement, t-SNE and training curves of the first one.

    Parameters
    ----------
    lab
        The tables.
    folder
        Where the files go.
    table
        Rows of ``agreement_table`` with their labels.
    nulls
        Rows of ``null_table`` with the same labels.
    plan
        Keys of the trainings.
    types_name
        The known types of the first dataset, if any.

    Returns
    -------
    list of pathlib.Path
        The files that were written.
    """
    figures = {}
    if len(nulls):
        figures["null"] = null_figure(_null_panels(lab, table, nulls))
    table = table[table["dataset_hash"] == plan[0]["dataset_hash"]]
    known = _known_types(lab, types_name) if types_name is not None else None
    n_types = known["type"].nunique() if known is not None else None
    if table["agreement_mean"].notna().any():  # one seed has no pair to compare
        figures["agreement"] = agreement_figure(table, n_types=n_types)
    n_clusters = _middle(table, n_types)
    figures["readouts"] = _readouts(lab, table, n_clusters, known)
    figures["training"] = training_curves_figure(*_curves(lab, table, n_clusters, plan))
    return [path for name, figure in figures.items() for path in save_figure(figure, folder, name)]


def _null_panels(lab: Lab, table: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    """Return the nulls of the methods themselves, not of controls, named by dataset if there are several."""
    of_control = set(table.loc[table["trainer_role"] == "control", "label"])
    key = configuration_key(lab.tables)
    shown = nulls[~nulls["label"].isin(of_control)].merge(table[[*key, "agreement_sd"]], on=key)
    comments = dict(zip(*lab.nnfabrik.Dataset().fetch("dataset_hash", "dataset_comment"), strict=True))
    if shown["dataset_hash"].nunique() > 1:
        shown["label"] = [f"{row.label}, {comments[row.dataset_hash]}" for row in shown.itertuples()]
    return shown


def _middle(table: pd.DataFrame, n_types: int | None) -> int:
    """Return the number of clusters to draw: that of the known types if it was used, else the middle one."""
    counts = sorted(set(table["n_clusters"]))
    return n_types if n_types is not None and n_types in counts else int(counts[len(counts) // 2])


def _known_types(lab: Lab, types_name: str) -> pd.DataFrame:
    """Return the known types of this name as data key, unit id and type."""
    key = {"types_name": types_name}
    names = (lab.tables.KnownTypes & key).fetch1("type_names")
    sessions = (lab.tables.KnownTypes.Session & key).fetch(as_dict=True)
    return pd.concat(
        pd.DataFrame(
            {
                "data_key": session["data_key"],
                "unit_id": session["typed_unit_ids"],
                "type": np.array(names)[session["type_codes"]],
            }
        )
        for session in sessions
    )


def _readouts(lab: Lab, table: pd.DataFrame, n_clusters: int, known: pd.DataFrame | None) -> Any:
    """Draw the readouts of one DECEMber model of this K, at the lowest strength, by clusters and by known types."""
    rows = table[(table["method"] == "december") & (table["n_clusters"] == n_clusters)]
    row = rows.loc[rows["gradient_ratio"].idxmin()]
    configuration = {name: row[name] for name in lab.tables.ClusterAssignment.primary_key if name != "seed"}
    key = (lab.tables.ClusterAssignment & configuration).fetch("KEY", order_by="seed", limit=1)[0]
    embeddings = lab.tables.vectors.of(key)
    # The stored clusters, in the order of the vectors: sessions in the model's order, neurons in the session's.
    assigned = dict(list(assignment_frame(lab.tables, key).groupby("data_key")))
    neurons = pd.concat([assigned[data_key] for data_key in dict.fromkeys(embeddings.data_keys)], ignore_index=True)
    seeds = (lab.tables.ClusterAssignment & configuration).fetch("KEY", order_by="seed")
    if len(seeds) > 1:  # numbered as in the report
        shared = consensus_frame(lab.tables, seeds)[[*NEURON, "cluster"]]
        labels = neurons[NEURON].merge(shared, on=NEURON, how="left")["cluster"].fillna(-1).astype(int)
    else:
        labels = neurons["cluster"]
    groupings = {f"{row['label']}: cluster": labels.to_numpy()}
    if known is not None:
        types = neurons.merge(known, on=["data_key", "unit_id"], how="left")["type"]
        groupings["planted type"] = types.where(types.notna(), None).to_numpy(dtype=object)
    what = lab.tables.vectors.space_of(key).vectors
    return embedding_figure(embeddings.vectors, groupings, sessions=embeddings.data_keys, what=what)


def _curves(
    lab: Lab, table: pd.DataFrame, n_clusters: int, plan: Sequence[dict[str, Any]]
) -> tuple[dict[str, list[Any]], dict[str, Method]]:
    """Return the curves of the baseline and of the DECEMber models of this K, and their meaning, by label."""
    trainers = table[["trainer_fn", "trainer_hash", "method", "trainer_role", "label", "identity", "n_clusters"]]
    of_december = trainers[(trainers["method"] == "december") & (trainers["n_clusters"] == n_clusters)]
    baselines = trainers[trainers["trainer_role"] == "baseline"].drop_duplicates("trainer_hash")
    baselines = baselines.assign(label="baseline", identity=Method("baseline"))
    curves, methods = {}, {}
    for trainer in pd.concat([of_december, baselines]).itertuples():
        models = lab.tables.TrainedModel & list(plan)
        models &= {"trainer_fn": trainer.trainer_fn, "trainer_hash": trainer.trainer_hash}
        outputs = models.fetch("output", order_by="seed")
        curves[trainer.label] = [output["curves"] for output in outputs]
        methods[trainer.label] = trainer.identity
    return curves, methods

"""Labels of configurations, what each label means, and the order in which they are shown.

A configuration (dataset, model, trainer, clustering) is called by its method and the trainer's comment. Configurations
whose labels coincide are distinguished by the settings in which they differ, in words: "DECEMber (max_iter 12)"; see
:mod:`december_plugin.text.entry_names`. What a label means, a
:class:`~december_plugin.evaluation.methods.Method`, comes from the tables and never from the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datajoint as dj
import pandas as pd

from december_plugin.clustering.methods import (
    DECEMBER,
    QualityFilter,
    alignment_recipe,
    embedding_space,
    finds_count,
    quality_filter,
)
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.evaluation.methods import Method, role_order
from december_plugin.results.queries import configuration_key, frame_of
from december_plugin.schemas.declare import DecemberTables
from december_plugin.text.entry_names import (
    canonical,
    distinct_names,
    distinguishing_settings,
    entry_names,
    given_settings,
    grouped,
    number_duplicates,
    one_line,
)

COUNT = "n_clusters"  # what a configuration is drawn against, and never a part of its name
WRITTEN = ("trainer_config", "clustering_settings")  # of a configuration, as they are stored
CONFIGURATION = ("label", "identity", "method", "n_clusters", "trainer_role")  # the columns that describe one
TRAINED_IN = ("trainer_fn", "trainer_hash", "space_trained", "normalize_trained")
DATA_AND_MODEL = ["dataset_fn", "dataset_hash", "model_fn", "model_hash"]


def labelled_configurations(tables: DecemberTables, models: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations of assignments with their names.

    Parameters
    ----------
    tables
        The tables.
    models
        One row per assignment: the configuration's key, ``method``, ``n_clusters``, ``trainer_role``,
        ``strength_setting``, ``gradient_ratio``. The names distinguish these configurations; with fewer configurations
        they can be shorter.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: its key, ``label``, ``identity`` (what the label means, a
        :class:`~december_plugin.evaluation.methods.Method`), ``method``, ``n_clusters``, ``trainer_role`` and the mean
        ``gradient_ratio``.
    """
    key = configuration_key(tables)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups[["method", "n_clusters", "trainer_role", "strength_setting"]].first()
    frame["gradient_ratio"] = groups["gradient_ratio"].mean()
    frame = frame.reset_index()
    used = frame[["trainer_fn", "trainer_hash"]].drop_duplicates().to_dict("records")
    trainers = frame_of((tables.nnfabrik.Trainer & used).proj("trainer_comment", "trainer_config"))
    clusterings = frame_of(tables.Clustering.proj(clustering_settings="settings", clustering_description="description"))
    trained = frame_of(dj.U(*TRAINED_IN) & (tables.TrainingSummary & used)).drop_duplicates(
        ["trainer_fn", "trainer_hash"]
    )
    described = frame.merge(trainers, on=["trainer_fn", "trainer_hash"], how="left")
    described = described.merge(trained, on=["trainer_fn", "trainer_hash"], how="left")
    described = described.merge(clusterings, on="clustering_hash", how="left")
    return frame.drop(columns="strength_setting").assign(
        label=pd.Series(configuration_labels(described), index=frame.index, dtype=pd.StringDtype()),
        identity=pd.Series(configuration_methods(described), index=frame.index, dtype=object),
    )


def configuration_labels(configurations: pd.DataFrame) -> list[str]:
    """Return the names of configurations; those that differ only in the number of clusters have the same name.

    Within a dataset and model no two rows with the same number of clusters have the same name.

    Parameters
    ----------
    configurations
        One row each: ``dataset_fn``, ``dataset_hash``, ``model_fn``, ``model_hash``, ``method``, ``n_clusters``,
        ``trainer_role``, ``trainer_fn``, ``trainer_hash``, ``trainer_comment``, ``trainer_config``,
        ``clustering_hash``, ``clustering_settings`` and ``clustering_description``.
    """
    labels = pd.Series("", index=configurations.index, dtype=object)
    for _, rows in configurations.groupby(["dataset_fn", "dataset_hash", "model_fn", "model_hash"], sort=False):
        labels.loc[rows.index] = _labels_within(rows)
    return labels.tolist()


def configuration_methods(configurations: pd.DataFrame) -> list[Method]:
    """Return what the labels of configurations mean.

    Parameters
    ----------
    configurations
        As for :func:`configuration_labels`, with ``strength_setting``, and ``space_trained`` and ``normalize_trained``
        where they are known. A setting of the clustering loss is part of a method if it differs between configurations
        of the same dataset and model.
    """
    methods = pd.Series(None, index=configurations.index, dtype=object)
    for _, rows in configurations.groupby(DATA_AND_MODEL, sort=False):
        records = rows.to_dict("records")
        strengths = [_strength(record) for record in records]
        targets = [_has_constant_target(record) for record in records]
        own = [at for at, record in enumerate(records) if record["method"] == DECEMBER]
        several_strengths = len({strengths[at] for at in own}) > 1
        several_targets = len({targets[at] for at in own}) > 1
        for at, record in enumerate(records):
            is_december = record["method"] == DECEMBER
            methods[rows.index[at]] = Method(
                kind=str(record["method"]),
                role=one_line(record["trainer_role"]),
                strength=strengths[at] if is_december and several_strengths else "",
                constant_target=is_december and several_targets and targets[at],
                space=_space(record),
                neurons=_neurons(record),
                alignment=_alignment(record),
                finds_count=finds_count(str(record["method"]), given_settings(record["clustering_settings"])),
            )
    return methods.tolist()


def names_of(tables: DecemberTables, kind: str, table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the names of the datasets or models of a table: comments, and the settings that differ.

    Parameters
    ----------
    tables
        The tables.
    kind
        "dataset" or "model".
    table
        Rows with ``{kind}_fn`` and ``{kind}_hash``, such as those of ``agreement_table``.

    Returns
    -------
    dict of (str, str) to str
        Function and hash to name; no two names are alike.
    """
    key = [f"{kind}_fn", f"{kind}_hash"]
    entries = frame_of(getattr(tables.nnfabrik, kind.capitalize()).proj(f"{kind}_comment", f"{kind}_config"))
    entries = table[key].drop_duplicates().merge(entries, on=key)
    names = entry_names(entries.rename(columns={f"{kind}_{name}": name for name in ("fn", "comment", "config")}))
    return dict(zip(entries[key].itertuples(index=False, name=None), names, strict=True))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of configurations in the order in which they are shown.

    By dataset, model and number of clusters; DECEMber first, from the gentlest loss to the strongest, then what was
    fitted to the baseline, then to the end of the pretraining.

    Parameters
    ----------
    table
        ``dataset_hash``, ``model_hash``, ``n_clusters``, ``trainer_role``, ``label``, and ``gradient_ratio`` if it is
        known.
    """
    order = [role_order(role) for role in table["trainer_role"]]
    ratio = table["gradient_ratio"].astype(float) if "gradient_ratio" in table else 0.0
    by = ["dataset_hash", "model_hash", COUNT, "_order", "_ratio", "label"]
    ordered = table.assign(_order=order, _ratio=ratio).sort_values(by, kind="stable", ignore_index=True)
    return ordered.drop(columns=["_order", "_ratio"])


# --- parts of the above ------------------------------------------------------------------------------------------


def _strength(record: Mapping[str, Any]) -> str:
    return one_line(record["strength_setting"])


def _space(record: Mapping[str, Any]) -> EmbeddingSpace:
    """Return the space of a configuration; DECEMber's is in its trainer's settings, or else the one that it used."""
    if record["method"] != DECEMBER:
        return embedding_space(given_settings(record["clustering_settings"]))
    used = {name: record.get(f"{name}_trained") for name in ("space", "normalize")}
    known = {name: value for name, value in used.items() if isinstance(value, str)}
    return embedding_space({**known, **given_settings(record["trainer_config"])})


def _neurons(record: Mapping[str, Any]) -> QualityFilter:
    return quality_filter(given_settings(record["clustering_settings"]))


def _alignment(record: Mapping[str, Any]) -> AlignmentRecipe | None:
    return alignment_recipe(given_settings(record["clustering_settings"]))


def _has_constant_target(record: Mapping[str, Any]) -> bool:
    return given_settings(record["trainer_config"]).get("detach_target") is True


def _labels_within(rows: pd.DataFrame) -> list[str]:
    records = rows.to_dict("records")
    bases = [_base(record) for record in records]
    if _is_said_by_bases(bases, records):
        return bases
    settings = [_settings_of(record) for record in records]
    functions = [str(record["trainer_fn"]) for record in records]
    curves = [(base, function, canonical(own)) for base, function, own in zip(bases, functions, settings, strict=True)]
    first = {curve: i for i, curve in reversed(list(enumerate(curves)))}
    chosen = sorted(first.values())
    names = distinct_names(
        _with_comments([bases[i] for i in chosen], [records[i] for i in chosen]),
        [functions[i] for i in chosen],
        [settings[i] for i in chosen],
    )
    named = {curves[i]: name for i, name in zip(chosen, names, strict=True)}
    labels = [named[curve] for curve in curves]
    # The same settings can be stored twice, with a default written out and without.
    for members in grouped(range(len(records)), key=lambda i: (labels[i], records[i][COUNT])):
        ordered = sorted(members, key=lambda i: (str(records[i]["trainer_hash"]), str(records[i]["clustering_hash"])))
        for i, label in zip(ordered, number_duplicates([labels[i] for i in ordered]), strict=True):
            labels[i] = label
    return labels


def _is_said_by_bases(bases: list[str], records: list[dict[str, Any]]) -> bool:
    """Return whether configurations of one name differ only in the number of clusters, even in settings as written.

    Then the names need no addition, for which functions would be imported to look up their defaults.
    """
    if len({(base, record[COUNT]) for base, record in zip(bases, records, strict=True)}) < len(bases):
        return False
    written = {
        (base, record["trainer_fn"], *(canonical(_without_count(record[name])) for name in WRITTEN))
        for base, record in zip(bases, records, strict=True)
    }
    return len(written) == len(set(bases))


def _without_count(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in given_settings(settings).items() if name != COUNT}


def _base(record: Mapping[str, Any]) -> str:
    """Return the name of a single configuration."""
    comment, method, role = one_line(record["trainer_comment"]), str(record["method"]), str(record["trainer_role"])
    space = _space(record)
    name = Method(method, role, space=space, neurons=_neurons(record), alignment=_alignment(record)).name
    if method == DECEMBER:
        name = Method(method, space=space).name
        if not comment.lower().startswith("december"):
            return f"{name}, {comment}".rstrip(", ")
        return comment if space == READOUT_SPACE or space.phrase in comment else f"{comment}, {space.phrase}"
    return name if role in ("baseline", "control") or not comment else f"{name}, {comment}"


def _with_comments(bases: list[str], records: list[dict[str, Any]]) -> list[str]:
    """Add comments to names of post hoc clusterings that coincide, where the comments differ.

    Names already say if a clustering is of the end of the pretraining; its trainer's comment only adds settings.
    """
    found = list(bases)
    for members in grouped(range(len(bases)), key=lambda i: bases[i]):
        for column, applies in (("trainer_comment", "baseline"), ("clustering_description", None)):
            texts = [one_line(records[i][column]) for i in members]
            roles = {str(records[i]["trainer_role"]) for i in members}
            if len(set(texts)) > 1 and (applies is None or roles == {applies}):
                for i, text in zip(members, texts, strict=True):
                    found[i] = f"{found[i]}, {text}" if text else found[i]
    return found


def _settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of trainer and clustering without the number of clusters."""
    settings = distinguishing_settings(str(record["trainer_fn"]), record["trainer_config"])
    clustering = record["clustering_settings"] if isinstance(record["clustering_settings"], Mapping) else {}
    settings |= {f"clustering {name}" if name in settings else name: value for name, value in clustering.items()}
    settings.pop(COUNT, None)
    return settings

"""Writes imported models into nnfabrik's tables and december's: all of an import, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.importing.versions import installed_version
from december_plugin.intake.file_format import ImportFileError
from december_plugin.intake.models import ImportedModel
from december_plugin.intake.parse import Import, load_import, parse_import
from december_plugin.schemas.feature_covariance import given_covariance
from december_plugin.schemas.serialization import to_storable
from december_plugin.schemas.setup_lock import changing_the_plan
from december_plugin.schemas.stored_models import FROM_RECORDING
from december_plugin.schemas.training import check_packet, store_trained_model
from december_plugin.sweeps.entries import KINDS, entry_key
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.register import (
    RegistrationResult,
    check,
    declare_hidden_tables,
    fabrikant_for,
    write_entries,
    write_evaluations,
)
from december_plugin.sweeps.relocate import as_registered
from december_plugin.text.yaml_reader import Mistake, Source

FORMAT = 1
NO_SCORE = "none: trained elsewhere"
GIVEN_SCORE = "mean of the given test correlations"


@dataclass
class ImportResult(RegistrationResult):
    """What an import wrote: rows by table, as for a registration, and the keys of its trained models.

    Attributes
    ----------
    models
        Keys of the trained models, in the order of the import.
    """

    models: list[dict[str, Any]] = field(default_factory=list)


def import_models(
    source: str | Path | Mapping[str, Any],
    *,
    nnfabrik: Any,
    tables: Any,
    folder: str | Path = ".",
    fabrikant: str | None = None,
    add_fabrikant: bool = False,
) -> ImportResult:
    """Bring models that were trained elsewhere into the tables, as if they had been trained here.

    Parameters
    ----------
    source
        An import file (docs/importing-models.md), or the mapping that it holds, in which arrays, frames and state dicts
        may stand for names of files.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    folder
        Base folder of the paths in a mapping; those in a file are relative to its folder.
    fabrikant, add_fabrikant
        As for :func:`december_plugin.sweeps.register.register`.

    Returns
    -------
    ImportResult
        What is new, and what existed already. Repeating the import adds nothing.

    Raises
    ------
    ImportFileError
        For all mistakes in the file and the files that it names; nothing was written.
    SettingsError
        If a model with the same name and seed exists with other weights or neurons.

    See Also
    --------
    models_of_schema : The models of another lab's schema.
    december_plugin.answer.study_readouts : An answer without a database.

    Notes
    -----
    All rows are written in one transaction. An interrupted import leaves no row; ``december store clean`` finds the
    files of state dicts that it may have left in the store.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin import import_models, open_lab
    >>> lab = open_lab(schema="retina")
    >>> rng = np.random.default_rng(0)
    >>> readouts = [rng.normal(size=(60, 8)) for _ in range(3)]  # of three seeds, the same neurons
    >>> model = {"name": "my twin", "readouts": readouts, "session": "4-7"}
    >>> content = {"models": [model], "clusterings": [{"method": "kmeans", "n_clusters": [5, 6]}]}
    >>> result = import_models(content, nnfabrik=lab.nnfabrik, tables=lab.tables)
    >>> result.new
    {'Dataset': 1, 'Model': 1, 'Trainer': 1, 'Seed': 0, 'TrainedModel': 3, 'Clustering': 2}
    """
    found = load_import(source) if isinstance(source, (str, Path)) else parse_import(source, folder=folder)
    return write_import(found, nnfabrik=nnfabrik, tables=tables, fabrikant=fabrikant, add_fabrikant=add_fabrikant)


def write_import(
    found: Import, *, nnfabrik: Any, tables: Any, fabrikant: str | None = None, add_fabrikant: bool = False
) -> ImportResult:
    """Write an import that was read and checked; see :func:`import_models`."""
    connection, schema = nnfabrik.Dataset.connection, tables.schema.database
    with changing_the_plan(connection, schema):
        declare_hidden_tables(tables)
        sweep = as_registered(_as_sweep(found), nnfabrik=nnfabrik, tables=tables)
        models = [replace(model, dataset=entry) for model, entry in zip(found.models, sweep.datasets, strict=True)]
        compared = check(sweep, nnfabrik=nnfabrik, tables=tables, fabrikant=fabrikant, may_add=add_fabrikant)
        written = ImportResult()
        with files_removed_if_it_fails() as stored, connection.transaction:
            name = fabrikant_for(nnfabrik, fabrikant, may_add=add_fabrikant)
            write_entries(sweep, compared, written, nnfabrik=nnfabrik, fabrikant=name)
            _write_models(models, found.source, written, stored, tables=tables, fabrikant=name)
            write_evaluations(sweep, written, tables=tables)
    return written


@contextlib.contextmanager
def files_removed_if_it_fails() -> Iterator[list[Callable[[], None]]]:
    """Yield a list of functions that remove files from the store if the block fails: transactions do not cover them."""
    stored: list[Callable[[], None]] = []
    try:
        yield stored
    except BaseException:
        for remove in stored:
            remove()
        raise


def _as_sweep(found: Import) -> Sweep:
    """Return the entries of an import as a sweep; nothing is planned."""
    models = found.models
    return Sweep(
        datasets=tuple(model.dataset for model in models),
        models=tuple(model.model for model in models),
        trainers=tuple(model.trainer for model in models),
        seeds=tuple(dict.fromkeys(model.seed for model in models)),
        clusterings=found.clusterings,
        surrogates=found.surrogates,
        stability=found.stability,
        cluster_confusion=found.cluster_confusion,
        exciting_images=found.exciting_images,
        source=found.source,
    )


def key_of(model: ImportedModel) -> dict[str, Any]:
    """Return the key of a model's row in ``TrainedModel``."""
    parts = [entry_key(kind, getattr(model, kind)) for kind in KINDS]
    return {**{name: value for part in parts for name, value in part.items()}, "seed": model.seed}


def _write_models(
    models: Sequence[ImportedModel],
    source: Source | None,
    written: ImportResult,
    stored: list[Callable[[], None]],
    *,
    tables: Any,
    fabrikant: str,
) -> None:
    table = tables.TrainedModel()
    n_new = 0
    for model in models:
        key = key_of(model)
        if key in written.models:
            raise ImportFileError([_twice(model)], source)
        written.models.append(key)
        digest = model.digest()
        if table & key:
            _check_same(table, key, model, digest)
            continue
        output = to_storable(output_of(model, digest))
        row = {"score": _score(model), "output": output}
        check_packet(table, output, what=f"what is known of {model.file}")
        stored.append(
            store_trained_model(table, key, row, model.state_dict, fabrikant=fabrikant, allow_direct_insert=True)
        )
        if model.test_correlations is not None:
            _write_performance(key, model, tables.TestPerformance())
        if model.covariance is not None:
            _write_covariance(key, model, tables.FeatureCovariance())
        n_new += 1
    written.count("TrainedModel", new=n_new, of=len(models))


def _write_performance(key: Mapping[str, Any], model: ImportedModel, table: Any) -> None:
    """Enter the correlations of the table of units; neurons without one are left out."""
    scores, embeddings = model.test_correlations, model.embeddings
    assert scores is not None
    assert embeddings.unit_ids is not None
    known = scores[~np.isnan(scores)]
    if not len(known):
        return
    table.insert1(
        {
            **key,
            "single_trial_correlation": float(known.mean()),
            "n_tested_neurons": len(known),
            "n_constant_neurons": 0,
            "n_tested_sessions": len(embeddings.sessions),
            "n_untested_sessions": 0,
        },
        allow_direct_insert=True,
    )
    table.Session.insert(
        {
            **key,
            "data_key": data_key,
            "tested_unit_ids": embeddings.unit_ids[own],
            "tested_unit_ids_from": FROM_RECORDING,
            "single_trial_correlations": scores[own].astype(np.float32),
            "n_trials": 0,
        }
        for data_key, own in embeddings.sessions.items()
    )


def _write_covariance(key: Mapping[str, Any], model: ImportedModel, table: Any) -> None:
    """Enter the feature covariance, which workers could not compute."""
    row = given_covariance(model.covariance, model.covariance_from, model.embeddings.vectors.shape[1])
    counts = {"n_images": model.n_images, "n_covariance_neurons": model.n_covariance_neurons}
    table.insert1({**key, **row, **counts}, allow_direct_insert=True)


def _twice(model: ImportedModel) -> Mistake:
    return Mistake(f"the model {model.model.comment!r} is there twice with seed {model.seed} ({model.file}).")


def _check_same(table: Any, key: Mapping[str, Any], model: ImportedModel, digest: str) -> None:
    output = (table & key).fetch1("output")
    known = output.get("imported") if isinstance(output, Mapping) else None
    if not isinstance(known, Mapping) or known.get("sha256") != digest:
        stored = f" from {known['file']}" if isinstance(known, Mapping) and known.get("file") else ""
        raise SettingsError(
            f"the model {model.model.comment!r} with seed {model.seed} is there already{stored}, with other weights, "
            f"order of neurons or covariance than {model.file} has. Import it under another name or seed, or delete "
            "that trained model first. Nothing was written."
        )


def output_of(model: ImportedModel, digest: str) -> dict[str, Any]:
    """Return the ``output`` of a trained model, with what december's trainers store as far as it is known."""
    embeddings = model.embeddings
    neurons = {
        data_key: {
            "unit_ids": None if embeddings.unit_ids is None else embeddings.unit_ids[own],
            "n_neurons": own.stop - own.start,
        }
        for data_key, own in embeddings.sessions.items()
    }
    output: dict[str, Any] = {
        "format": FORMAT,
        "trainer": "imported",
        "score_name": NO_SCORE if model.test_correlations is None else GIVEN_SCORE,
        "neurons": neurons,
        "imported": {"file": model.file, "sha256": digest},
        "versions": {"december_plugin": installed_version("december-plugin")},
    }
    if model.covariance is not None:
        output["feature_covariance"] = model.covariance
        output["feature_covariance_from"] = model.covariance_from
    if model.probes:
        output["imported"]["probes"] = model.probes
    return output


def _score(model: ImportedModel) -> float:
    """Return the mean of the test correlations; 0 where none is known, as the column takes no NULL."""
    scores = model.test_correlations
    known = np.empty(0) if scores is None else scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else 0.0

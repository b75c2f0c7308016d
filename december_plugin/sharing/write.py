"""Writes a bundle: a result of the tables in one file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from december_plugin import __version__
from december_plugin.bundles.archive import MANIFEST, ArchiveWriter, Manifest, write_archive
from december_plugin.bundles.bundle import (
    COVARIANCES,
    MODELS,
    NUMBERS,
    PROVENANCE,
    README,
    READOUTS,
    REPORT,
    ROWS,
)
from december_plugin.bundles.encoding import Encoder, npy_content
from december_plugin.bundles.weights import weights_content
from december_plugin.errors import SettingsError
from december_plugin.report import export
from december_plugin.report.columns import FILES
from december_plugin.results.report import ReportSettings
from december_plugin.schemas import transfer
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.security.redaction import redacted
from december_plugin.sharing.result import Result


def check_target(path: Path, *, force: bool) -> None:
    """Raise a :class:`SettingsError` if a bundle cannot or must not be written there."""
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; name a file, e.g. {path / 'result.zip'}.")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"the folder {path.absolute().parent} does not exist; make it, or name another file.")
    if path.exists() and not force:
        raise SettingsError(f"{path} exists; name another file, or add --force (force=True) to replace it.")


def write_bundle(
    path: str | Path,
    tables: DecemberTables,
    *,
    settings: ReportSettings | None = None,
    restriction: Any = True,
    models: bool = True,
    report: bool = True,
    force: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Write a result into one file, for a paper's supplement or another machine; completely or not at all.

    Parameters
    ----------
    path
        The file, a ZIP archive.
    tables
        The tables; an account that may only read is enough, but the store is needed.
    settings
        ``types_name``, ``n_clusters``, ``dataset`` and ``model`` choose the configurations; the rest is about the
        report.
    restriction
        Which of their assignments to take, a restriction of DataJoint by key, ``method`` or ``n_clusters``. All seeds
        of a configuration are included.
    models
        Whether to include the weights of the models. Without them it can be read, but not imported into tables.
    report
        Whether to include the report if possible, see :func:`can_have_report`.
    force
        Replace the file if it exists.
    log
        Called with a line of text before each step.

    Returns
    -------
    dict of str to int
        Numbers of configurations and trained models, and the bytes of the file.

    Raises
    ------
    SettingsError
        If there are no assignments, none is selected, or the file exists already.
    EmbeddingError, BundleError, DamagedError
        If a state dict is missing or damaged, holds what a bundle cannot hold, or the file cannot be written.

    See Also
    --------
    december_plugin.bundles.read_bundle : Opens the file.
    december_plugin.results.export_tables : Only the tables.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.sharing import write_bundle
    >>> lab = open_lab(schema="retina", read_only=True)
    >>> counts = write_bundle("result.zip", lab.tables, restriction={"method": "kmeans", "n_clusters": 3})
    >>> counts["configurations"], counts["trained models"]
    (1, 3)
    """
    path, settings = Path(path), settings or ReportSettings()
    check_target(path, force=force)
    result = Result(tables, settings, restriction)
    manifest = Manifest(datetime.now(timezone.utc).isoformat(timespec="seconds"), __version__, models)
    page = _report(tables, settings, log) if report and can_have_report(settings, restriction) else None
    with write_archive(path, manifest) as archive:
        provenance = result.provenance()
        text = redacted(json.dumps(provenance, indent=1, default=str, ensure_ascii=False))
        archive.add(PROVENANCE, text.encode())
        if page is not None:
            archive.add(REPORT, page.encode())
        _add_numbers(archive, result, log)
        for training in result.trainings["training"]:
            log(f"trained model {training} of {len(result.trainings)}")
            _add_training(archive, result, int(training), models=models)
        log("rows of the tables")
        encoder = Encoder(archive)
        for name, rows in _rows(result):
            encoded = [encoder.encode(row, what=f"a row of {name}") for row in rows]
            archive.add(f"{ROWS}{name}.json", json.dumps(encoded, ensure_ascii=False).encode())
        archive.add(README, _readme(models=models, report=page is not None).encode())
    counts = {"configurations": len(result.configurations), "trained models": len(result.trainings)}
    return {**counts, "bytes": path.stat().st_size}


def can_have_report(settings: ReportSettings, restriction: Any) -> bool:
    """Return whether a report covers nothing beyond the result: it is always of whole datasets and models."""
    return restriction is True and settings.n_clusters is None


def _report(tables: DecemberTables, settings: ReportSettings, log: Callable[[str], None]) -> str:
    from december_plugin.report.render import render_report
    from december_plugin.results.report import collect_report

    return render_report(collect_report(tables, settings=settings, log=log))


def _add_numbers(archive: ArchiveWriter, result: Result, log: Callable[[str], None]) -> None:
    """Add the tables of an export, with the text that explains their columns, and the known types."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers"
        tables = [table for name, table in result.exported.items() if name in FILES]
        export.write_export(numbers, tables, {}, formats="parquet", log=log)
        result.frame("types").to_parquet(numbers / "types.parquet", index=False)
        for file in sorted(numbers.iterdir()):
            if file.name != export.PROVENANCE:
                archive.add_file(f"{NUMBERS}{file.name}", file)


def _add_training(archive: ArchiveWriter, result: Result, training: int, *, models: bool) -> None:
    embeddings = result.readouts(training)
    vectors = pd.DataFrame(embeddings.vectors, columns=[f"w{at}" for at in range(embeddings.vectors.shape[1])])
    neurons = pd.DataFrame({"data_key": embeddings.data_keys.astype(object), "unit_id": embeddings.unit_ids})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "readouts.parquet"
        pd.concat([neurons, vectors], axis=1).to_parquet(file, index=False)
        archive.add_file(f"{READOUTS}{training}.parquet", file)
    covariance = result.covariance(training)
    if covariance is not None:
        archive.add(f"{COVARIANCES}{training}.npy", npy_content(np.asarray(covariance)))
    if models:
        state_dict = stored_state_dict(result.tables.TrainedModel, result.key_of(training))
        archive.add(f"{MODELS}{training}.safetensors", weights_content(state_dict, what=f"training {training}"))


def _rows(result: Result) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield everything that other tables need, table by table."""
    tables, trainings = result.tables, result.trainings
    keys = [result.key_of(int(number)) for number in trainings["training"]]
    for kind in transfer.ENTRIES:
        yield kind, transfer.entry_rows(tables.nnfabrik, kind, keys)
    trained = []
    for number, key in zip(trainings["training"], keys, strict=True):
        score, output = (tables.TrainedModel & key).fetch1("score", "output")
        trained.append({**key, "score": float(score), "output": output, "training": int(number)})
    yield "TrainedModel", trained
    chosen = set(result.types_names())
    for name, rows in transfer.result_rows(tables, models=keys, configurations=result.configuration_keys()):
        yield name, [row for row in rows if "types_name" not in row or row["types_name"] in chosen]


def _readme(*, models: bool, report: bool) -> str:
    files = {
        "report.html": "the report" if report else "",
        "numbers/": "tables as Parquet files; numbers/README.txt explains every column",
        "  agreement.parquet": "configurations: dataset, model, trainer, clustering, and how well seeds agree",
        "  trainings.parquet": "trained models, with their numbers T, seeds and scores",
        "  assignments.parquet": "clusters of all neurons, for every configuration and seed",
        "  types.parquet": "known types of neurons, by the name of their set",
        "readouts/T.parquet": "readout vectors of training T, one row per neuron: data_key (session), unit_id, w0, ...",
        "covariances/T.npy": "covariance of the features that these readouts receive, where it was computed",
        "models/T.safetensors": "weights of training T" if models else "",
        PROVENANCE: "versions, commit, time, and the settings of all datasets, models, trainers and clusterings",
        "rows/, arrays/": "what `december import FILE` brings into a database",
        MANIFEST: "SHA-256 of every file",
    }
    lines = [f"{name:<22} {what}" for name, what in files.items() if what]
    return "\n".join(
        [
            f"A result of december_plugin {__version__}: functional clusters of neurons.",
            "",
            *lines,
            "",
            "A unit_id is the position in the model's readout where the recording has none. In Python:",
            "",
            "  from december_plugin.bundles import read_bundle",
            '  with read_bundle("FILE") as bundle:',
            "      print(bundle.configurations)",
            "",
        ]
    )

"""Writes an export: CSV and Parquet files, what their columns mean, and where the numbers come from."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from december_plugin import __version__
from december_plugin.errors import SettingsError
from december_plugin.findings.data import ExportTable
from december_plugin.report.columns import COLUMNS, FILES
from december_plugin.security.redaction import redacted
from december_plugin.storage.atomic import UNFINISHED
from december_plugin.text.csv_files import write_csv

FORMATS = ("csv", "parquet", "both")
README, PROVENANCE = "README.txt", "provenance.json"
ANNOTATED = re.compile(r"neurons(-[0-9a-f]{6,32})?\.h5ad")
ARRAYS_OF_ANNDATA = "arrays in them are those of configurations (cluster_, stability_) and trainings (the others)."


def check_target(folder: Path, *, force: bool) -> None:
    """Raise a :class:`SettingsError` if an export cannot or must not be written there."""
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file; name a folder.")
    if not folder.absolute().parent.is_dir():
        raise SettingsError(f"the folder {folder.absolute().parent} does not exist; make it, or name another folder.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise SettingsError(
            f"the folder {folder} is not empty; name another one, or add --force to replace an earlier export in it."
        )


def write_export(
    folder: Path,
    tables: Sequence[ExportTable],
    provenance: Mapping[str, Any],
    *,
    formats: str = "both",
    annotated: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Write all files; they appear in the folder when all of them are complete.

    Parameters
    ----------
    folder
        Folder of the files; made if it does not exist. Files of an earlier export in it are replaced, others stay.
    tables
        What to write.
    provenance
        Becomes ``provenance.json``.
    formats
        "csv", "parquet" or "both".
    annotated
        Neurons of each dataset as AnnData, by its name: they become ``neurons.h5ad``, or ``neurons-NAME.h5ad`` if there
        are several datasets.
    log
        Called with a line for each table that is written.

    Returns
    -------
    dict of str to int
        Number of rows of each table.

    Raises
    ------
    SettingsError
        If the format is unknown, or something cannot be written; then the folder is as it was.
    """
    if formats not in FORMATS:
        raise SettingsError(f"there is no format {formats!r}. Allowed: {', '.join(FORMATS)}.")
    endings = ("csv", "parquet") if formats == "both" else (formats,)
    folder = folder.absolute()
    partial: Path | None = None
    try:
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{UNFINISHED}")
        partial.mkdir()
        counts, columns = {}, {}
        for table in tables:
            log(f"writing {table.name}")
            counts[table.name], columns[table.name] = _write_table(partial, table, endings)
        by_file = _annotated_files(annotated or {})
        for name, neurons in by_file.items():
            log(f"writing {name}")
            neurons.write_h5ad(partial / name)
        _write_text(partial / PROVENANCE, redacted(json.dumps(provenance, indent=1, default=str, ensure_ascii=False)))
        _write_text(partial / README, readme(counts, columns, endings, list(by_file)))
        _put_in_place(partial, folder)
        return counts
    except OSError as error:
        raise SettingsError(
            f"the export cannot be written to {folder}: {error.strerror or error}. Name a folder that you may write to."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _write_table(folder: Path, table: ExportTable, endings: Sequence[str]) -> tuple[int, list[str]]:
    """Write a table part by part; return its number of rows and its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        text = writer = schema = None
        if "csv" in endings:
            path = folder / f"{table.name}.csv"
            text = stack.enter_context(open(path, "w", encoding="utf-8", newline=""))
        n_rows, columns = 0, []
        for number, part in enumerate(table.parts()):
            if number == 0:
                columns = [str(name) for name in part.columns]
            if text is not None:
                write_csv(part, text, header=number == 0, quoting=csv.QUOTE_MINIMAL)
            if "parquet" in endings:
                part = _plain_texts(part)
                if writer is None:
                    schema = pa.Schema.from_pandas(part, preserve_index=False)
                    path = folder / f"{table.name}.parquet"
                    writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
            n_rows += len(part)
    return n_rows, columns


def _plain_texts(part: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with texts of one kind: parts of a file must have the same types."""
    return part.assign(**{name: part[name].astype("string") for name in part if not _is_plain(part[name])})


def _is_plain(column: pd.Series) -> bool:
    kinds = pd.api.types
    return bool(kinds.is_numeric_dtype(column) or kinds.is_datetime64_any_dtype(column))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _put_in_place(partial: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()  # an empty folder makes way for the new one
    if not folder.exists():
        os.rename(partial, folder)
        return
    names = {path.name for path in partial.iterdir()}
    known = {f"{name}.{ending}" for name in FILES for ending in ("csv", "parquet")}
    known |= {path.name for path in folder.iterdir() if ANNOTATED.fullmatch(path.name)}
    for name in sorted(known - names):  # of another format: old numbers next to new ones
        (folder / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == README):
        os.replace(partial / name, folder / name)


def _annotated_files(annotated: Mapping[str, Any]) -> dict[str, Any]:
    if len(annotated) == 1:
        return {"neurons.h5ad": next(iter(annotated.values()))}
    return {f"neurons-{name}.h5ad": neurons for name, neurons in annotated.items()}


def readme(
    counts: Mapping[str, int],
    columns: Mapping[str, Sequence[str]],
    endings: Sequence[str],
    annotated: Sequence[str] = (),
) -> str:
    """Return the text that explains files, columns and units."""
    lines = [
        f"Numbers of functional clusters, exported by december_plugin {__version__}.",
        "",
        f"Each table is stored as {' and as '.join(f'.{ending}' for ending in endings)}. A neuron is identified by",
        "data_key (session) and unit_id. An empty field is a value that was not computed, or does not exist.",
        "Unit 1 means dimensionless. provenance.json says where the numbers come from.",
    ]
    if annotated:
        files = " and ".join(annotated)
        lines += ["", f"{files}: AnnData, one row per neuron. Numbers in the names of columns and", ARRAYS_OF_ANNDATA]
    for name, n_rows in counts.items():
        lines += ["", f"{name} ({n_rows:,} rows)", f"  {FILES[name]}", ""]
        width = max((len(column) for column in columns[name]), default=0)
        for column in columns[name]:
            unit, meaning = COLUMNS[column]
            lines.append(f"  {column:<{width}}  {f'[{unit}] ' if unit else ''}{meaning}")
    return "\n".join(lines) + "\n"

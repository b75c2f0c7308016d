"""Reads import files: models, where their files are, and what to compute with them.

::

    units: units.csv
    models:
      - name: linear
        checkpoints: models/linear-*.pth
      - name: nonlinear
        checkpoints: [models/nonlinear-1.pth, models/nonlinear-2.pth]
        seeds: [1, 2]
    clusterings:
      - {method: kmeans, n_clusters: [5, 10, 20]}

All mistakes of a file are reported together, each with its line
(:class:`~december_plugin.intake.file_format.ImportFileError`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from december_plugin.evaluation.cluster_functions_settings import ClusterFunctionsSettings
from december_plugin.evaluation.stability_settings import StabilitySettings
from december_plugin.evaluation.surrogate_settings import SurrogateSettings
from december_plugin.insilico.exciting_images_settings import ExcitingImagesSettings
from december_plugin.intake.file_format import ImportFileError, checked_content, read_source
from december_plugin.intake.models import ImportedModel, read_models
from december_plugin.sweeps.parse import ClusteringEntry, parse_evaluations
from december_plugin.text.stored_text import why_unfit
from december_plugin.text.yaml_reader import Mistake, Source

COMMENT_LENGTH = 256


@dataclass(frozen=True, eq=False)
class Import:
    """Everything that an import file brings into the tables.

    Attributes
    ----------
    models
        The trained models.
    clusterings, surrogates, stability, cluster_confusion, exciting_images
        What to compute with them.
    source
        The file, for mistakes that are found only in the tables.
    """

    models: tuple[ImportedModel, ...]
    clusterings: tuple[ClusteringEntry, ...] = ()
    surrogates: tuple[SurrogateSettings, ...] = ()
    stability: tuple[StabilitySettings, ...] = ()
    cluster_confusion: tuple[ClusterFunctionsSettings, ...] = ()
    exciting_images: tuple[ExcitingImagesSettings, ...] = ()
    source: Source | None = field(default=None, repr=False)


def load_import(path: str | Path) -> Import:
    """Read an import file and the models that it names; paths are relative to its folder.

    Raises
    ------
    SettingsError
        If the file cannot be read.
    ImportFileError
        For the mistakes in it and in the files that it names, each with file, line and column.
    """
    content, source = read_source(path)
    return parse_import(content, folder=Path(path).resolve().parent, source=source)


def parse_import(content: Any, *, folder: str | Path = ".", source: Source | None = None) -> Import:
    """Check the content of an import file, and read the models that it names.

    Parameters
    ----------
    content
        The mapping of the YAML file; instead of names of files it may have arrays, frames and state dicts themselves.
    folder
        Base folder of relative paths.
    source
        The file with the places of its entries, so that messages name lines.

    Raises
    ------
    ImportFileError
        For all mistakes together.
    """
    mistakes: list[Mistake] = []

    def wrong(text: str, *place: Any, at_key: bool = False) -> None:
        mistakes.append(Mistake(text, tuple(place), at_key))

    found, violations = checked_content(content)
    for violation in violations:
        where = f"models, entry {violation.path[1] + 1}: " if _is_in_model(violation.path) else ""
        wrong(f"{where}{violation.text}", *violation.path, at_key=violation.is_unknown)
    asked = parse_evaluations(content if isinstance(content, Mapping) else {})
    mistakes += asked.mistakes
    models: list[ImportedModel] = []
    if found is not None:
        _check_texts(found.models, wrong)
        _check_recording(found.recording, wrong)
        models = read_models(
            found.models, folder=Path(folder), units=found.units, recording=found.recording, wrong=wrong
        )
        _check_counts(models, asked.clusterings, wrong)
    if mistakes:
        raise ImportFileError(mistakes, source)
    return Import(
        models=tuple(models),
        clusterings=tuple(entry for entry, _ in asked.clusterings),
        surrogates=asked.surrogates,
        stability=asked.stability,
        cluster_confusion=asked.cluster_confusion,
        exciting_images=asked.exciting_images,
        source=source,
    )


def _is_in_model(place: tuple[Any, ...]) -> bool:
    return len(place) > 1 and place[0] == "models" and isinstance(place[1], int)


def _check_texts(items: Any, wrong: Any) -> None:
    seen: set[str] = set()
    for position, item in enumerate(items):
        if item.name in seen:
            text = f"there are two models named {item.name!r}; seeds of one model are one entry with several files."
            wrong(text, "models", position, "name")
        seen.add(item.name)
        for key in ("name", "trained"):
            if unfit := why_unfit(getattr(item, key), COMMENT_LENGTH):
                wrong(f"models, entry {position + 1}: {key} {unfit}", "models", position, key)


def _check_recording(recording: str, wrong: Any) -> None:
    unfit = why_unfit(recording, COMMENT_LENGTH)
    if os.path.isabs(recording):  # absolute paths in the entries of datasets are those of recordings
        unfit = f"is {recording!r}; it is a name, and not the path of a recording, which goes under dataset."
    if unfit:
        wrong(f"recording {unfit}", "recording")


def _check_counts(models: list[ImportedModel], clusterings: Any, wrong: Any) -> None:
    for model in models:
        for entry, place in clusterings:
            if entry.n_clusters > len(model.embeddings):
                wrong(
                    f"n_clusters is {entry.n_clusters}, but {model.file} has {len(model.embeddings)} neurons. Ask for "
                    "fewer clusters than neurons.",
                    *place,
                )
                return

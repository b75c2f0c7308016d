"""The report of a study: its frames and its data."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.answer.data import StudyData
from december_plugin.clustering.methods import METHODS
from december_plugin.errors import DecemberError
from december_plugin.evaluation.stability import MOST_RESAMPLED
from december_plugin.findings.data import (
    Analysis,
    Confusion,
    Embedding,
    MissingItem,
    ReportData,
    SelectedConfiguration,
)
from december_plugin.findings.embedding import drawn_embedding
from december_plugin.findings.packages import installed_packages
from december_plugin.findings.wording import MODELS

# Columns of a configuration that only models trained here have.
_UNTRAINED: dict[str, Any] = {
    **dict.fromkeys(("trainer_fn", "trainer_hash", "trainer_role", "strength_setting", "trainer_comment"), ""),
    **dict.fromkeys(("strength", "gradient_ratio", "locked_in", "pretrain_epochs"), np.nan),
}


def study_analysis(study: StudyData, *, tsne: bool | None = None) -> Analysis:
    """Return the frames of the report.

    Parameters
    ----------
    study
        The study.
    tsne
        Whether to compute the t-SNE; None: as the study's settings say.
    """
    frames, known = study.frames, study.frames.known
    embedding, missing = None, list(_missing(study))
    if study.settings.tsne if tsne is None else tsne:
        try:
            embedding = _embedding(study)
        except DecemberError as error:
            missing.append(MissingItem("the t-SNE", f"It cannot be drawn: {error}"))
    return Analysis(
        name="models",
        dataset={},
        model={},
        agreement=study.agreement.assign(**_UNTRAINED),
        sessions=_sessions(study),
        nulls=study.nulls.assign(**_UNTRAINED),
        counts=study.counts.assign(**_UNTRAINED),
        choices=study.choices,
        consensus=study.consensus,
        tree=frames.tree(str(study.shown["method"])),
        chosen=_chosen(study, missing),
        embedding=embedding,
        confusions=_confusions(study),
        types_name=known.types_name if known.types is not None else None,
        n_types=known.n_types,
        missing=tuple(missing),
        wording=MODELS,
        similarity=study.similarity,
        space=frames.settings.space.phrase,
    )


def study_report(study: StudyData, analysis: Analysis, *, title: str = "", command: str = "") -> ReportData:
    """Return everything that the report of a study says."""
    empty = pd.DataFrame()
    return ReportData(
        title=title or f"Functional types: {study.scope}",
        created=datetime.now(timezone.utc),
        command=command,
        schema="",
        server="",
        analyses=(analysis,),
        progress=empty,
        failures=empty,
        entries=_entries(study),
        trainings=empty,
        known_types=empty,
        versions=installed_packages(),
        training_versions=empty,
        models=study.models,
    )


def _entries(study: StudyData) -> pd.DataFrame:
    settings = study.settings
    shared: dict[str, Any] = {"space": settings.space.space, "normalize": settings.space.normalize}
    if settings.neurons.minimum_test_correlation is not None:
        shared["minimum_test_correlation"] = settings.neurons.minimum_test_correlation
    rows = [
        {"kind": "clustering", "fn": method, "hash": "", "comment": "", "config": json.dumps({**own, **shared})}
        for method, own in settings.methods.items()
    ]
    if settings.null_draws:
        config = json.dumps({"method": settings.null_method, "n_draws": settings.null_draws, "seed": settings.seed})
        rows.append({"kind": "surrogates", "fn": "", "hash": "", "comment": "", "config": config})
    return pd.DataFrame(rows)


def _sessions(study: StudyData) -> pd.DataFrame:
    models, known = study.frames.models, study.frames.known
    neurons = known.frame(models.ids)
    sessions = neurons.groupby("data_key", sort=False).size().rename("n_neurons").reset_index()
    sessions["unit_ids_from"] = "recording" if models.from_recording else "position"
    scores = neurons.groupby("data_key")["test_correlation"].mean() if "test_correlation" in neurons else {}
    sessions["test_correlation"] = sessions["data_key"].map(scores).astype(float)
    return sessions.assign(untested="", **dict.fromkeys(_UNKNOWN, np.nan))


_UNKNOWN = ("n_test_trials", "single_trial_ceiling", "correlation_to_average", "average_ceiling", "feve")


def _chosen(study: StudyData, missing: list[MissingItem]) -> SelectedConfiguration:
    row = study.shown
    return SelectedConfiguration(
        label=str(row["label"]),
        n_clusters=int(row["n_clusters"]),
        reason=str(row["reason"]),
        n_seeds=len(study.models),
        seeds=tuple(study.models["name"]),
        neurons=study.neurons,
        from_recording=study.frames.models.from_recording,
        resampled=_resampled(study, missing),
        finds_count=row["identity"].finds_count,
    )


def _resampled(study: StudyData, missing: list[MissingItem]) -> pd.DataFrame:
    """Return the stability of a single model's clusters; empty, and for one model noted as missing, where not known."""
    if len(study.models) > 1:
        return pd.DataFrame()
    n_neurons = len(study.frames.models.common)
    remedy = f"It takes long for {n_neurons:,} neurons. {MODELS.resample}"
    if n_neurons <= MOST_RESAMPLED:
        try:
            return study.frames.resampled(str(study.shown["method"]), int(study.shown["n_clusters"]))
        except DecemberError as error:
            remedy = f"It cannot be computed: {error}"
    missing.append(MissingItem("the stability of clusters in random parts of the neurons", remedy))
    return pd.DataFrame()


def _embedding(study: StudyData) -> Embedding:
    models = study.frames.models
    vectors = models.vectors_of(models.common)[0]
    return drawn_embedding(vectors, study.neurons, seed=models.names[0], what=study.settings.vectors_in_words)


def _confusions(study: StudyData) -> tuple[Confusion, ...]:
    known = study.frames.known
    if known.types is None:
        return ()
    count = int(study.shown["n_clusters"])
    rows = study.agreement[study.agreement["n_clusters"] == count]
    return tuple(
        Confusion(
            *(str(row["label"]), count, known.types_name, study.frames.confusion(str(row["method"]), count)),
            finds_count=row["identity"].finds_count,
        )
        for row in rows.to_dict("records")
    )


def _missing(study: StudyData) -> list[MissingItem]:
    known = study.frames.known
    found = [
        MissingItem(f"{METHODS[method].name}, which found no clusters", reason)
        for (method, _), reason in study.frames.computation.failed.items()
    ]
    if len(study.models) < 2:
        found.append(
            MissingItem("the stability of each neuron's cluster, for which two models are needed", MODELS.add_models)
        )
    if known.test_correlations is None:
        found.append(MissingItem("test correlations", "Pass them as `test_correlations`."))
    if known.types is None:
        found.append(MissingItem("a comparison with known types", MODELS.give_types))
    return found

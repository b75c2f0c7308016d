"""From readout vectors of existing models to an answer, in one call and without a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from december_plugin.answer.computation import compute, has_stability_null, n_clusterings
from december_plugin.answer.frames import StudyFrames
from december_plugin.answer.models import read_models
from december_plugin.answer.neurons import known_neurons, well_predicted
from december_plugin.answer.progress import reported
from december_plugin.answer.settings import StudySettings
from december_plugin.answer.study import Study
from december_plugin.clustering.methods import QualityFilter
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import DecemberError, SettingsError
from december_plugin.evaluation.null import DEFAULT_DRAWS
from december_plugin.findings.cluster_counts import choose_cluster_count
from december_plugin.findings.selection import chosen_row
from december_plugin.report.writing import check_replaceable

METHODS = ("kmeans", "gmm", "t_mixture")


def study_readouts(
    models: Any,
    *,
    n_clusters: int | Iterable[int] | None = None,
    methods: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = METHODS,
    space: str | None = None,
    normalize: str | None = None,
    covariances: Any = None,
    batches: Any = None,
    names: Sequence[str] | None = None,
    sessions: Any = None,
    unit_ids: Any = None,
    types: Any = None,
    test_correlations: Any = None,
    minimum_test_correlation: float | None = None,
    shown: int | None = None,
    null_draws: int = DEFAULT_DRAWS,
    null_method: str = "elliptical",
    seed: int = 0,
    n_jobs: int = 1,
    tsne: bool = True,
    progress: bool | Callable[[str, int, int], None] | None = None,
    report: str | Path | None = None,
) -> Study:
    """Ask whether the neurons of existing models fall into types: cluster each model, and compare them.

    Every model is clustered by every method at every number of clusters. Then: do models agree more than on surrogates
    without clusters? Do criteria pick a number of clusters? Which neurons keep their cluster in all models? The results
    are those of a sweep in the tables, computed by the same functions, without a database and without a GPU.

    Parameters
    ----------
    models
        Models of the same neurons: a list, or a mapping of names to them. A model is an array (N, D), a row per neuron
        (D may differ between models); :func:`~december_plugin.embeddings.readout_embeddings`; a state dict; a path of
        one of these (``.npy``, ``.npz``, ``.csv``, ``.parquet``, ``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``); or a
        model itself, with ``readout``. A single model has criteria for the number of clusters, but no agreement.
    n_clusters
        The numbers of clusters K, such as ``range(3, 21)``. Criteria for K need at least three. Left out where all
        methods find the number of clusters.
    methods
        Of "kmeans", "gmm", "t_mixture" and the others in :data:`december_plugin.clustering.methods.POST_HOC`; as a
        mapping with their settings, ``{"t_mixture": {"weights": "learned"}}``. Methods that find the number of
        clusters, "hdbscan" and "t_neb" with ``min_depth``, cluster every model once; frames have the median over
        models as K, and what each model has in ``clusterings``.
    space
        "readout": the readout vectors, whose basis training picks by chance. "functional": distances of predicted
        drives, which need ``covariances`` or ``batches``. None: "functional" if one of these is given.
    normalize
        "l2": only directions, what a neuron is tuned to; "none": also how strongly it is driven. None: "l2" in
        functional space, "none" otherwise.
    covariances
        For each model the covariance (D, D) of what its readouts receive, as
        :func:`~december_plugin.embeddings.feature_covariance` returns it, or a path of it.
    batches
        Stimuli from which covariances are computed if models, not weights, are given, see ``feature_covariance``; a
        list has those of each model.
    names
        Of the models. None: keys of a mapping, else names of files, else "model 1", "model 2", ...
    sessions, unit_ids
        Session and unit id of every row of arrays, each (N,); or ``unit_ids`` alone, as a mapping of session to unit
        ids, a table of units, or its path. With unit ids, neurons are matched; else rows (and neurons of state dicts)
        must be in the same order in all models.
    types
        Known type of every neuron: (N,), None where unknown, in the order of the first model's rows; or a frame or CSV
        file with ``data_key``, ``unit_id`` and ``type``.
    test_correlations
        How well neurons are predicted: (N,), or (models, N), NaN where unknown; or a mapping of names to (N,). All in
        the order of the first model's rows. Or tables of units with a column ``test_correlation``, or paths of these or
        of ``.npy`` files (N,): one for all models, or a list with one for each.
    minimum_test_correlation
        Only neurons with at least this test correlation are clustered, separately in every model; a neuron whose
        correlation is unknown is left out. Models are compared over the neurons that both keep; surrogates and
        consensus use those that all keep. None: all neurons.
    shown
        The number of clusters that the report shows one by one. None: that of the known types, else the one on which
        criteria agree, else the middle one.
    null_draws
        Surrogates; 0 for none. The smallest p value is ``1 / (1 + null_draws)``, and they take most of the time. With a
        single model, the stability of the clusters that are shown is compared with that of surrogates.
    null_method
        How surrogates are drawn, such as "elliptical", or "combined", the strictest: see
        :mod:`december_plugin.evaluation.null`.
    seed
        Of all clusterings and of the surrogates.
    n_jobs
        Processes; -1 for one per processor.
    tsne
        Whether the report has a t-SNE.
    progress
        True writes a line to standard error, False nothing, None a line if that is a terminal; a function is called
        with what is being computed, the number of finished clusterings, and of all.
    report
        Where to write the report; see :meth:`Study.write_report`.

    Returns
    -------
    Study
        Frames, ``summary()``, ``write_report(path)``.

    Raises
    ------
    SettingsError
        For a setting that is not allowed, K above the number of neurons, duplicate names or unit ids, or if the report
        cannot be written; all of it before anything is computed.
    EmbeddingError
        If a model cannot be read or is not finite, models cannot be of the same neurons, a covariance is missing, not
        symmetric or of another D, or no neuron has the ``minimum_test_correlation``.

    See Also
    --------
    december_plugin.imports.read_readouts : Reads readout vectors from a checkpoint or an array.
    december_plugin.evaluation.null_agreement : The null alone.
    december_plugin.intake.import_models : Brings the models into the database.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.answer import study_readouts
    >>> rng = np.random.default_rng(0)
    >>> types = np.repeat([0, 1, 2], 30)
    >>> tuning = 8 * rng.normal(size=(3, 6))[types] + rng.normal(size=(90, 6))
    >>> models = [tuning @ rng.normal(size=(6, 6)) for _ in range(3)]  # each in its own basis
    >>> study = study_readouts(models, n_clusters=3, methods="kmeans", null_draws=0)
    >>> study.agreement["agreement_mean"].round(1).tolist()
    [1.0]
    """
    if report is not None:
        check_replaceable(Path(report), force=False)
    neurons = QualityFilter(minimum_test_correlation=minimum_test_correlation)
    compared = _space(space, normalize, is_given=covariances is not None or batches is not None)
    read = read_models(
        models,
        space=compared,
        covariances=covariances,
        batches=batches,
        names=names,
        sessions=sessions,
        unit_ids=unit_ids,
        seed=seed,
    )
    known = known_neurons(read, types=types, test_correlations=test_correlations)
    read = well_predicted(read, known, neurons)
    settings = StudySettings.of(
        n_clusters=n_clusters,
        methods=methods,
        space=compared,
        neurons=neurons,
        null_draws=null_draws,
        null_method=null_method,
        seed=seed,
        n_jobs=n_jobs,
        tsne=tsne,
        n_neurons=len(read.common),
    )
    if shown is not None and shown not in settings.n_clusters:
        counts = ", ".join(map(str, settings.n_clusters)) or "of which there are none: leave it out"
        raise SettingsError(f"shown is {shown!r}; it must be one of the n_clusters, {counts}.", setting="shown")
    with reported(progress, n_clusterings(read, settings)) as told:
        computation = compute(read, settings, told)
        study = _assembled(StudyFrames(read, settings, computation, known), shown)
        if has_stability_null(read, settings):
            with suppress(DecemberError):  # the report says why it is missing
                study.frames.resampled(str(study.shown["method"]), int(study.shown["n_clusters"]), told)
    if report is not None:
        study.write_report(report)
    return study


def _space(space: str | None, normalize: str | None, *, is_given: bool) -> EmbeddingSpace:
    if space == "readout" and is_given:
        raise SettingsError(
            "covariances (or batches) are given, but space is 'readout', which does not need them; leave out one of "
            "the two.",
            setting="space",
        )
    chosen = space if space is not None else "functional" if is_given else "readout"
    if normalize is None:
        normalize = "l2" if chosen == "functional" else "none"
    return EmbeddingSpace(space=chosen, normalize=normalize)  # type: ignore[arg-type]


def _assembled(frames: StudyFrames, shown: int | None) -> Study:
    agreement, nulls = frames.agreement(), frames.nulls()
    counts = frames.counts(nulls)
    choices = choose_cluster_count(counts)
    row = chosen_row(
        agreement.assign(gradient_ratio=float("nan")), n_clusters=shown, n_types=frames.known.n_types, choices=choices
    )
    return Study(
        models=frames.models.frame(),
        agreement=agreement,
        pairs=frames.pairs,
        nulls=nulls,
        counts=counts,
        choices=choices,
        similarity=frames.similarity(),
        consensus=frames.consensus(),
        neurons=frames.neurons(str(row["method"]), int(row["n_clusters"])),
        clusterings=frames.clusterings,
        settings=frames.settings,
        frames=frames,
        shown=row,
    )

"""The outcome of a study: frames, the answer in words, and the report."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from december_plugin.answer.data import StudyData
from december_plugin.errors import SettingsError
from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS
from december_plugin.findings.data import Analysis, ReportData
from december_plugin.findings.verdict import Answer, answer
from december_plugin.validation.checks import check_integer

SHOWN = ("method", "n_clusters", "agreement_mean", "null_mean", "p_value", "silhouette_mean")


@dataclass(frozen=True, eq=False, repr=False)
class Study(StudyData):
    """The results of a study: data frames, the answer in words, and the report.

    Begin with ``print(study.summary())``; :meth:`write_report` writes everything into one file.

    See :class:`~december_plugin.answer.data.StudyData` for its frames.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.answer import study_readouts
    >>> rng = np.random.default_rng(0)
    >>> tuning = np.repeat(8 * rng.normal(size=(3, 6)), 30, axis=0) + rng.normal(size=(90, 6))
    >>> models = [tuning @ rng.normal(size=(6, 6)) for _ in range(3)]
    >>> study = study_readouts(models, n_clusters=[2, 3], methods="kmeans", null_draws=0)
    >>> study.agreement[["n_clusters", "agreement_mean"]].round(1)
       n_clusters  agreement_mean
    0           2             1.0
    1           3             1.0
    >>> study.clusters_of("kmeans", 3)[["data_key", "unit_id", "cluster", "stability"]].head(2)
      data_key  unit_id  cluster  stability
    0      all        0        2        1.0
    1      all        1        2        1.0
    >>> study.labels("kmeans", 3)["model 1"].value_counts().tolist()
    [30, 30, 30]
    """

    def labels(self, method: str, n_clusters: int | None = None) -> pd.DataFrame:
        """Return the cluster of every neuron in every model, as each numbers them.

        Parameters
        ----------
        method, n_clusters
            The clustering; leave out the number if the method finds it.

        Returns
        -------
        pandas.DataFrame
            One row per neuron, indexed by ``data_key`` and ``unit_id``, one column per model; -1 for a neuron without a
            cluster, missing for one that the model leaves out.

        Raises
        ------
        SettingsError
            If this was not computed.
        """
        return self.frames.labels(*self._checked(method, n_clusters))

    def clusters_of(self, method: str, n_clusters: int | None = None) -> pd.DataFrame:
        """Return the frame ``neurons`` for another method and K; a SettingsError if this was not computed."""
        return self.frames.neurons(*self._checked(method, n_clusters))

    def stability(
        self,
        method: str,
        n_clusters: int | None = None,
        *,
        n_draws: int = DEFAULT_RESAMPLINGS,
        null_draws: int = 0,
    ) -> pd.DataFrame:
        """Return how well the clusters of every model are found again in random halves of its neurons.

        This also applies to a single model, but says less than agreement between models: all halves share its training.

        Parameters
        ----------
        method, n_clusters
            Of the clustering.
        n_draws
            Number of halves.
        null_draws
            Surrogates without clusters, each of which is clustered ``1 + n_draws`` times; 0 for none.

        Returns
        -------
        pandas.DataFrame
            One row per model and cluster: ``model``, ``cluster``, ``n_neurons``, and over draws mean and standard
            deviation of the Jaccard similarity with the most similar cluster of the half (Hennig 2007: from 0.75 on a
            cluster is stable, below 0.5 it dissolves; slices of a continuum can be stable, too). With ``null_draws``
            also ``jaccard``, the mean over the model's clusters weighted with their neurons, that of surrogates
            ``null_mean``, and the ``p_value``.

        Raises
        ------
        SettingsError
            If this was not computed, ``n_draws`` is below 1, or ``null_draws`` is below 0.
        """
        check_integer("null_draws", null_draws, minimum=0)
        return self.frames.stability(*self._checked(method, n_clusters), n_draws=n_draws, null_draws=null_draws)

    def confusion(self, method: str, n_clusters: int | None = None) -> pd.DataFrame:
        """Return the numbers of neurons by cluster and known type, matched, as ``results.confusion_frame`` does."""
        if self.frames.known.types is None:
            raise SettingsError("this study has no known types; give them as `types`.")
        return self.frames.confusion(*self._checked(method, n_clusters))

    @cached_property
    def analysis(self) -> Analysis:
        """The frames of the report; its t-SNE takes a while."""
        from december_plugin.answer.report import study_analysis

        return study_analysis(self)

    @cached_property
    def answer(self) -> Answer:
        """The verdict, and the evidence for it."""
        from december_plugin.answer.report import study_analysis

        return answer(study_analysis(self, tsne=False))

    def summary(self) -> str:
        """Return the answer in words, and the agreement between models by K and method."""
        from december_plugin.answer.summary import study_summary

        return study_summary(self, self.answer)

    def report_data(self, *, title: str = "", command: str = "") -> ReportData:
        """Return everything that the report says."""
        from december_plugin.answer.report import study_report

        return study_report(self, self.analysis, title=title, command=command)

    def write_report(self, path: str | Path, *, title: str = "", command: str = "", force: bool = False) -> Path:
        """Write the report, one HTML file that opens offline.

        Parameters
        ----------
        path
            The file. An earlier report is replaced.
        title
            Heading of the page.
        command
            The command that made it, for the record.
        force
            Replace a file even if it is not a report.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SettingsError
            If it cannot be written; an earlier file is kept.
        """
        from december_plugin.report.render import render_report
        from december_plugin.report.writing import check_replaceable, write_report

        target = Path(path)
        check_replaceable(target, force=force)
        write_report(target, render_report(self.report_data(title=title, command=command)))
        return target

    def _checked(self, method: str, n_clusters: int | None) -> tuple[str, int]:
        """Return method and K of a clustering that was computed, or raise."""
        own = self.agreement[self.agreement["method"] == method]
        if n_clusters is None and len(own) == 1 and self.settings.finds_count(method):
            return method, int(own["n_clusters"].iloc[0])
        if n_clusters is None or not (own["n_clusters"] == n_clusters).any():
            asked = "without a number of clusters" if n_clusters is None else f"with K = {n_clusters}"
            computed = "; ".join(
                f"{name} with K = {', '.join(map(str, rows['n_clusters']))}"
                for name, rows in self.agreement.groupby("method", sort=False)
            )
            raise SettingsError(f"there is no clustering {method!r} {asked}. Computed are {computed}.")
        return method, int(n_clusters)

    def __repr__(self) -> str:
        return f"<Study of {self.scope}: {self.answer.headline}>"

    def _repr_html_(self) -> str:
        frame = self.agreement.merge(self.nulls.drop(columns=["identity"]), how="left").merge(self.counts, how="left")
        table = frame[[name for name in SHOWN if name in frame]].round(3)
        return (
            f"<p>{html.escape(self.scope)}, compared by {html.escape(self.settings.space.phrase)}. "
            f"<b>{html.escape(self.answer.headline)}</b></p>{table.to_html(index=False, na_rep='–', max_rows=60)}"
        )

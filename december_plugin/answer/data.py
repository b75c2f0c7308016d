"""What a study found, as data frames."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from december_plugin.answer.frames import StudyFrames
from december_plugin.answer.settings import StudySettings
from december_plugin.text.formatting import numbered


@dataclass(frozen=True, eq=False, repr=False)
class StudyData:
    """What a study found.

    Attributes
    ----------
    models
        One row per model: ``name``, ``source``, ``n_neurons``, ``n_left_out`` for their test correlation,
        ``n_features``.
    agreement
        One row per method and number of clusters K: ``label``, ``method``, ``n_clusters`` (of a method that finds it
        the median over models), ``n_models``, ``n_left_out`` neurons (mean over models); mean and standard deviation
        over pairs of models of the adjusted Rand index ``agreement_mean``, ``agreement_sd``, with
        ``n_pairs``; over models ``types_agreement_*`` and ``test_correlation_*``, NaN where nothing was given.
    pairs
        One row per method, K and pair of models ``model_a``, ``model_b``: all measures of their agreement.
    nulls
        The agreement, and that of surrogates without clusters: ``null_mean``, ``null_sd``, ``null_low``,
        ``null_high`` (95 % of the draws), ``n_draws``, one-sided ``p_value`` and ``valleys_p_value``, ...; no rows
        without a null.
    counts
        The criteria for K, as :func:`december_plugin.results.cluster_count_table` returns them.
    choices
        Which K each criterion picks, and whether they agree, one row per method.
    similarity
        One row per pair of models ``model_a``, ``model_b``: how similar their embeddings are, see
        :class:`december_plugin.evaluation.similarity.Similarity`. No rows for a single model.
    consensus
        How much the models share: ``mean_stability``, and ``core_fraction``, the share of neurons that all models put
        into the same cluster. No rows for a single model.
    neurons
        One row per neuron that all models keep, for the method and K that the report shows one by one: ``data_key``,
        ``unit_id``, ``cluster``, ``stability``, ``confidence``, ``margin``, and where given ``type`` and
        ``test_correlation``.
    clusterings
        One row per method, K and model: ``n_clusters_found``, ``n_without_cluster`` neurons, convergence, and the
        criteria of this model.
    settings
        The settings of the study.
    frames
        Makes further frames.
    shown
        The row of ``agreement`` whose clusters are shown one by one, with ``reason``.
    """

    models: pd.DataFrame
    agreement: pd.DataFrame
    pairs: pd.DataFrame
    nulls: pd.DataFrame
    counts: pd.DataFrame
    choices: pd.DataFrame
    similarity: pd.DataFrame
    consensus: pd.DataFrame
    neurons: pd.DataFrame
    clusterings: pd.DataFrame
    settings: StudySettings
    frames: StudyFrames
    shown: pd.Series

    @property
    def scope(self) -> str:
        """What was studied: "3 models of 458 neurons"."""
        return f"{numbered(len(self.models), 'model')} of {self.frames.models.n_neurons:,} neurons"

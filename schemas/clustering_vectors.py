"""The vectors that are clustered: those of a trained model, of the neurons and in the space of the clustering.

Everything that clusters neurons, scores a clustering, draws surrogates or pictures takes its vectors from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from december_plugin.clustering.methods import DECEMBER, quality_filter
from december_plugin.embeddings.space import EmbeddingSpace, vectors_in_space
from december_plugin.errors import EmbeddingError
from december_plugin.schemas.stored_models import full_config, stored_embeddings

if TYPE_CHECKING:
    from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings


def space_of_mixture(mixture: Any) -> EmbeddingSpace:
    """Return the space in which a DECEMber trainer fitted the mixture that it stored."""
    known = mixture if isinstance(mixture, Mapping) else {}
    return EmbeddingSpace(space=known.get("space", "readout"), normalize=known.get("normalize", "none"))


def in_space_of_mixture(vectors: np.ndarray, mixture: Any) -> np.ndarray:
    """Return readout vectors (N, D) in the space in which a DECEMber trainer fitted its mixture.

    Raises
    ------
    EmbeddingError
        If that is a functional space, and the feature covariance is not stored with the mixture or is of others.
    """
    space = space_of_mixture(mixture)
    if space.is_functional and mixture.get("covariance") is None:
        raise EmbeddingError(
            "the stored mixture is of functional embeddings, but its feature covariance is not stored with it in "
            "output['mixture']; december_trainer stores both."
        )
    return vectors_in_space(vectors, space, mixture["covariance"] if space.is_functional else None)


@dataclass(frozen=True)
class ClusteringVectors:
    """Reads the vectors that were clustered, or are to be.

    Attributes
    ----------
    trained_model, clustering, feature_covariance, test_performance
        The tables.
    nnfabrik
        Namespace with ``Dataset`` and ``Model``.
    """

    trained_model: Any
    clustering: Any
    feature_covariance: Any
    test_performance: Any
    nnfabrik: Any

    def space_of(self, key: Mapping[str, Any]) -> EmbeddingSpace:
        """Return the space of the clustering with which a trained model was clustered.

        Parameters
        ----------
        key
            Of a trained model and of a clustering; the method "december" has the space of the model's mixture.
        """
        row = (self.clustering & key).fetch1()
        return space_of_mixture(self._mixture(key)) if row["method"] == DECEMBER else _space_of_row(row)

    def in_words(self, key: Mapping[str, Any]) -> str:
        """Return what the vectors of a clustering are called, and of which neurons they are if not of all."""
        neurons = quality_filter((self.clustering & key).fetch1("settings")).phrase
        vectors = self.space_of(key).vectors
        return f"{vectors} ({neurons})" if neurons else vectors

    def of(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> ReadoutEmbeddings:
        """Return the vectors of the neurons that a clustering has, in its space: of its :class:`QualityFilter`.

        Parameters, result and errors as those of :meth:`of_all_neurons`, and an :class:`EmbeddingError` as of
        :meth:`kept`.
        """
        embeddings = self.of_all_neurons(key, config)
        kept = self.kept(key, embeddings)
        return embeddings if kept.all() else embeddings.take(kept)

    def kept(self, key: Mapping[str, Any], embeddings: ReadoutEmbeddings) -> np.ndarray:
        """Return which neurons of a trained model a clustering has.

        Parameters
        ----------
        key
            Of the trained model and of the clustering.
        embeddings
            Of all its neurons (N,).

        Returns
        -------
        ndarray
            Mask (N,).

        Raises
        ------
        EmbeddingError
            If their test correlations are needed and are not there, or are of other neurons, or if no neuron is left.
        """
        wanted = quality_filter((self.clustering & key).fetch1("settings"))
        if wanted.minimum_test_correlation is None:
            return np.ones(len(embeddings), dtype=bool)
        correlations = self._test_correlations(key, embeddings)
        kept = wanted.keeps(correlations)
        if not kept.any():
            n_known = int((~np.isnan(correlations)).sum())
            known = f"the best of {n_known:,} has {np.nanmax(correlations):.3f}" if n_known else "none of them is known"
            raise EmbeddingError(
                f"no neuron of the trained model {dict(key)} has a test correlation of at least "
                f"{wanted.minimum_test_correlation:g}: {known}. Register a clustering with a smaller "
                "minimum_test_correlation."
            )
        return kept

    def _test_correlations(self, key: Mapping[str, Any], embeddings: ReadoutEmbeddings) -> np.ndarray:
        """Return the correlation over single trials of every neuron (N,) float32, NaN where it is not known."""
        if not self.test_performance & key:
            raise EmbeddingError(
                f"the trained model {dict(key)} has no test correlations, by which minimum_test_correlation chooses "
                "neurons. `december worker` computes them (TestPerformance); a model that was imported without its "
                "recording has them only if its table of units had: delete it and import it with them, or delete the "
                "clustering."
            )
        names, values = (self.test_performance.Session & key).fetch("data_key", "single_trial_correlations")
        stored = dict(zip(map(str, names), values, strict=True))
        found = np.full(len(embeddings), np.nan, dtype=np.float32)
        for data_key, own in embeddings.sessions.items():
            if data_key not in stored:
                continue
            if len(stored[data_key]) != own.stop - own.start:
                raise EmbeddingError(
                    f"session {data_key!r} of the trained model {dict(key)} has {own.stop - own.start} neurons, and "
                    f"test correlations of {len(stored[data_key])}: delete its TestPerformance, so that it is computed "
                    "again."
                )
            found[own] = stored[data_key]
        return found

    def of_all_neurons(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> ReadoutEmbeddings:
        """Return the vectors of all neurons of a trained model in the space of a clustering.

        Parameters
        ----------
        key
            Of the trained model and of the clustering.
        config
            Dataset and model, see :func:`~december_plugin.schemas.stored_models.full_config`; None reads them.

        Returns
        -------
        ReadoutEmbeddings
            Sessions in the model's order; ``vectors`` (N, D).

        Raises
        ------
        EmbeddingError
            If the readout vectors cannot be found, or the feature covariance is not there or not of this model.
        RecordingError, SettingsError
            As :func:`~december_plugin.schemas.stored_models.stored_embeddings`.
        """
        embeddings = self.readouts_of(key, config)
        row = (self.clustering & key).fetch1()
        if row["method"] == DECEMBER:
            return replace(embeddings, vectors=in_space_of_mixture(embeddings.vectors, self._mixture(key)))
        space = _space_of_row(row)
        covariance = self.covariance_of(key) if space.is_functional else None
        return replace(embeddings, vectors=vectors_in_space(embeddings.vectors, space, covariance))

    def readouts_of(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> ReadoutEmbeddings:
        """Return the readout vectors of all neurons of a trained model, of which a clustering's vectors are made.

        Parameters, result and errors as those of :meth:`of_all_neurons`; no feature covariance is needed.
        """
        config = full_config(self.nnfabrik, key, trainer=False) if config is None else config
        return stored_embeddings(self.trained_model, config, key)

    def covariance_of(self, key: Mapping[str, Any]) -> np.ndarray:
        """Return the stored feature covariance (D, D) of a trained model, or raise an :class:`EmbeddingError`."""
        found = (self.feature_covariance & key).fetch("covariance")
        if len(found) != 1:
            raise EmbeddingError(
                f"the feature covariance of the trained model {dict(key)} is not stored yet; `december worker` "
                "computes it (FeatureCovariance) where a clustering with space: functional is registered."
            )
        return np.asarray(found[0])

    def _mixture(self, key: Mapping[str, Any]) -> Any:
        output = (self.trained_model & key).fetch1("output")
        return output.get("mixture") if isinstance(output, Mapping) else None


def _space_of_row(row: Mapping[str, Any]) -> EmbeddingSpace:
    return EmbeddingSpace(space=row["space"], normalize=row["normalize"])

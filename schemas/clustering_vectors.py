"""The vectors that are clustered: a trained model's, for the neurons and in the space of the clustering.

Everything that clusters neurons, scores a clustering, draws surrogates or pictures takes its vectors from here. For a
clustering with an alignment, they are first shifted by the stored angles, and then brought into the space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from december_plugin.clustering.methods import DECEMBER, alignment_recipe, quality_filter
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.embeddings.space import EmbeddingSpace, vectors_in_space
from december_plugin.errors import EmbeddingError
from december_plugin.schemas.feature_covariance import stored_covariance
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
        If that is a functional space, and the feature covariance is not stored with the mixture or belongs to others.
    """
    space = space_of_mixture(mixture)
    if space.is_functional and mixture.get("covariance") is None:
        raise EmbeddingError(
            "the stored mixture is of functional embeddings, but its feature covariance is not stored with it in "
            "output['mixture']; december_trainer stores both."
        )
    return vectors_in_space(vectors, space, mixture["covariance"] if space.is_functional else None)


@dataclass(frozen=True)
class StoredAngles:
    """The stored alignment of a model.

    Attributes
    ----------
    angles
        (N,) in radians; NaN where a neuron has none.
    n_orientations
        Of the model's core.
    """

    angles: np.ndarray
    n_orientations: int


@dataclass(frozen=True)
class DrawnFrom:
    """Vectors from which surrogates are drawn and parts are taken, and how these are embedded before clustering.

    An alignment is part of how neurons are clustered: it can bring vectors together that do not share a type. So
    surrogates and parts are drawn from the vectors before it, and then aligned as the real ones were.

    Attributes
    ----------
    embeddings
        Of the neurons that the clustering has: in its space, or, where it aligns them, the readout vectors as they are
        before (divided by their length where it compares directions).
    clustered
        The vectors that are clustered, of the same neurons.
    is_aligned
        Whether the clustering aligns them.
    embed
        Maps vectors (N, D) of the first kind to vectors (N, D) of the second.
    """

    embeddings: ReadoutEmbeddings
    clustered: ReadoutEmbeddings
    is_aligned: bool
    embed: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ClusteringVectors:
    """Reads the vectors that were, or will be, clustered.

    Attributes
    ----------
    trained_model, clustering, feature_covariance, test_performance, alignment
        The tables.
    nnfabrik
        Namespace with ``Dataset`` and ``Model``.
    """

    trained_model: Any
    clustering: Any
    feature_covariance: Any
    test_performance: Any
    alignment: Any
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
        """Return the name of a clustering's vectors, and which neurons they belong to, if not to all."""
        settings = (self.clustering & key).fetch1("settings")
        neurons, recipe = quality_filter(settings).phrase, alignment_recipe(settings)
        vectors = self.space_of(key).vectors
        vectors = f"{vectors}, {recipe.phrase}" if recipe else vectors
        return f"{vectors} ({neurons})" if neurons else vectors

    def of(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> ReadoutEmbeddings:
        """Return the vectors of the neurons that a clustering includes by its :class:`QualityFilter`, in its space.

        Parameters, result and errors are those of :meth:`of_all_neurons`, with an :class:`EmbeddingError` as in
        :meth:`kept`.
        """
        embeddings = self.of_all_neurons(key, config)
        kept = self.kept(key, embeddings)
        return embeddings if kept.all() else embeddings.take(kept)

    def kept(self, key: Mapping[str, Any], embeddings: ReadoutEmbeddings) -> np.ndarray:
        """Return which neurons of a trained model a clustering includes.

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
            If their test correlations are needed but missing, or belong to other neurons, or if no neuron is left.
        """
        wanted = quality_filter((self.clustering & key).fetch1("settings"))
        if wanted.minimum_test_correlation is None:
            return np.ones(len(embeddings), dtype=bool)
        correlations = self._test_correlations(key, embeddings)
        kept = wanted.keeps(correlations)
        if not kept.any():
            n_known = int((~np.isnan(correlations)).sum())
            known = f"the best of {n_known:,} has {np.nanmax(correlations):.3f}" if n_known else "all are unknown"
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
                f"the trained model {dict(key)} has no test correlations, which minimum_test_correlation needs to "
                "choose neurons. `december worker` computes them (TestPerformance); a model that was imported without "
                "its recording has them only if its table of units had: delete it and import it with them, or delete "
                "the clustering."
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
            If the readout vectors cannot be found, or the feature covariance is missing or not of this model.
        RecordingError, SettingsError
            As :func:`~december_plugin.schemas.stored_models.stored_embeddings`.
        """
        config = full_config(self.nnfabrik, key, trainer=False) if config is None else config
        row = (self.clustering & key).fetch1()
        if row["method"] == DECEMBER:
            embeddings = stored_embeddings(self.trained_model, config, key)
            return replace(embeddings, vectors=in_space_of_mixture(embeddings.vectors, self._mixture(key)))
        embeddings = self.readouts_of(key, config)
        covariance = self._metric_of(key, row)
        return replace(embeddings, vectors=vectors_in_space(embeddings.vectors, _space_of_row(row), covariance))

    def readouts_of(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> ReadoutEmbeddings:
        """Return the readout vectors of all neurons of a trained model, from which a clustering's vectors are computed.

        They are shifted by the stored angles if the clustering aligns them. Parameters, result and errors are those of
        :meth:`of_all_neurons`; no feature covariance is needed.
        """
        config = full_config(self.nnfabrik, key, trainer=False) if config is None else config
        embeddings = stored_embeddings(self.trained_model, config, key)
        recipe = alignment_recipe((self.clustering & key).fetch1("settings"))
        if recipe is None:
            return embeddings
        from december_plugin.rotation.recipes import before_alignment, turned

        stored = self.angles_of(key, embeddings)
        vectors = before_alignment(embeddings.vectors, stored.n_orientations, recipe)
        return replace(embeddings, vectors=turned(vectors, stored.angles, stored.n_orientations))

    def drawn_from(self, key: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> DrawnFrom:
        """Return the vectors from which the surrogates of an assignment are drawn and parts of its neurons are taken.

        Parameters and errors are those of :meth:`of`.
        """
        config = full_config(self.nnfabrik, key, trainer=False) if config is None else config
        row = (self.clustering & key).fetch1()
        recipe, clustered = alignment_recipe(row["settings"]), self.of(key, config)
        if recipe is None:
            # A surrogate of directions has their means and correlations, but lengths only near 1; it gets the length 1.
            directions = EmbeddingSpace(normalize=self.space_of(key).normalize)
            return DrawnFrom(clustered, clustered, False, directions.embed)
        from december_plugin.rotation.recipes import before_alignment

        embeddings = stored_embeddings(self.trained_model, config, key)
        n_orientations = self.angles_of(key, embeddings).n_orientations
        vectors = before_alignment(embeddings.vectors, n_orientations, recipe)
        lengths = EmbeddingSpace(normalize=row["normalize"])
        embeddings = replace(embeddings, vectors=np.asarray(lengths.embed(vectors)))
        kept = self.kept(key, embeddings)
        covariance = stored_covariance(self.feature_covariance, key) if recipe.is_functional else None
        aligned = _Aligned(recipe, n_orientations, covariance, _space_of_row(row), self._metric_of(key, row))
        return DrawnFrom(embeddings if kept.all() else embeddings.take(kept), clustered, True, aligned)

    def angles_of(self, key: Mapping[str, Any], embeddings: ReadoutEmbeddings) -> StoredAngles:
        """Return the angles by which a clustering shifts the readout vectors of a model.

        Parameters
        ----------
        key
            Of the trained model, and of a clustering with an alignment.
        embeddings
            Of all neurons (N,) of the model.

        Raises
        ------
        EmbeddingError
            If they are not stored, or belong to other neurons.
        """
        asked = {"alignment_hash": (self.clustering & key).fetch1("alignment_hash")}
        of_model = {name: key[name] for name in self.trained_model.primary_key}
        stored = self.alignment & of_model & asked
        if not stored:
            raise EmbeddingError(
                f"the readout vectors of the trained model {of_model} are not aligned yet; `december worker` aligns "
                "them (Alignment), but only for models with a rotation-equivariant core."
            )
        names, values = (self.alignment.Session & of_model & asked).fetch("data_key", "angles")
        angles = dict(zip(map(str, names), values, strict=True))
        found = np.full(len(embeddings), np.nan)
        for data_key, own in embeddings.sessions.items():
            if len(angles.get(data_key, ())) != own.stop - own.start:
                raise EmbeddingError(
                    f"session {data_key!r} of the trained model {of_model} has {own.stop - own.start} neurons, and "
                    f"angles of {len(angles.get(data_key, ()))}: delete its Alignment, so that it is computed again."
                )
            found[own] = angles[data_key]
        return StoredAngles(found, int(stored.fetch1("n_orientations")))

    def covariance_of(self, key: Mapping[str, Any]) -> np.ndarray:
        """Return the stored feature covariance (D, D) of a trained model, or raise an :class:`EmbeddingError`."""
        return stored_covariance(self.feature_covariance, key)

    def _metric_of(self, key: Mapping[str, Any], row: Mapping[str, Any]) -> np.ndarray | None:
        """Return the covariance of a clustering in functional space; for aligned vectors, the same at all angles."""
        if not _space_of_row(row).is_functional:
            return None
        covariance = self.covariance_of(key)
        if row["alignment_hash"] is None:
            return covariance
        from december_plugin.rotation.shifts import cyclic_mean

        of_model = {name: key[name] for name in self.trained_model.primary_key}
        asked = {"alignment_hash": row["alignment_hash"]}
        return cyclic_mean(covariance, int((self.alignment & of_model & asked).fetch1("n_orientations")))

    def _mixture(self, key: Mapping[str, Any]) -> Any:
        output = (self.trained_model & key).fetch1("output")
        return output.get("mixture") if isinstance(output, Mapping) else None


def _space_of_row(row: Mapping[str, Any]) -> EmbeddingSpace:
    return EmbeddingSpace(space=row["space"], normalize=row["normalize"])


@dataclass(frozen=True)
class _Aligned:
    """Aligns readout vectors and brings them into the space of a clustering."""

    recipe: AlignmentRecipe
    n_orientations: int
    covariance: np.ndarray | None  # of the alignment
    space: EmbeddingSpace
    metric: np.ndarray | None  # of the space

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        from december_plugin.rotation.recipes import align_neurons, turned

        found = align_neurons(vectors, self.n_orientations, self.recipe, self.covariance)
        return vectors_in_space(turned(vectors, found.angles, self.n_orientations), self.space, self.metric)

"""The space in which neurons are compared: readout vectors or functional embeddings, with or without their lengths.

A readout vector ``w_i`` is a coordinate in the basis of one core's output channels, which training picks by chance. The
functional embedding ``v_i = S w_i``, with ``S`` the symmetric root of the feature covariance ``Sigma`` (D, D) of
:func:`~december_plugin.embeddings.functional.feature_covariance`, does not depend on it: the distance between two of
them is the standard deviation, over stimuli, of the difference of the drives that the two readouts predict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from december_plugin.errors import EmbeddingError
from december_plugin.validation.models import Says, settings_class
from december_plugin.validation.tensors import tensor_of

if TYPE_CHECKING:
    from torch import Tensor

Space = Literal["readout", "functional"]
Normalize = Literal["none", "l2"]

# Eigenvalues below 0, and differences between the two halves, that are rounding, relative to the largest entry.
ROUNDING = 1e-6


@settings_class
class EmbeddingSpace:
    """What is compared between neurons.

    Attributes
    ----------
    space
        "readout": the readout vectors, in units of the readout weights. "functional": the functional embeddings, in
        standard deviations of the drive, for which the model's feature covariance is needed.
    normalize
        "none": the vectors themselves. "l2": their directions, vectors of length 1, which say what a neuron is tuned
        to, but not how strongly it is driven. A vector of zeros has no direction and stays unchanged.
    """

    space: Annotated[Space, Says("{name} is {value!r}, which is unknown. {suggestion}")] = "readout"
    normalize: Annotated[Normalize, Says("{name} is {value!r}, which is unknown. {suggestion}")] = "none"

    @property
    def is_functional(self) -> bool:
        """Whether a feature covariance is needed."""
        return self.space == "functional"

    @property
    def phrase(self) -> str:
        """The space in words: "readout vectors", "functional", "functional, direction"."""
        name = "functional" if self.is_functional else "readout vectors"
        return f"{name}, direction" if self.normalize == "l2" else name

    @property
    def vectors(self) -> str:
        """What the vectors are called: "readout vectors", "directions of functional embeddings"."""
        name = "functional embeddings" if self.is_functional else "readout vectors"
        return f"directions of {name}" if self.normalize == "l2" else name

    @overload
    def embed(self, vectors: Tensor, root: Tensor | npt.NDArray[Any] | None = None) -> Tensor: ...
    @overload
    def embed(
        self, vectors: npt.NDArray[Any], root: Tensor | npt.NDArray[Any] | None = None
    ) -> npt.NDArray[np.floating[Any]]: ...
    def embed(self, vectors: Any, root: Any = None) -> Any:
        """Return the readout vectors in this space.

        Parameters
        ----------
        vectors
            ``W`` (N, D), a tensor, on whose autograd graph the result is, or an array.
        root
            Symmetric root (D, D) of the feature covariance, of :func:`covariance_root`; a constant to gradients. Needed
            where the space is functional, ignored elsewhere.

        Returns
        -------
        Tensor or ndarray
            (N, D), of the kind, device and floating type of ``vectors``: they themselves in the space of the readout
            vectors without normalisation.

        Raises
        ------
        EmbeddingError
            If the root is missing or has another number of features.
        """
        if self == EmbeddingSpace():
            return vectors
        import torch

        if not isinstance(vectors, torch.Tensor):
            embedded: npt.NDArray[np.floating[Any]] = self.embed(tensor_of(np.ascontiguousarray(vectors)), root).numpy()
            return embedded
        if self.is_functional:
            vectors = vectors @ _fitting(root, vectors)
        if self.normalize == "none":
            return vectors
        # Imported late: code that only names a space does not need torch.
        from december_plugin.embeddings.directions import Directions

        return Directions.apply(vectors)


READOUT_SPACE = EmbeddingSpace()
"""The space of the unchanged readout vectors."""


def vectors_in_space(
    vectors: npt.NDArray[Any], space: EmbeddingSpace, covariance: npt.ArrayLike | Tensor | None = None
) -> npt.NDArray[np.floating[Any]]:
    """Return the readout vectors of a model in a space.

    Parameters
    ----------
    vectors
        ``W`` (N, D).
    space
        The space.
    covariance
        The model's feature covariance (D, D). Needed where the space is functional, ignored elsewhere.

    Returns
    -------
    ndarray
        (N, D): the unchanged readout vectors in their own space, float64 in every other space.

    Raises
    ------
    EmbeddingError
        If the covariance is missing, or does not belong to these vectors.
    """
    if space == READOUT_SPACE:
        return vectors
    root = None
    if space.is_functional and covariance is not None:
        root = covariance_root(checked_covariance(covariance, n_features=vectors.shape[1]))
    return np.asarray(space.embed(np.asarray(vectors, dtype=np.float64), root))


def covariance_root(covariance: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
    """Return the symmetric root of a feature covariance.

    Parameters
    ----------
    covariance
        ``Sigma`` (D, D), symmetric and without negative eigenvalues but for rounding; it may be singular.

    Returns
    -------
    ndarray
        ``S`` (D, D) float64, symmetric, ``S @ S = Sigma``.

    Raises
    ------
    EmbeddingError
        If it is not such a matrix.
    """
    sigma = checked_covariance(covariance)
    values, vectors = np.linalg.eigh(sigma)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def checked_covariance(covariance: npt.ArrayLike | Tensor, *, n_features: int | None = None) -> npt.NDArray[np.float64]:
    """Return a feature covariance as a symmetric float64 array (D, D).

    Parameters
    ----------
    covariance
        The matrix.
    n_features
        The number of features D that it must have, if it is known.

    Raises
    ------
    EmbeddingError
        If it is not square, of another D, not finite, not symmetric, or has negative eigenvalues.
    """
    sigma = np.asarray(covariance.detach().cpu() if hasattr(covariance, "detach") else covariance, dtype=np.float64)
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1] or not len(sigma):
        raise EmbeddingError(f"the feature covariance has the shape {sigma.shape}; it must be (features, features).")
    if n_features is not None and len(sigma) != n_features:
        raise EmbeddingError(
            f"the feature covariance is of {len(sigma)} features and the readout vectors have {n_features}; both must "
            "come from the same model."
        )
    if not np.isfinite(sigma).all():
        raise EmbeddingError("the feature covariance holds NaN or infinite values.")
    largest = np.abs(sigma).max()
    asymmetry = np.abs(sigma - sigma.T)
    if asymmetry.max() > ROUNDING * largest:
        row, column = np.unravel_index(asymmetry.argmax(), sigma.shape)
        raise EmbeddingError(
            f"the feature covariance is not symmetric: entry ({row}, {column}) is {sigma[row, column]:.6g} and entry "
            f"({column}, {row}) is {sigma[column, row]:.6g}."
        )
    sigma = (sigma + sigma.T) / 2
    smallest = float(np.linalg.eigvalsh(sigma)[0])
    if smallest < -ROUNDING * largest * len(sigma):
        raise EmbeddingError(
            f"the feature covariance has the negative eigenvalue {smallest:.3g}; covariances have none."
        )
    return sigma


def _fitting(root: Any, vectors: Tensor) -> Tensor:
    if root is None:
        raise EmbeddingError(
            "functional embeddings need the model's feature covariance; december_plugin.embeddings.feature_covariance "
            "computes it from the model and some stimuli."
        )
    fitting = tensor_of(root).detach().to(vectors)
    if fitting.shape != (vectors.shape[1], vectors.shape[1]):
        raise EmbeddingError(
            f"the root of the feature covariance has the shape {tuple(fitting.shape)} and the readout vectors have "
            f"{vectors.shape[1]} features; both must come from the same model."
        )
    return fitting

"""Alignment of all readout vectors of a model by a recipe, including dead neurons and controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.errors import EmbeddingError
from december_plugin.rotation.alignment import RotationAlignment, in_metric, metric_root
from december_plugin.rotation.controls import permuted_readouts
from december_plugin.rotation.shifts import checked_readouts, shifted
from december_plugin.text.array_repr import ArrayRepr

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class AlignedNeurons(ArrayRepr):
    """The angles of all neurons of a model, and measures of how good their alignment is.

    Attributes
    ----------
    angles
        (N,) float64 in radians, 0 to 2 pi: by how much each vector is shifted. NaN if a vector, or the drive that it
        gives in the metric, is zero: it has no direction, and is the same at all angles.
    ambiguous
        (N,) bool: whether an angle more than 45 degrees away would have been nearly as good; False for neurons without
        an angle.
    temperature, beta, loss_before, alignment_loss
        See :class:`~december_plugin.rotation.alignment.RotationAlignment`; of the neurons that have an angle.
    """

    angles: Floats
    ambiguous: npt.NDArray[np.bool_]
    temperature: float
    beta: float
    loss_before: float
    alignment_loss: float

    @property
    def n_zero(self) -> int:
        """Number of neurons without an angle."""
        return int(np.isnan(self.angles).sum())

    @property
    def ambiguous_share(self) -> float:
        """Share of the neurons with an angle for which it is ambiguous, 0 to 1."""
        return float(self.ambiguous.sum() / (len(self.angles) - self.n_zero))


def align_neurons(
    readouts: npt.ArrayLike, n_orientations: int, recipe: AlignmentRecipe, covariance: npt.ArrayLike | None = None
) -> AlignedNeurons:
    """Align the readout vectors of a model; those of dead neurons are left out.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major; those of a control have been permuted, see :func:`before_alignment`.
    n_orientations
        Number of orientations O.
    recipe
        The recipe by which they are aligned.
    covariance
        The model's feature covariance (D, D), where the recipe is functional; ignored elsewhere.

    Raises
    ------
    EmbeddingError, MisfitError
        If vectors are not finite, their entries are not a multiple of O, fewer than two are not zero, or the covariance
        is missing.
    AlignmentError
        As :class:`~december_plugin.rotation.alignment.RotationAlignment`.
    """
    vectors = checked_readouts(readouts, n_orientations).reshape(len(np.asarray(readouts)), -1)
    metric = covariance if recipe.is_functional else None
    if recipe.is_functional and metric is None:
        raise EmbeddingError("an alignment by what neurons compute needs the model's feature covariance.")
    has_direction = ~in_metric(vectors, metric_root(metric, vectors.shape[1], n_orientations))[2]
    if has_direction.sum() < 2:
        raise EmbeddingError(
            f"{has_direction.sum()} of {len(vectors)} readout vectors are not zero; at least two are needed for an "
            "alignment. The readout of this model is dead: train it with a weaker regularizer."
        )
    alignment = RotationAlignment(
        n_orientations,
        schedule=recipe.schedule,
        power=recipe.power,
        n_restarts=recipe.n_restarts,
        beta=recipe.beta,
        n_means=recipe.n_means,
        metric=metric,
        random_state=recipe.seed,
    ).fit(vectors[has_direction])
    angles, ambiguous = np.full(len(vectors), np.nan), np.zeros(len(vectors), dtype=bool)
    angles[has_direction], ambiguous[has_direction] = alignment.angles_, alignment.ambiguous_
    return AlignedNeurons(
        angles,
        ambiguous,
        temperature=float(alignment.temperature_),
        beta=float(alignment.beta_),
        loss_before=float(alignment.loss_before_),
        alignment_loss=float(alignment.alignment_loss_),
    )


def before_alignment(readouts: npt.ArrayLike, n_orientations: int, recipe: AlignmentRecipe) -> Floats:
    """Return the vectors that a recipe aligns: readout vectors (N, O * F), with permuted features for a control."""
    vectors = checked_readouts(readouts, n_orientations)
    if recipe.control == "none":
        return vectors.reshape(len(vectors), -1)
    return permuted_readouts(readouts, n_orientations, control=recipe.control, seed=recipe.seed)


def turned(readouts: npt.ArrayLike, angles: npt.ArrayLike, n_orientations: int) -> Floats:
    """Return readout vectors (N, O * F), each shifted linearly by its angle; unchanged if that is NaN."""
    return shifted(readouts, np.nan_to_num(np.asarray(angles, dtype=np.float64), nan=0.0), n_orientations)

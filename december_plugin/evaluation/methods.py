"""What figures and tables compare: a way to cluster vectors, and the training of the model that they come from.

A :class:`Method` is what the label of a configuration means. Labels are for people: they come from comments and
settings, and are never parsed. Colour, marker and line of a method are in :mod:`december_plugin.plots.style`, the
labels of stored configurations in :mod:`december_plugin.results.labels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from december_plugin.clustering.methods import ALL_NEURONS, METHODS, QualityFilter
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.text.formatting import numbered

# Kinds, in the order of legends, and what each is called.
NAMES = {
    **{kind: method.name for kind, method in METHODS.items()},
    "dec": "DEC",
    "baseline": "baseline",
}
ROLES = ("december", "baseline", "control")  # of trainers, in the order of tables
END_OF_PRETRAINING = "end of pretraining"


@dataclass(frozen=True)
class Method:
    """A method, described as far as it differs from the methods with which it is compared.

    Attributes
    ----------
    kind
        How neurons are clustered: "december" (with the training), one of
        :data:`december_plugin.clustering.methods.POST_HOC` (afterwards), "dec"; "baseline" for a model without the
        clustering loss whose neurons are not clustered; any other text for something else.
    role
        What trained the model: "december", "baseline", "control" (a baseline that ended with its pretraining), or "".
    strength
        Setting of the strength of the clustering loss, a number or "auto", where several are compared; else "".
    constant_target
        Whether the target of the clustering loss is held constant, where both are compared.
    core
        What distinguishes the model's core, e.g. "rotation-equivariant", where several are compared; else "".
    space
        The space of the vectors that are clustered.
    neurons
        Which neurons are clustered.
    alignment
        How vectors are first turned to a common orientation; None: they are not.
    finds_count
        Whether it finds the number of clusters itself, which may differ between models.

    See Also
    --------
    december_plugin.plots.method_style : How figures draw a method.

    Examples
    --------
    >>> from december_plugin.evaluation import Method
    >>> Method("kmeans").name, Method("kmeans", role="control").name
    ('k-means', 'k-means, end of pretraining')
    """

    kind: str
    role: str = ""
    strength: str = ""
    constant_target: bool = False
    core: str = ""
    space: EmbeddingSpace = READOUT_SPACE
    neurons: QualityFilter = ALL_NEURONS
    alignment: AlignmentRecipe | None = None
    finds_count: bool = False

    @property
    def name(self) -> str:
        """Its full name: "k-means", "k-means, functional, direction"; readout vectors are not named.

        If only some neurons are clustered, or vectors are aligned first, the name says which, and how.
        """
        name = NAMES.get(self.kind, self.kind)
        if self.space != READOUT_SPACE:
            name = f"{name}, {self.space.phrase}"
        if self.alignment is not None:
            name = f"{name}, {self.alignment.phrase}"
        if self.neurons != ALL_NEURONS:
            name = f"{name}, {self.neurons.phrase}"
        return f"{name}, {END_OF_PRETRAINING}" if self.role == "control" else name

    @property
    def is_permuted(self) -> bool:
        """Whether features were permuted before vectors were aligned: clusters of these are not evidence of types."""
        return self.alignment is not None and self.alignment.control != "none"

    @property
    def is_control(self) -> bool:
        """Whether it is a control: the end of a pretraining, a strength of 0, or permuted features."""
        return self.role == "control" or self.strength_number == 0 or self.is_permuted

    @property
    def strength_number(self) -> float:
        """The strength as a number; NaN for "auto", or if it is not given."""
        try:
            return float(self.strength)
        except ValueError:
            return math.nan

    @property
    def order(self) -> tuple[bool, int]:
        """Sort key of legends: DECEMber, the other methods by kind, then the controls."""
        kinds = list(NAMES)
        return self.is_control, kinds.index(self.kind) if self.kind in kinds else len(kinds)


def with_count(label: str, n_clusters: int, *, is_found: bool = False, n_models: int = 1) -> str:
    """Return a label with its number of clusters, as titles have it.

    Parameters
    ----------
    label
        Label of the method.
    n_clusters
        The number of clusters; where the method finds it, the median over models.
    is_found
        Whether the method finds it.
    n_models
        Number of models.
    """
    if not is_found:
        return f"{label}, K = {n_clusters}"
    median = f" (median over {n_models} models)" if n_models > 1 else ""
    return f"{label}, which found {numbered(n_clusters, 'cluster')}{median}"


def role_order(role: object) -> int:
    """Return the position of a trainer's role in tables: DECEMber, baselines, controls, then everything else."""
    return ROLES.index(role) if role in ROLES else len(ROLES)

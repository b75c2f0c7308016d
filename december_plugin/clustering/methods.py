"""The methods by which neurons are clustered: their names and their settings.

In addition to the settings of its method, every clustering has those of :data:`SHARED`, which say what is clustered,
and :data:`ALIGNMENT`, which says how its vectors are first turned to a common orientation.

A new method is an entry in :data:`METHODS`, a fit in :mod:`december_plugin.clustering.post_hoc`, and a colour and a
marker in :mod:`december_plugin.plots.style`; if it has a likelihood, also a score of held-out neurons in
:mod:`december_plugin.evaluation.model_selection`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PlainValidator

from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import SettingsError, UnknownSettingError, did_you_mean
from december_plugin.validation.checks import check_bounds, check_integer
from december_plugin.validation.models import AS_GIVEN, Positive, PositiveOrZero, Says, constructed, settings_class

DECEMBER = "december"
FOUND = 0  # stored as the number of clusters of a clustering that finds it
KMEANS_RESTARTS = 20
LARGEST = 2**63
MOST_CLUSTERS = 2**32 - 1  # of the table's column

Weights = Literal["uniform", "learned"]

Seed = Annotated[
    int,
    Field(ge=0, le=2**32 - 1),
    AS_GIVEN,
    Says("{name} is {value!r}, but must be an integer from 0 to 2**32 - 1."),
]
Often = Annotated[int, Field(ge=1), AS_GIVEN, Says("{name} is {value!r}, but must be an integer of at least 1.")]
Nats = Annotated[PositiveOrZero, Says("{name} is {value!r}, but must be a finite number of nats, 0 or more.")]
DegreesOfFreedom = Annotated[
    Positive, Says("{name} is {value!r}, but the degrees of freedom must be a positive, finite number.")
]
MIN_DEPTH = "{name} is {value!r}, but must be a number of nats, 0 or more."
MIN_SHARE = "{name} is {value!r}, but must be a share of the neurons, 0 or more and below 1."
CORRELATION = "{name} is {value!r}, but must be a test correlation from -1 to 1, or None for all neurons."
COVARIANCE = "{name} is {value!r}, which is unknown. {suggestion}"
MIN_CLUSTER_SIZE = "{name} is {value!r}, but must be an integer of at least 2."
Bounds = Annotated[tuple[float, float], PlainValidator(lambda bounds: check_bounds("scale_bounds", bounds))]


@settings_class
class GaussianMixtureSettings:
    """A Gaussian mixture with diagonal or spherical covariances, scikit-learn's.

    The paper fixes the seed and ``reg_covar=1e-6``; the other defaults are those of the t mixture, so that the two are
    fitted with equal effort (scikit-learn's own are ``n_init=1, max_iter=100, tol=1e-3``).

    Attributes
    ----------
    seed
        Seed of the starts.
    n_init
        Runs, of which the most likely counts.
    max_iter
        EM steps at most.
    tol
        A step that adds less than this to the mean log likelihood per neuron (nats) is the last.
    reg_covar
        Added to the variances (squared units of the readout weights).
    covariance
        "diagonal": every cluster has a variance of each feature. "spherical": one variance for all features, as for
        aligned readouts (Ustyuzhaninov et al. 2020, section 4).
    """

    seed: Seed = 0
    n_init: Often = 5
    max_iter: Often = 500
    tol: PositiveOrZero = 1e-5
    reg_covar: PositiveOrZero = 1e-6
    covariance: Annotated[Literal["diagonal", "spherical"], Says(COVARIANCE)] = "diagonal"

    @property
    def covariance_type(self) -> Literal["diag", "spherical"]:
        """What scikit-learn calls the covariances."""
        return "diag" if self.covariance == "diagonal" else "spherical"


@settings_class
class KMeansSettings:
    """The best of ``n_init`` restarts: the clustering from which DECEMber starts if it has the same seed."""

    seed: Seed = 0
    n_init: Often = KMEANS_RESTARTS


@settings_class
class StudentTMixtureSettings:
    """See :class:`~december_plugin.clustering.student_t_mixture.StudentTMixture`."""

    seed: Seed = 0
    n_init: Often = 5
    max_iter: Often = 500
    tol: Nats = 1e-5
    dof: DegreesOfFreedom = 2.1
    weights: Annotated[Weights, Says("{name} is {value!r}, which is unknown. {suggestion}")] = "uniform"
    scale_bounds: Bounds = (1e-4, 1e4)


@settings_class
class HdbscanSettings:
    """HDBSCAN, scikit-learn's (Campello et al. 2013): dense regions, and neurons without a cluster between them.

    It finds the number of clusters, and is deterministic. Distances are Euclidean; in many dimensions regions hardly
    differ in density, so that it may find one cluster or none. For more than 5,000 neurons the spanning tree is
    computed here: the same tree in less time (:mod:`december_plugin.clustering.mutual_reachability`).

    Attributes
    ----------
    min_cluster_size
        Smallest number of neurons of a cluster, at least 2.
    min_samples
        Neurons whose distance measures how dense it is around a neuron, at least 1; more of them leave more neurons
        without a cluster. None: as many as ``min_cluster_size``.
    cluster_selection_method
        "eom": the clusters that persist over the widest range of densities. "leaf": the smallest ones of the tree.
    cluster_selection_epsilon
        Clusters that are closer than this to each other are merged (units of the vectors).
    allow_single_cluster
        Whether a single cluster may be the result.
    """

    min_cluster_size: Annotated[int, Field(ge=2), AS_GIVEN, Says(MIN_CLUSTER_SIZE)] = 25
    min_samples: Often | None = None
    cluster_selection_method: Annotated[
        Literal["eom", "leaf"], Says("{name} is {value!r}, which is unknown. {suggestion}")
    ] = "eom"
    cluster_selection_epsilon: PositiveOrZero = 0.0
    allow_single_cluster: bool = False


@settings_class
class WardSettings:
    """Ward's hierarchical clustering, scikit-learn's: the two clusters whose union adds least variance are merged.

    Clusters for fewer K are unions of those for more. Ward's method is deterministic.

    Attributes
    ----------
    n_neighbors
        Only clusters that hold nearest neighbours of each other, as many of every neuron, are merged: memory grows with
        the number of neurons, not with its square. None: any two, for which every pair of neurons is compared.
    """

    n_neighbors: Often | None = None


@settings_class
class TNebSettings:
    """t-NEB: components of a t mixture, merged where the density along a path between them stays high.

    See :mod:`december_plugin.clustering.density_paths`. Clusters may have any shape, and those for fewer K are unions
    of those for more.

    Attributes
    ----------
    seed, n_init, max_iter, tol, dof, weights, scale_bounds
        Settings of the mixture, see :class:`~december_plugin.clustering.student_t_mixture.StudentTMixture`.
    n_components
        Components of the mixture, at least as many as clusters; a few for each cluster. The more there are, the deeper
        the passes within clusters are as well.
    min_depth
        Instead of the number of clusters: clusters are merged unless the density at the pass between them is at least
        this far below that at the lower of their highest centres (nats). Depths grow with the number of features: no
        value suits all data.
    min_share
        Smallest share of the neurons of a cluster, as long as there are enough larger ones, 0 to 1.
    """

    seed: Seed = 0
    n_init: Often = 1
    max_iter: Often = 500
    tol: Nats = 1e-5
    n_components: Often = 20
    min_depth: Annotated[PositiveOrZero | None, Says(MIN_DEPTH)] = None
    min_share: Annotated[float, Field(ge=0, lt=1), AS_GIVEN, Says(MIN_SHARE)] = 0.02
    dof: DegreesOfFreedom = 2.1
    weights: Annotated[Weights, Says("{name} is {value!r}, which is unknown. {suggestion}")] = "learned"
    scale_bounds: Bounds = (1e-4, 1e4)


@dataclass(frozen=True)
class ClusteringMethod:
    """A way to cluster readout vectors.

    Attributes
    ----------
    name
        Its name in figures and tables.
    phrase
        Its name in a sentence.
    settings
        The class of its settings; None for DECEMber, whose settings are the trainer's.
    has_likelihood
        Whether it assigns a likelihood to neurons to which it was not fitted.
    count
        Where the number of clusters comes from: "given" with the clustering, "found" by the method, or "either": the
        method finds it if the setting ``finds_by`` is given instead.
    finds_by
        Name of the setting by which an "either" method finds the number of clusters; "" for all others.
    """

    name: str
    phrase: str
    settings: type | None
    has_likelihood: bool
    count: Literal["given", "found", "either"] = "given"
    finds_by: str = ""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Its settings, with their defaults."""
        declared = () if self.settings is None else fields(self.settings)
        return MappingProxyType({each.name: each.default for each in declared})


# In the order of legends.
METHODS: Mapping[str, ClusteringMethod] = MappingProxyType(
    {
        DECEMBER: ClusteringMethod("DECEMber", "DECEMber", None, has_likelihood=True),
        "gmm": ClusteringMethod(
            "Gaussian mixture",
            "a Gaussian mixture with diagonal covariances (spherical ones where its settings say so)",
            GaussianMixtureSettings,
            has_likelihood=True,
        ),
        "kmeans": ClusteringMethod("k-means", "k-means", KMeansSettings, has_likelihood=False),
        "t_mixture": ClusteringMethod(
            "t mixture", "the same mixture of t distributions", StudentTMixtureSettings, has_likelihood=True
        ),
        "ward": ClusteringMethod("Ward", "Ward's hierarchical clustering", WardSettings, has_likelihood=False),
        "t_neb": ClusteringMethod(
            "t-NEB",
            "components of a t mixture that are merged along paths of high density",
            TNebSettings,
            has_likelihood=False,
            count="either",
            finds_by="min_depth",
        ),
        "hdbscan": ClusteringMethod("HDBSCAN", "HDBSCAN", HdbscanSettings, has_likelihood=False, count="found"),
    }
)
"""Every kind of clustering: DECEMber's, which is trained with the model, and the post hoc methods."""

POST_HOC: Mapping[str, ClusteringMethod] = MappingProxyType(
    {kind: method for kind, method in METHODS.items() if kind != DECEMBER}
)
"""Those that cluster the readouts of a trained model."""


@settings_class
class QualityFilter:
    """Which neurons of a model are clustered: those that the model predicts well enough.

    Attributes
    ----------
    minimum_test_correlation
        Smallest correlation over single trials of the test tier, -1 to 1. A neuron whose correlation is not known is
        left out. None: all neurons are clustered, whatever their correlation.
    """

    minimum_test_correlation: Annotated[
        Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False), AS_GIVEN] | None, Says(CORRELATION)
    ] = None

    @property
    def phrase(self) -> str:
        """The filter in words: "test correlation 0.3 and above"; "" where it leaves no neuron out."""
        least = self.minimum_test_correlation
        return "" if least is None else f"test correlation {float(least):g} and above"

    def keeps(self, correlations: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which neurons (N,) are clustered, by their test correlations (N,); NaN is not known."""
        given = np.asarray(correlations)
        if self.minimum_test_correlation is None:
            return np.ones(given.shape, dtype=bool)
        # Compared in the precision in which they are stored: a correlation of 0.3 is at least 0.3.
        return given >= np.asarray(self.minimum_test_correlation, dtype=given.dtype)


def filter_of_column(value: float | None) -> QualityFilter:
    """Return the filter of a value of the column ``minimum_test_correlation``; NULL is read as None or as NaN."""
    return QualityFilter(minimum_test_correlation=None if value is None or math.isnan(value) else float(value))


ALL_NEURONS = QualityFilter()
"""The filter that leaves no neuron out."""

SHARED: tuple[type, ...] = (EmbeddingSpace, QualityFilter)
"""Settings that every post hoc clustering has, whatever the method: which neurons are clustered, and in which space."""

ALIGNMENT = "alignment"
"""A setting that every post hoc clustering has, too: a mapping of the settings of an :class:`AlignmentRecipe`, or None.
"""

ADDED_LATER: Mapping[str, frozenset[str]] = MappingProxyType({"gmm": frozenset({"covariance"})})
"""Settings that were added to a method after clusterings were first stored, by method."""

# Settings that may be given as integers, although their default, None, does not show it.
_FORMS: Mapping[str, Any] = MappingProxyType({"minimum_test_correlation": 0.0})

SHARED_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {**{each.name: each.default for shared in SHARED for each in fields(shared)}, ALIGNMENT: None}
)

if TYPE_CHECKING:
    Kind = str
    PostHocKind = str
else:
    Kind = Literal[tuple(METHODS)]
    PostHocKind = Literal[tuple(POST_HOC)]


def mistakes_in_settings(method: str, settings: Mapping[str, Any]) -> list[SettingsError]:
    """Return what is wrong with the own settings of one of :data:`POST_HOC`, unknown names first."""
    unknown = f"{method} has no setting {{name!r}}. {{suggestion}}"
    declared = POST_HOC[method].settings
    assert declared is not None
    _, found = constructed(declared, settings, unknown=unknown)
    return [each.as_error() for each in sorted(found, key=lambda each: not each.is_unknown)]


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a clustering that are its method's, without :data:`SHARED` and :data:`ALIGNMENT`."""
    return {name: value for name, value in settings.items() if name not in SHARED_DEFAULTS}


def embedding_space(settings: Mapping[str, Any]) -> EmbeddingSpace:
    """Return the space that the settings of a clustering ask for; the default if they do not say."""
    return EmbeddingSpace(
        **{each.name: settings[each.name] for each in fields(EmbeddingSpace) if each.name in settings}
    )


def quality_filter(settings: Mapping[str, Any]) -> QualityFilter:
    """Return which neurons the settings of a clustering ask for; all if they do not say."""
    return QualityFilter(**{each.name: settings[each.name] for each in fields(QualityFilter) if each.name in settings})


def alignment_recipe(settings: Mapping[str, Any]) -> AlignmentRecipe | None:
    """Return how the settings of a clustering ask for vectors to be aligned; None if they do not say.

    Raises
    ------
    SettingsError
        If the recipe is not allowed.
    """
    given = settings.get(ALIGNMENT)
    if given is None:
        return None
    found, mistakes = _recipe(given)
    if found is None:
        raise mistakes[0]
    return found


def _recipe(given: Any) -> tuple[AlignmentRecipe | None, list[SettingsError]]:
    if not isinstance(given, Mapping):
        keys = ", ".join(each.name for each in fields(AlignmentRecipe))
        text = f"{ALIGNMENT} is {given!r}; it must be a mapping with keys of {keys}, {{}} for the defaults, or None."
        return None, [SettingsError(text, setting=ALIGNMENT)]
    found, mistakes = constructed(AlignmentRecipe, given, unknown="there is no setting {name!r}. {suggestion}")
    errors = [each.as_error() for each in mistakes]
    return found, [type(error)(f"{ALIGNMENT}: {error}", setting=error.setting) for error in errors]


def canonical_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a post hoc method with every default written out and every value in one form.

    ``1`` and ``1.0`` are the same where the default is a float, and so are tuples and lists, and NumPy's and Python's
    numbers: equal settings must get equal hashes, in every process. Of the settings of :data:`SHARED`,
    :data:`ALIGNMENT` and those of :data:`ADDED_LATER` the ones that have their default are left out, so that
    clusterings older than these settings keep their hashes.

    Raises
    ------
    SettingsError
        For an unknown setting, a value that is not a finite number, a string, a bool, None or a list of these, or an
        alignment that does not exist.
    """
    defaults = METHODS[method].defaults
    known = {**defaults, **SHARED_DEFAULTS} if defaults else defaults
    for name in settings:
        if name not in known:
            allowed = did_you_mean(name, known) if known else "It has none: the trainer has them all."
            raise UnknownSettingError(f"{method} has no setting {name!r}. {allowed}", setting=name)
    merged = {**defaults, **settings}
    if (recipe := alignment_recipe(settings)) is not None:
        del merged[ALIGNMENT]
    found = {name: _canonical(name, merged[name], _FORMS.get(name, known[name])) for name in sorted(merged)}
    if recipe is not None:
        found[ALIGNMENT] = recipe.as_settings()
    later = {*SHARED_DEFAULTS, *ADDED_LATER.get(method, ())}
    return {name: value for name, value in found.items() if name not in later or value != known[name]}


def _canonical(name: str, value: Any, default: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise SettingsError(f"{name} has {len(str(abs(value)))} digits; numbers are below 2**63.", setting=name)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, (list, tuple)):
        like = default if isinstance(default, (list, tuple)) and len(default) == len(value) else [None] * len(value)
        return [_canonical(name, entry, entry_default) for entry, entry_default in zip(value, like, strict=True)]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise SettingsError(
            f"{name} is {value!r}; a setting is a number, a string, true, false, none or a list.", setting=name
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name} is {value!r}; it must be finite.", setting=name)
    return value


def finds_count(method: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a method finds the number of clusters itself; False for an unknown method."""
    described = METHODS.get(method)
    if described is None or described.count == "given":
        return False
    return described.count == "found" or settings.get(described.finds_by) is not None


def checked_n_clusters(method: str, n_clusters: Any, settings: Mapping[str, Any] | None = None) -> int:
    """Return the number of clusters as it is stored for a post hoc method: 0 where the method finds it.

    Parameters
    ----------
    method
        One of :data:`POST_HOC`.
    n_clusters
        What is given: an integer of at least 1; None or 0 where the method finds it.
    settings
        The settings that are given.

    Raises
    ------
    SettingsError
        If it is missing, not allowed, or given although the method finds it.
    """
    described = POST_HOC[method]
    is_given = n_clusters is not None and (isinstance(n_clusters, bool) or n_clusters != FOUND)
    if described.count == "found" and is_given:
        raise SettingsError(
            f"n_clusters is {n_clusters!r}; leave it out for the method {method!r}, which finds their number.",
            setting="n_clusters",
        )
    if described.count == "either" and is_given == ((settings or {}).get(described.finds_by) is not None):
        both = "is given both; it takes one" if is_given else "needs one"
        raise SettingsError(
            f"the method {method!r} {both} of n_clusters, an integer of at least 1, and {described.finds_by}, by which "
            "it finds the number of clusters.",
            setting="n_clusters",
        )
    if described.count != "given" and not is_given:
        return FOUND
    if n_clusters is None:
        raise SettingsError(f"the method {method!r} needs n_clusters, an integer of at least 1.", setting="n_clusters")
    return check_integer("n_clusters", n_clusters, minimum=1)


def setting_mistakes(method: str, settings: Mapping[str, Any]) -> list[tuple[str, SettingsError]]:
    """Return what is wrong with the settings of a post hoc method: the setting ("" for none) and the error of each.

    Parameters
    ----------
    method
        One of :data:`METHODS`; "december" has no settings.
    settings
        What is given of them, and of :data:`SHARED` and :data:`ALIGNMENT`.
    """
    found: list[tuple[str, SettingsError]] = []
    for name, value in settings.items():
        if name == ALIGNMENT and METHODS[method].defaults:
            found += [(name, error) for error in ([] if value is None else _recipe(value)[1])]
            continue
        try:
            right = canonical_settings(method, {name: value}).get(name, value)
        except SettingsError as error:
            found.append((name, error))
        else:
            found += [(name, error) for error in _mistakes_of(method, name, right)]
    return found


def _mistakes_of(method: str, name: str, value: Any) -> list[SettingsError]:
    """Return what is wrong with the value of a setting that the method, or every method, has."""
    for shared in SHARED:
        if name in {each.name for each in fields(shared)}:
            return [each.as_error() for each in constructed(shared, {name: value})[1]]
    return mistakes_in_settings(method, {name: value})

"""The settings of a study, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from december_plugin.clustering.methods import (
    ALIGNMENT,
    FOUND,
    POST_HOC,
    QualityFilter,
    canonical_settings,
    finds_count,
    own_settings,
    setting_mistakes,
)
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.evaluation.null import SURROGATE_METHODS
from december_plugin.evaluation.surrogate_settings import MOST_DRAWS
from december_plugin.validation.checks import (
    check_bool,
    check_choice,
    check_count,
    check_integer,
    check_seed,
    is_integer,
)


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The settings of a study.

    Attributes
    ----------
    n_clusters
        The numbers of clusters K, ascending, of methods that take one.
    methods
        Method to its complete settings.
    space
        What of a neuron is compared.
    neurons
        Which neurons are clustered.
    null_draws, null_method
        Surrogates of all models, 0 for none; how they are drawn, see :mod:`december_plugin.evaluation.null`.
    seed
        Of the clusterings and the surrogates.
    n_jobs
        Processes.
    tsne
        Whether the report has a t-SNE.
    """

    n_clusters: tuple[int, ...]
    methods: Mapping[str, Mapping[str, Any]]
    space: EmbeddingSpace
    neurons: QualityFilter
    null_draws: int
    null_method: str
    seed: int
    n_jobs: int
    tsne: bool

    @classmethod
    def of(
        cls,
        *,
        n_clusters: Any,
        methods: Any,
        space: EmbeddingSpace,
        neurons: QualityFilter,
        null_draws: Any,
        null_method: Any,
        seed: Any,
        n_jobs: Any,
        tsne: Any,
        n_neurons: int,
    ) -> StudySettings:
        """Return the settings, or raise a :class:`SettingsError`; the arguments are those of ``study_readouts``."""
        seed = check_seed("seed", seed)
        null_draws = check_integer("null_draws", null_draws, minimum=0)
        if null_draws > MOST_DRAWS:
            raise SettingsError(f"null_draws is {null_draws}; at most {MOST_DRAWS} are allowed.", setting="null_draws")
        if n_jobs != -1:
            n_jobs = check_count("n_jobs", n_jobs)
        chosen = checked_methods(methods, seed=seed)
        is_given = any(not finds_count(method, own) for method, own in chosen.items())
        return cls(
            n_clusters=checked_counts(n_clusters, n_neurons=n_neurons, is_needed=is_given),
            methods=chosen,
            space=space,
            neurons=neurons,
            null_draws=null_draws,
            null_method=check_choice("null_method", null_method, SURROGATE_METHODS),
            seed=seed,
            n_jobs=n_jobs,
            tsne=check_bool("tsne", tsne),
        )

    @property
    def vectors_in_words(self) -> str:
        """What is clustered: "readout vectors", "directions of functional embeddings"."""
        return self.space.vectors

    def finds_count(self, method: str) -> bool:
        """Return whether one of the methods finds the number of clusters itself."""
        return finds_count(method, self.methods[method])

    def counts_of(self, method: str) -> tuple[int, ...]:
        """Return the numbers of clusters for a method: only 0 if it finds them."""
        return (FOUND,) if self.finds_count(method) else self.n_clusters

    @property
    def configurations(self) -> list[tuple[str, int]]:
        """Every method with every number of clusters, 0 if it finds them: models are compared within these."""
        return [(method, count) for method in self.methods for count in self.counts_of(method)]

    def in_words(self, method: str) -> str:
        """Return the settings of a method, as they are compared."""
        return ", ".join(f"{name}={value}" for name, value in sorted(self.methods[method].items()))


def checked_counts(n_clusters: Any, *, n_neurons: int, is_needed: bool = True) -> tuple[int, ...]:
    """Return numbers of clusters, ascending, each once; each from 1 to the number of neurons.

    Parameters
    ----------
    n_clusters
        The numbers that were given.
    n_neurons
        Number of neurons that all models keep, which are those of surrogates.
    is_needed
        Whether a method takes the number of clusters; otherwise only None is allowed, and means no number.
    """
    if not is_needed:
        if n_clusters is None:
            return ()
        raise SettingsError(
            f"n_clusters is {n_clusters!r}; leave it out: all methods of the study find the number of clusters.",
            setting="n_clusters",
        )
    given: list[Any] = [n_clusters]
    if isinstance(n_clusters, Iterable) and not isinstance(n_clusters, (str, bytes, Mapping)):
        given = list(n_clusters)
    if not given or not all(is_integer(count) and count >= 1 for count in given):
        raise SettingsError(
            f"n_clusters is {n_clusters!r}; it must be a number of clusters, or several, such as range(3, 21).",
            setting="n_clusters",
        )
    counts = sorted({int(count) for count in given})
    if counts[-1] > n_neurons:
        raise SettingsError(
            f"n_clusters goes up to {counts[-1]}, but there are only {n_neurons} neurons. Choose numbers of clusters "
            "well below the number of neurons.",
            setting="n_clusters",
        )
    return tuple(counts)


def checked_methods(methods: Any, *, seed: int) -> dict[str, dict[str, Any]]:
    """Return methods with all their settings, in the order given.

    Parameters
    ----------
    methods
        A name, several names, or a mapping of names to settings.
    seed
        The seed of methods without their own.
    """
    if isinstance(methods, str):
        methods = (methods,)
    if not isinstance(methods, (Mapping, Sequence)) or not methods:
        raise SettingsError(
            f"methods is {methods!r}; it must be names of methods, of {', '.join(POST_HOC)}.", setting="methods"
        )
    found = {}
    for method in methods:
        if method not in POST_HOC:
            raise SettingsError(
                f"there is no method {method!r}. {did_you_mean(str(method), POST_HOC)}", setting="methods"
            )
        own = {"seed": seed} if "seed" in POST_HOC[method].defaults else {}
        own |= methods[method] if isinstance(methods, Mapping) else {}
        if own.get(ALIGNMENT) is not None:
            raise SettingsError(
                "a study does not align vectors; align them before, with december_plugin.rotation.RotationAlignment, "
                "and give it the aligned ones.",
                setting=ALIGNMENT,
            )
        shared = [name for name in own if name not in own_settings(own)]
        if shared:
            raise SettingsError(
                f"{shared[0]} is the same for all methods: give it to the study itself.", setting=shared[0]
            )
        for _, mistake in setting_mistakes(method, own):
            raise mistake
        found[method] = canonical_settings(method, own)
    return found

"""The design of the study of spaces: populations, several recordings of each, several model seeds of each recording.

Every draw has its own features, types, neurons and images. Everything is trained once for each draw and model seed;
clusterings after the fact are made from what is kept, in every space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from design import BASELINE, CONTROL, MARMOSET, MODEL, Condition

from december_plugin.embeddings.space import EmbeddingSpace

N_NEURONS = 150  # of each of the two sessions
SEEDS_APART = 10  # session seeds of one draw and of the next


@dataclass(frozen=True)
class Population:
    """A kind of recording.

    Attributes
    ----------
    name
        Of files and tables.
    title
        In words.
    recording
        Settings of ``write_recording``.
    n_clusters
        The number of planted types; for a continuum, the number of clusters into which it is clustered.
    typed
        Whether there are types.
    n_draws, n_seeds
        Recordings, and model seeds of each.
    central
        Whether DECEMber is trained with all settings, or only with those of :attr:`Training.everywhere`.
    pretrain_epochs, max_iter
        Of every training.
    """

    name: str
    title: str
    recording: Mapping[str, Any] = field(default_factory=dict)
    n_clusters: int = 6
    typed: bool = True
    n_draws: int = 4
    n_seeds: int = 2
    central: bool = False
    pretrain_epochs: int = 20
    max_iter: int = 30


SPACES = tuple(
    EmbeddingSpace(space=space, normalize=normalize)
    for space in ("readout", "functional")
    for normalize in ("none", "l2")
)


class Clustering(NamedTuple):
    """A clustering after the fact: method, settings other than the defaults, models whose neurons it clusters."""

    method: str
    settings: Mapping[str, Any]
    roles: tuple[str, ...] = (BASELINE,)
    finds_k: bool = False


CLUSTERINGS = {
    "k-means": Clustering("kmeans", {}, (CONTROL, BASELINE)),
    "Gaussian mixture": Clustering("gmm", {}),
    "t mixture, uniform": Clustering("t_mixture", {}),
    "t mixture, learned": Clustering("t_mixture", {"weights": "learned"}),
    "Ward": Clustering("ward", {}),
    "t-NEB": Clustering("t_neb", {}),
    "HDBSCAN": Clustering("hdbscan", {}, finds_k=True),
}


@dataclass(frozen=True)
class Training:
    """A DECEMber training: settings other than the defaults, whether of all populations, how many model seeds."""

    name: str
    space: EmbeddingSpace
    settings: Mapping[str, Any]
    everywhere: bool = False
    n_seeds: int = 2


NEVER_REFRESHED = "covariance never refreshed"
FROM_MIXTURES = "from the likeliest of 10 mixtures"


def _trainings() -> Iterator[Training]:
    readout, _, functional, direction = SPACES
    everywhere = [(readout, "uniform", True), (readout, "learned", True), (direction, "learned", True)]
    for space, weights, of_all in (*everywhere, (functional, "learned", False), (direction, "uniform", False)):
        settings = {"space": space.space, "normalize": space.normalize, "weights": weights}
        yield Training(f"{space.phrase}, {weights}", space, settings, of_all)
    for space, what, setting in (
        (direction, NEVER_REFRESHED, {"covariance_refresh": "never"}),
        (direction, FROM_MIXTURES, {"mixture_n_init": 10}),
        (readout, FROM_MIXTURES, {"mixture_n_init": 10}),
    ):
        settings = {"space": space.space, "normalize": space.normalize, "weights": "learned", **setting}
        yield Training(f"{space.phrase}, learned, {what}", space, settings)


TRAININGS = tuple(_trainings())
SIMPLE_AND_COMPLEX = {"features": "correlated", "cells": "simple_and_complex", "n_features": 16}
CORRELATED = {"features": "correlated"}
POPULATIONS = (
    Population("types", "types, whitened features", {}, n_draws=4, n_seeds=4, central=True),
    Population("types-correlated", "types, correlated features", CORRELATED, n_draws=4, n_seeds=4, central=True),
    Population(
        "unequal", "unequal types, whitened", {"type_sizes": MARMOSET}, n_clusters=4, n_draws=4, n_seeds=4, central=True
    ),
    Population("simple-complex", "simple and complex cells", SIMPLE_AND_COMPLEX),
    Population("unequal-correlated", "unequal types, correlated", {"type_sizes": MARMOSET, **CORRELATED}, n_clusters=4),
    Population("continuum", "continuum, whitened", {"population": "continuum"}, typed=False),
    Population("ring", "ring", {"population": "ring"}, typed=False),
    Population("sparse", "sparse continuum", {"population": "sparse"}, typed=False),
    Population("continuum-correlated", "continuum, correlated", {"population": "continuum", **CORRELATED}, typed=False),
)


def draws_of(population: Population) -> list[Condition]:
    """Return the condition of every draw of a population's recording."""
    return [
        Condition(
            population=population.name,
            factor="draw",
            level=str(draw),
            recording={"n_neurons": N_NEURONS, "types_seed": draw, **population.recording},
            first_seed=SEEDS_APART * draw + 1,
            model=MODEL,
            pretrain_epochs=population.pretrain_epochs,
            max_iter=population.max_iter,
            n_clusters=(population.n_clusters,),
            seeds=tuple(range(1, population.n_seeds + 1)),
        )
        for draw in range(1, population.n_draws + 1)
    ]


def tasks(populations: tuple[Population, ...] = POPULATIONS) -> list[tuple[Population, Condition, int]]:
    """Return population, draw and model seed of every cell: two seeds of two draws of all populations come first."""
    cells = [
        (population, draw, seed) for population in populations for draw in draws_of(population) for seed in draw.seeds
    ]
    return sorted(cells, key=lambda cell: max(int(cell[1].level), cell[2]) > 2)


def december_tasks(
    populations: tuple[Population, ...] = POPULATIONS, trainings: tuple[Training, ...] = TRAININGS
) -> list[tuple[Training, Condition, int]]:
    """Return the DECEMber trainings, draw by draw, paired ones together."""
    found = [
        (training, draw, seed)
        for population in populations
        for draw in draws_of(population)
        for seed in draw.seeds
        for training in trainings
        if (population.central or training.everywhere) and seed <= training.n_seeds
    ]
    return sorted(found, key=lambda task: int(task[1].level))

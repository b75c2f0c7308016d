"""The design of the validation study: one central condition for each population, and one factor changed at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MARMOSET = (78, 40, 22, 5)  # cells of each type in the paper's first marmoset retina
CONTROL, BASELINE = "control", "baseline"
LEARNED = "learned weights"
POST_HOC = ("gmm", "kmeans", "t_mixture")


@dataclass(frozen=True)
class Variant:
    """One DECEMber training: the number of clusters and the settings that differ from the trainer's defaults."""

    name: str
    n_clusters: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """Recordings, model and trainings that are compared with each other; everything but the model seed is the same.

    Attributes
    ----------
    population
        "types", "unequal" or "continuum".
    factor, level
        What differs from the population's central condition, and how; "central" for itself.
    recording, model
        Settings of ``write_recording`` and of the model function.
    first_seed
        Of the recording: seed of the first session; the second has the next number.
    pretrain_epochs, max_iter
        Epochs before the clustering begins, and in all.
    n_clusters
        Numbers of clusters of the post hoc methods; the first is the number of planted types (or takes its place).
    variants
        The DECEMber trainings.
    seeds
        Model seeds.
    """

    population: str
    factor: str = "central"
    level: str = ""
    recording: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = 1
    pretrain_epochs: int = 20
    max_iter: int = 30
    n_clusters: tuple[int, ...] = (6,)
    variants: tuple[Variant, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)

    @property
    def name(self) -> str:
        """The condition's name, as in the results."""
        return "-".join(part for part in (self.population, self.factor, self.level) if part)


POPULATIONS: Mapping[str, Mapping[str, Any]] = {
    "types": {"population": "types"},
    "unequal": {"population": "types", "type_sizes": MARMOSET},
    "continuum": {"population": "continuum"},
}
# The planted number first; a continuum has none, and is clustered as if it had as many as the types it is made from.
CLUSTER_COUNTS = {"types": (6, 4, 8), "unequal": (4, 3, 6), "continuum": (6, 4, 8)}
MODEL = {"hidden_channels": 16, "input_kern": 7, "hidden_kern": 5, "layers": 2, "depth_separable": False}
STRENGTHS = (0, "auto", 1, 10, 100)


def _central(population: str, seeds: tuple[int, ...]) -> Condition:
    true, *others = CLUSTER_COUNTS[population]
    variants = [Variant(f"strength {strength}", true, {"strength": strength}) for strength in STRENGTHS]
    variants += [Variant("strength auto", count, {}) for count in others]
    variants += [
        Variant("constant target", true, {"detach_target": True}),
        Variant("constant target, strength 100", true, {"detach_target": True, "strength": 100}),
        Variant(LEARNED, true, {"weights": "learned"}),
    ]
    return Condition(
        population=population,
        recording=POPULATIONS[population],
        model=MODEL,
        n_clusters=CLUSTER_COUNTS[population],
        variants=tuple(variants),
        seeds=seeds,
    )


def _factors(central: Condition) -> Iterator[Condition]:
    """Yield the conditions that differ from the central one in one factor."""
    true = central.n_clusters[0]
    variants = (Variant("strength auto", true, {}), Variant("strength 100", true, {"strength": 100}))
    base = replace(central, n_clusters=(true,), variants=variants, seeds=central.seeds[:3])
    for epochs in (5, 10, 25):
        yield replace(base, factor="pretraining", level=f"{epochs} of 30", pretrain_epochs=epochs)
    for count in (75, 600):
        yield replace(base, factor="neurons", level=f"2x{count}", recording={**base.recording, "n_neurons": count})
    for channels in (8, 32):
        yield replace(base, factor="channels", level=str(channels), model={**MODEL, "hidden_channels": channels})
    yield replace(base, factor="signal", level="half", recording={**base.recording, "modulation": 1.0})
    yield replace(base, factor="signal", level="poisson", recording={**base.recording, "noise": "poisson"})
    adaptive = {**MODEL, "readout_regularizer": "adaptive_log_norm"}
    yield replace(base, factor="regularizer", level="adaptive", model=adaptive)
    yield replace(base, factor="draw", level="second", recording={**base.recording, "types_seed": 2})


def conditions() -> list[Condition]:
    """Return the whole study, the central conditions first."""
    central = [_central(population, seeds=(1, 2, 3, 4, 5)) for population in POPULATIONS]
    return [*central, *(condition for each in central for condition in _factors(each))]


def quick_conditions() -> list[Condition]:
    """Return a study of a minute, for the tests: it shows that the script runs and nothing about the method."""
    tiny = {"n_neurons": 30, "n_train": 64, "n_validation": 12, "n_test": 4, "n_repeats": 3}
    variants = (Variant("strength auto", 3, {}), Variant("strength 0", 3, {"strength": 0}))
    shared = {"model": {**MODEL, "hidden_channels": 6}, "pretrain_epochs": 2, "max_iter": 4, "n_clusters": (3, 2)}
    return [
        Condition(
            population=population,
            recording={**POPULATIONS[population], **tiny, "type_sizes": (3, 2, 1)},
            variants=variants,
            seeds=(1, 2),
            **shared,
        )
        for population in ("types", "continuum")
    ]


def tasks(chosen: list[Condition]) -> list[tuple[Condition, int]]:
    """Return condition and seed of every cell: the first three seeds of all conditions before any more."""
    cells = [(condition, seed) for condition in chosen for seed in condition.seeds]
    return sorted(cells, key=lambda cell: cell[0].seeds.index(cell[1]) >= 3)

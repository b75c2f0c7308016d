"""Whether alignment recovers planted types at random orientations from trained models, and what their images look like.

    python studies/rotation/trained.py             # trains, then appends rows to results/trained*.csv
    python studies/rotation/trained.py --figures   # the figure, and the tables in Markdown, from results/

Two teachers: types of one Gabor each, and types that sum several, each neuron at its own angle. Models with a
rotation-equivariant core, and a plain one with as many channels, are trained on the simulated recording; a training
takes a minute on a free core. Models are kept in --folder, and existing rows are not computed again: an interrupted
study continues.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.datasets import static_loaders
from december_plugin.embeddings import feature_covariance
from december_plugin.embeddings.readout_vectors import readout_embeddings, unit_ids_of
from december_plugin.embeddings.space import EmbeddingSpace, covariance_root
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.performance import predict_tier, single_trial_correlation
from december_plugin.insilico import match_filters, maximally_exciting_images
from december_plugin.models import (
    equivariant_core_factorized_readout,
    equivariant_core_gaussian_readout,
    stacked_core_gaussian_readout,
)
from december_plugin.plots.panels import figure_page, letters, title_panel
from december_plugin.plots.style import figure_style
from december_plugin.rotation import RotationAlignment, fourier_amplitudes
from december_plugin.schemas.clusters import trained_mixture_clusters
from december_plugin.simulate import read_truth, write_recording
from december_plugin.simulate.turned_features import TurnedFeatures
from december_plugin.trainers import baseline_trainer, december_trainer

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "rotation-trained.png"
MODELS_FOLDER = Path("build/rotation-trained")
SINGLE, SUMS = "single Gabors", "sums of Gabors"
ORIENTATIONS, N_TYPES, SIZE, FEATURE_SIZE = 8, 6, 16, 9
WELL_PREDICTED = 0.7  # test correlation, as in the paper
KINDS = ("simple, even", "simple, odd", "complex")  # of single Gabors, in turn
MARGIN = 4  # grey pixels around an image, so that a filter can be at its edge
MARKS = {SINGLE: ("o", "#333333"), SUMS: ("^", "#c04a3a")}  # in the figure
Floats = np.ndarray


@dataclass(frozen=True)
class Size:
    """The size of the study.

    Attributes
    ----------
    recording
        Settings of ``write_recording`` beyond the teacher's.
    epochs, pretrain_epochs
        Of every training; the clustering loss begins after the pretraining.
    seeds
        Of the models.
    """

    recording: Mapping[str, Any] = field(
        default_factory=lambda: {"n_neurons": 180, "n_train": 1000, "n_validation": 100, "n_test": 30, "n_repeats": 5}
    )
    epochs: int = 30
    pretrain_epochs: int = 20
    seeds: tuple[int, ...] = (1, 2, 3)


TEACHERS: dict[str, dict[str, Any]] = {
    SINGLE: {"cells": "single_gabors", "features": "correlated", "n_features": N_TYPES, "spread": 0.0},
    SUMS: {"spread": 0.2},
}
COMMON = {
    "image_shape": (SIZE, SIZE),
    "feature_size": FEATURE_SIZE,
    "type_sizes": (1,) * N_TYPES,
    "orientations": "random",
    "noise": "poisson",
    "rate": 2.0,
}
CORE = {"input_kern": 9, "hidden_kern": 5, "layers": 2, "pad_input": True}
EQUIVARIANT = {**CORE, "features": 4, "orientations": ORIENTATIONS}
SPARSE = {
    "positive_masks": True,
    "normalize_masks": False,
    "init_noise": 0.05,
    "gamma_masks": 1.0,
    "gamma_readout": 1.0,
}
PLAIN = {**CORE, "hidden_channels": 4 * ORIENTATIONS, "depth_separable": False, "grid_mean_predictor": None}
BY_DECEMBER = "DECEMber"
# Name: model function, its settings, settings of DECEMber (None: no clustering loss).
Model = tuple[Callable[..., Any], Mapping[str, Any], Mapping[str, Any] | None]
MODELS: dict[str, Model] = {
    "equivariant": (equivariant_core_gaussian_readout, EQUIVARIANT, None),
    "plain": (stacked_core_gaussian_readout, PLAIN, None),
    "plain, DECEMber": (stacked_core_gaussian_readout, PLAIN, {}),
    "plain, DECEMber, functional": (stacked_core_gaussian_readout, PLAIN, {"space": "functional", "normalize": "l2"}),
    "equivariant, factorized": (equivariant_core_factorized_readout, EQUIVARIANT, None),
    "equivariant, factorized, sparse masks": (equivariant_core_factorized_readout, {**EQUIVARIANT, **SPARSE}, None),
}


@dataclass(frozen=True)
class Trained:
    """A trained model of the study: readout vectors (N, D), test correlations (N,), mixture, covariance (D, D).

    The vectors are those of the N neurons that have one: sparse readouts may leave a neuron without.
    """

    has_vector: np.ndarray
    vectors: Floats
    correlations: Floats
    mixture: Mapping[str, Any] | None
    covariance: Floats

    @property
    def directions(self) -> Floats:
        """Readout vectors of length 1."""
        return self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)

    @property
    def functional(self) -> Floats:
        """Directions of the functional embeddings."""
        space = EmbeddingSpace(space="functional", normalize="l2")
        return np.asarray(space.embed(self.vectors, covariance_root(self.covariance)))

    def aligned(self, seed: int, *, metric: Floats | None = None) -> Floats:
        """Return the vectors aligned with the defaults."""
        return RotationAlignment(ORIENTATIONS, metric=metric, random_state=seed).fit_transform(self.vectors)


def clustered(method: str, vectors: Floats) -> np.ndarray:
    """Return labels of as many clusters as there are types; mixtures are spherical."""
    settings = {"covariance": "spherical"} if method == "gmm" else {}
    return cluster_readouts(vectors, method=method, n_clusters=N_TYPES, **settings).labels


Way = Callable[[Trained, int], np.ndarray]
OF_PLAIN: dict[str, Way] = {
    "k-means": lambda model, _: clustered("kmeans", model.directions),
    "k-means, functional": lambda model, _: clustered("kmeans", model.functional),
    "GMM": lambda model, _: clustered("gmm", model.directions),
    "GMM, functional": lambda model, _: clustered("gmm", model.functional),
}
OF_EQUIVARIANT: dict[str, Way] = {
    "unaligned, GMM": lambda model, _: clustered("gmm", model.directions),
    "Fourier amplitudes, GMM": lambda model, _: clustered("gmm", fourier_amplitudes(model.directions, ORIENTATIONS)),
    "aligned, GMM": lambda model, seed: clustered("gmm", model.aligned(seed)),
    "aligned, k-means": lambda model, seed: clustered("kmeans", model.aligned(seed)),
    "aligned in functional space, GMM": lambda model, seed: clustered(
        "gmm", model.aligned(seed, metric=model.covariance)
    ),
}
OF_DECEMBER: dict[str, Way] = {
    BY_DECEMBER: lambda model, _: trained_mixture_clusters(model.vectors, model.mixture).labels
}


def ways_of(model: str) -> dict[str, Way]:
    """Return how the neurons of a model are clustered."""
    if MODELS[model][2] is not None:
        return OF_DECEMBER
    return OF_EQUIVARIANT if model.startswith("equivariant") else OF_PLAIN


class Study:
    """Recordings, models and labels of the study, each made once."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder.resolve(), size
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ["DECEMBER_PRETRAINING"] = str(self.folder / "pretraining")
        self._labels: dict[tuple[str, str, int, str], np.ndarray] = {}

    def recording(self, teacher: str) -> Path:
        """Return the teacher's recording; write it if it does not exist."""
        path = self.folder / f"static{1 + list(TEACHERS).index(teacher)}-1-1-simulated"
        if not (path / "truth").is_dir():
            write_recording(path, seed=1, **COMMON, **TEACHERS[teacher], **self.size.recording)
        return path

    def loaders(self, teacher: str) -> dict[str, Any]:
        """Return the loaders of a teacher's recording."""
        return static_loaders(paths=[str(self.recording(teacher))], batch_size=64)

    def model(self, teacher: str, name: str, seed: int) -> tuple[torch.nn.Module, Trained]:
        """Return a model; train it if it does not exist."""
        function, settings, clustering = MODELS[name]
        loaders = self.loaders(teacher)
        network = function(loaders, seed, **settings)
        path = self.folder / f"{teacher}-{name}-seed{seed}.pt".replace(" ", "_").replace(",", "")
        if not path.exists():
            common = {"max_iter": self.size.epochs, "pretrain_epochs": self.size.pretrain_epochs, "device": "cpu"}
            trainer = baseline_trainer if clustering is None else december_trainer
            own = {} if clustering is None else {"n_clusters": N_TYPES, **clustering}
            _, output, state = trainer(network, loaders, seed, verbose=False, **common, **own)
            draft = path.with_suffix(".tmp")
            torch.save({"state": state, "mixture": output.get("mixture")}, draft)
            draft.rename(path)
        kept = torch.load(path, weights_only=False)  # written above
        network.load_state_dict(kept["state"])
        (pair,) = predict_tier(network, loaders["test"]).values()
        vectors = readout_embeddings(kept["state"]).vectors.astype(np.float64)
        covariance = feature_covariance(network, loaders)
        used = np.any(vectors != 0, axis=1)
        return network, Trained(used, vectors[used], single_trial_correlation(*pair), kept["mixture"], covariance)

    def labels(self, teacher: str, name: str, seed: int, way: str) -> np.ndarray:
        """Return the clusters of a model's neurons; NO_CLUSTER of those without a readout vector."""
        key = (teacher, name, seed, way)
        if key not in self._labels:
            _, trained = self.model(teacher, name, seed)
            for each, clusters in ways_of(name).items():
                labels = np.full(len(trained.has_vector), NO_CLUSTER)
                labels[trained.has_vector] = clusters(trained, seed)
                self._labels[(teacher, name, seed, each)] = labels
        return self._labels[key]


def cells(size: Size) -> Iterator[tuple[str, str, int]]:
    """Yield teacher, model and seed of every training: all models of one seed before the next."""
    for teacher, seed, name in itertools.product(TEACHERS, size.seeds, MODELS):
        if seed == size.seeds[0] or "factorized" not in name:
            yield teacher, name, seed


def ari(first: np.ndarray, second: np.ndarray) -> float:
    """Return the agreement of two partitions over the neurons that have a cluster in both."""
    in_both = (first != NO_CLUSTER) & (second != NO_CLUSTER)
    return compare_partitions(first[in_both], second[in_both]).adjusted_rand_index


def recovery_rows(study: Study, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the agreement of clusters with the planted types."""
    for teacher, name, seed in cells(study.size):
        if all((teacher, name, seed, way) in done for way in ways_of(name)):
            continue
        truth = read_truth(study.recording(teacher))
        _, trained = study.model(teacher, name, seed)
        for way in ways_of(name):
            if (teacher, name, seed, way) not in done:
                found = study.labels(teacher, name, seed, way)
                yield {
                    "teacher": teacher,
                    "model": name,
                    "seed": seed,
                    "way": way,
                    "ari": ari(truth.types, found),
                    "test_correlation": float(trained.correlations.mean()),
                }


def agreement_rows(study: Study, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the agreement between seeds."""
    for teacher, name in itertools.product(TEACHERS, MODELS):
        seeds = [seed for each, other, seed in cells(study.size) if (each, other) == (teacher, name)]
        for way, (first, second) in itertools.product(ways_of(name), itertools.combinations(seeds, 2)):
            if (teacher, name, way, first, second) not in done:
                both = (study.labels(teacher, name, seed, way) for seed in (first, second))
                row = {"teacher": teacher, "model": name, "way": way, "first": first, "second": second}
                yield {**row, "ari": ari(*both)}


def planted_filters(types: np.ndarray) -> tuple[Floats, Floats]:
    """Return the filters of single Gabors and their partners in quadrature, (N, h, w), without turning."""
    shape = (SIZE + 1, SIZE + 1)
    settings = {name: TEACHERS[SINGLE][name] for name in ("cells", "features")}
    features = TurnedFeatures.draw(N_TYPES, FEATURE_SIZE, (SIZE, SIZE), 1, **settings)
    even, odd = features.kernels(np.zeros(1), np.full((1, 2), SIZE / 2), shape)
    return even[types, 0], odd[types, 0]


def image_rows(study: Study, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield how well the maximally exciting image of each neuron matches its planted filter."""
    truth, seed = read_truth(study.recording(SINGLE)), study.size.seeds[0]
    if all((seed, unit) in done for unit in truth.unit_ids):
        return
    network, trained = study.model(SINGLE, "equivariant", seed)
    neuron_ids = readout_embeddings(network, unit_ids=unit_ids_of(study.loaders(SINGLE))).neuron_ids
    exciting = maximally_exciting_images(network, neuron_ids, (1, SIZE, SIZE), neuron_ids=neuron_ids, dead="keep")
    np.save(study.folder / "images.npy", exciting.images[:, 0])
    images = np.pad(exciting.images[:, 0], [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)])
    filters, partners = planted_filters(truth.types)
    alive = np.ptp(images, axis=(1, 2)) > 0
    is_complex = truth.types % len(KINDS) == 2
    correlations = np.full(len(images), np.nan)
    for mask, others in ((alive & ~is_complex, None), (alive & is_complex, partners)):
        if mask.any():
            matched = match_filters(images[mask], filters[mask], partners=None if others is None else others[mask])
            correlations[mask] = matched.correlations
    for row, unit in enumerate(truth.unit_ids):
        if (seed, unit) not in done:
            yield {
                "seed": seed,
                "unit_id": unit,
                "type": truth.types[row],
                "kind": KINDS[truth.types[row] % len(KINDS)],
                "test_correlation": trained.correlations[row],
                "filter_correlation": correlations[row],
            }


def append(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Append rows to a table one by one, and print them."""
    for row in rows:
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.4f")
        print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row.values()), flush=True)


def done_in(path: Path, names: list[str]) -> set[tuple[Any, ...]]:
    """Return the keys of the rows that a table has."""
    return set(pd.read_csv(path)[names].itertuples(index=False, name=None)) if path.exists() else set()


def recovery_table(recovery: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Return the mean agreement with types and between seeds for every model and way, in Markdown."""
    keys = ["model", "way", "teacher"]
    types, seeds = (table.groupby(keys)["ari"].agg(["mean", "min", "max"]) for table in (recovery, agreement))
    tests = recovery.groupby(["model", "teacher"])["test_correlation"].mean()
    head = [f"{teacher}: {what}" for teacher in TEACHERS for what in ("test correlation", "types", "seeds")]
    lines = ["| model | clusters | " + " | ".join(head) + " |", "| --- " * (2 + len(head)) + "|"]
    for name in MODELS:
        for way in ways_of(name):
            values = []
            for teacher in TEACHERS:
                values.append(f"{tests.get((name, teacher), np.nan):.2f}")
                for table in (types, seeds):
                    found = (name, way, teacher) in table.index
                    values.append(
                        "{mean:.2f} ({min:.2f} to {max:.2f})".format(**table.loc[(name, way, teacher)])
                        if found
                        else "-"
                    )
            lines.append(f"| {name} | {way} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def image_table(images: pd.DataFrame) -> str:
    """Return how well images match filters, by kind of cell, in Markdown."""
    lines = ["| cells | neurons | well predicted | median | lowest | above 0.8 |", "| --- " * 6 + "|"]
    for kind in [*KINDS, None]:
        own = images if kind is None else images[images["kind"] == kind]
        well = own.loc[own["test_correlation"] >= WELL_PREDICTED, "filter_correlation"]
        lines.append(
            f"| {kind or 'all'} | {len(own)} | {len(well)} | {well.median():.3f} | {well.min():.3f} | "
            f"{(well > 0.8).mean():.0%} |"
        )
    return "\n".join(lines)


def figure_of(recovery: pd.DataFrame, agreement: pd.DataFrame, images: pd.DataFrame, shown: Floats | None) -> Figure:
    """Draw the agreement with types and between seeds, and images next to the filters of their types."""
    rows = [(name, way) for name in MODELS for way in ways_of(name)]
    height = 0.9 + 0.17 * len(rows)
    with figure_style():
        figure = figure_page(height + (2.9 if shown is not None else 0))
        parts = figure.subfigures(2, 1, height_ratios=(height, 2.9)) if shown is not None else [figure]
        panels = parts[0].subplots(1, 2, sharey=True)
        for ax, table, title, letter in zip(
            panels, (recovery, agreement), ("With the types", "Between seeds"), letters(2), strict=True
        ):
            for teacher, (marker, color) in MARKS.items():
                for place, (name, way) in enumerate(rows):
                    own = table[(table["model"] == name) & (table["way"] == way) & (table["teacher"] == teacher)]
                    ax.plot(own["ari"], np.full(len(own), place), marker, color=color, markersize=3.5, alpha=0.7)
            title_panel(ax, letter, title)
            ax.set_xlim(-0.05, 1.03)
            ax.set_xlabel("adjusted Rand index")
            ax.grid(axis="x")
        for teacher, (marker, color) in MARKS.items():
            panels[0].plot([], [], marker, color=color, markersize=3.5, label=teacher)
        parts[0].legend(loc="outside lower center", ncols=len(MARKS), frameon=False)
        panels[0].set_yticks(range(len(rows)), [_shown_name(*row) for row in rows])
        panels[0].invert_yaxis()
        if shown is not None:
            _draw_images(parts[1], images, shown)
    return figure


def _shown_name(model: str, way: str) -> str:
    return model if way == BY_DECEMBER else f"{model.removeprefix('equivariant, ')}: {way}"


def _draw_images(figure: Any, images: pd.DataFrame, shown: Floats) -> None:
    """Draw the planted filter of each type above the images of its best-predicted neurons."""
    filters, _ = planted_filters(np.arange(N_TYPES))
    n_shown = 3
    grid = figure.subplots(1 + n_shown, N_TYPES, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for kind in range(N_TYPES):
        own = images[images["type"] == kind].nlargest(n_shown, "test_correlation")
        for ax, picture in zip(grid[:, kind], [filters[kind], *shown[own.index]], strict=True):
            limit = np.abs(picture).max()
            ax.imshow(picture, cmap="gray", vmin=-limit, vmax=limit)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        grid[0, kind].set_title(KINDS[kind % len(KINDS)], fontsize=7, loc="center")
    grid[0, 0].set_ylabel("filter", fontsize=7)
    grid[1, 0].set_ylabel("images", fontsize=7)


def main(argv: list[str] | None = None, size: Size | None = None) -> int:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=MODELS_FOLDER, help="recordings and models (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (default: %(default)s)")
    parser.add_argument("--figures", action="store_true", help="only draw the figure and print the tables")
    arguments = parser.parse_args(argv)
    recovery, agreement, images = (arguments.results / f"trained{part}.csv" for part in ("", "_seeds", "_images"))
    if arguments.figures:
        tables = [pd.read_csv(path) for path in (recovery, agreement, images)]
        print(recovery_table(*tables[:2]), image_table(tables[2]), sep="\n\n")
        kept = arguments.folder / "images.npy"
        figure_of(*tables, np.load(kept) if kept.exists() else None).savefig(FIGURE, dpi=150)
        return 0
    torch.set_num_threads(1)
    arguments.results.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.folder, size or Size())
    append(recovery, recovery_rows(study, done_in(recovery, ["teacher", "model", "seed", "way"])))
    append(images, image_rows(study, done_in(images, ["seed", "unit_id"])))
    append(agreement, agreement_rows(study, done_in(agreement, ["teacher", "model", "way", "first", "second"])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

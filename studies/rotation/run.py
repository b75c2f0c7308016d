"""Whether alignment recovers planted types at random orientations, and where it breaks down.

    python studies/rotation/run.py --only recovery     # types recovered, with both controls; seconds for each row,
                                                       # minutes for those of the paper's schedule
    python studies/rotation/run.py --only counts       # held-out likelihood of 4 to 20 clusters of aligned readouts
    python studies/rotation/run.py --only toy          # the synthetic dataset of the paper (its Figures 4 and B1)
    python studies/rotation/run.py --figures           # the figures, from the tables under results/

Rows are appended to the tables as soon as they are computed, and existing ones are not computed again. The simulation
was fixed by how types look unaligned and at their true angles, before any was aligned; the alignment was developed on
the seeds from 100.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.errors import AlignmentError
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.cluster_functions import cluster_blocks, cluster_means, covariance_confusion
from december_plugin.evaluation.model_selection import held_out_log_likelihood, smallest_within_error
from december_plugin.plots.panels import figure_page, letters, title_panel
from december_plugin.plots.style import figure_style
from december_plugin.plots.synthetic_alignment import synthetic_alignment_figure, synthetic_readouts_figure
from december_plugin.rotation import RotationAlignment, fourier_amplitudes, shifted
from december_plugin.rotation.controls import CONTROLS, permuted_readouts
from december_plugin.rotation.simulation import (
    SimulatedReadouts,
    distance_of_noise,
    simulated_readouts,
    toy_readouts,
)

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[2] / "docs" / "figures"
ORIENTATIONS, N_NEURONS, N_TYPES = 8, 6005, 10
FEATURES, LEVELS = ("sparse", "dense"), (0.3, 1.0, 2.0)
CONDITIONS = tuple(itertools.product(FEATURES, LEVELS))
COUNTS = (4, 6, 8, 9, 10, 11, 12, 15, 20)
GMM = {"method": "gmm", "covariance": "spherical", "n_init": 10}  # starts enough for types at their true angles
NOISES = (0.0, 0.1, 0.2, 0.75, 1.0, 2.0, 5.0)  # of Figure B1
TOY_NEURONS = 100
Floats = np.ndarray


def unaligned(planted: SimulatedReadouts, seed: int) -> Floats:
    """Return the directions of the readout vectors without alignment."""
    return planted.readouts / np.linalg.norm(planted.readouts, axis=1, keepdims=True)


def amplitudes(planted: SimulatedReadouts, seed: int) -> Floats:
    """Return the Fourier amplitudes of the directions."""
    return fourier_amplitudes(unaligned(planted, seed), ORIENTATIONS)


def at_true_angles(planted: SimulatedReadouts, seed: int) -> Floats:
    """Return the directions shifted back by the planted angles, which no alignment knows."""
    return shifted(unaligned(planted, seed), -planted.angles, ORIENTATIONS)


def aligned(**settings: Any) -> Callable[[SimulatedReadouts, int], Floats]:
    """Return a way that aligns the vectors."""
    return lambda planted, seed: RotationAlignment(ORIENTATIONS, random_state=seed, **settings).fit_transform(
        planted.readouts
    )


def permuted(
    control: Any, then: Callable[[SimulatedReadouts, int], Floats]
) -> Callable[[SimulatedReadouts, int], Floats]:
    """Return a way that permutes the features first."""
    return lambda planted, seed: then(
        replace(planted, readouts=permuted_readouts(planted.readouts, ORIENTATIONS, control=control, seed=seed)), seed
    )


DEFAULTS = aligned()
WAYS: dict[str, Callable[[SimulatedReadouts, int], Floats]] = {
    "unaligned": unaligned,
    "Fourier amplitudes": amplitudes,
    "aligned, paper's schedule": aligned(schedule="paper", n_restarts=1),  # one start for each of 20 weights
    "aligned, one mean": aligned(n_means=1),
    "aligned, defaults": DEFAULTS,
    "true angles": at_true_angles,
    **{f"permuted {control}, unaligned": permuted(control, unaligned) for control in CONTROLS},
    **{f"permuted {control}, aligned": permuted(control, DEFAULTS) for control in CONTROLS},
}


def recovery_rows(
    n_neurons: int, levels: list[float], seeds: int, ways: list[str], done: set[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """Yield the agreement of clusters with the planted types for every seed, condition and way."""
    for seed, features, noise, way in itertools.product(range(seeds), FEATURES, levels, ways):
        if (features, noise, seed, way) in done:
            continue
        planted = simulated_readouts(n_neurons, n_types=N_TYPES, features=features, noise=noise, seed=seed)
        row = {"features": features, "noise": noise, "seed": seed, "way": way, "ari": np.nan}
        try:
            vectors = WAYS[way](planted, seed)
        except AlignmentError as error:
            print(f"{way}: {error}")
        else:
            found = cluster_readouts(vectors, n_clusters=N_TYPES, **GMM)
            row["ari"] = compare_partitions(planted.types, found.labels).adjusted_rand_index
        yield row


def count_rows(n_neurons: int, levels: list[float], done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the held-out log likelihood of numbers of clusters, and a fit of the chosen one to all neurons.

    Its clusters are also merged into blocks of those that compute the same, as if features were uncorrelated.
    """
    for features, noise in itertools.product(FEATURES, levels):
        if (features, noise) in done:
            continue
        planted = simulated_readouts(n_neurons, n_types=N_TYPES, features=features, noise=noise, seed=0)
        vectors = DEFAULTS(planted, 0)
        held_out = [
            held_out_log_likelihood(
                vectors, method="gmm", n_clusters=count, n_init=5, settings={"covariance": "spherical"}
            )
            for count in COUNTS
        ]
        chosen = smallest_within_error(
            COUNTS, [each.mean for each in held_out], [each.standard_error for each in held_out]
        )
        found = cluster_readouts(vectors, n_clusters=chosen, **GMM)
        confusion = covariance_confusion(
            cluster_means(vectors, found.labels), np.eye(vectors.shape[1]), n_orientations=ORIENTATIONS
        )
        blocks = cluster_blocks(confusion)
        chosen_alone = {
            "ari": compare_partitions(planted.types, found.labels).adjusted_rand_index,
            "n_blocks": blocks.n_blocks,
            "ari_of_blocks": compare_partitions(planted.types, blocks.labels[found.labels]).adjusted_rand_index,
        }
        for count, each in zip(COUNTS, held_out, strict=True):
            yield {
                "features": features,
                "noise": noise,
                "n_clusters": count,
                "heldout_log_likelihood": each.mean,
                "standard_error": each.standard_error,
                **(chosen_alone if count == chosen else dict.fromkeys(chosen_alone, np.nan)),
            }


def toy_rows(seeds: int, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield distances within types and errors of angles for every noise, seed and type of the paper's dataset."""
    for noise, seed in itertools.product(NOISES, range(seeds)):
        if (noise, seed, 0) in done:
            continue
        toy = toy_readouts(TOY_NEURONS, noise=noise, seed=seed)
        angles = RotationAlignment(ORIENTATIONS, random_state=seed).fit(toy.readouts).angles_
        turned = shifted(toy.readouts, angles, ORIENTATIONS)
        for kind in range(2):
            own = toy.types == kind
            turns = np.exp(1j * (angles + toy.angles)[own])
            errors = np.abs(np.angle(turns / turns.mean()))
            yield {
                "noise": noise,
                "seed": seed,
                "type": kind,
                "raw": pdist(toy.readouts[own]).mean(),
                "aligned": pdist(turned[own]).mean(),
                "noise_alone": distance_of_noise(noise, ORIENTATIONS),
                "angle_error_degrees": np.rad2deg(np.median(errors)),
            }


def append(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Append rows to a table one by one, and print them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.4f")
        print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row.values()), flush=True)


def done_in(path: Path, names: list[str]) -> set[tuple[Any, ...]]:
    """Return the keys of the rows that a table has."""
    return set(pd.read_csv(path)[names].itertuples(index=False, name=None)) if path.exists() else set()


def recovery_table(table: pd.DataFrame) -> str:
    """Return the mean agreement with the planted types, and the smallest of several seeds, as a table in Markdown."""
    groups = table.groupby(["way", "features", "noise"])["ari"]
    cells = {
        key: f"{values.mean():.2f}" + (f" ({values.min():.2f})" if len(values) > 1 else "") for key, values in groups
    }
    lines = ["| | " + " | ".join(f"{features}, noise {noise:g}" for features, noise in CONDITIONS) + " |"]
    lines.append("| --- " * (len(CONDITIONS) + 1) + "|")
    for way in [name for name in WAYS if name in set(table["way"])]:
        found = [cells.get((way, *condition), "") for condition in CONDITIONS]
        lines.append(f"| {way} | " + " | ".join(found).replace("-0.00", "0.00") + " |")
    return "\n".join(lines)


def count_table(table: pd.DataFrame) -> str:
    """Return the numbers of clusters that the held-out likelihood selects as a table in Markdown."""
    lines = [
        "| | best | smallest within one standard error | ARI to the types | blocks | ARI of blocks to the types |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for features, noise in CONDITIONS:
        own = table[(table["features"] == features) & (table["noise"] == noise)].set_index("n_clusters")
        if own.empty:
            continue
        best, chosen = own["heldout_log_likelihood"].idxmax(), own["ari"].idxmax()
        ari, n_blocks, of_blocks = own.loc[chosen, ["ari", "n_blocks", "ari_of_blocks"]]
        lines.append(
            f"| {features}, noise {noise:g} | {best} | {chosen} | {ari:.2f} | {n_blocks:.0f} | {of_blocks:.2f} |"
        )
    return "\n".join(lines)


def recovery_figure(table: pd.DataFrame) -> Figure:
    """Draw the agreement of every seed and way, a panel for each condition."""
    ways = [way for way in WAYS if way in set(table["way"])]
    with figure_style():
        figure = figure_page(2 * (0.7 + 0.2 * len(ways)))
        panels = figure.subplots(len(FEATURES), len(LEVELS), sharex=True, sharey=True)
        for ax, (features, noise), letter in zip(panels.flat, CONDITIONS, letters(len(CONDITIONS)), strict=True):
            own = table[(table["features"] == features) & (table["noise"] == noise)]
            for place, way in enumerate(ways):
                values = own.loc[own["way"] == way, "ari"]
                ax.plot(values, np.full(len(values), place), "o", color="#333333", markersize=3.5, alpha=0.7)
            title_panel(ax, letter, f"{features}, noise {noise:g}")
            ax.set_xlim(-0.03, 1.03)
            ax.grid(axis="x")
        for ax in panels[-1]:
            ax.set_xlabel("ARI to the types")
        panels[0, 0].set_yticks(range(len(ways)), ways)
        panels[0, 0].invert_yaxis()
    return figure


def toy_examples(noises: tuple[float, ...] = (0.0, 0.2, 1.0, 5.0)) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Return vectors of the paper's dataset, unaligned and aligned, with the two clusters of the aligned ones."""
    examples = {}
    for noise in noises:
        toy = toy_readouts(TOY_NEURONS, noise=noise, seed=0)
        turned = RotationAlignment(ORIENTATIONS, random_state=0, normalize=False).fit_transform(toy.readouts)
        found = cluster_readouts(turned, n_clusters=2, **GMM)
        examples[f"noise {noise:g}"] = (toy.readouts, turned, found.labels)
    return examples


def main(argv: list[str] | None = None) -> int:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("recovery", "counts", "toy"), help="one of the tables; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="simulations of each condition (default: %(default)s)")
    parser.add_argument("--levels", nargs="+", type=float, default=LEVELS, help="of noise, not of toy; default: all")
    parser.add_argument("--neurons", type=int, default=N_NEURONS, help="of the recovery (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (default: %(default)s)")
    parser.add_argument("--figures", action="store_true", help="only draw the figures and print the table")
    arguments = parser.parse_args(argv)
    recovery, counts, toy = (arguments.results / f"{name}.csv" for name in ("recovery", "counts", "toy"))
    if not arguments.figures:
        if arguments.only in (None, "recovery"):
            done = done_in(recovery, ["features", "noise", "seed", "way"])
            append(recovery, recovery_rows(arguments.neurons, arguments.levels, arguments.seeds, arguments.ways, done))
        if arguments.only in (None, "counts"):
            append(
                counts,
                count_rows(arguments.neurons, arguments.levels, done_in(counts, ["features", "noise"])),
            )
        if arguments.only in (None, "toy"):
            append(toy, toy_rows(arguments.seeds, done_in(toy, ["noise", "seed", "type"])))
        return 0
    print(recovery_table(pd.read_csv(recovery)), "", count_table(pd.read_csv(counts)), sep="\n")
    for name, figure in {
        "recovery": recovery_figure(pd.read_csv(recovery)),
        "synthetic": synthetic_alignment_figure(pd.read_csv(toy)),
        "synthetic-readouts": synthetic_readouts_figure(toy_examples()),
    }.items():
        figure.savefig(FIGURES / f"rotation-{name}.png", dpi=150)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

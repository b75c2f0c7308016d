"""Whether alignment recovers planted types at random orientations, and where it breaks down.

    python studies/rotation/run.py --only recovery     # types recovered, with both controls; minutes for each row
    python studies/rotation/run.py --only toy          # the synthetic dataset of the paper (its Figures 4 and B1)
    python studies/rotation/run.py --figures           # the figures, from the tables under results/

Rows are appended to the tables as soon as they are computed, and those that are there are not computed again.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.errors import AlignmentError
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.plots.panels import figure_page, letters, title_panel
from december_plugin.plots.style import figure_style
from december_plugin.rotation import RotationAlignment, fourier_amplitudes, shifted
from december_plugin.rotation.controls import CONTROLS, permuted_readouts
from december_plugin.rotation.simulation import distance_of_noise, simulated_readouts, toy_readouts

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[2] / "docs" / "figures"
ORIENTATIONS, N_NEURONS, N_TYPES = 8, 6005, 10
CONDITIONS = tuple(itertools.product(("sparse", "dense"), (0.3, 1.0)))
NOISES = (0.0, 0.1, 0.2, 0.75, 1.0, 2.0, 5.0)  # of Figure B1
TOY_NEURONS = 100
Floats = np.ndarray


def unaligned(readouts: Floats, seed: int) -> Floats:
    """Return the directions of the readout vectors as they are."""
    return readouts / np.linalg.norm(readouts, axis=1, keepdims=True)


def amplitudes(readouts: Floats, seed: int) -> Floats:
    """Return the Fourier amplitudes of the directions."""
    return fourier_amplitudes(unaligned(readouts, seed), ORIENTATIONS)


def ramp(readouts: Floats, seed: int) -> Floats:
    """Return the vectors aligned with the defaults."""
    return RotationAlignment(ORIENTATIONS, random_state=seed).fit_transform(readouts)


def paper(readouts: Floats, seed: int) -> Floats:
    """Return the vectors aligned with the paper's schedule, one start for each of the 20 weights."""
    return RotationAlignment(ORIENTATIONS, schedule="paper", n_restarts=1, random_state=seed).fit_transform(readouts)


def permuted(control: Any, then: Callable[[Floats, int], Floats]) -> Callable[[Floats, int], Floats]:
    """Return a way that permutes the features first."""
    return lambda readouts, seed: then(permuted_readouts(readouts, ORIENTATIONS, control=control, seed=seed), seed)


WAYS: dict[str, Callable[[Floats, int], Floats]] = {
    "unaligned": unaligned,
    "Fourier amplitudes": amplitudes,
    "aligned (ramp)": ramp,
    "aligned (paper's schedule)": paper,
    **{f"permuted {control}, unaligned": permuted(control, unaligned) for control in CONTROLS},
    **{f"permuted {control}, aligned": permuted(control, ramp) for control in CONTROLS},
}


def recovery_rows(n_neurons: int, seeds: int, ways: list[str], done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the agreement of clusters with the planted types for every condition, seed and way."""
    for (features, noise), seed, way in itertools.product(CONDITIONS, range(seeds), ways):
        if (features, noise, seed, way) in done:
            continue
        planted = simulated_readouts(n_neurons, n_types=N_TYPES, features=features, noise=noise, seed=seed)
        row = {"features": features, "noise": noise, "seed": seed, "way": way, "ari": np.nan}
        try:
            vectors = WAYS[way](planted.readouts, seed)
        except AlignmentError as error:
            print(f"{way}: {error}")
        else:
            found = cluster_readouts(vectors, method="gmm", n_clusters=N_TYPES, covariance="spherical")
            row["ari"] = compare_partitions(planted.types, found.labels).ari
        yield row


def toy_rows(seeds: int, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield distances within types and errors of angles for every noise, seed and type of the paper's dataset."""
    for noise, seed in itertools.product(NOISES, range(seeds)):
        if (noise, seed, 0) in done:
            continue
        toy = toy_readouts(TOY_NEURONS, noise=noise, seed=seed)
        angles = RotationAlignment(ORIENTATIONS, random_state=seed).fit(toy.readouts).angles_
        aligned = shifted(toy.readouts, angles, ORIENTATIONS)
        for kind in range(2):
            own = toy.types == kind
            turns = np.exp(1j * (angles + toy.angles)[own])
            errors = np.abs(np.angle(turns / turns.mean()))
            yield {
                "noise": noise,
                "seed": seed,
                "type": kind,
                "raw": pdist(toy.readouts[own]).mean(),
                "aligned": pdist(aligned[own]).mean(),
                "noise_alone": distance_of_noise(noise, ORIENTATIONS),
                "angle_error_degrees": np.rad2deg(np.median(errors)),
            }


def append(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Append rows to a table one by one, and print them."""
    for row in rows:
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.4f")
        print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row.values()), flush=True)


def done_in(path: Path, names: list[str]) -> set[tuple[Any, ...]]:
    """Return the keys of the rows that a table has."""
    return set(pd.read_csv(path)[names].itertuples(index=False, name=None)) if path.exists() else set()


def recovery_table(table: pd.DataFrame) -> str:
    """Return the mean agreement with the planted types as a table in Markdown."""
    means = table.groupby(["way", "features", "noise"])["ari"].mean()
    lines = ["| | " + " | ".join(f"{features}, noise {noise:g}" for features, noise in CONDITIONS) + " |"]
    lines.append("| --- " * (len(CONDITIONS) + 1) + "|")
    for way in [name for name in WAYS if name in set(table["way"])]:
        values = [means.get((way, *condition), np.nan) for condition in CONDITIONS]
        lines.append(f"| {way} | " + " | ".join("none" if np.isnan(v) else f"{v:.3f}" for v in values) + " |")
    return "\n".join(lines)


def recovery_figure(table: pd.DataFrame) -> Figure:
    """Draw the agreement of every seed and way, a panel for each condition."""
    ways = [way for way in WAYS if way in set(table["way"])]
    with figure_style():
        figure = figure_page(0.9 + 0.2 * len(ways))
        panels = figure.subplots(1, len(CONDITIONS), sharey=True)
        for ax, (features, noise), letter in zip(panels, CONDITIONS, letters(len(CONDITIONS)), strict=True):
            own = table[(table["features"] == features) & (table["noise"] == noise)]
            for place, way in enumerate(ways):
                values = own.loc[own["way"] == way, "ari"]
                ax.plot(values, np.full(len(values), place), "o", color="#333333", markersize=3.5, alpha=0.7)
            title_panel(ax, letter, f"{features}, noise {noise:g}")
            ax.set_xlim(-0.03, 1.03)
            ax.set_xlabel("ARI to the types")
            ax.grid(axis="x")
        panels[0].set_yticks(range(len(ways)), ways)
        panels[0].invert_yaxis()
    return figure


def toy_figure(table: pd.DataFrame) -> Figure:
    """Draw what noise does to alignment: the paper's Figure 4B over all noises, and vectors as in Figure B1."""
    shown = (0.0, 0.2, 1.0, 5.0)
    with figure_style():
        figure = figure_page(4.6)
        grid = figure.subplot_mosaic(
            [
                ["distance"] * 2 + ["angle"] * 2,
                [f"raw {noise}" for noise in shown],
                [f"aligned {noise}" for noise in shown],
            ]
        )
        means = table.groupby("noise")[["raw", "aligned", "noise_alone", "angle_error_degrees"]].mean()
        for column, style in {"raw": "o-", "aligned": "s-", "noise_alone": "k--"}.items():
            grid["distance"].plot(means.index, means[column], style, label=column.replace("_", " "), markersize=3.5)
        grid["distance"].legend(frameon=False)
        grid["distance"].set_ylabel("mean distance within types")
        grid["angle"].plot(means.index, means["angle_error_degrees"], "s-", markersize=3.5)
        grid["angle"].axhline(90, color="#333333", linestyle="--", linewidth=0.8)  # of random angles
        grid["angle"].set_ylabel("error of angles (degrees)")
        for name, letter in zip(("distance", "angle"), letters(2), strict=True):
            grid[name].set_xlabel("noise (standard deviation)")
            title_panel(grid[name], letter, {"distance": "Distances", "angle": "Angles, median"}[name])
        for noise in shown:
            _draw_toy(grid[f"raw {noise}"], grid[f"aligned {noise}"], noise)
    return figure


def _draw_toy(above: Axes, below: Axes, noise: float) -> None:
    toy = toy_readouts(16, noise=noise, seed=0)
    order = np.argsort(toy.types, kind="stable")
    aligned = RotationAlignment(ORIENTATIONS, random_state=0, normalize=False).fit_transform(toy.readouts)
    for ax, vectors, name in ((above, toy.readouts, "raw"), (below, aligned, "aligned")):
        ax.imshow(vectors[order], aspect="auto", cmap="RdBu_r", vmin=-2 - noise, vmax=2 + noise)
        ax.axhline((toy.types == 0).sum() - 0.5, color="#333333", linewidth=0.8)
        ax.set(xticks=[], yticks=[], title=f"{name}, noise {noise:g}")


def main(argv: list[str] | None = None) -> int:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("recovery", "toy"), help="one of the two tables; default: both")
    parser.add_argument("--seeds", type=int, default=3, help="simulations of each condition (default: %(default)s)")
    parser.add_argument("--neurons", type=int, default=N_NEURONS, help="of the recovery (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (default: %(default)s)")
    parser.add_argument("--figures", action="store_true", help="only draw the figures and print the table")
    arguments = parser.parse_args(argv)
    recovery, toy = arguments.results / "recovery.csv", arguments.results / "toy.csv"
    if not arguments.figures:
        if arguments.only != "toy":
            done = done_in(recovery, ["features", "noise", "seed", "way"])
            append(recovery, recovery_rows(arguments.neurons, arguments.seeds, arguments.ways, done))
        if arguments.only != "recovery":
            append(toy, toy_rows(arguments.seeds, done_in(toy, ["noise", "seed", "type"])))
        return 0
    print(recovery_table(pd.read_csv(recovery)))
    for name, figure in {
        "recovery": recovery_figure(pd.read_csv(recovery)),
        "synthetic": toy_figure(pd.read_csv(toy)),
    }.items():
        figure.savefig(FIGURES / f"rotation-{name}.png", dpi=150)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

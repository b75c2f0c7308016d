"""Tables of the study of spaces: ``python studies/validation/spaces_analyse.py --help``.

With ``--cells`` the committed tables under ``results/`` are made again from what ``spaces_run.py`` wrote. The blocks in
the page come from ``results/`` alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from analyse import PAGE, RESULTS, markdown, with_blocks
from design import BASELINE, CONTROL
from spaces_design import CLUSTERINGS, FROM_MIXTURES, NEVER_REFRESHED, POPULATIONS, SPACES, december_tasks, draws_of
from spaces_nulls import METHODS, SHOWN, collect_nulls
from spaces_nulls import TABLE as NULLS
from spaces_results import DECEMBER, Estimate, collect, difference, load, mean_of, save, values_of

from december_plugin.evaluation.valleys import is_deep

BEGIN = "<!-- begin {}: written by studies/validation/spaces_analyse.py -->\n"
READOUT, READOUT_L2, FUNCTIONAL, FUNCTIONAL_L2 = (space.phrase for space in SPACES)
TYPED = [population.name for population in POPULATIONS if population.typed]
UNTYPED = [population.name for population in POPULATIONS if not population.typed]
TITLES = {population.name: population.title for population in POPULATIONS}
NEVER, MIXTURES = (f"DECEMber, learned, {what}" for what in (NEVER_REFRESHED, FROM_MIXTURES))
DECEMBERS = ("DECEMber, uniform", "DECEMber, learned", NEVER, MIXTURES)
GROUPS: Mapping[str, Sequence[str]] = {
    "all types": TYPED,
    "whitened, equal and unequal": ["types", "unequal"],
    "correlated, all kinds": ["types-correlated", "simple-complex", "unequal-correlated"],
    "unequal types": ["unequal", "unequal-correlated"],
    "without types": UNTYPED,
}
STRICTEST = METHODS[-1]
Chosen = tuple[str, str, str]


def main() -> int:
    """Write the tables and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, metavar="FOLDER", help="folder of spaces_run.py, to make results from")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (%(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced (%(default)s)")
    args = parser.parse_args()
    if args.cells is not None:
        save(collect(args.cells, POPULATIONS), args.results)
        nulls = collect_nulls(args.cells, POPULATIONS)
        nulls.to_csv(args.results / NULLS, index=False, float_format="%.6f", lineterminator="\n")
    page = filled(args.page.read_text(encoding="utf-8"), load(args.results), pd.read_csv(args.results / NULLS))
    args.page.write_text(page, encoding="utf-8")
    return 0


def filled(page: str, table: pd.DataFrame, nulls: pd.DataFrame) -> str:
    """Return the page with the blocks replaced; an error if it has none of a name, or one too many."""
    return with_blocks(page, blocks(table, nulls), begin=BEGIN)


def blocks(table: pd.DataFrame, nulls: pd.DataFrame) -> dict[str, str]:
    """Return the text of every block by its name."""
    return {
        "spaces-extent": _extent(table),
        "spaces-outcome": _outcome(table),
        "spaces-truth": _means(table, TYPED, "truth"),
        "spaces-seeds": _means(table, [*TYPED, *UNTYPED], "seeds"),
        "spaces-differences": _differences(table),
        "spaces-weights": _weights(table),
        "spaces-december": _december(table),
        "spaces-found": _found(table),
        "spaces-nulls": _nulls(nulls),
    }


def _extent(table: pd.DataFrame) -> str:
    rows = []
    for population in POPULATIONS:
        planned = draws_of(population)
        own = table[table["population"] == population.name]
        base = own[own["role"] == BASELINE].groupby("draw")["n_seeds"].max()
        trained = own[own["role"] == DECEMBER].groupby("draw")["n_seeds"].sum()
        trainings = len(december_tasks((population,)))
        rows.append(
            [
                population.title,
                population.n_clusters,
                f"{len(base)} of {len(planned)}",
                f"{int(base.sum())} of {sum(len(draw.seeds) for draw in planned)}",
                f"{int(trained.sum())} of {trainings}",
            ]
        )
    header = ["population", "K", "recordings", "models", "DECEMber trainings"]
    return markdown(header, rows)


def _rows() -> list[Chosen]:
    found = [(BASELINE, space.phrase, method) for method in CLUSTERINGS for space in SPACES]
    found += [(CONTROL, space.phrase, "k-means") for space in SPACES]
    return found + [(DECEMBER, space.phrase, method) for method in DECEMBERS for space in SPACES]


def _name(chosen: Chosen) -> str:
    role, _, method = chosen
    return f"{method}, end of pretraining" if role == CONTROL else method


def _means(table: pd.DataFrame, populations: Sequence[str], quantity: str) -> str:
    rows = []
    for chosen in _rows():
        found = [mean_of(table, [population], chosen, quantity) for population in populations]
        if any(each.n_recordings for each in found):
            rows.append([_name(chosen), chosen[1], *map(_plain, found)])
    return markdown(["method", "space", *(TITLES[population] for population in populations)], rows)


def _plain(estimate: Estimate) -> str:
    if np.isnan(estimate.mean):
        return "-"
    interval = f" [{estimate.low:.2f}, {estimate.high:.2f}]" if not np.isnan(estimate.low) else ""
    return f"{estimate.mean:.2f}{interval}"


def _signed(estimate: Estimate) -> str:
    if np.isnan(estimate.mean):
        return "-"
    text = f"{estimate.mean:+.3f}"
    if not np.isnan(estimate.low):
        text += f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    text = text.replace("-0.000", "+0.000")
    return f"**{text}** {estimate.verdict}" if estimate.verdict in ("higher", "lower") else text


def _compared(
    table: pd.DataFrame, pairs: Sequence[tuple[str, Chosen, Chosen]], groups: Mapping[str, Sequence[str]], what: str
) -> str:
    """Return a table of differences: one row for each group of populations and pair of clusterings."""
    rows = []
    for group, populations in groups.items():
        for name, first, second in pairs:
            found = [difference(table, populations, first, second, quantity) for quantity in ("truth", "seeds")]
            if found[1].n_recordings:
                rows.append([group, name, *map(_signed, found), found[1].n_recordings])
    return markdown(["populations", what, "ARI to the planted types", "ARI between seeds", "recordings"], rows)


def _differences(table: pd.DataFrame) -> str:
    pairs = [
        (f"{space}, {method}", (BASELINE, space, method), (BASELINE, READOUT, method))
        for method in CLUSTERINGS
        for space in (READOUT_L2, FUNCTIONAL, FUNCTIONAL_L2)
    ]
    return _compared(table, pairs, GROUPS, "space minus readout vectors")


def _weights(table: pd.DataFrame) -> str:
    pairs = [
        (
            f"t mixture, {space.phrase}",
            (BASELINE, space.phrase, "t mixture, learned"),
            (BASELINE, space.phrase, "t mixture, uniform"),
        )
        for space in SPACES
    ]
    pairs += [
        (
            f"DECEMber, {space.phrase}",
            (DECEMBER, space.phrase, "DECEMber, learned"),
            (DECEMBER, space.phrase, "DECEMber, uniform"),
        )
        for space in SPACES
    ]
    return _compared(table, pairs, GROUPS, "learned minus uniform weights")


def _december(table: pd.DataFrame) -> str:
    learned = "DECEMber, learned"
    pairs: list[tuple[str, Chosen, Chosen]] = []
    for space in (READOUT, FUNCTIONAL, FUNCTIONAL_L2):
        own = (DECEMBER, space, learned)
        for method in ("k-means", "t mixture, learned"):
            pairs.append((f"{space}: DECEMber minus {method}", own, (BASELINE, space, method)))
        pairs.append((f"{space}: DECEMber minus k-means, end of pretraining", own, (CONTROL, space, "k-means")))
    published = (DECEMBER, READOUT, "DECEMber, uniform")
    pairs.append(
        (
            "functional, direction minus readout vectors, both learned",
            (DECEMBER, FUNCTIONAL_L2, learned),
            (DECEMBER, READOUT, learned),
        )
    )
    pairs.append(("functional, direction minus the published one", (DECEMBER, FUNCTIONAL_L2, learned), published))
    pairs.append(
        ("k-means, functional, direction minus the published one", (BASELINE, FUNCTIONAL_L2, "k-means"), published)
    )
    pairs.append(
        (
            "functional, direction: covariance never refreshed minus every epoch",
            (DECEMBER, FUNCTIONAL_L2, NEVER),
            (DECEMBER, FUNCTIONAL_L2, learned),
        )
    )
    for space in (READOUT, FUNCTIONAL_L2):
        own = (DECEMBER, space, MIXTURES), (DECEMBER, space, learned)
        pairs.append((f"{space}: {FROM_MIXTURES} minus from k-means", *own))
    central = {population.title: [population.name] for population in POPULATIONS if population.central}
    groups = {"all types": TYPED, "without types": UNTYPED}
    return _compared(table, pairs, {**groups, **central}, "DECEMber")


def _found(table: pd.DataFrame) -> str:
    """Return how many clusters are found by methods that are not given K, and how many neurons have one."""
    rows = []
    for method in (name for name, clustering in CLUSTERINGS.items() if clustering.finds_k):
        for space in SPACES:
            row: list[object] = [method, space.phrase]
            for population in POPULATIONS:
                count, share = (
                    mean_of(table, [population.name], (BASELINE, space.phrase, method), quantity).mean
                    for quantity in ("n_found", "clustered")
                )
                row.append("-" if np.isnan(count) else f"{count:.1f}, {share:.0%}")
            rows.append(row)
    return markdown(["method", "space", *TITLES.values()], rows)


def _outcome(table: pd.DataFrame) -> str:
    """Return in words how each space compares with readout vectors, for every method, and types with no types."""
    lines = []
    for method in CLUSTERINGS:
        for quantity, group, what in (
            ("truth", "all types", "ARI to the planted types"),
            ("seeds", "all types", "ARI between seeds of recordings with types"),
            ("seeds", "without types", "ARI between seeds of recordings without types"),
        ):
            found = {
                space: difference(
                    table, GROUPS[group], (BASELINE, space, method), (BASELINE, READOUT, method), quantity
                )
                for space in (READOUT_L2, FUNCTIONAL, FUNCTIONAL_L2)
            }
            n = max(each.n_recordings for each in found.values())
            if n:
                said = "; ".join(f"{space} {_in_words(each)}" for space, each in found.items())
                lines.append(f"- {method}, {what}, against readout vectors ({n} recordings): {said}.")
    for method in CLUSTERINGS:
        said = []
        for space in SPACES:
            gap = [mean_of(table, group, (BASELINE, space.phrase, method), "seeds").mean for group in (TYPED, UNTYPED)]
            if not np.isnan(gap).any():
                said.append(f"{space.phrase} {gap[0]:.2f} and {gap[1]:.2f}")
        if said:
            lines.append(f"- {method}, mean ARI between seeds with and without types: {'; '.join(said)}.")
    best = _best(table)
    if best:
        lines.append(f"- {best}")
    return "\n".join(lines)


def _in_words(estimate: Estimate) -> str:
    words = {"higher": "higher", "lower": "lower", "open": "not distinguishable", "-": "too few recordings"}
    return f"{words[estimate.verdict]} ({_signed(estimate).replace('*', '').removesuffix(' ' + estimate.verdict)})"


def _best(table: pd.DataFrame) -> str:
    """Return which clustering after the fact has the highest mean over the populations with types, and by how much."""
    means = {}
    for chosen in ((BASELINE, space.phrase, method) for method in CLUSTERINGS for space in SPACES):
        values = values_of(table, TYPED, chosen, "truth")
        if len(values):
            means[chosen] = values.groupby(level="population").mean().mean()
    if not means:
        return ""
    order = sorted(means, key=lambda chosen: -means[chosen])[:3]
    named = [f"{method} in the space {space} ({means[role, space, method]:.3f})" for role, space, method in order]
    return f"Highest mean ARI to the planted types, each kind of population counted once: {', then '.join(named)}."


def _nulls(nulls: pd.DataFrame) -> str:
    rows = []
    for population in POPULATIONS:
        for space in SHOWN:
            own = nulls[(nulls["population"] == population.name) & (nulls["space"] == space)]
            if own.empty:
                continue
            row: list[object] = [population.title, space, f"{own['seeds'].mean():.2f}"]
            for _, drawn in own.groupby("surrogates", sort=True):
                values = ", ".join(f"{value:.2f}" for value in drawn.sort_values("draw")["p_value"])
                row += [f"{drawn['null_mean'].mean():.2f}", values]
            drawn = own[own["surrogates"] == STRICTEST]
            deep = is_deep(drawn["valleys"], drawn["null_valleys"], drawn["valleys_p_value"])
            row += [f"{drawn[name].mean():.2f}" for name in ("valleys", "null_valleys")] + [
                f"{deep.sum()} of {len(drawn)}"
            ]
            rows.append(row)
    methods = sorted(nulls["surrogates"].unique())
    header = ["population", "space", "ARI between seeds"]
    header += [text for method in methods for text in (f"of `{method}` surrogates", f"p of each recording, `{method}`")]
    header += ["valleys", f"of `{STRICTEST}` surrogates", "recordings with deep valleys"]
    return markdown(header, rows) if rows else "Not run: `spaces_run.py --stages null`."


if __name__ == "__main__":
    sys.exit(main())

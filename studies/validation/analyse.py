"""Tables and figures of the validation study: ``python studies/validation/analyse.py --help``.

With ``--cells`` the committed tables under ``results/`` are made again from the cells that ``run.py`` wrote. The
figures and the tables in the page come from ``results/`` alone: nothing in them is typed by hand.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from design import BASELINE, CONTROL, LEARNED, Condition, conditions, quick_conditions, tasks
from figures import central_figure, factors_figure
from results import (
    COMPARATORS,
    METHODS,
    STRENGTHS,
    Estimate,
    Results,
    collect,
    december,
    difference,
    load,
    mean_of,
    post_hoc,
    save,
)

from december_plugin.plots import save_figure

HERE = Path(__file__).parent
RESULTS, PAGE, FIGURES = HERE / "results", HERE.parents[1] / "docs/validation.md", HERE.parents[1] / "docs/figures"
NULLS = "nulls.csv"  # of supplement.py
QUANTITIES = {"truth": "ARI to the planted types", "seeds": "ARI between seeds", "test_correlation": "test correlation"}
POPULATION_NAMES = {"types": "planted types", "unequal": "very unequal types", "continuum": "a continuum"}
CHOICES = ("constant target", "constant target, strength 100", LEARNED)
IN_WORDS = ("strength auto", "strength 100", LEARNED)
FACTORS_OF_SETTINGS = ("pretraining", "regularizer")  # those of the user's; the others belong to the recording
BEGIN, END = "<!-- begin {}: written by studies/validation/analyse.py -->\n", "<!-- end {} -->"


def main() -> int:
    """Write tables, page and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, metavar="FOLDER", help="folder of run.py, to make the results again")
    parser.add_argument("--quick", action="store_true", help="the cells are those of run.py --quick")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the two CSV files (%(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced (%(default)s)")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures (%(default)s)")
    args = parser.parse_args()
    chosen = quick_conditions() if args.quick else conditions()
    if args.cells is not None:
        save(collect(args.cells, chosen), args.results)
        if (args.cells / NULLS).exists():
            shutil.copyfile(args.cells / NULLS, args.results / NULLS)
    results = load(args.results)
    nulls = pd.read_csv(args.results / NULLS) if (args.results / NULLS).exists() else None
    if results.scores.empty:
        parser.error(f"there are no results in {args.results}; run studies/validation/run.py first.")
    if args.page.exists():
        args.page.write_text(filled(args.page.read_text(encoding="utf-8"), results, chosen, nulls), encoding="utf-8")
    else:
        print("\n\n".join(blocks(results, chosen, nulls).values()))
    for name, figure in (("validation-central", central_figure), ("validation-factors", factors_figure)):
        drawn = figure(results)
        if drawn is not None:
            save_figure(drawn, args.figures, name, ("png",))
    return 0


def filled(page: str, results: Results, chosen: list[Condition], nulls: pd.DataFrame | None = None) -> str:
    """Return the page with the study's blocks replaced; an error if it has none of a name, or one too many."""
    return with_blocks(page, blocks(results, chosen, nulls), begin=BEGIN)


def with_blocks(page: str, texts: Mapping[str, str], *, begin: str) -> str:
    """Return the page with these texts, by name, between ``begin`` of their name and ``END``; errors as above."""
    for name, text in texts.items():
        first, last = begin.format(name), END.format(name)
        pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
        page, count = pattern.subn(lambda _, new=f"{first}\n{text}\n\n{last}": new, page)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"the page has {count} blocks named {name!r}; write one: {first.strip()} {last}")
    return page


def blocks(results: Results, chosen: list[Condition], nulls: pd.DataFrame | None = None) -> dict[str, str]:
    """Return the text of every block by its name."""
    made: dict[str, Callable[[], str]] = {
        "extent": lambda: _extent(results, chosen),
        "outcome": lambda: _outcome(results, chosen),
        "central": lambda: _per_population(results, chosen, _central),
        "differences": lambda: _per_population(results, chosen, _differences),
        "tally": lambda: _tally(results),
        "defaults": lambda: _defaults(results, chosen),
        "clusters": lambda: _per_population(results, chosen, _cluster_counts),
        "factors": lambda: _per_population(results, chosen, _factors),
        "weights": lambda: _weights(results, chosen),
        "lock-in": lambda: _lock_in(results, chosen),
        "nulls": lambda: _nulls(nulls),
    }
    return {name: make() for name, make in made.items()}


def _nulls(nulls: pd.DataFrame | None) -> str:
    """Return what supplement.py found: the agreement of k-means between seeds, and that on surrogates."""
    if nulls is None or nulls.empty:
        return "Not run: `supplement.py`."
    rows = [
        [
            POPULATION_NAMES[row.population],
            row.n_clusters,
            f"{row.seeds_mean:.3f}",
            f"{row.null_mean:.3f} [{row.null_low:.3f}, {row.null_high:.3f}]",
            f"{row.p_value:.3f}",
            f"{row.n_draws}, {row.n_seeds}",
        ]
        for row in nulls.sort_values(["population", "n_clusters"], ascending=[False, True]).itertuples()
    ]
    header = ["population", "K", "ARI between seeds", "of surrogates, 95 % of the draws", "p", "draws, seeds"]
    return markdown(header, rows)


def markdown(header: list[str], rows: Iterable[list[object]]) -> str:
    """Return a markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _plain(estimate: Estimate) -> str:
    """Return a mean with its interval, without the signs of a difference, and within the range of the ARI."""
    return str(replace(estimate, high=min(estimate.high, 1.0))).replace("+", "")


def _extent(results: Results, chosen: list[Condition]) -> str:
    planned = tasks(chosen)
    done = results.scores[["population", "factor", "level", "seed"]].drop_duplicates()
    rows = []
    for population in dict.fromkeys(condition.population for condition in chosen):
        for central in (True, False):
            ours = [c for c, _ in planned if c.population == population and (c.factor == "central") == central]
            mine = done[(done["population"] == population) & ((done["factor"] == "central") == central)]
            what = "central condition" if central else "one factor changed"
            if ours:
                rows.append([POPULATION_NAMES[population], what, len({c.name for c in ours}), len(ours), len(mine)])
    left = len(planned) - len(done)
    state = (
        "All cells are done."
        if not left
        else f"**The study is not finished: {left} of {len(planned)} cells are left.**"
    )
    header = ["population", "conditions", "number", "cells (condition x seed)", "of them done"]
    return f"{state}\n\n{markdown(header, rows)}"


def _per_population(results: Results, chosen: list[Condition], make: Callable[[Results, Condition], str]) -> str:
    parts = []
    for condition in _centrals(results, chosen):
        name = POPULATION_NAMES[condition.population]
        parts.append(f"**{name[0].upper()}{name[1:]}** (K = {condition.n_clusters[0]})\n\n{make(results, condition)}")
    return "\n\n".join(parts)


def _at(condition: Condition) -> dict[str, object]:
    about = {"population": condition.population, "factor": condition.factor, "level": condition.level}
    return {**about, "n_clusters": condition.n_clusters[0]}


def _central(results: Results, condition: Condition) -> str:
    rows = []
    for name, values in METHODS.items():
        at = {**_at(condition), **values}
        correlation = mean_of(results, at, "test_correlation")
        if not correlation.n_seeds:
            continue
        ratio = results.values(at, "gradient_ratio").median()
        rows.append(
            [
                name,
                _plain(mean_of(results, at, "truth")),
                _plain(mean_of(results, at, "seeds")),
                f"{correlation.mean:.4f}",
                "" if np.isnan(ratio) else f"{ratio:.2g}",
                correlation.n_seeds,
            ]
        )
    header = ["method", "ARI to the planted types", "ARI between seeds", "test correlation", "gradient ratio", "seeds"]
    return markdown(header, rows)


def _differences(results: Results, condition: Condition) -> str:
    rows = []
    for variant in (*STRENGTHS[1:], LEARNED):
        for name, values in COMPARATORS.items():
            found = {
                quantity: difference(
                    results, {**_at(condition), **december(variant)}, {**_at(condition), **values}, quantity
                )
                for quantity in QUANTITIES
            }
            if found["test_correlation"].n_seeds:
                cells = [_with_verdict(found[quantity]) for quantity in QUANTITIES]
                rows.append([variant.removeprefix("strength "), name, *cells, found["test_correlation"].n_seeds])
    return markdown(["strength", "DECEMber minus", *QUANTITIES.values(), "seeds"], rows)


def _with_verdict(estimate: Estimate) -> str:
    if estimate.verdict in ("-", "open"):
        return str(estimate)
    return f"**{estimate}** {estimate.verdict}"


def _tally(results: Results) -> str:
    """Count, over all populations and conditions, how often DECEMber is higher, lower, or not distinguishable."""
    rows = []
    for variant in ("strength auto", "strength 100"):
        for name, values in COMPARATORS.items():
            pairs = [({**at, **december(variant)}, {**at, **values}) for at in _conditions(results)]
            found = [[difference(results, *pair, quantity) for pair in pairs] for quantity in QUANTITIES]
            if any(not np.isnan(each.mean) for column in found for each in column):
                rows.append([variant.removeprefix("strength "), name, *map(_counted, found)])
    header = ["strength", "DECEMber minus", *(f"{text}: higher / lower" for text in QUANTITIES.values())]
    return markdown(header, rows)


def _counted(found: list[Estimate]) -> str:
    verdicts = [each.verdict for each in found if each.verdict != "-"]
    means = [each.mean for each in found if not np.isnan(each.mean)]
    told = f"{verdicts.count('higher')} / {verdicts.count('lower')} of {len(verdicts)}"
    return f"{told}; mean above 0 in {sum(mean > 0 for mean in means)} of {len(means)}"


def _conditions(results: Results) -> list[dict[str, object]]:
    """Return the values that choose every condition with results, at its first K."""
    names = ["population", "factor", "level", "n_clusters"]
    own = results.scores[results.scores["variant"].isin(STRENGTHS)]
    first = own[own["variant"] == "strength 100"] if (own["variant"] == "strength 100").any() else own
    return [dict(zip(names, values, strict=True)) for values in first[names].drop_duplicates().itertuples(index=False)]


def _outcome(results: Results, chosen: list[Condition]) -> str:
    """Return in words what DECEMber is above, below, or not distinguishable from, in the central conditions."""
    lines = []
    for condition in _centrals(results, chosen):
        for variant in IN_WORDS:
            own = {**_at(condition), **december(variant)}
            for quantity in ("truth", "seeds"):
                found = {
                    name: difference(results, own, {**_at(condition), **values}, quantity)
                    for name, values in COMPARATORS.items()
                }
                n_seeds = max(each.n_seeds for each in found.values())
                if n_seeds:
                    what = f"{POPULATION_NAMES[condition.population]}, {variant}, {QUANTITIES[quantity]}"
                    lines.append(
                        f"- {what[0].upper()}{what[1:]} ({n_seeds} seed{'s' * (n_seeds > 1)}): {_in_words(found)}."
                    )
            cost = difference(results, own, {**_at(condition), **post_hoc(BASELINE, "kmeans")}, "test_correlation")
            if cost.n_seeds:
                name = POPULATION_NAMES[condition.population]
                lines.append(
                    f"- {name[0].upper()}{name[1:]}, {variant}, test correlation minus the baseline's: {cost}."
                )
    return "\n".join(lines)


def _in_words(found: dict[str, Estimate]) -> str:
    words = {"higher": "above", "lower": "below", "open": "not distinguishable from", "-": "too few seeds to tell from"}
    parts = []
    for verdict, text in words.items():
        names = [f"{name} ({each})" for name, each in found.items() if each.verdict == verdict and each.n_seeds]
        if names:
            parts.append(f"{text} {', '.join(names)}")
    return "; ".join(parts)


def _centrals(results: Results, chosen: list[Condition]) -> list[Condition]:
    there = set(results.scores["population"])
    return [each for each in chosen if each.factor == "central" and each.population in there]


def _defaults(results: Results, chosen: list[Condition]) -> str:
    """Return what every other choice of a setting changes compared with the default, at the same seeds."""
    rows = []
    for condition in _centrals(results, chosen):
        auto, at = december("strength auto"), _at(condition)
        pairs = [
            (variant, {**at, **december(variant)}, {**at, **auto})
            for variant in STRENGTHS
            if variant != "strength auto"
        ]
        for choice in CHOICES:
            strong = choice.endswith("strength 100")
            other = december("strength 100") if strong else auto
            pairs.append((choice + " (minus strength 100)" * strong, {**at, **december(choice)}, {**at, **other}))
        for factor in FACTORS_OF_SETTINGS:
            levels = [each for each in chosen if each.population == condition.population and each.factor == factor]
            pairs += [(f"{factor}: {each.level}", {**_at(each), **auto}, {**at, **auto}) for each in levels]
        for name, first, second in pairs:
            found = [difference(results, first, second, quantity) for quantity in QUANTITIES]
            if found[-1].n_seeds:
                cells = [_with_verdict(each) for each in found]
                rows.append([POPULATION_NAMES[condition.population], name, *cells, found[-1].n_seeds])
    return markdown(["population", "instead of the default", *QUANTITIES.values(), "seeds"], rows)


def _weights(results: Results, chosen: list[Condition]) -> str:
    """Return what learned instead of uniform weights change, in DECEMber and in the t mixture fitted afterwards."""
    choices = {
        "DECEMber, strength auto": (december(LEARNED), december("strength auto")),
        "t mixture": (post_hoc(BASELINE, "t_mixture", LEARNED), post_hoc(BASELINE, "t_mixture")),
        "t mixture, end of pretraining": (post_hoc(CONTROL, "t_mixture", LEARNED), post_hoc(CONTROL, "t_mixture")),
    }
    rows = []
    for condition in _centrals(results, chosen):
        for name, (learned, uniform) in choices.items():
            pair = {**_at(condition), **learned}, {**_at(condition), **uniform}
            found = [difference(results, *pair, quantity) for quantity in ("truth", "seeds")]
            if found[1].n_seeds:
                seeds = found[1].n_seeds
                rows.append([POPULATION_NAMES[condition.population], name, *map(_with_verdict, found), seeds])
    return markdown(["population", "learned minus uniform", *list(QUANTITIES.values())[:2], "seeds"], rows)


def _lock_in(results: Results, chosen: list[Condition]) -> str:
    """Return how much of the control's partition every strength keeps, compared with methods that do not know it."""
    shown = {"k-means": METHODS["k-means"], **{name: METHODS[f"DECEMber, {name}"] for name in STRENGTHS}}
    rows = []
    for condition in _centrals(results, chosen):
        found = [mean_of(results, {**_at(condition), **values}, "control") for values in shown.values()]
        rows.append([POPULATION_NAMES[condition.population], *(f"{each.mean:.3f}" for each in found), found[0].n_seeds])
    return markdown(["population", *shown, "seeds"], rows)


def _cluster_counts(results: Results, condition: Condition) -> str:
    methods = {name: values for name, values in METHODS.items() if "strength" not in name or name.endswith("auto")}
    header = ["method"]
    counts = sorted(condition.n_clusters)
    header += [f"{short} at K = {count}" for short in ("types", "seeds") for count in counts]
    rows = []
    for name, values in methods.items():
        row: list[object] = [name]
        for quantity in ("truth", "seeds"):
            for count in counts:
                mean = mean_of(results, {**_at(condition), **values, "n_clusters": count}, quantity).mean
                row.append("-" if np.isnan(mean) else f"{mean:.3f}")
        rows.append(row)
    return markdown(header, rows)


def _factors(results: Results, condition: Condition) -> str:
    rows = []
    reference = {"t mixture": post_hoc(BASELINE, "t_mixture"), "control": post_hoc(CONTROL, "kmeans")}
    for at in _conditions(results):
        if at["population"] != condition.population:
            continue
        name = "central" if at["factor"] == "central" else f"{at['factor']}: {at['level']}"
        correlation = mean_of(results, {**at, **post_hoc(BASELINE, "kmeans")}, "test_correlation")
        truth = mean_of(results, {**at, **reference["t mixture"]}, "truth").mean
        row: list[object] = [name, correlation.n_seeds, f"{correlation.mean:.3f}"]
        row.append("-" if np.isnan(truth) else f"{truth:.3f}")
        for variant in ("strength auto", "strength 100"):
            for values in reference.values():
                for quantity in ("truth", "seeds"):
                    found = difference(results, {**at, **december(variant)}, {**at, **values}, quantity)
                    row.append("-" if np.isnan(found.mean) else f"{found.mean:+.3f}{_mark(found)}")
        rows.append(row)
    header = ["condition", "seeds", "test correlation", "t mixture to types"]
    header += [
        f"{strength} - {name}, {quantity}"
        for strength in ("auto", "100")
        for name in reference
        for quantity in ("types", "seeds")
    ]
    return markdown(header, rows)


def _mark(estimate: Estimate) -> str:
    return {"higher": " (+)", "lower": " (-)"}.get(estimate.verdict, "")


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    sys.exit(main())

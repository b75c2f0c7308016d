"""``december ari``: the agreement between seeds by method and number of clusters."""

from __future__ import annotations

import argparse

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import ServerError
from december_plugin.findings.left_out import left_out_notes
from december_plugin.results.agreement_text import (
    agreement_lines,
    how_to_read,
    performance_notes,
    performance_text,
    with_null,
    with_stability,
)
from december_plugin.text.csv_files import write_csv

DESCRIPTION = """\
Prints, for each number of clusters K and each method, the agreement between the seeds (adjusted Rand index, mean and sd
over all pairs), with known types if there are any, and the single-trial correlation on the test tier (mean and sd over
seeds; the neurons and sessions are given below the table). There is one table for each dataset and model. If surrogates
were drawn, the table also shows their agreement (the null) with the p value, and the depth of valleys between clusters,
compared with that of surrogates, with its p value. If neurons were resampled, it shows the stability within each model,
which is available for a single seed, too, with its p value if surrogates were resampled. The best of each K is marked;
compare only at equal test correlation.
"""
EPILOG = """\
examples:
  december ari
  december ari --types planted            compare with the known types of this name
  december ari --performance              also how well the models predict, compared with the noise ceiling
  december ari --csv agreement.csv        every column, with the keys, for your own analysis
  december ari --measure v_measure        another measure of agreement
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december ari``."""
    parser = subparsers.add_parser(
        "ari", help="print the agreement between seeds, by method and K", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--types", metavar="NAME", help="known types to compare with (default: the only ones)")
    parser.add_argument("--measure", default="adjusted_rand_index", metavar="NAME", help="default: adjusted_rand_index")
    parser.add_argument(
        "--performance", action="store_true", help="also print noise ceilings and explained variance of the test tier"
    )
    parser.add_argument("--csv", metavar="FILE", help="also write all columns to this file")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    from december_plugin.cli.views.tables import new_console, text
    from december_plugin.results.agreement import agreement_table
    from december_plugin.results.labels import names_of
    from december_plugin.results.nulls import null_table
    from december_plugin.results.performance import performance_table, untested_sessions
    from december_plugin.results.queries import known_types_name
    from december_plugin.results.stability import stability_table

    lab = open_lab_of(args, read_only=True)
    table = agreement_table(lab.tables, types_name=args.types, measure=args.measure)
    if table.empty:
        print("No assignments yet. `december register` plans trainings, `december worker` computes them.")
        return 0
    if args.measure == "adjusted_rand_index" and len(lab.tables.SurrogateAgreement()):
        table = with_null(table, null_table(lab.tables))
    if len(lab.tables.WithinModelStability()):
        table = with_stability(table, stability_table(lab.tables))
    console = new_console()
    names = {kind: names_of(lab.tables, kind, table) for kind in ("dataset", "model")}
    types_name = known_types_name(lab.tables, args.types)
    for key, group in table.groupby(["dataset_fn", "dataset_hash", "model_fn", "model_hash"], sort=False):
        title = f"{names['dataset'][key[:2]]}, {names['model'][key[2:]]}: dataset {key[1][:8]}, model {key[3][:8]}"
        print(text(title).plain, end="\n\n")
        for line, is_best in agreement_lines(group, types_name=types_name, measure=args.measure):
            # Comments may contain control sequences of terminals.
            shown = text(line, "bold" if is_best else "dim" if set(line) == {"-"} else "")
            console.print(shown, soft_wrap=True) if console.is_terminal else print(shown.plain)
        of_group = {"dataset_hash": key[1], "model_hash": key[3]}
        performance = performance_table(lab.tables, of_group)
        tested = performance_notes(performance, untested_sessions(lab.tables, of_group))
        more = performance_text(group, performance) if args.performance else ""
        notes = (left_out_notes(group), tested, more)
        print(*[f"\n{text}" for text in notes if text], "", sep="\n")
    print(how_to_read(table), end="")
    if args.csv:
        try:
            write_csv(table.drop(columns="identity"), args.csv)
            print(f"\nWritten: {args.csv}")
        except OSError as error:
            raise ServerError(f"{args.csv} cannot be written: {error.strerror or error}.") from None
    return 0

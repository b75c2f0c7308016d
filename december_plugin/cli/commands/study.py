"""``december study``: from trained models to a report, without a database."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from december_plugin.cli.commands import Subparsers

DESCRIPTION = """\
Answers whether the neurons of trained models fall into types, without a database: it clusters every model at every
number of clusters, compares the models with each other and with surrogates that have no clusters, and writes the
report, one HTML file.

The models must be of the same neurons: checkpoints or state dicts (.pth, .pt, .ckpt, .safetensors), of which only the
readouts are read and no code is run, or readout vectors, a row per neuron (.npy, .npz, .csv, .parquet). They may differ
in seed, core or training. The basis of a core is arbitrary: if you give each model's feature covariance, neurons are
compared by what they compute rather than by how a model writes it down (docs/you-already-have-trained-models.md).
"""
EPILOG = """\
examples:
  december study seed1.pth seed2.pth seed3.pth --n-clusters 3-20 --report answer.html
  december study a.npy b.npy --n-clusters 5,10,20 --units units.csv --types labels.csv
  december study a.npy b.npy --n-clusters 3-12 --covariances a-sigma.npy b-sigma.npy    functional embeddings
  december study a.npy b.npy --n-clusters 3-20 --methods kmeans --null-draws 0          fast, and without a null
  december study a.npy b.npy --methods hdbscan                                          finds K itself
  december study a.npy b.npy --n-clusters 3-20 --test-correlations r.npy --minimum-test-correlation 0.3
"""
_PART = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december study``."""
    parser = subparsers.add_parser(
        "study", help="go from trained models to a report, without a database", description=DESCRIPTION, epilog=EPILOG
    )
    parser.set_defaults(usage=parser.error)
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE", help="one file for each model")
    parser.add_argument(
        "--n-clusters",
        type=counts_of,
        metavar="K",
        help="numbers of clusters, such as 3-20 or 5,10,20; at least three for criteria for K; none for hdbscan alone",
    )
    parser.add_argument(
        "-o",
        "--report",
        type=Path,
        default=Path("answer.html"),
        metavar="FILE",
        help="file to write (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file even if it is not a december report")
    parser.add_argument("--title", default="", metavar="TEXT", help="heading of the page")
    what = parser.add_argument_group("what is compared")
    what.add_argument("--names", type=_words, metavar="A,B", help="names of the models (default: those of their files)")
    what.add_argument(
        "--units", type=Path, metavar="FILE", help="table of units (CSV, Parquet), one row per neuron, in their order"
    )
    what.add_argument("--types", type=Path, metavar="FILE", help="known types: CSV with data_key, unit_id and type")
    what.add_argument(
        "--covariances",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="feature covariance of each model, in the same order",
    )
    what.add_argument("--space", metavar="NAME", help="readout or functional (default: functional with covariances)")
    what.add_argument("--normalize", metavar="NAME", help="none or l2, directions (default: l2 if functional)")
    what.add_argument(
        "--test-correlations",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="how well neurons are predicted, one file for all models or one for each: .npy (neurons,), or a table of "
        "units with test_correlation",
    )
    what.add_argument(
        "--minimum-test-correlation", type=float, metavar="R", help="leave out neurons predicted worse than this"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--methods", type=_words, metavar="A,B", help="default: kmeans,gmm,t_mixture; hdbscan finds K itself"
    )
    how.add_argument("--null-draws", type=int, metavar="N", help="number of surrogates; 0 for none (20)")
    how.add_argument(
        "--null", metavar="NAME", help="kind of surrogates: elliptical, planar, combined, ... (elliptical)"
    )
    how.add_argument("--clusters", type=int, metavar="K", help="number of clusters to show one by one")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="seed of clusterings and surrogates (0)")
    how.add_argument("--jobs", type=int, default=-1, metavar="N", help="processes (default: one per processor)")
    how.add_argument("--no-tsne", action="store_true", help="leave the t-SNE out")


def counts_of(text: str) -> list[int]:
    """Return numbers of clusters, written as ``3-20``, ``5,10,20`` or both."""
    counts: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers of clusters, such as 3-20 or 5,10,20")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} goes down; write the smaller number first")
        if last - first >= 10_000:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is too many numbers of clusters")
        counts += range(first, last + 1)
    return counts


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def run(args: argparse.Namespace) -> int:
    """Study the models, print the answer and write the report."""
    from december_plugin.answer import study_readouts
    from december_plugin.cli.commands.report import command_line, say
    from december_plugin.errors import SettingsError
    from december_plugin.report.writing import check_replaceable

    check_replaceable(args.report, force=args.force)
    given = {"methods": args.methods, "null_draws": args.null_draws, "null_method": args.null}
    try:
        study = study_readouts(
            args.models,
            n_clusters=args.n_clusters,
            space=args.space,
            normalize=args.normalize,
            covariances=args.covariances,
            names=args.names,
            unit_ids=args.units,
            types=args.types,
            test_correlations=args.test_correlations,
            minimum_test_correlation=args.minimum_test_correlation,
            shown=args.clusters,
            seed=args.seed,
            n_jobs=args.jobs,
            tsne=not args.no_tsne,
            **{name: value for name, value in given.items() if value is not None},
        )
    except SettingsError as error:
        if args.n_clusters is None and error.setting == "n_clusters":
            args.usage("--n-clusters is needed, e.g. 3-20, unless all methods find the number of clusters")
        raise
    print(study.summary())
    say("writing the page")
    path = study.write_report(args.report, title=args.title, command=command_line(), force=args.force)
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    for item in study.analysis.missing:
        print(f"Not in it: {item.what}. {item.remedy}")
    return 0

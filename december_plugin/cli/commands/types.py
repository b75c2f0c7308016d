"""``december types``: known cell types, to compare clusters with."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import SettingsError
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Imports and lists known cell types of neurons: from genetics, from an expert, from another paper, or planted in a
simulation. A recording can have any number of labelings, each under its name, and most neurons may have none. Workers
then compare every clustering with each of them (`december ari` and LabelAgreement).

A labeling is a CSV file with one line per neuron:

  data_key,unit_id,type
  29513-3-5,12,ON
  29513-3-5,17,OFF

data_key is the session as the data loaders name it, unit_id the neuron's id in the recording, type any text. Neurons
without a known type can be left out, or have an empty type, -1, NaN or unknown.
"""
EPILOG = """\
examples:
  december types import labels.csv --name "V4 types" --source "Willeke et al." --version 2023-05
  december types import labels.csv --name "V4 types" --dry-run     check the file, and which neurons models have
  december types list
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december types``."""
    parser = subparsers.add_parser(
        "types", help="import and list known cell types", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    add = actions.add_parser("import", help="store the labels of a CSV file")
    add.add_argument("file", metavar="FILE.CSV", help="columns data_key, unit_id, type")
    add.add_argument("--name", required=True, help="name of the labeling (at most 64 characters)")
    add.add_argument("--source", default="", help="where the labels come from")
    add.add_argument("--version", default="", help="version of the source: a release, a date, a commit")
    add.add_argument("--dry-run", action="store_true", help="check and write nothing")
    add_lab_options(add)
    add_lab_options(actions.add_parser("list", help="list the stored labelings"))


def run(args: argparse.Namespace) -> int:
    """Import or list."""
    return _import(args) if args.action == "import" else _list(args)


def _import(args: argparse.Namespace) -> int:
    from december_plugin.datasets.type_labels import by_session, read_type_labels

    labels = read_type_labels(args.file)
    counts = labels["type"].value_counts()
    names = ", ".join(f"{name} ({count})" for name, count in counts.items())
    print(
        f"{numbered(len(labels), 'labelled neuron')} of {numbered(labels['data_key'].nunique(), 'session')}, "
        f"{labels.attrs['n_unlabelled']} without a type; {numbered(len(counts), 'type')}: {names}"
    )
    lab = open_lab_of(args, read_only=True)
    _check_neurons(labels, lab.tables)
    if args.dry_run:
        print("Nothing was written.")
        return 0
    lab.tables.KnownTypes().add_entry(
        args.name, by_session(labels), source=args.source, version=args.version, skip_duplicates=True
    )
    print(f"Stored as {args.name!r}. Next: `december worker` compares the clusters with it.")
    return 0


def _check_neurons(labels: pd.DataFrame, tables: Any) -> None:
    """Say which neurons no model has; if no model has any, raise a SettingsError: they are of other recordings."""
    from december_plugin.datasets.type_labels import unknown_neurons

    known: dict[str, set[int]] = {}
    for row in tables.ClusterAssignment.Session.fetch("data_key", "unit_ids", as_dict=True):
        known.setdefault(row["data_key"], set()).update(row["unit_ids"].tolist())
    if not known:
        print("No model has been clustered yet, so it was not checked whether these neurons exist.")
        return
    said = list(unknown_neurons(labels, known))
    pairs = zip(labels["data_key"], labels["unit_id"], strict=True)
    n_known = sum(unit in known.get(data_key, ()) for data_key, unit in pairs)
    if n_known == 0:
        raise SettingsError("\n".join(["no model has any of these neurons, so nothing was stored:", *said]))
    for sentence in said:
        print(f"Note: {sentence}")
    print(f"Models have {n_known} of the {len(labels)} labelled neurons.")


def _list(args: argparse.Namespace) -> int:
    frame = open_lab_of(args, read_only=True).tables.KnownTypes().overview()
    if not len(frame):
        print("No known types are stored. `december types import` stores those of a CSV file.")
    for row in frame.to_dict("records"):
        origin = ", ".join(part for part in (row["source"], row["version"] and f"version {row['version']}") if part)
        print(f"{row['types_name']}{f' ({origin})' if origin else ''}")
        neurons, sessions = numbered(row["n_neurons"], "neuron"), numbered(row["n_sessions"], "session")
        print(f"  {neurons} of {sessions}; types {', '.join(row['type_names'])}")
    return 0

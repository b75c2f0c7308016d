"""``december demo``: the whole workflow in a few minutes."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.text.csv_files import write_csv

if TYPE_CHECKING:
    import pandas as pd

    from december_plugin.demo.demonstration import DemoSettings
    from december_plugin.schemas.lab import Lab
    from december_plugin.sweeps.register import RegistrationResult

SCHEMA = "december_demo"

DESCRIPTION = """\
Demonstrates the whole workflow on an embedded database (or your lab's, if DataJoint is configured): it reads
recordings, trains baseline and DECEMber models from several seeds in DataJoint tables filled by worker processes,
clusters the neurons, and compares the agreement between the seeds with that of surrogates without clusters, in a table,
in figures and in a report. Without --recordings it simulates two populations of two sessions each: one with planted
cell types, and its twin, a continuum without types, so that the answers can be compared with the truth. Running it
again computes only what is missing.
"""
EPILOG = """\
examples:
  december demo
  december demo --recordings data/static1-2-3 data/static4-5-6 --clusters 10 20 --epochs 60 --pretrain-epochs 40
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december demo``."""
    parser = subparsers.add_parser(
        "demo", help="run the whole workflow in a few minutes", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("december-demo"), help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="your own recordings, in the SENSORIUM 2022 layout",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="SEED", help="default: 1 2 3")
    parser.add_argument(
        "--clusters", type=int, nargs="+", default=list(range(2, 9)), metavar="K", help="default: 2 to 8"
    )
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="pretraining included (default: 30)")
    parser.add_argument("--pretrain-epochs", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument(
        "--draws",
        type=int,
        default=20,
        metavar="N",
        help="surrogates of the null of k-means and DECEMber, 0 for none; large recordings take long (default: 20)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default: 2)")
    parser.add_argument("--schema", default=SCHEMA, help="schema of the demonstration's tables (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    from december_plugin.database.connection import database_session
    from december_plugin.database.schema_names import check_schema_name
    from december_plugin.demo.demonstration import (
        DemoSettings,
        check_folder,
        own_recordings,
        simulated_recordings,
        write_sweep,
    )
    from december_plugin.validation.checks import check_integer

    _check_epochs(args)
    check_schema_name(args.schema, places="--schema")
    settings = DemoSettings(
        folder=args.folder,
        recordings=tuple(args.recordings),
        seeds=tuple(dict.fromkeys(args.seeds)),
        n_clusters=tuple(dict.fromkeys(check_integer("--clusters", k, minimum=2) for k in args.clusters)),
        max_iter=args.epochs,
        pretrain_epochs=args.pretrain_epochs,
        n_draws=check_integer("--draws", args.draws, minimum=0),
        n_workers=check_integer("--workers", args.workers, minimum=1),
    )
    check_folder(settings.folder)
    if settings.recordings:
        _say(1, "Recordings", ", ".join(str(path) for path in settings.recordings))
        data = own_recordings(settings.recordings)
    else:
        what = "two simulated populations of two sessions each, planted types and a continuum"
        _say(1, "Recordings", f"{what}, in {settings.folder}/")
        data = simulated_recordings(settings.folder)
    for recordings in data.values():
        _check_recordings(recordings, settings)
    sweep_path, sweep = write_sweep(settings, data)
    with database_session() as database:
        lab, written = _register(args.schema, sweep)
        where = f"embedded, {database.server.home}" if database.server is not None else "your lab's"
        _say(2, "Database", f"{where}; schema {lab.schema}")
        _say(3, "Sweep", f"{sweep_path}: {sweep.n_trainings} trainings registered")
        types_name = _train(lab, settings, next(iter(data.values())), written.plan)
        table, beside_null, nulls = _numbers(lab, settings, written, types_name)
        _say(5, "Answer", f"the agreement between seeds; all of it is in {settings.folder / 'agreement.csv'}")
        _print_agreement(lab, beside_null, types_name)
        _draw(lab, settings, table, nulls, written.plan, types_name)
        report = _report(args, lab, types_name)
    _say_what_next(args.schema, sweep_path, report)
    return 0


def _say(step: int, what: str, text: str) -> None:
    print(f"[{step}/5] {what:<11}{text}", flush=True)


def _check_epochs(args: argparse.Namespace) -> None:
    """Raise a SettingsError that names the options: the sweep would name settings that the user did not write."""
    from december_plugin.errors import SettingsError
    from december_plugin.validation.checks import check_integer

    check_integer("--pretrain-epochs", args.pretrain_epochs, minimum=1)
    if check_integer("--epochs", args.epochs, minimum=1) <= args.pretrain_epochs:
        raise SettingsError(
            f"--epochs {args.epochs} includes the {args.pretrain_epochs} epochs of the pretraining, so none are left "
            f"for DECEMber. Give more than {args.pretrain_epochs}, or fewer --pretrain-epochs."
        )


def _check_recordings(recordings: tuple[Path, ...], settings: DemoSettings) -> None:
    """Fail before anything is registered: a mistake in a recording would fail every training."""
    from december_plugin.datasets import static_loaders
    from december_plugin.errors import SettingsError

    info: Mapping[str, Any] = static_loaders([str(path) for path in recordings], 1, return_data_info=True)
    n_neurons = sum(session["output_dimension"] for session in info.values())
    if max(settings.n_clusters) > n_neurons:
        raise SettingsError(
            f"--clusters {max(settings.n_clusters)} is more than the {n_neurons} neurons of the recordings."
        )


def _register(schema: str, sweep: Any) -> tuple[Lab, RegistrationResult]:
    from december_plugin.schemas.lab import open_lab
    from december_plugin.sweeps.register import register

    # Even if the settings name the lab's nnfabrik tables: a demonstration writes nothing there.
    lab = open_lab(schema=schema, nnfabrik=schema, create=True)
    written = register(sweep, nnfabrik=lab.nnfabrik, tables=lab.tables, add_fabrikant=lab.is_embedded)
    return lab, written


def _train(lab: Lab, settings: DemoSettings, recordings: tuple[Path, ...], plan: list[dict[str, Any]]) -> str | None:
    from tqdm import tqdm

    from december_plugin.demo.demonstration import add_planted_types, fill_tables

    types_name = add_planted_types(lab.tables, recordings)
    _say(
        4,
        "Workers",
        f"{settings.n_workers} processes train, cluster, compare; logs in {settings.folder}/*.log",
    )
    is_terminal, last = sys.stderr.isatty(), [-1, -1]
    with tqdm(total=len(plan), unit="training", leave=False, disable=not is_terminal) as bar:

        def show(trained: int, planned: int, assigned: int) -> None:
            bar.update(trained - bar.n)
            bar.set_postfix(assignments=assigned)
            # Not a line for every change, so that a log stays readable.
            step = (trained // 6, assigned // 50)
            if not is_terminal and step != last:
                print(f"      {trained} of {planned} models trained, {assigned} cluster assignments", flush=True)
            last[:] = step

        fill_tables(lab.schema, settings, lab.tables, plan, show=show)
    return types_name


def _numbers(
    lab: Lab, settings: DemoSettings, written: RegistrationResult, types_name: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the agreement of this demonstration's configurations, with labels; that next to the null; and nulls."""
    import datajoint as dj

    from december_plugin.results.agreement import agreement_table
    from december_plugin.results.agreement_text import with_null
    from december_plugin.results.nulls import null_table

    # The tables may also contain results of other runs with other settings.
    clusterings = [*written.clusterings, *(lab.tables.Clustering & "method = 'december'").fetch("KEY")]
    restriction = dj.AndList([written.plan, clusterings])
    table = agreement_table(lab.tables, restriction, types_name=types_name)
    nulls = null_table(lab.tables, restriction)
    beside_null = with_null(table, nulls)
    write_csv(beside_null.drop(columns="identity"), settings.folder / "agreement.csv")
    return table, beside_null, nulls


def _print_agreement(lab: Lab, beside_null: pd.DataFrame, types_name: str | None) -> None:
    """Print the agreement of the methods that have a null next to it, by dataset."""
    from december_plugin.demo.demonstration import WITH_NULL
    from december_plugin.results.agreement_text import agreement_text
    from december_plugin.results.labels import names_of

    names = names_of(lab.tables, "dataset", beside_null)
    shown = beside_null[beside_null["method"].isin(WITH_NULL) & (beside_null["trainer_role"] != "control")]
    for key, rows in shown.groupby(["dataset_fn", "dataset_hash"], sort=False):
        print(f"\n{names[key]}\n\n{agreement_text(rows, types_name=types_name)}", flush=True)


def _draw(
    lab: Lab,
    settings: DemoSettings,
    table: pd.DataFrame,
    nulls: pd.DataFrame,
    plan: list[dict[str, Any]],
    types_name: str | None,
) -> None:
    from december_plugin.demo.figures import draw_figures

    print()
    for path in draw_figures(lab, settings.folder, table, nulls, plan, types_name=types_name):
        print(f"figure  {path}")


def _report(args: argparse.Namespace, lab: Lab, types_name: str | None) -> Path:
    """Write the report, and print its answers."""
    from december_plugin.cli.commands import report
    from december_plugin.findings.verdict import answer

    parser = argparse.ArgumentParser()
    report.add_report_options(parser)
    output = args.folder / "report.html"
    words = ["--output", str(output), "--force", *(["--types", types_name] if types_name else [])]
    data = report.write(parser.parse_args(words), lab)
    print("\nWhat it says:")
    for analysis in data.analyses:
        print(f"  {analysis.dataset['comment']}:\n    {answer(analysis).headline}")
    return output


def _say_what_next(schema: str, sweep_path: Path, report: Path) -> None:
    import datajoint as dj

    option = f"--schema {shlex.quote(schema)}"
    if os.environ.get("DECEMBER_NNFABRIK") or dj.config.get("december.nnfabrik"):
        option += f" --nnfabrik {shlex.quote(schema)}"
    # In a virtual environment that is not active, the command needs its path.
    december = "december" if shutil.which("december") else shlex.quote(os.path.relpath(sys.argv[0]))
    commands = {
        f"{december} ari {option}": "all methods, with --csv and other measures",
        f"{december} report {option}": "writes the page again, with other clusters or known types",
        f"{december} status {option}": "what is in the tables",
        f"{december} register {shlex.quote(str(sweep_path))} {option}": "after adding a seed or a K to this file",
        f"{december} worker {option}": "computes only what is new",
        f"{december} db stop": "ends the embedded database, if one of these started it",
    }
    width = max(map(len, commands))
    print(f"\nThe answer, its figures and numbers as one page: open {report}\n\nTry next:")
    for command, meaning in commands.items():
        print(f"  {command:<{width}}   {meaning}")
    print(f"""
In Python:
  from december_plugin import open_lab, results
  tables = open_lab(schema={schema!r}, nnfabrik={schema!r}).tables
  results.agreement_table(tables)         # data frame: agreement by K and method
  results.best_configurations(tables)     # at equal test correlation""")

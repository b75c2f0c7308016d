"""Reads everything that a report says from the tables; a read-only account is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.findings.data import Analysis, ReportData
from december_plugin.findings.packages import installed_packages
from december_plugin.results.agreement import agreement_table
from december_plugin.results.configurations import configuration_table
from december_plugin.results.labels import names_of
from december_plugin.results.performance import CEILINGS, COUNTS, SCORES, stored_columns
from december_plugin.results.report_analysis import AnalysisReader, group_columns
from december_plugin.schemas.declare import DecemberTables

MOST_IN_TITLE = 2  # datasets
OUTPUTS_AT_ONCE = 20  # trainers' outputs hold curves and mixtures: some MB each where there are many clusters


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report shows.

    Attributes
    ----------
    title, command
        See :class:`~december_plugin.findings.data.ReportData`.
    types_name
        Set of known types to compare with; None: the only set.
    n_clusters
        The K whose clusters are shown one by one; None: chosen from the results.
    dataset, model
        Beginnings of hashes: only these datasets and models.
    tsne
        Whether to compute a t-SNE, which needs the store.
    max_neurons_per_session
        Most neurons of one session that the t-SNE draws.
    """

    title: str = ""
    command: str = ""
    types_name: str | None = None
    n_clusters: int | None = None
    dataset: str = ""
    model: str = ""
    tsne: bool = True
    max_neurons_per_session: int = 2000


def collect_report(
    tables: DecemberTables,
    *,
    settings: ReportSettings,
    log: Callable[[str], None] = lambda text: None,
) -> ReportData:
    """Read everything that a report says.

    Parameters
    ----------
    tables
        The tables.
    settings
        What to show.
    log
        Called with a line of text before each slow step.

    Raises
    ------
    SettingsError
        If there is no assignment, or the settings leave none; for unknown types or a K without clusterings.

    See Also
    --------
    december_plugin.report.render_report : Turns it into an HTML page.
    export_tables : The numbers as data frames.
    december_plugin.answer.study_readouts : The same without a database.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import collect_report
    >>> from december_plugin.results.report import ReportSettings
    >>> lab = open_lab(schema="retina")
    >>> data = collect_report(lab.tables, settings=ReportSettings(tsne=False))
    >>> data.title
    'Functional types: two sessions'
    >>> data.trainings[["trainer_role", "seed", "test_correlation"]].round(2)
      trainer_role  seed  test_correlation
    0     baseline     1              0.87
    1     baseline     2              0.88
    2     baseline     3              0.88
    3     december     1              0.92
    4     december     2              0.91
    5     december     3              0.91
    >>> [analysis.chosen.label for analysis in data.analyses]
    ['DECEMber']
    """
    table = selected_agreement(tables, settings)
    analyses = read_analyses(tables, table, settings=settings, log=log)
    connection = tables.schema.connection
    trainings = read_trainings(tables, table)
    return ReportData(
        title=settings.title or _title(names_of(tables, "dataset", table)),
        created=datetime.now(timezone.utc),
        command=settings.command,
        schema=str(tables.schema.database),
        server=server_of(connection),
        analyses=analyses,
        **_state_of_jobs(tables),
        entries=read_entries(tables, table),
        trainings=trainings,
        known_types=tables.KnownTypes().overview(),
        versions=installed_packages(),
        training_versions=training_versions(tables, trainings),
        configurations=configuration_table(tables, _assignments_of(table)),
    )


def _assignments_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [name for name in table.columns if name.endswith(("_fn", "_hash"))]
    return [{str(name): value for name, value in row.items()} for row in table[columns].to_dict("records")]


def _title(datasets: Mapping[tuple[str, str], str]) -> str:
    names = list(datasets.values())
    what = " and ".join(names) if len(names) <= MOST_IN_TITLE else f"{len(names)} datasets"
    return f"Functional types: {what}"


def selected_agreement(tables: DecemberTables, settings: ReportSettings, restriction: Any = True) -> pd.DataFrame:
    """Return the rows of ``agreement_table`` that the settings leave, or raise a SettingsError that says what to do."""
    table = agreement_table(tables, restriction, types_name=settings.types_name)
    if table.empty and len(tables.ClusterAssignment()):
        raise SettingsError("no cluster assignment fits the selection; `december ari` lists all of them.")
    if table.empty:
        planned = len(tables.TrainingPlan())
        trained = len(tables.TrainedModel())
        raise SettingsError(
            f"there is nothing to report: the schema {tables.schema.database!r} has {planned} planned trainings, "
            f"{trained} trained models and no cluster assignments. "
            + (
                "`december worker` computes what is planned; `december status` says what it waits for."
                if planned
                else "`december register SWEEP.yaml` plans trainings, `december worker` computes them."
            )
        )
    for kind, beginning in (("dataset", settings.dataset), ("model", settings.model)):
        hashes = sorted(set(table[f"{kind}_hash"]))
        table = table[table[f"{kind}_hash"].str.startswith(beginning)]
        if table.empty:
            raise SettingsError(
                f"no {kind} with cluster assignments has a hash that begins with {beginning!r}. Hashes: "
                f"{', '.join(hashes)}."
            )
    if settings.n_clusters is not None and settings.n_clusters not in set(table["n_clusters"]):
        counts = ", ".join(str(k) for k in sorted(set(table["n_clusters"])))
        raise SettingsError(f"there are no assignments with {settings.n_clusters} clusters. Available: {counts}.")
    return table.reset_index(drop=True)


def read_analyses(
    tables: DecemberTables,
    table: pd.DataFrame,
    *,
    settings: ReportSettings,
    log: Callable[[str], None] = lambda text: None,
) -> tuple[Analysis, ...]:
    """Return one analysis per dataset and model of the rows of ``agreement_table``."""
    groups = list(table.groupby(group_columns(), sort=False))
    datasets, models = names_of(tables, "dataset", table), names_of(tables, "model", table)
    analyses = []
    for number, (key, rows) in enumerate(groups, 1):
        if len(groups) > 1:
            log(f"dataset and model {number} of {len(groups)}")
        reader = AnalysisReader(
            tables,
            rows.reset_index(drop=True),
            name=f"{datasets[key[:2]]}, {models[key[2:]]}",
            types_name=settings.types_name,
            n_clusters=settings.n_clusters,
            tsne=settings.tsne,
            max_neurons_per_session=settings.max_neurons_per_session,
            log=log,
        )
        analyses.append(reader.read())
    return tuple(analyses)


def read_entries(tables: DecemberTables, table: pd.DataFrame) -> pd.DataFrame:
    """Return the entries that the rows of ``agreement_table`` refer to: kind, function, hash, comment, settings."""
    rows = []
    for kind in ("dataset", "model", "trainer"):
        used = set(zip(table[f"{kind}_fn"], table[f"{kind}_hash"], strict=True))
        entries = getattr(tables.nnfabrik, kind.capitalize())().fetch(as_dict=True, order_by=f"{kind}_hash")
        rows += [
            {
                "kind": kind,
                "fn": entry[f"{kind}_fn"],
                "hash": entry[f"{kind}_hash"],
                "comment": entry[f"{kind}_comment"],
                "config": as_json(entry[f"{kind}_config"]),
            }
            for entry in entries
            if (entry[f"{kind}_fn"], entry[f"{kind}_hash"]) in used
        ]
    used_clusterings = set(table["clustering_hash"])
    rows += [
        {
            "kind": "clustering",
            "fn": entry["method"],
            "hash": entry["clustering_hash"],
            "comment": entry["description"],
            "config": as_json({"n_clusters": entry["n_clusters"], **entry["settings"]}),
        }
        for entry in tables.Clustering().fetch(as_dict=True, order_by=("method", "n_clusters"))
        if entry["clustering_hash"] in used_clusterings
    ]
    return pd.DataFrame(rows, columns=["kind", "fn", "hash", "comment", "config"])


def as_json(value: Any) -> str:
    """Return stored settings as JSON; values that JSON lacks are written as Python writes them."""

    def other(entry: Any) -> Any:
        return entry.tolist() if hasattr(entry, "tolist") else repr(entry)

    return json.dumps(value, default=other, ensure_ascii=False, sort_keys=isinstance(value, Mapping))


TRAINING_COLUMNS = ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_hash", "seed")


def read_trainings(tables: DecemberTables, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trained model behind the rows of ``agreement_table``: keys, scores, when it was trained."""
    names = tables.TrainedModel().heading.names
    when = ["trainedmodel_ts"] if "trainedmodel_ts" in names else []
    key = [name for name in tables.TrainedModel.primary_key if name in TRAINING_COLUMNS]
    models = pd.DataFrame(tables.TrainedModel().fetch(*key, *when, as_dict=True), columns=[*key, *when])
    summary = [
        *("trainer_role", "validation_correlation", "n_epochs", "best_epoch", "stopped_by", "pretrain_epochs"),
        *("strength", "gradient_ratio"),
    ]
    for query, columns in (
        (tables.TrainingSummary(), summary),
        (tables.TestPerformance(), [*SCORES.values(), *CEILINGS, *COUNTS]),
    ):
        found = stored_columns(query, [*key, *columns])
        models = models.merge(found, on=key, how="left")
    without_seed = [name for name in key if name != "seed"]
    models = models.merge(table[without_seed].drop_duplicates(), on=without_seed)
    renamed = {"single_trial_correlation": "test_correlation", "trainedmodel_ts": "trained"}
    models = models.rename(columns=renamed).reindex(
        columns=[
            *(*key, "trainer_role", "validation_correlation", "test_correlation", "correlation_to_average"),
            *("normalized_correlation", "feve", *CEILINGS, *COUNTS, "n_epochs"),
            *("best_epoch", "stopped_by", "pretrain_epochs", "strength", "gradient_ratio", "trained"),
        ]
    )
    return models.sort_values(key, ignore_index=True)


def training_versions(tables: DecemberTables, trainings: pd.DataFrame) -> pd.DataFrame:
    """Return the versions of packages that trainings recorded, each with its number of models."""
    key = [name for name in tables.TrainedModel.primary_key if name in trainings]
    keys = trainings[key].to_dict("records")
    counts: dict[tuple[str, str], int] = {}
    for start in range(0, len(keys), OUTPUTS_AT_ONCE):
        for output in (tables.TrainedModel() & keys[start : start + OUTPUTS_AT_ONCE]).fetch("output"):
            versions = output.get("versions") if isinstance(output, Mapping) else None
            for package, number in (versions or {}).items() if isinstance(versions, Mapping) else ():
                counts[str(package), str(number)] = counts.get((str(package), str(number)), 0) + 1
    rows = [{"package": name, "version": number, "n_models": count} for (name, number), count in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["package", "version", "n_models"])


def _state_of_jobs(tables: DecemberTables) -> dict[str, pd.DataFrame]:
    from december_plugin.pool.status.overview import read_overview

    overview = read_overview(tables)
    states = ["table", "done", "running", "waiting", "failed", "poisoned", "ignored"]
    progress = pd.DataFrame([{name: getattr(row, name) for name in states} for row in overview.tables], columns=states)
    columns = ["table", "count", "reason", "example", "job"]
    failures = [{name: getattr(reason, name) for name in columns} for reason in overview.reasons]
    return {"progress": progress, "failures": pd.DataFrame(failures, columns=columns)}


def server_of(connection: Any) -> str:
    """Return host and version of the server, without the account."""
    (number,) = connection.query("SELECT VERSION()").fetchone()
    host = str(connection.conn_info.get("host", "")) or "localhost"
    return f"{host}, version {number}"

"""Docstrings of public names have an example and public names to see also; references are in the bibliography."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sklearn.base import BaseEstimator

from helpers.reference import ROOT, public_objects, reference, sections, see_also

PUBLIC = public_objects()
AUTHOR = r"(?:[A-Z](?=, )|[A-Z][\w'-]+[a-z])"
# "Gower 1975", "Hubert and Arabie (1985)", "Baden et al. 2016", "Ritzert, Turishcheva et al. 2025"
CITATION = re.compile(rf"\b({AUTHOR})(?:, {AUTHOR})*(?:,? and {AUTHOR},?| et al\.?,?)? \(?((?:19|20)\d\d)\b")

# Names that are still incomplete; a name that is listed and complete fails the test, too.
WITHOUT_EXAMPLE: set[str] = {
    "december_plugin.answer.study.Study",
    "december_plugin.bundles.annotated.annotated_neurons",
    "december_plugin.bundles.bundle.Bundle",
    "december_plugin.bundles.bundle.read_bundle",
    "december_plugin.database.connection.connect",
    "december_plugin.database.connection.database_session",
    "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_loaders",
    "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_types",
    "december_plugin.datasets.macaque_v4.loaders.macaque_v4_loaders",
    "december_plugin.datasets.movies.loaders.movie_loaders",
    "december_plugin.datasets.sridhar_2025.loaders.sridhar_2025_loaders",
    "december_plugin.errors.OutdatedSchemaError",
    "december_plugin.findings.cluster_counts.choose_cluster_count",
    "december_plugin.imports.units.Units",
    "december_plugin.intake.other_schema.models_of_schema",
    "december_plugin.intake.write.import_models",
    "december_plugin.models.attention.task_core_attention_readout",
    "december_plugin.models.hoefling.hoefling_core_gaussian_readout",
    "december_plugin.pool.jobs.description.describe_jobs",
    "december_plugin.pool.jobs.job.Job",
    "december_plugin.pool.liveness.PoolStatus",
    "december_plugin.pool.liveness.WorkerStatus",
    "december_plugin.pool.status.overview.Overview",
    "december_plugin.pool.status.overview.read_overview",
    "december_plugin.pool.worker.loop.Worker",
    "december_plugin.results.agreement.agreement_table",
    "december_plugin.results.agreement.best_configurations",
    "december_plugin.results.alignment.alignments",
    "december_plugin.results.assignments.load_assigned_model",
    "december_plugin.results.assignments.neuron_clusters",
    "december_plugin.results.assignments.stable_neurons",
    "december_plugin.results.cluster_counts.cluster_count_table",
    "december_plugin.results.cluster_functions.cluster_confusion",
    "december_plugin.results.cluster_functions.cluster_pairs",
    "december_plugin.results.cluster_trees.cluster_tree_of",
    "december_plugin.results.configurations.configuration_table",
    "december_plugin.results.confusion.confusion_frame",
    "december_plugin.results.consensus.consensus_frame",
    "december_plugin.results.consensus.consensus_table",
    "december_plugin.results.exciting_images.exciting_images",
    "december_plugin.results.exciting_images.exciting_neurons",
    "december_plugin.results.exciting_images.mei_confusion",
    "december_plugin.results.export.export_tables",
    "december_plugin.results.figure_frames.datasets_frame",
    "december_plugin.results.figure_frames.embeddings_frame",
    "december_plugin.results.figure_frames.measures_frame",
    "december_plugin.results.figure_frames.performance_frame",
    "december_plugin.results.figure_frames.restarts_frame",
    "december_plugin.results.nulls.null_table",
    "december_plugin.results.performance.performance_table",
    "december_plugin.results.performance.session_performance",
    "december_plugin.results.performance.untested_sessions",
    "december_plugin.results.report.collect_report",
    "december_plugin.results.stability.stability_frame",
    "december_plugin.results.stability.stability_table",
    "december_plugin.schemas.declare.DecemberTables",
    "december_plugin.schemas.declare.december_tables",
    "december_plugin.schemas.training.ThreePartTraining",
    "december_plugin.security.allowed_modules.restricted_to",
    "december_plugin.sharing.result.Result",
    "december_plugin.sharing.write.write_bundle",
}
WITHOUT_SEE_ALSO: set[str] = {
    "december_plugin.answer.readouts.study_readouts",
    "december_plugin.bundles.annotated.annotated_neurons",
    "december_plugin.bundles.bundle.read_bundle",
    "december_plugin.database.connection.connect",
    "december_plugin.database.connection.database_session",
    "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_loaders",
    "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_types",
    "december_plugin.datasets.macaque_v4.loaders.macaque_v4_loaders",
    "december_plugin.datasets.movies.loaders.movie_loaders",
    "december_plugin.datasets.sensorium.loaders.static_loaders",
    "december_plugin.datasets.sridhar_2025.loaders.sridhar_2025_loaders",
    "december_plugin.findings.cluster_counts.choose_cluster_count",
    "december_plugin.imports.arrays.read_array",
    "december_plugin.imports.checkpoints.read_checkpoint",
    "december_plugin.imports.identity.check_same_neurons",
    "december_plugin.imports.readouts.read_readouts",
    "december_plugin.imports.units.read_units",
    "december_plugin.intake.other_schema.models_of_schema",
    "december_plugin.intake.write.import_models",
    "december_plugin.models.attention.stacked_core_attention_readout",
    "december_plugin.models.attention.task_core_attention_readout",
    "december_plugin.models.equivariant.equivariant_core_factorized_readout",
    "december_plugin.models.equivariant.equivariant_core_gaussian_readout",
    "december_plugin.models.factorized.stacked_core_factorized_readout",
    "december_plugin.models.gaussian.stacked_core_gaussian_readout",
    "december_plugin.models.hoefling.hoefling_core_gaussian_readout",
    "december_plugin.models.movie.movie_core_gaussian_readout",
    "december_plugin.pool.jobs.description.describe_jobs",
    "december_plugin.pool.status.overview.read_overview",
    "december_plugin.results.agreement.agreement_table",
    "december_plugin.results.agreement.best_configurations",
    "december_plugin.results.alignment.alignments",
    "december_plugin.results.assignments.load_assigned_model",
    "december_plugin.results.assignments.neuron_clusters",
    "december_plugin.results.assignments.stable_neurons",
    "december_plugin.results.cluster_counts.cluster_count_table",
    "december_plugin.results.cluster_functions.cluster_confusion",
    "december_plugin.results.cluster_functions.cluster_pairs",
    "december_plugin.results.cluster_trees.cluster_tree_of",
    "december_plugin.results.configurations.configuration_table",
    "december_plugin.results.confusion.confusion_frame",
    "december_plugin.results.consensus.consensus_frame",
    "december_plugin.results.consensus.consensus_table",
    "december_plugin.results.exciting_images.exciting_images",
    "december_plugin.results.exciting_images.exciting_neurons",
    "december_plugin.results.exciting_images.mei_confusion",
    "december_plugin.results.export.export_tables",
    "december_plugin.results.figure_frames.datasets_frame",
    "december_plugin.results.figure_frames.embeddings_frame",
    "december_plugin.results.figure_frames.measures_frame",
    "december_plugin.results.figure_frames.performance_frame",
    "december_plugin.results.figure_frames.restarts_frame",
    "december_plugin.results.nulls.null_table",
    "december_plugin.results.performance.performance_table",
    "december_plugin.results.performance.session_performance",
    "december_plugin.results.performance.untested_sessions",
    "december_plugin.results.report.collect_report",
    "december_plugin.results.stability.stability_frame",
    "december_plugin.results.stability.stability_table",
    "december_plugin.schemas.declare.december_tables",
    "december_plugin.schemas.lab.open_lab",
    "december_plugin.security.allowed_modules.restricted_to",
    "december_plugin.sharing.write.write_bundle",
    "december_plugin.training.trainers.baseline_trainer",
    "december_plugin.training.trainers.december_trainer",
}


def needs_see_also(value: Any) -> bool:
    """Functions and estimators do; other classes are linked from the functions that take or return them."""
    return not inspect.isclass(value) or issubclass(value, BaseEstimator)


def plain(text: str) -> str:
    """Return text without markup, links as their addresses, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"\[[^]]*\]\(([^)]*)\)", r"\1", text)).strip()


def bibliography() -> list[str]:
    """Return the entries of the bibliography."""
    page = (ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8")
    return [plain(entry) for entry in re.findall(r"^- (.*?)(?=^\S|\Z)", page, flags=re.MULTILINE | re.DOTALL)]


def with_members(value: Any) -> list[Any]:
    """Return an object and, of a class, its methods and properties."""
    return [value, *(vars(value).values() if inspect.isclass(value) else ())]


def test_every_public_name_has_an_example():
    missing = {path for path, value in PUBLIC.items() if ">>>" not in sections(value.__doc__).get("Examples", "")}
    assert missing == WITHOUT_EXAMPLE


def test_public_functions_and_estimators_say_what_else_to_see():
    missing = {path for path, value in PUBLIC.items() if needs_see_also(value) and not see_also(value.__doc__)}
    assert missing == WITHOUT_SEE_ALSO


def test_names_to_see_are_public():
    unknown = [
        f"{path}: {name}"
        for path, value in PUBLIC.items()
        for member in with_members(value)
        for name in see_also(getattr(member, "__doc__", None))
        if reference().find_public(name, value.__module__) in {None, path}
    ]
    assert unknown == []


def test_references_are_entries_of_the_bibliography():
    entries = bibliography()
    unknown = [
        f"{path}: {text}"
        for path, value in PUBLIC.items()
        for text in map(plain, filter(None, sections(value.__doc__).get("References", "").split("\n\n")))
        if not any(entry.startswith(text.rstrip(".")) for entry in entries)
    ]
    assert unknown == []


def test_citations_are_in_the_bibliography():
    known = {(entry.split(" ", 1)[0], year) for entry in bibliography() for year in re.findall(r"\((\d{4})\)", entry)}
    unknown = []
    for file in sorted((ROOT / "december_plugin").rglob("*.py")):
        text = re.sub(r"\s*\n\s*#?\s*", " ", file.read_text(encoding="utf-8"))
        cited = {match.groups() for match in CITATION.finditer(text)}
        unknown += [f"{file.relative_to(ROOT)}: {' '.join(citation)}" for citation in sorted(cited - known)]
    assert unknown == []

"""The answer of a study as text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from december_plugin.answer.data import StudyData
from december_plugin.clustering.methods import METHODS
from december_plugin.findings.left_out import left_out_notes
from december_plugin.findings.verdict import Answer
from december_plugin.text.formatting import listed

WIDTH = 100
ABSENT = "-"


def study_summary(study: StudyData, found: Answer) -> str:
    """Return the verdict, the evidence, and a table of the agreement by number of clusters and method."""
    head = f"{study.scope}, compared by {study.settings.vectors_in_words}"
    left_out = left_out_notes(study.agreement, many="models")
    parts = [head, *filter(None, [left_out]), _wrapped(found.headline), *_tables(study), *_similarity(study)]
    parts += [_wrapped(f"{item.question.rstrip('?')}: {item.text}") for item in found.evidence]
    parts += [_wrapped(f"{row.label}: {row.statement}") for row in study.choices.itertuples()]
    return "\n\n".join(parts) + "\n"


def _tables(study: StudyData) -> list[str]:
    """Return the agreement: a table for methods that take the number of clusters, lines for those that find it."""
    if len(study.models) < 2:
        return ["One model: there is no agreement between models.", *_found(study)]
    given = [method for method in study.settings.methods if not study.settings.finds_count(method)]
    return [*([_table(study, given)] if given else []), *_found(study)]


def _cells(study: StudyData) -> dict[tuple[int, str], str]:
    """Return agreement and p value of every configuration, by number of clusters and method."""
    key = ["n_clusters", "method"]
    p_values = study.nulls.set_index(key)["p_value"]
    return {
        (row.n_clusters, row.method): _cell(
            row.agreement_mean, row.agreement_sd, p_values.get((row.n_clusters, row.method), math.nan)
        )
        for row in study.agreement.itertuples()
    }


def _found(study: StudyData) -> list[str]:
    """Return a line for each method that finds the number of clusters itself."""
    cells, lines = _cells(study), []
    for (method, _), reason in study.frames.computation.failed.items():
        lines.append(f"{METHODS[method].name}: no clusters. {reason}")
    for row in study.agreement.itertuples():
        if not row.identity.finds_count:
            continue
        own = study.clusterings[study.clusterings["method"] == row.method]
        found = listed([f"{count}" for count in own["n_clusters_found"]])
        without = (own["n_without_cluster"] / (study.models["n_neurons"].to_numpy())).mean()
        line = f"{METHODS[row.method].name} found {found} clusters; {without:.0%} of the neurons are without one"
        if len(study.models) > 1:
            line += f". Adjusted Rand index over those with one in both models: {cells[row.n_clusters, row.method]}"
        lines.append(f"{line}.")
    return [_wrapped(line) for line in lines]


def _table(study: StudyData, methods: Sequence[str]) -> str:
    """Return a row per number of clusters, with columns for the agreement and p value of every method."""
    cells = _cells(study)
    rows = [["K", *(METHODS[method].name for method in methods)]]
    for count in study.settings.n_clusters:
        rows.append([str(count), *(cells[count, method] for method in methods)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(["Adjusted Rand index between models (mean ± SD over pairs; p against surrogates):", *lines])


def _similarity(study: StudyData) -> list[str]:
    """Return how similar the embeddings are, over pairs of models."""
    cosines = study.similarity["cosine_correlation"].dropna()
    if cosines.empty:
        return []
    over = f"{cosines.mean():.2f}" + (f" ({cosines.min():.2f} to {cosines.max():.2f})" if len(cosines) > 1 else "")
    return [_wrapped(f"Correlation between models of the cosines between neurons: {over}.")]


def _cell(mean: float, sd: float, p_value: float) -> str:
    if not math.isfinite(mean):
        return ABSENT
    text = f"{mean:.2f}" + (f" ± {sd:.2f}" if math.isfinite(sd) else "")
    return text + (f", p {p_value:.3f}" if math.isfinite(p_value) else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)

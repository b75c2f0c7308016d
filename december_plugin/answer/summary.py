"""The answer of a study as text."""

from __future__ import annotations

import math
import textwrap

from december_plugin.answer.data import StudyData
from december_plugin.findings.verdict import Answer

WIDTH = 100
ABSENT = "-"


def study_summary(study: StudyData, found: Answer) -> str:
    """Return the verdict, the evidence, and a table of the agreement by number of clusters and method."""
    head = f"{study.scope}, compared by {study.settings.vectors_in_words}"
    parts = [head, _wrapped(found.headline), _table(study), *_similarity(study)]
    parts += [_wrapped(f"{item.question.rstrip('?')}: {item.text}") for item in found.evidence]
    parts += [_wrapped(f"{row.label}: {row.statement}") for row in study.choices.itertuples()]
    return "\n\n".join(parts) + "\n"


def _table(study: StudyData) -> str:
    """Return a row per number of clusters, the agreement of every method and its p value in a column each."""
    methods = {row.method: row.label for row in study.agreement.itertuples()}
    agreement = study.agreement.set_index(["n_clusters", "method"])["agreement_mean"]
    spread = study.agreement.set_index(["n_clusters", "method"])["agreement_sd"]
    p_values = study.nulls.set_index(["n_clusters", "method"])["p_value"]
    if agreement.isna().all():
        return "One model: there is no agreement between models."
    rows = [["K", *methods.values()]]
    for count in study.settings.n_clusters:
        cells = [
            _cell(agreement[count, method], spread[count, method], p_values.get((count, method), math.nan))
            for method in methods
        ]
        rows.append([str(count), *cells])
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

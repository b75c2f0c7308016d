"""Puts the page together: gives the templates what they need, and nothing that they could get wrong.

The file opens offline. It contains plotly.js once, as the whole bundle (4.8 MB) that comes with the Python package: a
smaller one would have to be kept up to date by hand, and our own chart library would have to repeat what makes the
t-SNE usable (zoom, hover, WebGL). A content security policy in the page forbids every request and every script except
the page's own, which are named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from december_plugin import __version__
from december_plugin.evaluation.similarity import SIMILARITIES
from december_plugin.findings.data import ReportData
from december_plugin.findings.selection import shown_clustering
from december_plugin.findings.verdict import overall
from december_plugin.report import tables
from december_plugin.report.methods_section import CITATIONS
from december_plugin.report.static import configurations_picture
from december_plugin.report.views import Payload, analysis_view
from december_plugin.security.redaction import known_secrets, redacted

TEMPLATES = "templates"


def render_report(data: ReportData) -> str:
    """Return the report as HTML; the same data give the same text.

    Parameters
    ----------
    data
        What the report says.

    Returns
    -------
    str
        One page that opens offline.

    See Also
    --------
    december_plugin.answer.Study.write_report : Writes the report of a study without a database.
    december_plugin.results.collect_report : Reads a report's data from a lab.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.answer import study_readouts
    >>> from december_plugin.report import render_report
    >>> rng = np.random.default_rng(0)
    >>> types = np.repeat([0, 1, 2], 20)
    >>> models = [rng.normal(size=(60, 4)) + 6 * np.eye(3, 4)[types] for _ in range(2)]
    >>> study = study_readouts(models, n_clusters=3, methods="kmeans", null_draws=0, tsne=False)
    >>> page = render_report(study.report_data(title="Retina"))
    >>> "<h1>Retina</h1>" in page, [line.strip() for line in page.splitlines() if "<h2>" in line][:2]
    (True, ['<h2>The question</h2>', '<h2>The answer</h2>'])
    """
    payload = Payload()
    analyses = [analysis_view(number, each, data, payload) for number, each in enumerate(data.analyses, 1)]
    secrets = frozenset(known_secrets())  # looking for them is slow, and a table of hundreds of methods has many texts
    environment = _environment(secrets)
    plotly, script = _plotly(), _resource("report.js")
    content = _json_for_html({"charts": payload.figures, "embeddings": payload.embeddings})
    body = environment.get_template("report.html.j2").render(
        data=data,
        version=__version__,
        created=data.created.strftime("%Y-%m-%d %H:%M %Z"),
        analyses=analyses,
        overall=overall([view["answer"] for view in analyses]) if len(analyses) > 1 else None,
        citations=CITATIONS,
        configurations=_configurations(data),
        provenance=_provenance(data),
        policy=_policy(plotly, script),
        style=Markup(_resource("report.css")),
        has_embeddings=bool(payload.embeddings),
    )
    return _filled(body, {"PLOTLY": plotly, "DATA": redacted(content, secrets=secrets), "SCRIPT": script})


def _filled(body: str, parts: Mapping[str, str]) -> str:
    """Replace the comments ``<!--december:NAME-->``, which no text of the database can hold unescaped."""
    for name, text in parts.items():
        head, mark, tail = body.partition(f"<!--december:{name}-->")
        assert mark, name
        body = head + text + tail
    return body


def _environment(secrets: frozenset[str]) -> jinja2.Environment:
    loader = jinja2.DictLoader(
        {name: _resource(name) for name in ("report.html.j2", "parts.html.j2", "analysis.html.j2")}
    )
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=partial(_without_secrets, secrets=secrets),
    )
    environment.filters["text"] = tables.as_text
    environment.filters["code"] = partial(_with_code, secrets=secrets)
    return environment


def _with_code(text: str, *, secrets: frozenset[str]) -> Markup:
    """Return a text in which what is between backticks is marked as code; everything is escaped."""
    parts = [Markup.escape(redacted(part, secrets=secrets)) for part in str(text).split("`")]
    return Markup("").join(Markup("<code>%s</code>") % part if i % 2 else part for i, part in enumerate(parts))


def _without_secrets(value: Any, *, secrets: frozenset[str]) -> Any:
    """Redact a text before it is escaped; markup is our own."""
    return redacted(value, secrets=secrets) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _resource(name: str) -> str:
    return (files("december_plugin.report") / TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _json_for_html(value: Any) -> str:
    """Return JSON that can be put inside a script element: nothing in it ends the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(*scripts: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # plotly.js compiles its WebGL drawing functions, and writes style attributes.
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


# --- the rest ------------------------------------------------------------------------------------------------------


def _configurations(data: ReportData) -> dict[str, Any] | None:
    """Return the section across models, or across the seeds of a single one; None if nothing is compared."""
    pairs = data.configurations
    if pairs.empty:
        return None
    across = bool((pairs["name_a"] != pairs["name_b"]).any())
    if not across and pairs[list(SIMILARITIES)].isna().all(axis=None):
        return None  # the agreement between seeds is in the page anyway
    rows, title = shown_clustering(pairs) if across else (pairs, "")
    return {
        "across": across,
        "heading": "Across models" if across else "Embeddings across seeds",
        "title": title,
        "picture": configurations_picture(rows, title) if across else None,
        "table": tables.configurations_table_of(pairs),
    }


def _provenance(data: ReportData) -> dict[str, Any]:
    trainings = [
        *(tables.Column("dataset", "dataset_hash"), tables.Column("model", "model_hash")),
        *(tables.Column("trainer", "trainer_hash"), tables.Column("seed", "seed", "integer")),
        *(tables.Column("role", "trainer_role"), tables.Column("strength", "strength", "small")),
        tables.Column("validation correlation", "validation_correlation", "number"),
        tables.Column("test correlation", "test_correlation", "number"),
        *(tables.Column("epochs", "n_epochs", "integer"), tables.Column("best epoch", "best_epoch", "integer")),
        *(tables.Column("ended by", "stopped_by"), tables.Column("stored", "trained")),
    ]
    progress = [tables.Column(name, name, "text" if name == "table" else "integer") for name in data.progress.columns]
    failures = [tables.Column(name, name) for name in ("table", "count", "reason", "example", "job")]
    entries = [tables.Column(name, name) for name in ("kind", "fn", "comment", "hash", "config")]
    versions = [tables.Column(name, name) for name in ("package", "version", "n_models")]
    models = [
        *(tables.Column("name", "name"), tables.Column("source", "source")),
        *(tables.Column("neurons", "n_neurons", "integer"), tables.Column("features", "n_features", "integer")),
    ]
    here = pd.DataFrame({"package": list(data.versions), "version": list(data.versions.values())})
    known = data.known_types.copy()
    if len(known):
        known["types"] = [", ".join(map(str, names)) for names in known["type_names"]]
    types = [
        *(tables.Column("name", "types_name"), tables.Column("source", "source"), tables.Column("version", "version")),
        *(tables.Column("types", "types"), tables.Column("neurons", "n_neurons", "integer")),
        tables.Column("stored", "inserted"),
    ]
    return {
        "trainings": tables.make_table(data.trainings, "Trained models", trainings),
        "progress": tables.make_table(data.progress, "Entries of the tables", progress),
        "failures": tables.make_table(data.failures, "Failures by reason", failures) if len(data.failures) else None,
        "entries": tables.make_table(data.entries, "Entries and their settings", entries),
        "models": tables.make_table(data.models, "Models", models) if len(data.models) else None,
        "here": tables.make_table(here, "Packages where this report was made", versions[:2]),
        "trained_with": tables.make_table(data.training_versions, "Packages of the trainings", versions)
        if len(data.training_versions)
        else None,
        "types": tables.make_table(known, "Known types", types) if len(known) else None,
    }

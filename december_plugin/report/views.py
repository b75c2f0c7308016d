"""What the page shows of one dataset and model, section by section, for its template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.model_selection import CRITERIA, Criterion
from december_plugin.findings.alignments import alignment_comparisons, alignment_evidence
from december_plugin.findings.data import Analysis, Embedding, ReportData, SelectedConfiguration, whose_clusters
from december_plugin.findings.left_out import left_out_notes
from december_plugin.findings.verdict import Answer, answer, resampled_words, shown_warnings
from december_plugin.plots.shown import OTHERS_COLOR, ShownMethods
from december_plugin.plots.style import MethodStyle, group_colors
from december_plugin.report import charts, static, tables
from december_plugin.report.cluster_colours import cluster_colors
from december_plugin.report.explorer import embedding_payload, embedding_words
from december_plugin.report.image_tiles import images_tile, island_tile
from december_plugin.report.methods_section import counts_in_words, methods_in_words
from december_plugin.report.null_panels import null_figure_of
from december_plugin.report.swatches import line_swatch, swatch
from december_plugin.text.formatting import numbered

MOST_SHOWN_CLUSTERS = 200  # of one configuration, one by one
MOST_TILES = 100  # clusters whose images are shown: 10 to 30 kB each
# Name of a section, and its entry in the menu.
SECTIONS = (
    ("answer", "Answer"),
    ("data", "Data"),
    ("agreement", "Agreement"),
    ("null", "Null"),
    ("count", "How many?"),
    ("strength", "Strength"),
    ("rotation", "Alignment"),
    ("tsne", "t-SNE"),
    ("types", "Known types"),
    ("clusters", "Clusters"),
    ("functions", "What they compute"),
    ("preferred", "Preferred stimuli"),
    ("methods", "Methods"),
)
# Sections that are left out unless they were computed.
ONLY_WHERE_COMPUTED = ("rotation", "functions", "preferred")


@dataclass
class Payload:
    """What the page's script draws: charts and embeddings by their ids."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    embeddings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def chart(self, chart: charts.Chart | None) -> dict[str, Any] | None:
        """Add a chart and return what the template needs of it."""
        if chart is None:
            return None
        name = f"chart-{len(self.figures) + 1}"
        self.figures[name] = chart.to_json()
        return {"id": name, "title": chart.title, "alt": chart.alt, "height": chart.layout.height}


def analysis_view(number: int, analysis: Analysis, data: ReportData, payload: Payload) -> dict[str, Any]:
    """Return what the template of an analysis needs; charts and embeddings go into the payload."""
    shown = charts.methods_of(analysis.agreement)
    found = answer(analysis)
    view = {
        "id": f"a{number}",
        "number": number,
        "analysis": analysis,
        "models": list(data.models["name"]) if len(data.models) else [],
        "answer": found,
        "shown_warnings": shown_warnings(analysis),
        "methods": methods_in_words(analysis, data.entries),
        "sessions": tables.sessions_table_of(analysis),
        "performance": tables.performance_table_of(analysis),
        "tested": tables.tested_words(analysis),
        "legend": _legend(shown),
        "agreement": _agreement_view(analysis, shown, payload),
        "null": _null_view(analysis),
        "counts": _counts_view(analysis, shown, payload),
        "tree": _tree_view(analysis),
        "strength": _strength_view(analysis, payload),
        "has_december": bool((analysis.agreement["method"] == "december").any()),
        "comparisons": _comparisons_view(found),
        "embedding": embedding_view(f"embedding-{number}", analysis, payload),
        "confusions": _confusions_view(analysis, payload),
        "clusters": _clusters_view(analysis, payload),
        "rotation": _rotation_view(analysis),
        "functions": _functions_view(analysis),
        "preferred": _preferred_view(analysis),
    }
    hidden = {name for name in ONLY_WHERE_COMPUTED if view[name] is None}
    if not analysis.wording.trains:
        hidden.add("strength")
    return {**view, "sections": [(name, head) for name, head in SECTIONS if name not in hidden]}


def _legend(shown: ShownMethods) -> list[dict[str, Any]]:
    entries = [{"label": label, "swatch": Markup(swatch(style))} for label, style in shown.styles.items()]
    if shown.others:
        entries.append({"label": shown.others_label, "swatch": Markup(line_swatch(OTHERS_COLOR))})
    return entries


def _agreement_view(analysis: Analysis, shown: ShownMethods, payload: Payload) -> dict[str, Any]:
    table, wording = analysis.agreement, analysis.wording
    known = f"Agreement with known types ({analysis.types_name})"
    curves = (
        charts.Curve("agreement", wording.between, f"ARI between {wording.many}", wording.pairs),
        charts.Curve("types_agreement", known, "ARI to known types", "models"),
        charts.Curve(
            *("test_correlation", "Predictive performance", "test correlation", "models"),
            mark_types=False,
            of_models=True,
        ),
    )
    found = [charts.curves_chart(table, curve, shown=shown, n_types=analysis.n_types) for curve in curves]
    return {
        "charts": [view for chart in found if (view := payload.chart(chart)) is not None],
        "picture": static.agreement_picture(analysis),
        "table": tables.agreement_table_of(analysis),
        "similarity": tables.similarity_table_of(analysis),
        "left_out": left_out_notes(table, many=wording.many),
        "has_agreement": bool(table["agreement_mean"].notna().any()),
    }


def _null_view(analysis: Analysis) -> dict[str, Any] | None:
    if analysis.nulls.empty:
        return None
    return {"figure": null_figure_of(analysis), "table": tables.null_table_of(analysis)}


def _tree_view(analysis: Analysis) -> dict[str, Any] | None:
    if analysis.tree is None or analysis.chosen is None:
        return None
    return {
        "label": analysis.chosen.label,
        "picture": static.tree_picture(analysis),
        "table": tables.nesting_table_of(analysis.tree.nesting),
    }


def _curve_of(criterion: Criterion) -> charts.Curve:
    if not criterion.of_one_model:
        return charts.Curve(criterion.curve, criterion.title, criterion.value, "draws")
    title, value = f"{criterion.title} ({criterion.direction})", f"{criterion.value} − curve's best"
    return charts.Curve(criterion.curve, title, value, over="models", best=criterion.best)


def _counts_view(analysis: Analysis, shown: ShownMethods, payload: Payload) -> dict[str, Any] | None:
    if analysis.counts.empty:
        return None
    # A single number of clusters per method leaves nothing to compare along a curve.
    criteria = CRITERIA if analysis.counts.groupby("label")["n_clusters"].nunique().max() > 1 else ()
    found = [charts.curves_chart(analysis.counts, _curve_of(criterion), shown=shown) for criterion in criteria]
    has_choices = not analysis.choices.empty
    return {
        "charts": [view for chart in found if (view := payload.chart(chart)) is not None],
        "picture": static.counts_picture(analysis),
        "table": tables.counts_table_of(analysis),
        "choices": tables.choices_table_of(analysis.choices) if has_choices else None,
        "words": counts_in_words(analysis.choices),
    }


def _strength_view(analysis: Analysis, payload: Payload) -> dict[str, Any] | None:
    found = charts.strength_charts(analysis.agreement)
    if not found:
        return None
    traces = found[0].traces
    legend = [{"label": trace.meta["label"], "swatch": Markup(swatch(_as_style(trace)))} for trace in traces]
    return {
        "charts": [payload.chart(chart) for chart in found],
        "legend": legend,
        "picture": static.strength_picture(analysis),
        "table": tables.strength_table_of(analysis.agreement),
    }


def _as_style(trace: Any) -> MethodStyle:
    markers = {symbol: marker for marker, symbol in charts.SYMBOLS.items()}
    return MethodStyle(trace.line.color, markers[trace.marker.symbol])


def _comparisons_view(found: Answer) -> tables.Table | None:
    return None if found.comparisons.empty else tables.comparisons_table_of(found.comparisons)


def _confusions_view(analysis: Analysis, payload: Payload) -> list[dict[str, Any]]:
    views = []
    for confusion in analysis.confusions:
        attrs = confusion.frame.attrs
        title = f"{confusion.title}, {whose_clusters(attrs, analysis.wording)}"
        views.append(
            {
                "title": title,
                "chart": payload.chart(charts.confusion_chart(confusion.frame, title=title)),
                "picture": static.confusion_picture(confusion.frame, title),
                "table": tables.confusion_table_of(confusion, analysis.wording),
                "accuracy": tables.as_text(attrs.get("accuracy"), "percent"),
                "n_seeds": attrs.get("n_seeds", 1),
                "n_unlabelled": tables.as_text(attrs.get("n_unlabelled"), "integer"),
            }
        )
    return views


def _clusters_view(analysis: Analysis, payload: Payload) -> dict[str, Any] | None:
    chosen = analysis.chosen
    if chosen is None:
        return None
    wording = analysis.wording
    clusters = tables.cluster_frame(chosen, cluster_colors(chosen))
    return {
        "chosen": chosen,
        "chart": payload.chart(charts.cluster_sizes_chart(clusters, n_seeds=chosen.n_seeds, many=wording.many)),
        "picture": static.consensus_picture(analysis),
        "table": tables.clusters_table_of(clusters, wording),
        "pages": [_cluster_page(chosen, row) for row in clusters.head(MOST_SHOWN_CLUSTERS).to_dict("records")],
        "n_clusters": len(clusters),
        "resampled": resampled_words(chosen),
        "n_without": int((chosen.neurons["cluster"] == NO_CLUSTER).sum()),
        "n_neurons": len(chosen.neurons),
    }


def _rotation_view(analysis: Analysis) -> dict[str, Any] | None:
    alignments, aligned = analysis.alignments, analysis.aligned
    if alignments.empty:
        return None
    comparisons = alignment_comparisons(analysis)
    return {
        "evidence": alignment_evidence(alignments, comparisons),
        "n_orientations": int(alignments["n_orientations"].max()),
        "picture": static.alignments_picture(alignments),
        "table": tables.alignments_table_of(alignments),
        "comparisons": tables.alignment_comparisons_table_of(comparisons, analysis) if len(comparisons) else None,
        "aligned": aligned,
        "readouts": None if aligned is None else static.aligned_readouts_picture(aligned),
        "centres": None if aligned is None or aligned.coordinates.empty else static.cluster_centres_picture(aligned),
    }


def _functions_view(analysis: Analysis) -> dict[str, Any] | None:
    functions = analysis.functions
    if functions is None:
        return None
    several = len(functions.clusters) > 1
    return {
        "functions": functions,
        "picture": static.cluster_confusion_picture(functions),
        "changes": static.block_changes_picture(functions) if several else None,
        "blocks": tables.blocks_table_of(functions),
        "table": tables.functions_table_of(analysis.functions_table),
    }


def _preferred_view(analysis: Analysis) -> dict[str, Any] | None:
    preferred = analysis.preferred
    if preferred is None:
        return None
    names = preferred.shown_clusters
    colors = group_colors(max(names) + 1)
    tiles = []
    for name in names[:MOST_TILES]:
        images, neurons = preferred.of(name)
        size, block = preferred.sizes.get(name, len(neurons)), preferred.blocks.get(name)
        tiles.append(
            {
                "cluster": name,
                "color": colors[name],
                "words": f"{numbered(size, 'neuron')}" + ("" if block is None else f", block {block}"),
                "images": images_tile(images, grey=preferred.grey),
                "alt": f"Maximally exciting images of {numbered(len(images), 'neuron')} of cluster {name}.",
                "island": island_tile(preferred.islands, name, colors[name]) if len(preferred.islands) else None,
            }
        )
    return {
        "preferred": preferred,
        "tiles": tiles,
        "n_more": len(names) - len(tiles),
        "table": tables.preferred_table_of(preferred),
        "confusion": static.mei_confusion_picture(preferred) if len(preferred.compared) else None,
    }


def _cluster_page(chosen: SelectedConfiguration, row: Mapping[str, Any]) -> dict[str, Any]:
    found = [tables.cluster_counts_by(chosen, row["code"], "data_key", "session", "Neurons by session")]
    if "type" in chosen.neurons and chosen.neurons["type"].notna().any():
        found.append(tables.cluster_counts_by(chosen, row["code"], "type", "known type", "Neurons by known type"))
    return {**row, "tables": found, "steadiest": _steadiest(chosen, row["code"])}


def _steadiest(chosen: SelectedConfiguration, code: int) -> list[dict[str, Any]]:
    """Return the neurons that are most certainly in a cluster: by stability, then by confidence."""
    members = chosen.neurons[chosen.neurons["cluster"] == code]
    by = [name for name in ("stability", "confidence") if name in members]
    return (
        members.sort_values([*by, "data_key", "unit_id"], ascending=[*[False] * len(by), True, True])
        .head(8)
        .to_dict("records")
    )


def embedding_view(name: str, analysis: Analysis, payload: Payload) -> dict[str, Any] | None:
    """Return what the section of the t-SNE needs; None if there is none."""
    chosen, embedding = analysis.chosen, analysis.embedding
    if chosen is None or embedding is None:
        return None
    payload.embeddings[name] = embedding_payload(chosen, embedding)
    numbers = payload.embeddings[name]
    return {
        "id": name,
        "words": embedding_words(embedding, analysis.wording),
        "picture": static.embedding_picture(analysis),
        "sessions": numbers["sessions"],
        "clusters": [{"code": code, "name": f"{code}", "color": color} for code, color in enumerate(numbers["colors"])],
        "has_stability": "stability" in numbers,
        "has_confidence": "confidence" in numbers,
        "has_types": "types" in numbers,
        "label": chosen.label,
        "chosen": chosen,
        "example": _example(embedding),
        "unit_word": "unit id" if chosen.from_recording else "position in the session",
    }


def _example(embedding: Embedding) -> str:
    """Return what can be searched for, with a neuron that is there."""
    first = embedding.neurons.iloc[0]
    return f"{first['unit_id']} or {first['data_key']}/{first['unit_id']}"

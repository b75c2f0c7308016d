"""The numbers of a t-SNE that can be zoomed, filtered and searched, as the page's script reads them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.findings.data import Embedding, SelectedConfiguration
from december_plugin.findings.wording import SEEDS, Wording
from december_plugin.plots.style import group_colors, natural_order
from december_plugin.report.charts import plotly_text
from december_plugin.report.cluster_colours import cluster_colors, type_colors


def embedding_words(embedding: Embedding, wording: Wording) -> str:
    """Return how the t-SNE was made."""
    n = len(embedding.neurons)
    drawn = "all" if n == embedding.n_neurons else f"{n:,} of {embedding.n_neurons:,}"
    whose = f"the model with seed {embedding.seed}" if wording.one == SEEDS.one else f"the model {embedding.seed}"
    return (
        f"t-SNE of the {embedding.vectors} of {drawn} neurons of {whose} (at most "
        f"{embedding.max_per_session:,} per session, drawn with a fixed seed; perplexity {embedding.perplexity:.3g}). "
        "Distances between groups and their sizes in a t-SNE mean nothing, and a continuum can look clustered."
    )


def embedding_payload(chosen: SelectedConfiguration, embedding: Embedding) -> dict[str, Any]:
    """Return the numbers of a t-SNE as the page's script reads them: arrays as base64 of their bytes."""
    neurons = embedding.neurons.merge(chosen.neurons, on=["data_key", "unit_id"], how="left")
    sessions = sorted(set(neurons["data_key"]), key=str)
    position = {name: i for i, name in enumerate(sessions)}
    clusters = neurons["cluster"].fillna(-1).astype(int)
    units = neurons["unit_id"].to_numpy()
    fits = np.abs(units).max() < 2**31
    payload: dict[str, Any] = {
        "label": plotly_text(chosen.label),
        "x": _packed(neurons["x"], "<f4"),
        "y": _packed(neurons["y"], "<f4"),
        "unit": _packed(units, "<i4" if fits else "<f8"),
        "session": _packed(neurons["data_key"].map(position), "<i2"),
        "sessions": [str(name) for name in sessions],
        "cluster": _packed(clusters, "<i2"),
        "colors": cluster_colors(chosen),
        "sessionColors": group_colors(len(sessions)),
    }
    for column in ("stability", "confidence"):
        if column in neurons and neurons[column].notna().any():
            payload[column] = _packed(neurons[column].fillna(-1), "<f4")
    if "type" in neurons and neurons["type"].notna().any():
        payload |= _types_payload(neurons["type"], type_colors(chosen))
    return payload


def _types_payload(types: pd.Series, colors: Mapping[str, str]) -> dict[str, Any]:
    names = sorted({str(name) for name in types.dropna()}, key=natural_order)
    position = {name: i for i, name in enumerate(names)}
    codes = [-1 if pd.isna(name) else position[str(name)] for name in types]
    return {"type": _packed(codes, "<i2"), "types": names, "typeColors": [colors[name] for name in names]}


def _packed(values: Any, dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "bytes": base64.b64encode(np.asarray(values).astype(dtype).tobytes()).decode()}

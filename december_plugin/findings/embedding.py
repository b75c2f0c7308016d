"""The t-SNE that a report shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.tsne import tsne_coordinates, tsne_settings
from december_plugin.findings.data import Embedding
from december_plugin.plots.embedding import drawn_neurons

TSNE_SEED = 0  # as december_plugin.plots.embedding_figure: the same neurons in every picture


def drawn_embedding(
    vectors: np.ndarray,
    neurons: pd.DataFrame,
    *,
    seed: Any,
    what: str = "readout vectors",
    max_per_session: int = 2000,
    log: Callable[[str], None] = lambda text: None,
) -> Embedding:
    """Return the t-SNE of a limited number of neurons of each session.

    Parameters
    ----------
    vectors
        (N, D).
    neurons
        One row for each of them: ``data_key`` and ``unit_id``.
    seed
        Seed of the model, or its name.
    what
        What the vectors are, in words.
    max_per_session
        Most neurons of one session.
    log
        Called with a line of text before the t-SNE, which takes long.
    """
    drawn = drawn_neurons(
        len(vectors),
        sessions=neurons["data_key"].to_numpy(),
        max_neurons_per_session=max_per_session,
        seed=TSNE_SEED,
    )
    log(f"t-SNE of {len(drawn):,} {what}")
    frame = neurons.iloc[drawn][["data_key", "unit_id"]].reset_index(drop=True)
    frame["x"], frame["y"] = tsne_coordinates(vectors[drawn], seed=TSNE_SEED).T
    return Embedding(
        neurons=frame,
        seed=seed,
        n_neurons=len(vectors),
        perplexity=tsne_settings(len(drawn)).perplexity,
        max_per_session=max_per_session,
        vectors=what,
    )

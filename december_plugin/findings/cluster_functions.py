"""What a report says about clusters that compute the same thing, and about what they prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.evaluation.cluster_functions import ClusterBlocks
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.text.formatting import listed, numbered

MOST_UNFINISHED = 0.1  # share of the images up to which there is no warning
MOST_NAMED = 6  # clusters of a block, or blocks, in a sentence


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FunctionalBlocks(ArrayRepr):
    """Which clusters of one model respond alike.

    Attributes
    ----------
    responses
        "linear", or "images": as the model predicts them for the stimuli of its training tier.
    n_orientations
        Orientations over which correlations are maximized; 1 unless the core is rotation-equivariant.
    n_images
        Number of stimuli; None if unknown.
    clusters
        The clusters that have neurons, (K,) int64.
    sizes
        Their neurons, (K,) int64.
    correlations
        Between their responses, (K, K) float64.
    blocks
        Blocks of positions in ``clusters``, with the tree by which they are merged: ``next_merges`` and ``last_splits``
        are those closest to the threshold.
    title
        Whose clusters they are: method, K and seed; "" before they are shown.
    """

    responses: str
    n_orientations: int
    n_images: int | None
    clusters: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    correlations: npt.NDArray[np.float64]
    blocks: ClusterBlocks
    title: str = ""

    @property
    def block_of(self) -> dict[int, int]:
        """Block by cluster."""
        return {int(name): int(block) for name, block in zip(self.clusters, self.blocks.labels, strict=True)}

    @property
    def members(self) -> list[list[int]]:
        """The clusters of each block, in the order of the tree."""
        ordered: list[list[int]] = [[] for _ in range(self.blocks.n_blocks)]
        for at in self.blocks.order:
            ordered[self.blocks.labels[at]].append(int(self.clusters[at]))
        return ordered

    @property
    def words(self) -> str:
        """What was found, in sentences."""
        n, found = len(self.clusters), self.blocks.n_blocks
        several = [sorted(block) for block in self.members if len(block) > 1]
        if not several:
            return (
                f"No two of the {numbered(n, 'cluster')} respond alike at a mean correlation of "
                f"{self.blocks.threshold:g}: each computes something different."
            )
        text = f"The {numbered(n, 'cluster')} make {numbered(found, 'block')} at a mean correlation of "
        text += f"{self.blocks.threshold:g}. "
        if len(several) <= MOST_NAMED:
            text += f"Clusters that respond alike: {'; '.join(_named(block) for block in several)}. "
        else:
            text += f"{len(several)} of the blocks have several clusters. "
        return text + self._near()

    def _near(self) -> str:
        """Return how far the threshold is from the next merge and the last one."""
        merges, splits = self.blocks.next_merges(1), self.blocks.last_splits(1)
        parts = []
        if len(splits):
            parts.append(f"the last merge was at {splits['correlation'].iloc[0]:.2f}")
        if len(merges):
            parts.append(f"the next one would be at {merges['correlation'].iloc[0]:.2f}")
        return f"{listed(parts).capitalize()}: the wider the gap, the less the threshold matters." if parts else ""


def _named(block: Sequence[int]) -> str:
    if len(block) <= MOST_NAMED:
        return listed([str(name) for name in block])
    return f"{', '.join(map(str, block[: MOST_NAMED - 1]))} and {len(block) - MOST_NAMED + 1} more"


@dataclass(frozen=True, eq=False)
class PreferredImages:
    """Maximally exciting images of neurons of every cluster of one model, and responses to each other's.

    Attributes
    ----------
    title
        Whose clusters they are: method, K and seed.
    neurons
        One row per image: ``cluster``, ``test_correlation``, ``response``, ``ending``; the best predicted first within
        each cluster.
    images
        (N, channels, height, width), or clips (N, channels, frames, height, width).
    grey
        The value of an empty pixel.
    norm
        L2 norm of the images about grey.
    n_models
        Number of models whose mean response they maximize.
    sizes
        Number of neurons by cluster.
    islands
        t-SNE coordinates of neurons, ``x`` and ``y``, with their ``cluster``; empty if unknown.
    blocks
        Block by cluster; empty if unknown.
    compared
        ``cluster`` of the neurons of ``responses``; empty if none are compared.
    responses
        (M, M): row i, column j is the response of neuron j to the image of neuron i, relative to its response to its
        own image.
    outcome
        Why no responses are compared; "" if they are, or were not requested.
    """

    title: str
    neurons: pd.DataFrame
    images: npt.NDArray[np.float32]
    grey: float
    norm: float
    n_models: int
    sizes: dict[int, int]
    islands: pd.DataFrame
    blocks: dict[int, int]
    compared: pd.DataFrame
    responses: npt.NDArray[np.float64]
    outcome: str = ""

    @property
    def shown_clusters(self) -> list[int]:
        """The clusters that have images, by block and number."""
        names = sorted({int(name) for name in self.neurons["cluster"]})
        return sorted(names, key=lambda name: (self.blocks.get(name, -1), name))

    def of(self, cluster: int) -> tuple[npt.NDArray[Any], pd.DataFrame]:
        """Return images and rows of a cluster."""
        own = (self.neurons["cluster"] == cluster).to_numpy()
        return self.images[own], self.neurons[own]

    @property
    def warning(self) -> str:
        """A sentence that many images are not the best ones; "" if few are."""
        n, ended = len(self.neurons), int((self.neurons["ending"] != "converged").sum())
        if ended <= MOST_UNFINISHED * n:
            return ""
        return (
            f"For {ended:,} of {n:,} images the ascent ended before it had converged: they are not the best ones. More "
            "`max_steps` would help."
        )

    @property
    def comparison_words(self) -> str:
        """How strongly neurons respond to each other's images, in a sentence; "" if none are compared."""
        if not len(self.compared):
            return ""
        clusters = self.compared["cluster"].to_numpy()
        same = clusters[:, None] == clusters
        own, parts = np.eye(len(clusters), dtype=bool), []
        for mask, words in ((same & ~own, "of its own cluster"), (~same, "of other clusters")):
            if mask.any():
                parts.append(f"{self.responses[mask].mean():.2f} to images of neurons {words}")
        if not parts:
            return ""
        count = f"{len(clusters):,} well-predicted neurons"
        return f"Of {count}, a neuron responds on average with {listed(parts)}, where its own image gives 1."

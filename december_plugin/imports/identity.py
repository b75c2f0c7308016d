"""Whether two sources of readout vectors can be of the same neurons."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.errors import EmbeddingError

MOST_NAMED = 3
GRID = "source_grid"  # of neuralpredictors' readouts: cortical positions, from which the receptive fields are predicted


def check_same_neurons(first: ReadoutEmbeddings, other: ReadoutEmbeddings, *, names: tuple[str, str]) -> None:
    """Raise an :class:`EmbeddingError` unless two sources can be of the same neurons.

    With unit ids, they must name the same neurons, in any order. For neurons that are known only by position, only the
    names of their sessions and the numbers of neurons can be checked.

    Parameters
    ----------
    first, other
        The sources.
    names
        Their names in messages.

    See Also
    --------
    read_readouts : Reads what is compared.
    read_units : Reads who the neurons are.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.imports import check_same_neurons, read_readouts
    >>> first, second = (read_readouts(np.random.default_rng(seed).normal(size=(10, 4))) for seed in (1, 2))
    >>> check_same_neurons(first, second, names=("seed 1", "seed 2"))  # no error: as many neurons
    """
    cannot = f"{names[1]} cannot be of the same neurons as {names[0]}: "
    counts = [{key: own.stop - own.start for key, own in each.sessions.items()} for each in (first, other)]
    for data_key in sorted(counts[0].keys() | counts[1].keys()):
        here = [count.get(data_key) for count in counts]
        if None in here:
            has = names[0] if here[1] is None else names[1]
            raise EmbeddingError(f"{cannot}only {has} has the session {data_key!r}.")
        if here[0] != here[1]:
            raise EmbeddingError(f"{cannot}session {data_key!r} has {here[0]} neurons there and {here[1]} here.")
    if (first.unit_ids is None) != (other.unit_ids is None):
        has = names[0] if other.unit_ids is None else names[1]
        raise EmbeddingError(
            f"only {has} has unit ids, so its neurons cannot be matched to those of the other. Give unit ids for both, "
            "or for none."
        )
    if first.unit_ids is None or other.unit_ids is None:
        return
    for data_key, own in first.sessions.items():
        left = np.setdiff1d(first.unit_ids[own], other.unit_ids[other.sessions[data_key]])
        if len(left):
            named = ", ".join(map(str, left[:MOST_NAMED].tolist())) + (", ..." if len(left) > MOST_NAMED else "")
            raise EmbeddingError(
                f"{cannot}{len(left)} of the {own.stop - own.start} neurons of session {data_key!r} are missing here "
                f"(unit ids {named})."
            )


def check_same_grid(first: Mapping[str, Any], other: Mapping[str, Any], *, names: tuple[str, str]) -> None:
    """Raise an :class:`EmbeddingError` if state dicts have different cortical positions for neurons."""
    for key, grid in first.items():
        theirs = other.get(key)
        if not key.endswith(f".{GRID}") or not isinstance(grid, torch.Tensor) or not isinstance(theirs, torch.Tensor):
            continue
        if grid.shape != theirs.shape or not torch.equal(grid, theirs.to(grid.dtype)):
            raise EmbeddingError(
                f"{names[1]} cannot be of the same neurons as {names[0]}, or has them in another order: they have "
                f"other cortical positions ({key}). Import them as different recordings, or give unit ids."
            )


def neurons_digest(embeddings: ReadoutEmbeddings) -> dict[str, list[Any]]:
    """Return what identifies the neurons of each session: their number, and a digest of their sorted unit ids.

    Returns
    -------
    dict of str to list
        Data key, in ascending order, to ``[n, md5]``; the digest is "" for neurons that are known only by position.
    """
    digests: dict[str, list[Any]] = {}
    for data_key, own in sorted(embeddings.sessions.items()):
        digest = ""
        if embeddings.unit_ids is not None:
            ids = np.sort(embeddings.unit_ids[own]).astype("<i8")
            digest = hashlib.md5(ids.tobytes(), usedforsecurity=False).hexdigest()
        digests[data_key] = [own.stop - own.start, digest]
    return digests

"""Extracts readout vectors and neuron identities from any core-readout model or its state dict.

The readout vector ``w_i`` of a neuron holds the weights with which it combines the channels of the core's output. The
names and shapes of a readout's vectors depend on its class; everything that knows about them is in this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from december_plugin.embeddings.neuron_ids import NeuronIds, repeated_ids, whole_numbers
from december_plugin.errors import EmbeddingError
from december_plugin.text.array_repr import ArrayRepr

IN_STATE_DICT = re.compile(r"(?P<prefix>(?:.+?\.)?)readout\.(?P<data_key>[^.]+)\.(?P<name>.+)")
# What a readout has in addition to two-dimensional features, and the order of their axes then.
NEURONS_FIRST = ("spatial", "attention")  # factorized, attention
FEATURES_FIRST = ("log_var", "mask_weights")  # deterministic Gaussian, openretina's factorized
STORED_FEATURES = ("_features", "features", "feature_weights", "readout_weights")
CUSTOM = "A readout class can define `embedding_vectors()`, which returns its readout vectors (neurons, features)."


@dataclass(frozen=True, eq=False, repr=False)
class ReadoutEmbeddings(ArrayRepr):
    """Readout vectors of all sessions of a model, with the identity of every neuron.

    Attributes
    ----------
    vectors
        Readout vectors (N, D), in the precision of the model (float32 or float64), in units of the readout weights.
        Sessions are concatenated in the order of the model's readout.
    data_keys
        Session of every neuron, (N,) str.
    unit_positions
        Position within its session in the model, (N,) int64.
    unit_ids
        Unit id within its session, (N,) int64; None if unknown.
    """

    vectors: np.ndarray
    data_keys: np.ndarray
    unit_positions: np.ndarray
    unit_ids: np.ndarray | None

    @property
    def sessions(self) -> dict[str, slice]:
        """Rows of ``vectors`` that belong to each session, by data key."""
        # Not where positions are 0: the first neuron of a session may have been left out.
        starts = np.flatnonzero(np.append(True, self.data_keys[1:] != self.data_keys[:-1])[: len(self.data_keys)])
        stops = np.append(starts[1:], len(self.data_keys))
        return {
            str(self.data_keys[start]): slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)
        }

    @property
    def neuron_ids(self) -> NeuronIds:
        """Identities for :mod:`december_plugin.evaluation.agreement`; a SettingsError if there are no unit ids."""
        return NeuronIds.of(self)

    def take(self, kept: np.ndarray) -> ReadoutEmbeddings:
        """Return some of the neurons, by a mask (N,) or their ascending rows; sessions without any are left out."""
        return ReadoutEmbeddings(
            vectors=self.vectors[kept],
            data_keys=self.data_keys[kept],
            unit_positions=self.unit_positions[kept],
            unit_ids=None if self.unit_ids is None else self.unit_ids[kept],
        )

    def __len__(self) -> int:
        return len(self.vectors)


def readout_vectors(readout: nn.Module) -> Tensor:
    """Return the readout vectors of one session, on the autograd graph.

    Parameters
    ----------
    readout
        A session's readout. Known are: a method ``embedding_vectors()``, for classes of other packages;
        neuralpredictors' ``ClonedReadout``, whose vectors are those of its source times the neuron's gain ``alpha``;
        and an attribute ``features`` of shape (1, D, 1, n), as in neuralpredictors' Gaussian, pooling and pyramid
        readouts, (n, D), as in its attention and factorized ones, or (D, n), as in its deterministic Gaussian one; or
        ``feature_weights`` (D, n), as in openretina's factorized readout.
        Those classes are distinguished by their other parameters, so that n may equal D; features (n, D) or (D, n) of
        another class are recognised by the number of neurons (``outdims``, or the length of ``bias``), and an error if
        both axes have it. Shared features are those after sharing and scaling.

    Returns
    -------
    Tensor
        Vectors (n, D).

    Raises
    ------
    EmbeddingError
        If the readout has no such features, or features of another shape.
    """
    name = type(readout).__name__
    if hasattr(readout, "embedding_vectors"):
        vectors = readout.embedding_vectors()  # type: ignore[operator]
        if not isinstance(vectors, Tensor) or vectors.ndim != 2:
            found = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
            raise EmbeddingError(
                f"{name}.embedding_vectors() returned {found}; it must return a tensor (neurons, features)."
            )
        return vectors
    source = getattr(readout, "_source", None)
    if isinstance(source, nn.Module):
        return _cloned(readout_vectors(source), getattr(readout, "alpha", None), name)
    features = getattr(readout, "features", getattr(readout, "feature_weights", None))
    if not isinstance(features, Tensor):
        raise EmbeddingError(f"{name} has no features: its readout vectors cannot be found. {CUSTOM}")
    bias = getattr(readout, "bias", None)
    n_neurons = getattr(readout, "outdims", len(bias) if isinstance(bias, Tensor) else None)
    channels = getattr(readout, "in_shape", (None,))[0]
    entries = (name for name, _ in readout.named_parameters())
    return _as_rows(features, name, entries, n_neurons=n_neurons, channels=channels)


def stack_readout_vectors(model: nn.Module) -> Tensor:
    """Return the readout vectors of all sessions of a model, on the autograd graph.

    Parameters
    ----------
    model
        Has ``readout``, an ``nn.ModuleDict`` of data key to the session's readout.

    Returns
    -------
    Tensor
        ``W`` (N, D), the sessions in the order of ``model.readout``.

    Raises
    ------
    EmbeddingError
        If the model has no such readout, or its sessions have different numbers of features.
    """
    return torch.cat(list(_same_width(_vectors_of_model(model)).values()))


def readout_embeddings(
    model_or_state_dict: nn.Module | Mapping[str, Any], *, unit_ids: Mapping[str, Any] | None = None
) -> ReadoutEmbeddings:
    """Return the readout vectors of all sessions, with the identities of their neurons.

    Parameters
    ----------
    model_or_state_dict
        A model (see :func:`stack_readout_vectors`) or its state dict, of which the entries
        ``readout.<data key>.<name>`` are read; a common prefix, such as that of ``DataParallel``, is allowed. A readout
        class that defines ``embedding_vectors()`` needs the model.
    unit_ids
        Data key to unit ids (n,), as :func:`unit_ids_of` returns them. None, or no entry at all, leaves them unknown.

    Returns
    -------
    ReadoutEmbeddings
        Copies: they do not change with the model.

    Raises
    ------
    EmbeddingError
        If there are no readout vectors, their shape is not clear, or the unit ids do not belong to them.

    See Also
    --------
    functional_embeddings : Vectors whose distances are differences of predicted drives.
    december_plugin.clustering.cluster_readouts : Clusters them.

    Examples
    --------
    >>> from december_plugin.embeddings import readout_embeddings
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> embeddings = readout_embeddings(model.state_dict(), unit_ids={"1-1-1": [3, 5, 8, 13, 21]})
    >>> embeddings.vectors.shape, embeddings.sessions
    ((5, 4), {'1-1-1': slice(0, 5, None)})
    """
    if isinstance(model_or_state_dict, nn.Module):
        sessions = _vectors_of_model(model_or_state_dict)
    elif isinstance(model_or_state_dict, Mapping):
        sessions = _vectors_of_state_dict(model_or_state_dict)
    else:
        raise EmbeddingError(
            f"readout vectors are read from a model or its state dict, not from {type(model_or_state_dict).__name__}."
        )
    counts = [len(vectors) for vectors in _same_width(sessions).values()]
    return ReadoutEmbeddings(
        vectors=_as_array(torch.cat([vectors.detach().cpu() for vectors in sessions.values()])),
        data_keys=np.repeat(np.array(list(sessions), dtype=str), counts),
        unit_positions=np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        unit_ids=_stacked_unit_ids(sessions, unit_ids) if unit_ids else None,
    )


def _as_array(vectors: Tensor) -> np.ndarray:
    return (vectors if vectors.dtype == torch.float64 else vectors.float()).contiguous().numpy()


def unit_ids_of(dataloaders: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the unit ids that the datasets behind data loaders know.

    Parameters
    ----------
    dataloaders
        Tier to data key to loader, as nnfabrik's dataset functions return it, or data key to loader. The unit ids are
        ``loader.dataset.neurons.unit_ids``, neuralpredictors' convention.

    Returns
    -------
    dict of str to ndarray
        Data key to unit ids (n,) int64. A session whose dataset does not know them is left out.

    Raises
    ------
    EmbeddingError
        If a session has a unit id twice, unit ids that are not integers, or different ones in different tiers.
    """
    found: dict[str, np.ndarray] = {}
    for data_key, loader in _loaders(dataloaders):
        try:
            unit_ids = np.asarray(loader.dataset.neurons.unit_ids)
        except AttributeError:  # also what neuralpredictors raises where the recording has no such file
            continue
        unit_ids = _checked_unit_ids(data_key, unit_ids)
        if not np.array_equal(found.setdefault(data_key, unit_ids), unit_ids):
            raise EmbeddingError(
                f"session {data_key!r} has different unit ids in different tiers; all tiers must serve the same "
                "neurons in the same order."
            )
    return found


def _loaders(dataloaders: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in dataloaders.items():
        yield from _loaders(entry) if isinstance(entry, Mapping) else ((name, entry),)


def _checked_unit_ids(data_key: str, unit_ids: np.ndarray) -> np.ndarray:
    as_integers = whole_numbers(unit_ids)
    if unit_ids.ndim != 1 or as_integers is None:
        raise EmbeddingError(
            f"the unit ids of session {data_key!r} are {unit_ids.dtype} of shape {unit_ids.shape}; they must be "
            "integers (n,), one per neuron."
        )
    repeated = repeated_ids(as_integers)
    if len(repeated):
        raise EmbeddingError(
            f"session {data_key!r} has unit id {repeated[0]} more than once; neurons are identified by "
            "session and unit id, so a unit id must be unique within its session."
        )
    return as_integers


def _stacked_unit_ids(sessions: Mapping[str, Tensor], unit_ids: Mapping[str, Any]) -> np.ndarray:
    stacked = []
    for data_key, vectors in sessions.items():
        if unit_ids.get(data_key) is None:
            raise EmbeddingError(
                f"there are no unit ids for session {data_key!r}, but there are for others; give them for every "
                "session, or for none."
            )
        own = _checked_unit_ids(data_key, np.asarray(unit_ids[data_key]))
        if len(own) != len(vectors):
            raise EmbeddingError(
                f"session {data_key!r} has {len(vectors)} readout vectors, but {len(own)} unit ids are given; they "
                "must come from the dataset that the model was built for."
            )
        stacked.append(own)
    return np.concatenate(stacked)


def _same_width(sessions: dict[str, Tensor]) -> dict[str, Tensor]:
    widths = {data_key: vectors.shape[1] for data_key, vectors in sessions.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{data_key!r}: {width}" for data_key, width in widths.items())
        raise EmbeddingError(
            f"the sessions' readout vectors have different numbers of features ({listed}); neurons can only be "
            "compared on one shared core."
        )
    return sessions


def _vectors_of_model(model: nn.Module) -> dict[str, Tensor]:
    readout = getattr(model, "readout", None)
    if not isinstance(readout, nn.ModuleDict):
        raise EmbeddingError(
            f"{type(model).__name__}.readout is {type(readout).__name__}; it must be an nn.ModuleDict of data key to "
            "the session's readout, as neuralpredictors' MultiReadoutBase is."
        )
    if len(readout) == 0:
        raise EmbeddingError(f"{type(model).__name__}.readout has no sessions.")
    sessions = {}
    for data_key, session in readout.items():
        try:
            sessions[data_key] = readout_vectors(session)
        except EmbeddingError as error:
            raise EmbeddingError(f"session {data_key!r}: {error}") from None
    return sessions


def _vectors_of_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    sessions: dict[str, dict[str, Tensor]] = {}
    prefixes = set()
    for key, value in state_dict.items():
        match = IN_STATE_DICT.fullmatch(key) if isinstance(value, Tensor) else None
        if match:
            prefixes.add(match["prefix"])
            sessions.setdefault(match["data_key"], {})[match["name"]] = value
    if not sessions:
        some = ", ".join(list(state_dict)[:3]) or "nothing"
        raise EmbeddingError(
            f"the state dict has no entries readout.<data key>.<name>; it has {some}{' ...' * (len(state_dict) > 3)}. "
            "Pass the state dict of the whole model, not of a part of it."
        )
    if len(prefixes) > 1:
        raise EmbeddingError(
            f"the state dict has several readouts ({', '.join(f'{prefix}readout' for prefix in sorted(prefixes))}); "
            "pass the entries of one of them."
        )
    return {data_key: _stored_vectors(data_key, entries) for data_key, entries in sessions.items()}


def _stored_vectors(data_key: str, entries: Mapping[str, Tensor]) -> Tensor:
    """Return the vectors (n, D) of one session from its entries in a state dict."""
    name = f"session {data_key!r}"
    source = {key.removeprefix("_source."): value for key, value in entries.items() if key.startswith("_source.")}
    if source:
        return _cloned(_stored_vectors(data_key, source), entries.get("alpha"), name)
    features = next((entries[key] for key in STORED_FEATURES if key in entries), None)
    if features is None:
        raise EmbeddingError(
            f"{name} has no features in the state dict, only {', '.join(sorted(entries))}; its readout vectors cannot "
            "be found there. If its class defines `embedding_vectors()`, pass the model instead."
        )
    sharing = entries.get("feature_sharing_index")
    if sharing is not None:
        features = features[..., sharing] if features.ndim == 4 else features[sharing]
        features = entries["scales"] * features
    # A position with three coordinates is a point in space and channels: its features do not mix channels.
    position = next((entries[key] for key in ("mu", "mu_ch") if key in entries), None)
    in_channels = position is not None and (position.shape[-1] == 3 or "mu_ch" in entries)
    channels = 0 if in_channels else None
    return _as_rows(features, name, entries.keys(), n_neurons=_stored_count(entries), channels=channels)


def _stored_count(entries: Mapping[str, Tensor]) -> int | None:
    """Return the number of neurons that the other entries of a readout imply, None if they do not tell."""
    # openretina's mask has a grid of pixels for every neuron, neuralpredictors' readouts one of the neurons' positions.
    for key, axis in (("bias", 0), ("spatial", 0), ("log_var", 0), ("mask_log_var", 0), ("sigma", 1), ("grid", 1)):
        if key in entries and entries[key].ndim > axis:
            return entries[key].shape[axis]
    return None


def _cloned(vectors: Tensor, gains: Tensor | None, name: str) -> Tensor:
    if gains is None or gains.shape != vectors.shape[:1]:
        found = "no gains" if gains is None else f"gains of shape {tuple(gains.shape)}"
        raise EmbeddingError(
            f"{name} is a clone of a readout of {len(vectors)} neurons, but has {found}; it must have one per neuron. "
            "neuralpredictors' ClonedReadout has them for Gaussian readouts only."
        )
    return vectors * gains[:, None]


def _as_rows(
    features: Tensor, name: str, entries: Iterable[str], *, n_neurons: int | None, channels: int | None
) -> Tensor:
    """Return features (1, D, 1, n), (n, D) or (D, n) as rows (n, D).

    ``entries`` are the names in the readout's state dict. ``channels`` is the number of the core's channels, of which
    ``D`` must be a multiple (readouts at several scales have one weight per channel and scale); 0 says that the
    features are known not to belong to channels.
    """
    shape = tuple(features.shape)
    if len(shape) == 4 and shape[0] == shape[2] == 1:
        rows = features[0, :, 0, :].T
    elif len(shape) == 2:
        rows = features if _neurons_first(shape, name, entries, n_neurons) else features.T
    else:
        raise EmbeddingError(
            f"{name} has features of shape {shape}; known are (1, D, 1, n), (n, D) and (D, n) for n neurons. {CUSTOM}"
        )
    if n_neurons is not None and len(rows) != n_neurons:
        raise EmbeddingError(
            f"{name} has features of shape {shape}, which are those of {len(rows)} neurons, but it has {n_neurons} "
            f"neurons. {CUSTOM}"
        )
    if channels is not None and (channels == 0 or rows.shape[1] % channels):
        raise EmbeddingError(
            f"{name} has features of shape {shape}, which are not weights of the core's channels: they cannot be "
            "compared between neurons."
        )
    return rows


def _neurons_first(shape: tuple[int, ...], name: str, entries: Iterable[str], n_neurons: int | None) -> bool:
    parts = {entry.split(".")[0] for entry in entries}
    if not parts.isdisjoint(NEURONS_FIRST):
        return True
    if not parts.isdisjoint(FEATURES_FIRST):
        return False
    if n_neurons is None or shape[0] == shape[1]:
        raise EmbeddingError(
            f"{name} has features of shape {shape}, and it is not clear which axis is the neurons'. {CUSTOM}"
        )
    return shape[1] != n_neurons

"""Loaders whose neurons come in the order in which a stored model was trained on them.

A recording may be exported again after a training: with its neurons in another order, or with other neurons. Weights
belong to neurons by position, so the unit ids that the trainer stored are compared with those that the loaders serve
now. Neurons that were only reordered are served in the old order; anything else is another recording.

Changes cannot be detected here in recordings without unit ids, or in recordings whose responses changed but whose unit
ids did not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from december_plugin.errors import RecordingError
from december_plugin.evaluation.predictions import with_neurons

logger = logging.getLogger(__name__)

REMEDY = (
    "The recording has changed since the training, so the stored weights belong to other neurons: bring the recording "
    "back as it was, or register the new one under its own path and train on it."
)
MOST_NAMED = 5
# Attributes of datasets without an axis of neurons.
_SAME = (
    *("data_key", "data_keys", "trial_info", "image_ids", "tiers", "n_neurons", "img_shape"),
    *("starts", "chunk", "lengths", "frame_rate"),
)
_BY_NEURON = ("mean_responses", "unit_ids", "cell_motor_coordinates")  # entries of data_info, neurons first


def in_trained_order(dataloaders: Mapping[str, Any], neurons: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the loaders with the neurons of every session in the order of the training.

    Parameters
    ----------
    dataloaders
        Tier to data key to loader.
    neurons
        ``output["neurons"]`` of our trainers, data key to ``{"unit_ids": (n,) or None, "n_neurons": n}``. None, for
        other packages' trainers: nothing is known.

    Returns
    -------
    Mapping
        ``dataloaders`` itself if all neurons are in their places.

    Raises
    ------
    RecordingError
        If the loaders serve other sessions, or other neurons of a session, than those that the model was trained on.
    """
    if not isinstance(neurons, Mapping) or not neurons:
        return dataloaders
    from december_plugin.embeddings.readout_vectors import unit_ids_of

    _check_sessions(dataloaders, neurons)

    served = unit_ids_of(dataloaders)
    orders = {}
    for data_key, session in neurons.items():
        trained = session.get("unit_ids")
        if trained is not None and data_key in served:
            order = _order(data_key, np.asarray(trained), served[data_key])
            if not np.array_equal(order, np.arange(len(order))):
                orders[data_key] = order
    if not orders:
        return dataloaders
    logger.warning(
        "the neurons of %s are in another order than when the model was trained; they are served in the order of the "
        "training",
        ", ".join(f"session {data_key!r}" for data_key in orders),
    )
    return {
        tier: {key: OrderedLoader(loader, orders[key]) if key in orders else loader for key, loader in loaders.items()}
        if isinstance(loaders, Mapping)
        else loaders
        for tier, loaders in dataloaders.items()
    }


def _check_sessions(dataloaders: Mapping[str, Any], neurons: Mapping[str, Any]) -> None:
    # A model is built for the sessions of the training tier.
    tiers = [dataloaders["train"]] if "train" in dataloaders else list(dataloaders.values())
    served = {str(key) for loaders in tiers if isinstance(loaders, Mapping) for key in loaders}
    missing, new = sorted(set(neurons) - served), sorted(served - set(neurons))
    if missing or new:
        what = [f"the session {data_key!r} is not served any more" for data_key in missing]
        what += [f"the model was not trained on the session {data_key!r}" for data_key in new]
        raise RecordingError(f"{_some(what, '; ')}. {REMEDY}")


def _order(data_key: str, trained: npt.NDArray[Any], served: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions of the trained neurons among those that are served."""
    where = {int(unit_id): position for position, unit_id in enumerate(served)}
    missing = [int(unit_id) for unit_id in trained if int(unit_id) not in where]
    new = sorted(set(where) - {int(unit_id) for unit_id in trained})
    if missing or new:
        parts = [f"{len(missing)} of the {len(trained)} that it was trained on are missing (unit ids {_some(missing)})"]
        parts += [f"{len(new)} are new (unit ids {_some(new)})"]
        found = " and ".join(part for part, ids in zip(parts, (missing, new), strict=True) if ids)
        raise RecordingError(
            f"session {data_key!r} has other neurons than when the model was trained: {found}. {REMEDY}"
        )
    return np.array([where[int(unit_id)] for unit_id in trained], dtype=np.int64)


def _some(values: Sequence[Any], separator: str = ", ") -> str:
    return separator.join(map(str, values[:MOST_NAMED])) + (f"{separator}..." if len(values) > MOST_NAMED else "")


class OrderedLoader:
    """A loader that serves the neurons of its session in another order.

    Parameters
    ----------
    loader
        The loader; everything but its batches' responses and its ``dataset`` is unchanged.
    order
        Positions of the neurons in the loader, (n,).
    """

    def __init__(self, loader: Any, order: npt.NDArray[np.int64]):
        self._loader, self._order = loader, order
        self.dataset = OrderedDataset(loader.dataset, order)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return (with_neurons(batch, self._order) for batch in self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)


class OrderedDataset:
    """The ``dataset`` of an :class:`OrderedLoader`: items, meta data and neurons in the new order.

    It has only attributes that are known to have no axis of neurons, or whose axis is known; ``original`` is the
    unchanged dataset.
    """

    def __init__(self, dataset: Any, order: npt.NDArray[np.int64]):
        self.original, self._order = dataset, order

    def __len__(self) -> int:
        return len(self.original)

    def __getitem__(self, item: Any) -> Any:
        return with_neurons(self.original[item], self._order)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in (*_SAME, "neurons", "unit_ids", "responses_by_repeat", "data_info"):
            raise AttributeError(
                f"{name} is not known of a dataset whose neurons are served in the order of a training; ask its "
                "attribute `original`, whose neurons are in the recording's order."
            )
        value = getattr(self.original, name)
        if name == "neurons":
            return _OrderedNeurons(value, self._order)
        if name == "data_info":
            return lambda: self._ordered_info(value())
        if name == "unit_ids":
            return np.asarray(value)[self._order]
        return np.asarray(value)[..., self._order] if name == "responses_by_repeat" else value

    def _ordered_info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: np.asarray(value)[self._order] if name in _BY_NEURON and value is not None else value
            for name, value in info.items()
        }


class _OrderedNeurons:
    """What a recording says about its neurons, with neurons along the first axis of everything."""

    def __init__(self, neurons: Any, order: npt.NDArray[np.int64]):
        self._neurons, self._order = neurons, order

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        values = np.asarray(getattr(self._neurons, name))
        return values[self._order] if values.ndim else values

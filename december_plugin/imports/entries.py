"""The functions in nnfabrik's entries of models that were trained elsewhere.

The entries say where a model comes from; nothing is read from files here, so workers may run these functions. A dataset
entry describes the neurons: loaders without trials. A model entry is either only the readouts, or a model function with
its settings and the description of the sessions for which it was built. A trainer entry says who trained the model, and
cannot train it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from december_plugin.errors import SettingsError
from december_plugin.importing import failures
from december_plugin.imports.stored_names import MODEL
from december_plugin.security.allowed_modules import current_restriction, is_dotted_name
from december_plugin.validation.checks import checked_settings

# Functions of packages that need not be installed, and ours that builds the same model from the same settings.
SAME_AS_OURS = {
    "sensorium.models.stacked_core_full_gauss_readout": "december_plugin.models.stacked_core_gaussian_readout",
    "sensorium.models.models.stacked_core_full_gauss_readout": "december_plugin.models.stacked_core_gaussian_readout",
}
TIERS = ("train", "validation", "test")


class NoTrials:
    """A loader of a session without its recording: it knows the number of neurons, and serves nothing.

    Parameters
    ----------
    n_neurons
        Number of neurons.
    """

    def __init__(self, n_neurons: int):
        self.n_neurons = n_neurons
        self.dataset = SimpleNamespace()

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        return iter(())


@checked_settings
def imported_neurons(
    seed: int | None = None, *, sessions: Mapping[str, Sequence[Any]], recording: str = ""
) -> dict[str, dict[str, NoTrials]]:
    """Return loaders without trials, for neurons that were imported without their recording.

    Parameters
    ----------
    seed
        Ignored.
    sessions
        Data key to the number of neurons and a digest of their unit ids, "" if only their positions are known.
    recording
        Distinguishes neurons that are known only by position from those of another recording.

    Returns
    -------
    dict
        Tier to data key to loader.
    """
    return {tier: {data_key: NoTrials(int(known[0])) for data_key, known in sessions.items()} for tier in TIERS}


class ReadoutsOnly(nn.Module):
    """The readouts of a model whose core is unknown; they can be compared, but not predict responses.

    Parameters
    ----------
    n_neurons
        Data key to the number of neurons.
    n_features
        Number of features D.
    """

    def __init__(self, n_neurons: Mapping[str, int], n_features: int):
        super().__init__()
        self.readout = nn.ModuleDict({key: VectorReadout(count, n_features) for key, count in n_neurons.items()})

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a :class:`SettingsError`."""
        raise SettingsError(
            "this model was imported as readout vectors, without its core, so it cannot predict responses. Import it "
            "with its model function and a checkpoint for that."
        )


class VectorReadout(nn.Module):
    """Readout vectors of one session, as neuralpredictors' Gaussian readout stores them: features (1, D, 1, n)."""

    def __init__(self, n_neurons: int, n_features: int):
        super().__init__()
        self.features = nn.Parameter(torch.zeros(1, n_features, 1, n_neurons))


def readouts_state_dict(vectors: np.ndarray, sessions: Mapping[str, slice]) -> dict[str, Tensor]:
    """Return the state dict of :class:`ReadoutsOnly` with these readout vectors.

    Parameters
    ----------
    vectors
        (N, D), float32 or float64.
    sessions
        Data key to its rows.
    """
    return {
        f"readout.{data_key}.features": torch.from_numpy(np.array(vectors[own].T, order="C"))[None, :, None, :]
        for data_key, own in sessions.items()
    }


@checked_settings
def imported_readouts(
    dataloaders: Mapping[str, Any], seed: int, *, name: str, n_features: int, precision: str = "float32"
) -> ReadoutsOnly:
    """Build the readouts of a model that was imported as readout vectors.

    Parameters
    ----------
    dataloaders
        Of :func:`imported_neurons`.
    seed
        Ignored.
    name
        Name of the model.
    n_features
        Number of features D.
    precision
        ``float32`` or ``float64``, the type of the vectors.
    """
    counts = {data_key: loader.n_neurons for data_key, loader in dataloaders["train"].items()}
    return ReadoutsOnly(counts, n_features).to(getattr(torch, precision))


@checked_settings
def imported_model(
    dataloaders: Any, seed: int, *, name: str, fn: str, config: Mapping[str, Any], data_info: Mapping[str, Any]
) -> nn.Module:
    """Build a model that was imported with its model function, for the sessions that it was trained on.

    Parameters
    ----------
    dataloaders
        Not needed.
    seed
        Passed on.
    name
        Name of the model.
    fn, config
        Dotted name of its model function, which must be allowed here, and its settings.
    data_info
        nnfabrik's description of the sessions, data key to ``input_dimensions``, ``output_dimension`` and the like;
        ``coordinate_dimensions`` is the number of coordinates of the cortical positions that are in the weights.

    Raises
    ------
    SettingsError
        If the function is not allowed here, or cannot be imported.
    """
    function = model_function(fn)
    described = {data_key: _described(info) for data_key, info in data_info.items()}
    return function(None, seed=seed, data_info=described, **dict(config))


def _described(info: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(info)
    n_coordinates = described.pop("coordinate_dimensions", None)
    if n_coordinates is not None:
        n_neurons = int(described["output_dimension"][-1])
        # Any different values: the model divides by their range before the weights bring the true ones.
        described["cell_motor_coordinates"] = np.linspace(0, 1, n_neurons)[:, None].repeat(int(n_coordinates), axis=1)
    return described


def model_function(name: str) -> Any:
    """Return the model function of this dotted name if it is allowed here.

    SENSORIUM's baseline is replaced by december's, which has the same settings and names of weights.

    Raises
    ------
    SettingsError
        If it is not allowed, or cannot be imported.
    """
    name, entry = SAME_AS_OURS.get(name, name), "imported model"
    allowed = current_restriction()
    if allowed is not None:
        allowed.check(name, table=entry)
    if not is_dotted_name(name) or "." not in name:
        raise SettingsError(f"{name!r} is not the dotted name of a model function, such as {MODEL}.")
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except failures.ANYTHING as error:
        raise SettingsError(
            f"the model function {name!r} cannot be used here: {failures.reason(error)}. Install the package that has "
            "it, or write its whole dotted path."
        ) from error
    if allowed is not None:
        allowed.check_function(function, name=name, table=entry)
    return function


@checked_settings
def imported_trainer(
    model: nn.Module, dataloaders: Any, seed: int, *, trained: str = "", uid: Any = None, cb: Any = None
) -> NoReturn:
    """Refuse to train a model that was trained elsewhere.

    Parameters
    ----------
    model, dataloaders, seed, uid, cb
        nnfabrik's.
    trained
        How and by whom it was trained.

    Raises
    ------
    SettingsError
        Always.
    """
    raise SettingsError(
        "this model was trained elsewhere and cannot be trained here. `december import` with the file that it was "
        "imported from brings it back."
    )

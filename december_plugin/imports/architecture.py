"""Puts imported weights into the model function that they belong to."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.errors import DecemberError, EmbeddingError, SettingsError
from december_plugin.imports.entries import imported_model
from december_plugin.imports.identity import GRID


def data_info_of(
    state_dict: Mapping[str, Any], n_neurons: Mapping[str, int], input_shape: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return the description of the sessions that a state dict was trained on, as far as it can be inferred.

    Parameters
    ----------
    state_dict
        The model's.
    n_neurons
        Data key to number of neurons.
    input_shape
        Shape of the stimuli: (channels, height, width), or (channels, frames, height, width) for movies.

    Returns
    -------
    dict
        As the setting ``data_info`` of :func:`~december_plugin.imports.entries.imported_model`.
    """
    described: dict[str, dict[str, Any]] = {}
    for data_key, count in n_neurons.items():
        info: dict[str, Any] = {
            "input_dimensions": [1, *map(int, input_shape)],
            "input_channels": int(input_shape[0]),
            "output_dimension": [1, int(count)],
        }
        grid = state_dict.get(f"readout.{data_key}.{GRID}")
        if isinstance(grid, Tensor):
            info["coordinate_dimensions"] = int(grid.shape[-1])
        pupil = next(
            (
                value
                for key, value in state_dict.items()
                if key.startswith(f"shifter.{data_key}.") and isinstance(value, Tensor) and value.ndim == 2
            ),
            None,
        )
        if pupil is not None:
            info["pupil_channels"] = int(pupil.shape[1])
        described[data_key] = info
    return described


def fitted_model(
    state_dict: Mapping[str, Any],
    *,
    name: str,
    fn: str,
    config: Mapping[str, Any],
    data_info: Mapping[str, Any],
    seed: int,
    missing_as_zero: Sequence[str] = (),
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a model function, and load a state dict into it.

    Parameters
    ----------
    state_dict
        The weights.
    name, fn, config, data_info, seed
        As for :func:`~december_plugin.imports.entries.imported_model`.
    missing_as_zero
        See :func:`completed`.

    Returns
    -------
    model, state_dict
        The model in evaluation mode, and its weights, complete.

    Raises
    ------
    SettingsError
        If the function cannot be used or refuses its settings.
    EmbeddingError
        If the weights do not fit the model.
    """
    try:
        model = imported_model(None, seed, name=name, fn=fn, config=config, data_info=data_info)
    except DecemberError:
        raise
    except Exception as error:
        raise SettingsError(
            f"the model function {fn!r} could not build a model with these settings: {type(error).__name__}: {error}. "
            "It is called with dataloaders None, the seed, data_info and the settings of config."
        ) from error
    complete = completed(state_dict, model, fn=fn, missing_as_zero=missing_as_zero)
    model.load_state_dict(complete)
    return model.eval(), complete


def completed(
    state_dict: Mapping[str, Any], model: nn.Module, *, fn: str, missing_as_zero: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the state dict, completed by the model's entries that it lacks, in the model's order.

    Parameters
    ----------
    state_dict
        The weights.
    model
        The model that they belong to.
    fn
        Name of the model's function in messages.
    missing_as_zero
        Names of entries, or patterns with ``*``, that are set to zero because another version of the package did not
        have them: additive terms, such as biases, for which zero changes nothing.

    Raises
    ------
    EmbeddingError
        If an entry is missing and no pattern matches it, is not the model's, or has another shape; names the first.
    """
    expected = model.state_dict()
    complete: dict[str, Any] = {}
    for key, value in expected.items():
        if key not in state_dict:
            if not any(fnmatch.fnmatchcase(key, pattern) for pattern in missing_as_zero):
                raise EmbeddingError(
                    f"the checkpoint does not fit the model of {fn!r}: it has no {key!r}. Correct the model function's "
                    "settings; where an earlier version had no such bias, name it in missing_as_zero."
                )
            complete[key] = torch.zeros_like(value)
            continue
        given = state_dict[key]
        if isinstance(value, Tensor) and (not isinstance(given, Tensor) or given.shape != value.shape):
            found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise EmbeddingError(
                f"the checkpoint does not fit the model of {fn!r}: {key!r} is {found} in the checkpoint and "
                f"{tuple(value.shape)} in the model. Correct the model function's settings."
            )
        complete[key] = given
    left = [key for key in state_dict if key not in expected]
    if left:
        raise EmbeddingError(
            f"the checkpoint does not fit the model of {fn!r}, which has no {left[0]!r}"
            + (f" (and {len(left) - 1} more)" if len(left) > 1 else "")
            + ". Correct the model function's settings."
        )
    return complete

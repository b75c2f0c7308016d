"""Which models are rotation-equivariant: by their function, or measured by turning the stimulus.

A core is equivariant if turning the stimulus by 90 degrees turns its output and moves its orientations.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.embeddings.batches import evaluating
from december_plugin.errors import MisfitError
from december_plugin.models import equivariant
from december_plugin.validation.checks import check_number

TOLERANCE = 1e-3  # rounding in float32 is below 1e-5
ORIENTATIONS = "orientations"  # the setting of the model functions
OURS = "december_plugin.models."


def orientations_of(model_fn: str, model_config: Mapping[str, Any]) -> int:
    """Return the number of orientations of a registered model's core, by which its readout vectors can be shifted.

    Parameters
    ----------
    model_fn, model_config
        Name and settings of the model function, as in nnfabrik's ``Model``.

    Returns
    -------
    int
        The function's setting ``orientations``, or its default; 1 for cores that are not rotation-equivariant, and for
        functions of other packages, whose order of channels is not known.
    """
    function = getattr(equivariant, model_fn.rpartition(".")[2], None) if model_fn.startswith(OURS) else None
    if function is None or getattr(function, "__module__", "") != equivariant.__name__:
        return 1
    default = inspect.signature(function).parameters[ORIENTATIONS].default
    return int(model_config.get(ORIENTATIONS, default))


def equivariance_error(core: nn.Module, images: Tensor, n_orientations: int) -> float:
    """Return how much a core's output differs from what rotation equivariance requires.

    Turning the stimulus by 90 degrees must turn the maps by 90 degrees and move the orientations by a quarter of them,
    in either direction.

    Parameters
    ----------
    core
        Returns (batch, orientations * features, height, width), orientation-major; it runs in evaluation mode, and
        its mode is restored.
    images
        (batch, channels, height, width), of the kind that the core was trained on. They need not be square if the
        core takes images of every size.
    n_orientations
        Orientations O of the core, a multiple of 4.

    Returns
    -------
    float
        Root mean square of the difference, as a fraction of the output's standard deviation: 0 for an equivariant core,
        about 1.4 for unrelated features. Infinite if the output does not vary.

    Raises
    ------
    MisfitError
        If O is not a multiple of 4, the number of channels is not a multiple of O, or the core cannot take turned
        images.
    """
    if isinstance(n_orientations, bool) or n_orientations < 4 or n_orientations % 4:
        raise MisfitError(
            f"n_orientations is {n_orientations}; it must be a multiple of 4: only a turn by 90 degrees turns the grid "
            "of pixels onto itself.",
            setting="n_orientations",
        )
    with evaluating(core), torch.no_grad():
        output = core(images)
        turned = _turned_output(core, images, output)
    if output.ndim != 4 or output.shape[1] % n_orientations:
        raise MisfitError(
            f"the core's output has the shape {tuple(output.shape)}; it must be (batch, channels, height, width), with "
            f"a multiple of {n_orientations} channels.",
            setting="n_orientations",
        )
    found = turned.double().unflatten(1, (n_orientations, -1))
    maps = output.double().rot90(1, (2, 3)).unflatten(1, (n_orientations, -1))
    quarter = n_orientations // 4
    errors = [(found - maps.roll(step, dims=1)).square().mean() for step in (quarter, -quarter)]
    return float((torch.stack(errors).min() / output.double().var(correction=0)).sqrt().nan_to_num(nan=torch.inf))


def check_equivariance(core: nn.Module, images: Tensor, n_orientations: int, *, tolerance: float = TOLERANCE) -> float:
    """Return :func:`equivariance_error`, or refuse a core for which it is too large.

    Parameters
    ----------
    core, images, n_orientations
        As in :func:`equivariance_error`.
    tolerance
        Largest allowed error.

    Raises
    ------
    MisfitError
        If the core is not rotation-equivariant, with the measured error.
    """
    check_number("tolerance", tolerance, above=0)
    error = equivariance_error(core, images, n_orientations)
    if not error <= tolerance:
        raise MisfitError(
            f"the core is not rotation-equivariant: turning the images by 90 degrees changes its output by {error:.3g} "
            f"of its standard deviation beyond a shift of {n_orientations} orientations by {n_orientations // 4}; "
            f"{tolerance:g} is allowed. Readout vectors can be aligned only if the core's channels are "
            "orientation-major (orientations, then features), and n_orientations is the core's.",
            setting="n_orientations",
        )
    return error


def _turned_output(core: nn.Module, images: Tensor, output: Tensor) -> Tensor:
    try:
        turned = core(images.rot90(1, (2, 3)))
    except RuntimeError as error:
        raise MisfitError(
            f"the core cannot take images of {images.shape[3]} x {images.shape[2]} pixels, which those of "
            f"{images.shape[2]} x {images.shape[3]} become when turned: give square ones "
            f"({str(error).splitlines()[0]})."
        ) from error
    if turned.shape[2:] != output.shape[:1:-1]:
        raise MisfitError(
            f"the core's output for turned images is {tuple(turned.shape[2:])} and for the original ones "
            f"{tuple(output.shape[2:])}; give square images."
        )
    return turned

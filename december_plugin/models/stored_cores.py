"""The core of a trained model from its settings and weights, without its recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.errors import SettingsError
from december_plugin.models.build import build_core
from december_plugin.models.sessions import SessionShape
from december_plugin.models.settings import EquivariantCoreSettings

CORE = "core."
FIRST_FILTERS = f"{CORE}features.layer0.conv.coefficients"
N_IMAGES, MARGIN = 8, 12  # of the noise shown to a core: images, and pixels beyond the smallest size that it takes


def stored_equivariant_core(model_config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> tuple[nn.Module, Tensor]:
    """Return the core of one of our rotation-equivariant models, and images for it.

    Parameters
    ----------
    model_config
        Settings of the model function.
    state_dict
        State dict of the trained model.

    Returns
    -------
    core, images
        The core with its trained weights, and white noise (images, channels, height, width), square and large enough.

    Raises
    ------
    SettingsError
        If the weights are not those of a model with these settings.
    """
    names = {each.name for each in fields(EquivariantCoreSettings)}
    settings = EquivariantCoreSettings(**{name: value for name, value in model_config.items() if name in names})
    side = sum(size - 1 - 2 * padding for size, padding in zip(settings.kernels, settings.paddings, strict=True))
    side += 1 + MARGIN
    try:
        channels = int(state_dict[FIRST_FILTERS].shape[1])
        shape = SessionShape((channels, side, side), 1, mean_responses=None, coordinates=None, pupil_channels=None)
        core = build_core(settings, {"": shape})
        weights = {name.removeprefix(CORE): value for name, value in state_dict.items() if name.startswith(CORE)}
        core.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise SettingsError(
            f"the stored weights are not those of a rotation-equivariant core with the settings {dict(model_config)}: "
            f"{' '.join(str(error).split())}"
        ) from error
    noise = torch.randn(N_IMAGES, channels, side, side, generator=torch.Generator().manual_seed(0))
    return core.to(noise), noise

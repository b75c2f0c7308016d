"""The SENSORIUM 2022 baseline: stacked convolutional core, full Gaussian readout, optional shifter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import FullGaussian2d, MultiReadoutSharedParametersBase
from neuralpredictors.layers.shifters import MLPShifter
from neuralpredictors.utils import get_module_output

from december_plugin.models.sessions import sessions_of
from december_plugin.settings import check_integer, checked_settings

CORTEX_GRID: Mapping[str, Any] = MappingProxyType(
    {"type": "cortex", "input_dimensions": 2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}
)
READOUT_REGULARIZERS = ("l1", "adaptive_log_norm")
BIAS_STARTS = ("mean_responses", "zeros")


class MultipleFullGaussian2d(MultiReadoutSharedParametersBase):
    """One full Gaussian readout for each session."""

    _base_readout = FullGaussian2d


@checked_settings
def stacked_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    hidden_channels: int = 64,
    input_kern: int = 9,
    hidden_kern: int | Sequence[int] = 7,
    layers: int = 4,
    gamma_input: float = 6.3831,
    skip: int = 0,
    final_nonlinearity: bool = True,
    momentum: float = 0.9,
    pad_input: bool = False,
    hidden_padding: int | None = None,
    batch_norm: bool = True,
    hidden_dilation: int = 1,
    laplace_padding: int | None = None,
    input_regularizer: str = "LaplaceL2norm",
    use_avg_reg: bool = False,
    core_bias: bool = True,
    depth_separable: bool = True,
    linear: bool = False,
    stack: int | Sequence[int] | None = -1,
    gamma_readout: float = 0.0076,
    readout_regularizer: str = "l1",
    init_mu_range: float = 0.3,
    init_sigma: float = 0.1,
    readout_bias: bool = True,
    bias_start: str = "mean_responses",
    gauss_type: str = "full",
    grid_mean_predictor: Mapping[str, Any] | None = CORTEX_GRID,
    shifter: bool | None = None,
    hidden_channels_shifter: int = 5,
    shift_layers: int = 3,
    gamma_shifter: float = 0.0,
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build the baseline of the SENSORIUM 2022 competition (Willeke et al. 2022); the defaults are its settings."""
    check_integer("seed", seed, minimum=0)
    sessions = sessions_of(dataloaders, data_info)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        core = Stacked2dCore(
            input_channels=next(iter(sessions.values())).image_shape[0],
            hidden_channels=hidden_channels,
            input_kern=input_kern,
            hidden_kern=hidden_kern,
            layers=layers,
            gamma_input=gamma_input,
            skip=skip,
            final_nonlinearity=final_nonlinearity,
            bias=core_bias,
            momentum=momentum,
            pad_input=pad_input,
            batch_norm=batch_norm,
            hidden_dilation=hidden_dilation,
            laplace_padding=laplace_padding,
            input_regularizer=input_regularizer,
            stack=stack,
            depth_separable=depth_separable,
            linear=linear,
            hidden_padding=hidden_padding,
            use_avg_reg=use_avg_reg,
        )
        predictor, source_grids = None, None
        if grid_mean_predictor is not None:
            predictor = {k: v for k, v in grid_mean_predictor.items() if k not in ("type", "input_dimensions")}
            source_grids = {
                k: np.asarray(s.coordinates)[:, : grid_mean_predictor.get("input_dimensions", 2)]
                for k, s in sessions.items()
            }
        readout = MultipleFullGaussian2d(
            in_shape_dict={
                k: get_module_output(core, (1, *s.image_shape), use_cuda=False)[1:] for k, s in sessions.items()
            },
            n_neurons_dict={k: s.n_neurons for k, s in sessions.items()},
            mean_activity_dict={k: torch.as_tensor(s.mean_responses).clone() for k, s in sessions.items()},
            init_mu_range=init_mu_range,
            bias=readout_bias,
            init_sigma=init_sigma,
            feature_reg_weight=gamma_readout,
            gauss_type=gauss_type,
            grid_mean_predictor=predictor,
            grid_mean_predictor_type="cortex" if predictor else None,
            source_grids=source_grids,
        )
        pupil = next(iter(sessions.values())).pupil_channels
        shift = None
        if shifter or (shifter is None and pupil):
            shift = MLPShifter(
                data_keys=list(sessions),
                input_channels=pupil,
                hidden_channels_shifter=hidden_channels_shifter,
                shift_layers=shift_layers,
                gamma_shifter=gamma_shifter,
            )
        return FiringRateEncoder(core=core, readout=readout, shifter=shift, elu_offset=elu_offset)

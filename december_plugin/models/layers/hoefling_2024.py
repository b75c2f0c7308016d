"""Core and readout of Höfling et al. 2024, built from openretina's modules, which this module imports."""

from __future__ import annotations

from typing import Any, Literal

import torch
from openretina.modules.core.base_core import SimpleCoreWrapper
from openretina.modules.readout.factorized_gaussian import GaussianMaskReadout
from openretina.modules.readout.multi_readout import MultiReadoutBase
from torch import Tensor, nn

from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.models.layers.regularizers import adaptive_log_normal_penalties, l1_penalties

# What openretina's convolutions leave behind of every batch: it would keep the batch's graph alive, and no module that
# holds it can be copied.
LEFT_BEHIND = ("weight", "weight_temporal", "conv")


class SeparableCore(SimpleCoreWrapper):
    """openretina's core of convolutions that are separable in space and time."""

    def forward(self, input_: Tensor) -> Tensor:
        """Return (batch, channels, frames', height', width') of videos (batch, channels, frames, height, width)."""
        output = super().forward(input_)
        for layer in self.features:
            for name in LEFT_BEHIND:
                vars(layer.conv).pop(name, None)
        return output


class MaskReadout(GaussianMaskReadout):
    """openretina's readout with a Gaussian mask per neuron, and with the adaptive log-normal regularizer.

    ``r_i = softplus(s_i sum_c w_ic <m_i, Phi_c> + b_i)``, with the Gaussian ``m_i`` over the map, of sum 1 (Höfling et
    al. 2024). ``w_i`` is the readout vector; mask, scale ``s_i`` and bias are not part of it.

    Parameters
    ----------
    regularizer_type
        "l1" or "adaptive_log_norm", for the readout vectors; the masks have their own penalty in both cases.
    gamma_sigma
        Width of the adaptive one's prior.
    **settings
        As openretina's class.
    """

    def __init__(self, *, regularizer_type: str, gamma_sigma: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.regularizer_type = regularizer_type
        self.gamma_sigma = gamma_sigma
        adaptive = regularizer_type == "adaptive_log_norm"
        self.adaptive_neuron_reg_coefs = nn.Parameter(torch.ones(self.outdims)) if adaptive else None

    def feature_penalties(self) -> Tensor:
        """Return every neuron's penalty of its readout vector, (n,)."""
        vectors = readout_vectors(self)
        if self.adaptive_neuron_reg_coefs is None:
            return self.feature_weights_l1_reg * l1_penalties(vectors)
        return adaptive_log_normal_penalties(
            vectors,
            self.adaptive_neuron_reg_coefs,
            gamma_w=self.feature_weights_l1_reg,
            gamma_sigma=self.gamma_sigma,
        )

    def regularizer(self, reduction: Literal["sum", "mean", None] = "sum") -> Tensor:
        """Return the penalty of masks and readout vectors: the sum or mean over neurons, or every neuron's (n,)."""
        # Wide masks and masks far from the middle are penalised; the mean is over neurons, openretina's over numbers.
        width = torch.exp(self.mask_log_var * self.gaussian_var_scale)
        distance = (self.mask_mean * self.gaussian_mean_scale).pow(2).sum(dim=1)
        return self.apply_reduction(self.mask_l1_reg * (width + distance) + self.feature_penalties(), reduction)


class MultipleMaskReadout(MultiReadoutBase):
    """One :class:`MaskReadout` for each session, by data key."""

    _base_readout_cls = MaskReadout

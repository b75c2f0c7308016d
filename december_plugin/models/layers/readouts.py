"""neuralpredictors' readouts with the adaptive log-normal regularizer.

They are drop-in subclasses: the same parameters, forward pass and state dict, plus the coefficients of the regularizer.
Use them on their own, or as ``base_readout`` of neuralpredictors' multi-readouts; those of the model functions are at
the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase, attention, factorized, gaussian
from torch import Tensor, nn
from torch.nn import functional

from december_plugin.errors import MisfitError
from december_plugin.models.layers.point_reading import read_at, reads_fused
from december_plugin.models.layers.regularizers import RegularizedReadout, l1_penalties
from december_plugin.models.settings import READOUT_KERNELS
from december_plugin.validation.checks import check_choice, check_number

__all__ = [
    "AttentionReadout",
    "FrameGaussian2d",
    "FullFactorized2d",
    "FullGaussian2d",
    "MultipleAttention2d",
    "MultipleFrameGaussian2d",
    "MultipleFullFactorized2d",
    "MultipleFullGaussian2d",
]


class FullGaussian2d(RegularizedReadout, gaussian.FullGaussian2d):
    """Gaussian readout of neuralpredictors with the adaptive log-normal regularizer.

    ``w_i`` is the feature vector; the position and its spread are not penalised.

    Parameters
    ----------
    in_shape, outdims, bias, **settings
        As :class:`~december_plugin.models.layers.regularizers.RegularizedReadout` and
        ``neuralpredictors.layers.readouts.FullGaussian2d``.
    kernel
        How maps are read, as ``readout_kernel`` in :class:`~december_plugin.models.settings.FrameReadoutSettings`.
        The random positions are the same for the same seed.
    """

    _base = gaussian.FullGaussian2d

    def __init__(self, in_shape: Any, outdims: int, bias: bool, *, kernel: str = "auto", **settings: Any) -> None:
        super().__init__(in_shape, outdims, bias, **settings)
        self.kernel = check_choice("kernel", kernel, READOUT_KERNELS)

    def sample_grid(self, batch_size: int, sample: bool | None = None) -> Tensor:
        """Return the sampled positions, (batch, neurons, 1, 2) in [-1, 1], side by side in memory.

        They are neuralpredictors', to the last bit. Its own have strides that torch's ``grid_sample`` cannot vectorise
        over, which made a training step of a small model twice as slow on a CPU, and it computes a predicted mean three
        times for each of them.
        """
        mean: Tensor = self.mu
        if mean is getattr(self, "_mu", None):
            with torch.no_grad():
                mean.clamp_(min=-1, max=1)
        shape = (batch_size, *self.grid_shape[1:])
        sample = self.training if sample is None else sample
        noise = mean.new_empty(shape).normal_() if sample else mean.new_zeros(shape)
        if self.gauss_type == "full":
            offsets = torch.einsum("ancd,bnid->bnic", self.sigma, noise)
        else:
            offsets = noise * self.sigma
        return torch.clamp(offsets + mean, min=-1, max=1).contiguous()

    def forward(
        self,
        x: Tensor,
        sample: bool | None = None,
        shift: Tensor | None = None,
        out_idx: Any = None,
        **others: Any,
    ) -> Tensor:
        """Return the responses (batch, n) to the core's output (batch, channels, height, width).

        Parameters
        ----------
        x
            The core's output.
        sample
            Whether positions are drawn; None: in training.
        shift
            Of every image, (batch, 2), added to the positions.
        out_idx
            Indices of the neurons to predict, or a mask; None for all.
        **others
            Whatever else an encoder hands to its readout; ignored.
        """
        if not reads_fused(self.kernel, x, self.outdims):
            return super().forward(x, sample=sample, shift=shift, out_idx=out_idx, **others)
        positions, features, bias = self._drawn(len(x), sample, shift, out_idx)
        responses = read_at(x.permute(0, 2, 3, 1), positions, features.T, align_corners=self.align_corners)
        return responses if bias is None else responses + bias

    def _drawn(
        self, batch: int, sample: bool | None, shift: Tensor | None, out_idx: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return positions (batch, n, 2), features (channels, n) and biases (n,) of the chosen neurons."""
        positions = self.sample_grid(batch if self.batch_sample else 1, sample)[:, :, 0]
        features, bias = self.features[0, :, 0], self.bias
        if out_idx is not None:
            chosen = torch.as_tensor(out_idx, device=positions.device)
            positions, features = positions[:, chosen], features[:, chosen]
            bias = None if bias is None else bias[chosen]
        if shift is not None:
            positions = positions + shift[:, None]
        return positions.expand(batch, -1, -1), features, bias

    def init_grid_predictor(self, source_grid: np.ndarray, **settings: Any) -> None:
        """Predict the positions from ``source_grid`` (n, 2 or 3), the neurons' cortical positions in any unit."""
        source_grid = np.asarray(source_grid, dtype=np.float64)
        if not np.isfinite(source_grid).all():
            raise MisfitError("source_grid has NaN or infinite values; every neuron needs a cortical position.")
        with np.errstate(invalid="ignore"):
            super().init_grid_predictor(source_grid, **settings)
        # One neuron, or neurons in one place: their spread, by which neuralpredictors divides, is 0.
        self.source_grid.nan_to_num_(0.0)


class FrameGaussian2d(FullGaussian2d):
    """Gaussian readout that reads every frame of the core's output with the same weights.

    In training each clip draws one position, which all of its frames share.
    """

    def forward(
        self,
        x: Tensor,
        sample: bool | None = None,
        shift: Tensor | None = None,
        out_idx: Any = None,
        **others: Any,
    ) -> Tensor:
        """Return the responses (batch, frames, n) to the core's output (batch, channels, frames, height, width)."""
        batch, channels, frames, height, width = x.shape
        if (channels, height, width) != tuple(self.in_shape):
            raise ValueError(f"the core's output is {(channels, height, width)}; {tuple(self.in_shape)} is expected.")
        positions, features, bias = self._drawn(batch, sample, shift, out_idx)
        if reads_fused(self.kernel, x, self.outdims, frames=frames):
            responses = read_at(
                x.permute(0, 2, 3, 4, 1).flatten(end_dim=1),
                positions[:, None].expand(-1, frames, -1, -1).flatten(end_dim=1),
                features.T,
                align_corners=self.align_corners,
            ).unflatten(0, (batch, frames))
        else:
            flat = x.reshape(batch, channels * frames, height, width)
            maps = functional.grid_sample(flat, positions[:, :, None], align_corners=self.align_corners)
            responses = (maps.view(batch, channels, frames, -1) * features[:, None]).sum(dim=1)
        return responses if bias is None else responses + bias


class AttentionReadout(RegularizedReadout, attention.AttentionReadout):
    """Attention readout of neuralpredictors with the adaptive log-normal regularizer.

    ``w_i`` is the feature vector; the attention maps are not penalised. Settings as
    :class:`~december_plugin.models.layers.regularizers.RegularizedReadout` and
    ``neuralpredictors.layers.readouts.AttentionReadout``.
    """

    _base = attention.AttentionReadout

    def __init__(self, in_shape: Any, outdims: int, bias: bool, **settings: Any) -> None:
        super().__init__(in_shape, outdims, bias, **settings)
        for layer in self.attention:
            if isinstance(layer, nn.Conv2d):  # neuralpredictors gives a bool, which torch does not take
                layer.padding = tuple(size // 2 for size in layer.kernel_size)

    def forward(self, x: Tensor, shift: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the responses (batch, n) to the core's output ``x`` (batch, channels, height, width).

        ``shift`` has no effect, as in neuralpredictors: attention finds the position in each image. Whatever else
        an encoder hands to its readout is ignored.
        """
        return super().forward(x, shift=shift)


class FullFactorized2d(RegularizedReadout, factorized.FullFactorized2d):
    """Factorized readout of neuralpredictors with the adaptive log-normal regularizer.

    Its weights are the product of a feature vector and a spatial mask ``m_i``. ``w_i`` is the feature vector alone,
    which is also the neuron's embedding; the mask, of norm 1 if ``normalize`` is set, has a penalty of its own,
    ``spatial_reg_weight * sum_i ||m_i||_1``, whichever ``regularizer_type`` the features have. neuralpredictors' own
    regularizer is not used: it multiplies the mask norms with the feature norms of all pairs of neurons, and so grows
    with the square of their number.

    Parameters
    ----------
    in_shape, outdims, bias, **settings
        As :class:`~december_plugin.models.layers.regularizers.RegularizedReadout` and
        ``neuralpredictors.layers.readouts.FullFactorized2d``, without ``spatial_and_feature_reg_weight``.
    spatial_reg_weight
        Strength of the L1 penalty of the masks, at least 0.
    """

    _base = factorized.FullFactorized2d

    def __init__(
        self, in_shape: Any, outdims: int, bias: bool, *, spatial_reg_weight: float = 1.0, **settings: Any
    ) -> None:
        super().__init__(in_shape, outdims, bias, **settings)
        self.spatial_reg_weight = check_number("spatial_reg_weight", spatial_reg_weight, minimum=0)

    def _replaced(self) -> dict[str, str]:
        return {
            "spatial_and_feature_reg_weight": "set feature_reg_weight for the feature vectors and spatial_reg_weight "
            "for the masks."
        }

    def regularizer(self, reduction: str | None = "sum", average: bool | None = None) -> Tensor:
        """Return the regularizer of features and masks; "sum" or "mean" over neurons, or every neuron's term (n,)."""
        masks = self.normalized_spatial.flatten(start_dim=1)
        penalties = self._feature_penalties() + self.spatial_reg_weight * l1_penalties(masks)
        return self.apply_reduction(penalties, reduction=reduction, average=average)


class MultipleFullGaussian2d(MultiReadoutSharedParametersBase):
    """One full Gaussian readout for each session, by data key."""

    _base_readout = FullGaussian2d


class MultipleFrameGaussian2d(MultiReadoutSharedParametersBase):
    """One Gaussian readout of frames for each session, by data key."""

    _base_readout = FrameGaussian2d


class MultipleAttention2d(MultiReadoutSharedParametersBase):
    """One attention readout for each session, by data key."""

    _base_readout = AttentionReadout


class MultipleFullFactorized2d(MultiReadoutSharedParametersBase):
    """One factorized readout for each session, by data key."""

    _base_readout = FullFactorized2d

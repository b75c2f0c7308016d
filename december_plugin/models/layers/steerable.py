"""Rotation-equivariant convolutions with steerable filters (Weiler et al. 2018; Ecker et al. 2019).

Every filter is a weighted sum of two-dimensional Hermite functions in polar coordinates, which can be rotated by any
angle. A layer applies each of its F filters at O orientations: its output has O * F channels, orientation-major
(channel ``k = o F + f``). Turning the image by ``2 pi / O`` moves the orientations by one.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import eval_genlaguerre, gammaln
from torch import Tensor, nn
from torch.nn import functional


def hermite_basis(size: int, *, angle: float = 0.0, upsampling: int = 2) -> np.ndarray:
    """Return the Hermite functions of rank 0 to ``size - 1`` on a square of pixels, rotated.

    ``exp(-r^2 / 4) r^m L_nu^m(r^2 / 2)`` times ``cos(m (phi - angle))`` and, for m > 0, ``sin(m (phi - angle))``, for
    all m and nu of at least 0 with rank ``m + 2 nu``; ``L`` is the associated Laguerre polynomial (Victor et al. 2006).
    The square reaches to ``2 sqrt(size)``. Each has norm 1 on a grid that is ``upsampling`` times finer, whose points
    are summed for each pixel.

    Parameters
    ----------
    size
        Height and width of the filters in pixels, at least 1.
    angle
        Counterclockwise rotation of the displayed filters in radians.
    upsampling
        Points per pixel along each axis.

    Returns
    -------
    ndarray
        (size (size + 1) / 2, size, size) float64, sorted by rank, then m, cosine before sine.
    """
    points = size * upsampling
    reach = 2 * np.sqrt(size) * (1 - 1 / points)
    x = np.linspace(-reach, reach, points)[None, :]
    y = -x.T  # rows of an image go down
    squared, phi = x**2 + y**2, np.arctan2(y, x) - angle
    functions = []
    for rank in range(size):
        for m in range(rank % 2, rank + 1, 2):
            nu = (rank - m) // 2
            # Large ranks would overflow without the logarithm of the norm.
            scale = np.exp(0.5 * (gammaln(nu + 1) - gammaln(m + nu + 1) - m * np.log(2)) - squared / 4)
            radial = scale * squared ** (m / 2) * eval_genlaguerre(nu, m, squared / 2)
            functions.append(radial * np.cos(m * phi))
            if m > 0:
                functions.append(radial * np.sin(m * phi))
    basis = np.stack(functions)
    norms = np.sqrt((basis**2).sum(axis=(1, 2), keepdims=True))
    # On few points a function may vanish everywhere, as the sines do on one.
    basis = np.divide(basis, norms, out=np.zeros_like(basis), where=norms > 1e-12)
    return basis.reshape(-1, size, upsampling, size, upsampling).sum(axis=(2, 4))


def rotated_bases(size: int, orientations: int, *, upsampling: int = 2) -> np.ndarray:
    """Return :func:`hermite_basis` at all orientations, (orientations, functions, size, size) float64.

    Turns by 90 degrees, if they are among them, are exact to the last bit.
    """
    step = 2 * np.pi / orientations
    if orientations % 4:
        return np.stack([hermite_basis(size, angle=o * step, upsampling=upsampling) for o in range(orientations)])
    quarter = [hermite_basis(size, angle=o * step, upsampling=upsampling) for o in range(orientations // 4)]
    return np.stack([np.rot90(basis, turns, axes=(1, 2)) for turns in range(4) for basis in quarter])


class SteerableConv2d(nn.Module):
    """Convolution with F learned filters at O orientations each.

    Parameters
    ----------
    inputs
        Channels of an image in the first layer, features F' of the layer before in the others.
    features, orientations
        F and O.
    size, padding, upsampling
        Height and width of the filters in pixels, zeros added at every edge, and see :func:`hermite_basis`.
    first
        Whether the input is an image; otherwise it has O * F' channels, orientation-major.

    Attributes
    ----------
    coefficients
        Of the Hermite functions: (functions, inputs, F), or (functions, O, F', F) after the first layer. Output o sees
        orientation i of its input through the filter for ``i - o``, turned by o.
    """

    bases: Tensor

    def __init__(
        self,
        inputs: int,
        features: int,
        orientations: int,
        *,
        size: int,
        padding: int,
        upsampling: int,
        first: bool,
    ):
        super().__init__()
        self.orientations, self.padding, self.first = orientations, padding, first
        bases = rotated_bases(size, orientations, upsampling=upsampling)
        # It follows from the settings: no part of the state dict.
        self.register_buffer("bases", torch.from_numpy(bases).to(torch.get_default_dtype()), persistent=False)
        incoming = (inputs,) if first else (orientations, inputs)
        self.coefficients = nn.Parameter(torch.empty(bases.shape[1], *incoming, features))
        nn.init.normal_(self.coefficients, std=0.1)

    def filters(self) -> Tensor:
        """Return the kernels of the convolution, (O * F, channels of the input, size, size)."""
        if self.first:
            kernels = torch.einsum("onyx,nif->ofiyx", self.bases, self.coefficients)
        else:
            turned = [self.coefficients.roll(o, dims=1) for o in range(self.orientations)]
            kernels = torch.einsum("onyx,onpif->ofpiyx", self.bases, torch.stack(turned)).flatten(2, 3)
        return kernels.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, O * F, height', width')."""
        return functional.conv2d(x, self.filters(), padding=self.padding)


class SteerableNorm2d(nn.Module):
    """Batch normalisation of each feature over the batch, the map and the orientations."""

    def __init__(self, features: int, orientations: int, *, momentum: float):
        super().__init__()
        self.orientations = orientations
        self.norm = nn.BatchNorm3d(features, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (batch, O * F, height, width) normalised."""
        by_feature = x.unflatten(1, (self.orientations, -1)).transpose(1, 2)
        return self.norm(by_feature).transpose(1, 2).flatten(1, 2)

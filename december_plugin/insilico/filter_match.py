"""How well images match filters, such as those planted in a simulated recording, at any position and angle.

``c_i = max over angles and places of <turned x_i, f_i> / (||x_i|| ||f_i||)``, with means subtracted: a correlation over
the pixels of a canvas that holds both. With the filter's partner in quadrature it does not depend on phase, like
complex cells: ``sqrt(c_even^2 + c_odd^2)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico.turning import turned
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_integer
from december_plugin.validation.tensors import tensor_of

N_ANGLES = 36
AT_ONCE = 64  # images


@dataclass(frozen=True, eq=False, repr=False)
class FilterMatch(ArrayRepr):
    """The match of each of N images with its filter.

    Attributes
    ----------
    correlations
        The best over angles and places, (N,) float64, -1 to 1.
    angles
        Angle by which the image was turned for it, counterclockwise, (N,) float64 degrees.
    shifts
        Shift of the filter's middle, down and to the right, from that of the turned image, (N, 2) int64 pixels; rounded
        up if one has an even and the other an odd size.
    """

    correlations: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.int64]


def match_filters(
    images: npt.ArrayLike,
    filters: npt.ArrayLike,
    *,
    partners: npt.ArrayLike | None = None,
    n_angles: int = N_ANGLES,
    grey: float = 0.0,
) -> FilterMatch:
    """Return how well images match filters, matched over rotation and position.

    Parameters
    ----------
    images
        (N, height, width), or (N, 1, height, width), such as maximally exciting images.
    filters
        One for each image, (N, h, w), at most as large as the images.
    partners
        The filters' partners in quadrature, (N, h, w), of the same norm: any phase of the pair matches.
    n_angles
        Number of angles over the whole circle; 1: images are not turned.
    grey
        Grey value of the images, which fills the edges when they are turned.

    Raises
    ------
    SettingsError
        If the numbers or sizes do not fit.
    StimulusError
        If an image or a filter is constant or not finite.

    See Also
    --------
    maximally_exciting_images : The images to compare with planted filters.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.insilico import match_filters
    >>> y, x = np.mgrid[-10:11, -10:11]
    >>> bar = np.exp(-(x**2) / 4 - y**2 / 30)
    >>> turned_bar = np.exp(-(y**2) / 4 - x**2 / 30)
    >>> match = match_filters(turned_bar[None, None], bar[None, None])
    >>> match.correlations.round(2).tolist()
    [1.0]
    """
    check_integer("n_angles", n_angles, minimum=1)
    shown = _checked(images, "images")
    planted = _checked(filters, "filters")
    odd = None if partners is None else _checked(partners, "partners")
    for name, found in (("filters", planted), ("partners", odd)):
        if found is not None and (len(found) != len(shown) or any(np.greater(found.shape[1:], shown.shape[1:]))):
            raise SettingsError(
                f"{name} are {tuple(found.shape)} for images {tuple(shown.shape)}; one filter for each image, at most "
                "as large, is expected.",
                setting=name,
            )
    if odd is not None and odd.shape != planted.shape:
        raise SettingsError("partners must have the shape of the filters.", setting="partners")
    angles = 360 * np.arange(n_angles) / n_angles
    parts = [
        _match(few, planted[rows], None if odd is None else odd[rows], angles, grey)
        for rows, few in ((slice(k, k + AT_ONCE), shown[k : k + AT_ONCE]) for k in range(0, len(shown), AT_ONCE))
    ]
    best, which, shifts = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return FilterMatch(best, angles[which], shifts)


def _match(
    images: Tensor, filters: Tensor, partners: Tensor | None, angles: npt.NDArray[np.float64], grey: float
) -> tuple[Tensor, Tensor, Tensor]:
    (height, width), (tall, wide) = images.shape[1:], filters.shape[1:]
    padded = (height + tall, width + wide)
    spectra = [torch.fft.rfft2(_unit(each), s=padded).conj() for each in (filters, partners) if each is not None]
    best = images.new_full((len(images),), -torch.inf)
    which, place = (torch.zeros(len(images), dtype=torch.long) for _ in range(2))
    for k, angle in enumerate(angles):
        spectrum = torch.fft.rfft2(_unit(turned(images, float(angle), grey=grey)), s=padded)
        products = torch.stack([torch.fft.irfft2(spectrum * each, s=padded) for each in spectra])
        found = (products[0] if len(products) == 1 else products.square().sum(dim=0).sqrt()).flatten(start_dim=1)
        values, at = found.max(dim=1)
        better = values > best
        best, which = torch.where(better, values, best), torch.where(better, k, which)
        place = torch.where(better, at, place)
    rows, columns = place // padded[1], place % padded[1]
    rows = torch.where(rows >= height, rows - padded[0], rows)
    columns = torch.where(columns >= width, columns - padded[1], columns)
    shifts = torch.stack([rows - (height - tall) // 2, columns - (width - wide) // 2], dim=1)
    return best, which, shifts


def _unit(images: Tensor) -> Tensor:
    """Return images without their means, of norm 1."""
    centred = images - images.mean(dim=(1, 2), keepdim=True)
    return centred / torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True).clamp_min(1e-300)


def _checked(values: npt.ArrayLike, name: str) -> Tensor:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or not len(array):
        raise SettingsError(f"{name} are {array.shape}; (N, height, width) is expected.", setting=name)
    if not np.isfinite(array).all():
        raise StimulusError(f"{name} hold NaN or infinite values.")
    constant = np.ptp(array, axis=(1, 2)) == 0
    if constant.any():
        raise StimulusError(f"number {int(constant.argmax())} of the {name} is constant; it matches nothing.")
    return tensor_of(array)

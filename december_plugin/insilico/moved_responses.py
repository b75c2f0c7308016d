"""Responses of neurons to images that are moved, for many places at once.

A convolutional core responds to a moved image as to the image, elsewhere on the map. So a neuron's response to an image
that is moved by ``-d`` is the response it would have if it read, at a distance of ``d``, the changes that the image
makes to the map of an empty image: the core runs once, whatever the number of places. (If the content of an image is
far from its edges, that is exact.) Models whose neurons read in other ways, or whose maps have other pixels than the
image, are shown every moved image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from december_plugin.embeddings.received_features import received_features
from december_plugin.insilico.canvas import Canvas
from december_plugin.insilico.responses import NeuronResponses, noise_on
from december_plugin.insilico.turning import moved

TOLERANCE = 0.05  # of the changes of a map by an image: with strides they are off by a fifth and more


class MovedResponses:
    """Responses of a model's neurons of a session to images about the middle, moved onto the neurons' fields.

    Parameters
    ----------
    responses
        The neurons.
    places
        Shifts from the middle of the map at which a neuron may read, (E, 2) int64 rows and columns.
    fields
        Where neurons are on the map of another model of the same ensemble, (n, 2) whole pixels from the middle: images
        are moved onto these. None: this model's own.

    Attributes
    ----------
    fields
        As given, or found; (n, 2) int64.
    """

    def __init__(self, responses: NeuronResponses, places: Tensor, fields: Tensor | None = None) -> None:
        self.responses, self.places = responses, places
        reading = responses.reading
        assert reading is not None
        output = self._of_core(responses, responses.canvas.empty(1))
        self.empty = output
        with torch.no_grad():
            features = received_features(reading.readout, output, neurons=responses.neurons)[0]
            self.drives_of_empty = responses.drives(features, torch.arange(len(features), device=features.device))
        height, width = output.shape[-2:]
        middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], device=output.device)
        if reading.masks is None:
            assert reading.positions is not None
            size = torch.tensor([height, width], device=output.device)
            last = size - 1 if reading.align_corners else size
            self.points: Tensor | None = (reading.positions.flip(1) * last + size - 1) / 2  # rows and columns
            centers = self.points
        else:
            self.points = None
            weights = reading.masks.abs()
            weights = weights / weights.sum(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
            rows = (weights.sum(dim=2) * torch.arange(height, device=output.device)).sum(dim=1)
            columns = (weights.sum(dim=1) * torch.arange(width, device=output.device)).sum(dim=1)
            centers = torch.stack([rows, columns], dim=1)
        self.fields = (centers - middle).round().long() if fields is None else fields
        self.size = (height, width)

    @staticmethod
    def can_read(responses: NeuronResponses) -> bool:
        """Return whether the neurons' responses to moved images follow from the map of the image."""
        reading = responses.reading
        if reading is None or reading.attention is not None or responses.canvas.n_frames is not None:
            return False
        output = MovedResponses._of_core(responses, responses.canvas.empty(1))
        has_one_scale = reading.masks is not None or len(reading.scales(output)) == 1
        return has_one_scale and MovedResponses._moves_with_images(responses)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the responses (batch, n, E) to images (batch, *image_shape) about the middle.

        At place ``e`` the image is moved by ``fields - e``; -inf where the neuron would read outside the map.
        """
        valid: list[Tensor] = []

        def answer(output: Tensor) -> Tensor:
            maps = torch.einsum("bchw,nc->bnhw", output - self.empty, self.responses.vectors)
            drives, inside = self._at_points(maps) if self.points is not None else self._under_masks(maps)
            valid.append(inside)
            return (drives + self.drives_of_empty[:, None]).flatten(start_dim=1)

        found = self.responses.answered(images, answer).reshape(len(images), len(self.fields), len(self.places))
        return found.masked_fill(~valid[0], -torch.inf)

    @staticmethod
    def _of_core(responses: NeuronResponses, images: Tensor) -> Tensor:
        kept: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            kept.append(output)
            return output.new_zeros(len(output), 1)

        with torch.no_grad():
            responses.answered(images, keep)
        return kept[0]

    @staticmethod
    def _moves_with_images(responses: NeuronResponses) -> bool:
        """Return whether the map of an image that is moved by a pixel is that of the image, moved by a pixel."""
        canvas = responses.canvas
        height, width = canvas.size
        y = torch.arange(height)[:, None] - (height - 1) / 2
        x = torch.arange(width)[None, :] - (width - 1) / 2
        envelope = torch.exp(-(y.square() + x.square()) / (2 * (min(height, width) / 8) ** 2))
        image = canvas.grey + (noise_on(canvas, 1) - canvas.grey) * envelope
        shown = [canvas.empty(1), image, moved(image, torch.ones(1, 2, dtype=torch.long), grey=canvas.grey)]
        empty, before, after = MovedResponses._of_core(responses, torch.cat(shown))
        if min(empty.shape[-2:]) < 2:
            return False
        row, column = ((size - 1) // 2 for size in empty.shape[-2:])
        expected = (before - empty)[:, row, column]
        found = (after - empty)[:, row + 1, column + 1]
        return bool((found - expected).abs().max() <= TOLERANCE * (before - empty).abs().max())

    def _at_points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (batch, n, E) of maps (batch, n, height, width) at each neuron's places, and which are inside.

        Each neuron is moved by whole pixels: its place between them does not change.
        """
        assert self.points is not None
        last = torch.tensor(self.size, device=maps.device) - 1
        at = (self.points - self.fields)[:, None] + self.places  # (n, E, 2)
        inside = ((at >= 0) & (at <= last)).all(dim=2)
        grid = (2 * at / last.clamp_min(1) - 1).flip(2)[:, :, None].to(maps)
        values = functional.grid_sample(maps.transpose(0, 1), grid, align_corners=True)[..., 0]  # (n, batch, E)
        return values.transpose(0, 1), inside

    def _under_masks(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums (batch, n, E) of maps (batch, n, height, width) under each neuron's mask at its places."""
        reading = self.responses.reading
        assert reading is not None
        assert reading.masks is not None
        masks = moved(reading.masks[:, None], -self.fields)[:, 0]
        padded = [2 * size for size in self.size]
        spectrum = torch.fft.rfft2(maps, s=padded) * torch.fft.rfft2(masks, s=padded).conj()
        sums = torch.fft.irfft2(spectrum, s=padded)
        sums = sums[:, :, self.places[:, 0] % padded[0], self.places[:, 1] % padded[1]]
        inside = (self.places.abs() < torch.tensor(self.size, device=maps.device)).all(dim=1)
        return sums, inside.expand(len(self.fields), -1)


def places_about_the_middle(most: int) -> Tensor:
    """Return all shifts (E, 2) of at most this many pixels down and to the right, beginning with no shift."""
    axis = torch.arange(-most, most + 1)
    places = torch.cartesian_prod(axis, axis)
    return places[places.abs().sum(dim=1).argsort(stable=True)]


def places_on_the_canvas(canvas: Canvas, step: int) -> Tensor:
    """Return shifts (E, 2) from the middle to places of a grid over the whole canvas."""
    rows, columns = (torch.arange(-(size // 2 // step) * step, size // 2 + 1, step) for size in canvas.size)
    return torch.cartesian_prod(rows, columns)

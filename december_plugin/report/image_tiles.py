"""Small pictures of what the neurons of a cluster prefer, and of where it is in the t-SNE, as PNG."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.image import imsave

from december_plugin.plots.exciting_images import N_BEST, draw_island, page_of_images
from december_plugin.plots.style import figure_style

GREYS = 64  # more cannot be distinguished, and take more bytes
_PER_ROW = math.ceil(math.sqrt(N_BEST))
_LEAST_WIDTH = 140  # pixels: smaller pictures are enlarged, by a whole number
_MAP, _DPI = 1.3, 120  # inches, and dots per inch


def images_tile(images: npt.NDArray[np.float32], *, grey: float) -> Markup:
    """Return the first 16 images of the neurons of a cluster, four in a row, as the address of a picture.

    Parameters
    ----------
    images
        (n, channels, height, width), or of clips (n, channels, frames, height, width).
    grey
        The value of an empty pixel.
    """
    shown = images[:N_BEST]
    page = page_of_images(shown, per_row=_PER_ROW, n_rows=-(-len(shown) // _PER_ROW), grey=grey)
    page = np.round(page * (GREYS / 2)) / (GREYS / 2)
    times = -(-_LEAST_WIDTH // page.shape[1])
    buffer = io.BytesIO()
    imsave(buffer, np.kron(page, np.ones((times, times))), cmap="gray", vmin=-1, vmax=1, format="png")
    return _address(buffer)


def island_tile(islands: pd.DataFrame, cluster: int, color: str) -> Markup:
    """Return a t-SNE map with one cluster in its colour, as the address of a picture.

    Parameters
    ----------
    islands
        ``x``, ``y`` and ``cluster`` of neurons.
    cluster, color
        The cluster, and its colour.
    """
    buffer = io.BytesIO()
    with figure_style():
        figure = Figure(figsize=(_MAP, _MAP))
        draw_island(figure.add_axes((0.01, 0.01, 0.98, 0.98)), islands, cluster, color)
        figure.savefig(buffer, format="png", dpi=_DPI)
    return _address(buffer)


def _address(buffer: io.BytesIO) -> Markup:
    return Markup(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")

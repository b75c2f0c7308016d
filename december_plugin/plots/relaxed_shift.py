"""Why shifts are relaxed: the distance between two vectors while one of them is shifted.

After Figure 3 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from december_plugin.errors import SettingsError
from december_plugin.plots.panels import panel_row, title_panel
from december_plugin.plots.style import INK, figure_style, ordered_styles
from december_plugin.validation.checks import check_number

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
_N_ANGLES = 361


def relaxed_shift_figure(
    fixed: npt.ArrayLike,
    other: npt.ArrayLike,
    *,
    n_orientations: int,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Figure:
    """Draw the distance between two readout vectors against the angle by which one is shifted.

    Parameters
    ----------
    fixed, other
        Readout vectors (O * F,), orientation-major; the second is shifted.
    n_orientations
        Number of orientations O.
    temperatures
        Temperatures T of the relaxed shifts, which are drawn next to the linear one.

    Returns
    -------
    Figure
        One panel: the linear shift in black, whose distance has a kink at every orientation and several minima, and
        relaxed shifts, which are smoother at lower temperatures.

    Raises
    ------
    SettingsError, EmbeddingError, MisfitError
        If there are no temperatures, one is negative, or the vectors are not finite, or their length is not a multiple
        of the number of orientations.

    See Also
    --------
    december_plugin.plots.reconstruction_figure : Draws what the temperature of a fit does to vectors.
    december_plugin.rotation.RotationAlignment : Aligns vectors with relaxed shifts.

    Examples
    --------
    >>> from december_plugin.plots import relaxed_shift_figure
    >>> figure = relaxed_shift_figure([3.0, 2.0, 1.0, 0.0], [0.0, 3.0, 2.0, 1.0], n_orientations=4)
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('angle of the shift (degrees)', 'distance')
    >>> [text.get_text() for text in figure.legends[0].get_texts()][:3]
    ['linear shift', 'T = 0.5', 'T = 1']
    """
    import torch

    from december_plugin.rotation.shifts import checked_readouts, relaxed_weights, shifted, weighted_shifts

    if not temperatures:
        raise SettingsError("there are no temperatures; at least one relaxed shift is needed next to the linear one.")
    for temperature in temperatures:
        check_number("temperatures", temperature, minimum=0)
    pair = [np.asarray(vector, dtype=np.float64).reshape(1, -1) for vector in (fixed, other)]
    by_orientation = checked_readouts(np.concatenate(pair), n_orientations)
    angles = np.linspace(0, 2 * np.pi, _N_ANGLES)
    linear = shifted(np.repeat(pair[1], _N_ANGLES, axis=0), angles, n_orientations)
    curves = {}
    for temperature in sorted(temperatures):
        weights = relaxed_weights(torch.from_numpy(angles), float(temperature), n_orientations)
        moved = weighted_shifts(torch.from_numpy(by_orientation[1:]), weights).numpy().reshape(_N_ANGLES, -1)
        curves[temperature] = np.linalg.norm(moved - pair[0], axis=1)
    styles = ordered_styles(curves)
    handles = [Line2D([], [], color=INK, linewidth=1.6, label="linear shift")]
    handles += [Line2D([], [], color=style.color, label=f"T = {value:g}") for value, style in styles.items()]
    with figure_style():
        figure, (ax,) = panel_row(1, handles, handle_length=2.0)
        degrees = np.rad2deg(angles)
        for value, curve in curves.items():
            ax.plot(degrees, curve, color=styles[value].color, linewidth=1.2, label=f"T = {value:g}")
        ax.plot(degrees, np.linalg.norm(linear - pair[0], axis=1), color=INK, linewidth=1.6, label="linear shift")
        ax.set(xlim=(0, 360), xticks=range(0, 361, 90), ylim=(0, None))
        ax.set_xlabel("angle of the shift (degrees)")
        ax.set_ylabel("distance")
        title_panel(ax, "", "Relaxed shifts", "distance between two vectors, one of them shifted")
    return figure

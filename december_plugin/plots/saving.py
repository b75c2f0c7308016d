"""Write figures to files, the same bytes for the same figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError, did_you_mean

PNG_DPI = 200
# matplotlib writes the time of saving unless told not to.
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_RC: Any = {
    # Identifiers inside of an SVG file are random otherwise.
    "svg.hashsalt": "december_plugin",
    # Text stays text: it can be searched, read out and edited.
    "svg.fonttype": "none",
    # Hinted letters have other widths at every resolution, so that labels would not fit where the layout put them.
    "text.hinting": "none",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


def save_figure(figure: Figure, folder: str | Path, name: str, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure in one or several formats; existing files are replaced.

    Saving fixes the layout of the figure: panels no longer move when it is drawn again.

    Parameters
    ----------
    figure
        The figure.
    folder
        Folder of the files; created if it does not exist.
    name
        File name without the ending.
    formats
        Endings without the dot: "png" (200 dots per inch), "svg", "pdf" and all others that matplotlib can write. SVG
        and PDF files carry no date and no random identifiers: the same figure gives the same bytes.

    Returns
    -------
    list of Path
        The files, in the order of ``formats``.

    Raises
    ------
    SettingsError
        If the name is not a plain file name, a format is unknown, or the folder cannot be written to.

    See Also
    --------
    december_plugin.plots.agreement_figure : Draws one of the figures that can be saved.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from december_plugin.plots import save_figure
    >>> figure, ax = plt.subplots()
    >>> [path.name for path in save_figure(figure, "figures", "empty")]
    ['empty.png', 'empty.svg']
    """
    folder = Path(folder)
    if not name or name != Path(name).name or name in (".", ".."):
        raise SettingsError(f"the name of a figure is {name!r}; it must be a file name without folder or ending.")
    if isinstance(formats, str):
        raise SettingsError(f"formats is {formats!r}; it must be a sequence, e.g. ({formats!r},).")
    supported = figure.canvas.get_supported_filetypes()
    for ending in formats:
        if ending not in supported:
            raise SettingsError(f"figures cannot be saved as {ending!r}. {did_you_mean(str(ending), supported)}")
    paths = [folder / f"{name}.{ending}" for ending in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(_RC):
            _settle(figure)
            for path, ending in zip(paths, formats, strict=True):
                figure.savefig(path, format=ending, dpi=PNG_DPI, metadata=_UNDATED.get(ending))
    except OSError as error:
        raise SettingsError(
            f"the figure {name} cannot be written to {folder}: {error.strerror or error}. Choose a folder that exists "
            "or can be created, and that you may write to."
        ) from error
    return paths


def _settle(figure: Figure) -> None:
    """Lay a figure out once and for all.

    A layout engine works whenever the figure is drawn, each time from the layout before and for the resolution of the
    file, so that saving twice would give two different files.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")

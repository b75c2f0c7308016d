"""One style for all figures, and one colour, marker and line for every method.

Colours of methods and of the first groups are those of Okabe and Ito ("Color universal design", 2008) where possible;
markers and line styles carry the same information, so that a figure can be read in grey.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb

from december_plugin.clustering.methods import METHODS
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method

Dashes = tuple[float, tuple[float, ...]]
# Labels with the methods that they stand for; one that is a text, or has no method, is just a name.
Methods = Mapping[str, Method | str] | Iterable[str]

INK = "#333333"
PALE = "#C9C9C9"
NOTE = "#6F6F6F"

_RC: Any = {
    # Names come from people: a dollar in one is a dollar, and never the beginning of a formula or of LaTeX.
    "text.parse_math": False,
    "text.usetex": False,
    # Comes with matplotlib, so that a figure has the same letters on every machine.
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 16.0,
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.facecolor": "white",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "text.hinting": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
}

# Colours of groups of neurons. After the first twelve, each colour was chosen as the one furthest from all before it,
# in OKLab, for normal, deuteranope and protanope vision together; none is near grey, which means "no label".
GROUP_COLORS: tuple[str, ...] = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288", "#D8C25A"),
    *("#8C564B", "#8F6BC1", "#054205", "#42F0DB", "#FAB3FA", "#05576B", "#056B05", "#42C794", "#FA9E9E", "#75389E"),
    *("#6B050F", "#422E4D", "#DB8AF0", "#0594E6", "#A8428A", "#6B4205", "#2E7575", "#6B8005", "#C7576B", "#F0756B"),
    *("#8AF094", "#618A9E", "#94C7D1", "#75A8A8", "#FAC7A8", "#8ABD42", "#6B1A75", "#1A5738", "#054DA8", "#BDA875"),
    *("#A82E05", "#9E8AD1", "#9E8057", "#D19EC7", "#6B5775", "#B3C79E", "#38B361", "#A8DBFA", "#1A804D", "#4D75DB"),
)

# Colour and marker of each kind of method; every one of december_plugin.clustering.methods needs them.
_FAMILIES: dict[str, tuple[str, str]] = {
    "december": ("#0072B2", "o"),
    "gmm": ("#D55E00", "s"),
    "kmeans": ("#009E73", "^"),
    "t_mixture": ("#B5578F", "D"),
    "ward": ("#8C6D1F", "p"),
    "t_neb": ("#6A8F00", "d"),
    "hdbscan": ("#3B3FA0", "h"),
    "dec": ("#E69F00", "v"),
    "baseline": ("#4D4D4D", "X"),
}
# A model with another core; a method on its readouts has the method's colour and its own line.
_OTHER_CORE = ("#8C564B", "P")
_OTHER_CORE_LINE: Dashes = (0, (6.0, 1.5, 1.2, 1.5))
# Lines and shades of spaces: long dashes are functional, dots are directions; and every space has another brightness.
_SPACES: dict[EmbeddingSpace, tuple[str | Dashes, str, float]] = {
    READOUT_SPACE: ("-", INK, 0.0),
    EmbeddingSpace(normalize="l2"): ((0, (1.0, 1.4)), "#FFFFFF", 0.4),
    EmbeddingSpace(space="functional"): ((0, (5.0, 1.2)), "#000000", 0.25),
    EmbeddingSpace(space="functional", normalize="l2"): ((0, (3.6, 1.0, 0.9, 1.0, 0.9, 1.0)), "#000000", 0.55),
}
_FUNCTIONAL_DECEMBER = "#8F6BE0"  # its own hue: a darker blue means a stronger loss
# Weak to strong, around the blue of strength "auto"; the markers are those of the decades.
_STRENGTH_COLORS = ("#7CBDE8", "#56B4E9", "#3A78C9", "#2B4FA8", "#1E2F78", "#14184A")
_FUNCTIONAL_STRENGTHS = ("#C7B6EC", "#AB93E0", "#8A69CF", "#6A45B3", "#482A85", "#2A1555")
_STRENGTH_MARKERS = ("<", ">", "v", "P", "h", "p", "*")
# Samples of viridis, without its lightest end, which a page does not show.
_ORDERED_COLORS = ("#440154", "#3E4A89", "#25848E", "#35B779", "#A5C32A")
_OTHER_COLORS = ("#8C564B", "#E69F00", "#6A51A3", "#6B8005", "#A61E3C", "#2E7575", "#7A5C00")
_MARKERS = ("o", "s", "^", "D", "v", "X", "P", "p", "h", "<", ">", "d", "8", "*")

# If one method occurs several times, e.g. with several K.
_VARIANT_LINES: tuple[str | Dashes, ...] = ("-", (0, (1.0, 1.1)), (0, (5, 1.2, 1.2, 1.2)), (0, (4, 1, 1, 1, 1, 1)))
# Shades end at the 5th variation, markers and lines together repeat after 28 more.
_N_VARIANTS = 33


@dataclass(frozen=True)
class MethodStyle:
    """How one method is drawn, in every figure.

    Attributes
    ----------
    color
        Hexadecimal colour.
    marker
        matplotlib's name of the marker.
    linestyle
        "-" for a method, "--" for a control, "-." for DECEMber with a constant target; a pattern of dashes for every
        space other than that of the readout vectors, and where :func:`method_styles` distinguishes methods that would
        look the same.
    linewidth, markersize
        In points.
    filled
        Whether the marker is filled; controls have hollow ones.
    zorder
        DECEMber is drawn above the others.

    See Also
    --------
    method_style : Returns the style of a method.

    Examples
    --------
    >>> from december_plugin.plots import MethodStyle
    >>> style = MethodStyle("#0072B2", "o", filled=False)
    >>> style.line_settings()["markerfacecolor"]
    'white'
    """

    color: str
    marker: str
    linestyle: str | Dashes = "-"
    linewidth: float = 1.3
    markersize: float = 5.0
    filled: bool = True
    zorder: float = 3.0

    def line_settings(self) -> dict[str, Any]:
        """Return the keyword arguments of ``Axes.plot`` for a line with markers."""
        return {
            "color": self.color,
            "linestyle": self.linestyle,
            "linewidth": self.linewidth,
            "marker": self.marker,
            "markersize": self.markersize,
            "markerfacecolor": self.color if self.filled else "white",
            # A white edge would leave little of a cross.
            "markeredgecolor": "white" if self.filled and self.marker not in ("P", "X") else self.color,
            "markeredgewidth": 0.6 if self.filled else 1.2,
            "zorder": self.zorder,
        }


def figure_style() -> AbstractContextManager[None]:
    """Return the context in which a figure is made; matplotlib's settings are as before when it ends."""
    return matplotlib.rc_context(_RC)


def method_style(method: Method | str) -> MethodStyle:
    """Return the style of a method, the same in every figure and every process.

    DECEMber has blues and thick lines: strength "auto" the blue of Okabe and Ito, a number a shade that is darker the
    stronger the clustering loss, with the marker of its decade. Every other kind has its own colour and marker.
    Controls have the colour of their method, a dashed line and hollow markers. In functional space colours are darker,
    DECEMber's are violets, and lines have long dashes. Directions have dotted lines, or two dots between the dashes,
    and colours that are paler, or darker still. For aligned vectors, colours are darker, too, and lines thicker.

    Parameters
    ----------
    method
        The method; or just a name, from whose text colour and marker are derived.

    Returns
    -------
    MethodStyle
        Its style.

    See Also
    --------
    method_styles : Returns the styles of all methods of a figure, each different.
    december_plugin.evaluation.Method : Describes a method.

    Examples
    --------
    >>> from december_plugin.evaluation.methods import Method
    >>> from december_plugin.plots import method_style
    >>> method_style(Method("december")).color, method_style(Method("kmeans")).marker
    ('#0072B2', '^')
    >>> method_style(Method("kmeans", role="control")).linestyle
    '--'
    """
    if isinstance(method, str):
        return MethodStyle(*_of_a_name(method))
    if method.kind in _FAMILIES:
        color, marker = _FAMILIES[method.kind]
    elif method.kind in METHODS:
        raise NotImplementedError(f"the method {method.kind!r} has no colour and marker in {__name__}._FAMILIES.")
    else:
        color, marker = _OTHER_CORE if method.core else _of_a_name(method.kind)
    if method.kind == "december":
        color = _FUNCTIONAL_DECEMBER if method.space.is_functional else color
        scale = _FUNCTIONAL_STRENGTHS if method.space.is_functional else _STRENGTH_COLORS
        color, marker = _shade_of_strength(method.strength_number, color, marker, scale)
    line, towards, share = _SPACES[method.space]
    if share:
        color = _interpolated((color, towards), share)
    style = MethodStyle(color, marker, line)
    if method.kind == "december":
        style = replace(style, linewidth=2.1, markersize=6.0, zorder=5.0)
        if method.constant_target:
            style = replace(style, linestyle="-.")
    if method.core and method.kind in _FAMILIES:
        style = replace(style, linestyle=_OTHER_CORE_LINE, filled=False)
    if method.alignment is not None:
        style = replace(style, color=_interpolated((style.color, "#000000"), 0.35), linewidth=1.9)
    if method.is_control:
        style = replace(style, linewidth=0.8 * style.linewidth, filled=False, zorder=style.zorder - 0.5)
        # The line of another space says more than that of controls, whose markers are hollow already.
        style = replace(style, linestyle="--") if method.space == READOUT_SPACE else style
    return style


def method_styles(methods: Methods) -> dict[str, MethodStyle]:
    """Return the styles of the methods of one figure, no two of them alike as long as eyes can distinguish them.

    Each is that of :func:`method_style`, except where two would look the same (say, one method at two values of K):
    then the later ones, in the order of their labels, get a lighter or darker shade, another marker, and a pattern of
    dots and dashes. If more than 33 methods would look the same, the 34th looks like the first, and so on; figures show
    only a few methods (:func:`~december_plugin.plots.shown_methods`).

    Parameters
    ----------
    methods
        Labels to their methods, in the order in which methods of one kind are to be listed; or labels alone.

    Returns
    -------
    dict of str to MethodStyle
        By label, in the order of :func:`ordered_methods`.

    See Also
    --------
    method_style : Returns the style of one method.
    december_plugin.plots.shown_methods : Chooses the methods that a figure shows in colour.

    Examples
    --------
    >>> from december_plugin.evaluation.methods import Method
    >>> from december_plugin.plots import method_styles
    >>> styles = method_styles({"K = 5": Method("kmeans"), "K = 10": Method("kmeans"), "ours": Method("december")})
    >>> [(label, style.marker) for label, style in styles.items()]
    [('ours', 'o'), ('K = 5', '^'), ('K = 10', 'D')]
    """
    known = by_label(methods)
    styles: dict[str, MethodStyle] = {}
    taken: set[MethodStyle] = set()
    same: Counter[MethodStyle] = Counter()
    variants: dict[MethodStyle, list[MethodStyle]] = {}
    for label in sorted(known, key=natural_order):
        style = method_style(known[label])
        if style not in variants:
            variants[style] = [_variant(style, n) for n in range(_N_VARIANTS)]
        allowed = variants[style]
        free = (variant for variant in allowed if variant not in taken)
        styles[label] = next(free, allowed[same[style] % _N_VARIANTS])
        same[style] += 1
        taken.add(styles[label])
    return {label: styles[label] for label in ordered_methods(known)}


def ordered_methods(methods: Methods) -> list[str]:
    """Return labels, each once, in the order of every legend: DECEMber, the other methods by kind, then the controls.

    Labels of one kind stay in the order in which they come; those that are just names come before the controls.
    """
    known = by_label(methods)
    return sorted(known, key=lambda label: as_method(known[label]).order)


def by_label(methods: Methods) -> dict[str, Method | str]:
    """Return labels with the methods that they stand for, or themselves."""
    return dict(methods) if isinstance(methods, Mapping) else {label: label for label in methods}


def as_method(method: Method | str) -> Method:
    """Return a method; a name is its own kind."""
    return method if isinstance(method, Method) else Method("")


def ordered_styles(values: Iterable[Any]) -> dict[Any, MethodStyle]:
    """Return styles of values that have an order, e.g. lengths of the pretraining: dark to light, each with its marker.

    Parameters
    ----------
    values
        Numbers; the same set of values has the same styles in every figure.
    """
    values = sorted(set(values))
    positions = [i / max(len(values) - 1, 1) for i in range(len(values))]
    return {
        value: MethodStyle(_interpolated(_ORDERED_COLORS, position), _MARKERS[i % len(_MARKERS)], zorder=4.0)
        for i, (value, position) in enumerate(zip(values, positions, strict=True))
    }


def lighter(color: str) -> str:
    """Return a paler shade of a colour."""
    return _interpolated((color, "#FFFFFF"), 0.45)


def natural_order(value: Any) -> tuple[tuple[int, float, str], ...]:
    """Return a sort key that puts numbers in numerical order, even within text: "K 9" before "K 10"."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return tuple((0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts))


def group_colors(n_groups: int) -> list[str]:
    """Return one colour per group; beyond 50 groups the colours repeat."""
    return [GROUP_COLORS[i % len(GROUP_COLORS)] for i in range(n_groups)]


def check_text(value: Any, what: str) -> str:
    """Return a label, or raise a :class:`SettingsError` if it is not a text that can be shown."""
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{what} is {value!r}; it must be a text that the figure can show.")
    return value


def _of_a_name(name: str) -> tuple[str, str]:
    """Return the colour and the marker of something that is just a name."""
    # hash() of a text differs between processes.
    code = zlib.crc32(name.strip().lower().encode())
    n_colors = len(_OTHER_COLORS)
    return _OTHER_COLORS[code % n_colors], _MARKERS[code // n_colors % len(_MARKERS)]


def _shade_of_strength(strength: float, color: str, marker: str, scale: tuple[str, ...]) -> tuple[str, str]:
    if math.isnan(strength):
        return color, marker
    if strength == 0:
        return scale[0], marker
    decade = min(max(math.log10(strength), -2.0), 4.0)
    return _interpolated(scale, (decade + 2) / 6), _STRENGTH_MARKERS[round(decade + 2)]


def _interpolated(colors: tuple[str, ...], position: float) -> str:
    at = np.clip(position, 0.0, 1.0) * (len(colors) - 1)
    channels = np.array([to_rgb(color) for color in colors]).T
    red, green, blue = (float(np.interp(at, np.arange(len(colors)), channel)) for channel in channels)
    return to_hex((red, green, blue))


def _variant(style: MethodStyle, n: int) -> MethodStyle:
    """Return the style itself (n = 0), or its n-th variation: lighter, darker, still lighter, ..."""
    if n == 0:
        return style
    towards = "#FFFFFF" if n % 2 else "#000000"
    color = _interpolated((style.color, towards), min(0.25 + 0.15 * ((n + 1) // 2), 0.7))
    position = _MARKERS.index(style.marker)
    style = replace(style, color=color, marker=_MARKERS[(position + n) % len(_MARKERS)])
    return replace(style, linestyle=_VARIANT_LINES[n % len(_VARIANT_LINES)]) if style.linestyle == "-" else style

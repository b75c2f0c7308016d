"""Small pictures of lines and markers for the page's legends."""

from __future__ import annotations

import math

from december_plugin.plots.style import MethodStyle

_CX, _CY, _R = 15.0, 7.0, 4.6
_POLYGONS = {"^": (3, -90.0), "v": (3, 90.0), "<": (3, 180.0), ">": (3, 0.0), "D": (4, 0.0), "d": (4, 0.0)}
_POLYGONS |= {"s": (4, 45.0), "p": (5, -90.0), "h": (6, -90.0), "8": (8, 22.5)}
_DASHES = {"-": "", "--": "5 3", "-.": "5 2 1 2"}


def swatch(style: MethodStyle) -> str:
    """Return an SVG element of a line with the marker of a style; it holds no text from anywhere."""
    line = f'<line x1="0" y1="{_CY:g}" x2="{2 * _CX:g}" y2="{_CY:g}" {line_settings(style)}/>'
    return (
        f'<svg class="swatch" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">{line}'
        f'<g transform="translate({_CX:g} {_CY:g})">{marker_shape(style)}</g></svg>'
    )


def line_swatch(color: str) -> str:
    """Return an SVG element of a thin line without a marker."""
    line = f'<line x1="0" y1="{_CY:g}" x2="{2 * _CX:g}" y2="{_CY:g}" stroke="{color}" stroke-width="1.5"/>'
    return f'<svg class="swatch" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">{line}</svg>'


def line_settings(style: MethodStyle) -> str:
    """Return the attributes of the line of a method."""
    if isinstance(style.linestyle, str):
        dash = _DASHES.get(style.linestyle, "1 2")
    else:
        dash = " ".join(f"{style.linewidth * length:.1f}" for length in style.linestyle[1])
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{style.color}" stroke-width="{style.linewidth:g}"{dashes}'


def marker_shape(style: MethodStyle) -> str:
    """Return the SVG element of the marker of a method, around the origin."""
    fill = style.color if style.filled else "#ffffff"
    paint = f'fill="{fill}" stroke="{style.color}" stroke-width="1.4"'
    marker = style.marker
    if marker in _POLYGONS:
        n, start = _POLYGONS[marker]
        narrow = 0.6 if marker == "d" else 1.0
        angles = [math.radians(start + 360.0 * i / n) for i in range(n)]
        points = [(narrow * _R * math.cos(angle), _R * math.sin(angle)) for angle in angles]
    elif marker == "*":
        angles = [math.radians(-90.0 + 36.0 * i) for i in range(10)]
        radii = [_R * (1.15 if i % 2 == 0 else 0.5) for i in range(10)]
        points = [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    elif marker in ("X", "P"):
        points = _cross(45.0 if marker == "X" else 0.0)
    else:
        return f'<circle r="4" {paint}/>'
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{listed}" {paint}/>'


def _cross(turn: float) -> list[tuple[float, float]]:
    arm, half = _R, 1.6
    corners = [(half, -arm), (half, -half), (arm, -half), (arm, half), (half, half), (half, arm)]
    corners += [(-x, -y) for x, y in corners]
    angle = math.radians(turn)
    c, s = math.cos(angle), math.sin(angle)
    return [(c * x - s * y, s * x + c * y) for x, y in corners]

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
    dash = _DASHES.get(style.linestyle, "1 2") if isinstance(style.linestyle, str) else "1 2"
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    line = (
        f'<line x1="0" y1="{_CY:g}" x2="{2 * _CX:g}" y2="{_CY:g}" stroke="{style.color}" '
        f'stroke-width="{style.linewidth:g}"{dashes}/>'
    )
    fill = style.color if style.filled else "#ffffff"
    paint = f'fill="{fill}" stroke="{style.color}" stroke-width="1.4"'
    return (
        f'<svg class="swatch" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">{line}'
        f"{_marker(style.marker, paint)}</svg>"
    )


def _marker(marker: str, paint: str) -> str:
    if marker in _POLYGONS:
        n, start = _POLYGONS[marker]
        narrow = 0.6 if marker == "d" else 1.0
        angles = [math.radians(start + 360.0 * i / n) for i in range(n)]
        points = [(_CX + narrow * _R * math.cos(angle), _CY + _R * math.sin(angle)) for angle in angles]
    elif marker == "*":
        angles = [math.radians(-90.0 + 36.0 * i) for i in range(10)]
        radii = [_R * (1.15 if i % 2 == 0 else 0.5) for i in range(10)]
        points = [(_CX + r * math.cos(a), _CY + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    elif marker in ("X", "P"):
        points = _cross(45.0 if marker == "X" else 0.0)
    else:
        return f'<circle cx="{_CX:g}" cy="{_CY:g}" r="4" {paint}/>'
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{listed}" {paint}/>'


def _cross(turn: float) -> list[tuple[float, float]]:
    arm, half = _R, 1.6
    corners = [(half, -arm), (half, -half), (arm, -half), (arm, half), (half, half), (half, arm)]
    corners += [(-x, -y) for x, y in corners]
    angle = math.radians(turn)
    c, s = math.cos(angle), math.sin(angle)
    return [(_CX + c * x - s * y, _CY + s * x + c * y) for x, y in corners]

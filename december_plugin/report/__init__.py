"""The report: one HTML file that says what the tables hold, and what they do not.

:func:`december_plugin.report.render.render_report` makes the page from what :mod:`december_plugin.findings.data`
describes. Nothing here reads a database: :mod:`december_plugin.results.report` does.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.report.render import render_report as render_report

_NAMES = {
    "render": ["render_report"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)

"""The report: one HTML file that says what the tables hold, and what they do not.

:mod:`december_plugin.findings.data` is what a report is made from, :func:`december_plugin.report.render.render_report`
makes the page. Nothing in here reads a database: :mod:`december_plugin.results.report` does.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.report.render import render_report as render_report

_NAMES = {
    "render": ["render_report"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)

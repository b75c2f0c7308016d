"""The report: one HTML file that says what the tables hold, and what they do not.

:mod:`december_plugin.answer.data` is what a report is made from, :func:`december_plugin.report.render.render_report`
makes the page. Nothing in here reads a database: :mod:`december_plugin.results.report` does.
"""

from december_plugin.answer.data import Analysis, Chosen, Embedding, ReportData
from december_plugin.report.render import render_report

__all__ = ["Analysis", "Chosen", "Embedding", "ReportData", "render_report"]

"""The packages that made a report."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("december-plugin", "nnfabrik", "neuralpredictors", "datajoint", "torch", "numpy", "scipy", "scikit-learn"),
    *("pandas", "matplotlib", "plotly", "openTSNE", "jinja2"),
)


def installed_packages() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, where they are installed."""
    found = {"Python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

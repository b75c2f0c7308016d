"""Versions of installed packages, also where one of them is a source tree, or is not needed and not there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "0+unknown"


def installed_version(name: str) -> str:
    """Return the version of a distribution, such as "december-plugin"; :data:`UNKNOWN` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN

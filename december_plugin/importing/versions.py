"""Versions of installed packages, including source trees and packages that are not installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "0+unknown"


def installed_version(name: str) -> str:
    """Return the version of a distribution, such as "december-plugin"; :data:`UNKNOWN` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN

"""The packages that made a report."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def source_commit() -> str:
    """Return the commit of december's source tree, with " with changes" if it has some; "" if it is not one of git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed from a wheel
        return ""
    try:
        import git

        with git.Repo(root) as repository:
            changes = " with changes" if repository.is_dirty() else ""
            return f"{repository.head.commit.hexsha}{changes}"
    except Exception:  # no git program, someone else's tree, no commit yet
        return ""

"""Print the changelog's section of a release, after checking that tag, version and date agree.

python scripts/release_notes.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version_of_setup(root: Path = ROOT) -> str:
    """Return the version in ``setup.py``, the only place that has it."""
    (found,) = re.findall(r'^VERSION = "(.+)"$', (root / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    return found


def release_notes(tag: str, root: Path = ROOT) -> str:
    """Return the changelog's section of a release.

    Raises
    ------
    ValueError
        If the tag is not the version of ``setup.py``, or ``CITATION.cff`` or the changelog do not have it, with a date.
    """
    version = version_of_setup(root)
    if tag != f"v{version}":
        raise ValueError(
            f"the tag is {tag}, but setup.py has the version {version}: tag v{version}, or change setup.py."
        )
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        raise ValueError(f"CITATION.cff does not have version {version}.")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None:
        raise ValueError(
            f"CHANGELOG.md has no section `## {version} (YYYY-MM-DD)`: replace its (unreleased) by the date."
        )
    return section[2].strip()


if __name__ == "__main__":
    try:
        print(release_notes(*sys.argv[1:]))
    except (TypeError, ValueError) as error:
        sys.exit(f"release_notes: {error}")

"""``python -m chaoslab.enter SCHEMA SWEEP``: enters the user as a lab does once, then runs ``december register``."""

from __future__ import annotations

import sys


def main(schema: str, sweep_file: str) -> int:
    """Make the tables, enter the database user, register the sweep."""
    from december_plugin.cli import main as december
    from december_plugin.lab import open_lab

    lab = open_lab(schema=schema)
    user = {"fabrikant_name": "chaos", "email": "", "affiliation": "", "dj_username": "december"}
    lab.nnfabrik.Fabrikant.insert1(user, skip_duplicates=True)
    return december(["register", sweep_file, "--schema", schema])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

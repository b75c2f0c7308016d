"""``python -m chaoslab.plain SCHEMA``: DataJoint's own loop, to compare with."""

from __future__ import annotations

import sys


def main(schema: str) -> None:
    """Populate the trained models."""
    from december_plugin.schemas.lab import open_lab

    open_lab(schema=schema, create=False).tables.TrainedModel.populate(reserve_jobs=True)


if __name__ == "__main__":
    main(sys.argv[1])

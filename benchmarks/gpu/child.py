"""Run one part in this process, and write its rows to a file as they come: one JSON object on each line."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="module of the part")
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rows", type=Path, required=True, help="file to write")
    arguments = parser.parse_args(argv)
    part = importlib.import_module(arguments.module)
    with arguments.rows.open("w", encoding="utf-8") as file:
        for row in part.measure(arguments.device, tiny=arguments.tiny):
            print(json.dumps(row.to_json()), file=file, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

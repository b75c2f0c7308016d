#!/usr/bin/env python3
"""Finds imports of private names (``_name``) of december's modules by other modules, and fails if there are any.

Ruff's rule for that (PLC2701) ignores imports within one package. ::

    scripts/private_names.py FOLDER...
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "december_plugin"


def private_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every private module or name that is imported from the package."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == PACKAGE and any(part.startswith("_") and not part.endswith("__") for part in parts):
                yield node.lineno, name


def main(folders: list[str]) -> int:
    """Print the private imports found below the folders; return the exit code."""
    code = 0
    for file in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
        for line, name in private_imports(ast.parse(file.read_text(encoding="utf-8"))):
            print(f"{file}:{line}: {name} is private to its module: give it a public name, or move it")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

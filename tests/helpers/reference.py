"""Which names the documentation's reference lists, and the sections of their docstrings."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


@functools.cache
def reference() -> ModuleType:
    """Return the settings of the documentation's site, which say what the reference lists."""
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_objects() -> dict[str, Any]:
    """Return all public classes and functions by the path at which they are defined."""
    found = dict(reference().public_objects().values())
    return {path: value for path, value in found.items() if inspect.isclass(value) or inspect.isroutine(value)}


def sections(docstring: str | None) -> dict[str, str]:
    """Return the sections of a docstring in numpydoc's form, by their titles; the text before them is not included."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    return {title: text.strip("\n") for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def see_also(docstring: str | None) -> list[str]:
    """Return the names in the section See Also: one a line, or several separated by commas, before `` : ``."""
    lines = [line for line in sections(docstring).get("See Also", "").split("\n") if line and not line.startswith(" ")]
    return [name.strip() for line in lines for name in line.split(" : ")[0].split(",")]

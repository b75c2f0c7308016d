"""The examples in the docstrings of public names: which there are, what each needs, and running them.

The names are those that the documentation's reference lists. An example needs the database if its name is defined in
one of ``DATABASE_ROOMS``, or if it calls ``open_lab``; it is then run by ``tests/integration/test_examples.py``, and
otherwise by ``tests/unit/test_examples.py``.
"""

from __future__ import annotations

import doctest
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from helpers.reference import public_objects

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
DATABASE_ROOMS = ("bundles", "database", "intake", "pool", "results", "schemas", "sharing")
# Packages that the tests can do without, and the names whose examples need them.
EXTRAS = {
    "anndata": ("december_plugin.bundles.annotated.annotated_neurons",),
    # Run by tests/retina, which writes the recordings that they read; openretina brings torchvision, too.
    "openretina": (
        "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_loaders",
        "december_plugin.datasets.hoefling_2024.loaders.hoefling_2024_types",
        "december_plugin.datasets.sridhar_2025.loaders.sridhar_2025_loaders",
        "december_plugin.models.attention.task_core_attention_readout",
        "december_plugin.models.hoefling.hoefling_core_gaussian_readout",
    ),
}


def examples_without_database() -> list[doctest.DocTest]:
    """Return the examples that need no database and no extra."""
    return [test for test in _examples() if not _needs_database(test) and not _needs_extra(test)]


def examples_with_database() -> list[doctest.DocTest]:
    """Return the examples that need the database and no extra."""
    return [test for test in _examples() if _needs_database(test) and not _needs_extra(test)]


def examples_of_extra(package: str) -> list[doctest.DocTest]:
    """Return the examples that need one of the packages of ``EXTRAS``, one for each name."""
    found = {test.name: test for test in _examples()}
    return [found[name] for name in EXTRAS[package]]


def failures_of(test: doctest.DocTest, folder: Path, *, fill: Callable[[Path], object] | None = None) -> str:
    """Run an example in a new folder, which ``fill`` fills; return what went wrong, "" if nothing did."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    before = Path.cwd()
    folder.mkdir(parents=True)
    if fill is not None:
        fill(folder)
    os.chdir(folder)
    try:
        found = runner.run(test, out=said.append)
    finally:
        os.chdir(before)
    return "".join(said) if found.failed else ""


def skipped_lines(tests: Iterable[doctest.DocTest]) -> list[str]:
    """Return the lines that doctest is told to leave out."""
    return [
        f"{test.name}: {example.source.strip()}"
        for test in tests
        for example in test.examples
        if example.options.get(doctest.SKIP)
    ]


def _examples() -> list[doctest.DocTest]:
    """Return the examples of all public names and of their methods, each once."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), {}
    for path, value in public_objects().items():
        for test in finder.find(value, path, module=False, globs={}):
            if test.examples:
                found[test.name] = test
    return list(found.values())


def _needs_database(test: doctest.DocTest) -> bool:
    is_in_room = test.name.startswith(tuple(f"december_plugin.{room}." for room in DATABASE_ROOMS))
    opens_lab = any("open_lab(" in example.source for example in test.examples)
    return is_in_room or opens_lab


def _needs_extra(test: doctest.DocTest) -> bool:
    return any(test.name in names for names in EXTRAS.values())

"""Docstrings of public names have an example and public names to see also; references are in the bibliography."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sklearn.base import BaseEstimator

from helpers.reference import ROOT, public_objects, reference, sections, see_also

PUBLIC = public_objects()
AUTHOR = r"(?:[A-Z](?=, )|[A-Z][\w'-]+[a-z])"
# "Gower 1975", "Hubert and Arabie (1985)", "Baden et al. 2016", "Ritzert, Turishcheva et al. 2025"
CITATION = re.compile(rf"\b({AUTHOR})(?:, {AUTHOR})*(?:,? and {AUTHOR},?| et al\.?,?)? \(?((?:19|20)\d\d)\b")


def needs_see_also(value: Any) -> bool:
    """Functions and estimators do; other classes are linked from the functions that take or return them."""
    return not inspect.isclass(value) or issubclass(value, BaseEstimator)


def plain(text: str) -> str:
    """Return text without markup, links as their addresses, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"\[[^]]*\]\(([^)]*)\)", r"\1", text)).strip()


def bibliography() -> list[str]:
    """Return the entries of the bibliography."""
    page = (ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8")
    return [plain(entry) for entry in re.findall(r"^- (.*?)(?=^\S|\Z)", page, flags=re.MULTILINE | re.DOTALL)]


def with_members(value: Any) -> list[Any]:
    """Return an object and, of a class, its methods and properties."""
    return [value, *(vars(value).values() if inspect.isclass(value) else ())]


def test_every_public_name_has_an_example():
    missing = [path for path, value in PUBLIC.items() if ">>>" not in sections(value.__doc__).get("Examples", "")]
    assert missing == []


def test_public_functions_and_estimators_say_what_else_to_see():
    missing = [path for path, value in PUBLIC.items() if needs_see_also(value) and not see_also(value.__doc__)]
    assert missing == []


def test_names_to_see_are_public():
    unknown = [
        f"{path}: {name}"
        for path, value in PUBLIC.items()
        for member in with_members(value)
        for name in see_also(getattr(member, "__doc__", None))
        if reference().find_public(name, value.__module__) in {None, path}
    ]
    assert unknown == []


def test_references_are_entries_of_the_bibliography():
    entries = bibliography()
    unknown = [
        f"{path}: {text}"
        for path, value in PUBLIC.items()
        for text in map(plain, filter(None, sections(value.__doc__).get("References", "").split("\n\n")))
        if not any(entry.startswith(text.rstrip(".")) for entry in entries)
    ]
    assert unknown == []


def test_citations_are_in_the_bibliography():
    known = {(entry.split(" ", 1)[0], year) for entry in bibliography() for year in re.findall(r"\((\d{4})\)", entry)}
    unknown = []
    for file in sorted((ROOT / "december_plugin").rglob("*.py")):
        text = re.sub(r"\s*\n\s*#?\s*", " ", file.read_text(encoding="utf-8"))
        cited = {match.groups() for match in CITATION.finditer(text)}
        unknown += [f"{file.relative_to(ROOT)}: {' '.join(citation)}" for citation in sorted(cited - known)]
    assert unknown == []

"""The fenced blocks of the README and of the documentation, and the tests that claim them.

A test that runs or compares blocks takes them from ``claim``. ``claims`` finds all these calls in the sources of the
tests, so that ``tests/unit/test_every_block.py`` can tell which blocks no test has.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
SHELLS = ("bash", "sh")  # whose lines are claimed one by one
CELL = "{code-cell}"


@dataclass(frozen=True)
class Piece:
    """A block of a page, or one command of a block for the shell."""

    page: str
    line: int  # of its first line in the page
    language: str
    section: str  # the title above it
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"

    @property
    def words(self) -> list[str]:
        """The words of a command, without its comment."""
        return shlex.split(self.text, comments=True)

    def run(self, names: dict[str, Any]) -> None:
        """Run a block of Python; tracebacks show its lines in the page."""
        exec(compile("\n" * (self.line - 1) + self.text, str(ROOT / self.page), "exec"), names)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _commands(block: str, line: int) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of every command of a block, of which a backslash may continue one."""
    begun: list[str] = []
    for number, each in enumerate(block.splitlines(), line):
        begun.append(each)
        if each.endswith("\\"):
            continue
        text = "\n".join(begun).strip()
        if text and not text.startswith("#"):
            yield number + 1 - len(begun), text
        begun = []


@lru_cache
def pieces(page: str) -> tuple[Piece, ...]:
    """Return all blocks of a page, in their order; of blocks for the shell, all commands."""
    found: list[Piece] = []
    title, fence, language, start = "", "", "", 0
    lines = text_of(page).splitlines()
    for number, line in enumerate(lines, 1):
        if fence:
            if line.strip() != fence:
                continue
            fence = ""
            block = "\n".join(lines[start : number - 1]) + "\n"
            parts = list(_commands(block, start + 1)) if language in SHELLS else [(start + 1, block)]
            found += [Piece(page, first, language, title, text) for first, text in parts]
        elif opened := re.match(r"\s*(`{3,}|~{3,})\s*(\S*)", line):
            fence, language, start = opened[1], opened[2], number
        elif heading := re.match(r"#+ (.*)", line):
            title = heading[1]
    assert not fence, f"the block in line {start} of {page} has no end"
    return tuple(found)


def claim(
    pages: str | Iterable[str],
    language: str,
    *,
    section: str | None = None,
    starting: str | tuple[str, ...] = "",
    but: str | tuple[str, ...] = (),
) -> list[Piece]:
    """Return the blocks that the calling test checks.

    Parameters
    ----------
    pages : str or iterable of str
        Paths from the root of the repository.
    language : str
        Of the blocks, as it is behind the fence.
    section : str, optional
        The title above them.
    starting, but : str or tuple of str
        Only blocks, or commands, that begin with one of these, or with none of these.
    """
    pages = (pages,) if isinstance(pages, str) else tuple(pages)
    found = [piece for page in pages for piece in pieces(page) if piece.language == language]
    found = [piece for piece in found if section in (None, piece.section) and piece.text.startswith(starting)]
    found = [piece for piece in found if not piece.text.startswith(but)]
    assert found, f"no block of {pages} is claimed by {language!r}, {section!r}, {starting!r}, but {but!r}"
    return found


@dataclass(frozen=True)
class Claim:
    """One call of ``claim`` in the source of a test."""

    where: str
    pieces: tuple[Piece, ...]


def claims() -> list[Claim]:
    """Return what the tests claim, from their sources: arguments are literals, or constants of the module."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "pages.claim(" not in source:
            continue
        tree = ast.parse(source)
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pages.claim":
                values = [_literal(each, constants) for each in node.args]
                settings = {each.arg or "": _literal(each.value, constants) for each in node.keywords}
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append(Claim(where, tuple(claim(*values, **settings))))
    return found


def _literal(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    if isinstance(node, ast.Name):
        return _literal(constants[node.id], constants)
    if isinstance(node, ast.Tuple):
        return tuple(_literal(each, constants) for each in node.elts)
    return ast.literal_eval(node)

"""The messages that docs/troubleshooting.md quotes are those of the code."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

from helpers import pages

ROOT = Path(__file__).parents[2]
PAGE = pages.text_of("docs/troubleshooting.md")
QUOTED = pages.claim("docs/troubleshooting.md", "text")
# Of torch, whose messages are shown as they are.
OTHERS = ("OutOfMemoryError: CUDA out of memory",)
GAP = "\0"  # a value that is put in


def quoted() -> list[str]:
    return [line for block in QUOTED for line in block.text.splitlines() if line not in OTHERS]


@lru_cache
def templates() -> str:
    """Return all strings of the code, one per line, with a gap for each value that is put in."""
    sources = [
        path
        for folder in ("december_plugin", "schemas", "docker")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]
    found = []
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(\.\d+)?[sdgfr]", GAP, node.value))
    return "\n".join(text.replace("\n", " ") for text in found)


@pytest.mark.parametrize("message", quoted())
def test_message_is_in_the_code(message: str) -> None:
    fragments = [part.strip() for part in message.split("...") if part.strip(" ()[]'.,:;")]
    assert fragments, "a message of nothing but values"
    if re.search(r"[^\n]*?".join(map(re.escape, fragments)), templates()):
        return
    # Put together from several strings: each part must be in one of them, and be long enough to mean something.
    assert max(map(len, fragments)) > 20, message
    assert [part for part in fragments if part not in templates()] == []


def test_every_entry_says_what_it_means_and_what_to_do() -> None:
    entries = re.split(r"^```text\n.*?^```$", PAGE, flags=re.DOTALL | re.MULTILINE)[1:]
    assert len(entries) > 30
    for entry in entries:
        text = re.split(r"^#", entry, flags=re.MULTILINE)[0]
        assert "**Means and do:**" in text or ("**Means:**" in text), text
        assert "**Means and do:**" in text or "**Do:**" in text or "container ends" in text, text


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    for target in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert target in anchors, target

"""The tutorials of docs/tutorials run from their first cell to their last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import pages

SECONDS = {  # on an idle machine
    "docs/tutorials/from-recordings.md": 60,
    "docs/tutorials/on-your-cluster.md": 25,
    "docs/tutorials/reading-the-report.md": 15,
    "docs/tutorials/rotation-equivariant-models.md": 8,
    "docs/tutorials/trained-models.md": 12,
    "docs/tutorials/your-own-loop.md": 8,
}
CELLS = pages.claim(SECONDS, "{code-cell}")
LIMIT = 600  # of a cell, on a machine that does much else


def notebook(page: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(cell.text) for cell in CELLS if cell.page == page]
    return nbformat.v4.new_notebook(cells=cells)


def printed(cells: list[nbformat.NotebookNode]) -> str:
    outputs = [output for cell in cells for output in cell.outputs]
    return "\n".join(output.get("text", "") or str(output.get("data", "")) for output in outputs)


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow(s)) for page, s in SECONDS.items()])
def test_a_tutorial(page, tmp_path, monkeypatch):
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    folder = tmp_path / "folder"
    folder.mkdir()
    book = notebook(page)
    try:
        NotebookClient(book, timeout=LIMIT, resources={"metadata": {"path": str(folder)}}).execute()
    finally:  # where a cell fails, the last one, which stops the server, is not reached
        subprocess.run(["december", "db", "stop", "--force"], cwd=folder, check=False, capture_output=True)
    said = printed(book.cells)
    assert "error" not in said.lower().replace("standard error", ""), said
    assert said.strip()

"""The tutorials of docs/tutorials run from their first cell to their last."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
SECONDS = {  # on an idle machine
    "from-recordings": 60,
    "on-your-cluster": 25,
    "reading-the-report": 15,
    "rotation-equivariant-models": 8,
    "trained-models": 12,
    "your-own-loop": 8,
}
LIMIT = 600  # of a cell, on a machine that does much else


def notebook(page: str) -> nbformat.NotebookNode:
    cells = re.findall(r"^```\{code-cell\} python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def printed(cells: list[nbformat.NotebookNode]) -> str:
    outputs = [output for cell in cells for output in cell.outputs]
    return "\n".join(output.get("text", "") or str(output.get("data", "")) for output in outputs)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow(s)) for name, s in SECONDS.items()])
def test_a_tutorial(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    folder = tmp_path / "folder"
    folder.mkdir()
    book = notebook((FOLDER / f"{name}.md").read_text(encoding="utf-8"))
    try:
        NotebookClient(book, timeout=LIMIT, resources={"metadata": {"path": str(folder)}}).execute()
    finally:  # where a cell fails, the last one, which stops the server, is not reached
        subprocess.run(["december", "db", "stop", "--force"], cwd=folder, check=False, capture_output=True)
    said = printed(book.cells)
    assert "error" not in said.lower().replace("standard error", ""), said
    assert said.strip()


def test_all_tutorials_are_run():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(SECONDS)

"""The tests that need a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.rows import Row, Target
from benchmarks.gpu.running import ROOT

LIMIT_S = 95
MESSAGE = 100  # characters of a failure that are shown
MARK = re.compile(r"\bpytest\.mark\.gpu\b")


def marked_files(folder: Path = ROOT / "tests") -> list[Path]:
    """Return the test files with a test marked ``gpu``: the others may need packages that are missing."""
    return [file for file in sorted(folder.rglob("test_*.py")) if MARK.search(file.read_text(encoding="utf-8"))]


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    files = marked_files()
    if device == "cpu":  # each of them would be skipped
        yield Row("files with tests that need a GPU", len(files), "files", Target(at_least=1, everywhere=True))
        return
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junit-xml={result}"]
        subprocess.run([*pytest, *map(str, files)], cwd=ROOT, check=False)
        if not result.exists():
            raise SystemExit("pytest wrote no result.")
        suite = next(ElementTree.parse(result).getroot().iter("testsuite"))
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    yield Row("tests that passed", count["tests"] - bad - count["skipped"], "tests", Target(at_least=1))
    yield Row("tests that failed", bad, "tests", Target(at_most=0))
    yield Row("tests that were skipped", count["skipped"], "tests")
    yield from _failures(suite)


def _failures(suite: ElementTree.Element) -> Iterator[Row]:
    """Yield a row for each test that failed, with its message: the log may be out of reach."""
    for case in suite.iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.attrib.get('classname', '')}.{case.attrib.get('name', '')}"
            lines = problem.attrib.get("message", "").splitlines() or [""]
            yield Row(f"failed: {name}", 1, "tests", Target(at_most=0), lines[0][:MESSAGE])

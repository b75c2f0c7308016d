"""A part in its own process, with a time limit, and its outcome."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import Row

ROOT = Path(__file__).parents[2]
LAST_LINES = 5  # of the log of a part that failed


@dataclass(frozen=True)
class Part:
    """One part, known without importing it.

    Attributes
    ----------
    name
        As ``--only`` takes it.
    module
        Dotted name of the module.
    limit
        Seconds that it may take.
    title
        First sentence of the module's docstring.
    """

    name: str
    module: str
    limit: float
    title: str

    @classmethod
    def named(cls, name: str, *, package: str = "benchmarks.gpu.parts") -> Part:
        """Read limit and title from the source of a part."""
        module = f"{package}.{name}"
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{module} is not a module.")
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        limits = {
            target.id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id == "LIMIT_S"
        }
        title = (ast.get_docstring(tree) or name).split("\n")[0].rstrip(".")
        return cls(name, module, limits["LIMIT_S"], title)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part.

    Attributes
    ----------
    part
        Its name.
    seconds
        Its duration in seconds, including the start of its process.
    failure
        Why it did not finish, in words; empty if it did.
    rows
        Its measurements, up to the failure if there was one.
    """

    part: str
    seconds: float
    failure: str = ""
    rows: list[Row] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        rows = [row.to_json() for row in self.rows]
        return {"part": self.part, "seconds": round(self.seconds, 2), "failure": self.failure, "rows": rows}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Outcome:
        """Return the outcome that :meth:`to_json` wrote."""
        return cls(**{**values, "rows": [Row.from_json(row) for row in values["rows"]]})


def run_part(
    part: Part, *, device: str, tiny: bool, limit: float, folder: Path, environment: dict[str, str]
) -> Outcome:
    """Run a part in its own process, which is ended, with all that it started, after ``limit`` seconds.

    Its rows and its output go into ``folder``.
    """
    rows_file, log_file = folder / f"{part.name}.rows", folder / f"{part.name}.log"
    rows_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.child", part.module, "--device", device, "--rows", str(rows_file)]
    start = time.monotonic()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command + ["--tiny"] * tiny,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            failure = f"ended after its limit of {limit:.0f} s"
        else:
            failure = _failure(process.returncode, log_file)
        finally:
            _end(process)
    return Outcome(part.name, time.monotonic() - start, failure, _rows_of(rows_file))


def _end(process: subprocess.Popen) -> None:
    """End a process and everything that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(code: int, log: Path) -> str:
    if code == 0:
        return ""
    how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = " / ".join(line.strip() for line in lines[-LAST_LINES:])
    return f"{how}: {last}" if last else how


def _rows_of(file: Path) -> list[Row]:
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Row.from_json(json.loads(line)) for line in lines if line.endswith("\n")]  # the last may be cut off

"""How long commands that only read take from start to end, compared with the imports that they defer.

An embedded server with its own folder is started for the measurement and stopped afterwards. Each command is a fresh
process; its processor time is compared with that of a process that imports DataJoint and torch, which every command
needed before they were deferred. ``status`` and ``ari`` are measured again when 25,000 trainings are planned.

    python benchmarks/commands.py
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from typing import Any

from pool import open_tables
from tables import embedded_database

IMPORTS = "import datajoint, torch"
TARGET = 1.5  # s on an idle machine
READING = (
    "status",
    "jobs show",
    "pool status",
    "types list",
    "ari",
    "store status",
    "db status",
    "sweeps list",
    "--help",
)


def processor_time(*words: str, environment: dict[str, str], repeats: int) -> float:
    """Return the median processor time of a fresh Python process (s)."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def measure(home: str, commands: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Return the processor times of commands (s)."""
    environment = {**os.environ, "DECEMBER_HOME": home, "DECEMBER_SCHEMA": "benchmark"}
    settings: dict[str, Any] = {"environment": environment, "repeats": repeats}
    return {words: processor_time("-m", "december_plugin.cli", *words.split(), **settings) for words in commands} | {
        IMPORTS: processor_time("-c", IMPORTS, **settings)
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes for each number (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with embedded_database() as home:
        tables = open_tables()
        many = measure(home, ("status", "ari"), arguments.repeats)
        (tables.TrainingPlan & "seed > 0").delete_quick()
        few = measure(home, READING, arguments.repeats)
    print(f"processor time; {IMPORTS!r} alone takes {few[IMPORTS]:.2f} s\n")
    print(f"{'command':<30}{'time':>8}{'of the imports':>18}")
    for name, seconds in few.items():
        if name != IMPORTS:
            print(f"{name:<30}{seconds:>6.2f} s{seconds / few[IMPORTS]:>17.2f}x")
    for name in ("status", "ari"):
        label, beside = f"{name}, 25,000 planned", f"{many[name] / few[name]:.2f}x of {name}"
        print(f"{label:<30}{many[name]:>6.2f} s{many[name] / many[IMPORTS]:>17.2f}x, {beside}")
    print(f"target: at most {TARGET:g} s on an idle machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

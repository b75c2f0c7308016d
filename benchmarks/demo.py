"""Trainings per hour of the demonstration, everything counted: from `december demo` to the report.

It runs in its own folder on its own embedded server, which is stopped afterwards. Wall time depends on what else the
machine is doing, so the processor time of a training and the share of busy cores are printed, too. Options are those of
`december demo`. To compare two versions, run this in both, in turns.

    python benchmarks/demo.py
    python benchmarks/demo.py --seeds 1 2 --clusters 3 6 --draws 10
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from december_plugin.database.embedded import EmbeddedServer

OWN_SERVER = {"database.host": "localhost", "database.user": None, "database.password": None, "stores": {}}
LOOK_SECONDS = 1.0  # seconds between two measurements of the load
TRAININGS = "trainings registered"  # what the demonstration says of their number


def run_demo(home: str, options: list[str]) -> tuple[str, list[float]]:
    """Run the demonstration in a folder; return what it printed, and the machine's load during the run."""
    command = [sys.executable, "-m", "december_plugin.cli", "demo", "--folder", str(Path(home) / "demo"), *options]
    loads = []
    with (Path(home) / "output").open("w+", encoding="utf-8") as output:
        # Not in a lab's database: the settings of the folder in which it runs take precedence over the user's.
        (Path(home) / "dj_local_conf.json").write_text(json.dumps(OWN_SERVER), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
        environment["DECEMBER_HOME"] = home
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=home)
        while process.poll() is None:
            loads.append(os.getloadavg()[0])
            time.sleep(LOOK_SECONDS)
        output.seek(0)
        printed = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{printed}")
    return printed, loads


def processor_seconds() -> float:
    """Return the processor time of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def number_of_trainings(printed: str) -> int:
    """Return the number of trainings that the demonstration says it registered."""
    line = next(line for line in printed.splitlines() if line.endswith(TRAININGS))
    return int(line.removesuffix(TRAININGS).split()[-1])


def main(argv: list[str] | None = None) -> int:
    options = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(options):
        print(__doc__)
        return 0
    with tempfile.TemporaryDirectory(prefix="december_benchmark") as home:
        began, before = time.perf_counter(), processor_seconds()
        try:
            printed, loads = run_demo(home, options)
            wall, cpu = time.perf_counter() - began, processor_seconds() - before
        finally:
            EmbeddedServer(home).stop()
    n_trainings, cores = number_of_trainings(printed), len(os.sched_getaffinity(0))
    print(f"the demonstration: {n_trainings} trainings, their clusterings, nulls, figures and report; {cores} cores\n")
    print(f"trainings per hour           {3600 * n_trainings / wall:8.0f}")
    print(f"processor time of a training {cpu / n_trainings:8.2f} s, without the database server")
    print(f"all of it                    {wall:8.1f} s, {cpu:.1f} s of processor time")
    print(f"cores busy with it           {cpu / wall / cores:8.0%}, at a load average of {statistics.mean(loads):.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

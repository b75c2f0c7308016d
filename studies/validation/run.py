"""Runs the validation study, or what is left of it: ``python studies/validation/run.py --help``."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from pathlib import Path

from design import Condition, conditions, quick_conditions, tasks

DEFAULT_FOLDER = Path("build/validation")


def main() -> int:
    """Run all cells that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Then: python studies/validation/analyse.py")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="recordings and results (%(default)s)")
    parser.add_argument("--processes", type=int, default=max(1, os.cpu_count() or 1), help="default: one per core")
    parser.add_argument("--quick", action="store_true", help="takes a minute, shows only that it runs")
    parser.add_argument("--only", metavar="TEXT", default="", help="conditions whose name has this text")
    args = parser.parse_args()
    chosen = quick_conditions() if args.quick else conditions()
    chosen = [condition for condition in chosen if args.only in condition.name]
    if not chosen:
        parser.error(f"no condition's name has {args.only!r}; names begin with types, unequal or continuum.")
    return run(args.folder.resolve(), chosen, args.processes)


def run(folder: Path, chosen: list[Condition], processes: int) -> int:
    """Run the cells of these conditions in this many processes; 1 if one of them failed."""
    from cells import result_path

    cells = tasks(chosen)
    left = [(folder, *cell) for cell in cells if not result_path(folder, *cell).exists()]
    print(f"{len(cells)} cells, {len(left)} of them left; results in {folder / 'cells'}", flush=True)
    began, failed = time.monotonic(), 0
    # Spawned, so that no process inherits the threads of another's torch.
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=8) as pool:
        for number, (name, error) in enumerate(pool.imap_unordered(_run, left), start=1):
            failed += error is not None
            said = f"FAILED: {error}" if error else "done"
            print(f"{time.monotonic() - began:7.0f} s  {number}/{len(left)}  {name}  {said}", flush=True)
    return int(failed > 0)


def _run(cell: tuple[Path, Condition, int]) -> tuple[str, str | None]:
    warnings.filterwarnings("ignore", message="the clustering loss is so strong")  # strength 100 is meant
    from cells import run_cell

    folder, condition, seed = cell
    try:
        run_cell(folder, condition, seed)
    except Exception as error:  # the other cells are still useful
        return f"{condition.name}, seed {seed}", f"{type(error).__name__}: {error}"
    return f"{condition.name}, seed {seed}", None


if __name__ == "__main__":
    sys.exit(main())

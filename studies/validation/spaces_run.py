"""Runs the study of spaces, or what is left of it: ``python studies/validation/spaces_run.py --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from design import Condition
from spaces_cells import cluster_cell, december_path, embed_cell, model_path, train_cell, train_december
from spaces_design import CLUSTERINGS, POPULATIONS, TRAININGS, Population, december_tasks, draws_of, tasks
from spaces_nulls import null_draw, null_path

STAGES = ("train", "cluster", "december", "null")
Job = tuple[str, Condition, Callable[[], object]]


def main() -> int:
    """Run what is left, stage by stage."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Then: python studies/validation/spaces_analyse.py")
    parser.add_argument("--folder", type=Path, default=Path("build/validation"), help="results (%(default)s)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all, in this order")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so many minutes")
    parser.add_argument("--only", nargs="+", metavar="POPULATION", default=[each.name for each in POPULATIONS])
    parser.add_argument("--draws", nargs="+", type=int, metavar="NUMBER", help="of the recordings; default: all")
    args = parser.parse_args()
    chosen = tuple(population for population in POPULATIONS if population.name in args.only)
    return run(args.folder.resolve(), chosen, tuple(args.stages), args.minutes, args.draws)


def run(
    folder: Path,
    populations: tuple[Population, ...],
    stages: tuple[str, ...],
    minutes: float = float("inf"),
    draws: list[int] | None = None,
) -> int:
    """Run these stages; 1 if a job failed. Existing results are not made again."""
    began, failed = time.monotonic(), 0
    for name, draw, job in (each for stage in stages for each in _jobs(stage, folder, populations)):
        if draws is not None and int(draw.level) not in draws:
            continue
        if time.monotonic() - began > 60 * minutes:
            break
        try:
            job()
            said = "done"
        except Exception as error:  # the other cells are still useful
            said, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
        print(f"{time.monotonic() - began:7.0f} s  {name}  {said}", flush=True)
    return int(failed > 0)


def _jobs(stage: str, folder: Path, populations: tuple[Population, ...]) -> Iterator[Job]:
    """Yield name, recording and function of every job of a stage that is left."""
    if stage == "december":
        for training, draw, seed in december_tasks(populations, TRAININGS):
            if not december_path(folder, draw, seed, training).exists():
                cell = (folder, draw, seed, training)
                yield f"{draw.name}, seed {seed}, {training.name}", draw, lambda cell=cell: train_december(*cell)
        return
    if stage == "null":
        for draw in (draw for population in populations for draw in draws_of(population)):
            if not null_path(folder, draw).exists():
                yield f"{draw.name}, null", draw, lambda draw=draw: null_draw(folder, draw)
        return
    for _, draw, seed in tasks(populations):
        cell = (folder, draw, seed)
        there = model_path(*cell).exists()
        if stage == "train" and not there:
            yield f"{draw.name}, seed {seed}, trainings", draw, lambda cell=cell: train_cell(*cell)
        elif stage == "cluster" and there:
            yield f"{draw.name}, seed {seed}, clusterings", draw, lambda cell=cell: _clustered(*cell)


def _clustered(*cell: object) -> None:
    embed_cell(*cell)  # type: ignore[arg-type]
    cluster_cell(*cell, CLUSTERINGS)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())

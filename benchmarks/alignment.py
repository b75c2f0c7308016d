"""The cost of turning readout vectors to a common orientation, compared with the plain way to write it.

The plain way shifts every vector in every step, in a tensor of (neurons, orientations, orientations, features), and
takes distances between all pairs in one matrix, both on the graph of autograd. Ours has a closed form for the distances
with power 2 and needs no shifted vector; with power 1 it computes the pairs block by block. Each is measured for some
steps, in turns; memory is the growth of a fresh process during a step. Complete alignments follow, with the defaults (3
restarts, then the means of groups), each in its own process, whose total peak is reported. Seconds are those of the
processor, divided by the threads, so that other processes count less.

    python benchmarks/alignment.py --size paper
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from em_step import resident_memory

from december_plugin.rotation import RotationAlignment
from december_plugin.rotation.objective import AlignmentObjective
from december_plugin.rotation.shifts import relaxed_weights
from december_plugin.rotation.simulation import simulated_readouts

ORIENTATIONS, F = 8, 16


@dataclass(frozen=True)
class Size:
    """Neurons of the alignments with the seconds and bytes that they may take; neurons and steps of the comparison."""

    targets: tuple[tuple[int, float, float], ...]
    compared: int
    steps: int


SIZES = {
    "tiny": Size(((200, 60.0, 1e9),), 100, 2),
    "paper": Size(((6_005, 60.0, 1e9), (54_569, 300.0, 2e9)), 4_000, 3),
}


@dataclass(frozen=True)
class Measured:
    """Seconds of an alignment, and the most memory that its process took, with Python and torch."""

    seconds: float
    peak_bytes: int
    loss_before: float
    loss_after: float


def plain_objective(vectors: torch.Tensor, angles: torch.Tensor, power: int) -> torch.Tensor:
    """Return the mean distance between relaxed shifts at temperature 1, as one would write it down."""
    rolled = torch.stack([vectors.roll(k, dims=1) for k in range(ORIENTATIONS)], dim=1)
    shifted = (relaxed_weights(angles, 1.0, ORIENTATIONS)[:, :, None, None] * rolled).sum(dim=1).flatten(1)
    pairs = torch.triu_indices(len(shifted), len(shifted), 1)
    return torch.cdist(shifted, shifted)[pairs[0], pairs[1]].pow(power).mean()


def seconds_per_step(objective: Callable[[torch.Tensor], torch.Tensor], n: int, steps: int) -> float:
    """Return processor seconds of one value and its gradient, per thread."""
    angles = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    start = time.process_time()
    for _ in range(steps):
        objective(angles).backward()
    return (time.process_time() - start) / steps / torch.get_num_threads()


def ways_of(n: int, power: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return the two ways to a value of the objective without reconstruction, at temperature 1."""
    vectors = torch.from_numpy(simulated_readouts(n, seed=0).readouts.reshape(-1, ORIENTATIONS, F))
    ours = AlignmentObjective(vectors, power)
    return {
        "ours": lambda angles: ours(angles, 1.0, 0.0),
        "plain": lambda angles: plain_objective(vectors, angles, power),
    }


def growth_here(n: int, power: int, way: str) -> float:
    """Return the growth of this process's memory in a step, MB; to be run in a fresh process."""
    seconds_per_step(ways_of(50, power)[way], 50, 1)  # what torch allocates once
    objective = ways_of(n, power)[way]
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # resets the peak to the present
    before = resident_memory()["VmRSS"]
    seconds_per_step(objective, n, 1)
    return resident_memory()["VmHWM"] - before


def in_its_own_process(threads: int, n: int, *options: str) -> Any:
    """Run this script in a fresh process and return what it measured."""
    command = [sys.executable, __file__, "--threads", str(threads), "--neurons", str(n), *options]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def compare(size: Size, threads: int) -> None:
    """Print seconds and memory of a step of each power, ours and the plain way in turn."""
    n = size.compared
    print(f"{f'a step of {n:,} neurons':<24}" + 2 * f"{'ours':>11}{'plain':>11}{'ratio':>8}")
    for power in (2, 1):
        ways = ways_of(n, power)
        for way in ways.values():
            seconds_per_step(way, n, 1)  # what torch initialises once
        ours, plain = np.median([[seconds_per_step(way, n, size.steps) for way in ways.values()] for _ in range(3)], 0)
        grown = [in_its_own_process(threads, n, "--step", way, "--power", str(power)) for way in ways]
        print(
            f"{f'power {power}':<24}{ours:>9.4f} s{plain:>9.4f} s{plain / ours:>7.1f}x"
            f"{grown[0]:>8.0f} MB{grown[1]:>8.0f} MB{grown[1] / max(grown[0], 1):>7.1f}x"
        )


def align_here(n: int) -> Measured:
    """Measure one alignment in this process."""
    readouts = simulated_readouts(n, features="dense", noise=1.0, seed=0).readouts
    RotationAlignment(ORIENTATIONS, n_restarts=1, random_state=0).fit(readouts[:10])  # what torch allocates once
    start = time.process_time()
    fitted = RotationAlignment(ORIENTATIONS, random_state=0).fit(readouts)
    seconds = (time.process_time() - start) / torch.get_num_threads()
    return Measured(seconds, int(resident_memory()["VmHWM"] * 2**20), fitted.loss_before_, fitted.alignment_loss_)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="paper", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--neurons", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--power", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.step:
        print(json.dumps(growth_here(arguments.neurons, arguments.power, arguments.step)))
        return 0
    if arguments.neurons:
        print(json.dumps(asdict(align_here(arguments.neurons))))
        return 0
    size = SIZES[arguments.size]
    print(f"{ORIENTATIONS} orientations of {F} features, {arguments.threads} CPU threads\n")
    compare(size, arguments.threads)
    print(
        f"\n{'alignment':<18}{'seconds':>9}{'allowed':>9}{'of it':>8}{'peak':>10}{'allowed':>9}{'of it':>8}{'loss':>16}"
    )
    for n, seconds, taken in size.targets:
        found = Measured(**in_its_own_process(arguments.threads, n))
        print(
            f"{n:>6,} neurons    {found.seconds:>9.1f}{seconds:>9.0f}{found.seconds / seconds:>8.2f}"
            f"{found.peak_bytes / 1e6:>7.0f} MB{taken / 1e6:>6.0f} MB{found.peak_bytes / taken:>8.2f}"
            f"{found.loss_before:>8.3f} to {found.loss_after:.3f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

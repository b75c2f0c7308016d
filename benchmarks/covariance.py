"""The cost of the feature covariance of a model of SENSORIUM's size, compared with the naive way.

The naive way keeps what every readout receives from the core for all images, (images, neurons, channels), and takes the
covariance of each neuron with NumPy. Ours streams: with the defaults, over a sample of the neurons, and over all of
them. All see the same images and run the same core. Each runs in its own process, so that its peak is the operating
system's count of the memory that was really used; what the process held before, model and images, is subtracted.
Seconds are those of the processor, divided by the threads, so that other processes count less. The naive way is
measured on one session, and its seconds multiplied.

    python benchmarks/covariance.py --size paper
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from december_plugin.embeddings import feature_covariance
from december_plugin.embeddings.received_features import core_output_and_shift, received_features
from december_plugin.models import stacked_core_gaussian_readout

TARGET_SECONDS, TARGET_BYTES = 30.0, 2e9
WAYS = ("a sample of neurons (default)", "all neurons", "naive, one session")


@dataclass(frozen=True)
class Size:
    """Sessions, neurons of each, images of all sessions together, height and width, channels of the core."""

    n_sessions: int
    n_neurons: int
    n_images: int
    image_shape: tuple[int, int]
    channels: int


SIZES = {
    "tiny": Size(2, 300, 40, (16, 20), 8),
    "paper": Size(7, 7_800, 500, (36, 64), 64),
}


@dataclass(frozen=True)
class Measured:
    """Seconds of one way, the most memory that the process took in addition to model and images, and a checksum."""

    seconds: float
    peak_bytes: int
    trace: float


def build(size: Size) -> tuple[Any, dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    keys = [f"session{number + 1}" for number in range(size.n_sessions)]
    info = {
        "input_dimensions": [1, 1, *size.image_shape],
        "output_dimension": size.n_neurons,
        "mean_responses": None,
        "cell_motor_coordinates": None,
        "pupil_channels": None,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stacked_core_gaussian_readout(
            None,
            0,
            data_info=dict.fromkeys(keys, info),
            hidden_channels=size.channels,
            grid_mean_predictor=None,
            bias_start="zero",
        )
    generator = torch.Generator().manual_seed(0)
    n_of_each = -(-size.n_images // size.n_sessions)
    images = {key: torch.randn(n_of_each, 1, *size.image_shape, generator=generator) for key in keys}
    return model.eval(), {key: [(each, torch.zeros(n_of_each, 1))] for key, each in images.items()}


def naive(model: Any, loaders: dict[str, Any]) -> np.ndarray:
    """Return the covariance from all features of all sessions at once."""
    covariances = []
    with torch.no_grad():
        for data_key, [(images, _)] in loaders.items():
            received = [
                received_features(model.readout[data_key], *core_output_and_shift(model, data_key, few, {})[:1])
                for few in images.split(28)
            ]
            features = torch.cat(received).numpy()
            covariances += [np.cov(features[:, i], rowvar=False, dtype=np.float64) for i in range(features.shape[1])]
    return np.mean(covariances, axis=0)


def peak_bytes() -> int:
    """Return the most memory that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_here(way: str, size: Size) -> Measured:
    model, loaders = build(size)
    with torch.no_grad():  # what torch allocates once
        model.core(next(iter(loaders.values()))[0][0][:1])
    before, start = peak_bytes(), time.process_time()
    if way == WAYS[2]:
        first = next(iter(loaders))
        covariance = naive(model, {first: loaders[first]})
    else:
        covariance = feature_covariance(
            model, loaders, n_images=None, **({} if way == WAYS[0] else {"max_neurons": None})
        )
    return Measured(
        (time.process_time() - start) / torch.get_num_threads(), peak_bytes() - before, float(np.trace(covariance))
    )


def measure(way: str, name: str, threads: int) -> Measured:
    """Measure one way in its own process."""
    command = [sys.executable, __file__, "--size", name, "--threads", str(threads), "--way", way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="paper", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    size = SIZES[arguments.size]
    torch.set_num_threads(arguments.threads)
    if arguments.way:
        print(json.dumps(asdict(measure_here(arguments.way, size))))
        return 0
    print(
        f"{arguments.size}: {size.n_sessions} sessions of {size.n_neurons:,} neurons, {size.n_images} images of "
        f"{size.image_shape[0]} x {size.image_shape[1]}, {size.channels} channels; {arguments.threads} CPU threads\n"
    )
    measured = {way: measure(way, arguments.size, arguments.threads) for way in WAYS}
    reference = measured.pop(WAYS[2])
    seconds, taken = reference.seconds * size.n_sessions, reference.peak_bytes
    print(f"{'way':<34}{'seconds':>9}{'faster':>9}{'peak':>12}{'of it':>8}")
    print(
        f"{f'naive ({size.n_sessions} times one session)':<34}{seconds:>9.2f}{1:>8.1f}x{taken / 1e9:>9.2f} GB{1:>7.2f}x"
    )
    for way, each in measured.items():
        print(
            f"{way:<34}{each.seconds:>9.2f}{seconds / each.seconds:>8.1f}x{each.peak_bytes / 1e9:>9.2f} GB"
            f"{each.peak_bytes / taken:>7.2f}x"
        )
    print(f"\ntarget at the paper's size on 2 cores: {TARGET_SECONDS:g} seconds, {TARGET_BYTES / 1e9:g} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

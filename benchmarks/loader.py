"""Seconds per epoch of our loaders, compared with neuralpredictors' file-tree path, on the same recording.

A simulated recording of full-size images is written to a temporary folder. Both paths serve its training tier in the
same order, batch by batch the same numbers, which is checked. neuralpredictors keeps what it has read (its default) and
transforms every trial again in every epoch; ours is read and transformed once. Epochs take turns, times are medians
from the second epoch on; the first column is what precedes them: our loading of all tiers, their first epoch.

    python benchmarks/loader.py --trials 600 --epochs 4
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import december_plugin  # noqa: F401  (makes neuralpredictors importable)

# isort: split
from neuralpredictors.data.datasets import FileTreeDataset
from neuralpredictors.data.transforms import AddBehaviorAsChannels, NeuroNormalizer, ScaleInputs, Subsample, ToTensor
from torch.utils.data import DataLoader, SubsetRandomSampler

from december_plugin.datasets import static_loaders
from december_plugin.simulate import write_recording

TARGET = 10.0  # times faster, with scaling
CASES = {
    "images scaled to 1/4": {"scale": 0.25},
    "same, behaviour and pupil": {"scale": 0.25, "include_behavior": True, "include_eye_position": True},
    "images not scaled": {},
}


def file_tree_loader(folder: Path, batch_size: int, settings: dict) -> DataLoader:
    """Build the training loader from neuralpredictors' parts, as SENSORIUM's loader does."""
    extra = ["behavior", "pupil_center"] if settings.get("include_behavior") else []
    dataset = FileTreeDataset(str(folder), "images", "responses", *extra)
    dataset.transforms.append(NeuroNormalizer(dataset))
    if extra:
        dataset.transforms.append(AddBehaviorAsChannels())
    if "scale" in settings:
        dataset.transforms.append(ScaleInputs(scale=settings["scale"]))
    neurons = np.arange(len(dataset.neurons.unit_ids))
    dataset.transforms.extend([Subsample(neurons), ToTensor(cuda=False)])
    train = np.flatnonzero(dataset.trial_info.tiers == "train")
    return DataLoader(dataset, sampler=SubsetRandomSampler(train), batch_size=batch_size)


def seconds_of_epoch(loader: Iterable) -> float:
    start = time.perf_counter()
    for batch in loader:
        batch.images.shape  # noqa: B018
    return time.perf_counter() - start


def check_equal(ours: Iterable, theirs: Iterable) -> None:
    epochs = []
    for loader in (ours, theirs):
        torch.manual_seed(0)
        epochs.append(list(loader))
    for batch, reference in zip(*epochs, strict=True):
        if not all(torch.equal(value, other) for value, other in zip(batch, reference, strict=True)):
            raise SystemExit("The two paths serve different batches.")


def measure(folder: Path, batch_size: int, epochs: int, settings: dict) -> tuple[float, float, float, float]:
    """Seconds: our loading, their first epoch, our epoch, their epoch."""
    start = time.perf_counter()
    ours = next(iter(static_loaders([folder], batch_size, **settings)["train"].values()))
    loading = time.perf_counter() - start
    theirs = file_tree_loader(folder, batch_size, settings)
    first = seconds_of_epoch(theirs)
    check_equal(ours, theirs)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(epochs):
        times["ours"].append(seconds_of_epoch(ours))
        times["theirs"].append(seconds_of_epoch(theirs))
    return loading, first, statistics.median(times["ours"]), statistics.median(times["theirs"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=600, help="training trials (default: %(default)s)")
    parser.add_argument("--height", type=int, default=144, help="of the images, pixels (default: %(default)s)")
    parser.add_argument("--width", type=int, default=256, help="of the images, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s, as in SENSORIUM")
    parser.add_argument("--epochs", type=int, default=5, help="epochs measured per path (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as root:
        folder = write_recording(
            Path(root) / "recording",
            n_neurons=arguments.neurons,
            n_train=arguments.trials,
            n_validation=2,
            n_test=0,
            image_shape=(arguments.height, arguments.width),
            feature_size=25,
            behavior=True,
        )
        print(
            f"{arguments.trials} training trials of {arguments.height} x {arguments.width} pixels and "
            f"{arguments.neurons} neurons, batches of {arguments.batch_size}, {torch.get_num_threads()} threads, "
            f"median of {arguments.epochs} epochs; torch {torch.__version__}\n"
        )
        print(f"{'case':<27}{'path':<18}{'before':>9}{'epoch':>11}{'faster':>9}  target")
        for name, settings in CASES.items():
            loading, first, ours, theirs = measure(folder, arguments.batch_size, arguments.epochs, settings)
            target = f"at least {TARGET:g} x" if "scale" in settings else ""
            print(f"{name:<27}{'neuralpredictors':<18}{first:>7.2f} s{theirs:>9.4f} s")
            print(f"{'':<27}{'ours':<18}{loading:>7.2f} s{ours:>9.4f} s{theirs / ours:>7.0f} x  {target}".rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

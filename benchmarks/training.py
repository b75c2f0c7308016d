"""Seconds per epoch and memory of a training, compared with SENSORIUM's way, on the same data and with the same model.

SENSORIUM's way is what its trainer and neuralpredictors do: the dataset fetches and normalises trial by trial, torch's
``DataLoader`` puts batches together, they are copied to the device, readouts sample with ``grid_sample``, the steps are
a Python loop, and NumPy computes the validation correlation; on a GPU its convolutions are TF32, torch's default. Ours
is ``baseline_trainer`` with its defaults, in each precision, and ``december_trainer``, whose epochs after the
pretraining are measured. Both validate after every epoch. Epochs are measured one training after another; the first
ones are left out; seconds are medians, on a CPU of the processor time. Memory is the most that torch has allocated on a
GPU. The correlation is that of the last epoch.

    python benchmarks/training.py --size tiny
    python benchmarks/training.py --size paper --device cuda
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

import december_plugin  # noqa: F401  (makes neuralpredictors importable)

# isort: split
from neuralpredictors.data.samplers import SubsetSequentialSampler
from neuralpredictors.layers.cores.conv2d import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import FullGaussian2d, MultiReadoutBase
from neuralpredictors.measures.modules import PoissonLoss
from neuralpredictors.training import LongCycler

from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.trials import TrialSequence, by_tier, data_point, tier_loader
from december_plugin.evaluation.performance import predict_tier, single_trial_correlation
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.trainers import baseline_trainer, december_trainer
from december_plugin.training.monitor import Monitor, Progress, monitored

TARGET_SECONDS, TARGET_MEMORY = 5.0, 0.5
SENSORIUM = "SENSORIUM's way"
FIELDS = ("images", "responses")
N_TYPES, FEATURE = 8, 9  # types of neurons, side of their filters in pixels
LEARNING_RATE = 0.009
PRETRAINING = 2  # epochs before the clustering
UNMEASURED = 3  # first epochs of every training, in which its memory is claimed and its launches are recorded


@dataclass(frozen=True)
class Size:
    """The sizes of data and model.

    Attributes
    ----------
    n_sessions, n_neurons, n_train, n_validation, image_shape
        Sessions; of each its neurons, training and validation images, and their height and width in pixels.
    channels, layers, input_kern, hidden_kern, depth_separable
        Of the core.
    batch_size, n_clusters
        Images in a batch of a session; clusters of DECEMber.
    epochs
        That are measured.
    """

    n_sessions: int
    n_neurons: int
    n_train: int
    n_validation: int
    image_shape: tuple[int, int]
    channels: int
    layers: int
    input_kern: int
    hidden_kern: int
    depth_separable: bool
    batch_size: int
    n_clusters: int
    epochs: int


SIZES = {
    "tiny": Size(2, 40, 60, 20, (16, 16), 4, 2, 5, 3, False, 32, 3, 2),
    "demo": Size(2, 250, 400, 80, (16, 16), 16, 2, 7, 5, False, 32, 6, 5),
    "paper": Size(7, 7_800, 4_500, 500, (36, 64), 64, 4, 9, 7, True, 128, 100, 3),
}


@dataclass(frozen=True)
class Measured:
    """The cost of one way of training.

    Attributes
    ----------
    seconds
        Of an epoch.
    peak_bytes
        The most that torch has taken of the device's memory; None on a CPU.
    correlation
        Mean validation correlation after the last epoch.
    """

    seconds: float
    peak_bytes: int | None
    correlation: float


# --- the data --------------------------------------------------------------------------------------------------------


class Session(Dataset):
    """A recording in memory, as it is stored (grey levels and responses), and normalised."""

    def __init__(self, grey: np.ndarray, responses: np.ndarray, n_train: int):
        self.grey, self.stored = grey, responses
        self.mean, self.std = float(grey.mean()), float(grey.std())
        self.precision = 1 / np.maximum(responses.std(axis=0), 0.01)
        self.neurons = np.arange(responses.shape[1])
        self.tiers = {"train": np.arange(n_train), "validation": np.arange(n_train, len(grey))}
        self.images = torch.from_numpy(((grey - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32))
        self.responses = torch.from_numpy((responses * self.precision).astype(np.float32))

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, trial: int) -> Any:
        """Return one trial, transformed now: neuralpredictors' normaliser, its selection of neurons, and tensors."""
        image = (self.grey[trial].astype(np.float64) - self.mean) / self.std
        response = (self.stored[trial] * self.precision)[self.neurons]
        return data_point(FIELDS)(
            torch.from_numpy(image.astype(np.float32)), torch.from_numpy(response.astype(np.float32))
        )

    def data_info(self) -> dict[str, Any]:
        """Return the facts about the data that a model needs."""
        return {
            "input_dimensions": [1, *self.images.shape[1:]],
            "output_dimension": len(self.neurons),
            "mean_responses": self.responses[self.tiers["train"]].mean(dim=0).numpy(),
            "cell_motor_coordinates": None,
            "pupil_channels": None,
        }


class SlicedSession(Session):
    """The same recording as our loaders serve it."""

    def __getitems__(self, trials: Sequence[int]) -> TrialSequence:
        return TrialSequence(self, trials)

    def batch(self, trials: Sequence[int]) -> Any:
        """Return several trials at once."""
        index = torch.as_tensor(np.asarray(trials, dtype=np.int64))
        return data_point(FIELDS)(self.images.index_select(0, index), self.responses.index_select(0, index))

    def columns(self) -> dict[str, Column]:
        """Return what batches are made of."""
        return {"images": Column(self.images), "responses": Column(self.responses)}


def draw_sessions(size: Size, device: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return data key to grey levels (trials, 1, height, width) uint8 and responses (trials, neurons) float32.

    Neurons are rectified linear filters of a few types at random places, with Poisson noise; drawn on the device.
    """
    generator = torch.Generator(device).manual_seed(0)
    filters = torch.randn(N_TYPES, 1, FEATURE, FEATURE, generator=generator, device=device)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
    sessions = {}
    for number in range(size.n_sessions):
        n_trials = size.n_train + size.n_validation
        noise = torch.randn(n_trials, 1, *size.image_shape, generator=generator, device=device)
        images = functional.avg_pool2d(noise, 3, stride=1, padding=1) * 2
        maps = torch.cat([functional.conv2d(part, filters) for part in images.split(500)]).flatten(2)
        kinds = torch.randint(N_TYPES, (size.n_neurons,), generator=generator, device=device)
        places = torch.randint(maps.shape[2], (size.n_neurons,), generator=generator, device=device)
        responses = torch.poisson(functional.softplus(2 * maps[:, kinds, places]), generator=generator)
        grey = (images * 40 + 128).round().clamp(0, 255).to(torch.uint8)
        # Responses of two-photon recordings are not integers.
        gains = 0.5 + torch.rand(size.n_neurons, generator=generator, device=device)
        sessions[f"session{number + 1}"] = grey.cpu().numpy(), (responses * gains).cpu().numpy()
    return sessions


def clock(device: str) -> Callable[[], float]:
    """Return the clock (s): on a CPU that of the process, which other processes do not slow down."""
    return time.perf_counter if device == "cuda" else time.process_time


# --- SENSORIUM's way -------------------------------------------------------------------------------------------------


def sensorium_loaders(sessions: Mapping[str, Session], batch_size: int) -> dict[str, dict[str, DataLoader]]:
    samplers = {"train": SubsetRandomSampler, "validation": SubsetSequentialSampler}
    return {
        tier: {
            data_key: DataLoader(session, batch_size, sampler=sampler(session.tiers[tier]))
            for data_key, session in sessions.items()
        }
        for tier, sampler in samplers.items()
    }


def sensorium_model(size: Size, data_keys: Iterable[str], means: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return neuralpredictors' model; the biases begin with the mean responses, by data key, or with 0."""
    torch.manual_seed(0)
    data_keys = list(data_keys)
    core = Stacked2dCore(
        1,
        size.channels,
        input_kern=size.input_kern,
        hidden_kern=size.hidden_kern,
        layers=size.layers,
        depth_separable=size.depth_separable,
        gamma_input=6.3831,
        momentum=0.9,
        pad_input=False,
        use_avg_reg=False,
        input_regularizer="LaplaceL2norm",
        stack=-1,
    )
    height, width = (pixels - size.input_kern + 1 for pixels in size.image_shape)
    readout = MultiReadoutBase(
        in_shape_dict=dict.fromkeys(data_keys, (size.channels, height, width)),
        n_neurons_dict=dict.fromkeys(data_keys, size.n_neurons),
        base_readout=FullGaussian2d,
        bias=True,
        init_mu_range=0.3,
        init_sigma=0.1,
        gauss_type="full",
        feature_reg_weight=0.0076,
        mean_activity_dict=means,
    )
    return FiringRateEncoder(core, readout)


def sensorium_epochs(sessions: Mapping[str, Session], size: Size, device: str) -> tuple[list[float], float]:
    """Return the seconds of each epoch and the correlation after the last one."""
    loaders = sensorium_loaders(sessions, size.batch_size)
    means = {data_key: session.responses.mean(dim=0) for data_key, session in sessions.items()}
    model = sensorium_model(size, sessions, means).to(device)
    criterion = PoissonLoss(avg=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    seconds, correlation, now = [], math.nan, clock(device)
    for _ in range(UNMEASURED + size.epochs):
        start = now()
        model.train()
        optimizer.zero_grad()
        for number, (data_key, batch) in enumerate(LongCycler(loaders["train"]), start=1):
            images, responses = (value.to(device) for value in batch)
            scale = math.sqrt(size.n_train / len(images))
            loss = scale * criterion(model(images, data_key=data_key), responses)
            loss = loss + model.core.regularizer() + model.readout.regularizer(data_key)
            loss.backward()
            if number % len(sessions) == 0:
                optimizer.step()
                optimizer.zero_grad()
        predicted = predict_tier(model, loaders["validation"], device=device).values()
        correlation = float(np.mean(np.concatenate([single_trial_correlation(*pair) for pair in predicted])))
        seconds.append(now() - start)
    return seconds, correlation


# --- our way ---------------------------------------------------------------------------------------------------------


class Stopwatch(Monitor):
    """Notes when every epoch ended."""

    def __init__(self, device: str) -> None:
        self.times: list[float] = []
        self._now = clock(device)

    def after_epoch(self, progress: Progress, get_state: Callable[[], bytes]) -> None:
        self.times.append(self._now())


def our_loaders(sessions: Mapping[str, SlicedSession], size: Size) -> dict[str, dict[str, DataLoader]]:
    return by_tier(
        {
            data_key: {tier: tier_loader(session, tier, batch_size=size.batch_size) for tier in session.tiers}
            for data_key, session in sessions.items()
        }
    )


def our_model(sessions: Mapping[str, SlicedSession], size: Size) -> nn.Module:
    return model_of({data_key: session.data_info() for data_key, session in sessions.items()}, size)


def model_of(data_info: Mapping[str, Mapping[str, Any]], size: Size, **settings: Any) -> nn.Module:
    """Return our model for sessions with these facts."""
    return stacked_core_gaussian_readout(
        None,
        0,
        data_info=data_info,
        hidden_channels=size.channels,
        layers=size.layers,
        input_kern=size.input_kern,
        hidden_kern=size.hidden_kern,
        depth_separable=size.depth_separable,
        grid_mean_predictor=None,
        **settings,
    )


def our_epochs(
    sessions: Mapping[str, SlicedSession], size: Size, device: str, *, clustered: bool = False, **settings: Any
) -> tuple[list[float], float]:
    """Return the seconds of each epoch but the first, and the correlation after the last one."""
    loaders, model = our_loaders(sessions, size), our_model(sessions, size)
    trainer: Callable[..., Any] = baseline_trainer
    epochs = UNMEASURED + size.epochs
    settings |= {"lr_init": LEARNING_RATE, "patience": 100, "device": device, "share_pretraining": False}
    if clustered:
        trainer = december_trainer
        epochs += PRETRAINING
        settings |= {"n_clusters": size.n_clusters, "pretrain_epochs": PRETRAINING, "kmeans_n_init": 1}
    stopwatch = Stopwatch(device)
    with monitored(stopwatch):
        _, output, _ = trainer(model, loaders, 1, max_iter=epochs, verbose=False, **settings)
    seconds = [after - before for before, after in zip(stopwatch.times, stopwatch.times[1:], strict=False)]
    return seconds, float(output["curves"]["validation_correlation"][-1])


# --- measuring -------------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, TF32": {"precision": "tf32"},
    "ours, bfloat16": {"precision": "bf16"},
    "ours, no CUDA graphs": {"cuda_graphs": False},
    "ours, responses on the host": {"resident_data": "inputs"},
    "ours, bfloat16, responses on the host": {"precision": "bf16", "resident_data": "inputs"},
    "ours, data on the host": {"resident_data": False},
    "ours, DECEMber": {"clustered": True},
}
ON_A_CPU = ("ours", "ours, bfloat16", "ours, bfloat16, responses on the host", "ours, DECEMber")


def measure(device: str, size: Size, *, ways: Sequence[str] | None = None) -> Iterator[tuple[str, Measured]]:
    """Yield the cost of each way of training, with its name, as soon as it is known.

    Parameters
    ----------
    device
        ``"cuda"``, or ``"cpu"``, on which ways that differ only on a GPU are left out.
    size
        Of data and model.
    ways
        Which of :data:`SENSORIUM` and those of :data:`WAYS`; None: all.
    """
    chosen = [way for way in (SENSORIUM, *WAYS) if ways is None or way in ways]
    drawn = draw_sessions(size, device)
    if SENSORIUM in chosen:
        chosen.remove(SENSORIUM)
        stored = {key: Session(*values, size.n_train) for key, values in drawn.items()}
        yield SENSORIUM, _measured(functools.partial(sensorium_epochs, stored, size, device), size, device)
    sliced = {key: SlicedSession(*values, size.n_train) for key, values in drawn.items()}
    for way in chosen:
        if device == "cuda" or way in ON_A_CPU:
            yield way, _measured(functools.partial(our_epochs, sliced, size, device, **WAYS[way]), size, device)


def _measured(train: Callable[[], tuple[list[float], float]], size: Size, device: str) -> Measured:
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, correlation = train()
    peak = torch.cuda.max_memory_reserved() if device == "cuda" else None
    return Measured(statistics.median(seconds[-size.epochs :]), peak, correlation)


def report(measured: Mapping[str, Measured]) -> list[str]:
    """Return one row for each way."""
    reference = measured[SENSORIUM]
    lines = []
    for way, each in measured.items():
        memory, share = " " * 12, " " * 9
        if each.peak_bytes is not None and reference.peak_bytes:
            memory = f"{each.peak_bytes / 1e9:>9.2f} GB"
            share = f"{each.peak_bytes / reference.peak_bytes:>8.2f}x"
        faster = reference.seconds / each.seconds
        lines.append(f"{way:<40}{each.seconds:>10.4f} s{faster:>9.2f}x{memory}{share}{each.correlation:>14.4f}")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--size", choices=SIZES, help="default: paper on a GPU, else demo")
    arguments = parser.parse_args(argv)
    name = arguments.size or ("paper" if arguments.device == "cuda" else "demo")
    size = SIZES[name]
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{name}: {size.n_sessions} sessions of {size.n_neurons} neurons, {size.n_train} + {size.n_validation} images "
        f"of {size.image_shape[0]} x {size.image_shape[1]}, {size.channels} channels, batches of {size.batch_size}; "
        f"median of {size.epochs} epochs; torch {torch.__version__}, {where}\n"
    )
    print(f"{'way':<40}{'epoch':>12}{'faster':>10}{'peak':>12}{'of it':>9}{'correlation':>14}")
    print("\n".join(report(dict(measure(arguments.device, size)))))
    print(f"\ntargets on a GPU, at the paper's size: {TARGET_SECONDS:g} times faster, {TARGET_MEMORY:g} of the memory")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

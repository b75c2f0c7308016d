"""The cost of a step of gradient ascent for the images of 512 neurons in one batch, compared with one neuron at a time.

A step is a response, its gradient and the next image. Three ways: the plain one, the model's forward pass on one image
and the gradient of one of its responses (weights get no gradients); ours with one neuron; ours with all of them. All
use one model of SENSORIUM's size and its images of 36 x 64, and arrive at the same images. Seconds are those of the
processor, per image and step, on the CPU, so that other processes count less; ways take turns, and the least of the
repeats counts.

    python benchmarks/mei.py --threads 1
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.insilico import AscentSettings, Canvas
from december_plugin.insilico.ascent import ascend
from december_plugin.insilico.exciting_images import in_parts, population_of
from december_plugin.models import stacked_core_gaussian_readout

TARGET = 20.0
SIZES = {"tiny": (16, (20, 24), 50, 8), "paper": (512, (36, 64), 7_800, 64)}  # images, pixels, neurons, channels
WAYS = ("forward pass, one image", "ours, one neuron", "ours, one batch")


def build(shape: tuple[int, int], n_neurons: int, channels: int) -> torch.nn.Module:
    info = {
        "input_dimensions": [1, 1, *shape],
        "output_dimension": n_neurons,
        "mean_responses": None,
        "cell_motor_coordinates": None,
        "pupil_channels": None,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stacked_core_gaussian_readout(
            None,
            0,
            data_info={"session": info},
            hidden_channels=channels,
            grid_mean_predictor=None,
            bias_start="zero",
            input_kern=9 if shape[0] > 20 else 5,
            hidden_kern=7 if shape[0] > 20 else 3,
        )
    model.readout["session"].features.data.normal_(generator=torch.Generator().manual_seed(0))
    return model.eval()


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="paper", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="of every ascent (default: %(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    n_images, shape, n_neurons, channels = SIZES[arguments.size]
    model, canvas = build(shape, n_neurons, channels), Canvas((1, *shape))
    settings = AscentSettings(max_steps=arguments.steps, patience=arguments.steps + 1)
    starts = torch.randn(n_images, 1, *shape, generator=torch.Generator().manual_seed(0))
    few = 4
    neurons = NeuronIds.of({"session": range(n_images)})

    def naive() -> torch.Tensor:
        def objective(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            return model(images, data_key="session")[:, number]

        found = []
        for number in range(few):
            found.append(ascend(objective, starts[number, None], canvas, settings).images)
        return torch.cat(found)

    with population_of(model, neurons, None, canvas) as population:
        size = 64

        def ours(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            return in_parts(population, images, which, size)

        def alone() -> torch.Tensor:
            each = []
            for number in range(few):
                one = torch.full((1,), number)
                each.append(ascend(lambda images, _, one=one: ours(images, one), starts[one], canvas, settings).images)
            return torch.cat(each)

        def together() -> torch.Tensor:
            return ascend(ours, starts, canvas, settings).images

        work = {WAYS[0]: (naive, few), WAYS[1]: (alone, few), WAYS[2]: (together, n_images)}
        images = {way: function()[:few] for way, (function, _) in work.items()}
        evaluations = arguments.steps + 1
        seconds = {
            way: min(seconds_of(function) / n / evaluations / arguments.threads for _ in range(arguments.repeats))
            for way, (function, n) in work.items()
        }
    off = max(float((images[way] - images[WAYS[0]]).abs().max()) for way in WAYS[1:])
    print(
        f"{arguments.size}: {n_images} images of {shape[0]} x {shape[1]}, a session of {n_neurons:,} neurons, "
        f"{channels} channels; {arguments.threads} CPU thread(s), torch {torch.__version__}; images differ by at most "
        f"{off:.1g}\n"
    )
    for way, value in seconds.items():
        print(f"{way:<26}{1e3 * value:>9.3f} ms per image and step{seconds[WAYS[0]] / value:>8.1f} times as fast")
    print(f"\none batch against one neuron at a time: {seconds[WAYS[1]] / seconds[WAYS[2]]:.1f} times as fast")
    print(f"target at the paper's size: {TARGET:g} times as fast as one image at a time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

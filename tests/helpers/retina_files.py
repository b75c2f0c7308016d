"""Small recordings in the published layouts of Höfling et al. 2024 and Sridhar et al. 2026."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

N_CLIPS, CLIP, N_TRIGGERS = 108, 150, 123
TRIGGER_SECONDS, SAMPLE_SECONDS = 4.9666667, 0.128
FIRST_TRIGGER = 2.0
LAGS = {1: 2, 8: 8}  # frames, by group


@dataclass
class Hoefling:
    """Where a written recording lies, and the pixel that drives each neuron: session to (channel, y, x, group)."""

    responses: Path
    movie: Path
    pixels: dict[str, list[tuple[int, int, int, int]]] = field(default_factory=dict)


def write_hoefling(
    folder: Path,
    sessions: dict[str, dict[str, Any]],
    *,
    size: tuple[int, int] = (6, 5),
    n_orders: int = 3,
    seed: int = 0,
) -> Hoefling:
    """Write ``responses.h5`` and ``movie.pkl``.

    Each session has n_neurons, eye and order. Every neuron follows one pixel, smoothed over 5 frames, with a sign and a
    lag by its group (1 or 8).
    """
    import h5py

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = Hoefling(folder / "responses.h5", folder / "movie.pkl")
    train = rng.normal(size=(2, N_CLIPS * CLIP, *size)).astype(np.float32)
    test = rng.normal(size=(2, 5 * CLIP, *size)).astype(np.float32)
    orders = np.stack([rng.permutation(N_CLIPS) for _ in range(n_orders)], axis=1).astype(np.uint8)
    movie = {
        "train": train,
        "test": test,
        "random_sequences": orders,
        "movie_stats": {"dichromatic": {"mean": np.array(37.0), "sd": np.array(37.0)}},
    }
    written.movie.write_bytes(pickle.dumps(movie))
    with h5py.File(written.responses, "w") as file:
        for name, settings in sessions.items():
            eye, order = settings.get("eye", "right"), settings.get("order", 0)
            shown = as_shown(train, test, orders[:, order], eye)
            pixels = [
                (int(rng.integers(2)), int(rng.integers(size[0])), int(rng.integers(size[1])), (1, 8)[neuron % 2])
                for neuron in range(settings.get("n_neurons", 6))
            ]
            written.pixels[name] = pixels
            group = file.create_group(name)
            group.attrs.update({"eye": eye, "scan_sequence_idx": order, "date": "20201021", "exp_num": 1})
            for entry, values in session_entries(rng, shown, pixels).items():
                group[entry] = values
    return written


def as_shown(train: np.ndarray, test: np.ndarray, order: np.ndarray, eye: str) -> np.ndarray:
    """Return the whole movie of a scan: test, 54 clips, test, 54 clips, test."""
    clips = [train[:, clip * CLIP : (clip + 1) * CLIP] for clip in order.astype(int)]
    whole = np.concatenate([test, *clips[:54], test, *clips[54:], test], axis=1)
    return whole[..., ::-1] if eye == "left" else whole


def drive_of(video: np.ndarray, pixel: tuple[int, int, int, int]) -> np.ndarray:
    """Return what drives a neuron in every frame of a video (channels, frames, height, width)."""
    channel, y, x, group = pixel
    smooth = np.convolve(video[channel, :, y, x], np.full(5, 0.2), mode="full")[: video.shape[1]]
    return np.roll(smooth if group == 1 else -smooth, LAGS[group])


def session_entries(
    rng: np.random.Generator, shown: np.ndarray, pixels: list[tuple[int, int, int, int]]
) -> dict[str, np.ndarray]:
    n_neurons = len(pixels)
    triggers = FIRST_TRIGGER + TRIGGER_SECONDS * np.arange(N_TRIGGERS)
    frame_times = np.concatenate([np.linspace(t, t + TRIGGER_SECONDS, CLIP) for t in triggers])
    times = np.arange(0.0, triggers[-1] + 10.0, SAMPLE_SECONDS)
    rates = [np.log1p(np.exp(3 * drive_of(shown, pixel))) for pixel in pixels]
    traces = np.stack([np.interp(times, frame_times, rate) for rate in rates])
    traces += 0.1 * np.abs(rng.normal(size=traces.shape))
    mask = np.ones((64, 64))
    for neuron in range(n_neurons):
        mask[3 * neuron + 1, 5:8] = -(neuron + 1)
    return {
        "roi_ids": np.arange(1, n_neurons + 1),
        "roi_mask": mask,
        "group_assignment": np.array([pixel[3] for pixel in pixels]),
        "group_confidences": np.tile([0.9, 0.05], (n_neurons, 1)),
        "chirp_qi": np.full(n_neurons, 0.5),
        "d_qi": np.full(n_neurons, 0.7),
        "natural_inferred_spikes": traces,
        "natural_raw_traces": traces + 1.0,
        "natural_traces_times": np.tile(times, (n_neurons, 1)),
        "natural_trigger_times": np.tile(triggers, (n_neurons, 1)),
    }


IMAGE, WINDOW, PADDING = (20, 16), (12, 10), 3
GEOMETRY = {"image_size": list(IMAGE), "window_size": list(WINDOW), "padding": PADDING, "crop": [1, 2, 2, 1]}
FIXATIONS = ("complete_fixations_seed_2022and2023_s4_fixed.txt", "complete_fixations_seed2022_s4.txt")


def write_sridhar(
    folder: Path,
    retinas: dict[str, int],
    *,
    n_trials: int = 4,
    n_frames: int = 60,
    n_test_frames: int = 80,
    n_images: int = 7,
    seed: int = 0,
) -> Path:
    """Write responses (retina to number of cells), fixations and images as openretina's ``sridhar_2025`` reads them."""
    rng = np.random.default_rng(seed)
    for name in ("responses", "fixations", "stimuli_padded_4"):
        (folder / name).mkdir(parents=True)
    for number in range(n_images):
        grey = rng.integers(0, 256, size=IMAGE).astype(np.uint8)
        np.save(folder / "stimuli_padded_4" / f"natural_img_{number:03d}.npy", grey)
    for file in FIXATIONS:
        lines = [fixation_line(rng, n_images) for _ in range(5100 + n_trials * n_frames)]
        (folder / "fixations" / file).write_text("".join(lines))
    for retina, n_cells in retinas.items():
        content = {
            "train_responses": rng.poisson(0.5, size=(n_cells, n_frames, n_trials)).astype(np.float64),
            "test_responses": rng.poisson(0.5, size=(n_cells, n_test_frames, 12)).astype(np.float64),
            "seeds": [2022, 2023],
            "trial_separation": {2022: [0, 1], 2023: [2, 3]},
        }
        response_file(folder, retina).write_bytes(pickle.dumps(content))
    return folder


def fixation_line(rng: np.random.Generator, n_images: int) -> str:
    x, y = (
        rng.integers(side // 2 - PADDING, whole - side // 2 - PADDING + 1)
        for side, whole in zip(WINDOW, IMAGE, strict=True)
    )
    return f"{rng.integers(n_images)}.0 0 0 {x}.0 {y}.0 {rng.integers(2)}\n"


def response_file(folder: Path, retina: str) -> Path:
    return folder / "responses" / f"cell_responses_{retina}_fixation_movie.pkl"

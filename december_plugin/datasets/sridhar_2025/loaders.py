"""The nnfabrik dataset function for the marmoset retina movies of Sridhar et al. 2026, read by openretina."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from december_plugin.datasets.common.arguments import check_train_fraction
from december_plugin.datasets.common.chunks import ChunkedMovie, RetinaNeurons, chunk_loader, mean_over_frames
from december_plugin.datasets.common.copies import Recorded, refuse_copies
from december_plugin.datasets.common.data_cache import kept_or_loaded
from december_plugin.datasets.common.trials import TRAIN, by_tier
from december_plugin.datasets.sridhar_2025.files import (
    FixationMovie,
    Geometry,
    read_fixations,
    read_images,
    read_responses,
    split_trials,
)
from december_plugin.errors import MisfitError, RecordingError, SettingsError, did_you_mean
from december_plugin.importing.openretina import openretina_module
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.checks import check_integer, checked_settings

FRAME_RATE = 85.0  # Hz
RETINAS = ("01", "02", "03", "04")
RESPONSE_FILE = "responses/cell_responses_{retina}_fixation_movie.pkl"
FIXATION_FILE = "fixations/complete_fixations_seed_2022and2023_s4_fixed.txt"
FIXATION_FILES = {"02": "fixations/complete_fixations_seed2022_s4.txt"}
UNIT = "spikes per frame"


@checked_settings
def sridhar_2025_loaders(
    path: str | os.PathLike[str],
    batch_size: int = 16,
    seed: int | None = None,
    *,
    retinas: Sequence[str] | str,
    excluded_cells: Mapping[str, Sequence[int]] | None = None,
    chunk_frames: int = 100,
    lead_frames: int = 34,
    train_fraction: float = 0.8,
    split_seed: int | None = None,
    image_folder: str = "stimuli_padded_4",
    image_size: Sequence[int] = (350, 300),
    window_size: Sequence[int] = (200, 150),
    padding: int = 50,
    crop: Sequence[int] = (35, 35, 55, 55),
    return_data_info: bool = False,
) -> dict[str, dict[str, DataLoader]] | dict[str, dict[str, Any]]:
    """Load responses of marmoset retina to natural movies: multi-electrode array, spikes per frame at 85 Hz.

    Needs the extra ``[retina]``: openretina reads responses, fixations and images. The defaults are those of its
    configuration for this dataset. The paper trains one model per retina. The layout of the files is in
    docs/recordings.md.

    Parameters
    ----------
    path
        The folder with ``responses``, ``fixations`` and the images.
    batch_size
        Stretches in a batch.
    seed
        nnfabrik passes the run's seed here; it changes nothing. The order of the training batches is drawn from torch's
        global generator.
    retinas
        Retinas to load: "01", "02", "03", "04".
    excluded_cells
        Retina to the cells left out, counted from 0 in the file, such as those that do not respond reliably;
        openretina's configuration ``dataloader/sridhar_nm_2025.yaml`` lists them.
    chunk_frames, lead_frames
        A stretch has ``lead_frames + chunk_frames`` frames, and the next one begins ``chunk_frames`` later: a model
        whose kernels need ``lead_frames`` frames before the first predicted one then predicts every other frame once.
        34 are those of ``movie_core_gaussian_readout`` (kernels of 27, 5 and 5 frames).
    train_fraction, split_seed
        Share of the training trials that are trained on, and the seed with which openretina draws them (None: its
        1000). The other trials are for validation. They do not change with ``seed``.
    image_folder, image_size, window_size, padding, crop
        Where the images are, and how a frame is cut out, in pixels: (width, height) of the images and of the window
        around a fixation, the padding of the images, and (top, bottom, left, right) cut off the window. With the
        defaults, 80 x 90 pixels (height x width) remain.
    return_data_info
        Return nnfabrik's ``data_info`` instead of loaders, see :meth:`ChunkedMovie.data_info`.

    Returns
    -------
    dict
        Tiers ``train``, ``validation`` and ``test``, each data key (``retina_01``) to torch ``DataLoader``. A batch is
        a named tuple ``(videos, responses)`` of float32 CPU tensors: (batch, 1, frames, height, width), grey levels
        from 0 to 1, and (batch, frames, neurons). A loader's ``dataset`` is a :class:`ChunkedMovie`; its
        ``neurons.unit_ids`` count the cells of the file, including the excluded ones. The test responses are means over
        trials (``dataset.responses_by_repeat`` has them).

    Raises
    ------
    RecordingError
        If a file is missing, damaged or inconsistent, or two retinas have the same responses.
    SettingsError
        If a setting is unknown or has a value that is not allowed, or openretina is missing.

    See Also
    --------
    movie_loaders : Movies of any recording, without openretina.
    december_plugin.models.movie_core_gaussian_readout : Builds a model of these loaders.

    Examples
    --------
    >>> from december_plugin.datasets import sridhar_2025_loaders
    >>> settings = {"retinas": ["01"], "excluded_cells": {"01": [2]}, "chunk_frames": 10, "lead_frames": 5}
    >>> small = {"image_size": [20, 16], "window_size": [12, 10], "padding": 3, "crop": [1, 2, 2, 1]}
    >>> loaders = sridhar_2025_loaders("marmoset-retina", 4, **settings, **small)  # published images need no `small`
    >>> batch = next(iter(loaders["train"]["retina_01"]))
    >>> tuple(batch.videos.shape), tuple(batch.responses.shape)
    ((4, 1, 15, 7, 9), (4, 15, 4))
    >>> loaders["train"]["retina_01"].dataset.unit_ids
    array([0, 1, 3, 4])
    """
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    frames = (
        check_integer("lead_frames", lead_frames, minimum=0),
        check_integer("chunk_frames", chunk_frames, minimum=1),
    )
    names = _retinas(retinas)
    excluded = _excluded(excluded_cells, names)
    geometry = _geometry(image_size, window_size, padding, crop)
    fraction = check_train_fraction(train_fraction, rest="trials")
    if split_seed is not None:
        check_integer("split_seed", split_seed, minimum=0)
    n_test = openretina_module("data_io.sridhar_2025.constants").TEST_DATA_FRAMES
    folder = Path(path)
    if not folder.is_dir():
        raise RecordingError(f"{folder} is not a folder. See docs/recordings.md for where to get the recordings.")

    def load() -> dict[str, dict[str, ChunkedMovie]]:
        # The small files first, so that their mistakes are found before the images are read.
        responses = {
            name: read_responses(folder, RESPONSE_FILE.format(retina=name), name, excluded[name]) for name in names
        }
        check_session_names(f"retina_{name}" for name in names)
        refuse_copies(
            Recorded(str(folder / RESPONSE_FILE.format(retina=name)), functools.partial(iter, given["train_responses"]))
            for name, given in responses.items()
        )
        images = read_images(folder / image_folder, "_img_", geometry.image)
        datasets = {}
        for name in names:
            trials = split_trials(responses[name]["train_responses"], fraction, split_seed)
            _check_split(trials, name, fraction)
            datasets[f"retina_{name}"] = _tiers(
                f"retina_{name}",
                responses[name],
                trials,
                _movie(folder, name, responses[name], images, geometry, n_test),
                n_test=n_test,
                frames=frames,
            )
        return datasets

    asked = (names, excluded, frames, fraction, split_seed, image_folder, geometry)
    datasets = kept_or_loaded("sridhar_2025_loaders", [folder], asked, load)
    if return_data_info:
        return {data_key: tiers[TRAIN].data_info() for data_key, tiers in datasets.items()}
    return by_tier(
        {
            data_key: {tier: chunk_loader(dataset, tier, batch_size=batch_size) for tier, dataset in tiers.items()}
            for data_key, tiers in datasets.items()
        }
    )


def _movie(
    folder: Path, name: str, responses: Mapping[str, Any], images: np.ndarray, geometry: Geometry, n_test: int
) -> FixationMovie:
    """Return what a retina saw: the test movie, then the training trials one after the other."""
    _, n_frames, n_trials = responses["train_responses"].shape
    if responses["test_responses"].shape[1] > n_test:
        raise RecordingError(
            f"the test responses of retina {name!r} have {responses['test_responses'].shape[1]} frames; the test movie "
            f"has {n_test}."
        )
    path = folder / FIXATION_FILES.get(name, FIXATION_FILE)
    n_lines = n_test + n_frames * n_trials
    return FixationMovie(
        images, read_fixations(path, n_lines=n_lines, n_images=len(images), geometry=geometry), geometry
    )


def _tiers(
    data_key: str,
    responses: Mapping[str, Any],
    trials: Mapping[str, np.ndarray],
    movie: FixationMovie,
    *,
    n_test: int,
    frames: tuple[int, int],
) -> dict[str, ChunkedMovie]:
    lead, chunk = frames
    n_cells, n_frames, n_trials = responses["train_responses"].shape
    n_test_frames = responses["test_responses"].shape[1]
    for what, available in (("training trials", n_frames), ("test movie", n_test_frames)):
        if lead + chunk > available:
            raise MisfitError(
                f"lead_frames + chunk_frames is {lead + chunk}, but the {what} of {data_key} has {available} frames.",
                setting="lead_frames",
                others=["chunk_frames"],
            )
    # All frames of the retina in the order of the movie; test frames without a recording are never served.
    everything = np.zeros((movie.n_frames, n_cells), dtype=np.float32)
    everything[:n_test_frames] = responses["test_responses"].T
    everything[n_test:] = responses["train_responses"].transpose(2, 1, 0).reshape(n_trials * n_frames, n_cells)
    served = torch.from_numpy(everything)
    within = np.arange(0, n_frames - lead - chunk + 1, chunk)
    starts = {
        tier: (n_test + n_frames * numbers[:, None] + within[None]).ravel().astype(np.int64)
        for tier, numbers in trials.items()
    }
    starts["test"] = np.arange(0, n_test_frames - lead - chunk + 1, chunk, dtype=np.int64)
    trained = torch.cat([served[n_test + n_frames * trial :][:n_frames] for trial in trials[TRAIN]])
    by_trial = responses["test_responses_by_trial"]
    shared: dict[str, Any] = {
        "data_key": data_key,
        "movie": movie,
        "responses": served,
        "chunk": lead + chunk,
        "frame_rate": FRAME_RATE,
        "neurons": RetinaNeurons(np.asarray(responses["cell_indices"], dtype=np.int64)),
        "response_unit": UNIT,
        "mean_responses": mean_over_frames(trained),
    }
    datasets = {tier: ChunkedMovie(starts=starts[tier], **shared) for tier in (TRAIN, "validation", "test")}
    datasets["test"].responses_by_repeat = torch.from_numpy(by_trial.transpose(2, 1, 0).astype(np.float32))
    return datasets


def _retinas(retinas: Any) -> list[str]:
    names = [retinas] if isinstance(retinas, str) else retinas
    if not isinstance(names, (list, tuple)) or not names or len(set(map(str, names))) < len(names):
        raise SettingsError(
            f"retinas is {retinas!r}; a list of retinas is expected, e.g. ['01'], each once.", setting="retinas"
        )
    for name in names:
        if name not in RETINAS:
            raise SettingsError(f"retinas has {name!r}. {did_you_mean(str(name), RETINAS)}", setting="retinas")
    return list(names)


def _excluded(excluded: Any, names: Sequence[str]) -> dict[str, list[int]]:
    given = excluded or {}
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"excluded_cells is {excluded!r}; a dict of retina to a list of cells is expected.",
            setting="excluded_cells",
        )
    for name in given:
        if name not in RETINAS:
            raise SettingsError(
                f"excluded_cells has the retina {name!r}. {did_you_mean(str(name), RETINAS)}", setting="excluded_cells"
            )
    return {
        name: [
            check_integer(f"excluded_cells of {name!r}", cell, minimum=0, setting="excluded_cells")
            for cell in given.get(name, ())
        ]
        for name in names
    }


def _geometry(image_size: Any, window_size: Any, padding: Any, crop: Any) -> Geometry:
    sizes = {"image_size": (image_size, 2, 1), "window_size": (window_size, 2, 1), "crop": (crop, 4, 0)}
    checked: dict[str, Any] = {}
    for setting, (values, length, minimum) in sizes.items():
        if not isinstance(values, (list, tuple)) or len(values) != length:
            raise SettingsError(f"{setting} is {values!r}; {length} numbers of pixels are expected.", setting=setting)
        checked[setting] = tuple(check_integer(setting, value, minimum=minimum) for value in values)
    geometry = Geometry(
        image=checked["image_size"],
        window=checked["window_size"],
        padding=check_integer("padding", padding, minimum=1),
        crop=checked["crop"],
    )
    if any(size % 2 for size in geometry.window) or min(geometry.frame) < 1:
        raise SettingsError(
            f"window_size is {list(geometry.window)} and crop {list(geometry.crop)}: the window must have even sides, "
            "and something must remain of it.",
            setting="window_size",
            others=["crop"],
        )
    return geometry


def _check_split(trials: Mapping[str, np.ndarray], name: str, fraction: float) -> None:
    for tier, numbers in trials.items():
        if len(numbers) == 0:
            others = sum(map(len, trials.values()))
            raise RecordingError(
                f"retina {name!r} has {others} training trial(s), of which train_fraction={fraction:g} leaves none for "
                f"{tier}; choose another fraction."
            )

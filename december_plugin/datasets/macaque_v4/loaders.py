"""The nnfabrik dataset function for spike counts of macaque V4 to images (Willeke et al. 2023, Cadena et al. 2024)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from december_plugin.datasets.common.arguments import (
    absolute,
    check_input_statistics,
    check_paths,
    check_train_fraction,
)
from december_plugin.datasets.common.copies import refuse_copies
from december_plugin.datasets.common.data_cache import kept_or_loaded
from december_plugin.datasets.common.images import Geometry, StimulusImages, list_images
from december_plugin.datasets.common.trials import TRAIN, by_tier, tier_loader
from december_plugin.datasets.common.unit_selection import check_neuron_ids, select_neurons
from december_plugin.datasets.macaque_v4.sessions import SpikeSession, images_folder_of, read_sessions
from december_plugin.datasets.macaque_v4.shared_images import SharedImagesDataset
from december_plugin.errors import MisfitError, RecordingError, SettingsError
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.checks import check_bool, check_choice, check_integer, check_number, checked_settings

SPLIT_SEED = 1000  # of the published models of these recordings
SUMMARIES = ("sum", "mean")


@dataclass(frozen=True)
class _Split:
    fraction: float
    seed: int


@checked_settings
def macaque_v4_loaders(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    batch_size: int,
    seed: int | None = None,
    *,
    images_path: str | os.PathLike[str] | None = None,
    crop: int | Sequence[int] | Sequence[Sequence[int]] = 0,
    subsample: int = 1,
    scale: float = 1.0,
    time_bins: Sequence[int] | None = None,
    summary: str = "sum",
    train_fraction: float = 0.8,
    split_seed: int = SPLIT_SEED,
    neuron_ids: Mapping[str, Sequence[int]] | None = None,
    inputs_mean: float | None = None,
    inputs_std: float | None = None,
    spike_counts: bool = True,
    return_data_info: bool = False,
) -> dict[str, dict[str, DataLoader]] | dict[str, dict[str, Any]]:
    """Load many sessions of spike counts to images; the layouts are in docs/recordings.md.

    Each image is read once, however many sessions show it (float32: 4 bytes x images x pixels; 1 GB for 24,000
    images of 100 x 100 pixels). Training images are split into training and validation by image, once for all
    sessions, as in nnvision's ``monkey_static_loader``: no session validates on an image that another trains on.

    Parameters
    ----------
    paths
        Session pickles, folders of session pickles, or the folder of the public dataset of Cadena et al. 2024.
    batch_size
        Trials in a batch, at least 1.
    seed
        nnfabrik passes the run's seed here; it changes nothing. The order of the training batches is drawn from torch's
        global generator.
    images_path
        Folder of the images, ``<id>.npy`` or ``<id>.png``; None takes ``images`` of the public dataset.
    crop
        Pixels cut off: one number for all sides, (top, bottom, left, right), or ((top, bottom), (left, right)) as
        in nnvision.
    subsample, scale
        Keep every n-th pixel, then rescale by this factor.
    time_bins
        Bins of the response to sum, from 0; None takes all. A bin is 10 ms, the first one 40 ms after the image in
        the public dataset, where the paper takes 3 to 11 (70 to 160 ms).
    summary
        "sum" for spikes per presentation, "mean" for spikes per bin.
    train_fraction, split_seed
        Share of the training images that are trained on, and the seed of the draw; the rest is for validation.
    neuron_ids
        Data key to the unit ids to keep, in this order; sessions that are not named are left out. None keeps all.
    inputs_mean, inputs_std
        Normalise images by these; None takes mean and standard deviation of all pixels of the images shown.
    spike_counts
        Require whole numbers; False also accepts rates.
    return_data_info
        Return nnfabrik's ``data_info`` instead of loaders.

    Returns
    -------
    dict
        Tiers ``train``, ``validation`` and ``test``, each data key (the session's id) to torch ``DataLoader``. A batch
        is a named tuple ``(images, responses)`` of float32 CPU tensors: (batch, channels, height, width) and
        (batch, neurons). Test images come with all their repeats (``dataset.trial_info.frame_image_id``). A loader's
        ``dataset`` is a :class:`SharedImagesDataset`.

    Raises
    ------
    RecordingError
        If a file is missing, damaged or inconsistent, a tier has too few trials, or two sessions have the same
        responses.
    SettingsError
        If a setting is unknown or has a value that is not allowed.

    See Also
    --------
    static_loaders : Images in the SENSORIUM 2022 layout.
    december_plugin.models.stacked_core_attention_readout : Builds a model of these loaders.
    december_plugin.simulate.write_macaque_v4_recording : Writes simulated sessions in either layout.

    Examples
    --------
    >>> from december_plugin.datasets import macaque_v4_loaders
    >>> from december_plugin.simulate import write_macaque_v4_recording
    >>> sizes = {"n_sessions": 2, "n_neurons": 8, "n_images": 40, "n_shown": 30, "n_test": 3, "n_repeats": 3}
    >>> folder = write_macaque_v4_recording("v4", seed=1, **sizes)
    >>> loaders = macaque_v4_loaders([folder / "sessions"], batch_size=10, images_path=folder / "images", crop=2)
    >>> list(loaders["train"])  # sessions
    ['3631896544452', '3631896545452']
    >>> batch = next(iter(loaders["train"]["3631896544452"]))
    >>> tuple(batch.images.shape), tuple(batch.responses.shape)
    ((10, 1, 12, 12), (10, 8))
    """
    folders = absolute(check_paths(paths, expected="a list of session pickles or folders"))
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    geometry = Geometry(
        crop=_crop(crop),
        subsample=check_integer("subsample", subsample, minimum=1),
        scale=check_number("scale", scale, above=0),
    )
    bins = _time_bins(time_bins)
    check_choice("summary", summary, SUMMARIES)
    split = _Split(check_train_fraction(train_fraction, rest="images"), _split_seed(split_seed))
    wanted = check_neuron_ids(neuron_ids)
    statistics = _statistics(inputs_mean, inputs_std)
    counts = check_bool("spike_counts", spike_counts)
    folder = _images_folder(images_path, folders)

    def load() -> dict[str, SharedImagesDataset]:
        sessions = read_sessions(folders, counts=counts)
        kept = select_neurons({session.data_key: session.unit_ids for session in sessions}, wanted)
        sessions = [session for session in sessions if session.data_key in kept]
        check_session_names(kept)
        refuse_copies(session.recorded(kept[session.data_key]) for session in sessions)
        tiers = _tiers(sessions, sorted(list_images(folder)), split)
        shown = np.concatenate([session.image_ids[tier] for session in sessions for tier in session.image_ids])
        images = StimulusImages(folder, shown, geometry, statistics)
        return {
            session.data_key: _dataset(
                session, images, tiers[session.data_key], kept[session.data_key], _bins_of(session, bins), summary
            )
            for session in sessions
        }

    asked = (geometry, bins, summary, split, wanted, statistics, counts)
    datasets = kept_or_loaded("macaque_v4_loaders", [*folders, folder], asked, load)
    if return_data_info:
        return {data_key: dataset.data_info() for data_key, dataset in datasets.items()}
    return by_tier(
        {
            data_key: {tier: tier_loader(dataset, tier, batch_size=batch_size) for tier in dataset.tiers}
            for data_key, dataset in datasets.items()
        }
    )


def split_images(image_ids: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """Return the ids of the images to train on, as nnvision's ``get_validation_split`` draws them.

    Parameters
    ----------
    image_ids
        All ids of the folder, sorted: nnvision's are 0, 1, and so on.
    fraction
        Share to train on; their number is rounded down.
    seed
        Seed of NumPy's ``RandomState``.
    """
    order = np.random.RandomState(seed).permutation(len(image_ids))
    return np.asarray(image_ids, dtype=np.int64)[order[: int(len(image_ids) * fraction)]]


def _tiers(
    sessions: Sequence[SpikeSession], available: Sequence[int], split: _Split
) -> dict[str, dict[str, np.ndarray]]:
    """Return data key to tier to the positions of its trials, the test trials after the others."""
    trained = split_images(available, split.fraction, split.seed)
    tiers = {}
    for session in sessions:
        ids = session.image_ids
        both = np.intersect1d(ids["train"], ids["test"])
        if len(both):
            raise RecordingError(
                f"session {session.data_key!r} ({session.path}) shows {len(both)} image(s) in training and in testing, "
                f"e.g. {both[0]}. Take them out of training."
            )
        known = np.isin(ids["train"], trained)
        tiers[session.data_key] = {
            TRAIN: np.flatnonzero(known),
            "validation": np.flatnonzero(~known),
            "test": len(known) + np.arange(len(ids["test"])),
        }
        for tier, trials in tiers[session.data_key].items():
            if len(trials) < 2:
                raise RecordingError(
                    f"session {session.data_key!r} ({session.path}) has {len(trials)} trial(s) in the tier {tier!r} "
                    f"with train_fraction={split.fraction:g} and split_seed={split.seed}; at least 2 are needed. Leave "
                    "the session out, or change them."
                )
    return tiers


def _dataset(
    session: SpikeSession,
    images: StimulusImages,
    tiers: Mapping[str, np.ndarray],
    neurons: np.ndarray,
    bins: np.ndarray,
    summary: str,
) -> SharedImagesDataset:
    responses = [session.counts[tier][:, neurons][:, :, bins] for tier in ("train", "test")]
    both = np.concatenate([r.sum(axis=2) if summary == "sum" else r.mean(axis=2) for r in responses])
    known = {name: values[neurons] for name, values in session.per_neuron.items()}
    return SharedImagesDataset(
        session.data_key,
        images=images,
        image_ids=np.concatenate([session.image_ids["train"], session.image_ids["test"]]),
        responses=torch.from_numpy(both.astype(np.float32)),
        tiers=tiers,
        neurons={
            "unit_ids": session.unit_ids[neurons],
            "animal_ids": np.full(len(neurons), session.subject),
            **known,
        },
        response_unit="spikes per presentation" if summary == "sum" else "spikes per bin",
    )


def _images_folder(images_path: Any, folders: Sequence[Path]) -> Path:
    folder = images_folder_of(folders) if images_path is None else Path(images_path).expanduser()
    if folder is None:
        raise SettingsError(
            "images_path is needed: session pickles name images by id, and do not contain them.", setting="images_path"
        )
    return folder


def _crop(crop: Any) -> tuple[int, int, int, int]:
    sides = crop
    if isinstance(crop, int):
        sides = [crop] * 4
    elif isinstance(crop, (list, tuple)) and len(crop) == 2:
        sides = [side for pair in crop if isinstance(pair, (list, tuple)) and len(pair) == 2 for side in pair]
    if not isinstance(sides, (list, tuple)) or len(sides) != 4:
        raise SettingsError(
            f"crop is {crop!r}; a number of pixels, [top, bottom, left, right], or [[top, bottom], [left, right]] is "
            "expected.",
            setting="crop",
        )
    top, bottom, left, right = (check_integer("crop", side, minimum=0) for side in sides)
    return top, bottom, left, right


def _time_bins(time_bins: Any) -> tuple[int, ...] | None:
    if time_bins is None:
        return None
    if not isinstance(time_bins, (list, tuple, range)) or not len(time_bins) or len(set(time_bins)) != len(time_bins):
        raise SettingsError(
            f"time_bins is {time_bins!r}; a list of different bins is expected, e.g. [3, 4, 5].", setting="time_bins"
        )
    return tuple(check_integer("time_bins", number, minimum=0) for number in time_bins)


def _bins_of(session: SpikeSession, bins: tuple[int, ...] | None) -> np.ndarray:
    if bins is None:
        return np.arange(session.n_bins)
    if max(bins) >= session.n_bins:
        raise MisfitError(
            f"time_bins names bin {max(bins)}, but session {session.data_key!r} has {session.n_bins} bins, counted "
            "from 0.",
            setting="time_bins",
        )
    return np.array(bins)


def _split_seed(split_seed: Any) -> int:
    value = check_integer("split_seed", split_seed, minimum=0)
    if value >= 2**32:
        raise SettingsError(f"split_seed is {value}; it must be below 2**32.", setting="split_seed")
    return value


def _statistics(mean: Any, std: Any) -> tuple[float, float] | None:
    check_input_statistics(mean, std)
    if mean is None:
        return None
    return check_number("inputs_mean", mean, minimum=0), check_number("inputs_std", std, above=0)

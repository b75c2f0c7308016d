"""The nnfabrik dataset function for static images in the SENSORIUM 2022 layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from december_plugin.datasets.common.arguments import check_finite, check_input_statistics, check_paths
from december_plugin.datasets.common.copies import refuse_copies
from december_plugin.datasets.common.data_cache import kept_or_loaded
from december_plugin.datasets.common.trials import by_tier, tier_loader
from december_plugin.datasets.sensorium.layout import ITEM_DIMENSIONS, RecordingFolder
from december_plugin.datasets.sensorium.preprocessing import Normalization, Preprocessing
from december_plugin.datasets.sensorium.session import NeuronSelection, Session, TrialSelection
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.checks import check_choice, check_integer, check_number, checked_settings


@checked_settings
def static_loaders(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    batch_size: int,
    seed: int | None = None,
    *,
    areas: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    neuron_ids: Sequence[Sequence[int] | None] | None = None,
    neuron_n: int | None = None,
    exclude_neuron_n: int = 0,
    neuron_base_seed: int | None = None,
    image_ids: Sequence[Sequence[int | str] | None] | None = None,
    image_n: int | None = None,
    image_base_seed: int | None = None,
    normalize: bool = True,
    exclude: str | Sequence[str] | None = None,
    inputs_mean: float | None = None,
    inputs_std: float | None = None,
    include_behavior: bool = False,
    add_behavior_as_channels: bool = True,
    include_eye_position: bool = False,
    select_input_channel: int | Sequence[int] | None = None,
    scale: float | None = None,
    file_tree: bool = True,
    return_data_info: bool = False,
) -> dict[str, dict[str, DataLoader]] | dict[str, dict[str, Any]]:
    """Load recordings in the SENSORIUM 2022 layout; each trial is read and transformed once, into memory.

    The arguments have the names and meanings of those of SENSORIUM's ``static_loaders``, and the batches are the same
    to the last bit, in the same order, as those of neuralpredictors' file-tree dataset with its transforms. But nothing
    is computed twice: from the second epoch on, a batch is a slice of memory (float32; a session takes
    4 bytes x trials x (pixels + neurons): 0.25 GB for 6,000 trials of 36 x 64 pixels and 8,000 neurons).

    Parameters
    ----------
    paths
        Folders of the recordings, one for each session, or a single path.
    batch_size
        Trials in a batch, at least 1.
    seed
        Seeds the random selection of neurons or images if ``neuron_base_seed`` or ``image_base_seed`` is not given.
        nnfabrik passes the run's seed here. Loading never touches the global random state; the order of the training
        batches is drawn from torch's global generator, epoch by epoch.
    areas, layers
        Keep neurons of these areas or layers (``meta/neurons/area.npy``, ``layer.npy``).
    neuron_ids
        For each path the unit ids to keep, in this order, or None for all.
    neuron_n, exclude_neuron_n, neuron_base_seed
        Keep ``neuron_n`` random neurons of each session, drawn with the seed ``neuron_base_seed * neuron_n``, after
        leaving out the first ``exclude_neuron_n`` of the draw.
    image_ids
        For each path the ids of the images to train on, or None for all.
    image_n, image_base_seed
        Train on ``image_n`` random trials of each session, drawn with the seed ``image_base_seed * image_n``.
    normalize
        Z-score images and pupil positions; divide behaviour and responses by their standard deviations, from
        ``meta/statistics/<item>/all``.
    exclude
        Items that are not normalised: images, responses, behavior, pupil_center.
    inputs_mean, inputs_std
        Normalise images by these instead of the recording's statistics; give both or neither.
    include_behavior
        Serve behaviour (pupil size, its change, running speed).
    add_behavior_as_channels
        Append behaviour to the images as constant channels, if it is served.
    include_eye_position
        Serve pupil positions, which a shifter needs.
    select_input_channel
        Channel(s) of the images to keep; not together with behaviour.
    scale
        Factor by which images are rescaled (0.25 in SENSORIUM's baselines: 144 x 256 to 36 x 64 pixels).
    file_tree
        Only True: HDF5 files are not read.
    return_data_info
        Return nnfabrik's ``data_info`` instead of loaders, without reading the images: see
        :meth:`december_plugin.datasets.sensorium.session.Session.info`.

    Returns
    -------
    dict
        Tier name to data key to torch ``DataLoader``: ``train``, ``validation`` and whatever other tiers the
        recordings have. A batch is a named tuple of float32 CPU tensors: ``images`` (batch, channels, height, width),
        ``responses`` (batch, neurons), ``behavior`` (batch, variables), ``pupil_center`` (batch, 2). A loader's
        ``dataset`` is an :class:`~december_plugin.datasets.sensorium.dataset.InMemoryDataset`.

    Raises
    ------
    RecordingError
        If a recording is missing, damaged, inconsistent, or lacks what was requested, or two of them have the same
        responses.
    SettingsError
        If a setting is unknown or has a value that is not allowed.

    See Also
    --------
    macaque_v4_loaders : Spike counts of macaque V4 to images.
    movie_loaders : Movies in the generic format.
    december_plugin.models.stacked_core_gaussian_readout : Builds a model of these loaders.
    december_plugin.simulate.write_recording : Writes a simulated recording in this layout.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> from december_plugin.simulate import write_recording
    >>> sizes = {"n_neurons": 12, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> folder = write_recording("static3-1-1-simulated", seed=3, **sizes)
    >>> loaders = static_loaders([folder], batch_size=10, seed=1)
    >>> (data_key,) = loaders["train"]
    >>> batch = next(iter(loaders["train"][data_key]))
    >>> tuple(batch.images.shape), tuple(batch.responses.shape)
    ((10, 1, 16, 16), (10, 12))
    """
    folders = check_paths(paths)
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    if file_tree is not True:
        raise SettingsError(
            f"file_tree is {file_tree!r}; only True is possible, HDF5 files are not read. Convert the file with "
            "neuralpredictors' convert_static_h5_dataset_to_folder.",
            setting="file_tree",
        )
    items = [
        "images",
        "responses",
        *["behavior"] * bool(include_behavior),
        *["pupil_center"] * bool(include_eye_position),
    ]
    channels = _channels(select_input_channel, include_behavior)
    if scale is not None:
        scale = check_number("scale", scale, above=0)
    normalized = _normalized_items(items, normalize, exclude)
    check_input_statistics(inputs_mean, inputs_std, remedy="Give both, or neither to use the recording's statistics.")
    if inputs_mean is not None:
        check_finite("inputs_mean", inputs_mean)
        check_number("inputs_std", inputs_std, above=0)
    neurons = _neuron_selections(
        len(folders),
        areas,
        layers,
        neuron_ids,
        neuron_n,
        exclude_neuron_n,
        _base_seed("neuron", neuron_base_seed, neuron_n, seed),
    )
    trials = _trial_selections(len(folders), image_ids, image_n, _base_seed("image", image_base_seed, image_n, seed))

    def checked_sessions() -> dict[str, Session]:
        sessions: dict[str, Session] = {}
        for recording, selected, chosen in zip(_open(folders), neurons, trials, strict=True):
            for item in items:
                recording.check_item(item)
            normalization = Normalization.of_recording(
                recording, normalized, inputs_mean=inputs_mean, inputs_std=inputs_std
            )
            preprocessing = Preprocessing(
                normalization,
                neurons=selected.positions(recording),
                behavior_as_channels=bool(include_behavior and add_behavior_as_channels),
                channels=channels,
                scale=scale,
            )
            sessions[recording.data_key] = Session(recording, tuple(items), preprocessing, chosen.tiers(recording))
        check_session_names(sessions)
        refuse_copies(session.recorded() for session in sessions.values())
        return sessions

    if return_data_info:
        return {data_key: session.info() for data_key, session in checked_sessions().items()}
    asked = (items, normalized, inputs_mean, inputs_std, neurons, trials, channels, scale, add_behavior_as_channels)
    datasets = kept_or_loaded(
        "static_loaders",
        folders,
        asked,
        lambda: {data_key: session.load() for data_key, session in checked_sessions().items()},
    )
    return by_tier(
        {
            data_key: {tier: tier_loader(dataset, tier, batch_size=batch_size) for tier in dataset.tiers}
            for data_key, dataset in datasets.items()
        }
    )


def _open(folders: Sequence[Path]) -> list[RecordingFolder]:
    recordings: dict[str, RecordingFolder] = {}
    for folder in folders:
        recording = RecordingFolder(folder)
        other = recordings.setdefault(recording.data_key, recording)
        if other is not recording:
            raise RecordingError(
                f"Two recordings have the same session name {recording.data_key!r}: {other.path} and {recording.path}. "
                "The name comes from the folder's name; leave one out or rename its folder."
            )
    return list(recordings.values())


def _normalized_items(items: Sequence[str], normalize: bool, exclude: str | Sequence[str] | None) -> list[str]:
    excluded = [exclude] if isinstance(exclude, str) else list(exclude or [])
    for item in excluded:
        check_choice("exclude", item, ITEM_DIMENSIONS)
    return [item for item in items if normalize and item not in excluded]


def _channels(select_input_channel: int | Sequence[int] | None, include_behavior: bool) -> tuple[int, ...] | None:
    if select_input_channel is None:
        return None
    if include_behavior:
        raise SettingsError(
            "select_input_channel and include_behavior cannot be combined. Leave one of them out.",
            setting="select_input_channel",
            others=["include_behavior"],
        )
    channels = select_input_channel if isinstance(select_input_channel, Sequence) else [select_input_channel]
    return tuple(check_integer("select_input_channel", channel, minimum=0) for channel in channels)


def _base_seed(kind: str, base_seed: int | None, count: int | None, seed: int | None) -> int | None:
    if count is None:
        return None
    check_integer(f"{kind}_n", count, minimum=1)
    if base_seed is not None:
        used = check_integer(f"{kind}_base_seed", base_seed, minimum=0) * int(count)
    elif seed is not None:
        used = check_integer("seed", seed, minimum=0)
    else:
        raise SettingsError(
            f"{kind}_n={count} draws at random and needs a seed: give {kind}_base_seed or seed.",
            setting=f"{kind}_n",
            others=[f"{kind}_base_seed", "seed"],
        )
    if used >= 2**32:
        raise SettingsError(
            f"The seed of {kind}_n={count} is {used}; it must be below 2**32. Use a smaller seed.",
            setting="seed" if base_seed is None else f"{kind}_base_seed",
            others=[f"{kind}_n"],
        )
    return used


def _per_session(name: str, values: Any, n_sessions: int) -> list[tuple[Any, ...] | None]:
    if values is None:
        return [None] * n_sessions
    nested = [value for value in values if value is None or not (hasattr(value, "__index__") or isinstance(value, str))]
    if len(nested) != len(values) or len(values) != n_sessions:
        raise SettingsError(
            f"{name} needs one list of ids (or None for all) for each of the {n_sessions} path(s), "
            f"e.g. {name}=[[3, 8, 11]] for one path; {len(values)} entries were given.",
            setting=name,
            others=["paths"],
        )
    return [None if value is None else tuple(_identity(name, identity) for identity in value) for value in values]


def _identity(name: str, identity: Any) -> int | str:
    """Return a checked id: a whole number or, for an image, a name."""
    if name == "image_ids" and isinstance(identity, str):
        return str(identity)
    if isinstance(identity, (bool, np.bool_)) or not hasattr(identity, "__index__"):
        expected = "whole numbers" if name == "neuron_ids" else "whole numbers or names"
        raise SettingsError(
            f"{name} has {identity!r}; {expected} are expected, as the recording has them.", setting=name
        )
    return int(identity)


def _neuron_selections(
    n_sessions: int,
    areas: Sequence[str] | None,
    layers: Sequence[str] | None,
    neuron_ids: Any,
    neuron_n: int | None,
    exclude_neuron_n: int,
    seed: int | None,
) -> list[NeuronSelection]:
    if neuron_ids is not None and (areas is not None or layers is not None or neuron_n is not None or exclude_neuron_n):
        raise SettingsError(
            "neuron_ids cannot be combined with areas, layers, neuron_n or exclude_neuron_n. Leave one of them out.",
            setting="neuron_ids",
            others=["areas", "layers", "neuron_n", "exclude_neuron_n"],
        )
    if exclude_neuron_n and neuron_n is None:
        raise SettingsError(
            f"exclude_neuron_n={exclude_neuron_n} needs neuron_n. Give both.",
            setting="exclude_neuron_n",
            others=["neuron_n"],
        )
    skip = check_integer("exclude_neuron_n", exclude_neuron_n, minimum=0)
    return [
        NeuronSelection(_names(areas), _names(layers), unit_ids, neuron_n, skip, seed)
        for unit_ids in _per_session("neuron_ids", neuron_ids, n_sessions)
    ]


def _trial_selections(n_sessions: int, image_ids: Any, image_n: int | None, seed: int | None) -> list[TrialSelection]:
    if image_ids is not None and image_n is not None:
        raise SettingsError(
            "image_ids cannot be combined with image_n. Leave one of them out.", setting="image_ids", others=["image_n"]
        )
    return [TrialSelection(ids, image_n, seed) for ids in _per_session("image_ids", image_ids, n_sessions)]


def _names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(map(str, names))

"""One recording in the SENSORIUM 2022 folder layout: its files, their checks, and reading single trials.

The layout (Willeke et al. 2022; written by neuralpredictors' ``convert_static_h5_dataset_to_folder``)::

    <folder>/data/{images,responses[,behavior,pupil_center]}/<trial>.npy
    <folder>/meta/trials/{tiers,frame_image_id,trial_idx,...}.npy
    <folder>/meta/neurons/{unit_ids,cell_motor_coordinates,...}.npy
    <folder>/meta/statistics/<item>/all/{mean,std,...}.npy
    <folder>/config.json                                            (optional)

One trial: image (channels, height, width), responses (neurons,), behaviour (3,), pupil position (2,).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from december_plugin.datasets.common.arrays import ArrayFolder, channels_come_last, read_array
from december_plugin.datasets.common.files import entries_of, is_left_by_system, read_json
from december_plugin.embeddings.neuron_ids import repeated_ids, whole_numbers
from december_plugin.errors import RecordingError

ITEM_DIMENSIONS = {"images": 3, "responses": 1, "behavior": 1, "pupil_center": 1}
OPTIONAL = {"behavior": "include_behavior", "pupil_center": "include_eye_position"}  # and the setting that asks for it
TEST = "test"
NEEDED = ("data/images", "data/responses", "meta/trials/tiers.npy", "meta/neurons/unit_ids.npy")
TRIAL_FILE = re.compile(r"(?:0|[1-9][0-9]*)\.npy", re.ASCII)
IMAGE_ID_NAMES = ("image_id", "colorframeprojector_image_id", "frame_image_id")


def data_key_of(path: Path) -> str:
    """Return the name of a session, as SENSORIUM derives it from the folder's name.

    ``static26872-17-20-GrayImageNet-94c6...`` gives ``26872-17-20``, ``static22564-2-13-preproc0`` gives
    ``22564-2-13-0``; any other folder gives its own name, in which what a ``torch.nn.ModuleDict`` refuses as a
    key (dots, the names of its own attributes) is replaced.
    """
    name = path.name
    end = name.split("static")[-1]
    if "preproc" in name:
        return end.split(".")[0].replace("preproc", "").replace("_nobehavior", "")
    for kind in ("ColorImageNet", "GrayImageNet"):
        if kind in name:
            return end.split(f"-{kind}")[0]
    key = name.replace(".", "_")
    return f"session-{key}" if hasattr(nn.ModuleDict, key) or hasattr(nn.ModuleDict(), key) else key


def trial_image_ids(trial_info: Any, n_trials: int, *, where: object) -> np.ndarray | None:
    """Return which image was shown in each trial of a recording; equal ids are repeats of one image.

    Parameters
    ----------
    trial_info
        The content of ``meta/trials``, as attributes: :attr:`RecordingFolder.trials`, or a dataset's ``trial_info``,
        including that of neuralpredictors' ``FileTreeDataset``. The first of ``image_id``,
        ``colorframeprojector_image_id`` and ``frame_image_id`` that it has is taken, as SENSORIUM's loader does.
    n_trials
        Number of trials of all tiers.
    where
        The recording's folder or the session's name, for messages.

    Returns
    -------
    numpy.ndarray or None
        (trials,) numbers or text; None if the recording does not say.

    Raises
    ------
    RecordingError
        If the file has another number of values, pickled objects, or ids that are neither text nor finite numbers.
    """
    found = ((name, getattr(trial_info, name, None)) for name in IMAGE_ID_NAMES)
    name, values = next(((name, ids) for name, ids in found if ids is not None), ("", None))
    if values is None:
        return None
    ids = np.asarray(values)
    file = f"{where}: meta/trials/{name}.npy"
    if ids.shape != (n_trials,):
        raise RecordingError(
            f"{file} has shape {ids.shape}; one value for each of the {n_trials} trials in meta/trials/tiers.npy is "
            "expected. Export it again with the trials."
        )
    unknown = ids.dtype.kind not in "iufbUS" or (ids.dtype.kind == "f" and not np.isfinite(ids).all())
    if unknown or (ids.dtype.kind in "US" and not np.char.str_len(ids).all()):
        raise RecordingError(
            f"{file} has NaN, infinite values, objects or empty text (dtype {ids.dtype}); a number or text that "
            "names the image of each trial is expected, since equal ids are repeats of one image. Remove "
            "the file if that is unknown."
        )
    return ids


class RecordingFolder:
    """A recording on disk. Opening it checks the layout and the small files; no trial is read.

    Parameters
    ----------
    path
        The recording's folder.

    Attributes
    ----------
    path : pathlib.Path
        Absolute path.
    data_key : str
        The session's name, see :func:`data_key_of`.
    neurons, trials, statistics : ArrayFolder
        The content of ``meta/neurons``, ``meta/trials`` and ``meta/statistics``.
    unit_ids : numpy.ndarray
        (neurons,) int64, unique within the session.
    tiers : numpy.ndarray
        (trials,) str.
    image_ids : numpy.ndarray or None
        (trials,) id of the image shown in each trial, None if the recording does not say; see :func:`trial_image_ids`.
    coordinates : numpy.ndarray or None
        (neurons, 2 or 3) cortical positions in micrometres, None if the recording does not say.

    Raises
    ------
    RecordingError
        If the folder is missing, has another layout, has damaged files in ``meta``, duplicate unit ids, fewer than two
        neurons, no training or validation trials, or a single validation or test trial.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        _check_folder(self.path)
        self._links = _links(self.path)
        _check_layout(self.path, self._links)
        self.data_key = data_key_of(self.path)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.neurons = ArrayFolder(self.path / "meta" / "neurons")
        self.trials = ArrayFolder(self.path / "meta" / "trials")
        self.statistics = ArrayFolder(self.path / "meta" / "statistics", links=self._links)
        self.tiers = self._checked_tiers()
        self.image_ids = trial_image_ids(self.trials, self.n_trials, where=self.path)
        self.unit_ids = self._checked_unit_ids()
        self.coordinates = self._checked_coordinates()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.n_neurons} neurons, {self.n_trials} trials)"

    @property
    def n_trials(self) -> int:
        """Number of trials of all tiers."""
        return len(self.tiers)

    @property
    def n_neurons(self) -> int:
        """Number of recorded neurons."""
        return len(self.unit_ids)

    def per_neuron(self, name: str) -> np.ndarray:
        """Return one entry of ``meta/neurons``, with one value for each neuron.

        Raises
        ------
        RecordingError
            If it is missing or has another length.
        """
        if name not in self.neurons:
            raise RecordingError(
                f"{self.path}: meta/neurons/{name}.npy is missing. It has: {', '.join(self.neurons.keys())}."
            )
        values = self.neurons[name]
        if values.ndim != 1 or len(values) != self.n_neurons:
            held = f"has {len(values)} values" if values.ndim == 1 else f"has shape {values.shape}"
            raise RecordingError(
                f"{self.path}: meta/neurons/{name}.npy {held}, meta/neurons/unit_ids.npy {self.n_neurons}. Both need "
                "one entry for each neuron."
            )
        return values

    def statistic(self, item: str, name: str, *, source: str = "all") -> np.ndarray:
        """Return ``meta/statistics/<item>/<source>/<name>.npy``, which normalisation needs.

        Raises
        ------
        RecordingError
            If the file is missing, has NaN or infinite values, or has a shape that does not fit a trial's.
        """
        folder = self.path / "meta" / "statistics" / self._links.get(item, item) / source
        file = folder / f"{name}.npy"
        if not file.is_file():
            raise RecordingError(f"{file} is missing. Normalisation needs it; or pass normalize=False.")
        values = read_array(file)
        if values.dtype.kind in "iu":  # whole numbers less whole numbers of one byte would wrap around
            values = values.astype(np.float64)
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            instead = f", or pass {OPTIONAL[item]}=False" if item in OPTIONAL else ""
            raise RecordingError(
                f"{file} has NaN, infinite or non-numeric values. Compute the statistics again{instead}."
            )
        if item != "responses" and not _fits(values.shape, self.shape_of(item)):
            raise RecordingError(
                f"{file} has shape {values.shape}, but {item} of a trial have the shape {self.shape_of(item)}. Compute "
                "the statistics again."
            )
        return values

    def check_item(self, item: str) -> None:
        """Check that an item has one file for each trial, all of one shape, before anything slow begins.

        Raises
        ------
        RecordingError
            If the item or one of its files is missing, damaged, or has another shape than the rest.
        """
        folder = self._item_folder(item)
        if not folder.is_dir():
            raise RecordingError(f"{folder} is missing: this recording has no {item}. Load it without {item}.")
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if not is_left_by_system(entry.name) and entry.name.endswith(".npy")]
            sizes = {entry.name: entry.stat().st_size for entry in files}
        others = sorted(name for name in sizes if TRIAL_FILE.fullmatch(name) is None)
        if others:
            raise RecordingError(
                f"{folder} has {len(others)} file(s) that are not trials, e.g. {others[0]}; 0.npy, 1.npy, and so on "
                "are expected. Move them elsewhere."
            )
        missing = next((trial for trial in range(self.n_trials) if f"{trial}.npy" not in sizes), None)
        if missing is not None or len(sizes) != self.n_trials:
            where = f", {missing}.npy is missing" if missing is not None else ""
            raise RecordingError(
                f"{folder} has {len(sizes)} trials{where}, but meta/trials/tiers.npy describes {self.n_trials}. "
                "Images, responses and tiers need the same trials: 0.npy, 1.npy, and so on."
            )
        # A file whose length differs from the first is damaged or has another shape: read these now, not in an hour.
        for trial in range(self.n_trials):
            if sizes[f"{trial}.npy"] != sizes["0.npy"] or trial == 0:
                self.read(item, trial)

    def file_of(self, item: str, trial: int) -> Path:
        """Return the file of one item of one trial."""
        return self._item_folder(item) / f"{trial}.npy"

    def read(self, item: str, trial: int) -> np.ndarray:
        """Read one item of one trial as it is stored.

        Returns
        -------
        numpy.ndarray
            images (channels, height, width), responses (neurons,), behaviour (3,), pupil position (2,).

        Raises
        ------
        RecordingError
            If the file is damaged or its shape is not the recording's.
        """
        file = self.file_of(item, trial)
        value = read_array(file)
        if value.dtype.kind not in "fiub":
            raise RecordingError(f"{file} has values of dtype {value.dtype}; numbers are expected.")
        if value.ndim != ITEM_DIMENSIONS[item]:
            shape = "(channels, height, width)" if item == "images" else "one axis"
            raise RecordingError(f"{file} has shape {value.shape}; {shape} is expected.")
        if 0 in value.shape:
            raise RecordingError(f"{file} has shape {value.shape}: it is empty. Copy the recording again.")
        if item == "images" and channels_come_last(value.shape):
            raise RecordingError(
                f"{file} has shape {value.shape}, which looks like (height, width, channels); (channels, height, "
                "width) is expected. Move the channels to the front, e.g. with numpy.moveaxis(image, -1, 0)."
            )
        if item == "responses" and len(value) != self.n_neurons:
            raise RecordingError(
                f"{file} has {len(value)} responses, but meta/neurons/unit_ids.npy names {self.n_neurons} neurons. "
                "Every trial needs one response of each neuron."
            )
        if trial > 0 and item != "responses" and value.shape != self.shape_of(item):
            raise RecordingError(
                f"{file} has shape {value.shape}, but the {item} of trial 0 has {self.shape_of(item)}. "
                "All trials of a recording need the same shape."
            )
        if trial == 0:
            self._shapes[item] = value.shape
        return value

    def shape_of(self, item: str) -> tuple[int, ...]:
        """Return the shape of an item in every trial, that of the first."""
        if item not in self._shapes:
            self.read(item, 0)
        return self._shapes[item]

    def _item_folder(self, item: str) -> Path:
        return self.path / "data" / self._links.get(item, item)

    def _checked_tiers(self) -> np.ndarray:
        tiers = self.trials.tiers
        file = self.path / "meta" / "trials" / "tiers.npy"
        if tiers.ndim != 1 or tiers.dtype.kind not in "US" or len(tiers) == 0:
            raise RecordingError(
                f"{file} has shape {tiers.shape} and dtype {tiers.dtype}; one tier name (train, validation, test, ...) "
                "for each trial is expected."
            )
        tiers = tiers.astype(str)
        for needed, minimum in (("train", 1), ("validation", 2)):
            count = int((tiers == needed).sum())
            if count < minimum:
                found = ", ".join(sorted(set(tiers.tolist())))
                raise RecordingError(
                    f"{file} assigns {count} trials to the tier {needed!r}; at least {minimum} is needed. "
                    f"Tiers there: {found}. Assign some trials to {needed!r}."
                )
        if (tiers == TEST).sum() == 1:
            raise RecordingError(
                f"{file} assigns one trial to the tier {TEST!r}, and a correlation needs at least two. Assign more "
                f"trials to {TEST!r}, or give this one another tier: a session without test trials is not tested."
            )
        return tiers

    def _checked_unit_ids(self) -> np.ndarray:
        file = self.path / "meta" / "neurons" / "unit_ids.npy"
        unit_ids = self.neurons.unit_ids
        whole = whole_numbers(unit_ids)
        if unit_ids.ndim != 1 or whole is None:
            raise RecordingError(
                f"{file} has shape {unit_ids.shape} and dtype {unit_ids.dtype}; one integer for each neuron is "
                "expected."
            )
        if len(unit_ids) < 2:
            raise RecordingError(
                f"{self.path} has {len(unit_ids)} neuron(s); at least 2 are needed to fit and cluster a session. "
                "Leave this recording out."
            )
        repeated = repeated_ids(unit_ids)
        if len(repeated):
            raise RecordingError(
                f"{file} names {len(repeated)} unit id(s) more than once, e.g. {repeated[0]}. "
                "A unit id identifies a neuron within its session: make them unique."
            )
        return whole

    def _checked_coordinates(self) -> np.ndarray | None:
        if "cell_motor_coordinates" not in self.neurons:
            return None
        positions = self.neurons.cell_motor_coordinates
        file = self.path / "meta" / "neurons" / "cell_motor_coordinates.npy"
        if positions.ndim != 2 or len(positions) != self.n_neurons or positions.dtype.kind not in "fiu":
            raise RecordingError(
                f"{file} has shape {positions.shape} and dtype {positions.dtype}; one row of coordinates for each of "
                f"the {self.n_neurons} neurons in meta/neurons/unit_ids.npy is expected."
            )
        if not np.isfinite(positions).all():
            raise RecordingError(
                f"{file} has NaN or infinite positions. Remove these neurons from the recording, or the file if "
                "the model is to learn positions without it."
            )
        return positions


def _check_folder(path: Path) -> None:
    if path.suffix == ".zip":
        raise RecordingError(
            f"{path} is a zip archive. Unpack it (unzip {path.name} -d {path.parent}) and pass the folder."
        )
    if not path.exists():
        raise RecordingError(f"The recording {path} does not exist. Check the path and that its disk is mounted.")
    if not path.is_dir():
        raise RecordingError(f"The recording {path} is a file. Pass the recording's folder.")


def _fits(shape: tuple[int, ...], trial: tuple[int, ...]) -> bool:
    """Return whether values of a shape can be subtracted from a trial's without broadcasting those to more."""
    return len(shape) <= len(trial) and all(
        own in (1, size) for own, size in zip(reversed(shape), reversed(trial), strict=False)
    )


def _missing(path: Path, links: Mapping[str, str]) -> list[str]:
    folders = {f"data/{item}": f"data/{links.get(item, item)}" for item in ITEM_DIMENSIONS}
    return [entry for entry in NEEDED if not (path / folders.get(entry, entry)).exists()]


def _check_layout(path: Path, links: Mapping[str, str]) -> None:
    missing = _missing(path, links)
    if missing:
        inner = next((child for child in entries_of(path) if child.is_dir() and not _missing(child, {})), None)
        hint = f" Did you mean {inner}?" if inner is not None else ""
        raise RecordingError(
            f"{path} is not a recording in the SENSORIUM 2022 layout: {', '.join(missing)} missing.{hint} Expected: "
            "data/images/<trial>.npy, data/responses/<trial>.npy, meta/trials/tiers.npy and meta/neurons/unit_ids.npy."
        )


def _links(path: Path) -> dict[str, str]:
    config = path / "config.json"
    if not config.is_file():
        return {}
    try:
        links = read_json(config).get("links") or {}
        return {str(name): str(target) for name, target in links.items()}
    except (ValueError, AttributeError, UnicodeDecodeError) as cause:
        raise RecordingError(
            f'{config} is not a valid configuration ({cause}). Write {{"links": {{}}}} into it, or remove it.'
        ) from cause

"""One session as requested: its neurons, trials and items, checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from december_plugin.datasets.common.copies import Recorded
from december_plugin.datasets.common.trials import TRAIN, mean_over_trials
from december_plugin.datasets.sensorium.dataset import InMemoryDataset, describe_session
from december_plugin.datasets.sensorium.layout import IMAGE_ID_NAMES, OPTIONAL, TEST, RecordingFolder
from december_plugin.datasets.sensorium.preprocessing import Preprocessing
from december_plugin.errors import MisfitError, RecordingError, SettingsError

TIER_ORDER = ("train", "validation", "test", "final_test")


@dataclass(frozen=True)
class NeuronSelection:
    """Which neurons of a session to keep; everything None keeps all.

    Attributes
    ----------
    areas, layers
        Keep neurons whose ``meta/neurons/area.npy`` (``layer.npy``) is one of these.
    unit_ids
        Keep these neurons, in this order.
    count
        Keep this many, drawn at random among those that ``areas`` and ``layers`` leave.
    skip
        Leave out the first ``skip`` of the drawn ones, for two disjoint draws with one seed.
    seed
        Seed of the draw.
    """

    areas: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    unit_ids: tuple[int, ...] | None = None
    count: int | None = None
    skip: int = 0
    seed: int | None = None

    def positions(self, recording: RecordingFolder) -> np.ndarray:
        """Return the positions of the selected neurons in the recording, (selected,) int64.

        Raises
        ------
        SettingsError
            If the selection names unit ids that do not exist, or leaves fewer than two neurons.
        """
        keep = np.ones(recording.n_neurons, dtype=bool)
        for name, allowed in (("area", self.areas), ("layer", self.layers)):
            if allowed is not None:
                keep &= np.isin(recording.per_neuron(name).astype(str), allowed)
        positions = np.flatnonzero(keep)
        if self.unit_ids is not None:
            positions = self._named(recording)
        elif self.count is not None:
            positions = self._drawn(recording, positions)
        if len(positions) < 2:
            raise MisfitError(
                f"The selection leaves {len(positions)} of {recording.n_neurons} neurons of session "
                f"{recording.data_key!r}; at least 2 are needed. Widen it (areas, layers, neuron_ids, neuron_n).",
                others=["areas", "layers", "neuron_ids", "neuron_n"],
            )
        return positions

    def _named(self, recording: RecordingFolder) -> np.ndarray:
        where = {unit_id: position for position, unit_id in enumerate(recording.unit_ids.tolist())}
        wanted = self.unit_ids or ()
        unknown = [unit_id for unit_id in wanted if unit_id not in where]
        if unknown:
            raise MisfitError(
                f"neuron_ids names {len(unknown)} unit id(s) that session {recording.data_key!r} ({recording.path}) "
                f"does not have: {_some(unknown)}. Its {recording.n_neurons} unit ids are in "
                "meta/neurons/unit_ids.npy.",
                setting="neuron_ids",
            )
        if len(set(wanted)) != len(wanted):
            raise SettingsError(
                f"neuron_ids names a unit id of session {recording.data_key!r} twice. Name each once.",
                setting="neuron_ids",
            )
        return np.array([where[unit_id] for unit_id in wanted], dtype=np.int64)

    def _drawn(self, recording: RecordingFolder, candidates: np.ndarray) -> np.ndarray:
        size = self.skip + (self.count or 0)
        if size > len(candidates):
            raise MisfitError(
                f"neuron_n={self.count} after exclude_neuron_n={self.skip} needs {size} neurons, but session "
                f"{recording.data_key!r} has {len(candidates)} to draw from. Ask for fewer.",
                setting="neuron_n",
                others=["exclude_neuron_n"],
            )
        return np.random.RandomState(self.seed).choice(candidates, size=size, replace=False)[self.skip :]


@dataclass(frozen=True)
class TrialSelection:
    """Which training trials of a session to keep; other tiers are always whole.

    Attributes
    ----------
    image_ids
        Keep one trial (the first) of each of these images.
    count
        Keep this many training trials, drawn at random.
    seed
        Seed of the draw.
    """

    image_ids: tuple[Any, ...] | None = None
    count: int | None = None
    seed: int | None = None

    def tiers(self, recording: RecordingFolder) -> dict[str, np.ndarray]:
        """Return the positions of the trials of each tier that the recording has.

        Raises
        ------
        SettingsError
            If the training trials asked for do not exist.
        """
        names = set(recording.tiers.tolist())
        ordered = [name for name in TIER_ORDER if name in names] + sorted(names - set(TIER_ORDER))
        tiers = {name: np.flatnonzero(recording.tiers == name) for name in ordered}
        if self.image_ids is not None:
            tiers[TRAIN] = self._named(recording)
        elif self.count is not None:
            if self.count > len(tiers[TRAIN]):
                raise MisfitError(
                    f"image_n={self.count}, but session {recording.data_key!r} has {len(tiers[TRAIN])} training "
                    "trials. Ask for fewer.",
                    setting="image_n",
                )
            tiers[TRAIN] = np.random.RandomState(self.seed).choice(tiers[TRAIN], size=self.count, replace=False)
        return tiers

    def _named(self, recording: RecordingFolder) -> np.ndarray:
        if recording.image_ids is None:
            raise MisfitError(
                f"image_ids was given, but session {recording.data_key!r} has no meta/trials/frame_image_id.npy that "
                "says which image was shown. Leave image_ids out, or use image_n.",
                setting="image_ids",
            )
        first = {image: trial for trial, image in reversed(list(enumerate(recording.image_ids.tolist())))}
        wanted = self.image_ids or ()
        bad = [image for image in wanted if image not in first or recording.tiers[first[image]] != TRAIN]
        if bad or not wanted:
            raise MisfitError(
                f"image_ids names {len(bad)} of {len(wanted)} image(s) that are not in the training tier of session "
                f"{recording.data_key!r}: {_some(bad) or 'none given'}. Name images of training trials.",
                setting="image_ids",
            )
        return np.array([first[image] for image in wanted], dtype=np.int64)


@dataclass(frozen=True)
class Session:
    """One recording together with what to serve from it; nothing large has been read yet.

    Attributes
    ----------
    recording
        The recording on disk.
    items
        Names of the items of a batch: images, responses, then behavior and pupil_center if asked for.
    preprocessing
        How a trial is transformed.
    tiers
        Tier name to the positions of its trials.
    """

    recording: RecordingFolder
    items: tuple[str, ...]
    preprocessing: Preprocessing
    tiers: dict[str, np.ndarray]

    def load(self) -> InMemoryDataset:
        """Read and transform every trial.

        Raises
        ------
        RecordingError
            If a file is damaged, differs in shape from the others, or has NaN or infinite values, or if test images
            repeat and no file says which.
        """
        values: dict[str, np.ndarray] = {}
        readers = self._readers()
        trials = tqdm(
            range(self.recording.n_trials),
            desc=f"Reading {self.recording.data_key}",
            unit="trial",
            disable=None,
            delay=1.0,
            leave=False,
        )
        for trial in trials:
            for item, read in readers.items():
                value = read(trial)
                if item not in values:
                    values[item] = np.empty((self.recording.n_trials, *value.shape), dtype=np.float32)
                values[item][trial] = value
        # Images last, because behaviour may be in their channels, too.
        for item in sorted(self.items, key="images".__eq__):
            self._check_finite(item, values[item])
        self._check_repeats(values["images"])
        return InMemoryDataset(
            self.recording,
            {item: torch.from_numpy(values[item]) for item in self.items},
            neurons=self.preprocessing.neurons,
            tiers=self.tiers,
            image_statistics=self.preprocessing.normalization.images or (None, None),
        )

    def recorded(self) -> Recorded:
        """Return the responses of the kept neurons as they are stored, trial by trial."""
        neurons = self.preprocessing.neurons

        def responses() -> Iterator[np.ndarray]:
            return (self.recording.read("responses", trial)[neurons] for trial in range(self.recording.n_trials))

        return Recorded(str(self.recording.path), responses)

    def info(self) -> dict[str, Any]:
        """Return what a model needs to know, reading only one image and the training responses.

        Returns
        -------
        dict
            See :func:`december_plugin.datasets.sensorium.dataset.describe_session`.
        """
        readers = self._readers()
        responses = np.stack([readers["responses"](trial) for trial in self.tiers[TRAIN]])
        self._check_finite("responses", responses, self.tiers[TRAIN])
        return describe_session(
            self.recording,
            self.preprocessing.neurons,
            image_shape=readers["images"](0).shape,
            image_statistics=self.preprocessing.normalization.images or (None, None),
            mean_responses=mean_over_trials(responses),
            pupil_channels=len(readers["pupil_center"](0)) if "pupil_center" in readers else None,
        )

    def _readers(self) -> dict[str, Callable[[int], np.ndarray]]:
        recording, preprocessing = self.recording, self.preprocessing

        def image(trial: int) -> np.ndarray:
            behavior = recording.read("behavior", trial) if preprocessing.behavior_as_channels else None
            return preprocessing.image(recording.read("images", trial), behavior)

        readers: dict[str, Callable[[int], np.ndarray]] = {
            "images": image,
            "responses": lambda trial: preprocessing.responses(recording.read("responses", trial)),
            "behavior": lambda trial: preprocessing.behavior(recording.read("behavior", trial)),
            "pupil_center": lambda trial: preprocessing.pupil_center(recording.read("pupil_center", trial)),
        }
        return {item: readers[item] for item in self.items}

    def _check_repeats(self, images: np.ndarray) -> None:
        """Raise an error if the test tier shows images again and the recording does not say which trials do."""
        trials = self.tiers.get(TEST, ())
        if self.recording.image_ids is not None or not len(trials):
            return
        # Behaviour as channels comes after those of the image, and differs between its repeats.
        n_channels = images.shape[1]
        if self.preprocessing.behavior_as_channels:
            n_channels -= len(self.recording.read("behavior", 0))
        n_images = len({images[trial, :n_channels].tobytes() for trial in trials})
        if n_images < len(trials):
            names = ", ".join(f"{name}.npy" for name in IMAGE_ID_NAMES)
            raise RecordingError(
                f"{self.recording.path}: the {len(trials)} test trials show {n_images} different images, but it is "
                f"unknown which: meta/trials has none of {names}. Export one of them, with one id for each trial of "
                "all tiers; without it there is no correlation to the average over repeats."
            )

    def _check_finite(self, item: str, values: np.ndarray, trials: np.ndarray | None = None) -> None:
        # A sum is finite if and only if all its terms are, unless it overflows; only then look at every value.
        if np.isfinite(values.sum(dtype=np.float64)):
            return
        bad = ~np.isfinite(values).reshape(len(values), -1)
        if not bad.any():
            return
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        first = row if trials is None else int(trials[row])
        remedy = "Remove these trials or neurons from the recording"
        if item in OPTIONAL:
            remedy = f"Remove these trials from the recording, or pass {OPTIONAL[item]}=False"
        n_trials = int(bad.any(axis=1).sum())
        file = self.recording.file_of(item, first).relative_to(self.recording.path)
        raise RecordingError(
            f"{self.recording.path}: {int(bad.sum())} NaN or infinite value(s) in {item} of {n_trials} "
            f"trial(s), first in {file}. {remedy}."
        )


def _some(values: Sequence[Any], limit: int = 5) -> str:
    return ", ".join(map(str, values[:limit])) + (", ..." if len(values) > limit else "")

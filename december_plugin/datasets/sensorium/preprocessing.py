"""Transforms of a trial between file and model, with the numbers of neuralpredictors', applied once.

Order as in SENSORIUM's loader: normalise, append behaviour as channels, select channels, rescale, select neurons,
convert to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.transform import rescale

from december_plugin.datasets.common.images import check_scale
from december_plugin.datasets.sensorium.layout import RecordingFolder
from december_plugin.errors import MisfitError, RecordingError

# Responses whose standard deviation is below this fraction of the mean one are divided by that instead.
SMALLEST_RELATIVE_STD = 0.01


@dataclass(frozen=True)
class Normalization:
    """Constants of ``(value - offset) / scale`` for images and pupil, ``value * precision`` for the rest.

    Attributes
    ----------
    images, pupil_center
        ``(mean, std)``, each a scalar or broadcasting to one trial; None leaves the item as it is.
    responses
        (all recorded neurons,) factor of each neuron; None leaves responses as they are.
    behavior
        (3,) factor of each behavioural variable; None leaves behaviour as it is.
    """

    images: tuple[np.ndarray | float, np.ndarray | float] | None = None
    responses: np.ndarray | None = None
    behavior: np.ndarray | None = None
    pupil_center: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of_recording(
        cls,
        recording: RecordingFolder,
        items: Sequence[str],
        *,
        inputs_mean: float | None = None,
        inputs_std: float | None = None,
    ) -> Normalization:
        """Read the constants for ``items`` from the recording's statistics over all its trials.

        The formulas are those of neuralpredictors' ``NeuroNormalizer``: images and pupil position are z-scored,
        behaviour is divided by its standard deviation, responses by each neuron's standard deviation or, if that is
        smaller, by 1 % of the mean standard deviation.

        Raises
        ------
        RecordingError
            If a statistic is missing, not finite, has another length, or a standard deviation is zero.
        """
        constants: dict[str, Any] = {}
        if "images" in items:
            given = inputs_mean is not None and inputs_std is not None
            # Subtracting a whole number from grey levels of one byte would wrap around.
            means = tuple(_as_float(value) for value in (inputs_mean, inputs_std))
            constants["images"] = means if given else _z_score(recording, "images")
        if "pupil_center" in items:
            constants["pupil_center"] = _z_score(recording, "pupil_center")
        if "behavior" in items:
            constants["behavior"] = 1 / _positive_std(recording, "behavior")
        if "responses" in items:
            constants["responses"] = _response_precision(recording)
        return cls(**constants)


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, (int, np.integer)) else value


def _z_score(recording: RecordingFolder, item: str) -> tuple[np.ndarray, np.ndarray]:
    std = _positive_std(recording, item)
    # [()] makes a scalar of a zero-dimensional array, which decides whether float32 images are computed in float64.
    return recording.statistic(item, "mean")[()], std[()]


def _positive_std(recording: RecordingFolder, item: str) -> np.ndarray:
    std = recording.statistic(item, "std")
    if not (std > 0).all():
        raise RecordingError(
            f"{recording.path}: meta/statistics/{item}/all/std.npy is zero or negative in {int((std <= 0).sum())} of "
            f"{std.size} value(s), so {item} cannot be normalised. Compute the statistics again, or pass "
            f"exclude={item!r} to leave {item} as it is."
        )
    return std


def _response_precision(recording: RecordingFolder) -> np.ndarray:
    std = np.array(recording.statistic("responses", "std"))
    if std.shape != (recording.n_neurons,):
        raise RecordingError(
            f"{recording.path}: meta/statistics/responses/all/std.npy has shape {std.shape}, but there are "
            f"{recording.n_neurons} neurons. Compute the statistics again."
        )
    threshold = SMALLEST_RELATIVE_STD * std.mean()
    if not threshold > 0 or (std < 0).any():
        raise RecordingError(
            f"{recording.path}: meta/statistics/responses/all/std.npy is zero for all neurons or negative for some. "
            "Compute the statistics again, or pass exclude='responses' to leave responses as they are."
        )
    large = std > threshold
    precision = np.ones_like(std) / threshold
    precision[large] = 1 / std[large]
    return precision


@dataclass(frozen=True)
class Preprocessing:
    """Turns the stored values of one trial into the model's input.

    Attributes
    ----------
    normalization
        Constants; an empty :class:`Normalization` normalises nothing.
    neurons
        Positions of the neurons to keep, in this order.
    behavior_as_channels
        Append each behavioural variable as a constant channel to the image.
    channels
        Channels of the image to keep; None keeps all.
    scale
        Factor by which images are rescaled (bilinear, no anti-aliasing); None leaves them.
    """

    normalization: Normalization
    neurons: np.ndarray
    behavior_as_channels: bool = False
    channels: tuple[int, ...] | None = None
    scale: float | None = None

    def image(self, image: np.ndarray, behavior: np.ndarray | None = None) -> np.ndarray:
        """Return the model's input for one trial, (channels, height, width) float32.

        Parameters
        ----------
        image
            (channels, height, width) as stored.
        behavior
            (variables,) as stored; needed if behaviour becomes channels.
        """
        if self.normalization.images is not None:
            mean, std = self.normalization.images
            image = (image - mean) / std
        if self.behavior_as_channels and behavior is not None:
            planes = np.ones((1, *image.shape[1:])) * self.behavior_vector(behavior)[:, None, None]
            image = np.concatenate((image, planes), axis=0)
        if self.channels is not None:
            if max(self.channels) >= len(image):
                raise MisfitError(
                    f"select_input_channel is {list(self.channels)}, but the images have {len(image)} channel(s), "
                    "counted from 0.",
                    setting="select_input_channel",
                )
            image = image[list(self.channels)]
        if self.scale is not None:
            check_scale(self.scale, image.shape[1:])
            image = rescale(
                image,
                scale=self.scale,
                mode="reflect",
                anti_aliasing=False,
                clip=True,
                preserve_range=True,
                channel_axis=0,
            )
        return image.astype(np.float32)

    def responses(self, responses: np.ndarray) -> np.ndarray:
        """Return the responses of the kept neurons, (neurons,) float32."""
        if self.normalization.responses is not None:
            responses = responses * self.normalization.responses
        return np.take(responses, self.neurons).astype(np.float32)

    def behavior(self, behavior: np.ndarray) -> np.ndarray:
        """Return the behavioural variables, (variables,) float32."""
        return self.behavior_vector(behavior).astype(np.float32)

    def behavior_vector(self, behavior: np.ndarray) -> np.ndarray:
        """Return the normalised behavioural variables in the precision of the file."""
        return behavior if self.normalization.behavior is None else behavior * self.normalization.behavior

    def pupil_center(self, pupil_center: np.ndarray) -> np.ndarray:
        """Return the pupil position, (2,) float32."""
        if self.normalization.pupil_center is not None:
            mean, std = self.normalization.pupil_center
            pupil_center = (pupil_center - mean) / std
        return pupil_center.astype(np.float32)

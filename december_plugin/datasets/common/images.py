"""The images that several sessions share: read, cropped, rescaled and normalised once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.transform import rescale
from torch import Tensor
from tqdm import tqdm

from december_plugin.datasets.common.arrays import read_array
from december_plugin.datasets.common.files import entries_of
from december_plugin.errors import MisfitError, RecordingError

SUFFIXES = (".npy", ".png")
DIGITS = 6  # of the number in a file name


def check_scale(scale: float, size: Sequence[int]) -> None:
    """Raise a :class:`SettingsError` if nothing remains of images of ``size`` (height, width), rescaled."""
    if any(round(pixels * scale) < 1 for pixels in size):
        height, width = size
        raise MisfitError(
            f"scale={scale:g} leaves nothing of images of {height} x {width} pixels (height x width). Use a larger "
            "one.",
            setting="scale",
        )


@dataclass(frozen=True)
class Geometry:
    """How an image is cut, in this order: crop, every n-th pixel, rescale.

    Attributes
    ----------
    crop
        Pixels cut off: top, bottom, left, right.
    subsample
        Keep every n-th pixel.
    scale
        Factor of size (bilinear, no anti-aliasing).
    """

    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    subsample: int = 1
    scale: float = 1.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the model's view of an image (height, width[, channels]): (channels, height, width) float32."""
        top, bottom, left, right = self.crop
        height, width = image.shape[:2]
        if top + bottom >= height or left + right >= width:
            raise MisfitError(
                f"crop={list(self.crop)} (top, bottom, left, right) leaves nothing of images of {height} x {width} "
                "pixels (height x width). Crop less.",
                setting="crop",
            )
        part = image[top : height - bottom : self.subsample, left : width - right : self.subsample]
        part = part.astype(np.float32)
        if self.scale != 1:
            check_scale(self.scale, part.shape[:2])
            channels = None if part.ndim == 2 else 2
            part = rescale(
                part, self.scale, mode="reflect", anti_aliasing=False, preserve_range=True, channel_axis=channels
            )
        part = part[None] if part.ndim == 2 else np.moveaxis(part, 2, 0)
        return np.ascontiguousarray(part, dtype=np.float32)


class StimulusImages:
    """Images by id, in memory.

    Attributes
    ----------
    ids
        (images,) int64, sorted.
    values
        (images, channels, height, width) float32, normalised.
    mean, std
        The subtracted mean, and the standard deviation that the difference was divided by.
    available
        Number of images in the folder.
    """

    def __init__(self, folder: Path, ids: Iterable[int], geometry: Geometry, statistics: tuple[float, float] | None):
        files = list_images(folder)
        self.available = len(files)
        self.ids = np.unique(np.fromiter(ids, dtype=np.int64))
        missing = [int(identity) for identity in self.ids if int(identity) not in files]
        if missing:
            raise RecordingError(
                f"{folder} lacks {len(missing)} of {len(self.ids)} images that the sessions name, e.g. "
                f"{missing[0]:0{DIGITS}d}.npy. Copy the images again, or check images_path."
            )
        values = _read_all([files[int(identity)] for identity in self.ids], geometry)
        self.mean, self.std = statistics or _statistics(values, folder)
        self.values = torch.from_numpy((values - np.float32(self.mean)) / np.float32(self.std))
        self._digests: list[bytes] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.values.shape[1:]
        return channels, height, width

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions of the images with these ids in ``values``."""
        return np.searchsorted(self.ids, ids)

    def select(self, positions: Tensor) -> Tensor:
        """Return (positions, channels, height, width)."""
        return self.values.index_select(0, positions)

    def digests(self) -> list[bytes]:
        """Return a SHA-256 of each image, computed once for all sessions."""
        if not self._digests:
            self._digests = [hashlib.sha256(image.numpy().tobytes()).digest() for image in self.values]
        return self._digests


def list_images(folder: Path) -> dict[int, Path]:
    """Return the images of a folder by id: files ``<id>.npy`` or ``<id>.png``.

    Raises
    ------
    RecordingError
        If the folder is missing or has no images, or two for one id.
    """
    if not folder.is_dir():
        raise RecordingError(f"The folder of images {folder} does not exist. Check images_path.")
    files: dict[int, Path] = {}
    for file in entries_of(folder):
        if file.suffix not in SUFFIXES or not file.stem.isdecimal():
            continue
        other = files.setdefault(int(file.stem), file)
        if other is not file:
            raise RecordingError(f"{other} and {file} are both image {int(file.stem)}. Remove one of them.")
    if not files:
        raise RecordingError(f"{folder} has no images (<id>.npy or <id>.png, e.g. 000017.npy). Check images_path.")
    return files


def _read_all(files: list[Path], geometry: Geometry) -> np.ndarray:
    values, first = np.empty(0, dtype=np.float32), None
    for number, file in enumerate(
        tqdm(files, desc="Reading images", unit="image", disable=None, delay=1.0, leave=False)
    ):
        image = _read(file)
        if first is None:
            first = image.shape
        if image.shape != first:
            raise RecordingError(
                f"{file} has shape {image.shape}, but {files[0]} has {first}. All images need the same shape."
            )
        view = geometry.apply(image)
        if number == 0:
            values = np.empty((len(files), *view.shape), dtype=np.float32)
        values[number] = view
    return values


def _read(file: Path) -> np.ndarray:
    image = _read_png(file) if file.suffix == ".png" else read_array(file)
    if image.dtype.kind not in "iufb" or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise RecordingError(
            f"{file} is {image.dtype} of shape {image.shape}; grey levels (height, width) or colours (height, width, 3)"
            " are expected."
        )
    if not np.isfinite(image).all():
        raise RecordingError(f"{file} has NaN or infinite pixels. Get the image again.")
    if image.min() < 0 or image.max() > 255:
        raise RecordingError(
            f"{file} has pixels from {image.min():g} to {image.max():g}; grey levels from 0 to 255 are expected."
        )
    return image


def _read_png(file: Path) -> np.ndarray:
    from skimage.io import imread

    try:
        return np.asarray(imread(file))
    except (OSError, SyntaxError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecordingError(f"{file} is not a complete PNG image ({reason}). Get the image again.") from error


def _statistics(values: np.ndarray, folder: Path) -> tuple[float, float]:
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not std > 0:
        raise RecordingError(f"all pixels of the images in {folder} are {mean:g}. Check images_path and crop.")
    return mean, std

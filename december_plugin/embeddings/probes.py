"""Probe stimuli: what models are shown when there is no recording, or when several models must see the same stimuli.

Probes must look like a model's inputs: of its shape, normalised as its training images were. Channels of behaviour are
kept at their mean; set to arbitrary values they would dominate the features.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.validation.checks import check_integer, check_seed

N_PROBES = 500
MEMORY = 0.9  # correlation of successive frames
DEEP = ("I", "F")  # Pillow's modes of gray with more than 8 bits, of which it would cut off what is above 255
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")


def noise_probes(
    shape: Sequence[int],
    *,
    n: int = N_PROBES,
    image_channels: int | None = None,
    behavior: Sequence[float] | None = None,
    seed: int = 0,
) -> Tensor:
    """Return noise with the spectrum of natural images, an amplitude of 1/f.

    Parameters
    ----------
    shape
        Shape of a model's input: (channels, height, width), or (channels, frames, height, width) of movies, whose
        successive frames are correlated by 0.9.
    n
        Number of images or clips.
    image_channels
        How many of the channels are images, the first ones, each with its own noise; None: all.
    behavior
        Values of the other channels, in the units that the model takes, ideally their means over the recording; None:
        0.
    seed
        Seed of the noise: the same seed gives the same bytes.

    Returns
    -------
    Tensor
        ``(n, *shape)`` float32, the images of zero mean and unit variance, as z-scored images are.

    Raises
    ------
    SettingsError
        If a setting is not allowed.

    Warns
    -----
    UserWarning
        If there are channels of behaviour: embeddings then say nothing about how neurons depend on it.

    See Also
    --------
    image_probes : Probes from images that a model was trained on.
    fingerprints : What models predict for the probes.

    Examples
    --------
    >>> from december_plugin.embeddings import noise_probes
    >>> tuple(noise_probes((1, 36, 64), n=10).shape)
    (10, 1, 36, 64)
    """
    sizes = _checked_shape(shape)
    check_integer("n", n, minimum=1)
    channels = _image_channels(sizes, image_channels)
    rng = np.random.default_rng(check_seed("seed", seed))
    height, width = sizes[-2:]
    frames = sizes[1] if len(sizes) == 4 else 1
    noise = noise_images(n * channels * frames, (height, width), rng).reshape(n, channels, frames, height, width)
    for frame in range(1, frames):
        noise[:, :, frame] = MEMORY * noise[:, :, frame - 1] + np.sqrt(1 - MEMORY**2) * noise[:, :, frame]
    return _with_behavior(noise.reshape(n, channels, *sizes[1:]), sizes, behavior)


def image_probes(
    folder: str | Path,
    shape: Sequence[int],
    *,
    n: int | None = None,
    image_channels: int | None = None,
    behavior: Sequence[float] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Tensor:
    """Return the images of a folder, normalised.

    Parameters
    ----------
    folder
        Folder of images (PNG, JPEG, TIFF, BMP) or arrays (.npy, (height, width) or (channels, height, width)), which
        are read in the order of their names.
    shape
        (channels, height, width) of a model's input; images must have this height and width.
    n
        How many of them are read, the first ones; None: all.
    image_channels, behavior
        As for :func:`noise_probes`. Images with one channel are converted to gray, with three read as red, green and
        blue.
    mean, std
        Mean and standard deviation of the images that the model was trained on, by which these are z-scored; None:
        those of the folder.

    Returns
    -------
    Tensor
        ``(images, *shape)`` float32.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    EmbeddingError
        If there are fewer than two images, or one of another size.

    Warns
    -----
    UserWarning
        As for :func:`noise_probes`.

    See Also
    --------
    noise_probes : Probes that need no images.
    fingerprints : What models predict for the probes.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from december_plugin.embeddings import image_probes
    >>> Path("photos").mkdir()
    >>> for number in range(3):
    ...     pixels = np.random.default_rng(number).integers(256, size=(36, 64), dtype=np.uint8)
    ...     Image.fromarray(pixels).save(f"photos/{number}.png")
    >>> tuple(image_probes("photos", (1, 36, 64)).shape)
    (3, 1, 36, 64)
    """
    sizes = _checked_shape(shape)
    if len(sizes) != 3:
        raise SettingsError(f"shape is {tuple(shape)}; images have (channels, height, width).")
    channels = _image_channels(sizes, image_channels)
    if not Path(folder).is_dir():
        raise EmbeddingError(f"{folder} is not a folder of probe images.")
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)[:n]
    if len(files) < 2:
        raise EmbeddingError(
            f"{folder} holds {len(files)} image(s) to probe models with; at least two are needed. Known are files "
            f"that end with {', '.join(SUFFIXES)}."
        )
    images = np.stack([_read(path, (channels, *sizes[1:])) for path in files])
    mean, std = (images.mean() if mean is None else mean), (images.std() if std is None else std)
    if not std > 0:
        raise EmbeddingError(f"all images in {folder} are the same; they cannot be z-scored.")
    return _with_behavior((images - mean) / std, sizes, behavior)


def noise_images(count: int, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return Gaussian noise with an amplitude spectrum of 1/f, (count, height, width), zero mean and unit variance."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    amplitude = np.divide(1, frequency, out=np.zeros(shape), where=frequency > 0)
    amplitude /= np.sqrt(np.mean(amplitude**2))
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, height, width))) * amplitude).real


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(check_integer("shape", size, minimum=1) for size in shape)
    if len(sizes) not in (3, 4) or min(sizes[-2:]) < 2:
        raise SettingsError(
            f"shape is {tuple(shape)}; it must be that of a model's input, (channels, height, width), or (channels, "
            "frames, height, width) of movies, of at least 2 x 2 pixels."
        )
    return sizes


def _image_channels(sizes: tuple[int, ...], image_channels: int | None) -> int:
    channels = sizes[0] if image_channels is None else check_integer("image_channels", image_channels, minimum=1)
    if channels > sizes[0]:
        raise SettingsError(f"image_channels is {channels}, more than the {sizes[0]} channels of the input.")
    return channels


def _with_behavior(images: npt.NDArray[np.float64], sizes: tuple[int, ...], behavior: Sequence[float] | None) -> Tensor:
    """Return images (n, image channels, ...) with the channels of behaviour at a constant, float32."""
    n_behavior = sizes[0] - images.shape[1]
    values = np.zeros(n_behavior) if behavior is None else np.asarray(behavior, dtype=np.float64)
    if values.shape != (n_behavior,):
        raise SettingsError(
            f"behavior has {values.size} value(s), but the input has {n_behavior} channel(s) of behaviour; give one "
            "for each."
        )
    if n_behavior:
        at = "0" if behavior is None else ", ".join(f"{value:.4g}" for value in values)
        warnings.warn(
            f"{n_behavior} channel(s) of behaviour stay at {at} in all probes: what is computed from them says nothing "
            "about how neurons depend on behaviour.",
            UserWarning,
            stacklevel=3,
        )
    constant = np.broadcast_to(
        values.reshape(n_behavior, *[1] * (len(sizes) - 1)), (len(images), n_behavior, *sizes[1:])
    )
    return torch.from_numpy(np.concatenate([images, constant], axis=1).astype(np.float32))


def _read(path: Path, sizes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return one image, (channels, height, width)."""
    if path.suffix.lower() == ".npy":
        try:
            image: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise EmbeddingError(f"{path} cannot be read as an array: {error}") from error
        image = image[None] if image.ndim == 2 else image
    else:
        image = _decoded(path, gray=sizes[0] == 1)
    if image.shape != sizes:
        raise EmbeddingError(
            f"{path.name} has (channels, height, width) {image.shape}, but the model takes {sizes}; scale or crop the "
            "images as those that the model was trained on."
        )
    if image.dtype.kind not in "biuf" or not np.isfinite(image).all():
        raise EmbeddingError(f"{path} holds NaN or infinite values, or no real numbers; leave it out of the probes.")
    return image.astype(np.float64)


def _decoded(path: Path, *, gray: bool) -> npt.NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.split(";")[0] in DEEP:
                values = np.asarray(image)
                return values[None] if gray else np.broadcast_to(values, (3, *values.shape))
            values = np.asarray(image.convert("L" if gray else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise EmbeddingError(f"{path} cannot be read as an image: {error}") from error
    return values[None] if gray else np.moveaxis(values, 2, 0)

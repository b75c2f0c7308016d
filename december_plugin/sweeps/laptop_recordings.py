"""The simulated recordings of the shipped laptop sweeps, and their planted types as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.sweeps.shipped import shipped_path

LAPTOP = "laptop"
RECORDINGS = "recordings"

Planted = tuple[str, np.ndarray, np.ndarray]  # data key, unit ids (n,), types (n,)


@dataclass(frozen=True)
class LaptopData:
    """The files that were written for a laptop sweep.

    Attributes
    ----------
    recordings
        Folders or files of the recordings.
    types
        CSV file with the planted types, as ``december types import`` reads it.
    types_name
        Name for the planted types.
    """

    recordings: tuple[Path, ...]
    types: Path
    types_name: str


def check_laptop(name: str) -> None:
    """Raise a :class:`SettingsError` unless this is the name of a laptop sweep."""
    shipped_path(name)
    if not name.startswith(f"{LAPTOP}/"):
        raise SettingsError(
            f"{name} is for your own recordings; simulated ones are written only for the sweeps under {LAPTOP}/. "
            f"`december sweeps copy {name} FOLDER` copies it."
        )


def write_laptop_data(name: str, folder: str | Path) -> LaptopData:
    """Write the simulated recordings that a laptop sweep needs; existing ones are kept.

    Parameters
    ----------
    name
        Name of the sweep, e.g. ``laptop/marmoset-1``.
    folder
        Folder of the sweep's copy. Recordings go into ``recordings`` in it, where the sweep looks for them, and the
        planted types into ``<sweep>-types.csv``.

    Raises
    ------
    SettingsError
        If there is no laptop sweep of this name.
    """
    check_laptop(name)
    plain = name.removesuffix(".yaml").partition("/")[2]
    target = Path(folder).expanduser()
    planted: list[Planted] = []
    paths = []
    for path, write, settings in RECIPES[plain](target / RECORDINGS):
        paths.append(path)
        planted += write(path, **settings)
    types = target / f"{plain}-types.csv"
    _write_types(types, planted)
    return LaptopData(tuple(paths), types, f"planted types of {plain}")


def _write_types(path: Path, planted: Iterable[Planted]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["data_key", "unit_id", "type"])
        for data_key, unit_ids, types in planted:
            writer.writerows(
                [data_key, int(unit), f"type {int(kind) + 1}"] for unit, kind in zip(unit_ids, types, strict=True)
            )


# --- one writer for each format: writes a recording if it does not exist, and returns what was planted -----------


def _images(path: Path, **settings: Any) -> list[Planted]:
    from december_plugin.datasets.sensorium.layout import data_key_of
    from december_plugin.simulate import read_truth, write_recording

    if not (path / "truth").is_dir():  # written last
        write_recording(path, **settings)
    truth = read_truth(path)
    return [(data_key_of(path), truth.unit_ids, truth.types)]


def _macaque(path: Path, **settings: Any) -> list[Planted]:
    from december_plugin.simulate.macaque_v4 import read_macaque_v4_truth, write_macaque_v4_recording

    if not (path / "truth").is_dir():
        write_macaque_v4_recording(path, **settings)
    return [(key, truth.unit_ids, truth.types) for key, truth in read_macaque_v4_truth(path).items()]


def _movies(path: Path, **settings: Any) -> list[Planted]:
    from december_plugin.simulate.movies import read_movie_truth, write_movie_recording

    if not (path / "truth").is_dir():
        write_movie_recording(path, **settings)
    truth = read_movie_truth(path)
    return [(path.name, truth.unit_ids, truth.types)]


# --- what each sweep needs ---------------------------------------------------------------------------------------

Recipe = list[tuple[Path, Callable[..., list[Planted]], Mapping[str, Any]]]


def _mouse_v1(folder: Path) -> Recipe:
    """Return two sessions of mouse V1 with behaviour, as in the SENSORIUM 2022 recordings."""
    size = {"n_neurons": 120, "n_train": 300, "n_validation": 60, "n_test": 15, "behavior": True}
    return [(folder / f"static{seed}-1-1-simulated", _images, {**size, "seed": seed}) for seed in (1, 2)]


def _all_orientations(folder: Path) -> Recipe:
    """Return two sessions of mouse V1 whose types, single Gabors, occur at all orientations."""
    types = {"cells": "single_gabors", "features": "correlated", "n_features": 6, "feature_size": 9, "spread": 0.0}
    size = {"n_neurons": 90, "n_train": 400, "n_validation": 60, "n_test": 15}
    responses = {"orientations": "random", "noise": "poisson", "rate": 2.0}
    settings: dict[str, Any] = {**types, **size, **responses, "type_sizes": (1,) * 6}
    return [(folder / f"static{seed}-1-1-simulated", _images, {**settings, "seed": seed}) for seed in (21, 22)]


def _macaque_v4(folder: Path) -> Recipe:
    """Return four sessions of spike counts to shared images."""
    size = {"n_sessions": 4, "n_neurons": 40, "n_images": 400, "n_shown": 400, "n_test": 10, "seed": 1}
    return [(folder / "macaque-v4", _macaque, size)]


def _marmoset_1(folder: Path) -> Recipe:
    """Return a retina with the numbers of cells of each type of the paper's first one (section 5)."""
    return [(folder / "retina-four-types", _movies, {"n_neurons": 145, "type_sizes": (78, 40, 22, 5), "seed": 1})]


def _marmoset_2(folder: Path) -> Recipe:
    """Return a retina with the numbers of cells of each type of the paper's second one (section B.1)."""
    return [(folder / "retina-two-types", _movies, {"n_neurons": 73, "type_sizes": (38, 35), "seed": 2})]


def _mouse_retina(folder: Path) -> Recipe:
    """Return two retinas with the same types."""
    sizes = {"retina-a": 100, "retina-b": 60}
    return [
        (folder / name, _movies, {"n_neurons": size, "seed": seed})
        for seed, (name, size) in enumerate(sizes.items(), start=3)
    ]


RECIPES: Mapping[str, Callable[[Path], Recipe]] = {
    "mouse-v1-strength": _mouse_v1,
    "mouse-v1-pretraining": _mouse_v1,
    "equivariant-baseline": _all_orientations,
    "rotation-invariant": _all_orientations,
    "spaces": _mouse_v1,
    "marmoset-1": _marmoset_1,
    "marmoset-2": _marmoset_2,
    "mouse-retina": _mouse_retina,
    "macaque-v4": _macaque_v4,
    "macaque-v4-all": _macaque_v4,
}

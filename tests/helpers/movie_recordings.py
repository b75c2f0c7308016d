"""A small recording of movies, how it is loaded, and ways to damage it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from december_plugin.datasets import movie_loaders

SMALL = {
    "n_neurons": 6,
    "n_train": 2,
    "n_validation": 1,
    "n_test": 2,
    "n_repeats": 3,
    "n_frames": 50,
    "n_test_frames": 26,
    "image_shape": (8, 9),
}


def load(folder: Path, batch_size: int = 4, **settings):
    return movie_loaders([str(folder)], batch_size, **{"chunk_frames": 15, **settings})


def edit_header(change):
    def damage(folder):
        file = folder / "recording.yaml"
        header = yaml.safe_load(file.read_text())
        change(header)
        file.write_text(yaml.safe_dump(header, sort_keys=False))

    return damage


def header(**entries):
    return edit_header(lambda content: content.update(entries))


def save(entry, change):
    def damage(folder):
        np.save(folder / entry, change(np.load(folder / entry)), allow_pickle=True)

    return damage


def put(index, value, dtype=None):
    def change(array):
        array = array.astype(dtype or array.dtype)
        array[index] = value
        return array

    return change


def cut(entry, count):
    def damage(folder):
        (folder / entry).write_bytes((folder / entry).read_bytes()[:-count])

    return damage


def pop(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content.pop(path[-1])

    return edit_header(change)

"""Loaders against neuralpredictors' own path, selection, description, and what a loader offers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from neuralpredictors.data.datasets import FileTreeDataset
from neuralpredictors.data.samplers import SubsetSequentialSampler
from neuralpredictors.data.transforms import (
    AddBehaviorAsChannels,
    NeuroNormalizer,
    ScaleInputs,
    SelectInputChannel,
    Subsample,
    ToTensor,
)
from nnfabrik.builder import get_data
from nnfabrik.utility.nn_helpers import get_dims_for_loader_dict
from torch.utils.data import DataLoader, SubsetRandomSampler

from december_plugin.datasets import static_loaders
from december_plugin.datasets.layout import data_key_of
from december_plugin.errors import SettingsError


def file_tree_loaders(folder, batch_size, *, items, transforms, exclude=None, normalize=True, neurons=None, **means):
    """Build loaders from neuralpredictors' parts, in the order of SENSORIUM's loader."""
    dataset = FileTreeDataset(str(folder), "images", "responses", *items)
    neurons = np.arange(len(np.load(folder / "meta/neurons/unit_ids.npy"))) if neurons is None else neurons
    first = [NeuroNormalizer(dataset, exclude=exclude, **means)] if normalize else []
    dataset.transforms.extend([*first, *transforms, Subsample(neurons), ToTensor(cuda=False)])
    tiers = np.load(folder / "meta/trials/tiers.npy")
    loaders = {}
    for tier in np.unique(tiers):
        trials = np.where(tiers == tier)[0]
        sampler = SubsetRandomSampler(trials) if tier == "train" else SubsetSequentialSampler(trials)
        loaders[tier] = DataLoader(dataset, sampler=sampler, batch_size=batch_size)
    return loaders


CASES = {
    "plain": ({}, {"items": [], "transforms": []}),
    "scaled": ({"scale": 0.5}, {"items": [], "transforms": [ScaleInputs(scale=0.5)]}),
    "behaviour, pupil, scaled": (
        {"include_behavior": True, "include_eye_position": True, "scale": 0.5},
        {"items": ["behavior", "pupil_center"], "transforms": [AddBehaviorAsChannels(), ScaleInputs(scale=0.5)]},
    ),
    "behaviour beside the image": (
        {"include_behavior": True, "add_behavior_as_channels": False},
        {"items": ["behavior"], "transforms": []},
    ),
    "pupil only": ({"include_eye_position": True}, {"items": ["pupil_center"], "transforms": []}),
    "images not normalised": (
        {"exclude": "images"},
        {"items": [], "transforms": [], "exclude": ["images"]},
    ),
    "nothing normalised": ({"normalize": False}, {"items": [], "transforms": [], "normalize": False}),
    "given mean": (
        {"inputs_mean": 100.0, "inputs_std": 50.0},
        {"items": [], "transforms": [], "inputs_mean": 100.0, "inputs_std": 50.0},
    ),
    "one channel": ({"select_input_channel": 0}, {"items": [], "transforms": [SelectInputChannel(0)]}),
}


@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=CASES.keys())
def test_batches_are_those_of_neuralpredictors(recording_folders, ours, theirs):
    folder = recording_folders[0]
    mine = static_loaders([folder], 16, **ours)
    reference = file_tree_loaders(folder, 16, **theirs)
    assert set(mine) == set(reference)
    for tier, loader in reference.items():
        assert len(mine[tier]["first"]) == len(loader)
        torch.manual_seed(3)
        expected = [batch for _ in range(2) for batch in loader]
        torch.manual_seed(3)
        found = [batch for _ in range(2) for batch in mine[tier]["first"]]
        assert len(found) == len(expected)
        for batch, reference_batch in zip(found, expected, strict=True):
            assert batch._fields == reference_batch._fields
            for value, reference_value in zip(batch, reference_batch, strict=True):
                assert value.dtype == reference_value.dtype == torch.float32
                assert torch.equal(value, reference_value)
    assert torch.initial_seed() == 3

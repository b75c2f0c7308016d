"""Loaders against neuralpredictors' own path, selection, description, and what a loader offers."""

from __future__ import annotations

import copy
import pickle
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
from december_plugin.datasets.sensorium.layout import data_key_of, trial_image_ids
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate import write_recording


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


def test_selected_neurons_are_those_of_neuralpredictors(recording_folders):
    folder = recording_folders[0]
    unit_ids = np.load(folder / "meta/neurons/unit_ids.npy")
    positions = [7, 2, 11]
    mine = static_loaders([folder], 8, neuron_ids=[unit_ids[positions].tolist()])["validation"]["first"]
    reference = file_tree_loaders(folder, 8, items=[], transforms=[], neurons=positions)["validation"]
    for batch, expected in zip(mine, reference, strict=True):
        assert torch.equal(batch.responses, expected.responses)
    for name in ("unit_ids", "cell_motor_coordinates", "area"):
        assert np.array_equal(mine.dataset.neurons[name], reference.dataset.neurons[name])
    assert mine.dataset.n_neurons == reference.dataset.n_neurons == 3


def test_random_neurons_are_those_of_sensorium(recording_folders):
    # SENSORIUM: np.random.seed(base * n); np.random.choice(unit_ids, exclude + n, replace=False)[exclude:]
    unit_ids = np.load(recording_folders[0] / "meta/neurons/unit_ids.npy")
    before = np.random.get_state()[1].copy()
    loaders = static_loaders(recording_folders, 8, neuron_n=4, exclude_neuron_n=3, neuron_base_seed=5)
    assert np.array_equal(np.random.get_state()[1], before)
    expected = np.random.RandomState(20).choice(unit_ids, size=7, replace=False)[3:]
    assert loaders["train"]["first"].dataset.unit_ids.tolist() == expected.tolist()
    first_part = static_loaders(recording_folders, 8, neuron_n=3, seed=20)["train"]["first"].dataset.unit_ids
    assert first_part.tolist() == np.random.RandomState(20).choice(unit_ids, size=3, replace=False).tolist()


def test_areas_and_layers_select_neurons(recording_folders, tmp_path):
    folder = shutil.copytree(recording_folders[0], tmp_path / "areas")
    area = np.array(["V1"] * 12 + ["LM"] * 8)
    np.save(folder / "meta/neurons/area.npy", area)
    dataset = static_loaders(folder, 8, areas=["LM"])["train"]["areas"].dataset
    assert dataset.neurons.area.tolist() == ["LM"] * 8
    assert dataset.values["responses"].shape == (64, 8)
    drawn = static_loaders(folder, 8, areas="LM", neuron_n=3, neuron_base_seed=1)["train"]["areas"].dataset
    assert drawn.neurons.area.tolist() == ["LM"] * 3


def test_training_images_can_be_chosen(recording_folders):
    folder = recording_folders[0]
    image_ids = np.load(folder / "meta/trials/frame_image_id.npy")
    train = np.flatnonzero(np.load(folder / "meta/trials/tiers.npy") == "train")
    chosen = image_ids[train][[5, 1, 8]].tolist()
    loaders = static_loaders([folder], 8, image_ids=[chosen])
    assert loaders["train"]["first"].sampler.indices.tolist() == train[[5, 1, 8]].tolist()
    assert len(loaders["validation"]["first"].sampler) == 12
    drawn = static_loaders([folder], 8, image_n=10, image_base_seed=2)["train"]["first"].sampler.indices
    assert drawn.tolist() == np.random.RandomState(20).choice(train, size=10, replace=False).tolist()


def test_every_tier_is_served(recording_folders, tmp_path):
    folder = shutil.copytree(recording_folders[0], tmp_path / "tiers")
    tiers = np.load(folder / "meta/trials/tiers.npy").astype("<U12")
    test = np.flatnonzero(tiers == "test")
    tiers[test[:4]], tiers[test[4:6]] = "final_test_1", "final_test"
    np.save(folder / "meta/trials/tiers.npy", tiers)
    loaders = static_loaders([folder, recording_folders[1]], 8)
    assert list(loaders) == ["train", "validation", "test", "final_test", "final_test_1"]
    assert list(loaders["test"]) == ["tiers", "second_v2"]
    assert list(loaders["final_test_1"]) == ["tiers"]
    assert [len(loader.sampler) for loader in loaders["final_test_1"].values()] == [4]


def test_loader_answers_what_downstream_code_asks(small_loaders, recording_folders):
    loader = small_loaders["train"]["second_v2"]
    dataset = loader.dataset
    assert isinstance(loader, DataLoader)
    assert (len(loader), loader.batch_size, len(dataset), dataset.n_neurons) == (3, 16, 64, 24)
    assert get_dims_for_loader_dict(small_loaders["train"])["first"] == {
        "images": torch.Size([16, 1, 12, 14]),
        "responses": torch.Size([16, 20]),
    }
    assert dataset.img_shape == (1, 1, 12, 14)
    assert np.array_equal(dataset.neurons.unit_ids, np.load(recording_folders[1] / "meta/neurons/unit_ids.npy"))
    assert dataset.neurons.cell_motor_coordinates.shape == (24, 3)
    assert sorted(dataset.trial_info.keys()) == ["frame_image_class", "frame_image_id", "tiers", "trial_idx"]
    assert np.array_equal(dataset.image_ids, dataset.trial_info.frame_image_id)
    assert dataset.statistics.responses.all.std.shape == (24,)
    assert hasattr(dataset.neurons, "layer")
    assert not hasattr(dataset.neurons, "multi_match_id")
    assert torch.equal(dataset[-1].images, dataset.values["images"][63])
    assert len(list(iter(dataset))) == 64
    with pytest.raises(ValueError, match="read-only"):
        dataset.neurons.unit_ids[0] = 3


def test_the_image_ids_that_sensorium_takes_first_are_read_first(recording_folders, tmp_path):
    folder = shutil.copytree(recording_folders[0], tmp_path / "mouse")
    ids = np.arange(64)[::-1]
    np.save(folder / "meta/trials/image_id.npy", ids)
    assert np.array_equal(static_loaders([folder], 8)["test"]["mouse"].dataset.image_ids, ids)


def test_recordings_whose_test_images_do_not_repeat_need_no_image_ids(tmp_path):
    sizes = {"n_neurons": 4, "n_train": 4, "n_validation": 2, "n_test": 3, "n_repeats": 1, "image_shape": (12, 12)}
    folder = write_recording(tmp_path / "mouse", **sizes)
    (folder / "meta/trials/frame_image_id.npy").unlink()
    assert static_loaders([folder], 4)["test"]["mouse"].dataset.image_ids is None


def test_images_that_have_names_are_chosen_by_them(recording_folders, tmp_path):
    folder = shutil.copytree(recording_folders[0], tmp_path / "mouse")
    names = np.char.add("image-", np.load(folder / "meta/trials/frame_image_id.npy").astype(str))
    np.save(folder / "meta/trials/image_id.npy", names)
    trained = np.flatnonzero(np.load(folder / "meta/trials/tiers.npy") == "train")[[4, 1]]
    dataset = static_loaders([folder], 8, image_ids=[names[trained].tolist()])["train"]["mouse"].dataset
    assert dataset.tiers["train"].tolist() == trained.tolist()


def test_image_ids_of_a_dataset_of_another_package():
    class TrialInfo:  # attributes of some names alone, as neuralpredictors' has them
        colorframeprojector_image_id = np.array(["a", "b", "a"])

    assert trial_image_ids(TrialInfo(), 3, where="mouse").tolist() == ["a", "b", "a"]
    assert trial_image_ids(None, 3, where="mouse") is None
    with pytest.raises(
        RecordingError, match=r"mouse: meta/trials/colorframeprojector_image_id.npy has shape \(3,\); o"
    ):
        trial_image_ids(TrialInfo(), 4, where="mouse")


def test_dataset_works_in_anybody_elses_loader(small_loaders):
    dataset = small_loaders["train"]["first"].dataset
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert torch.equal(batch.images, dataset.values["images"][:5])
    assert torch.equal(batch.responses, dataset.values["responses"][:5])


def test_dataset_can_be_copied_and_pickled(small_loaders):
    dataset = small_loaders["train"]["first"].dataset
    for copied in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert copied.fingerprint() == dataset.fingerprint()
        assert copied.neurons.layer.tolist() == ["L2/3"] * 20


def test_loading_leaves_the_global_random_state_alone(recording_folders):
    torch.manual_seed(9)
    np.random.seed(9)
    static_loaders(recording_folders, 8, seed=1, neuron_n=5)
    drawn = torch.rand(1), np.random.rand()
    torch.manual_seed(9)
    np.random.seed(9)
    assert drawn == (torch.rand(1), np.random.rand())


def test_fingerprint_covers_what_is_served_and_nothing_else(recording_folders, tmp_path):
    def fingerprint(path, batch_size=16, **settings):
        loaders = static_loaders([path], batch_size, **settings)["train"]
        return next(iter(loaders.values())).dataset.fingerprint()

    base = fingerprint(recording_folders[0])
    assert len(base) == 64
    copied = Path(shutil.copytree(recording_folders[0], tmp_path / "elsewhere"))
    assert fingerprint(copied) == fingerprint(recording_folders[0], batch_size=5) == base
    others = [
        fingerprint(recording_folders[1]),
        fingerprint(recording_folders[0], normalize=False),
        fingerprint(recording_folders[0], include_eye_position=True),
        fingerprint(recording_folders[0], image_n=10, seed=0),
        fingerprint(recording_folders[0], neuron_n=20, seed=0),
    ]
    np.save(copied / "meta/neurons/unit_ids.npy", np.arange(20))
    others.append(fingerprint(copied))
    assert len({base, *others}) == 7


def test_data_info_describes_sessions_without_loading_images(recording_folders, monkeypatch):
    settings = {"include_behavior": True, "include_eye_position": True, "scale": 0.5, "neuron_n": 6, "seed": 0}
    loaders = static_loaders(recording_folders, 16, **settings)["train"]
    read = []
    original = np.load
    monkeypatch.setattr(np, "load", lambda file, **kwargs: read.append(Path(file)) or original(file, **kwargs))
    info = get_data(
        "december_plugin.datasets.static_loaders",
        {"paths": recording_folders, "batch_size": 16, "return_data_info": True, **settings},
    )
    assert len([file for file in read if file.parent.name == "images"]) <= 2 * len(recording_folders)
    assert list(info) == ["first", "second_v2"]
    first = info["first"]
    assert (first["input_dimensions"], first["input_channels"], first["output_dimension"]) == ([1, 4, 6, 7], 4, 6)
    assert first["img_mean"] == pytest.approx(128, abs=5)
    assert first["img_std"] == pytest.approx(40, abs=5)
    assert first["pupil_channels"] == 2
    responses = torch.cat([batch.responses for batch in loaders["first"]])
    np.testing.assert_allclose(first["mean_responses"], responses.mean(0), rtol=1e-6)
    assert first.keys() == loaders["first"].dataset.data_info().keys()
    for name, value in loaders["first"].dataset.data_info().items():
        assert np.array_equal(value, first[name])


@pytest.mark.parametrize(
    ("folder", "data_key"),
    [
        ("static26872-17-20-GrayImageNet-94c6ff995dac583098847cfecd43e7b6", "26872-17-20"),
        ("static27204-5-13-ColorImageNet-1", "27204-5-13"),
        ("static22564-2-13-preproc0", "22564-2-13-0"),
        ("mouse 3.1", "mouse 3_1"),
        ("train", "session-train"),
        ("keys", "session-keys"),
    ],
)
def test_data_keys(folder, data_key):
    assert data_key_of(Path("/somewhere/static.d") / folder) == data_key
    torch.nn.ModuleDict({data_key: torch.nn.Identity()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"include_behaviour": True}, r"static_loaders has no setting 'include_behaviour'. Did you mean 'include_beha"),
        ({"cuda": False}, r"static_loaders has no setting 'cuda'"),
        ({"file_tree": False}, r"file_tree is False; only True is possible, HDF5 files are not read."),
        ({"batch_size": 0}, r"batch_size is 0; it must be at least 1."),
        ({"scale": 0}, r"scale is 0; it must be a number above 0."),
        ({"exclude": "image"}, r"exclude is 'image'. Did you mean 'images'?"),
        ({"paths": []}, r"paths is \[\]; a list of folders, one for each session, is expected."),
        ({"paths": [3]}, r"paths is \[3\]; a list of folders, one for each session, is expected."),
        ({"inputs_mean": 3.0}, r"inputs_mean was given without inputs_std. Give both, or neither"),
        ({"inputs_mean": float("nan"), "inputs_std": 1.0}, r"inputs_mean is nan; it must be a finite number."),
        ({"select_input_channel": 0, "include_behavior": True}, r"select_input_channel and include_behavior cannot be"),
        (
            {"select_input_channel": 1},
            r"select_input_channel is \[1\], but the images have 1 channel\(s\), counted",
        ),
        ({"neuron_n": 3}, r"neuron_n=3 draws at random and needs a seed: give neuron_base_seed or seed."),
        ({"neuron_n": 3, "seed": 2**33}, r"The seed of neuron_n=3 is 8589934592; it must be below 2\*\*32."),
        ({"neuron_n": 30, "seed": 1}, r"neuron_n=30 after exclude_neuron_n=0 needs 30 neurons, but session 'first' ha"),
        ({"neuron_n": 1, "seed": 1}, r"The selection leaves 1 of 20 neurons of session 'first'; at least 2 are needed"),
        ({"areas": ["LM"]}, r"The selection leaves 0 of 20 neurons of session 'first'; at least 2 are needed."),
        ({"neuron_ids": [3, 4]}, r"neuron_ids needs one list of ids \(or None for all\) for each of the 1 path\(s\)"),
        (
            {"neuron_ids": [[0, -5]]},
            r"neuron_ids names 2 unit id\(s\) that session 'first' \(.*first\) does not have: 0, -5\.",
        ),
        (
            {"scale": 0.01},
            r"scale=0\.01 leaves nothing of images of 12 x 14 pixels \(height x width\)\. Use a larger one",
        ),
        ({"neuron_ids": [[1.5, 2]]}, r"neuron_ids has 1\.5; whole numbers are expected, as the recording has them\."),
        ({"neuron_ids": [["1", 2]]}, r"neuron_ids has '1'; whole numbers are expected, as the recording has them\."),
        ({"neuron_ids": ["12"]}, r"neuron_ids needs one list of ids \(or None for all\) for each of the 1 path\(s\)"),
        (
            {"image_ids": [[True]]},
            r"image_ids has True; whole numbers or names are expected, as the recording has them",
        ),
        ({"neuron_ids": [[1, 2]], "neuron_n": 3, "seed": 1}, r"neuron_ids cannot be combined with areas, layers, neur"),
        ({"exclude_neuron_n": 3}, r"exclude_neuron_n=3 needs neuron_n. Give both."),
        ({"image_ids": [[999]]}, r"image_ids names 1 of 1 image\(s\) that are not in the training tier of session 'fi"),
        ({"image_ids": [[1]], "image_n": 3, "seed": 1}, r"image_ids cannot be combined with image_n. Leave one of the"),
        ({"image_n": 41, "seed": 1}, r"image_n=41, but session 'first' has 40 training trials. Ask for fewer."),
    ],
)
def test_settings_that_are_not_allowed(recording_folders, settings, message):
    with pytest.raises(SettingsError, match=message):
        static_loaders(**{"paths": [recording_folders[0]], "batch_size": 8, **settings})

"""Simulated recordings: what is written is what the model in the docstring says, and always the same."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from neuralpredictors.data.datasets import FileTreeDataset
from scipy import ndimage, signal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate import draw_recording, image_model, read_truth, write_recording
from december_plugin.simulate.macaque_v4 import write_macaque_v4_recording
from december_plugin.simulate.movies import write_movie_recording

SMALL = {
    "n_neurons": 30,
    "n_train": 20,
    "n_validation": 5,
    "n_test": 4,
    "n_repeats": 3,
    "image_shape": (12, 14),
    "feature_size": 5,
}
MOVIES = {"n_neurons": 4, "n_train": 1, "n_validation": 1, "n_test": 0, "n_frames": 40, "n_test_frames": 20}
SESSIONS = {"n_sessions": 1, "n_neurons": 2, "n_images": 4, "n_shown": 4, "n_test": 2, "image_shape": (8, 8)}


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def trials(folder: Path, item: str) -> np.ndarray:
    count = len(np.load(folder / "meta/trials/tiers.npy"))
    return np.stack([np.load(folder / "data" / item / f"{trial}.npy") for trial in range(count)])


def test_same_arguments_write_the_same_bytes(tmp_path):
    first, second, other = (
        write_recording(tmp_path / parent / "a", seed=seed, behavior=True, **SMALL)
        for parent, seed in (("one", 3), ("two", 3), ("three", 4))
    )
    assert content(first) == content(second)
    assert content(first).keys() == content(other).keys()
    assert content(first)["data/responses/0.npy"] != content(other)["data/responses/0.npy"]


WRITERS = {
    "images": (write_recording, {**SMALL, "n_neurons": 4}),
    "movies": (write_movie_recording, MOVIES),
    "macaque V4": (write_macaque_v4_recording, SESSIONS),
}


@pytest.mark.parametrize(("write", "settings"), WRITERS.values(), ids=WRITERS.keys())
def test_without_a_seed_the_name_of_the_folder_decides(tmp_path, write, settings):
    first, again, other = (
        content(write(tmp_path / name, **settings)) for name in ("one/mouse-1", "two/mouse-1", "one/mouse-2")
    )
    assert first == again
    assert first.keys() == other.keys()
    truth = next(name for name in first if name.endswith("truth/gains.npy"))
    assert first[truth] != other[truth]
    with pytest.raises(SettingsError, match=r"seed is -1; it must be at least 0\."):
        write(tmp_path / "mouse-3", seed=-1, **settings)


def test_every_session_has_ids_of_its_own(tmp_path):
    names = ["static1-1-1-simulated", "static2-1-1-simulated", "static26872-17-20-GrayImageNet", "mouse-1", "mouse-2"]
    found = []
    for name in names:
        neurons = write_recording(tmp_path / name, seed=1, **{**SMALL, "n_neurons": 4}) / "meta/neurons"
        ids = [np.load(neurons / f"{part}.npy") for part in ("animal_ids", "sessions", "scan_idx")]
        assert all(values.shape == (4,) and values.dtype == np.int64 for values in ids)
        assert all((values == values[0]).all() for values in ids)
        found.append(tuple(int(values[0]) for values in ids))
    assert found[:3] == [(1, 1, 1), (2, 1, 1), (26872, 17, 20)]
    assert len(set(found)) == len(names)


def test_neuralpredictors_reads_it(tmp_path):
    folder = write_recording(tmp_path / "a", behavior=True, **SMALL)
    dataset = FileTreeDataset(str(folder), "images", "responses", "behavior", "pupil_center")
    trial = dataset[36]
    assert len(dataset) == 20 + 5 + 4 * 3
    assert [value.shape for value in trial] == [(1, 12, 14), (30,), (3,), (2,)]
    assert dataset.neurons.cell_motor_coordinates.shape == (30, 3)
    assert set(dataset.trial_info.tiers) == {"train", "validation", "test"}
    for item in ("images", "responses", "behavior", "pupil_center"):
        values = trials(folder, item).astype(float)
        for name in ("mean", "std", "min", "max", "median"):
            expected = getattr(np, name)(values, axis=None if item == "images" else 0)
            np.testing.assert_allclose(dataset.statistics[item]["all"][name], expected, rtol=1e-12)


def test_test_images_repeat_and_others_do_not(tmp_path):
    folder = write_recording(tmp_path / "a", **SMALL)
    tiers, image_ids = (np.load(folder / f"meta/trials/{name}.npy") for name in ("tiers", "frame_image_id"))
    images = trials(folder, "images")
    _, counts = np.unique(image_ids[tiers == "test"], return_counts=True)
    assert counts.tolist() == [3, 3, 3, 3]
    assert len(np.unique(image_ids)) == 29
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 29
    for image in np.unique(image_ids):
        assert len(np.unique(tiers[image_ids == image])) == 1
        assert np.ptp(images[image_ids == image], axis=0).max() == 0
    assert not (folder / "data/behavior").exists()
    without_test = write_recording(tmp_path / "b", **{**SMALL, "n_test": 0})
    assert set(np.load(without_test / "meta/trials/tiers.npy")) == {"train", "validation"}


def test_truth_belongs_to_the_neurons_and_types_to_all_sessions(tmp_path):
    first = write_recording(tmp_path / "a", seed=1, **SMALL)
    second = write_recording(tmp_path / "b", seed=2, **{**SMALL, "n_neurons": 50})
    other = write_recording(tmp_path / "c", seed=1, types_seed=7, **SMALL)
    truth, truth_2, truth_3 = (read_truth(folder) for folder in (first, second, other))
    assert np.array_equal(truth.unit_ids, np.load(first / "meta/neurons/unit_ids.npy"))
    assert len(np.unique(truth.unit_ids)) == 30
    # 30 % of 30 neurons and so on, the largest remainders rounded up.
    assert np.bincount(truth.types).tolist() == [9, 7, 5, 4, 3, 2]
    assert np.bincount(truth_2.types).tolist() == [15, 11, 9, 7, 5, 3]
    assert np.array_equal(truth.type_tuning, truth_2.type_tuning)
    assert not np.allclose(truth.type_tuning, truth_3.type_tuning)
    np.testing.assert_allclose(np.linalg.norm(truth.type_tuning, axis=1), np.sqrt(8))
    residual = truth_2.tuning / truth_2.gains[:, None] - truth_2.type_tuning[truth_2.types]
    assert residual.std() == pytest.approx(0.6, rel=0.1)
    assert np.log(truth_2.gains).std() == pytest.approx(0.2, rel=0.25)


def test_types_can_be_told_apart_from_their_tuning(tmp_path):
    truth = read_truth(write_recording(tmp_path / "a", **{**SMALL, "n_neurons": 400}))
    found = KMeans(6, n_init=20, random_state=0).fit_predict(truth.tuning)
    assert 0.8 < adjusted_rand_score(truth.types, found) < 1


def test_receptive_fields_follow_the_cortex(tmp_path):
    folder = write_recording(tmp_path / "a", **{**SMALL, "n_neurons": 100})
    positions = np.load(folder / "meta/neurons/cell_motor_coordinates.npy")
    centers = read_truth(folder).centers
    design = np.c_[positions[:, :2], np.ones(100)]
    residual = centers - design @ np.linalg.lstsq(design, centers, rcond=None)[0]
    assert residual.std() < 0.03 * 14
    assert centers.std() > 2 * residual.std()


def test_feature_maps_are_convolutions_with_gabors():
    bank = image_model.FeatureBank.draw(6, 5, (12, 14), seed=0)
    image = np.random.default_rng(0).normal(size=(12, 14))
    maps = []
    for feature in range(6):
        even = signal.convolve2d(image, bank.even[feature], mode="same")
        odd = signal.convolve2d(image, bank.odd[feature], mode="same")
        energy = feature % 2 == 0
        maps.append((np.sqrt(even**2 + odd**2) if energy else even.clip(min=0)) - bank.mean[feature])
    expected = np.tensordot(bank.whitening, np.stack(maps), axes=1)
    np.testing.assert_allclose(bank.maps(image[None])[0], expected, atol=1e-10)


def test_feature_maps_are_white_over_images_like_the_reference():
    bank = image_model.FeatureBank.draw(8, 7, (16, 16), seed=1)
    maps = bank.maps(image_model.noise_images(300, (16, 16), np.random.default_rng(5)))
    covariance = np.cov(np.moveaxis(maps, 1, 0).reshape(8, -1))
    np.testing.assert_allclose(covariance, np.eye(8), atol=0.15)


def test_interpolation_is_bilinear():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 6, 7, 2))
    centers = rng.uniform(-0.5, 7, size=(3, 9, 2))
    centers[0, 0], centers[0, 1] = (5, 6), (0, 0)
    found = image_model.interpolate(maps, centers)
    for trial in range(3):
        for feature in range(2):
            expected = ndimage.map_coordinates(maps[trial, ..., feature], centers[trial].T, order=1, mode="nearest")
            np.testing.assert_allclose(found[trial, :, feature], expected, atol=1e-12)


def test_blocks_of_neurons_change_nothing(monkeypatch):
    expected = draw_recording(seed=1, behavior=True, **SMALL)
    monkeypatch.setattr(image_model, "NEURONS_AT_A_TIME", 7)
    assert np.array_equal(draw_recording(seed=1, behavior=True, **SMALL).responses, expected.responses)


def test_spikes_have_the_moments_of_the_negative_binomial():
    rates = np.full((200_000, 3), 2.0)
    spikes = image_model.spike_counts(rates, np.array([0.0, 0.5, 2.0]), np.random.default_rng(0))
    np.testing.assert_allclose(spikes.mean(0), 2, rtol=0.02)
    np.testing.assert_allclose(spikes.var(0), [2, 2 + 0.5 * 4, 2 + 2 * 4], rtol=0.05)


def test_neurons_of_one_type_at_one_place_answer_alike(tmp_path):
    settings = {
        **SMALL,
        "n_neurons": 60,
        "n_train": 150,
        "noise": "poisson",
        "spread": 0.0,
        "gain_sd": 0.0,
        "rate": 20.0,
    }
    folder = write_recording(tmp_path / "a", **settings)
    truth = read_truth(folder)
    correlation = np.corrcoef(trials(folder, "responses").T)
    near = np.linalg.norm(truth.centers[:, None] - truth.centers, axis=2) < 0.8
    same = truth.types[:, None] == truth.types
    off_diagonal = ~np.eye(60, dtype=bool)
    assert correlation[near & same & off_diagonal].mean() > 0.6
    assert abs(correlation[near & ~same].mean()) < 0.3
    assert not truth.dispersions.any()


def test_arousal_drives_all_neurons(tmp_path):
    settings = {**SMALL, "n_train": 200, "noise": "poisson", "behavior": True, "behavior_gain": 0.5}
    folder = write_recording(tmp_path / "a", **settings)
    pupil_size, running = trials(folder, "behavior")[:, [0, 2]].T
    mean_response = trials(folder, "responses").mean(1)
    assert np.corrcoef(pupil_size, mean_response)[0, 1] > 0.6
    assert running.min() >= 0


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    saved = []

    def save(file, *args, **kwargs):
        saved.append(file)
        if len(saved) == 20:
            raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="No space left"):
        write_recording(tmp_path / "a", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_safe(tmp_path):
    folder = write_recording(tmp_path / "a", seed=1, **SMALL)
    with pytest.raises(
        RecordingError, match=r"a exists already. Choose another folder, or pass overwrite=True to repla"
    ):
        write_recording(folder, seed=2, **SMALL)
    before = content(folder)
    assert content(write_recording(folder, seed=2, overwrite=True, **SMALL)) != before
    real = tmp_path / "real"
    (real / "data").mkdir(parents=True)
    with pytest.raises(
        RecordingError, match=r"real is not a simulated recording, so it is not replaced. Choose another fo"
    ):
        write_recording(real, overwrite=True, **SMALL)
    with pytest.raises(
        RecordingError, match=re.escape("real/truth is missing: ") + ".*real is not a simulated recording."
    ):
        read_truth(real)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_neurons": 1}, "n_neurons is 1; it must be at least 2."),
        ({"n_validation": 1}, "n_validation is 1; it must be at least 2."),
        ({"spread": -1}, "spread is -1; it must be a number of at least 0."),
        ({"rate": 0}, "rate is 0; it must be a number above 0."),
        ({"noise": "gaussian"}, "noise is 'gaussian'. Allowed: overdispersed, poisson."),
        ({"type_sizes": (0.5, 0)}, "type_sizes is (0.5, 0); one positive number for each type is expected."),
        (
            {"n_features": 60},
            "n_features=60 features of feature_size=5 pixels are not distinguishable. Use fewer features",
        ),
        ({"image_shape": (12,)}, "image_shape is (12,); (height, width) in pixels is expected."),
        ({"image_shape": (4, 12)}, "image_shape is (4, 12), smaller than feature_size=5. Use larger images."),
    ],
)
def test_settings_that_are_not_allowed(tmp_path, settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        write_recording(tmp_path / "a", **{**SMALL, **settings})
    assert list(tmp_path.iterdir()) == []

"""Macaque V4: both layouts read back what was written, trained on, and every way in which a recording can be wrong."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imsave
from skimage.transform import rescale

from december_plugin.datasets import macaque_v4_loaders
from december_plugin.datasets.macaque_v4.loaders import split_images
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.performance import correlation_to_average, image_ids_of, predict_tier
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.simulate.macaque_v4 import read_macaque_v4_truth, write_macaque_v4_recording
from december_plugin.trainers import baseline_trainer

SMALL = {
    "n_sessions": 2,
    "n_neurons": 6,
    "n_images": 60,
    "n_shown": 40,
    "n_test": 4,
    "n_repeats": 3,
    "image_shape": (12, 14),
    "border": 2,
    "feature_size": 5,
}
FIRST, SECOND = "3631896544452", "3631896545452"


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return write_macaque_v4_recording(tmp_path_factory.mktemp("v4") / "pickles", seed=0, **SMALL)


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> Path:
    return write_macaque_v4_recording(tmp_path_factory.mktemp("v4") / "public", layout="public", seed=0, **SMALL)


def load(folder: Path, **settings):
    settings = {"images_path": folder / "images", "crop": 2, **settings}
    return macaque_v4_loaders([folder / "sessions"], 16, **settings)


def content_of(folder: Path, data_key: str = FIRST) -> dict:
    return pickle.loads((folder / f"sessions/CSRF19_V4_{data_key}.pickle").read_bytes())


def test_serves_what_the_files_hold(recording):
    loaders = load(recording, time_bins=[3, 4, 5], inputs_mean=100.0, inputs_std=50.0)
    assert {tier: list(sessions) for tier, sessions in loaders.items()} == {
        "train": [FIRST, SECOND],
        "validation": [FIRST, SECOND],
        "test": [FIRST, SECOND],
    }
    content, dataset = content_of(recording, SECOND), loaders["test"][SECOND].dataset
    spikes = np.concatenate([content["training_responses"], content["testing_responses"]], axis=2)
    image_ids = np.concatenate([content["training_image_ids"], content["testing_image_ids"]])
    batches = {tier: list(loaders[tier][SECOND]) for tier in ("validation", "test")}
    for tier in ("validation", "test"):
        trials = dataset.tiers[tier]
        images = torch.cat([batch.images for batch in batches[tier]])
        responses = torch.cat([batch.responses for batch in batches[tier]])
        assert images.shape == (len(trials), 1, 12, 14)
        for position, trial in enumerate(trials):
            expected = [spikes[unit, 3, trial] + spikes[unit, 4, trial] + spikes[unit, 5, trial] for unit in range(6)]
            assert responses[position].tolist() == expected
            pixels = np.load(recording / f"images/{image_ids[trial]:06d}.npy")[2:-2, 2:-2]
            np.testing.assert_allclose(images[position, 0], (pixels - 100.0) / 50.0, rtol=1e-5)
    assert np.array_equal(image_ids_of(loaders["test"][SECOND]), content["testing_image_ids"])
    assert np.bincount(content["testing_image_ids"]).tolist()[60:] == [3, 3, 3, 3]
    assert dataset.neurons.unit_ids.tolist() == [1, 3, 5, 7, 9, 11]
    assert dataset.neurons.relative_micron_depth.tolist() == [0, 60, 120, 180, 240, 300]
    assert dataset[3].images.shape == (1, 12, 14)


def test_both_layouts_serve_the_same(recording, public):
    of_pickles = load(recording)
    of_csv = macaque_v4_loaders([str(public)], 16, crop=[[2, 2], [2, 2]])
    for data_key in (FIRST, SECOND):
        first, second = (loaders["train"][data_key].dataset for loaders in (of_pickles, of_csv))
        assert first.fingerprint() == second.fingerprint()
        assert np.array_equal(first.unit_ids, second.unit_ids)
    other = load(recording, split_seed=5)["train"][FIRST].dataset
    assert other.fingerprint() != of_pickles["train"][FIRST].dataset.fingerprint()


def test_validation_images_are_the_same_in_all_sessions_and_never_trained_on(recording):
    loaders = load(recording)
    shown = {
        tier: [
            set(loaders[tier][key].dataset.image_ids[loaders[tier][key].dataset.tiers[tier]]) for key in loaders[tier]
        ]
        for tier in loaders
    }
    assert not set.union(*shown["train"]) & set.union(*shown["validation"])
    assert not set.union(*shown["train"], *shown["validation"]) & set.union(*shown["test"])
    # nnvision: np.random.seed(seed); np.random.permutation(n)[: int(n * train_frac)], n images in the folder
    before = np.random.get_state()
    np.random.seed(1000)
    expected = set(np.random.permutation(64)[: int(64 * 0.8)])
    np.random.set_state(before)
    assert set(split_images(range(64), 0.8, 1000)) == expected
    assert set.union(*shown["train"]) <= expected


def test_images_are_read_once_for_all_sessions_and_normalised_over_all_that_are_shown(recording):
    loaders = load(recording, scale=0.5)
    stores = {id(loader.dataset.images) for sessions in loaders.values() for loader in sessions.values()}
    assert len(stores) == 1
    images = loaders["train"][FIRST].dataset.images
    assert len(images.ids) < 64
    expected = np.stack([np.load(recording / f"images/{number:06d}.npy")[2:-2, 2:-2] for number in images.ids])
    expected = np.stack([rescale(image.astype(float), 0.5, mode="reflect", anti_aliasing=False) for image in expected])
    assert images.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert images.std == pytest.approx(expected.std(), rel=1e-5)
    assert images.values.mean().item() == pytest.approx(0, abs=1e-4)
    assert images.values.shape[1:] == (1, 6, 7)


def test_neurons_are_chosen_by_session_and_unit_id(recording):
    loaders = load(recording, neuron_ids={SECOND: [7, 1]})
    assert list(loaders["train"]) == [SECOND]
    dataset, whole = loaders["train"][SECOND].dataset, load(recording)["train"][SECOND].dataset
    assert dataset.unit_ids.tolist() == [7, 1]
    assert torch.equal(dataset.responses, whole.responses[:, [3, 0]])


def test_the_seed_changes_the_order_of_training_and_nothing_else(recording):
    first, second = load(recording, seed=1), load(recording, seed=2)
    for tier in first:
        assert first[tier][FIRST].dataset.fingerprint() == second[tier][FIRST].dataset.fingerprint()
    batches = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        batches.append(torch.cat([batch.responses for batch in first["train"][FIRST]]))
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_colour_images_and_a_session_of_one_neuron(recording, tmp_path):
    folder = Path(shutil.copytree(recording, tmp_path / "colour"))
    for file in (folder / "images").iterdir():
        np.save(file, np.repeat(np.load(file)[:, :, None], 3, axis=2))
    (folder / f"sessions/CSRF19_V4_{SECOND}.pickle").unlink()
    change_pickle(
        **{f"{name}_responses": lambda values: values[0] for name in ("training", "testing")},
        **{name: lambda values: values[:1] for name in ("unit_ids", "electrode_nums", "relative_micron_depth")},
    )(folder)
    batch = next(iter(load(folder)["test"][FIRST]))
    assert batch.images.shape == (12, 3, 12, 14)
    assert batch.responses.shape == (12, 1)


def test_data_info_builds_the_same_model(recording):
    info, loaders = load(recording, return_data_info=True), load(recording)
    assert info[FIRST]["input_dimensions"] == [1, 1, 12, 14]
    assert info[FIRST]["output_dimension"] == 6
    assert info[FIRST]["response_unit"] == "spikes per presentation"
    settings = {"hidden_channels": 4, "layers": 2, "input_kern": 5, "hidden_kern": 3, "grid_mean_predictor": None}
    from_info = stacked_core_gaussian_readout(None, 3, data_info=info, **settings)
    from_loaders = stacked_core_gaussian_readout(loaders, 3, **settings)
    for name, values in from_loaders.state_dict().items():
        assert torch.equal(values, from_info.state_dict()[name]), name


def test_a_model_learns_to_predict_the_neurons(tmp_path):
    folder = write_macaque_v4_recording(tmp_path / "v4", n_sessions=2, n_images=300, n_shown=250, noise="poisson")
    loaders = macaque_v4_loaders([folder / "sessions"], 16, images_path=folder / "images", time_bins=range(3, 12))
    model = stacked_core_gaussian_readout(
        loaders, 0, hidden_channels=8, layers=2, input_kern=5, hidden_kern=3, grid_mean_predictor=None
    )
    score, _, state = baseline_trainer(model, loaders, 0, max_iter=6)
    assert score > 0.25
    model.load_state_dict(state)
    for data_key, (responses, predictions) in predict_tier(model, loaders["test"]).items():
        scores = correlation_to_average(responses, predictions, image_ids_of(loaders["test"][data_key]))
        assert scores.mean() > 0.35


def test_truth_is_that_of_the_neurons(recording):
    truth = read_macaque_v4_truth(recording)
    assert list(truth) == [FIRST, SECOND]
    loaders = load(recording)
    for data_key, planted in truth.items():
        assert np.array_equal(planted.unit_ids, loaders["train"][data_key].dataset.unit_ids)
        assert planted.types.shape == (6,)
    assert np.array_equal(truth[FIRST].type_tuning, truth[SECOND].type_tuning)


# --- bad input ----------------------------------------------------------------------------------------------------


def session_file(folder: Path) -> Path:
    return folder / f"sessions/CSRF19_V4_{FIRST}.pickle"


def change_pickle(**changes):
    def damage(folder):
        file = session_file(folder)
        content = pickle.loads(file.read_bytes())
        for name, change in changes.items():
            content[name] = change(content[name])
        file.write_bytes(pickle.dumps(content))

    return damage


def without(entry):
    def damage(folder):
        content = content_of(folder)
        del content[entry]
        session_file(folder).write_bytes(pickle.dumps(content))

    return damage


def put(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def twice(folder):
    shutil.copy(session_file(folder), folder / "sessions/copy.pickle")


def evil(folder):
    session_file(folder).write_bytes(pickle.dumps({"session_id": Path("/")}))


SESSION = f"session '{FIRST}' (FOLDER/sessions/CSRF19_V4_{FIRST}.pickle)"
FILE = f"FOLDER/sessions/CSRF19_V4_{FIRST}.pickle"
CASES = {
    "no session": (lambda folder: shutil.rmtree(folder / "sessions"), "The recording FOLDER/sessions does not exist."),
    "empty folder": (
        lambda folder: [file.unlink() for file in (folder / "sessions").iterdir()],
        "FOLDER/sessions has neither session pickles (*.pickle, *.pkl) nor the folders train and test of the public "
        "dataset.",
    ),
    "truncated pickle": (
        lambda folder: session_file(folder).write_bytes(session_file(folder).read_bytes()[:2000]),
        f"{FILE} is not a complete pickle (UnpicklingError: pickle data was truncated). Get the file again.",
    ),
    "a pickle that runs code": (evil, f"{FILE} is a pickle that names pathlib."),
    "missing responses": (
        without("testing_responses"),
        f"{FILE} has no entry 'testing_responses'; it has electrode_nums, relative_micron_depth, session_id, "
        "subject_id, testing_image_ids, training_image_ids, training_responses, unit_ids, x_grid_location, "
        "y_grid_location.",
    ),
    "missing session id": (without("session_id"), f"session_id of {FILE} is missing; it has electrode_nums"),
    "responses of one axis": (
        change_pickle(training_responses=lambda values: values[0, 0]),
        f"training_responses of {FILE} have shape (40,); (neurons, bins, trials) is expected.",
    ),
    "fewer trials than images": (
        change_pickle(training_responses=lambda values: values[:, :, :-1]),
        f"{SESSION} has 39 training responses to 40 image ids; both need one entry for each trial.",
    ),
    "fewer neurons in testing": (
        change_pickle(testing_responses=lambda values: values[1:]),
        f"{SESSION} has (neurons, bins) (6, 12) in training and (5, 12) in testing; they must be the same.",
    ),
    "fewer unit ids": (
        change_pickle(unit_ids=lambda values: values[1:]),
        f"{SESSION} names 5 unit ids and has responses of 6 neurons; both need one entry for each neuron.",
    ),
    "duplicate unit ids": (
        change_pickle(unit_ids=put(1, 1)),
        f"{SESSION} names 1 unit id(s) more than once, e.g. 1. A unit id identifies a neuron within its session",
    ),
    "fractional image ids": (
        change_pickle(testing_image_ids=lambda values: values + 0.5),
        f"testing_image_ids of {FILE} are not whole numbers.",
    ),
    "NaN": (
        change_pickle(training_responses=put((2, 3, [7, 9]), np.nan)),
        f"training responses of {SESSION} have NaN or infinite values in 2 trial(s), first in trial 7.",
    ),
    "negative counts": (
        change_pickle(testing_responses=put((0, 0, 0), -1.5)),
        f"testing responses of {SESSION} go down to -1.5; spike counts cannot be negative. Export the counts",
    ),
    "rates": (
        change_pickle(training_responses=lambda values: values / 2 + 0.25),
        f"training responses of {SESSION} are not whole numbers (e.g.",
    ),
    "no training trials": (
        change_pickle(training_responses=lambda values: values[:, :, :0], training_image_ids=lambda ids: ids[:0]),
        f"{SESSION} has no training trials. Leave this session out.",
    ),
    "one validation trial": (
        change_pickle(training_responses=lambda values: values[:, :, :1], training_image_ids=lambda ids: ids[:1]),
        f"{SESSION} has ",
    ),
    "an image in training and testing": (
        change_pickle(training_image_ids=put(0, 60)),
        f"{SESSION} shows 1 image(s) in training and in testing, e.g. 60. Take them out of training.",
    ),
    "the same session twice": (twice, f"{FILE} and FOLDER/sessions/copy.pickle are both session '{FIRST}'."),
    "no images": (
        lambda folder: shutil.rmtree(folder / "images"),
        "The folder of images FOLDER/images does not exist. Check images_path.",
    ),
    "an image is missing": (
        lambda folder: (folder / "images/000061.npy").unlink(),
        "images that the sessions name, e.g. 000061.npy. Copy the images again, or check images_path.",
    ),
    "an image of another size": (
        lambda folder: np.save(folder / "images/000061.npy", np.zeros((3, 3), dtype=np.uint8)),
        "FOLDER/images/000061.npy has shape (3, 3), but FOLDER/images/0000",
    ),
    "an image of z-scores": (
        lambda folder: np.save(folder / "images/000061.npy", np.full((16, 18), -1.0)),
        "FOLDER/images/000061.npy has pixels from -1 to -1; grey levels from 0 to 255 are expected.",
    ),
    "a truncated image": (
        lambda folder: (folder / "images/000061.npy").write_bytes((folder / "images/000061.npy").read_bytes()[:-9]),
        "FOLDER/images/000061.npy is truncated: it announces 288 bytes of data and has 279. Copy the recording",
    ),
    "two images of one id": (
        lambda folder: imsave(folder / "images/61.png", np.zeros((16, 18), dtype=np.uint8), check_contrast=False),
        "are both image 61. Remove one of them.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_recordings(name, recording, tmp_path):
    damage, message = CASES[name]
    folder = Path(shutil.copytree(recording, tmp_path / "v4"))
    damage(folder)
    with pytest.raises(RecordingError, match=re.escape(message.replace("FOLDER", str(folder)))):
        load(folder)


def edit(entry, change):
    def damage(folder):
        (folder / entry).write_text(change((folder / entry).read_text()))

    return damage


PUBLIC_CASES = {
    "a missing file": (
        lambda folder: (folder / f"test/{FIRST}/responses.csv").unlink(),
        f"FOLDER/test/{FIRST}/responses.csv is missing. Every session needs it under train and under test.",
    ),
    "another column": (
        edit(f"train/{FIRST}/responses.csv", lambda text: text.replace("image_id", "image_ids", 1)),
        f"FOLDER/train/{FIRST}/responses.csv has no column 'image_id'. Did you mean 'image_ids'?",
    ),
    "truncated": (
        edit(f"train/{FIRST}/responses.csv", lambda text: text[: len(text) // 2]),
        f"FOLDER/train/{FIRST}/responses.csv cannot be read after ",
    ),
    "no metadata": (
        lambda folder: (folder / f"train/{FIRST}/meta_data.json").unlink(),
        f"FOLDER/train/{FIRST}/meta_data.json is missing.",
    ),
    "damaged metadata": (
        edit(f"train/{FIRST}/meta_data.json", lambda text: text[:10]),
        f"FOLDER/train/{FIRST}/meta_data.json is not a JSON file (",
    ),
    "no lines": (
        edit(f"test/{FIRST}/responses.csv", lambda text: text.splitlines()[0] + "\n"),
        f"session '{FIRST}' (FOLDER/train/{FIRST}) has no testing trials. Leave this session out.",
    ),
    "a field too many": (
        edit(f"train/{FIRST}/responses.csv", lambda text: text.replace("\n0,", "\n0,7,", 1)),
        f"FOLDER/train/{FIRST}/responses.csv cannot be read after 0 trial(s) (a field more than there are columns: '[[",
    ),
    "an image id that reads as another": (
        edit(f"test/{FIRST}/responses.csv", lambda text: text.replace("\n0,", "\n0,1_", 1)),
        f"FOLDER/test/{FIRST}/responses.csv cannot be read after 0 trial(s) (the image_id '1_",
    ),
    "responses that are text": (
        edit(f"train/{FIRST}/responses.csv", lambda text: re.sub(r"\[\[(\d+)", r'[[""\1""', text, count=1)),
        f"FOLDER/train/{FIRST}/responses.csv cannot be read after 0 trial(s) (responses of which some are not "
        "numbers: ",
    ),
    "a session with two ids": (
        edit(f"train/{FIRST}/meta_data.json", lambda text: text.replace("{", '{"session_id": 7, ', 1)),
        f"FOLDER/train/{FIRST}/meta_data.json is not a JSON file (the key 'session_id' appears twice; keep one",
    ),
    "a damaged image": (
        lambda folder: (folder / "images/000061.png").write_bytes((folder / "images/000061.png").read_bytes()[:60]),
        "FOLDER/images/000061.png is not a complete PNG image (",
    ),
}


@pytest.mark.parametrize("name", PUBLIC_CASES)
def test_bad_public_recordings(name, public, tmp_path):
    damage, message = PUBLIC_CASES[name]
    folder = Path(shutil.copytree(public, tmp_path / "v4"))
    damage(folder)
    with pytest.raises(RecordingError, match=re.escape(message.replace("FOLDER", str(folder)))):
        macaque_v4_loaders([folder], 16)


SETTINGS = {
    "crop too large": ({"crop": 20}, "crop=[20, 20, 20, 20] (top, bottom, left, right) leaves nothing of images of 16"),
    "scale too small": ({"scale": 0.01}, "scale=0.01 leaves nothing of images of 12 x 14 pixels (height x width). Use"),
    "crop of three": ({"crop": [1, 2, 3]}, "crop is [1, 2, 3]; a number of pixels, [top, bottom, left, right], or"),
    "bins beyond": ({"time_bins": [3, 12]}, f"time_bins names bin 12, but session '{FIRST}' has 12 bins, counted from"),
    "bins twice": ({"time_bins": [3, 3]}, "time_bins is [3, 3]; a list of different bins is expected"),
    "summary": ({"summary": "average"}, "summary is 'average'. Allowed: mean, sum."),
    "fraction": ({"train_fraction": 1}, "train_fraction is 1; it must be below 1, so that validation has images."),
    "unknown session": (
        {"neuron_ids": {"3631896544453": [1]}},
        "neuron_ids names the session '3631896544453', which does not exist. Did you mean '3631896544452'?",
    ),
    "unknown neuron": (
        {"neuron_ids": {FIRST: [1, 2]}},
        f"neuron_ids names 1 unit id(s) that session '{FIRST}' does not have, e.g. 2. It has 6 neurons: 1, 3, 5, 7, 9,",
    ),
    "neuron twice": ({"neuron_ids": {FIRST: [1, 1]}}, f"neuron_ids names a unit id of session '{FIRST}' twice."),
    "one statistic": ({"inputs_mean": 1.0}, "inputs_mean was given without inputs_std. Give both or neither."),
    "no images": (
        {"images_path": None},
        "images_path is needed: session pickles name images by id, and do not contain",
    ),
    "misspelled": ({"image_path": "x"}, "macaque_v4_loaders has no setting 'image_path'. Did you mean 'images_path'?"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings(name, recording):
    settings, message = SETTINGS[name]
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(recording, **settings)
    with pytest.raises(SettingsError, match=re.escape("paths is []; a list of session pickles or folders is expected")):
        macaque_v4_loaders([], 16)


def test_rates_are_read_when_told_so(recording, tmp_path):
    folder = Path(shutil.copytree(recording, tmp_path / "v4"))
    change_pickle(training_responses=lambda values: values / 2, testing_responses=lambda values: values / 2)(folder)
    assert load(folder, spike_counts=False)["train"][FIRST].dataset.responses.sum() > 0


def test_the_simulation_checks_its_settings(tmp_path):
    with pytest.raises(SettingsError, match=re.escape("n_shown is 9, but there are n_images=4. Show fewer, or write")):
        write_macaque_v4_recording(tmp_path / "v4", n_images=4, n_shown=9)

"""Every way in which a recording can be wrong gives one clear error: what, where, what to do."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from december_plugin.datasets import static_loaders
from december_plugin.datasets.common.arrays import ArrayFolder, read_array
from december_plugin.errors import RecordingError


@pytest.fixture
def folder(recording_folders, tmp_path) -> Path:
    """Copy a good recording, to be damaged."""
    return Path(shutil.copytree(recording_folders[0], tmp_path / "mouse"))


def remove(entry):
    def damage(folder):
        path = folder / entry
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def save(entry, change):
    def damage(folder):
        file = folder / entry
        np.save(file, change(np.load(file)), allow_pickle=True)

    return damage


def write_bytes(entry, change):
    def damage(folder):
        file = folder / entry
        file.write_bytes(change(file.read_bytes()))

    return damage


def put(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def without_tier(tier, keep=0):
    def change(tiers):
        tiers = tiers.copy()
        tiers[np.flatnonzero(tiers == tier)[keep:]] = "test"
        return tiers

    return change


def nan_in_three_trials(folder):
    for trial in (50, 9, 12):
        save(f"data/responses/{trial}.npy", put([0, 4], np.nan))(folder)


UNIT_IDS, TIERS = "meta/neurons/unit_ids.npy", "meta/trials/tiers.npy"
IMAGE_IDS = "meta/trials/frame_image_id.npy"
POSITIONS = "meta/neurons/cell_motor_coordinates.npy"
ALL = {"include_behavior": True, "include_eye_position": True}

# name: (damage, settings, message; FOLDER stands for the recording's path)
CASES = {
    "no images": (
        remove("data/images"),
        {},
        "FOLDER is not a recording in the SENSORIUM 2022 layout: data/images missing. Expected: "
        "data/images/<trial>.npy, data/responses/<trial>.npy, meta/trials/tiers.npy and meta/neurons/unit_ids.npy.",
    ),
    "no unit ids, no tiers": (
        lambda folder: (remove(UNIT_IDS)(folder), remove(TIERS)(folder)),
        {},
        "FOLDER is not a recording in the SENSORIUM 2022 layout: meta/trials/tiers.npy, meta/neurons/unit_ids.npy",
    ),
    "behaviour asked for and missing": (
        remove("data/behavior"),
        {"include_behavior": True},
        "FOLDER/data/behavior is missing: this recording has no behavior. Load it without behavior.",
    ),
    "pupil asked for and missing": (
        remove("data/pupil_center"),
        {"include_eye_position": True},
        "FOLDER/data/pupil_center is missing: this recording has no pupil_center. Load it without pupil_center.",
    ),
    "one response file missing": (
        remove("data/responses/17.npy"),
        {},
        "FOLDER/data/responses has 63 trials, 17.npy is missing, but meta/trials/tiers.npy describes 64. Images, "
        "responses and tiers need the same trials: 0.npy, 1.npy, and so on.",
    ),
    "one image too many": (
        lambda folder: shutil.copy(folder / "data/images/0.npy", folder / "data/images/64.npy"),
        {},
        "FOLDER/data/images has 65 trials, but meta/trials/tiers.npy describes 64.",
    ),
    "truncated image": (
        write_bytes("data/images/33.npy", lambda content: content[:-100]),
        {},
        "FOLDER/data/images/33.npy is truncated: it announces 672 bytes of data and has 572. Copy the recording",
    ),
    "empty file": (
        write_bytes("data/responses/5.npy", lambda content: b""),
        {},
        "FOLDER/data/responses/5.npy is not an .npy file: it is empty. Copy the recording again.",
    ),
    "no array": (
        write_bytes("data/responses/5.npy", lambda content: b"x" * len(content)),
        {},
        "FOLDER/data/responses/5.npy is not an .npy file: it begins with b'xxxxxx'. Copy the recording again.",
    ),
    "damaged header": (
        write_bytes("data/responses/5.npy", lambda content: content[:12] + b"\xff" * 30 + content[42:]),
        {},
        "FOLDER/data/responses/5.npy has a damaged header (",
    ),
    "pickled unit ids": (
        save(UNIT_IDS, lambda ids: ids.astype(object)),
        {},
        "FOLDER/meta/neurons/unit_ids.npy contains pickled Python objects, which are never loaded because loading them "
        "can run any code. Save it again as an array of numbers or text (numpy.save with allow_pickle=False).",
    ),
    "a pickle": (
        write_bytes("data/images/3.npy", lambda content: pickle.dumps([1, 2])),
        {},
        "FOLDER/data/images/3.npy contains pickled Python objects, which are never loaded",
    ),
    "images of different sizes": (
        save("data/images/40.npy", lambda image: image[:, :, 1:]),
        {},
        "FOLDER/data/images/40.npy has shape (1, 12, 13), but the images of trial 0 has (1, 12, 14). All trials of a "
        "recording need the same shape.",
    ),
    "images of the same size but turned": (
        save("data/images/40.npy", lambda image: image.transpose(0, 2, 1)),
        {},
        "FOLDER/data/images/40.npy has shape (1, 14, 12), but the images of trial 0 has (1, 12, 14).",
    ),
    "images without channels": (
        save("data/images/0.npy", lambda image: image[0]),
        {},
        "FOLDER/data/images/0.npy has shape (12, 14); (channels, height, width) is expected.",
    ),
    "text for numbers": (
        save("data/behavior/2.npy", lambda values: values.astype(str)),
        {"include_behavior": True},
        "FOLDER/data/behavior/2.npy has values of dtype <U32; numbers are expected.",
    ),
    "response vectors of different length": (
        save("data/responses/21.npy", lambda responses: responses[:-1]),
        {},
        "FOLDER/data/responses/21.npy has 19 responses, but meta/neurons/unit_ids.npy names 20 neurons. Every trial "
        "needs one response of each neuron.",
    ),
    "fewer unit ids than responses": (
        lambda folder: (remove(POSITIONS)(folder), save(UNIT_IDS, lambda ids: ids[:-2])(folder)),
        {},
        "FOLDER/data/responses/0.npy has 20 responses, but meta/neurons/unit_ids.npy names 18 neurons.",
    ),
    "NaN responses": (
        nan_in_three_trials,
        {},
        "FOLDER: 6 NaN or infinite value(s) in responses of 3 trial(s), first in data/responses/9.npy. Remove these "
        "trials or neurons from the recording.",
    ),
    "infinite image": (
        save("data/images/8.npy", put((0, 3, 3), np.inf)),
        {},
        "FOLDER: 1 NaN or infinite value(s) in images of 1 trial(s), first in data/images/8.npy.",
    ),
    "NaN behaviour, which is in the images' channels": (
        save("data/behavior/3.npy", put(0, np.nan)),
        ALL,
        "FOLDER: 1 NaN or infinite value(s) in behavior of 1 trial(s), first in data/behavior/3.npy. Remove these "
        "trials from the recording, or pass include_behavior=False.",
    ),
    "NaN behaviour and pupil": (
        lambda folder: (
            save("data/behavior/3.npy", put(0, np.nan))(folder),
            save("data/pupil_center/3.npy", put(0, np.nan))(folder),
        ),
        {"include_eye_position": True},
        "FOLDER: 1 NaN or infinite value(s) in pupil_center of 1 trial(s), first in data/pupil_center/3.npy. Remove "
        "these trials from the recording, or pass include_eye_position=False.",
    ),
    "statistics over trials without a pupil": (
        save("meta/statistics/behavior/all/std.npy", put(0, np.nan)),
        {"include_behavior": True},
        "FOLDER/meta/statistics/behavior/all/std.npy has NaN, infinite or non-numeric values. Compute the statistics "
        "again, or pass include_behavior=False.",
    ),
    "empty images": (
        lambda folder: [save(f"data/images/{trial}.npy", lambda image: image[:, :0])(folder) for trial in range(64)],
        {},
        "FOLDER/data/images/0.npy has shape (1, 0, 14): it is empty. Copy the recording again.",
    ),
    "statistics of other images": (
        save("meta/statistics/images/all/std.npy", lambda std: np.ones((5, 5))),
        {},
        "FOLDER/meta/statistics/images/all/std.npy has shape (5, 5), but images of a trial have the shape (1, 12, 14). "
        "Compute the statistics again.",
    ),
    "behaviour without one of its variables": (
        lambda folder: [save(f"data/behavior/{trial}.npy", lambda values: values[:2])(folder) for trial in range(64)],
        {"include_behavior": True},
        "FOLDER/meta/statistics/behavior/all/std.npy has shape (3,), but behavior of a trial have the shape (2,).",
    ),
    "statistics of another pupil": (
        save("meta/statistics/pupil_center/all/mean.npy", lambda mean: np.append(mean, 0)),
        ALL,
        "FOLDER/meta/statistics/pupil_center/all/mean.npy has shape (3,), but pupil_center of a trial have the shape",
    ),
    "areas in a column": (
        save("meta/neurons/area.npy", lambda area: area[:, None]),
        {"areas": ["V1"]},
        "FOLDER: meta/neurons/area.npy has shape (20, 1), meta/neurons/unit_ids.npy 20. Both need one entry for each",
    ),
    "empty image ids": (
        save(IMAGE_IDS, lambda ids: np.where(ids < 5, "", ids.astype(str))),
        {},
        "FOLDER: meta/trials/frame_image_id.npy has NaN, infinite values, objects or empty text (dtype <U21)",
    ),
    "channels last": (
        lambda folder: [
            save(f"data/images/{trial}.npy", lambda image: np.moveaxis(image, 0, -1))(folder) for trial in range(64)
        ],
        {},
        "FOLDER/data/images/0.npy has shape (12, 14, 1), which looks like (height, width, channels); (channels, "
        "height, width) is expected. Move the channels to the front, e.g. with numpy.moveaxis(image, -1, 0).",
    ),
    "unit ids that their type cannot tell apart": (
        save(UNIT_IDS, lambda ids: (2.0**24 + ids).astype(np.float32)),
        {},
        "FOLDER/meta/neurons/unit_ids.npy has shape (20,) and dtype float32; one integer for each neuron is expected.",
    ),
    "one test trial": (
        save(TIERS, lambda tiers: np.where(np.arange(64) == 9, "test", np.where(tiers == "test", "train", tiers))),
        {},
        "FOLDER/meta/trials/tiers.npy assigns one trial to the tier 'test', and a correlation needs at least two. "
        "Assign more trials to 'test', or give this one another tier: a session without test trials is not tested.",
    ),
    "NaN pupil": (
        save("data/pupil_center/30.npy", put(1, np.nan)),
        ALL,
        "FOLDER: 1 NaN or infinite value(s) in pupil_center of 1 trial(s), first in data/pupil_center/30.npy. Remove "
        "these trials from the recording, or pass include_eye_position=False.",
    ),
    "no validation tier": (
        save(TIERS, without_tier("validation")),
        {},
        "FOLDER/meta/trials/tiers.npy assigns 0 trials to the tier 'validation'; at least 2 is needed. Tiers there: "
        "test, train. Assign some trials to 'validation'.",
    ),
    "one validation trial": (
        save(TIERS, without_tier("validation", keep=1)),
        {},
        "FOLDER/meta/trials/tiers.npy assigns 1 trials to the tier 'validation'; at least 2 is needed.",
    ),
    "no training tier": (
        save(TIERS, without_tier("train")),
        {},
        "FOLDER/meta/trials/tiers.npy assigns 0 trials to the tier 'train'; at least 1 is needed.",
    ),
    "empty tiers": (
        save(TIERS, lambda tiers: tiers[:0]),
        {},
        "FOLDER/meta/trials/tiers.npy has shape (0,) and dtype <U10; one tier name (train, validation, test, ...) for "
        "each trial is expected.",
    ),
    "one neuron": (
        save(UNIT_IDS, lambda ids: ids[:1]),
        {},
        "FOLDER has 1 neuron(s); at least 2 are needed to fit and cluster a session. Leave this recording out.",
    ),
    "duplicate unit ids": (
        save(UNIT_IDS, lambda ids: np.r_[ids[:-1], ids[0]]),
        {},
        "FOLDER/meta/neurons/unit_ids.npy names 1 unit id(s) more than once, e.g. ",
    ),
    "unit ids that are no integers": (
        save(UNIT_IDS, lambda ids: ids + 0.5),
        {},
        "FOLDER/meta/neurons/unit_ids.npy has shape (20,) and dtype float64; one integer for each neuron is expected.",
    ),
    "no statistics": (
        remove("meta/statistics/responses/all/std.npy"),
        {},
        "FOLDER/meta/statistics/responses/all/std.npy is missing. Normalisation needs it; or pass normalize=False.",
    ),
    "zero std of images": (
        save("meta/statistics/images/all/std.npy", lambda std: np.zeros_like(std)),
        {},
        "FOLDER: meta/statistics/images/all/std.npy is zero or negative in 1 of 1 value(s), so images cannot be "
        "normalised. Compute the statistics again, or pass exclude='images' to leave images as it is.",
    ),
    "zero std of behaviour": (
        save("meta/statistics/behavior/all/std.npy", put(1, 0)),
        ALL,
        "FOLDER: meta/statistics/behavior/all/std.npy is zero or negative in 1 of 3 value(s), so behavior cannot be",
    ),
    "zero std of all responses": (
        save("meta/statistics/responses/all/std.npy", lambda std: np.zeros_like(std)),
        {},
        "FOLDER: meta/statistics/responses/all/std.npy is zero for all neurons or negative for some. Compute the",
    ),
    "statistics of other neurons": (
        save("meta/statistics/responses/all/std.npy", lambda std: std[:-1]),
        {},
        "FOLDER: meta/statistics/responses/all/std.npy has shape (19,), but there are 20 neurons.",
    ),
    "NaN statistics": (
        save("meta/statistics/images/all/mean.npy", lambda mean: mean * np.nan),
        {},
        "FOLDER/meta/statistics/images/all/mean.npy has NaN, infinite or non-numeric values. Compute the statistics",
    ),
    "coordinates of other neurons": (
        save(POSITIONS, lambda positions: positions[:-1]),
        {},
        "FOLDER/meta/neurons/cell_motor_coordinates.npy has shape (19, 3) and dtype float64; one row of coordinates "
        "for each of the 20 neurons in meta/neurons/unit_ids.npy is expected.",
    ),
    "NaN coordinates": (
        save(POSITIONS, put((2, 0), np.nan)),
        {},
        "FOLDER/meta/neurons/cell_motor_coordinates.npy has NaN or infinite positions. Remove these neurons",
    ),
    "areas asked for and missing": (
        remove("meta/neurons/area.npy"),
        {"areas": ["V1"]},
        "FOLDER: meta/neurons/area.npy is missing. It has: animal_ids, cell_motor_coordinates, layer, scan_idx, ",
    ),
    "areas of other neurons": (
        save("meta/neurons/area.npy", lambda area: area[:-1]),
        {"areas": ["V1"]},
        "FOLDER: meta/neurons/area.npy has 19 values, meta/neurons/unit_ids.npy 20. Both need one entry for each",
    ),
    "image ids of other trials": (
        save(IMAGE_IDS, lambda ids: ids[:-1]),
        {},
        "FOLDER: meta/trials/frame_image_id.npy has shape (63,); one value for each of the 64 trials in "
        "meta/trials/tiers.npy is expected. Export it again with the trials.",
    ),
    "image ids that come first, of other trials": (
        lambda folder: np.save(folder / "meta/trials/image_id.npy", np.arange(65)),
        {},
        "FOLDER: meta/trials/image_id.npy has shape (65,); one value for each of the 64 trials in",
    ),
    "pickled image ids": (
        save(IMAGE_IDS, lambda ids: ids.astype(object)),
        {},
        "FOLDER/meta/trials/frame_image_id.npy contains pickled Python objects, which are never loaded",
    ),
    "no image ids, and repeats": (
        remove(IMAGE_IDS),
        ALL,
        "FOLDER: the 12 test trials show 3 different images, but it is unknown which: meta/trials has none of "
        "image_id.npy, colorframeprojector_image_id.npy, frame_image_id.npy. Export one of them, with one id for each "
        "trial of all tiers; without it there is no correlation to the average over repeats.",
    ),
    "NaN instead of image ids": (
        save(IMAGE_IDS, lambda ids: np.where(ids < 5, np.nan, ids)),
        {},
        "FOLDER: meta/trials/frame_image_id.npy has NaN, infinite values, objects or empty text (dtype float64); a "
        "number or text that names the image of each trial is expected, since equal ids are repeats of one image. "
        "Remove the file if that is unknown.",
    ),
    "links that are there twice": (
        write_bytes("config.json", lambda content: b'{"links": {}, "links": {"images": "frames"}}'),
        {},
        "FOLDER/config.json is not a valid configuration (the key 'links' appears twice; keep one of them).",
    ),
    "damaged configuration": (
        write_bytes("config.json", lambda content: b"{links"),
        {},
        "FOLDER/config.json is not a valid configuration (",
    ),
}


@pytest.mark.parametrize(("damage", "settings", "message"), CASES.values(), ids=CASES.keys())
def test_damaged_recording(folder, damage, settings, message):
    damage(folder)
    with pytest.raises(RecordingError, match=re.escape(message.replace("FOLDER", str(folder)))) as error:
        static_loaders([folder], 8, **settings)
    assert "\n" not in str(error.value)


def test_missing_folder(tmp_path):
    with pytest.raises(
        RecordingError, match=rf"The recording {tmp_path}/nothing does not exist. Check the path and th"
    ):
        static_loaders([tmp_path / "nothing"], 8)


def test_file_instead_of_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RecordingError, match=r"The recording .*notes.txt is a file. Pass the recording's folder."):
        static_loaders([tmp_path / "notes.txt"], 8)


def test_zip_archive(tmp_path):
    message = r"mouse.zip is a zip archive. Unpack it \(unzip mouse.zip -d .*\) and pass the folder."
    with pytest.raises(RecordingError, match=message):
        static_loaders([tmp_path / "mouse.zip"], 8)


def test_folder_that_holds_recordings(recording_folders):
    first = recording_folders[0]
    message = rf"is not a recording in the SENSORIUM 2022 layout: .* missing. Did you mean {re.escape(str(first))}\?"
    with pytest.raises(RecordingError, match=message):
        static_loaders([first.parent], 8)


def test_two_sessions_with_one_key(recording_folders, tmp_path):
    copy = shutil.copytree(recording_folders[0], tmp_path / "first")
    message = (
        f"Two recordings have the same session name 'first': {recording_folders[0]} and {copy}. The name comes from "
        "the folder's name; leave one out or rename its folder."
    )
    with pytest.raises(RecordingError, match=re.escape(message)):
        static_loaders([recording_folders[0], copy], 8)


def test_unreadable_file_and_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    shutil.move(tmp_path / "a.npz", tmp_path / "a.npy")
    with pytest.raises(RecordingError, match=r"a.npy is an .npz archive; a single array saved with numpy.save is"):
        read_array(tmp_path / "a.npy")
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(RecordingError, match=r"b.npy cannot be read: Is a directory. Check the file's permissions and"):
        read_array(tmp_path / "b.npy")
    with pytest.raises(
        RecordingError, match=r"c.npy is missing. Copy the recording again, or export it with this file"
    ):
        read_array(tmp_path / "c.npy")


def test_names_that_do_not_exist_in_a_folder(recording_folders):
    neurons = ArrayFolder(recording_folders[0] / "meta" / "neurons")
    with pytest.raises(AttributeError, match=r"neurons has no unit_idz.npy. It has: animal_ids, area, cell_motor_coo"):
        neurons.unit_idz  # noqa: B018


def test_neurons_that_do_not_vary_are_no_error(folder):
    # As in neuralpredictors: divided by 1 % of the mean standard deviation.
    save("meta/statistics/responses/all/std.npy", put(3, 0))(folder)
    dataset = static_loaders([folder], 8)["train"]["mouse"].dataset
    assert np.isfinite(dataset.values["responses"].numpy()).all()


def test_nothing_long_is_read_before_a_late_file_is_found_to_be_damaged(folder, monkeypatch):
    write_bytes("data/images/63.npy", lambda content: content[:-1])(folder)
    read = []
    original = np.load
    monkeypatch.setattr(np, "load", lambda file, **kwargs: read.append(Path(file)) or original(file, **kwargs))
    with pytest.raises(RecordingError, match=r"63.npy is truncated"):
        static_loaders([folder], 8)
    assert len(read) < 10


def test_items_that_the_configuration_renames(folder):
    plain = static_loaders([folder], 8)["train"]["mouse"].dataset.fingerprint()
    for parent in ("data", "meta/statistics"):
        (folder / parent / "images").rename(folder / parent / "frames")
    with pytest.raises(RecordingError, match="data/images missing"):
        static_loaders([folder], 8)
    (folder / "config.json").write_text(json.dumps({"links": {"images": "frames"}}))
    assert static_loaders([folder], 8)["train"]["mouse"].dataset.fingerprint() == plain

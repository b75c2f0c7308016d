"""Recordings that changed after a training: other orders of neurons, other neurons, other sessions."""

import logging
import re
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from december_plugin.datasets import movie_loaders, static_loaders
from december_plugin.embeddings.readout_vectors import unit_ids_of
from december_plugin.errors import RecordingError
from december_plugin.evaluation.neuron_order import in_trained_order
from december_plugin.evaluation.predictions import image_ids_of, predict_sessions, repeated_clips, with_neurons
from december_plugin.models.sessions import sessions_of
from december_plugin.simulate import write_recording
from december_plugin.simulate.movies import write_movie_recording

REMEDY = (
    " The recording has changed since the training, so the stored weights belong to other neurons: bring the recording "
    "back as it was, or register the new one under its own path and train on it."
)
Batch = namedtuple("Batch", ["images", "responses"])


class Trials(Dataset):
    def __init__(self, unit_ids):
        self.responses = torch.arange(12.0).reshape(4, 3)
        self.neurons = SimpleNamespace(unit_ids=np.array(unit_ids), depth=np.array([1.0, 2.0, 3.0]), name=np.array("x"))
        self.trial_info = SimpleNamespace(frame_image_id=np.array([1, 1, 2, 2]))
        self.secret = np.arange(3)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return Batch(torch.zeros(1), self.responses[i])


def loaders(**unit_ids):
    sessions = {key: DataLoader(Trials(ids), batch_size=2) for key, ids in unit_ids.items()}
    return {"train": sessions, "test": sessions}


def trained(**unit_ids):
    return {key: {"unit_ids": None if ids is None else np.array(ids), "n_neurons": 3} for key, ids in unit_ids.items()}


class TestInTrainedOrder:
    def test_the_same_order_changes_nothing(self):
        given = loaders(a=[5, 6, 7], b=[1, 2, 3])
        assert in_trained_order(given, trained(a=[5, 6, 7], b=[1, 2, 3])) is given

    @pytest.mark.parametrize("neurons", [None, {}, "text", trained(a=None)])
    def test_without_stored_unit_ids_nothing_is_compared(self, neurons):
        given = loaders(a=[5, 6, 7])
        assert in_trained_order(given, neurons) is given

    def test_another_order_is_served_as_it_was(self, caplog):
        given = loaders(a=[7, 5, 6], b=[1, 2, 3])
        with caplog.at_level(logging.WARNING):
            found = in_trained_order(given, trained(a=[5, 6, 7], b=[1, 2, 3]))
        assert caplog.messages == [
            "the neurons of session 'a' are in another order than when the model was trained; they are served in the "
            "order of the training"
        ]
        assert found["train"]["b"] is given["train"]["b"]
        for tier in ("train", "test"):
            loader = found[tier]["a"]
            np.testing.assert_array_equal(unit_ids_of(found)["a"], [5, 6, 7])
            batches = list(loader)
            assert len(batches) == len(loader) == 2
            np.testing.assert_array_equal(batches[0].responses, [[1, 2, 0], [4, 5, 3]])
            np.testing.assert_array_equal(loader.dataset[1].responses, [4, 5, 3])
            np.testing.assert_array_equal(loader.dataset.neurons.depth, [2, 3, 1])
            assert loader.dataset.neurons.name == "x"
            np.testing.assert_array_equal(image_ids_of(loader), [1, 1, 2, 2])
            assert (loader.batch_size, len(loader.dataset)) == (2, 4)
        np.testing.assert_array_equal(given["train"]["a"].dataset[1].responses, [3, 4, 5])

    def test_what_may_have_an_axis_of_neurons_is_not_served_in_silence(self):
        dataset = in_trained_order(loaders(a=[7, 5, 6]), trained(a=[5, 6, 7]))["train"]["a"].dataset
        message = (
            "secret is not known of a dataset whose neurons are served in the order of a training; ask its attribute "
            "`original`, whose neurons are in the recording's order."
        )
        with pytest.raises(AttributeError, match=re.escape(message)):
            _ = dataset.secret
        np.testing.assert_array_equal(dataset.original.secret, [0, 1, 2])

    @pytest.mark.parametrize(
        ("now", "message"),
        [
            (
                [5, 6, 8],
                "1 of the 3 that it was trained on are missing (unit ids 7) and 1 are new (unit ids 8).",
            ),
            ([6, 5], "1 of the 3 that it was trained on are missing (unit ids 7)."),
            ([5, 6, 7, *range(20, 27)], "7 are new (unit ids 20, 21, 22, 23, 24, ...)."),
        ],
        ids=["exchanged", "fewer", "more"],
    )
    def test_other_neurons_are_refused(self, now, message):
        message = f"session 'a' has other neurons than when the model was trained: {message}{REMEDY}"
        with pytest.raises(RecordingError) as raised:
            in_trained_order(loaders(a=now), trained(a=[5, 6, 7]))
        assert str(raised.value) == message

    def test_other_sessions_are_refused(self):
        with pytest.raises(RecordingError) as raised:
            in_trained_order(loaders(a=[1, 2, 3], c=[1, 2, 3]), trained(a=[1, 2, 3], b=[1, 2, 3]))
        assert str(raised.value) == (
            "the session 'b' is not served any more; the model was not trained on the session 'c'." + REMEDY
        )


class Sums(torch.nn.Module):
    """Predicts something of every neuron; movies lose two frames."""

    def forward(self, x, *, data_key, **_):
        if x.ndim == 4:
            return x.flatten(1)[:, :9]
        return x.mean(dim=(1, 3, 4))[:, 2:, None].expand(-1, -1, 9)


@pytest.mark.parametrize("kind", ["images", "movies"])
def test_our_own_data_sets_serve_everything_in_the_order_of_the_training(kind, tmp_path):
    if kind == "images":
        sizes = {"n_train": 8, "n_validation": 4, "n_test": 3, "n_repeats": 2, "image_shape": (6, 6)}
        path = write_recording(tmp_path / "rec", n_neurons=9, feature_size=3, n_features=2, **sizes)
        given = static_loaders([str(path)], 4)
    else:
        sizes = {"n_train": 2, "n_validation": 1, "n_test": 1, "n_repeats": 2, "n_frames": 30, "n_test_frames": 20}
        path = write_movie_recording(tmp_path / "rec", n_neurons=9, image_shape=(8, 8), **sizes)
        given = movie_loaders([str(path)], 2, chunk_frames=15)
    (key,) = given["test"]
    order = np.random.default_rng(0).permutation(9)
    now = unit_ids_of(given)[key]
    found = in_trained_order(given, {key: {"unit_ids": now[order], "n_neurons": 9}})
    np.testing.assert_array_equal(found["test"][key].dataset.unit_ids, now[order])
    before, after = (predict_sessions(Sums(), each["test"])[key] for each in (given, found))
    np.testing.assert_array_equal(after.responses, before.responses[:, order])
    np.testing.assert_array_equal(after.predictions, before.predictions)
    before, after = (sessions_of(each, None)[key] for each in (given, found))
    np.testing.assert_array_equal(after.mean_responses, before.mean_responses[order])
    assert (after.image_shape, after.n_neurons, after.frames) == (before.image_shape, 9, before.frames)
    if kind == "images":
        np.testing.assert_array_equal(after.coordinates, before.coordinates[order])
        np.testing.assert_array_equal(found["test"][key].dataset.image_ids, given["test"][key].dataset.image_ids)


def test_repeats_behind_means_come_in_the_order_of_the_training():
    by_repeat = np.random.default_rng(0).normal(size=(3, 10, 2))
    dataset = SimpleNamespace(
        responses_by_repeat=torch.as_tensor(by_repeat),
        starts=np.array([0, 5]),
        chunk=5,
        neurons=SimpleNamespace(unit_ids=np.array([4, 2])),
    )
    session = SimpleNamespace(frames=np.array([5, 5]), predictions=np.zeros((10, 2)))
    given = {"train": {"a": SimpleNamespace(dataset=dataset)}}
    found = in_trained_order(given, {"a": {"unit_ids": [2, 4]}})
    responses, _, _ = repeated_clips(session, found["train"]["a"])
    np.testing.assert_array_equal(responses, by_repeat[:, :, ::-1].reshape(30, 2))


@pytest.mark.parametrize(
    "batch",
    [
        (1, np.arange(6).reshape(2, 3), "more"),
        [1, np.arange(6).reshape(2, 3), "more"],
        {"responses": torch.arange(6).reshape(2, 3), "images": 1, "more": "more"},
        namedtuple("Batch", ["inputs", "more", "targets"])(1, "more", np.arange(6).reshape(2, 3)),
    ],
    ids=["tuple", "list", "dict", "named tuple"],
)
def test_responses_of_any_kind_of_batch_are_ordered(batch):
    found = with_neurons(batch, np.array([2, 0, 1]))
    assert type(found) is type(batch)
    values = list(found.values()) if isinstance(found, dict) else list(found)
    ordered = [np.asarray(value) for value in values if np.ndim(value) == 2]
    np.testing.assert_array_equal(ordered[0], [[2, 0, 1], [5, 3, 4]])
    assert [value for value in values if np.ndim(value) != 2] == [1, "more"]

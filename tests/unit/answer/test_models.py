"""Models of a study: read from whatever they are kept in, matched by unit id, refused where they do not match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from december_plugin.answer.models import StudiedModels, read_models
from december_plugin.embeddings.functional import feature_covariance
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import EmbeddingError, SettingsError
from helpers.readouts import CHANNELS, build

N, D = 12, 3
READOUT = EmbeddingSpace()
FUNCTIONAL = EmbeddingSpace(space="functional", normalize="l2")


def matrix(seed: int = 0, *, n: int = N, d: int = D) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def read(models: Any, **settings: Any) -> StudiedModels:
    return read_models(models, **{"space": READOUT, **settings})


def state_dict(vectors: np.ndarray, session: str = "1-1-1") -> dict[str, torch.Tensor]:
    return {f"readout.{session}._features": torch.tensor(vectors.T[None, :, None, :])}


def test_arrays_are_taken_as_they_are() -> None:
    found = read([matrix(0), matrix(1, d=5)])
    assert found.names == ("model 1", "model 2")
    assert found.frame()["n_features"].tolist() == [3, 5]
    np.testing.assert_array_equal(found.vectors[1], matrix(1, d=5))
    assert not found.from_recording
    assert found.ids.unit_ids.tolist() == list(range(N))


def test_every_kind_of_source(tmp_path: Path) -> None:
    vectors = matrix()
    np.save(tmp_path / "one.npy", vectors)
    np.savez(tmp_path / "two.npz", readouts=vectors)
    torch.save(state_dict(vectors, "all"), tmp_path / "three.pth")
    embeddings = ReadoutEmbeddings(vectors, np.full(N, "all"), np.arange(N), None)
    sources = [tmp_path / "one.npy", str(tmp_path / "two.npz"), tmp_path / "three.pth", embeddings]
    found = read([*sources, state_dict(vectors, "all"), pd.DataFrame(vectors)])
    assert found.names == ("one", "two", "three", "model 4", "model 5", "model 6")
    for own in found.vectors:
        np.testing.assert_allclose(own, vectors, rtol=1e-12)


@pytest.mark.parametrize("models", [matrix(), state_dict(matrix()), pd.DataFrame(matrix())])
def test_one_model_may_stand_by_itself(models: Any) -> None:
    assert read(models).names == ("model 1",)


def test_files_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "weights.npy", matrix())
    assert read([tmp_path / "a" / "weights.npy", tmp_path / "b" / "weights.npy"]).names == ("a/weights", "b/weights")


def test_neurons_are_matched_by_session_and_unit_id() -> None:
    vectors, order = matrix(), np.random.default_rng(1).permutation(N)
    ids = np.arange(N) * 7
    first = ReadoutEmbeddings(vectors, np.full(N, "s"), np.arange(N), ids)
    other = ReadoutEmbeddings(vectors[order], np.full(N, "s"), np.arange(N), ids[order])
    found = read({"first": first, "other": other})
    assert found.names == ("first", "other")
    np.testing.assert_array_equal(found.vectors[1], vectors)


def test_rows_of_sessions_in_turns_come_together() -> None:
    sessions = np.array(["b", "a"] * (N // 2))
    found = read([matrix()], sessions=sessions, unit_ids=np.arange(N))
    assert found.ids.data_keys.tolist() == ["b"] * 6 + ["a"] * 6
    np.testing.assert_array_equal(found.vectors[0], matrix()[found.given])
    assert found.from_recording
    assert not read([matrix()], sessions=sessions).from_recording


def test_functional_embeddings_do_not_depend_on_the_basis() -> None:
    rng = np.random.default_rng(3)
    vectors, basis = matrix(), rng.normal(size=(D, D))
    features = rng.normal(size=(200, D))
    first = np.cov(features.T)
    other = np.cov((features @ basis.T).T)
    found = read([vectors, vectors @ np.linalg.inv(basis)], space=FUNCTIONAL, covariances=[first, other])
    grams = [own @ own.T for own in found.vectors]
    np.testing.assert_allclose(grams[0], grams[1], atol=1e-9)
    np.testing.assert_allclose(np.diag(grams[0]), 1)


class SmallModel(nn.Module):
    """A convolution as core, and a Gaussian readout of one session."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Conv2d(1, CHANNELS, 3)
        self.readout = nn.ModuleDict({"1-1-1": build("full Gaussian", 5)})


def test_covariances_are_computed_from_stimuli() -> None:
    torch.manual_seed(0)
    model, images = SmallModel().double().eval(), np.random.default_rng(0).normal(size=(20, 1, 6, 7))
    found = read([model], space=FUNCTIONAL, batches=images)
    given = read([model], space=FUNCTIONAL, covariances=[feature_covariance(model, images)])
    np.testing.assert_array_equal(found.vectors[0], given.vectors[0])


MATCHING = ReadoutEmbeddings(matrix(), np.full(N, "s"), np.arange(N), np.arange(N))


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ([], {}, "give at least one model"),
        ([matrix(), matrix(n=N - 1)], {}, "session 'all' has 12 neurons there and 11 here"),
        ([matrix(), np.full((N, D), np.nan)], {}, "the model 'model 2': the array has NaN or infinite numbers"),
        ([matrix(n=1)], {}, "the models have 1 neuron; types of neurons are a question for many"),
        ([matrix()[0]], {}, "it must be a matrix of numbers"),
        ([matrix()], {"unit_ids": [0, 0, *range(10)]}, "unit 0 of session 'all' occurs more than once"),
        ([matrix()], {"unit_ids": np.arange(N) + 0.5}, "unit_ids must be integers"),
        ([matrix()], {"unit_ids": np.arange(N - 1)}, "has 12 rows and the table of units has 11"),
        ([matrix()], {"unit_ids": {"a": np.arange(N)}, "sessions": ["a"] * N}, "leave sessions out"),
        ([matrix(), matrix()], {"names": ["a", "a"]}, "the name 'a' is given to several models"),
        ([matrix(), matrix()], {"names": ["a"]}, "it must have one name for each of the 2 models"),
        ([MATCHING, matrix()], {}, "cannot be of the same neurons"),
        (["one.npy", "./one.npy"], {}, "one.npy is given twice; a model agrees with itself"),
        ([matrix(), matrix()], {"batches": [{}]}, "batches has 1 entries for 2 models"),
        (["missing.npy"], {}, "the model 'missing': there is no file missing.npy"),
        ([matrix()], {"space": FUNCTIONAL}, "functional embeddings need the feature covariance of every model"),
        ([matrix()], {"space": FUNCTIONAL, "batches": {}}, "from which no features can be computed"),
        (
            [matrix()],
            {"space": FUNCTIONAL, "covariances": [np.eye(4)]},
            "of 4 features and the readout vectors have 3",
        ),
        ([matrix()], {"space": FUNCTIONAL, "covariances": [np.triu(np.ones((3, 3)))]}, "'model 1': .* not symmetric"),
        ([matrix(), matrix()], {"space": FUNCTIONAL, "covariances": [np.eye(3)]}, "1 covariances and 2 models"),
        (
            {"a": matrix()},
            {"space": FUNCTIONAL, "covariances": {"b": np.eye(3)}},
            "none of the model 'a'",
        ),
    ],
)
def test_what_is_refused(models: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, EmbeddingError), match=message):
        read(models, **settings)


def test_rows_of_a_table_whose_sessions_take_turns_keep_what_is_known_of_them(tmp_path: Path) -> None:
    sessions, units = np.array(["a", "b"] * (N // 2)), np.arange(N)[::-1]
    table = pd.DataFrame({"data_key": sessions, "unit_id": units, **{f"w{at}": matrix()[:, at] for at in range(D)}})
    table.to_csv(tmp_path / "models.csv", index=False)
    types = np.array([f"{session}{unit}" for session, unit in zip(sessions, units, strict=True)])
    for models in (table, tmp_path / "models.csv"):
        found = read(models)
        expected = [f"{key}{unit}" for key, unit in zip(found.ids.data_keys, found.ids.unit_ids, strict=True)]
        assert types[found.given].tolist() == expected
        np.testing.assert_allclose(found.vectors[0], matrix()[found.given])


def test_unit_ids_of_models_and_embeddings_are_those_that_are_given() -> None:
    model, units = SmallModel(), np.array([7, 3, 9, 1, 5])
    embeddings = ReadoutEmbeddings(
        model.readout["1-1-1"].features[0, :, 0].T.detach().numpy(), np.full(5, "1-1-1"), np.arange(5), None
    )
    table = pd.DataFrame({"data_key": "1-1-1", "unit_id": units})
    for source in (model, embeddings, model.state_dict()):
        for given in (table, {"1-1-1": units}):
            found = read([source], unit_ids=given)
            assert found.from_recording
            assert found.ids.unit_ids.tolist() == units.tolist()
            assert found.given.tolist() == list(range(5))
    with pytest.raises(EmbeddingError, match="5 neurons of session '1-1-1', of which 4 unit ids are given"):
        read([embeddings], unit_ids={"1-1-1": units[:4]})
    with pytest.raises(EmbeddingError, match="no unit ids for session '1-1-1'"):
        read([model], unit_ids={"other": units})

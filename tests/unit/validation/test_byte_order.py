"""Arrays of another byte order, and of one-byte numbers, give what their values give, wherever they enter."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.clustering import kmeans
from december_plugin.clustering import post_hoc as baselines
from december_plugin.clustering import student_t_mixture as mixture
from december_plugin.clustering.distances import as_vectors
from december_plugin.datasets import macaque_v4_loaders, movie_loaders, static_loaders
from december_plugin.embeddings import neuron_ids as identity
from december_plugin.embeddings.readout_vectors import readout_embeddings
from december_plugin.evaluation import agreement, calibration, confusion, consensus, performance
from december_plugin.evaluation import model_selection as cluster_counts
from december_plugin.evaluation import null as surrogates
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.simulate import write_recording
from december_plugin.simulate.macaque_v4 import write_macaque_v4_recording
from december_plugin.simulate.movies import write_movie_recording
from december_plugin.sklearn import StudentTMixture as Estimator
from december_plugin.validation.byte_order import in_native_order
from helpers.movie_recordings import SMALL as MOVIES

IMAGES = {"n_neurons": 4, "n_train": 8, "n_validation": 2, "n_test": 2, "n_repeats": 2, "image_shape": (12, 12)}
SESSIONS = {"n_sessions": 1, "n_neurons": 3, "n_images": 20, "n_shown": 20, "n_test": 2, "image_shape": (8, 8)}

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 20)
OTHERS = np.roll(LABELS, 3)
NAMES = np.array(["ON", "OFF", "Müller"])[LABELS]
READOUTS = np.round(RNG.normal(size=(60, 4)) + 6 * LABELS[:, None] + 5).clip(0, 255)  # whole numbers, for uint8
RESPONSES = RNG.poisson(3, size=(24, 4)).astype(float)
PREDICTIONS = np.round(RESPONSES + RNG.uniform(0, 3, size=RESPONSES.shape))
SHOWN = np.repeat(np.arange(6), 4)
UNITS = np.arange(60)

Convert = Callable[[Any], np.ndarray]


def other_order(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder(">"))


def one_byte(values: Any) -> np.ndarray:
    array = np.asarray(values)
    fits = array.dtype.kind in "if" and bool(((array == np.floor(array)) & (array >= 0) & (array < 256)).all())
    return array.astype(np.uint8) if fits else array


def fitted(w: Any) -> list[np.ndarray]:
    found = mixture.StudentTMixture(3, 4).fit(w, seed=0, n_init=2, max_iter=20)
    return [found.predict(w).numpy(), found.log_prob(w).detach().numpy()]


CALLS: dict[str, Callable[[Convert], Any]] = {
    "partitions": lambda to: agreement.compare_partitions(to(LABELS), to(OTHERS)),
    "partitions by identity": lambda to: agreement.compare_partitions(
        to(LABELS), to(OTHERS), ids_a={"a": to(UNITS)}, ids_b=(to(np.full(60, "a")), to(UNITS[::-1]))
    ),
    "seeds": lambda to: agreement.agreement_across_seeds({1: to(LABELS), 2: to(OTHERS)}).mean,
    "types": lambda to: agreement.agreement_with_types(to(LABELS), to(NAMES)),
    "pooled": lambda to: agreement.pool_mean_sd(to([1, 2]), to([3, 1]), to([30, 40])),
    "k-means": lambda to: baselines.cluster_readouts(to(READOUTS), method="kmeans", n_clusters=3).labels,
    "gmm": lambda to: baselines.cluster_readouts(to(READOUTS), method="gmm", n_clusters=3).confidences,
    "t mixture": lambda to: fitted(to(READOUTS)),
    "estimator": lambda to: Estimator(3, random_state=0, n_init=2, max_iter=20).fit_predict(to(READOUTS)),
    "vectors": lambda to: as_vectors(to(READOUTS)).double().numpy(),
    "k-means start": lambda to: kmeans.kmeans_start(to(READOUTS), 3, seed=0, n_init=2)[0].numpy(),
    "consensus": lambda to: consensus.consensus_partition([to(LABELS), to(OTHERS)]).clusters,
    "confusion": lambda to: confusion.confusion_matrix(to(LABELS), to(NAMES)).counts,
    "identities": lambda to: identity.match_neurons({"a": to(UNITS)}, {"a": to(UNITS[::-1])}),
    "single trials": lambda to: performance.single_trial_correlation(to(RESPONSES), to(PREDICTIONS)),
    "average": lambda to: performance.correlation_to_average(to(RESPONSES), to(PREDICTIONS), to(SHOWN)),
    "explainable": lambda to: performance.explainable_variance(to(RESPONSES), to(SHOWN)),
    "feve": lambda to: performance.feve(to(RESPONSES), to(PREDICTIONS), to(SHOWN), min_explainable=-1e9),
    "surrogates": lambda to: surrogates.SurrogateReadouts([to(READOUTS), to(READOUTS + 1)], seed=1).draw(0).readouts,
    "silhouette": lambda to: cluster_counts.silhouette(to(READOUTS), to(LABELS)),
    "held out": lambda to: (
        cluster_counts.held_out_log_likelihood(to(READOUTS), method="gmm", n_clusters=2, n_splits=2).values
    ),
    "calibration": lambda to: calibration.calibration(to(LABELS), to(np.full(60, 1)), to(OTHERS)).accuracy,
}


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, (tuple, list)):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, (np.ndarray, float)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        assert found == expected


@pytest.mark.parametrize("to", [other_order, one_byte], ids=lambda to: to.__name__)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_calls_of_the_library(call, to):
    same(call(to), call(np.asarray))


def rewrite(folder: Path, to: Convert) -> Path:
    """Convert every array of a recording in place."""
    for file in folder.rglob("*.npy"):
        array = np.load(file)
        if array.dtype.kind in "iuf" or (array.dtype.kind == "U" and to is other_order):
            np.save(file, to(array))
    for file in folder.rglob("*.pickle"):
        content = pickle.loads(file.read_bytes())
        arrays = {name: to(value) for name, value in content.items() if isinstance(value, np.ndarray)}
        file.write_bytes(pickle.dumps({**content, **arrays}, protocol=5))  # 4 would bring them into native order
    return folder


def images(folder: Path) -> dict:
    return static_loaders([folder], 4, include_behavior=True, include_eye_position=True, areas=["V1"])


FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], dict]]] = {
    "images": (lambda folder: write_recording(folder, behavior=True, **IMAGES), images),
    "movies": (lambda folder: write_movie_recording(folder, **MOVIES), lambda folder: movie_loaders([folder], 4)),
    "session pickles": (
        lambda folder: write_macaque_v4_recording(folder, **SESSIONS),
        lambda folder: macaque_v4_loaders([folder / "sessions"], 4, images_path=folder / "images"),
    ),
}


def served(loaders: dict) -> list[np.ndarray]:
    torch.manual_seed(0)
    found = [
        value.numpy() for tier in loaders.values() for loader in tier.values() for batch in loader for value in batch
    ]
    for loader in loaders["train"].values():
        found.append(loader.dataset.unit_ids)
        found.append(loader.dataset.data_info()["mean_responses"])
    return found


@pytest.mark.parametrize("to", [other_order, one_byte], ids=lambda to: to.__name__)
@pytest.mark.parametrize(("write", "load"), FORMATS.values(), ids=FORMATS.keys())
def test_recordings(tmp_path, write, load, to):
    folder = write(tmp_path / "static1-1-1")
    expected = served(load(folder))
    found = served(load(rewrite(folder, to)))
    assert all(array.dtype.isnative for array in found)
    same(found, expected)


def test_grey_levels_of_one_byte_do_not_wrap_around(tmp_path):
    folder = write_recording(tmp_path / "mouse", **IMAGES)
    for file in (folder / "data/images").iterdir():
        np.save(file, np.load(file).clip(0, 255).astype(np.uint8))
    grey = np.load(folder / "data/images/0.npy").astype(np.float64)
    assert grey.min() < 100 < grey.max()
    dataset = static_loaders([folder], 4, inputs_mean=100, inputs_std=20)["train"]["mouse"].dataset
    np.testing.assert_allclose(dataset[0].images, (grey - 100) / 20, rtol=1e-6)
    for name, value in (("mean", 100), ("std", 20)):
        np.save(folder / f"meta/statistics/images/all/{name}.npy", np.uint8(value))
    dataset = static_loaders([folder], 4)["train"]["mouse"].dataset
    np.testing.assert_allclose(dataset[0].images, (grey - 100) / 20, rtol=1e-6)


def test_a_model_of_positions_of_another_byte_order(tmp_path):
    folder = rewrite(write_recording(tmp_path / "mouse", **IMAGES), other_order)
    loaders = static_loaders([folder], 4)
    model = stacked_core_gaussian_readout(loaders, 0, hidden_channels=4, layers=2, input_kern=5, hidden_kern=3)
    units = {"mouse": other_order(loaders["train"]["mouse"].dataset.unit_ids)}
    assert readout_embeddings(model, unit_ids=units).unit_ids.dtype.isnative


def test_what_is_native_is_not_copied():
    array, text = np.arange(3.0), other_order(["a", "Müller"])
    assert in_native_order(array) is array
    assert in_native_order("text") == "text"
    assert in_native_order(text).tolist() == ["a", "Müller"]
    assert in_native_order(text).dtype.isnative


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 5], [1, 5]),
        (np.array([1.0, 5.0], dtype=">f8"), [1, 5]),
        (np.array([2**63 - 1], dtype=np.uint64), [2**63 - 1]),
        (np.array([2**63], dtype=np.uint64), None),
        ([2.0**53 - 1], [2**53 - 1]),
        ([2.0**53], None),
        (np.array([2.0**24], dtype=np.float32), None),
        ([1.5], None),
        ([np.nan], None),
        ([np.inf], None),
        ([1e300], None),
        (["1"], None),
        ([True], None),
        ([], []),
    ],
)
def test_whole_numbers_are_what_they_were(values, expected):
    found = identity.whole_numbers(values)
    assert (expected is None and found is None) or (found is not None and found.tolist() == expected)

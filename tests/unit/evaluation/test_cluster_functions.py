"""What clusters compute: correlations of their means' responses, against NumPy over stimuli; blocks, against loops."""

import copy
import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from december_plugin.embeddings import feature_covariance
from december_plugin.embeddings.received_features import received_features
from december_plugin.errors import EmbeddingError, MisfitError, SettingsError
from december_plugin.evaluation import cluster_functions
from december_plugin.evaluation.cluster_functions import (
    cluster_blocks,
    cluster_means,
    covariance_confusion,
    readout_biases,
    received_at,
    response_confusion,
    stimulus_confusion,
)
from december_plugin.models import equivariant_core_gaussian_readout
from helpers.image_models import INFO, TURNED

ORIENTATIONS, F, K = 4, 3, 5


@pytest.fixture
def means():
    return np.random.default_rng(0).normal(size=(K, ORIENTATIONS * F))


@pytest.fixture
def features():
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, 3, ORIENTATIONS * F)) @ rng.normal(
        size=(ORIENTATIONS * F, ORIENTATIONS * F)
    ) + rng.normal(size=(3, ORIENTATIONS * F))


def loop_confusion(means, features, n_orientations, output, biases):
    """Correlate responses pair by pair and shift by shift, over places that have their own mean each."""

    def responses(mean, bias):
        values = output(features @ mean + bias)
        return (values - values.mean(axis=0)).ravel()

    found = np.zeros((len(means), len(means)))
    for p, first in enumerate(means):
        for q, second in enumerate(means):
            rolled = [np.roll(second.reshape(n_orientations, -1), k, axis=0).ravel() for k in range(n_orientations)]
            one = responses(first, biases[p])
            found[p, q] = max(np.corrcoef(one, responses(other, biases[q]))[0, 1] for other in rolled)
    return (found + found.T) / 2


@pytest.mark.parametrize("n_orientations", [1, ORIENTATIONS])
def test_responses_are_those_of_a_plain_loop(means, features, n_orientations):
    biases = np.linspace(-1, 1, K)
    rectified = response_confusion(
        means, features, n_orientations=n_orientations, output=lambda x: np.maximum(x, 0), biases=biases
    )
    expected = loop_confusion(means, features, n_orientations, lambda x: np.maximum(x, 0), biases)
    np.testing.assert_allclose(rectified, expected, atol=1e-10)
    in_parts = response_confusion(means, np.split(features, 5), n_orientations=n_orientations)
    np.testing.assert_allclose(in_parts, loop_confusion(means, features, n_orientations, lambda x: x, 0 * biases))


@pytest.mark.parametrize("n_orientations", [1, ORIENTATIONS])
def test_linear_responses_follow_from_the_covariance(means, features, n_orientations):
    sigma = np.mean([np.cov(features[:, place], rowvar=False) for place in range(3)], axis=0)
    found = covariance_confusion(means, sigma, n_orientations=n_orientations)
    np.testing.assert_allclose(found, response_confusion(means, features, n_orientations=n_orientations), atol=1e-10)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1)


def test_turned_clusters_and_redundant_features_are_one(means):
    rolled = np.roll(means[0].reshape(ORIENTATIONS, F), 3, axis=0).ravel()
    assert covariance_confusion([means[0], rolled], np.eye(ORIENTATIONS * F), n_orientations=ORIENTATIONS)[
        0, 1
    ] == pytest.approx(1)
    assert covariance_confusion([means[0], rolled], np.eye(ORIENTATIONS * F))[0, 1] < 0.9
    twice = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # two channels that are the same
    found = covariance_confusion([[1, 0, 0], [0, 1, 0], [0, 0, 1]], twice)
    np.testing.assert_allclose(found, twice, atol=1e-12)


def test_a_cluster_that_does_not_respond_is_correlated_with_none(means):
    found = covariance_confusion([means[0], np.zeros(ORIENTATIONS * F)], np.eye(ORIENTATIONS * F))
    np.testing.assert_allclose(found, [[1, 0], [0, 0]])


def test_means_of_clusters():
    vectors = np.arange(12.0).reshape(6, 2)
    found = cluster_means(vectors, [0, 2, 0, -1, 2, 2])
    np.testing.assert_allclose(found, [(vectors[0] + vectors[2]) / 2, [0, 0], vectors[[1, 4, 5]].mean(axis=0)])


def test_of_a_model_and_images():
    model = equivariant_core_gaussian_readout(None, 1, data_info=INFO, **TURNED)
    images = torch.randn(40, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    positions = [[0.0, 0.0], [0.3, -0.2]]
    parts = list(received_at(model, images, positions=positions))
    assert np.concatenate(parts).shape == (40, 2, 8)
    assert model.training
    model.readout["a"]._mu.data[:] = 0.0
    model.readout["a"]._features.data[:] = 1.0
    sigma = feature_covariance(model, images)  # of readouts in the middle
    w = np.random.default_rng(0).normal(size=(3, 8))
    from_images = response_confusion(w, received_at(model, images), n_orientations=4)
    np.testing.assert_allclose(from_images, covariance_confusion(w, sigma, n_orientations=4), atol=1e-5)
    rectified = response_confusion(w, received_at(model, images), output=lambda x: nn.functional.elu(torch.tensor(x)))
    assert 1e-3 < np.abs(rectified - response_confusion(w, received_at(model, images))).max() < 1


@pytest.fixture(scope="module")
def recording():
    """Return a model of two sessions, whose readouts read everywhere, and loaders of a tier."""
    sessions = {"a": INFO["a"], "b": {**INFO["a"], "output_dimension": 3}}
    model = equivariant_core_gaussian_readout(None, 1, data_info=sessions, **TURNED)
    for readout in model.readout.values():
        readout.bias.data.normal_(generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(0)
    batches = {key: [{"images": torch.randn(n, 1, 9, 9, generator=generator)} for n in (5, 9)] for key in model.readout}
    return model.train(), batches


def loop_confusion_of(model, batches, means, output, biases, n_orientations=4):
    """Correlate responses of means pair by pair and shift by shift, in the place of every neuron."""
    model = copy.deepcopy(model).eval()
    values = []  # of every session, every neuron: (stimuli, means, shifts)
    turned = [np.roll(means.reshape(len(means), n_orientations, -1), k, axis=1) for k in range(n_orientations)]
    turned = np.stack([each.reshape(means.shape) for each in turned], axis=1)
    for key, loader in batches.items():
        with torch.no_grad():
            maps = model.core(torch.cat([batch["images"] for batch in loader]))
            for at in range(len(model.readout[key].bias)):
                place = model.readout[key].mu[:, at : at + 1].expand(len(maps), -1, -1, -1)
                received = nn.functional.grid_sample(maps, place, align_corners=True)[:, :, 0, 0].double().numpy()
                drives = np.einsum("sd,kod->sko", received, turned) + biases[:, None]
                found = output(drives)
                values.append((found - found.mean(axis=0)) / np.sqrt(len(found) - 1))
    stacked = np.concatenate(values)
    result = np.empty((len(means), len(means)))
    for p, q in np.ndindex(result.shape):
        result[p, q] = max(
            np.sum(stacked[:, p, 0] * stacked[:, q, k])
            / np.sqrt(np.sum(stacked[:, p, 0] ** 2) * np.sum(stacked[:, q, k] ** 2))
            for k in range(n_orientations)
        )
    return (result + result.T) / 2


def test_responses_to_a_recording_are_those_of_plain_loops(recording):
    model, batches = recording
    means, biases = np.random.default_rng(2).normal(size=(3, 8)), np.array([-0.5, 0.0, 1.0])
    found = stimulus_confusion(model, batches, means, biases=biases, n_orientations=4)
    assert (found.n_images, model.training, model.core.training) == (28, True, True)
    expected = loop_confusion_of(model, batches, means, lambda x: np.where(x > 0, x, np.exp(x) - 1), biases)
    np.testing.assert_allclose(found.correlations, expected, atol=1e-5)  # the model's output is elu + 1, in float32


def test_of_a_model_with_a_linear_output_they_follow_from_its_covariance(recording):
    model, batches = recording

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.core, self.readout = model.core, model.readout

        def forward(self, images, data_key):
            return 2 * self.readout(self.core(images), data_key=data_key)

    linear, means = Linear(), np.random.default_rng(2).normal(size=(3, 8))
    found = stimulus_confusion(linear, batches, means, biases=[1.0, 2.0, 3.0], n_orientations=4)
    expected = covariance_confusion(means, feature_covariance(linear, batches), n_orientations=4)
    np.testing.assert_allclose(found.correlations, expected, atol=1e-5)
    np.testing.assert_allclose(expected, loop_confusion_of(linear, batches, means, lambda x: x, np.zeros(3)), atol=1e-5)
    in_few_places = functools.partial(stimulus_confusion, linear, batches, means, n_orientations=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_functions, "BLOCK_NUMBERS", 32 * 4 * 3 * 2)  # two neurons and few stimuli at a time
        np.testing.assert_allclose(in_few_places().correlations, found.correlations, atol=1e-5)


def test_a_readout_with_an_output_of_its_own_is_refused(recording):
    model, batches = copy.deepcopy(recording)
    readout = model.readout["b"]
    features = functools.partial(received_features, copy.deepcopy(readout))
    readout.embedding_features = features  # of such readouts it is not checked that responses are linear
    forward = readout.forward
    readout.forward = lambda maps, **more: forward(maps, **more).square()
    with pytest.raises(EmbeddingError, match=r"session 'b': .* does more to its responses than adding a bias"):
        stimulus_confusion(model, batches, np.ones((2, 8)), n_orientations=4)


def test_biases_are_those_of_all_readouts(recording):
    model, _ = recording
    expected = [*model.readout["a"].bias.tolist(), *model.readout["b"].bias.tolist()]
    np.testing.assert_allclose(readout_biases(model), expected)
    model = copy.deepcopy(model)
    model.readout["b"].bias = None
    np.testing.assert_allclose(readout_biases(model), [*expected[:5], 0, 0, 0])


def loop_blocks(confusion, threshold):
    """Merge the two blocks with the highest mean correlation until it is below the threshold."""
    blocks = [[k] for k in range(len(confusion))]
    heights = []
    while len(blocks) > 1:
        pairs = [(i, j) for i in range(len(blocks)) for j in range(i + 1, len(blocks))]
        means = [confusion[np.ix_(blocks[i], blocks[j])].mean() for i, j in pairs]
        heights.append(max(means))
        if heights[-1] < threshold:
            break
        i, j = pairs[int(np.argmax(means))]
        blocks[i] += blocks.pop(j)
    return {tuple(sorted(block)) for block in blocks}, heights


def random_confusion(seed, k=9):
    responses = np.random.default_rng(seed).normal(size=(k, 4))
    return np.corrcoef(responses)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [-0.2, 0.5, 0.9])
def test_blocks_are_those_of_a_plain_loop(seed, threshold):
    confusion = random_confusion(seed)
    found = cluster_blocks(confusion, threshold=threshold)
    expected, heights = loop_blocks(confusion, threshold)
    assert {tuple(np.flatnonzero(found.labels == block)) for block in range(found.n_blocks)} == expected
    np.testing.assert_allclose(found.merges["correlation"].to_numpy()[: len(heights)], heights, atol=1e-12)
    assert (np.diff(found.labels[found.order]) >= 0).all()  # contiguous


def test_merges_and_splits_are_of_one_tree():
    confusion = random_confusion(4)
    found = cluster_blocks(confusion, threshold=0.5)
    merge, split = found.next_merges(1).iloc[0], found.last_splits(1).iloc[0]
    assert merge["correlation"] < 0.5 <= split["correlation"]
    fewer = cluster_blocks(confusion, threshold=merge["correlation"])
    assert fewer.n_blocks == found.n_blocks - 1 == merge["n_blocks"]
    merged = fewer.labels[list(merge["first"] + merge["second"])]
    assert (merged == merged[0]).all()
    more = cluster_blocks(confusion, threshold=split["correlation"] + 1e-6)
    assert more.n_blocks == found.n_blocks + 1
    assert more.labels[split["first"][0]] != more.labels[split["second"][0]]
    assert len(found.next_merges(100)) + len(found.last_splits(100)) == 8
    np.testing.assert_array_equal(found.order, fewer.order)


def test_one_cluster_is_one_block():
    found = cluster_blocks([[1.0]])
    assert (found.n_blocks, len(found.merges)) == (1, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cluster_blocks(np.eye(3), threshold=2), SettingsError, "threshold is 2, but must be a correlation"),
        (lambda: cluster_blocks(np.ones((2, 3))), MisfitError, "has the shape (2, 3); it must be (clusters, clusters)"),
        (lambda: cluster_blocks([[1, 0.5], [0.2, 1]]), MisfitError, "it must be (clusters, clusters), symmetric."),
        (lambda: cluster_means(np.ones((3, 2)), [0, 1]), MisfitError, "vectors have the shape (3, 2) and labels (2,)"),
        (lambda: cluster_means(np.ones((3, 2)), [-1, -1, -1]), MisfitError, "no neuron has a cluster"),
        (
            lambda: covariance_confusion(np.ones((2, 3)), np.eye(3), n_orientations=2),
            MisfitError,
            "n_orientations is 2",
        ),
        (lambda: covariance_confusion([[np.nan]], np.eye(1)), EmbeddingError, "cluster means have the shape (1, 1)"),
        (lambda: covariance_confusion(np.ones((2, 3)), np.eye(2)), EmbeddingError, "is of 2 features and"),
        (
            lambda: response_confusion(np.ones((2, 3)), np.ones((9, 2))),
            MisfitError,
            "features have the shape (9, 1, 2)",
        ),
        (
            lambda: response_confusion(np.ones((2, 3)), np.ones((1, 3))),
            EmbeddingError,
            "at least two stimuli; there are 1",
        ),
        (
            lambda: response_confusion(np.ones((2, 3)), np.ones((9, 3)), biases=[1.0]),
            MisfitError,
            "biases have the shape (1,); there must be one for each of 2 means.",
        ),
        (
            lambda: response_confusion(np.ones((2, 3)), np.full((9, 3), np.inf)),
            EmbeddingError,
            "the responses of cluster means hold NaN or infinite values.",
        ),
    ],
)
def test_input_that_does_not_fit(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()

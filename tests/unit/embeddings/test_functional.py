"""Functional embeddings: invariant to the core's basis, true to the drives, the same bytes for the same seed."""

import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neuralpredictors.layers import readouts
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from december_plugin.embeddings import feature_covariance, functional_embeddings
from december_plugin.embeddings import received_features as received
from december_plugin.embeddings import stimuli as sampled
from december_plugin.embeddings.functional import estimate_covariance
from december_plugin.embeddings.probe_fingerprints import fingerprints
from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.embeddings.received_features import received_features
from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.models.layers.readouts import FrameGaussian2d, FullGaussian2d
from helpers.readouts import CHANNELS, CORE_SHAPE, FACTORIES, build, prepared

IMAGE_SHAPE = (1, 6, 7)
N = 5
KINDS = {
    **{name: lambda name=name: build(name, N) for name in FACTORIES},
    "ours": lambda: prepared(
        FullGaussian2d(CORE_SHAPE, N, True, regularizer_type="adaptive_log_norm", gamma_sigma=0.1)
    ),
    "attention of two layers": lambda: prepared(
        readouts.AttentionReadout(CORE_SHAPE, N, True, attention_layers=2, attention_kernel=3)
    ),
}
Batch = namedtuple("Batch", ["images", "responses"])


class Model(nn.Module):
    """A convolution as core, whose channels can be mixed, and readouts that may be shifted."""

    def __init__(self, shifter=None, **sessions):
        super().__init__()
        self.core = nn.Sequential(nn.Conv2d(1, CHANNELS, 3), nn.Tanh(), nn.Identity())
        self.readout = nn.ModuleDict(sessions)
        self.shifter = shifter

    def forward(self, images, data_key, pupil_center=None):
        given = {} if self.shifter is None else {"shift": self.shifter(pupil_center)}
        return nn.functional.elu(self.readout[data_key](self.core(images), **given)) + 1

    def mix(self, mixing):
        """Multiply the core's output with a matrix (any, CHANNELS)."""
        self.core[2] = nn.Conv2d(*mixing.shape[::-1], 1, bias=False).to(mixing)
        self.core[2].weight.data = mixing[..., None, None]


def stimuli(n=30, seed=0):
    return torch.randn(n, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(seed)).double()


def loaders(model, n=30, size=8):
    return {
        data_key: [Batch(images, torch.zeros(len(images), N)) for images in stimuli(n, seed).split(size)]
        for seed, data_key in enumerate(model.readout)
    }


def model_of_kind(name):
    torch.manual_seed(0)
    return Model(a=KINDS[name]()).double().eval()


def counter_mix(readout, mixing):
    """Give a readout the weights with which it predicts the same from the mixed channels."""
    inverse = torch.linalg.inv(mixing)
    features = getattr(readout, "_features", readout.features).data
    if features.ndim == 4:
        scales = features.view(-1, CHANNELS, features.shape[-1])  # a vector for each scale
        features.copy_(torch.einsum("dc,sdn->scn", inverse, scales).reshape(features.shape))
    elif isinstance(readout, readouts.DeterministicGaussian2d):
        features.copy_(inverse.T @ features)
    else:
        features.copy_(features @ inverse)
    if hasattr(readout, "attention"):
        conv = readout.attention[0]
        conv.weight.data = torch.einsum("odhw,dc->ochw", conv.weight.data, inverse)


@pytest.mark.parametrize("name", KINDS)
def test_mixing_the_channels_changes_nothing(name):
    model = model_of_kind(name)
    batches = loaders(model)
    with torch.no_grad():
        rates = model(stimuli(), "a")
    before = functional_embeddings(model, batches, normalize="none").vectors
    mixing = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64)
    model.mix(mixing)
    counter_mix(model.readout["a"], mixing)
    with torch.no_grad():
        torch.testing.assert_close(model(stimuli(), "a"), rates)  # the same model
    after = functional_embeddings(model, batches, normalize="none").vectors
    assert before.dtype == after.dtype == np.float64
    np.testing.assert_allclose(
        after @ after.T, before @ before.T, rtol=1e-6, atol=1e-6 * np.abs(before @ before.T).max()
    )


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("shared")])
def test_are_the_covariance_of_what_responses_are_made_of(name):
    # A response is linear in the neuron's own weights; its gradient is what they are multiplied with.
    model = model_of_kind(name).requires_grad_(False)
    readout = model.readout["a"]
    features = getattr(readout, "_features", readout.features).requires_grad_()
    expected = np.zeros((readout_vectors(readout).shape[1],) * 2)
    for neuron in range(N):
        received = []
        for image in stimuli(12):
            response = readout(model.core(image[None]))[0, neuron]
            gradient = torch.autograd.grad(response, features)[0].reshape(features.shape)
            by_channel = gradient[0, :, 0] if features.ndim == 4 else gradient
            of_neuron = by_channel.T if len(by_channel) != N else by_channel
            received.append(of_neuron[neuron].numpy())
        expected += np.cov(np.array(received), rowvar=False) / N
    np.testing.assert_allclose(feature_covariance(model, loaders(model, 12, 5)), expected, rtol=1e-6, atol=1e-12)


def test_distances_are_those_of_the_drives_on_other_stimuli():
    torch.manual_seed(0)
    model = Model(a=build("full Gaussian", N)).double()
    model.readout["a"]._mu.data[:] = torch.tensor([0.2, -0.3])  # one position
    embedded = functional_embeddings(model, loaders(model, 3000, 500), n_images=None, normalize="none").vectors
    with torch.no_grad():
        drives = model.readout["a"](model.core(stimuli(3000, seed=7))).numpy()
    for i, j in ((0, 1), (0, 4), (2, 3)):
        spread = np.std(drives[:, i] - drives[:, j])
        assert np.linalg.norm(embedded[i] - embedded[j]) == pytest.approx(spread, rel=0.05)
    directions = functional_embeddings(model, loaders(model, 3000, 500), n_images=None).vectors
    np.testing.assert_allclose(directions @ directions.T, np.corrcoef(drives.T), atol=0.05)


def with_channels(model, matrix):
    """Return the model with its core's output multiplied by a matrix, and readouts without weights for what is new."""
    grown = Model(a=readouts.FullGaussian2d((len(matrix), *CORE_SHAPE[1:]), N, True)).double()
    grown.core = model.core
    grown.mix(matrix)
    grown.readout["a"]._mu.data = model.readout["a"]._mu.data
    return grown


def test_duplicated_dead_and_scaled_channels_change_nothing():
    model = model_of_kind("full Gaussian")
    expected = functional_embeddings(model, loaders(model)).vectors
    w = model.readout["a"].features.data
    identity = torch.eye(CHANNELS, dtype=torch.float64)
    dead = torch.zeros(1, CHANNELS, dtype=torch.float64)
    noise = torch.randn(1, 1, 1, N, dtype=torch.float64)
    for matrix, weights in (
        (torch.cat([identity, identity[:1]]), torch.cat([w[:, :1] - noise, w[:, 1:], noise], dim=1)),  # twice the same
        (torch.cat([identity, dead]), torch.cat([w, 100 * noise], dim=1)),
        (torch.diag(torch.tensor([1000.0] + [1.0] * 5).double()), torch.cat([w[:, :1] / 1000, w[:, 1:]], dim=1)),
    ):
        changed = with_channels(model_of_kind("full Gaussian"), matrix)
        changed.readout["a"]._features.data = weights
        found = functional_embeddings(changed, loaders(model)).vectors
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)


def test_a_large_mean_costs_no_digits():
    model = model_of_kind("full Gaussian")
    expected = feature_covariance(model, loaders(model))
    shifted = model_of_kind("full Gaussian")
    shifted.core[2] = nn.Conv2d(CHANNELS, CHANNELS, 1).double()
    shifted.core[2].weight.data = torch.eye(CHANNELS, dtype=torch.float64)[..., None, None]
    shifted.core[2].bias.data[:] = 1e6
    shifted.readout["a"]._mu.data.clamp_(-0.8, 0.8)
    model.readout["a"]._mu.data.clamp_(-0.8, 0.8)
    expected = feature_covariance(model, loaders(model))
    np.testing.assert_allclose(feature_covariance(shifted, loaders(model)), expected, rtol=1e-6, atol=1e-9)


class TestSamples:
    def loaders(self, model):
        return {
            "train": {
                data_key: DataLoader(
                    TensorDataset(stimuli(50, seed), torch.zeros(50, N)), batch_size=9, shuffle=True, drop_last=True
                )
                for seed, data_key in enumerate(model.readout)
            }
        }

    def model(self):
        torch.manual_seed(0)
        return Model(a=build("full Gaussian", 40), b=build("full Gaussian", 30))  # float32

    def test_the_same_seed_gives_the_same_bytes_and_leaves_random_states_alone(self):
        model = self.model()
        batches = self.loaders(model)
        state, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
        first = estimate_covariance(model, batches, n_images=30, max_neurons=25, seed=3)
        torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
        np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)
        torch.randn(7)
        again = estimate_covariance(model, batches, n_images=30, max_neurons=25, seed=3)
        assert first.covariance.tobytes() == again.covariance.tobytes()
        assert (first.n_images, first.n_neurons) == (30, 25)
        other = estimate_covariance(model, batches, n_images=30, max_neurons=25, seed=4)
        assert not np.array_equal(other.covariance, first.covariance)

    def test_everything_is_taken_where_there_is_less(self):
        estimate = estimate_covariance(self.model(), self.loaders(self.model()))
        assert (estimate.n_neurons, estimate.n_images) == (70, 2 * 50 - 2 * 5)  # of which drop_last leaves 45 each

    def test_mode_and_gradients_are_as_before(self):
        model = self.model()
        model.core.train()
        model.readout["a"].eval()
        modes = [module.training for module in model.modules()]
        functional_embeddings(model, self.loaders(model), n_images=20)
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_identities_are_those_of_the_loaders(self):
        model = self.model()
        batches = self.loaders(model)
        for n, loader in zip((40, 30), batches["train"].values(), strict=True):
            loader.dataset.neurons = SimpleNamespace(unit_ids=np.arange(n) + 100)
        embeddings = functional_embeddings(model, batches)
        np.testing.assert_array_equal(embeddings.unit_ids, [*range(100, 140), *range(100, 130)])
        np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1)

    def test_loaders_of_a_stream_give_their_first_stimuli(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter([{"images": image, "responses": torch.zeros(N)} for image in stimuli(50)])

        model, streamed = self.model(), {key: DataLoader(Stream(), batch_size=9) for key in "ab"}
        expected = feature_covariance(model, {key: [{"images": stimuli(50)[:10]}] for key in "ab"}, n_images=None)
        np.testing.assert_allclose(feature_covariance(model, streamed, n_images=20), expected, rtol=1e-5, atol=1e-9)

    def test_arrays_are_shown_to_every_session(self):
        model = self.model()
        images = stimuli(40)
        expected = feature_covariance(model, {key: [{"images": images}] for key in "ab"}, n_images=None)
        np.testing.assert_allclose(feature_covariance(model, images.float().numpy()), expected, rtol=1e-5, atol=1e-9)


def test_positions_are_shifted_as_in_the_forward_pass():
    torch.manual_seed(0)
    model = Model(shifter=nn.Linear(2, 2), a=build("full Gaussian", N)).double()
    images, pupils = stimuli(20), torch.randn(20, 2).double()
    batches = {"a": [{"images": images, "responses": torch.zeros(20, N), "pupil_center": pupils}]}
    features = received_features(model.readout["a"], model.core(images), shift=model.shifter(pupils)).detach().numpy()
    expected = np.mean([np.cov(features[:, i].T) for i in range(N)], axis=0)
    np.testing.assert_allclose(feature_covariance(model, batches), expected, rtol=1e-9, atol=1e-12)
    drives = np.einsum("snd,nd->sn", features, readout_vectors(model.readout["a"]).detach().numpy())
    rates = nn.functional.elu(torch.as_tensor(drives) + model.readout["a"].bias) + 1
    torch.testing.assert_close(model(images, "a", pupils), rates)


def test_frames_of_movies_are_stimuli():
    torch.manual_seed(0)
    readout = prepared(FrameGaussian2d(CORE_SHAPE, N, True, regularizer_type="l1"))
    model = Model(a=readout).double()
    model.core = nn.Conv3d(1, CHANNELS, (2, 3, 3)).double()
    clips = torch.randn(6, 1, 5, 6, 7).double()
    maps = model.core(clips).transpose(1, 2).flatten(0, 1)  # (frames, channels, height, width)
    assert len(maps) == 6 * 4
    still = prepared(FullGaussian2d(CORE_SHAPE, N, True, regularizer_type="l1")).double()
    still.load_state_dict(readout.state_dict())
    features = received_features(still, maps).detach().numpy()
    estimate = estimate_covariance(model, {"a": [(clips, torch.zeros(6, 4, N))]})
    assert estimate.n_images == 6 * 4
    np.testing.assert_allclose(
        estimate.covariance, np.mean([np.cov(features[:, i].T) for i in range(N)], axis=0), rtol=1e-9, atol=1e-12
    )


def test_of_a_clone_are_those_of_its_source():
    torch.manual_seed(0)
    source = build("full Gaussian", N)
    clone = readouts.ClonedReadout(source)
    clone.alpha.data = torch.rand(N)
    model = Model(a=source, b=clone).double()
    sigma = feature_covariance(model, stimuli())
    np.testing.assert_allclose(sigma, feature_covariance(Model.double(model), stimuli(), max_neurons=None))
    alone = Model(a=source).double()
    alone.core = model.core
    np.testing.assert_allclose(sigma, feature_covariance(alone, stimuli()), rtol=1e-9)


class Foreign(nn.Module):
    """A readout of another package: the mean over the map, then a nonlinearity."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def embedding_vectors(self):
        return self.vectors

    def forward(self, core_output):
        return (core_output.mean(dim=(2, 3)) @ self.vectors.T).exp()


class ForeignWithFeatures(Foreign):
    def embedding_features(self, core_output):
        return core_output.mean(dim=(2, 3))[:, None].expand(-1, len(self.vectors), -1)


class TestOtherPackages:
    def test_say_what_they_receive(self):
        torch.manual_seed(0)
        model = Model(a=ForeignWithFeatures(torch.randn(N, CHANNELS))).double()
        means = model.core(stimuli()).mean(dim=(2, 3)).detach().numpy()
        np.testing.assert_allclose(feature_covariance(model, loaders(model)), np.cov(means.T), rtol=1e-9)

    @pytest.mark.parametrize(
        ("readout", "message"),
        [
            (
                Foreign(torch.randn(N, CHANNELS)),
                r"^session 'a': what Foreign receives from the core cannot be found: where its neurons read is not "
                r"known\. "
                r"A readout class can define `embedding_features\(core_output\)`, which returns",
            ),
            (
                type("Short", (ForeignWithFeatures,), {"embedding_features": lambda self, x: x.mean(dim=(2, 3))})(
                    torch.randn(N, CHANNELS)
                ),
                r"^session 'a': Short.embedding_features\(core_output\) returned \(2, 6\); it must return a tensor "
                r"\(samples, ",
            ),
            (
                ForeignWithFeatures(torch.randn(N, CHANNELS + 1)),
                r"session 'a': ForeignWithFeatures receives \(samples, neurons, features\) \(2, 5, 6\) from the core, "
                r"but its readout vectors are \(5, 7\)",
            ),
        ],
    )
    def test_that_do_not_are_refused(self, readout, message):
        model = Model(a=readout).double()
        with pytest.raises(EmbeddingError, match=message):
            feature_covariance(model, loaders(model))

    def test_cores_that_return_no_maps(self):
        torch.manual_seed(0)

        class Flat(Foreign):
            def forward(self, core_output):
                return core_output @ self.vectors.T

        class FlatWithFeatures(Flat):
            def embedding_features(self, core_output):
                return core_output[:, None].expand(-1, len(self.vectors), -1)

        vectors = torch.randn(N, 4)
        pooled = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(IMAGE_SHAPE), 4))
        model = Model(a=Flat(vectors)).double()
        model.core = pooled.double()
        message = (
            r"what Flat receives from the core cannot be found: the core's output has the shape \(\d+, 4\); it must be "
            r"\(batch, channels, height, width\), or \(batch, channels, frames, height, width\) of movies\. "
        )
        with pytest.raises(EmbeddingError, match=f"^session 'a': {message}A readout class can define"):
            feature_covariance(model, loaders(model))
        with pytest.raises(EmbeddingError, match=f"^{message}Fingerprints need maps"):
            fingerprints(model, stimuli(), positions=[[0, 0]])
        known = Model(a=FlatWithFeatures(vectors)).double()
        known.core = pooled
        expected = np.cov(pooled(stimuli()).T.detach().numpy())
        np.testing.assert_allclose(feature_covariance(known, loaders(known)), expected, rtol=1e-9)

    def test_a_subclass_with_another_forward_pass_is_noticed(self):
        class Elsewhere(readouts.FullGaussian2d):
            def forward(self, x, **settings):
                return super().forward(x.flip(-1), **settings)

        torch.manual_seed(0)
        model = Model(a=prepared(Elsewhere(CORE_SHAPE, N, True))).double()
        with pytest.raises(EmbeddingError, match="session 'a': the responses of Elsewhere are not the products of"):
            feature_covariance(model, loaders(model))

    @pytest.mark.parametrize("as_array", [True, False])
    def test_and_of_large_stimuli_too(self, monkeypatch, as_array):
        class Elsewhere(readouts.FullGaussian2d):
            def forward(self, x, **settings):
                return super().forward(x.flip(-1), **settings)

        for module in (received, sampled):
            monkeypatch.setattr(module, "VALUES_AT_ONCE", 1)
        torch.manual_seed(0)
        model = Model(a=prepared(Elsewhere(CORE_SHAPE, N, True))).double()
        with pytest.raises(EmbeddingError, match="session 'a': the responses of Elsewhere are not the products of"):
            feature_covariance(model, stimuli() if as_array else loaders(model))


class TestBadInput:
    def test_no_stimuli(self):
        with pytest.raises(EmbeddingError, match="there are no stimuli to show to the model"):
            feature_covariance(model_of_kind("full Gaussian"), stimuli()[:0])

    def test_loaders(self):
        model = model_of_kind("full Gaussian")
        with pytest.raises(
            EmbeddingError, match="there is no loader for session 'a' of the model; there are some for b"
        ):
            feature_covariance(model, {"b": []})
        with pytest.raises(EmbeddingError, match="the loaders have the tiers test; 'train' is needed"):
            feature_covariance(model, {"test": {"a": []}})
        with pytest.raises(EmbeddingError, match="session 'a' has fewer than two stimuli in this tier"):
            feature_covariance(model, loaders(model, 1))
        with pytest.raises(EmbeddingError, match="not from list"):
            feature_covariance(model, [stimuli()])

    def test_stimuli_that_the_core_cannot_take(self):
        model = model_of_kind("full Gaussian")
        with pytest.raises(EmbeddingError, match=r"the core of Model cannot take stimuli of shape \(3, 6, 7\)"):
            feature_covariance(model, torch.zeros(4, 3, 6, 7))

    def test_features_that_are_not_finite(self):
        model = model_of_kind("full Gaussian")
        with pytest.raises(EmbeddingError, match="holds NaN or infinite values; check the model and the stimuli"):
            feature_covariance(model, torch.full((4, *IMAGE_SHAPE), torch.nan))

    def test_settings(self):
        model = model_of_kind("full Gaussian")
        with pytest.raises(SettingsError, match="n_images is 1; it must be at least 2"):
            feature_covariance(model, loaders(model), n_images=1)
        with pytest.raises(SettingsError, match="normalize is 'l3', which is unknown"):
            functional_embeddings(model, loaders(model), normalize="l3")

    def test_a_model_that_does_not_call_its_readout(self):
        class Around(Model):
            def forward(self, images, data_key):
                return self.readout[data_key].forward(self.core(images))

        model = Around(a=build("full Gaussian", N)).double()
        with pytest.raises(EmbeddingError, match="Around does not call its readout of session 'a' in the forward pass"):
            feature_covariance(model, loaders(model))

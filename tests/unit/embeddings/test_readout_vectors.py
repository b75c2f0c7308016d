"""Readout vectors and identities, out of neuralpredictors' readouts, other packages' and state dicts."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neuralpredictors.layers import readouts
from torch import nn

from december_plugin.embeddings.readout_vectors import (
    readout_embeddings,
    readout_vectors,
    stack_readout_vectors,
    unit_ids_of,
)
from december_plugin.errors import EmbeddingError
from helpers.readouts import CHANNELS, CORE_SHAPE, FACTORIES, build, model_of


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class TestReadoutVectors:
    @pytest.mark.parametrize("n", [CHANNELS, 4, 1])
    @pytest.mark.parametrize("name", [name for name in FACTORIES if name not in ("pooling", "pyramid")])
    @torch.no_grad()
    def test_are_the_weights_of_the_channels(self, name, n):
        # A core output that is constant in space makes every spatial average 1 (times the mask's sum).
        readout = build(name, n)
        vectors = readout_vectors(readout)
        assert vectors.shape == (n, CHANNELS)
        for parameter in (p for p in readout.parameters() if p.shape == (n,)):
            parameter.data.zero_()  # bias, or the deterministic Gaussian's widths
        area = readout.normalized_spatial.sum(dim=(1, 2)) if hasattr(readout, "spatial") else torch.ones(n)
        if name == "deterministic Gaussian":
            area = readout(torch.ones(1, *CORE_SHAPE))[0] / readout.features.sum(dim=0)
        inside = torch.zeros_like(vectors)
        for channel in range(CHANNELS):
            core_output = torch.zeros(1, *CORE_SHAPE)
            core_output[:, channel] = 1
            inside[:, channel] = readout(core_output)[0] / area
        torch.testing.assert_close(inside, vectors, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["pooling", "pyramid"])
    def test_readouts_at_several_scales_have_weights_per_scale(self, name):
        assert readout_vectors(build(name, 4)).shape == (4, 2 * CHANNELS)

    @pytest.mark.parametrize("name", list(FACTORIES))
    def test_are_on_the_graph(self, name):
        readout = build(name, 4)
        readout_vectors(readout).sum().backward()
        features = getattr(readout, "_features", None) if hasattr(readout, "_features") else readout.features
        assert features.grad.abs().sum() > 0

    @pytest.mark.parametrize("name", list(FACTORIES))
    @pytest.mark.parametrize("n", [CHANNELS, 4, 1])
    def test_are_the_same_from_the_state_dict(self, name, n):
        model = model_of(one=build(name, n), two=build(name, 3))
        from_model, from_state = readout_embeddings(model), readout_embeddings(model.state_dict())
        np.testing.assert_array_equal(from_state.vectors, from_model.vectors)
        np.testing.assert_array_equal(from_state.data_keys, ["one"] * n + ["two"] * 3)
        np.testing.assert_array_equal(from_state.vectors[:n], readout_vectors(model.readout["one"]).detach())

    def test_of_a_clone_are_scaled(self):
        source = build("full Gaussian", 3)
        clone = readouts.ClonedReadout(source)
        clone.alpha.data = torch.tensor([1.0, -2.0, 0.5])
        expected = readout_vectors(source) * torch.tensor([[1.0], [-2.0], [0.5]])
        torch.testing.assert_close(readout_vectors(clone), expected)
        state_dict = model_of(original=source, clone=clone).state_dict()
        np.testing.assert_array_equal(readout_embeddings(state_dict).vectors[3:], expected.detach())

    def test_of_a_clone_with_gains_per_channel(self):
        clone = readouts.ClonedReadout(build("attention", 3))
        message = (
            "ClonedReadout is a clone of a readout of 3 neurons, but has gains of shape (6,); it must have one per"
        )
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            readout_vectors(clone)

    def test_of_another_package(self):
        class Readout(nn.Module):
            features = "private"

            def embedding_vectors(self):
                return torch.eye(3)

        torch.testing.assert_close(stack_readout_vectors(model_of(a=Readout())), torch.eye(3))

    def test_of_another_package_with_a_wrong_shape(self):
        class Readout(nn.Module):
            def embedding_vectors(self):
                return torch.zeros(1, 3, 1, 2)

        message = "Readout.embedding_vectors() returned (1, 3, 1, 2); it must return a tensor (neurons, features)."
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            readout_vectors(Readout())

    @pytest.mark.parametrize(("shape", "n"), [((3, 5), 3), ((5, 3), 3)])
    def test_of_an_unknown_class_by_the_number_of_neurons(self, shape, n):
        readout = nn.Module()
        readout.features = nn.Parameter(torch.randn(shape))
        readout.bias = nn.Parameter(torch.zeros(n))
        expected = readout.features if shape[0] == n else readout.features.T
        torch.testing.assert_close(readout_vectors(readout), expected)
        np.testing.assert_array_equal(readout_embeddings(model_of(a=readout).state_dict()).vectors, expected.detach())

    @pytest.mark.parametrize("bias", [True, False])
    def test_of_an_unknown_class_are_ambiguous(self, bias):
        readout = nn.Module()
        readout.features = nn.Parameter(torch.zeros(3, 3 if bias else 4))
        readout.register_parameter("bias", nn.Parameter(torch.zeros(3)) if bias else None)
        message = (
            f"Module has features of shape {tuple(readout.features.shape)}, and it is not clear which axis is the "
            "neurons'. A readout class can define `embedding_vectors()`, which returns its readout vectors (neurons, "
            "features)."
        )
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            readout_vectors(readout)
        with pytest.raises(EmbeddingError, match=re.escape(message.replace("Module", "session 'a'"))):
            readout_embeddings(model_of(a=readout).state_dict())

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (
                lambda: readouts.UltraSparse(CORE_SHAPE, 4, True, 0.1, 0.1, num_filters=3),
                "has features of shape (1, 1, 4, 3); known are (1, D, 1, n), (n, D) and (D, n) for n neurons.",
            ),
            (
                lambda: readouts.UltraSparse(CORE_SHAPE, 1, True, 0.1, 0.1, num_filters=3),
                "has features of shape (1, 1, 1, 3), which are those of 3 neurons, but it has 1 neurons.",
            ),
            (
                lambda: readouts.UltraSparse(CORE_SHAPE, 1, True, 0.1, 0.1, shared_mean=True),
                "has features of shape (1, 1, 1, 1), which are not weights of the core's channels: they cannot be",
            ),
            (
                lambda: readouts.Gaussian3d(CORE_SHAPE, 4, True, 0.1, 0.1),
                "has features of shape (1, 1, 1, 4), which are not weights of the core's channels: they cannot be",
            ),
        ],
        ids=["ultra-sparse", "ultra-sparse, one neuron", "ultra-sparse, one filter", "Gaussian3d"],
    )
    @pytest.mark.filterwarnings("ignore:sigma is sampled")
    def test_features_that_are_no_weights_of_channels(self, factory, message):
        model = model_of(a=factory())
        for source in (model, model.state_dict()):
            with pytest.raises(EmbeddingError, match=re.escape(message)):
                readout_embeddings(source)

    def test_no_features(self):
        with pytest.raises(EmbeddingError, match="Linear has no features: its readout vectors cannot be found"):
            readout_vectors(nn.Linear(2, 2))


class TestReadoutEmbeddings:
    def test_sessions_keep_the_order_of_the_readout(self):
        model = model_of(b=build("full Gaussian", 3), a=build("attention", 2))
        embeddings = readout_embeddings(model, unit_ids={"a": [7, 5], "b": [1, 2, 3], "c": [9]})
        assert embeddings.vectors.shape == (5, CHANNELS)
        assert embeddings.vectors.dtype == np.float32
        np.testing.assert_array_equal(embeddings.data_keys, ["b", "b", "b", "a", "a"])
        np.testing.assert_array_equal(embeddings.unit_positions, [0, 1, 2, 0, 1])
        np.testing.assert_array_equal(embeddings.unit_ids, [1, 2, 3, 7, 5])
        assert embeddings.sessions == {"b": slice(0, 3), "a": slice(3, 5)}
        assert len(embeddings) == len(embeddings.neuron_ids) == 5
        np.testing.assert_array_equal(embeddings.vectors, stack_readout_vectors(model).detach())

    def test_are_copies(self):
        model = model_of(a=build("attention", 2))
        embeddings = readout_embeddings(model)
        before = embeddings.vectors.copy()
        model.readout["a"].features.data.add_(1)
        np.testing.assert_array_equal(embeddings.vectors, before)
        assert embeddings.unit_ids is None

    def test_keep_float64(self):
        assert readout_embeddings(model_of(a=build("attention", 2)).double()).vectors.dtype == np.float64

    def test_half_precision_becomes_float32(self):
        assert readout_embeddings(model_of(a=build("attention", 2)).bfloat16()).vectors.dtype == np.float32

    def test_features_shared_between_sessions(self):
        match_ids = {"a": np.array([0, 1, 2]), "b": np.array([2, 1, 0])}
        readout = readouts.MultiReadoutSharedParametersBase(
            in_shape_dict=dict.fromkeys(match_ids, CORE_SHAPE),
            n_neurons_dict=dict.fromkeys(match_ids, 3),
            base_readout=readouts.FullGaussian2d,
            share_features=True,
            shared_match_ids=match_ids,
            bias=True,
        )
        readout["a"]._features.data.normal_()
        model = nn.Module()
        model.readout = readout
        for source in (model, model.state_dict()):
            vectors = readout_embeddings(source).vectors
            np.testing.assert_array_equal(vectors[:3], vectors[[5, 4, 3]])

    def test_a_prefix_in_the_state_dict(self):
        model = model_of(a=build("full Gaussian", 2))
        state_dict = nn.DataParallel(model).state_dict()
        assert next(iter(state_dict)).startswith("module.readout.a.")
        np.testing.assert_array_equal(readout_embeddings(state_dict).vectors, readout_embeddings(model).vectors)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (3, "readout vectors are read from a model or its state dict, not from int."),
            (
                {"core.weight": torch.zeros(1)},
                "the state dict has no entries readout.<data key>.<name>; it has core.weight. Pass the state dict",
            ),
            (
                {"core.a": 0, "core.b": 0, "core.c": 0, "core.d": 0},
                "the state dict has no entries readout.<data key>.<name>; it has core.a, core.b, core.c ...",
            ),
            (
                {"m1.readout.a.features": torch.zeros(2, 3), "m2.readout.a.features": torch.zeros(2, 3)},
                "the state dict has several readouts (m1.readout, m2.readout); pass the entries of one of them.",
            ),
            (
                {"readout.a.weight": torch.zeros(2, 3)},
                "session 'a' has no features in the state dict, only weight; its readout vectors cannot be found",
            ),
            (nn.Linear(2, 2), "Linear.readout is NoneType; it must be an nn.ModuleDict of data key to the session's"),
            (model_of(), "Module.readout has no sessions."),
            (model_of(a=nn.Linear(2, 2)), "session 'a': Linear has no features: its readout vectors cannot be found."),
        ],
        ids=["type", "no readout", "long list", "two readouts", "no features", "model", "no sessions", "session"],
    )
    def test_errors(self, source, message):
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            readout_embeddings(source)

    def test_sessions_on_different_cores(self):
        other = readouts.AttentionReadout((4, 4, 5), 2, True)
        message = "the sessions' readout vectors have different numbers of features ('a': 6, 'b': 4)"
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            stack_readout_vectors(model_of(a=build("attention", 2), b=other))

    @pytest.mark.parametrize(
        ("unit_ids", "message"),
        [
            (
                {"b": [1]},
                "there are no unit ids for session 'a', but there are for others; give them for every session",
            ),
            ({"a": [1, 2, 3]}, "session 'a' has 2 readout vectors, but 3 unit ids are given; they must come from the"),
            ({"a": [4, 4]}, "session 'a' has unit id 4 more than once; neurons are identified by session and unit id"),
            ({"a": ["x", "y"]}, "the unit ids of session 'a' are <U1 of shape (2,); they must be integers (n,)"),
            ({"a": [1.5, 2.0]}, "the unit ids of session 'a' are float64 of shape (2,); they must be integers (n,)"),
        ],
        ids=["missing", "length", "duplicates", "text", "fractions"],
    )
    def test_wrong_unit_ids(self, unit_ids, message):
        with pytest.raises(EmbeddingError, match=re.escape(message)):
            readout_embeddings(model_of(a=build("attention", 2)), unit_ids=unit_ids)


class TestUnitIdsOf:
    @staticmethod
    def loader(unit_ids=None):
        neurons = SimpleNamespace() if unit_ids is None else SimpleNamespace(unit_ids=np.array(unit_ids))
        return SimpleNamespace(dataset=SimpleNamespace(neurons=neurons))

    def test_of_nnfabrik_dataloaders(self):
        sessions = {"a": self.loader([3, 1]), "b": self.loader(), "c": SimpleNamespace(dataset=[])}
        found = unit_ids_of({"train": sessions, "validation": sessions})
        assert list(found) == ["a"]
        np.testing.assert_array_equal(found["a"], [3, 1])
        assert found["a"].dtype == np.int64

    def test_of_one_tier(self):
        np.testing.assert_array_equal(unit_ids_of({"a": self.loader([2.0, 5.0])})["a"], [2, 5])

    def test_duplicates(self):
        with pytest.raises(EmbeddingError, match="session 'a' has unit id 7 more than once"):
            unit_ids_of({"train": {"a": self.loader([7, 1, 7])}})

    def test_tiers_that_differ(self):
        loaders = {"train": {"a": self.loader([1, 2])}, "test": {"a": self.loader([2, 1])}}
        with pytest.raises(EmbeddingError, match="session 'a' has different unit ids in different tiers; all tiers"):
            unit_ids_of(loaders)

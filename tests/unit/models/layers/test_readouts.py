"""Readouts with the adaptive log-normal regularizer, against neuralpredictors' own."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from neuralpredictors.layers import readouts as stock
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from torch import nn

from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.errors import SettingsError
from december_plugin.models.layers import readouts

SHAPE = (3, 4, 5)
N = 6
CLASSES = [readouts.FullGaussian2d, readouts.AttentionReadout, readouts.FullFactorized2d]
L1_AS_STOCK = CLASSES[:2]

both_classes = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def build(cls, n=N, **settings):
    torch.manual_seed(0)
    readout = cls(in_shape=SHAPE, outdims=n, bias=True, **settings)
    for _, parameter in sorted(readout.named_parameters()):
        parameter.data.normal_()
    return readout


def mask_norms(readout):
    if not hasattr(readout, "spatial"):
        return [0.0] * readout.outdims
    return [
        sum(abs(float(value)) for value in (mask / mask.norm()).flatten()) for mask in readout.spatial.detach().double()
    ]


@both_classes
class TestEveryReadout:
    def test_regularizer_equals_a_plain_loop(self, cls):
        readout = build(cls, feature_reg_weight=0.3, gamma_sigma=0.2)
        expected = []
        vectors = readout_vectors(readout).tolist()
        for w, a, mask in zip(vectors, readout.adaptive_neuron_reg_coefs.tolist(), mask_norms(readout), strict=True):
            expected.append(0.3 * abs(a) * sum(abs(x) for x in w) + math.log(abs(a)) ** 2 / 0.2**2 + mask)
        assert readout.regularizer(reduction=None).tolist() == pytest.approx(expected, rel=1e-4)
        assert readout.regularizer().item() == pytest.approx(sum(expected), rel=1e-4)
        assert readout.regularizer(reduction="mean").item() == pytest.approx(sum(expected) / N, rel=1e-4)
        with pytest.warns(UserWarning, match="Use of 'average' is deprecated"):
            assert readout.regularizer(average=True).item() == pytest.approx(sum(expected) / N, rel=1e-4)

    def test_the_sum_does_not_grow_with_the_square_of_the_neurons(self, cls):
        small, large = build(cls), build(cls, n=2 * N)
        for (name, one), two in zip(small.named_parameters(), large.parameters(), strict=True):
            axis = next((axis for axis, size in enumerate(one.shape) if size == N), None)
            assert axis is not None, name
            two.data = torch.cat([one.data, one.data], dim=axis)
        assert large.regularizer().item() == pytest.approx(2 * small.regularizer().item(), rel=1e-5)

    def test_starts_and_restarts_at_the_mode_of_the_prior(self, cls):
        readout = cls(SHAPE, N, True)
        torch.testing.assert_close(readout.adaptive_neuron_reg_coefs.data, torch.ones(N))
        readout.adaptive_neuron_reg_coefs.data.fill_(2.0)
        readout.initialize(torch.full((N,), 0.5))
        torch.testing.assert_close(readout.adaptive_neuron_reg_coefs.data, torch.ones(N))
        torch.testing.assert_close(readout.bias.data, torch.full((N,), 0.5))

    @pytest.mark.parametrize("regularizer_type", ["adaptive_log_norm", "l1"])
    def test_is_neuralpredictors_readout_apart_from_the_regularizer(self, cls, regularizer_type):
        torch.manual_seed(3)
        ours = cls(SHAPE, N, True, regularizer_type=regularizer_type).eval()
        torch.manual_seed(3)
        theirs = cls._base(SHAPE, N, True).eval()
        for module in theirs.modules():
            if isinstance(module, nn.Conv2d):
                module.padding = (0, 0)
        assert isinstance(ours, cls._base)
        x = torch.randn(2, *SHAPE)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        extra = {"adaptive_neuron_reg_coefs"} if regularizer_type == "adaptive_log_norm" else set()
        assert ours.state_dict().keys() == theirs.state_dict().keys() | extra

    def test_the_old_name_of_the_weight(self, cls):
        with pytest.warns(UserWarning, match="Use of 'gamma_readout' is deprecated"):
            readout = cls(SHAPE, N, True, gamma_readout=0.25)
        assert readout.feature_reg_weight == 0.25

    def test_coefficients_travel_with_the_state_dict(self, cls):
        trained, fresh = build(cls), cls(SHAPE, N, True)
        fresh.load_state_dict(trained.state_dict())
        torch.testing.assert_close(fresh.regularizer(), trained.regularizer(), rtol=0, atol=0)

    def test_the_whole_penalty_is_learned_from(self, cls):
        readout = build(cls)
        readout.regularizer().backward()
        assert readout.adaptive_neuron_reg_coefs.grad.abs().min() > 0
        features = readout._features if hasattr(readout, "_features") else readout.features
        assert features.grad.abs().min() > 0

    def test_in_an_encoder_with_several_sessions(self, cls):
        torch.manual_seed(0)
        core = Stacked2dCore(1, SHAPE[0], 3, 3, layers=1, pad_input=True, input_regularizer="LaplaceL2norm")
        multi = stock.MultiReadoutBase(
            in_shape_dict=dict.fromkeys("ab", SHAPE),
            n_neurons_dict={"a": N, "b": 2},
            base_readout=cls,
            bias=True,
            feature_reg_weight=0.01,
        )
        model = FiringRateEncoder(core, multi)
        batch = {"behavior": torch.zeros(7, 3), "images": None}
        assert model(torch.randn(7, 1, 4, 5), data_key="a", **batch).shape == (7, N)
        expected = core.regularizer() + multi["b"].regularizer()
        torch.testing.assert_close(model.regularizer("b"), expected)
        copy.deepcopy(model)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (
                {"feature_reg_wight": 1},
                "has no setting 'feature_reg_wight'. Did you mean 'feature_reg_weight'? Allowed: ",
            ),
            ({"gama_sigma": 1}, "has no setting 'gama_sigma'. Did you mean 'gamma_sigma'? Allowed: "),
            (
                {"regularizer_type": "l2"},
                "regularizer_type is 'l2'. Allowed: adaptive_log_norm, l1.",
            ),
            ({"gamma_sigma": 0}, "gamma_sigma is 0; it must be a number above 0."),
            ({"feature_reg_weight": -1}, "feature_reg_weight is -1; it must be a number of at least 0."),
            ({"shared_transform": nn.Linear(2, 2)}, "has no setting 'shared_transform'. "),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_settings_that_are_not_allowed(self, cls, wrong, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            cls(SHAPE, N, True, **wrong)


@pytest.mark.parametrize("cls", L1_AS_STOCK, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("reduction", ["sum", "mean", None])
def test_plain_l1_is_neuralpredictors_own(cls, reduction):
    ours, theirs = (
        build(c, feature_reg_weight=0.3, **s) for c, s in ((cls, {"regularizer_type": "l1"}), (cls._base, {}))
    )
    assert ours.adaptive_neuron_reg_coefs is None
    torch.testing.assert_close(ours.regularizer(reduction), theirs.regularizer(reduction), rtol=0, atol=0)


def test_plain_l1_of_the_factorized_readout():
    readout = build(readouts.FullFactorized2d, regularizer_type="l1", feature_reg_weight=0.3, spatial_reg_weight=0.7)
    features = 0.3 * readout.features.abs().sum().item()
    assert readout.regularizer().item() == pytest.approx(features + 0.7 * sum(mask_norms(readout)), rel=1e-5)


def test_the_masks_of_the_factorized_readout_can_be_left_alone():
    readout = build(readouts.FullFactorized2d, spatial_reg_weight=0)
    readout.regularizer().backward()
    assert readout.spatial.grad.abs().max() == 0
    with pytest.raises(SettingsError, match="spatial_reg_weight is -1; it must be a number of at least 0"):
        readouts.FullFactorized2d(SHAPE, N, True, spatial_reg_weight=-1)


def test_the_joint_weight_of_neuralpredictors_factorized_readout_is_split():
    message = (
        "FullFactorized2d has no setting 'spatial_and_feature_reg_weight': set feature_reg_weight for the feature "
        "vectors and spatial_reg_weight for the masks."
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        readouts.FullFactorized2d(SHAPE, N, True, spatial_and_feature_reg_weight=1.0)


@pytest.mark.parametrize("cls", [readouts.FullGaussian2d, readouts.FullFactorized2d], ids=lambda cls: cls.__name__)
def test_shared_features_are_penalised_once(cls):
    match_ids = np.arange(N) // 2
    multi = stock.MultiReadoutSharedParametersBase(
        in_shape_dict=dict.fromkeys("ab", SHAPE),
        n_neurons_dict=dict.fromkeys("ab", N),
        base_readout=cls,
        share_features=True,
        shared_match_ids=dict.fromkeys("ab", match_ids),
        bias=True,
        **({"spatial_reg_weight": 0} if cls is readouts.FullFactorized2d else {}),
    )
    assert multi.regularizer("a").item() > 0
    assert multi.regularizer("b").item() == 0
    assert multi["b"].adaptive_neuron_reg_coefs is None


def test_settings_of_multi_readouts_that_a_readout_does_not_know():
    multi = stock.MultiReadoutSharedParametersBase(
        in_shape_dict={"a": SHAPE},
        n_neurons_dict={"a": N},
        base_readout=readouts.AttentionReadout,
        source_grids={"a": np.zeros((N, 2))},
        shared_match_ids=None,
        bias=False,
    )
    assert multi["a"].bias is None
    with pytest.raises(SettingsError, match="AttentionReadout has no setting 'shared_features'"):
        readouts.AttentionReadout(SHAPE, N, True, shared_features={"match_ids": np.arange(N)})


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_attention_kernels(kernel):
    readout = readouts.AttentionReadout(SHAPE, N, True, attention_kernel=kernel, attention_layers=2)
    assert readout(torch.randn(2, *SHAPE), shift=torch.zeros(2, 2), trial_idx=None).shape == (2, N)


class TestCortexPositions:
    predictor = {"grid_mean_predictor": {"hidden_layers": 1, "hidden_features": 4, "final_tanh": True}}  # noqa: RUF012

    @pytest.mark.parametrize("positions", [np.array([[3.0, 4.0]]), np.full((N, 2), 7.0)], ids=["one", "in one place"])
    @pytest.mark.filterwarnings("error")
    def test_without_spread_are_zero(self, positions):
        n = len(positions)
        with pytest.warns(UserWarning, match="NOT initialized with mean activity"):
            readout = readouts.FullGaussian2d(SHAPE, n, True, source_grid=positions, **self.predictor).eval()
        torch.testing.assert_close(readout.source_grid, torch.zeros(n, 2))
        assert torch.isfinite(readout(torch.randn(2, *SHAPE))).all()

    def test_that_are_missing(self):
        positions = np.array([[0.0, np.nan]] * N)
        with pytest.raises(
            SettingsError, match="source_grid has NaN or infinite values; every neuron needs a cortical"
        ):
            readouts.FullGaussian2d(SHAPE, N, True, source_grid=positions, **self.predictor)


MATCHES = np.array([0, 1, 1, 2, 0, 3])
ELSEWHERE = nn.Parameter(torch.tensor([[-2.0, 1.0], [0.1, 0.2], [0.9, -0.7], [0.3, 3.0]]).view(1, 4, 1, 2))
GRIDS = {
    "own": {},
    "predicted": {
        "grid_mean_predictor": {"hidden_layers": 1, "hidden_features": 4, "final_tanh": True},
        "source_grid": np.random.default_rng(0).normal(size=(N, 2)),
    },
    "shared": {"shared_grid": {"match_ids": MATCHES}},
    "another's": {"shared_grid": {"match_ids": MATCHES, "shared_grid": ELSEWHERE}},
}


def trained(readout, x, dtype, **arguments):
    """Return responses and all gradients, of the map first."""
    readout.to(dtype)
    x = x.detach().to(dtype, copy=True).requires_grad_()
    torch.manual_seed(5)
    responses = readout(x, **arguments)
    responses.backward(torch.linspace(-1, 1, responses.numel(), dtype=dtype).view_as(responses))
    return {"responses": responses.detach(), "map": x.grad, **{k: p.grad for k, p in readout.named_parameters()}}


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            scale = max(1.0, value.abs().max().item())
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance * scale, msg=name)


class TestFusedKernel:
    x = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(0))

    def pair(self, *, training=True, **settings):
        """Return neuralpredictors' readout and ours with the fused kernel, with the same weights."""
        kinds = ((stock.FullGaussian2d, {}), (readouts.FullGaussian2d, {"kernel": "fused", "regularizer_type": "l1"}))
        for cls, own in kinds:
            torch.manual_seed(2)
            readout = cls(SHAPE, N, **{"bias": True, "init_sigma": 0.4, "init_mu_range": 0.9, **settings}, **own)
            readout._features.data.normal_()
            yield readout.train(training)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    @pytest.mark.parametrize("gauss_type", ["full", "uncorrelated", "isotropic"])
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("training", [True, False])
    def test_is_neuralpredictors_readout(self, dtype, tolerance, gauss_type, grid, training):
        theirs, ours = self.pair(gauss_type=gauss_type, training=training, **copy.deepcopy(GRIDS[grid]))
        assert isinstance(ours, stock.FullGaussian2d)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert_same(trained(ours, self.x, dtype), trained(theirs, self.x, dtype), tolerance)

    @pytest.mark.parametrize(
        ("settings", "arguments"),
        [
            ({"batch_sample": False}, {}),
            ({"align_corners": False}, {}),
            ({"bias": False}, {}),
            ({"shared_features": {"match_ids": MATCHES}}, {}),
            ({}, {"sample": False}),
            ({}, {"shift": torch.linspace(-1, 1, 14).view(7, 2)}),
            ({"batch_sample": False}, {"shift": torch.linspace(-1, 1, 14).view(7, 2), "trial_idx": None}),
            ({}, {"out_idx": np.array([4, 1])}),
            ({}, {"out_idx": np.array([True, False, True, True, False, False])}),
            ({}, {"out_idx": [0, 5], "shift": torch.full((7, 2), 0.3)}),
        ],
        ids=str,
    )
    def test_takes_what_neuralpredictors_readout_takes(self, settings, arguments):
        theirs, ours = self.pair(**settings)
        found, expected = (
            trained(readout, self.x, torch.float32, **copy.deepcopy(arguments)) for readout in (ours, theirs)
        )
        assert_same(found, expected, 1e-5)

    def test_frames_are_read_as_by_grid_sample(self):
        x = torch.randn(3, SHAPE[0], 5, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
        results = []
        for kernel in ("fused", "grid_sample"):
            torch.manual_seed(2)
            readout = readouts.FrameGaussian2d(SHAPE, N, True, kernel=kernel, init_sigma=0.4)
            results.append(trained(readout, x, torch.float32))
        assert results[0]["responses"].shape == (3, 5, N)
        assert_same(*results, 1e-5)

    def test_frames_of_some_neurons(self):
        x = torch.randn(3, SHAPE[0], 5, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
        readout = readouts.FrameGaussian2d(SHAPE, N, True).eval()
        torch.testing.assert_close(readout(x, out_idx=[3, 0]), readout(x)[..., [3, 0]])

    def test_other_kernels_are_not_allowed(self):
        with pytest.raises(SettingsError, match=r"kernel is 'torch'. Allowed: auto, fused, grid_sample\."):
            readouts.FullGaussian2d(SHAPE, N, True, kernel="torch")

"""Scores per neuron, against scipy, neuralpredictors and plain loops; predictions of a tier."""

import re
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from neuralpredictors.data.samplers import RepeatsBatchSampler, SubsetSequentialSampler
from neuralpredictors.measures.np_functions import fev as neuralpredictors_fev
from scipy.stats import pearsonr
from torch import nn
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.performance import (
    BLOCK,
    UNTESTED,
    constant_neurons,
    correlation_to_average,
    explainable_variance,
    feve,
    has_repeats,
    image_ids_of,
    noise_ceilings,
    normalized_correlation,
    predict_tier,
    single_trial_correlation,
    why_untested,
)
from december_plugin.evaluation.predictions import check_image_ids


def recording(seed=0, n_images=8, n_repeats=5, n_neurons=6, noise=1.0):
    """Return responses, predictions (trials, n) and image ids in random order."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(np.repeat(np.arange(n_images) * 7 + 3, n_repeats))
    tuning = rng.gamma(2.0, size=(100, n_neurons))
    responses = tuning[image_ids] + noise * rng.normal(size=(len(image_ids), n_neurons))
    predictions = tuning[image_ids] + 0.3 * rng.normal(size=responses.shape)
    return responses, predictions, image_ids


class TestSingleTrialCorrelation:
    @given(arrays.arrays(np.float64, (2, 7, 3), elements=st.floats(-100, 100, width=16)))
    @settings(max_examples=60, deadline=None)
    def test_equals_scipy(self, values):
        responses, predictions = values
        constant = (np.ptp(responses, axis=0) == 0) | (np.ptp(predictions, axis=0) == 0)
        expected = [0.0 if constant[i] else pearsonr(responses[:, i], predictions[:, i]).statistic for i in range(3)]
        np.testing.assert_allclose(single_trial_correlation(responses, predictions), expected, atol=1e-9)
        np.testing.assert_array_equal(constant_neurons(responses, predictions), constant)

    @given(st.floats(0.01, 100), st.floats(-100, 100))
    @settings(max_examples=30, deadline=None)
    def test_neither_gain_nor_offset_of_the_prediction_matters(self, gain, offset):
        responses, predictions, _ = recording()
        plain = single_trial_correlation(responses, predictions)
        np.testing.assert_allclose(single_trial_correlation(responses, gain * predictions + offset), plain, atol=1e-10)

    def test_float32_predictions_on_a_large_offset(self):
        responses, predictions, _ = (x.astype(np.float32) for x in recording())
        expected = [
            pearsonr(r.astype(np.float64), p.astype(np.float64) + 1e6).statistic
            for r, p in zip(responses.T, predictions.T, strict=True)
        ]
        found = single_trial_correlation(responses, predictions.astype(np.float64) + 1e6)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_tiny_and_huge_units(self):
        responses, predictions, _ = recording()
        expected = single_trial_correlation(responses, predictions)
        np.testing.assert_allclose(single_trial_correlation(responses * 1e-200, predictions * 1e200), expected)

    def test_constant_neurons_count_as_zero(self):
        responses, predictions, _ = recording()
        responses[:, 1] = 0.1
        predictions[:, 3] = -1 / 3
        found = single_trial_correlation(responses, predictions)
        np.testing.assert_array_equal(found[[1, 3]], 0.0)
        assert (found[[0, 2, 4, 5]] > 0.3).all()
        np.testing.assert_array_equal(constant_neurons(responses, predictions), [0, 1, 0, 1, 0, 0])

    @pytest.mark.filterwarnings("error")
    def test_nan_predictions_give_nan_and_not_zero(self):
        responses, predictions, _ = recording()
        predictions[2, 1] = np.nan
        found = single_trial_correlation(responses, predictions)
        np.testing.assert_array_equal(np.isnan(found), [0, 1, 0, 0, 0, 0])
        assert not constant_neurons(responses, predictions).any()

    def test_more_neurons_than_a_block(self):
        rng = np.random.default_rng(0)
        responses, predictions = rng.normal(size=(2, 5, 2 * BLOCK + 3)).astype(np.float32)
        found = single_trial_correlation(responses, predictions)
        assert found.shape == (2 * BLOCK + 3,)
        for neuron in (0, BLOCK - 1, BLOCK, 2 * BLOCK + 2):
            assert found[neuron] == pytest.approx(
                pearsonr(responses[:, neuron].astype(float), predictions[:, neuron].astype(float)).statistic
            )

    def test_no_neurons(self):
        assert single_trial_correlation(np.zeros((3, 0)), np.zeros((3, 0))).shape == (0,)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((4, 3), (4, 2)), "responses have shape (4, 3) and predictions (4, 2); both must be (trials, neurons)."),
            (((4,), (4,)), "responses have shape (4,) and predictions (4,); both must be (trials, neurons)."),
            (((1, 3), (1, 3)), "a correlation needs at least two trials; there is 1."),
        ],
    )
    def test_errors(self, shapes, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            single_trial_correlation(*(np.zeros(shape) for shape in shapes))


class TestCorrelationToAverage:
    @pytest.mark.parametrize("unequal", [False, True])
    def test_equals_a_plain_loop(self, unequal):
        responses, predictions, image_ids = recording()
        if unequal:
            image_ids[::4] = 99
        images = sorted(set(image_ids))
        for neuron, found in enumerate(correlation_to_average(responses, predictions, image_ids)):
            averages = [
                [sum(x[t, neuron] for t in np.flatnonzero(image_ids == i)) / (image_ids == i).sum() for i in images]
                for x in (responses, predictions)
            ]
            assert found == pytest.approx(pearsonr(*averages).statistic, abs=1e-12)

    def test_without_repeats_is_the_single_trial_correlation(self):
        responses, predictions, _ = recording()
        names = [f"image {i}" for i in range(len(responses))]
        np.testing.assert_allclose(
            correlation_to_average(responses, predictions, names), single_trial_correlation(responses, predictions)
        )

    def test_a_constant_stays_one_when_averaged(self):
        responses, predictions, image_ids = recording()
        image_ids[::3] = 99  # sums of 0.1 over other numbers of repeats are rounded otherwise
        responses[:, 0] = 0.1
        assert correlation_to_average(responses, predictions, image_ids)[0] == 0.0
        np.testing.assert_array_equal(constant_neurons(responses, predictions, image_ids), [1, 0, 0, 0, 0, 0])

    def test_a_response_whose_averages_are_constant(self):
        responses, image_ids = np.array([[1.0], [3.0], [0.0], [4.0]]), [1, 1, 2, 2]
        assert not constant_neurons(responses, responses)
        assert constant_neurons(responses, responses, image_ids)
        assert correlation_to_average(responses, responses, image_ids) == 0.0

    @pytest.mark.parametrize(
        ("image_ids", "message"),
        [
            (np.zeros(3), "image_ids has shape (3,), but there are 40 trials; give one id per trial."),
            (np.zeros(40), "all trials show the same image; a correlation over images needs at least two."),
        ],
        ids=["length", "one image"],
    )
    def test_errors(self, image_ids, message):
        responses, predictions, _ = recording()
        with pytest.raises(SettingsError, match=re.escape(message)):
            correlation_to_average(responses, predictions, image_ids)


class TestExplainableVariance:
    def test_equals_neuralpredictors(self):
        responses, predictions, image_ids = recording()
        split = [[x[image_ids == i] for i in sorted(set(image_ids))] for x in (responses, predictions)]
        fraction, explained = neuralpredictors_fev(*split, return_exp_var=True)
        np.testing.assert_allclose(explainable_variance(responses, image_ids), fraction, rtol=1e-12)
        np.testing.assert_allclose(feve(responses, predictions, image_ids, min_explainable=0), explained, rtol=1e-12)

    def test_equals_a_plain_loop_with_unequal_repeats(self):
        responses, predictions, image_ids = (x[::2] for x in recording(n_repeats=8, n_neurons=2))
        image_ids[:3] = [1000, 1001, 1002]  # shown once: left out
        assert len({(image_ids == i).sum() for i in image_ids}) > 3
        repeated = [i for i in sorted(set(image_ids)) if (image_ids == i).sum() > 1]
        trials = [t for t in range(len(image_ids)) if image_ids[t] in repeated]
        for neuron, found in enumerate(feve(responses, predictions, image_ids, min_explainable=0)):
            r, p = responses[:, neuron], predictions[:, neuron]
            noise = sum(r[image_ids == i].var(ddof=1) for i in repeated) / len(repeated)
            total = r[trials].var(ddof=1)
            error = sum((r[t] - p[t]) ** 2 for t in trials) / len(trials)
            assert found == pytest.approx(1 - (error - noise) / (total - noise), rel=1e-12)
            assert explainable_variance(responses, image_ids)[neuron] == pytest.approx((total - noise) / total)

    def test_the_true_tuning_explains_what_can_be_explained(self):
        rng = np.random.default_rng(0)
        image_ids = np.repeat(np.arange(400), 20)
        tuning = rng.normal(size=(400, 3))[image_ids]
        responses = tuning + np.array([0.5, 1.0, 1.5]) * rng.normal(size=tuning.shape)
        np.testing.assert_allclose(feve(responses, tuning, image_ids), 1.0, atol=0.02)
        np.testing.assert_allclose(explainable_variance(responses, image_ids), [0.8, 0.5, 1 / 3.25], atol=0.05)
        np.testing.assert_allclose(feve(responses, 0.5 * tuning, image_ids), 0.75, atol=0.03)

    def test_neurons_with_too_little_to_explain_are_left_out(self):
        responses, predictions, image_ids = recording(noise=0.5)
        responses[:, 0] = np.random.default_rng(1).normal(size=len(responses))
        fraction = explainable_variance(responses, image_ids)
        assert fraction[0] < 0.15 < fraction[1:].min()
        np.testing.assert_array_equal(np.isnan(feve(responses, predictions, image_ids)), [1, 0, 0, 0, 0, 0])
        assert np.isnan(feve(responses, predictions, image_ids, min_explainable=0.999)).all()

    @pytest.mark.filterwarnings("error")
    def test_a_constant_response_has_nothing_to_explain_and_a_constant_prediction_explains_nothing(self):
        responses, predictions, image_ids = recording(noise=0.1)
        responses[:, 1], predictions[:, 2] = 0.1, 7.0
        for score in (feve, normalized_correlation):
            found = score(responses, predictions, image_ids)
            np.testing.assert_array_equal(np.isnan(found), [0, 1, 0, 0, 0, 0])
            assert found[2] == 0.0
        assert explainable_variance(responses, image_ids)[1] == 0.0
        for ceiling in noise_ceilings(responses, image_ids):
            assert ceiling[1] == 0.0
            assert (np.delete(ceiling, 1) > 0.5).all()

    def test_without_repeats(self):
        responses, predictions, _ = recording()
        image_ids = np.arange(len(responses))
        image_ids[1] = 0
        message = (
            "explainable variance needs at least two images with repeats; 1 of 39 images were shown more than once."
        )
        with pytest.raises(SettingsError, match=re.escape(message)):
            feve(responses, predictions, image_ids)
        with pytest.raises(SettingsError, match=re.escape(message)):
            explainable_variance(responses, image_ids)


def simulated(n_images=400, n_repeats=20, explainable=(0.8, 0.5, 0.2), seed=0):
    """Return responses whose variance is 1, of which the images explain known fractions, true means and image ids."""
    rng = np.random.default_rng(seed)
    image_ids = np.repeat(np.arange(n_images), n_repeats)
    fraction = np.array(explainable)
    tuning = np.sqrt(fraction) * rng.normal(size=(n_images, len(fraction)))[image_ids]
    return tuning + np.sqrt(1 - fraction) * rng.normal(size=tuning.shape), tuning, image_ids


class TestNoiseCeilings:
    @pytest.mark.parametrize("n_repeats", [2, 5, 20])
    def test_of_neurons_of_known_explainable_variance(self, n_repeats):
        fraction = np.array([0.8, 0.5, 0.2])
        responses, tuning, image_ids = simulated(n_images=4000 // n_repeats, n_repeats=n_repeats)
        found = noise_ceilings(responses, image_ids)
        np.testing.assert_allclose(found.single_trial, np.sqrt(fraction), atol=0.04)
        np.testing.assert_allclose(
            found.to_average, np.sqrt(fraction / (fraction + (1 - fraction) / n_repeats)), atol=0.04
        )
        # They are what the true means reach.
        np.testing.assert_allclose(found.single_trial, single_trial_correlation(responses, tuning), atol=0.03)
        np.testing.assert_allclose(found.to_average, correlation_to_average(responses, tuning, image_ids), atol=0.03)
        np.testing.assert_allclose(normalized_correlation(responses, tuning, image_ids), 1.0, atol=0.03)

    def test_equal_plain_loops_with_unequal_repeats(self):
        responses, predictions, image_ids = (x[::2] for x in recording(n_repeats=8, n_neurons=3))
        image_ids[:3] = [1000, 1001, 1002]  # shown once: left out
        repeated = [i for i in sorted(set(image_ids)) if (image_ids == i).sum() > 1]
        assert len({(image_ids == i).sum() for i in repeated}) > 2
        single_trial, to_average = noise_ceilings(responses, image_ids)
        normalized = normalized_correlation(responses, predictions, image_ids, min_explainable=0)
        for n in range(3):
            trials = [[responses[t, n] for t in np.flatnonzero(image_ids == i)] for i in repeated]
            everything = [value for values in trials for value in values]
            noise = sum(np.var(values, ddof=1) for values in trials) / len(trials)
            total = np.var(everything, ddof=1)
            assert single_trial[n] == pytest.approx(((total - noise) / total) ** 0.5, rel=1e-12)
            averages = [sum(values) / len(values) for values in trials]
            of_averages = sum(np.var(values, ddof=1) / len(values) for values in trials) / len(trials)
            signal = np.var(averages, ddof=1) - of_averages
            assert to_average[n] == pytest.approx((signal / np.var(averages, ddof=1)) ** 0.5, rel=1e-12)
            predicted = [predictions[image_ids == i, n].mean() for i in repeated]
            expected = np.cov(averages, predicted)[0, 1] / (signal * np.var(predicted, ddof=1)) ** 0.5
            assert normalized[n] == pytest.approx(expected, rel=1e-12)

    def test_equal_the_signal_power_of_schoppe_et_al(self):
        n_images, n_repeats = 300, 6
        responses, tuning, image_ids = simulated(n_images, n_repeats)
        by_repeat = responses.reshape(n_images, n_repeats, -1)
        by_repeat -= by_repeat.mean(axis=0) - by_repeat.mean(axis=(0, 1))  # the mean of a repeat, which they take out
        sum_of_variances = by_repeat.var(axis=0, ddof=1).sum(axis=0)
        variance_of_sum = by_repeat.sum(axis=1).var(axis=0, ddof=1)
        signal_power = (variance_of_sum - sum_of_variances) / (n_repeats * (n_repeats - 1))
        expected = np.sqrt(signal_power / by_repeat.mean(axis=1).var(axis=0, ddof=1))
        np.testing.assert_allclose(noise_ceilings(responses, image_ids).to_average, expected, rtol=3e-3)
        covariance = ((by_repeat.mean(axis=1) - by_repeat.mean(axis=(0, 1))) * tuning[::n_repeats]).sum(axis=0)
        normalized = covariance / (n_images - 1) / np.sqrt(tuning[::n_repeats].var(axis=0, ddof=1) * signal_power)
        np.testing.assert_allclose(normalized_correlation(responses, tuning, image_ids), normalized, rtol=3e-3)

    def test_a_model_that_is_half_right(self):
        responses, tuning, image_ids = simulated(explainable=(0.8, 0.5))
        other = np.random.default_rng(1).normal(size=(400, 2))[image_ids] * tuning.std(axis=0)
        found = normalized_correlation(responses, tuning + other, image_ids)
        np.testing.assert_allclose(found, 0.5**0.5, atol=0.05)

    def test_pure_noise_has_no_ceiling_to_speak_of_and_no_normalized_correlation(self):
        responses, _, image_ids = simulated(200, 5, explainable=(0.0,) * 8)
        single_trial, to_average = noise_ceilings(responses, image_ids)
        assert (single_trial == 0).any()  # a negative estimate
        assert (to_average == 0).any()
        assert single_trial.max() < 0.3
        assert np.isnan(normalized_correlation(responses, responses, image_ids)).all()

    def test_neither_order_of_trials_nor_units_matter(self):
        responses, predictions, image_ids = recording()
        order = np.random.default_rng(0).permutation(len(responses))
        for score in (lambda r, p, i: np.stack(noise_ceilings(r, i)), normalized_correlation):
            plain = score(responses, predictions, image_ids)
            moved = score(3 * responses[order] + 5, 2 * predictions[order] - 1, image_ids[order])
            np.testing.assert_allclose(moved, plain, rtol=1e-9)

    def test_without_repeats(self):
        responses, predictions, _ = recording()
        message = "explainable variance needs at least two images with repeats; 0 of 40 images were shown more than"
        with pytest.raises(SettingsError, match=re.escape(message)):
            noise_ceilings(responses, np.arange(40))
        with pytest.raises(SettingsError, match=re.escape(message)):
            normalized_correlation(responses, predictions, np.arange(40))

    @pytest.mark.parametrize(
        ("image_ids", "expected"), [([1, 1, 2, 2, 3], True), ([1, 1, 1, 2, 3], False), (["a", "b"], False), ([], False)]
    )
    def test_whether_there_are_repeats(self, image_ids, expected):
        assert has_repeats(image_ids) is expected


class TestWhyUntested:
    @pytest.mark.parametrize(
        ("responses", "expected"),
        [
            (np.zeros((5, 3)), "constant"),
            (np.full((5, 3), 0.1) * [1, 2, 3], "constant"),
            (np.zeros((0, 3)), "no trials"),
            (np.ones((1, 3)), "one trial"),
            (np.array([[1.0, np.nan], [2.0, 3.0]]), "not finite"),
            (np.full((4, 2), np.nan), "not finite"),
            (np.array([[0.0, 1.0], [0.0, 2.0]]), ""),  # one neuron that never responds
        ],
    )
    def test_says_why(self, responses, expected):
        assert why_untested(responses) == expected
        assert expected in ("", *UNTESTED)


Trial = namedtuple("Trial", ["images", "responses", "behavior"])


class Trials(Dataset):
    def __init__(self, n_trials=7, n_neurons=3, trial_info=None):
        generator = torch.Generator().manual_seed(0)
        self.images, self.responses, self.behavior = (
            torch.randn(n_trials, size, generator=generator) for size in (4, n_neurons, 2)
        )
        self.trial_info = trial_info

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return Trial(self.images[i], self.responses[i], self.behavior[i])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.core = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
        self.seen = []

    def forward(self, images, *, data_key, behavior=None):
        self.seen.append((data_key, self.training, torch.is_grad_enabled(), behavior is not None))
        gain = 1 if behavior is None else 1 + behavior.sum(dim=1, keepdim=True)
        return self.core(images) * gain


class TestPredictTier:
    def test_returns_responses_and_predictions_of_every_session(self):
        model, sessions = Model(), {"b": Trials(), "a": Trials(n_trials=2)}
        found = predict_tier(model, {key: DataLoader(trials, batch_size=3) for key, trials in sessions.items()})
        assert list(found) == ["b", "a"]
        for key, trials in sessions.items():
            responses, predictions = found[key]
            np.testing.assert_array_equal(responses, trials.responses)
            expected = model.core[0](trials.images) * (1 + trials.behavior.sum(dim=1, keepdim=True))
            np.testing.assert_allclose(predictions, expected.detach(), rtol=1e-6)
            assert isinstance(predictions, np.ndarray)
        assert model.seen == [("b", False, False, True)] * 3 + [("a", False, False, True)]

    def test_leaves_the_model_as_it_was(self):
        model = Model()
        model.core[1].eval()  # a part that stays frozen while the rest trains
        predict_tier(model, {"a": DataLoader(Trials())}, device=torch.device("cpu"))
        assert (model.training, model.core.training, model.core[1].training) == (True, True, False)

    def test_leaves_the_model_as_it_was_after_an_error(self):
        model = Model()
        with pytest.raises(
            SettingsError, match=re.escape("responses of shape (7, 2) in a batch, but the model predicts")
        ):
            predict_tier(model, {"a": DataLoader(Trials(n_neurons=2), batch_size=7)})
        assert model.training
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize(
        "as_batch",
        [
            lambda images, responses: (images, responses),
            lambda images, responses: [images, responses],
            lambda images, responses: {"responses": responses, "images": images},
            lambda images, responses: namedtuple("Batch", ["inputs", "targets"])(images, responses),
            lambda images, responses: namedtuple("Batch", ["x", "y"])(images, responses),
        ],
        ids=["tuple", "list", "dict", "inputs and targets", "other names"],
    )
    def test_kinds_of_batches(self, as_batch):
        trials, model = Trials(), Model()
        responses, predictions = predict_tier(model, {"a": [as_batch(trials.images, trials.responses)]})["a"]
        np.testing.assert_array_equal(responses, trials.responses)
        np.testing.assert_allclose(predictions, model.core[0](trials.images).detach(), rtol=1e-6)

    def test_a_session_without_trials(self):
        with pytest.raises(
            RecordingError, match="session 'a' has no trials in this tier; leave the session out, or use"
        ):
            predict_tier(Model(), {"a": []})

    def test_a_model_without_parameters(self):
        class Mean(nn.Module):
            def forward(self, images, *, data_key, behavior):
                return images[:, :3]

        trials = Trials()
        predictions = predict_tier(Mean(), {"a": DataLoader(trials)})["a"][1]
        np.testing.assert_array_equal(predictions, trials.images[:, :3])


class TestImageIdsOf:
    frame_image_id = np.array([5, 6, 7, 5, 6, 7, 8])

    def loader(self, **settings):
        return DataLoader(Trials(trial_info=self), **settings)

    def test_in_the_order_of_the_loader(self):
        np.testing.assert_array_equal(image_ids_of(self.loader(batch_size=3)), self.frame_image_id)
        tier = self.loader(sampler=SubsetSequentialSampler([6, 0, 2]), batch_size=2)
        np.testing.assert_array_equal(image_ids_of(tier), [8, 5, 7])

    def test_of_repeats_in_batches(self):
        loader = self.loader(batch_sampler=RepeatsBatchSampler(self.frame_image_id))
        image_ids = image_ids_of(loader)
        np.testing.assert_array_equal(image_ids, [5, 5, 6, 6, 7, 7, 8])
        served = np.concatenate([batch.images for batch in loader])
        np.testing.assert_array_equal(served[0], loader.dataset[0].images)
        np.testing.assert_array_equal(served[1], loader.dataset[3].images)

    def test_of_a_shuffled_tier(self):
        loader = self.loader(sampler=SubsetRandomSampler([0, 1]))
        message = "the loader draws its trials with a SubsetRandomSampler, so their order is not known; use a tier"
        with pytest.raises(SettingsError, match=re.escape(message)):
            image_ids_of(loader)

    def test_the_name_that_sensorium_takes_first(self):
        info = SimpleNamespace(image_id=np.arange(7), frame_image_id=self.frame_image_id)
        np.testing.assert_array_equal(image_ids_of(DataLoader(Trials(trial_info=info))), np.arange(7))

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (np.arange(6), "meta/trials/frame_image_id.npy has shape (6,); one value for each of the 7 trials in"),
            (
                np.array([*"abcdef", None]),
                "meta/trials/frame_image_id.npy has NaN, infinite values, objects or empty text (dtype",
            ),
        ],
        ids=["another length", "objects"],
    )
    def test_ids_that_do_not_belong_to_the_trials(self, ids, message):
        loader = DataLoader(Trials(trial_info=SimpleNamespace(frame_image_id=ids)))
        with pytest.raises(RecordingError, match=re.escape(f"the recording: {message}")):
            image_ids_of(loader)
        with pytest.raises(RecordingError, match=re.escape(f"session 'a': {message}")):
            check_image_ids({"train": {"a": loader}})

    def test_tiers_of_any_kind_are_checked(self):
        check_image_ids({"train": {"a": self.loader(), "b": [1, 2]}, "other": None})

    def test_of_a_recording_that_does_not_say(self):
        assert image_ids_of(DataLoader(Trials())) is None
        assert image_ids_of(DataLoader([torch.zeros(1)])) is None

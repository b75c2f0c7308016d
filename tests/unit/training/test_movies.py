"""Time: losses, scores, trainings and resumptions on movies."""

from __future__ import annotations

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from december_plugin.embeddings.readout_vectors import readout_embeddings, unit_ids_of
from december_plugin.errors import SettingsError
from december_plugin.evaluation.performance import (
    correlation_to_average,
    explainable_variance,
    feve,
    single_trial_correlation,
    stimulus_ids_of,
)
from december_plugin.evaluation.predictions import (
    TierPredictions,
    last_frames,
    predict_sessions,
    predict_tier,
    repeated_clips,
)
from december_plugin.models import movie_core_gaussian_readout
from december_plugin.trainers import december_trainer
from december_plugin.training.objective import ModelLoss, validation_correlation
from helpers.clips import MODEL, N_NEURONS, Clips, movie_loaders_in_memory
from helpers.interrupted import Interrupted, Recorder, train

pytestmark = pytest.mark.usefixtures("own_pretrainings")

CPU = torch.device("cpu")
SHORT = {"pretrain_epochs": 2, "max_iter": 4, "n_clusters": 2, "patience": 1, "lr_decay_steps": 4, "lr_init": 0.02}


@functools.cache
def loaders():
    return movie_loaders_in_memory()


def make_model(seed=1):
    return movie_core_gaussian_readout(loaders(), seed, **MODEL)


class Middle(nn.Module):
    """Predicts exp of the middle pixel for every neuron, without the first ``lost`` frames."""

    def __init__(self, n_neurons=3, *, lost=0):
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, n_neurons))
        self.lost = lost

    def forward(self, videos, *, data_key):
        return (videos[:, 0, self.lost :, 5, 5, None] * self.gain).exp()

    def regularizer(self, data_key):
        return self.gain.new_zeros(())


def cut(videos, responses, frames):
    """Return the same frames as a loader of clips of another length."""
    pieces = zip(videos.split(frames, dim=1), responses.split(frames), strict=True)
    return DataLoader([SimpleNamespace(v=v, r=r) for v, r in pieces], collate_fn=_stack, batch_size=24 // frames)


def _stack(items):
    return {"videos": torch.stack([item.v for item in items]), "responses": torch.stack([item.r for item in items])}


class TestLoss:
    def loss(self, model, loader):
        loss = ModelLoss(model, {"a": loader}, scale_loss=True, device=CPU)
        return loss("a", next(iter(loader)))

    def test_is_the_sum_over_predicted_frames_and_neurons(self):
        clips = Clips(3, movies=6)
        loader = DataLoader(clips, batch_size=2)
        expected = 0.0
        for video, responses in [clips[0], clips[1]]:
            for frame in range(4, 12):
                for neuron, gain in enumerate((0.5, 1.0, 1.5)):
                    rate = np.exp(float(video[0, frame, 5, 5]) * gain)
                    expected += rate - float(responses[frame, neuron]) * np.log(rate)
        assert self.loss(Middle(lost=4), loader).item() == pytest.approx(np.sqrt(6 / 2) * expected, rel=1e-4)

    def test_does_not_depend_on_the_length_of_the_clips(self):
        torch.manual_seed(0)
        videos, responses = torch.randn(1, 48, 7, 7), torch.rand(48, 3)
        model = Middle()
        short, long = (self.loss(model, cut(videos, responses, frames)) for frames in (4, 12))
        assert short.item() == pytest.approx(long.item(), rel=1e-5)
        # An image is a clip of one frame.
        images = [(videos[:, :24].transpose(0, 1)[:, :, None], responses[:24, None])] * 2
        image_loss = ModelLoss(model, {"a": SimpleNamespace(sampler=range(48))}, scale_loss=True, device=CPU)
        assert image_loss("a", images[0]).item() == pytest.approx(long.item(), rel=1e-5)

    def test_shapes_that_would_broadcast(self):
        message = "session 'a' has responses of shape (2, 12, 3) in a batch, but the model predicts (2, 12, 1); build"
        with pytest.raises(SettingsError, match=re.escape(message)):
            self.loss(Middle(1), DataLoader(Clips(3, movies=2), batch_size=2))


class TestScores:
    def test_rows_are_the_last_frames_clip_after_clip(self):
        clips, model = Clips(3, movies=3), Middle(lost=5)
        session = predict_sessions(model, {"a": DataLoader(clips, batch_size=2)})["a"]
        assert session.frames.tolist() == [7, 7, 7]
        assert session.n_trials == 3
        np.testing.assert_array_equal(session.responses, clips.responses[:, 5:].reshape(21, 3))
        expected = np.exp(clips.videos[:, 0, 5:, 5, 5].reshape(21, 1).numpy() * np.array([0.5, 1.0, 1.5]))
        np.testing.assert_allclose(session.predictions, expected, rtol=1e-5)
        pair = predict_tier(model, {"a": DataLoader(clips)})["a"]
        np.testing.assert_array_equal(pair[0], session.responses)

    def test_validation_correlation_is_over_all_frames(self):
        clips, model = Clips(3, movies=3), Middle(lost=5)
        expected = [
            stats.pearsonr(
                clips.responses[:, 5:, i].ravel(), model(clips.videos, data_key="a")[..., i].detach().ravel()
            )
            for i in range(3)
        ]
        found = validation_correlation(model, {"a": DataLoader(clips)}, device=CPU)
        assert found == pytest.approx(np.mean([pair.statistic for pair in expected]), abs=1e-6)

    def test_models_that_predict_more_frames_than_there_are(self):
        message = "session 'a' has responses of shape (1, 12, 3) in a batch, but the model predicts (1, 14, 3); build"

        class Longer(Middle):
            def forward(self, videos, *, data_key):
                return super().forward(torch.cat([videos, videos[:, :, :2]], dim=2), data_key=data_key)

        with pytest.raises(SettingsError, match=re.escape(message)):
            predict_tier(Longer(), {"a": DataLoader(Clips(3, movies=2))})

    def test_last_frames_leaves_images_alone(self):
        images = torch.zeros(4, 3)
        assert last_frames(images, torch.zeros(4, 3)) is images
        assert last_frames(images, torch.zeros(4, 2)) is images

    def test_repeats_of_a_frame_are_averaged(self):
        clips, model = Clips(3, movies=2, repeats=3), Middle(lost=2)
        loader = DataLoader(clips, batch_size=4)
        session = predict_sessions(model, {"a": loader})["a"]
        ids = stimulus_ids_of(loader, session.frames)
        assert ids.tolist() == [*list(range(10)) * 3, *list(range(10, 20)) * 3]
        mean = clips.responses[:, 2:].reshape(2, 3, 10, 3).mean(dim=1).reshape(20, 3).numpy()
        expected = [
            stats.pearsonr(mean[:, i], session.predictions[[*range(10), *range(30, 40)], i])[0] for i in range(3)
        ]
        np.testing.assert_allclose(
            correlation_to_average(session.responses, session.predictions, ids), expected, atol=1e-6
        )
        assert np.isfinite(explainable_variance(session.responses, ids)).all()
        perfect = np.repeat(mean.reshape(2, 1, 10, 3), 3, axis=1).reshape(60, 3)
        assert (feve(session.responses, perfect, ids, min_explainable=-9) >= 1 - 1e-6).all()

    def test_movies_of_different_lengths(self):
        trial_info = SimpleNamespace(movie_id=np.array([7, 3, 7]))
        loader = SimpleNamespace(dataset=SimpleNamespace(trial_info=trial_info), batch_sampler=[[0], [1], [2]])
        loader.batch_sampler = DataLoader(range(3)).batch_sampler
        assert stimulus_ids_of(loader, np.array([2, 3, 2])).tolist() == [3, 4, 0, 1, 2, 3, 4]
        with pytest.raises(SettingsError, match="clips of one movie_id differ in length; clips of one movie must show"):
            stimulus_ids_of(loader, np.array([2, 3, 4]))
        with pytest.raises(SettingsError, match="the loader has 3 clips, but 2 were predicted"):
            stimulus_ids_of(loader, np.array([2, 3]))
        loader.dataset.trial_info = None
        assert stimulus_ids_of(loader, np.array([2, 3, 2])) is None
        shuffled = DataLoader(Clips(3, movies=2), sampler=RandomSampler(range(2)))
        with pytest.raises(SettingsError, match="the loader draws its trials with a RandomSampler, so their order is"):
            stimulus_ids_of(shuffled, np.array([12, 12]))

    def test_repeats_behind_a_tier_of_means(self):
        by_repeat = np.random.default_rng(0).normal(size=(3, 10, 2))
        dataset = SimpleNamespace(responses_by_repeat=torch.as_tensor(by_repeat), starts=np.array([0, 5]), chunk=5)
        predictions = np.arange(12.0).reshape(6, 2)
        session = TierPredictions(predictions, predictions, np.array([3, 3]))
        responses, tiled, ids = repeated_clips(session, SimpleNamespace(dataset=dataset))
        np.testing.assert_array_equal(responses, np.concatenate([by_repeat[r][[2, 3, 4, 7, 8, 9]] for r in range(3)]))
        np.testing.assert_array_equal(tiled, np.concatenate([predictions] * 3))
        assert ids.tolist() == [0, 1, 2, 3, 4, 5] * 3
        dataset.responses_by_repeat = None
        assert repeated_clips(session, SimpleNamespace(dataset=dataset)) is None


class TestTraining:
    def test_december_finds_who_is_brighter_and_who_is_darker(self):
        score, output, state_dict = december_trainer(
            make_model(), loaders(), 1, n_clusters=2, pretrain_epochs=3, max_iter=5, lr_init=0.05, device="cpu"
        )
        assert score > 0.3
        assert {key: len(ids["unit_ids"]) for key, ids in output["neurons"].items()} == N_NEURONS
        embeddings = readout_embeddings(state_dict, unit_ids=unit_ids_of(loaders()))
        assert embeddings.vectors.shape == (20, 4)
        # Planted: neurons take turns. One channel's weights at least tell them apart.
        sign = np.where(embeddings.unit_positions % 2, -1, 1)
        correlations = [abs(np.corrcoef(sign, column)[0, 1]) for column in embeddings.vectors.T]
        assert max(correlations) > 0.9
        model = make_model(seed=2)
        model.load_state_dict(state_dict)
        scores = [single_trial_correlation(*pair) for pair in predict_tier(model, loaders()["test"]).values()]
        assert np.concatenate(scores).mean() > 0.3

    def test_the_bytes_are_those_of_an_uninterrupted_training(self):
        def own():
            return movie_loaders_in_memory(own_generator=True)

        settings = {**SHORT, "space": "functional"}  # measured by clips
        recorder = Recorder()
        expected = train(recorder, loaders=own, model=make_model(), share_pretraining=False, **settings)
        for epoch in (1, 3):
            assert recorder.states[epoch]
            interrupted = Recorder(stop=epoch)
            with pytest.raises(Interrupted):
                train(interrupted, loaders=own, model=make_model(), share_pretraining=False, **settings)
            resumed = Recorder(interrupted.states[epoch])
            assert train(resumed, loaders=own, model=make_model(), share_pretraining=False, **settings) == expected
            assert [progress.epoch for progress in resumed.progress] == list(range(epoch + 1, 5))

    def test_a_shared_pretraining_gives_the_same_bytes(self):
        fresh = train(model=make_model(), loaders=movie_loaders_in_memory, **SHORT)
        shared = Recorder(record=False)
        assert train(shared, model=make_model(), loaders=movie_loaders_in_memory, **SHORT) == fresh
        assert [progress.epoch for progress in shared.progress] == [3, 4]

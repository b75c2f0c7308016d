"""Trainings on retina movies: baseline and DECEMber, through nnfabrik's builder as a worker runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnfabrik import builder

from december_plugin.embeddings.readout_vectors import readout_embeddings, unit_ids_of
from december_plugin.evaluation.predictions import predict_sessions, predict_tier, repeated_clips
from december_plugin.trainers import baseline_trainer, december_trainer
from helpers.retina_files import GEOMETRY, Hoefling

QUICK = {"pretrain_epochs": 2, "max_iter": 4, "share_pretraining": False, "verbose": False, "lr_init": 0.01}
SMALL = {
    "hidden_channels": [4, 4],
    "temporal_kernels": [9, 6],
    "spatial_kernels": [3, 3],
    "gamma_temporal": 1.0,
    "gamma_readout": 0.1,
    "gamma_masks": 0.1,
}
MODEL = "december_plugin.models.hoefling_core_gaussian_readout"


@pytest.fixture(scope="module")
def mouse(hoefling: Hoefling) -> tuple[dict, dict]:
    """Return loaders of one retina and its description."""
    config = {
        "responses_path": str(hoefling.responses),
        "movie_path": str(hoefling.movie),
        "sessions": ["session_*_20201021"],
        "batch_size": 32,
    }
    function = "december_plugin.datasets.hoefling_2024_loaders"
    return builder.get_data(function, config), builder.get_data(function, {**config, "return_data_info": True})


def build(loaders: dict, **settings: Any) -> torch.nn.Module:
    return builder.get_model(MODEL, {**SMALL, **settings}, dataloaders=loaders, seed=1)


def test_the_baseline_learns_what_the_neurons_follow(mouse: tuple[dict, dict]) -> None:
    loaders, info = mouse
    settings = {**QUICK, "pretrain_epochs": 0, "max_iter": 5, "lr_init": 0.02}
    score, output, state_dict = baseline_trainer(build(loaders), loaders, 1, **settings)
    assert score > 0.3
    assert score > 1.5 * output["curves"]["validation_correlation"][0]
    assert output["trainer"] == "baseline"
    # The state dict goes into a model built without data, as the tables do.
    model = builder.get_model(MODEL, SMALL, data_info=info, seed=0)
    model.load_state_dict(state_dict)
    correlations = []
    for responses, predictions in predict_tier(model, loaders["test"]).values():
        assert responses.shape == predictions.shape == (750 - 13, responses.shape[1])
        correlations += [np.corrcoef(r, p)[0, 1] for r, p in zip(responses.T, predictions.T, strict=True)]
    assert len(correlations) == 10
    assert np.mean(correlations) > 0.3


def test_december_clusters_the_readout_vectors(mouse: tuple[dict, dict]) -> None:
    loaders, _ = mouse
    model = build(loaders, readout_regularizer="adaptive_log_norm")
    score, output, state_dict = december_trainer(model, loaders, 1, n_clusters=2, strength=1.0, **QUICK)
    assert np.isfinite(score)
    assert output["curves"]["phase"].tolist() == [0, 0, 1, 1]
    assert np.isfinite(output["curves"]["clustering_loss"][2:]).all()
    assert output["mixture"]["centers"].shape == (2, 4)
    embeddings = readout_embeddings(state_dict, unit_ids=unit_ids_of(loaders))
    assert embeddings.vectors.shape == (10, 4)
    assert {key: len(ids["unit_ids"]) for key, ids in output["neurons"].items()} == {
        "session_1_ventral1_20201021": 6,
        "session_2_ventral1_20201021": 4,
    }


def test_the_same_seed_gives_the_same_training(mouse: tuple[dict, dict]) -> None:
    loaders, _ = mouse
    settings = {**QUICK, "pretrain_epochs": 1, "max_iter": 2, "n_clusters": 2, "strength": 1.0}
    first, again, other = (december_trainer(build(loaders), loaders, seed, **settings)[2] for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_marmoset_retina_trains_too(sridhar: Path) -> None:
    config = {
        "path": str(sridhar),
        "retinas": ["01"],
        "batch_size": 4,
        "chunk_frames": 10,
        "lead_frames": 5,
        **GEOMETRY,
    }
    loaders = builder.get_data("december_plugin.datasets.sridhar_2025_loaders", config)
    model = build(loaders, temporal_kernels=[4, 3])
    score, output, _ = december_trainer(model, loaders, 1, n_clusters=2, **QUICK)
    assert np.isfinite(score)
    assert output["neurons"]["retina_01"]["unit_ids"].tolist() == [0, 1, 2, 3, 4]
    responses, predictions = predict_tier(model, loaders["test"])["retina_01"]
    # 7 stretches of 10 predicted frames, after a lead of 5 each.
    assert responses.shape == predictions.shape == (70, 5)


def test_single_repeats_are_found_behind_the_means(hoefling_loaders: dict, sridhar_loaders: dict) -> None:
    cases = [("session_1_ventral1_20201021", hoefling_loaders, [9, 6], 3), ("retina_01", sridhar_loaders, [4, 3], 10)]
    for data_key, loaders, kernels, n_repeats in cases:
        model = build(loaders, temporal_kernels=kernels)
        loader = loaders["test"][data_key]
        session = predict_sessions(model, {data_key: loader})[data_key]
        responses, predictions, stimulus_ids = repeated_clips(session, loader)
        assert len(responses) == len(predictions) == len(stimulus_ids) == n_repeats * len(session.responses)
        lost = sum(kernels) - 2
        for repeat in range(n_repeats):
            rows = slice(repeat * len(session.responses), (repeat + 1) * len(session.responses))
            expected = [
                loader.dataset.responses_by_repeat[repeat, start + lost : start + loader.dataset.chunk]
                for start in loader.dataset.starts
            ]
            np.testing.assert_array_equal(responses[rows], torch.cat(expected))
            np.testing.assert_array_equal(predictions[rows], session.predictions)
            np.testing.assert_array_equal(stimulus_ids[rows], np.arange(len(session.responses)))
        means = responses.reshape(n_repeats, *session.responses.shape).mean(axis=0)
        np.testing.assert_allclose(means, session.responses, rtol=1e-4, atol=1e-5)

"""The page on maximally exciting images: its code runs, one block after the other."""

from collections import namedtuple

import numpy as np
import torch

from december_plugin import models
from helpers import pages

N = 6


class Loader(list):
    """Batches, and the unit ids of the recording."""


def build(seed):
    info = {"session1": {"input_dimensions": [1, 1, 36, 64], "output_dimension": N}}
    model = models.stacked_core_gaussian_readout(
        *(None, seed),
        data_info=info,
        hidden_channels=2,
        layers=1,
        input_kern=7,
        hidden_kern=3,
        grid_mean_predictor=None,
        bias_start="zero",
    )
    model.readout["session1"].features.data.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def test_the_code_of_the_page_runs():
    batch = namedtuple("Batch", ("images", "responses"))(torch.zeros(2, 1, 36, 64), torch.zeros(2, N))
    loader = Loader([batch])
    loader.dataset = namedtuple("Dataset", "neurons")(namedtuple("Neurons", "unit_ids")(np.arange(10, 10 + N)))
    names = {
        "model": build(0),
        "other_seed": build(1),
        "dataloaders": {"train": {"session1": loader}},
        "clusters": np.array([0, 0, 0, 1, 1, 1]),
        "test_correlations": np.array([0.9, 0.8, 0.4, 0.9, 0.7, 0.75]),
        "filters": np.random.default_rng(0).normal(size=(N, 9, 9)),
    }
    for block in pages.claim("docs/maximally-exciting-images.md", "python"):
        block.run(names)
    assert names["exciting"].neuron_ids.unit_ids.tolist() == list(range(10, 10 + N))
    assert names["both"].images.shape == (N, 1, 36, 64)
    assert np.abs(names["smooth"].images).max() <= 2
    assert names["confusion"].at.tolist() == [0, 1, 3, 4, 5]
    assert names["match"].correlations.shape == (N,)
    assert len(names["figure"].axes) == 2

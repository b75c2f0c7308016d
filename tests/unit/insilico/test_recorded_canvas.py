"""Grey, contrast, behaviour and length of clips, as a model was trained on them."""

import numpy as np
import pytest
import torch
from torch import nn

from december_plugin import models
from december_plugin.errors import StimulusError
from december_plugin.insilico.recorded_canvas import recorded_canvas
from helpers.clips import MODEL, movie_loaders_in_memory


def batches(*sizes, seed=0, shape=(1, 6, 7), behaviour=()):
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        images = 100 + 20 * rng.normal(size=(n, *shape))
        others = [np.full((n, 1, *shape[1:]), value) for value in behaviour]
        found.append({"images": torch.as_tensor(np.concatenate([images, *others], axis=1), dtype=torch.float32)})
    return found


def test_grey_and_contrast_are_those_of_the_training_images():
    loaders = {"train": {"a": batches(4, 5), "b": batches(8, seed=1)}, "test": {}}
    images = torch.cat([batch["images"] for loader in loaders["train"].values() for batch in loader])
    canvas, norm = recorded_canvas(nn.Identity(), loaders, ["a", "b"])
    assert (canvas.shape, canvas.image_channels, canvas.behavior) == ((1, 6, 7), 1, ())
    assert canvas.grey == pytest.approx(float(images.double().mean()))
    assert norm == pytest.approx(0.5 * float(images.double().std(correction=0)) * np.sqrt(42))


def test_channels_of_behaviour_are_told_from_images_and_keep_their_mean():
    loaders = {"a": batches(6, behaviour=(2.0, -1.0)), "b": batches(6, seed=1, behaviour=(4.0, -1.0))}
    canvas, norm = recorded_canvas(nn.Identity(), loaders, ["a", "b"])
    assert (canvas.shape, canvas.image_channels) == ((3, 6, 7), 1)
    assert canvas.behavior == pytest.approx((3, -1))
    pixels = torch.cat([loader[0]["images"][:, :1] for loader in loaders.values()]).double()
    assert (canvas.grey, norm) == pytest.approx((float(pixels.mean()), 0.5 * float(pixels.std(correction=0)) * 42**0.5))


def test_clips_are_as_long_as_the_model_needs():
    loaders = movie_loaders_in_memory()
    model = models.movie_core_gaussian_readout(loaders, 1, **MODEL)
    canvas, norm = recorded_canvas(model, loaders, ["one", "two"])
    assert canvas.shape == (1, 5, 10, 11)  # two kernels of 3 frames
    assert norm == pytest.approx(0.5 * np.sqrt(550), rel=0.02)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, *canvas.shape), data_key="one").shape[1] == 1


class Remembers(nn.Module):
    """Responds to the mean of all frames so far."""

    def __init__(self, n_frames=None):
        super().__init__()
        self.gain, self.n_frames = nn.Parameter(torch.ones(1)), n_frames

    def forward(self, videos, data_key=None):
        start = 0 if self.n_frames is None else -self.n_frames
        return self.gain * videos[:, :, start:].mean(dim=(1, 2, 3, 4))[:, None, None]


def test_models_that_need_fifty_frames_and_more():
    loaders = movie_loaders_in_memory()
    assert recorded_canvas(Remembers(50), loaders, ["one"]).canvas.n_frames == 50
    with pytest.raises(StimulusError, match="Remembers needs more than 50 frames for one prediction"):
        recorded_canvas(Remembers(), loaders, ["one"])
    model = Remembers(1)
    model.gain.data.zero_()
    with pytest.raises(StimulusError, match="in session 'one' do not change with any frame of noise"):
        recorded_canvas(model, loaders, ["one"])


def test_what_has_no_canvas():
    with pytest.raises(StimulusError, match=r"shapes \('a' 1 x 6 x 7, 'b' 1 x 8 x 7\), so there is no canvas for all"):
        recorded_canvas(nn.Identity(), {"a": batches(3), "b": batches(3, shape=(1, 8, 7))}, ["a", "b"])
    with pytest.raises(StimulusError, match="all pixels of the recording's stimuli are equal"):
        recorded_canvas(nn.Identity(), {"a": [{"images": torch.ones(3, 1, 6, 7)}]}, ["a"])

"""MEI confusion against images that are really turned, moved and shown one by one."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from neuralpredictors.layers.readouts import AttentionReadout, FullFactorized2d, FullGaussian2d
from torch import nn

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico import AscentSettings, Canvas, maximally_exciting_images, mei_confusion
from december_plugin.insilico.exciting_images import ExcitingImages
from december_plugin.insilico.mei_confusion import fits_when_turned
from helpers.insilico_models import FilterReadout, Model, gabor

SIZE = (22, 22)
N = 4


def elu(drives):
    return nn.functional.elu(drives) + 1


def readout_of(kind, maps):
    if kind in ("gaussian", "strided"):
        readout = FullGaussian2d(maps, N, bias=True, init_mu_range=0.15, gauss_type="isotropic")
    elif kind == "dense":
        readout = FullFactorized2d(maps, N, bias=True)
        readout.spatial.data[:] = torch.rand(N, *maps[1:])
    elif kind == "factorized":
        readout = FullFactorized2d(maps, N, bias=True)
        masks = torch.zeros(N, *maps[1:])
        masks[:, 7:11, 8:11] = torch.rand(N, 4, 3)
        readout.spatial.data[:] = masks
    else:
        readout = AttentionReadout(maps, N, bias=True)
        readout.attention[-1].padding = (0, 0)  # neuralpredictors gives a boolean
    for name, parameter in readout.named_parameters():
        if "features" in name or "bias" in name:
            nn.init.normal_(parameter)
    return readout


def build(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core = nn.Sequential(nn.Conv2d(1, 5, 5) if kind != "strided" else nn.Conv2d(1, 5, 4, stride=2), nn.ELU())
        maps = tuple(core(torch.zeros(1, 1, *SIZE)).shape[1:])
        model = Model({"a": readout_of(kind, maps)}, core=core, nonlinearity=elu)
    return model.eval()


def made_up(n=N, size=SIZE, center=(1.0, -2.0)):
    """Return images of which only the middle is not empty, as if they had been found."""
    images = np.zeros((n, 1, *size), dtype=np.float32)
    for number in range(n):
        full = gabor(size, 0.7 * number, number, center=center)
        y, x = np.mgrid[: size[0], : size[1]]
        middle = (size[0] - 1) / 2 + center[0], (size[1] - 1) / 2 + center[1]
        images[number, 0] = np.where(np.hypot(y - middle[0], x - middle[1]) < 4, full, 0)
    return ExcitingImages(
        images=images,
        neuron_ids=NeuronIds.of({"a": np.arange(n)}),
        activities=np.linspace(1, 2, n),
        norms=np.ones(n),
        endings=np.full(n, "converged"),
        n_steps=np.ones(n, dtype=np.int64),
        start_activities=np.ones((n, 1)),
        canvas=Canvas((1, *size)),
    )


def pushed(image, dy, dx):
    """Return an image moved down and to the right; 0 comes in at the edges."""
    height, width = image.shape
    edge = max(SIZE)
    return np.pad(image, edge)[edge - dy : edge - dy + height, edge - dx : edge - dx + width]


def responses_of(models, shown):
    with torch.no_grad():
        images = torch.from_numpy(np.stack(shown)[:, None])
        return np.mean([model(images, data_key="a").numpy() for model in models], axis=0)


def brute_force(models, exciting, shifts, n_angles):
    """Show every image, turned and moved; quarter turns alone, so that nothing is interpolated."""
    best = np.full((N, N), -np.inf)
    for i, image in enumerate(exciting.images):
        middle = pushed(image[0], -1, 2)
        turned = [np.rot90(middle, 4 // n_angles * quarter) for quarter in range(n_angles)]
        shown = [pushed(each, dy, dx) for each in turned for dy in shifts for dx in shifts]
        best[i] = responses_of(models, shown).max(axis=0)
    return best / exciting.activities


@pytest.mark.parametrize("kind", ["gaussian", "factorized"])
def test_neurons_respond_as_to_images_that_are_turned_and_moved(kind):
    model, exciting = build(kind), made_up()
    found = mei_confusion(model, exciting, n_angles=4, most_shift=6)
    # Around every receptive field within 6 pixels: the best place is among the inner ones, so a wider range is equal.
    assert found.values == pytest.approx(brute_force([model], exciting, range(-6, 7), 4), rel=1e-4)
    assert np.isin(found.angles, [0, 90, 180, 270]).all()
    for i in range(N):
        for j in range(N):
            quarter, (dy, dx) = round(found.angles[i, j] / 90), found.shifts[i, j] - [-1, 2]
            shown = pushed(np.rot90(pushed(exciting.images[i, 0], -1, 2), quarter), dy, dx)
            response = responses_of([model], [shown])[0, j]
            assert response / exciting.activities[j] == pytest.approx(found.values[i, j], rel=1e-4)


@pytest.mark.parametrize(("kind", "most_shift"), [("dense", 3), ("strided", None), ("factorized", 30)])
def test_images_that_are_really_moved_as_is_said_drive_neurons_as_is_said(kind, most_shift):
    model, exciting = build(kind), made_up()
    found = mei_confusion(model, exciting, n_angles=2, most_shift=most_shift)
    for i in range(N):
        for j in range(N):
            quarter, (dy, dx) = round(found.angles[i, j] / 90), found.shifts[i, j] - [-1, 2]
            shown = pushed(np.rot90(pushed(exciting.images[i, 0], -1, 2), quarter), dy, dx)
            response = responses_of([model], [shown])[0, j]
            assert response / exciting.activities[j] == pytest.approx(found.values[i, j], rel=1e-4)


def test_images_are_moved_by_single_pixels_about_the_best_place_of_a_coarse_grid(monkeypatch):
    size = (21, 21)
    planted = np.stack([gabor(size, angle, wavelength=14.0, sd=3.0, center=(1, -2)) for angle in (0.2, 1.1)])
    model = Model({"a": FilterReadout(planted[:, None])}, nonlinearity=elu)
    settings = AscentSettings(norm=3.0, n_starts=1, tolerance=1e-6)
    exciting = maximally_exciting_images(model, {"a": range(2)}, (1, *size), settings=settings)
    fine = mei_confusion(model, exciting, n_angles=1)
    monkeypatch.setattr(sys.modules["december_plugin.insilico.mei_confusion"], "GRID", 5)
    coarse = mei_confusion(model, exciting, n_angles=1)
    assert coarse.values == pytest.approx(fine.values, rel=1e-5)
    assert (coarse.shifts == fine.shifts).all()
    assert np.diag(coarse.values).min() > 0.98


def test_an_ensemble_sees_one_and_the_same_moved_image():
    models, exciting = [build("gaussian", 0), build("gaussian", 1)], made_up()
    found = mei_confusion(models, exciting, n_angles=2, most_shift=7)
    assert found.values == pytest.approx(brute_force(models, exciting, range(-7, 8), 2), rel=1e-4)


def test_neurons_with_attention_are_shown_the_moved_images():
    model, exciting = build("attention"), made_up()
    found = mei_confusion(model, exciting, n_angles=1)
    assert found.values == pytest.approx(brute_force([model], exciting, range(-11, 12), 1), rel=1e-4)


def test_rotated_filters_of_one_shape_are_taken_for_the_same():
    size = (17, 17)
    planted = [gabor(size, np.pi / 2 * k, center=(k, -k)) for k in range(2)]
    planted += [gabor(size, np.pi / 2 * k, wavelength=9.0, sd=1.2, center=(-k, 0)) for k in range(2)]
    model = Model({"a": FilterReadout(np.stack(planted)[:, None])}, nonlinearity=elu)
    settings = AscentSettings(norm=3.0, n_starts=1, tolerance=1e-6)
    exciting = maximally_exciting_images(model, {"a": range(4)}, (1, *size), settings=settings)
    found = mei_confusion(model, exciting, n_angles=4)
    same = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    assert found.values[same] == pytest.approx(1, abs=0.03)
    assert found.values[~same].max() < 0.85


def test_only_neurons_that_are_predicted_well_enough_are_compared():
    exciting = made_up()
    found = mei_confusion(build("gaussian"), exciting, n_angles=1, test_correlations=[0.71, np.nan, 0.2, 0.7])
    assert found.at.tolist() == [0, 3]
    assert found.neuron_ids.unit_ids.tolist() == [0, 3]
    everybody = mei_confusion(build("gaussian"), exciting, n_angles=1)
    assert found.values == pytest.approx(everybody.values[np.ix_([0, 3], [0, 3])])
    with pytest.raises(StimulusError, match=r"test correlation of at least 0.7; the best has 0.30"):
        mei_confusion(build("gaussian"), exciting, test_correlations=[0.3, 0.1, np.nan, 0])
    with pytest.raises(SettingsError, match="one for each of the 4 images"):
        mei_confusion(build("gaussian"), exciting, test_correlations=[0.3])


def test_images_that_cannot_be_turned_and_dead_neurons_are_refused():
    wide = made_up(size=(12, 22))
    wide.images[2] = np.random.default_rng(0).normal(size=(12, 22))
    with pytest.raises(StimulusError, match=r"unit 2 of session 'a' has \d+% outside .* Use square images"):
        mei_confusion(build("gaussian"), wide)
    assert fits_when_turned(wide).tolist() == [True, True, False, True]
    assert fits_when_turned(wide, most_outside=1).all()
    assert fits_when_turned(made_up()).all()
    dead = dataclasses.replace(made_up(), endings=np.array(["converged", "dead", "converged", "converged"]))
    with pytest.raises(StimulusError, match="unit 1 of session 'a' does not respond to its own image"):
        mei_confusion(build("gaussian"), dead)
    clips = dataclasses.replace(made_up(), canvas=Canvas((1, 3, *SIZE)))
    with pytest.raises(StimulusError, match="clips of movies cannot be turned"):
        mei_confusion(build("gaussian"), clips)

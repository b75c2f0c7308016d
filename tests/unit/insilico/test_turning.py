"""Images turned and moved."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from december_plugin.insilico.turning import moved, share_outside_the_circle, shifts_to_the_middle, turned


@pytest.mark.parametrize("size", [7, 8])
def test_by_multiples_of_90_degrees_square_images_are_turned_exactly(size):
    images = torch.randn(3, 2, size, size, generator=torch.Generator().manual_seed(0))
    for quarter in range(-4, 5):
        assert torch.equal(turned(images, 90 * quarter), torch.rot90(images, quarter, (-2, -1)))


def test_other_angles_are_those_of_scipy():
    image = np.random.default_rng(0).normal(size=(9, 13))
    expected = scipy.ndimage.rotate(np.pad(image, 8), 33, reshape=False, order=1)[8:-8, 8:-8]
    found = turned(torch.from_numpy(image), 33).numpy()
    y, x = np.mgrid[:9, :13]
    inner = np.hypot(y - 4, x - 6) < 4
    assert found[inner] == pytest.approx(expected[inner], abs=1e-9)


def test_grey_comes_in_at_the_edges():
    assert torch.equal(turned(torch.full((1, 1, 5, 9), 0.5), 90, grey=0.5), torch.full((1, 1, 5, 9), 0.5))
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert torch.equal(moved(image, torch.tensor([[1, -1]]), grey=7.0), torch.tensor([[[[7.0, 7, 7], [1, 2, 7]]]]))


def test_images_are_moved_to_the_middle():
    images = torch.zeros(2, 1, 9, 11)
    images[0, 0, 1, 2], images[1, 0, 8, 10] = 3.0, -2.0
    shifts = shifts_to_the_middle(images)
    assert shifts.tolist() == [[3, 3], [-4, -5]]
    assert torch.equal(moved(images, shifts)[:, 0, 4, 5], torch.tensor([3.0, -2.0]))
    assert share_outside_the_circle(images).tolist() == [0.0, 1.0]

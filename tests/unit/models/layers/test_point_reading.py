"""Fused reading of maps at points on the CPU, against torch's grid_sample."""

from __future__ import annotations

import re

import pytest
import torch

from december_plugin.errors import SettingsError
from december_plugin.models.layers import point_reading, point_rows
from december_plugin.models.layers.point_reading import passes_trial, read_at, reads_fused
from helpers.devices import LargestTensor
from helpers.reading import reading_problem, sampled, with_gradients

IMAGES, CHANNELS, HEIGHT, WIDTH, N = 5, 3, 4, 6, 40
TOLERANCES = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def example(dtype=torch.float64, *, n=N, channels=CHANNELS, images=IMAGES):
    return reading_problem(dtype, images=images, channels=channels, size=(HEIGHT, WIDTH), n=n)


def fused(maps, positions, vectors, **settings):
    return read_at(maps.permute(0, 2, 3, 1), positions, vectors, **settings)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("block", [point_rows.BLOCK, 2 * N])
def test_is_grid_sample_and_a_product(monkeypatch, dtype, tolerance, align_corners, block):
    monkeypatch.setattr(point_rows, "BLOCK", block)
    sources = example(dtype)
    expected = with_gradients(sampled, sources, align_corners=align_corners)
    found = with_gradients(fused, sources, align_corners=align_corners)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("align_corners", [True, False])
def test_gradients_are_those_of_small_changes(align_corners):
    sources = example(n=7, channels=2, images=2)
    sources[1].data[0, :7] = torch.tensor(
        [[-1.1, 0.2], [0.9, 1.3], [0.11, 0.3], [-0.7, -0.8], [1, 2], [-3, 0], [0, 0.5]]
    )
    assert torch.autograd.gradcheck(lambda *inputs: fused(*inputs, align_corners=align_corners), sources)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_one_gradient_alone(needed):
    sources = example()
    every = with_gradients(fused, sources)[1 + needed]
    for number, source in enumerate(sources):
        source.requires_grad_(number == needed)
    fused(*sources).backward(torch.linspace(-1, 1, IMAGES * N, dtype=torch.float64).view(IMAGES, N))
    assert torch.equal(sources[needed].grad, every)


def test_there_are_no_second_gradients():
    sources = example()
    (gradient,) = torch.autograd.grad(fused(*sources).square().sum(), sources[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_same_bytes_each_time():
    sources = example(torch.float32, n=400, channels=32)
    first, second = with_gradients(fused, sources), with_gradients(fused, sources)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_position_that_is_not_a_number_spoils_its_neuron_alone():
    sources = example()
    sources[1].data[2, 5, 0] = float("nan")
    responses = fused(*sources)
    assert responses.isnan().nonzero().tolist() == [[2, 5]]


def test_maps_in_half_precision_are_read_in_full():
    maps, positions, vectors = example(torch.float32)
    halved = maps.detach().bfloat16().requires_grad_()
    responses = fused(halved, positions, vectors)
    assert responses.dtype == torch.float32
    torch.testing.assert_close(responses, sampled(halved.float(), positions, vectors), rtol=1e-5, atol=1e-5)
    responses.sum().backward()
    assert halved.grad.dtype == torch.bfloat16
    assert fused(halved, positions, vectors.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_maps_lies_in_memory_as_they_do(memory_format):
    maps, positions, vectors = example()
    maps = maps.detach().contiguous(memory_format=memory_format).requires_grad_()
    responses = fused(maps, positions, vectors)
    assert torch.autograd.grad(responses.sum(), maps)[0].stride() == maps.stride()


def test_no_tensor_has_images_times_channels_times_neurons(monkeypatch):
    monkeypatch.setattr(point_rows, "BLOCK", 400)
    images, channels, n = 8, 32, 400
    sources = example(torch.float32, n=n, channels=channels, images=images)
    for read, fits in ((fused, True), (sampled, False)):
        with LargestTensor() as largest:
            with_gradients(read, sources)
        assert (largest.numbers < images * channels * n / 4) == fits
        assert (largest.numbers >= images * channels * n) != fits


class TestChoice:
    small, large = torch.empty(8, 16, 5, 5), torch.empty(128, 64, 28, 56, device="meta")

    def test_by_name(self):
        assert reads_fused("fused", self.small, 3)
        assert not reads_fused("grid_sample", self.small, 3)
        message = "readout_kernel is 'fuse'. Did you mean 'fused'? Allowed: auto, fused, grid_sample."
        with pytest.raises(SettingsError, match=re.escape(message)):
            reads_fused("fuse", self.small, 3)

    def test_small_models_on_the_cpu_keep_grid_sample(self):
        assert not reads_fused("auto", self.small, 120)

    @pytest.mark.parametrize(
        ("shape", "n", "expected"),
        [
            ((128, 64, 28, 56), 7800, True),
            ((128, 64, 28, 56), 1000, False),
            ((128, 16, 28, 56), 7800, False),
            ((4, 64, 28, 56), 7800, False),
            ((16, 32, 10, 10), 5000, True),
        ],
    )
    def test_large_ones_on_the_cpu_are_fused(self, shape, n, expected):
        assert reads_fused("auto", torch.empty(1).expand(shape), n) == expected

    def test_frames_count_as_images(self):
        movies = torch.empty(1).expand(4, 32, 20, 6, 6)
        assert not reads_fused("auto", movies, 1000)
        assert reads_fused("auto", movies, 1000, frames=20)

    def test_other_devices_have_none(self):
        assert not reads_fused("fused", self.large, 7800)


class TestTrial:
    @pytest.fixture(autouse=True)
    def _fresh(self):
        passes_trial.cache_clear()
        yield
        passes_trial.cache_clear()

    def test_draws_no_random_numbers(self):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        with torch.no_grad():
            assert passes_trial(torch.device("cpu"))
        assert torch.equal(torch.rand(1), expected)

    @pytest.mark.filterwarnings("error")
    def test_is_silent_where_it_is_passed(self):
        point_rows._expect_sparse.cache_clear()
        assert passes_trial(torch.device("cpu"))

    def test_a_kernel_that_does_not_run_is_left_with_a_warning(self, monkeypatch):
        monkeypatch.setitem(point_reading.FUSED, "cpu", ("no_such_kernel", "Reading"))
        message = (
            "The fused readout cannot be used on cpu (ModuleNotFoundError: No module named "
            "'december_plugin.models.layers.no_such_kernel'); grid_sample reads the maps instead, which is slower and "
            "takes more memory. Results are the same to rounding. readout_kernel='grid_sample' selects it without "
            "a warning."
        )
        with pytest.warns(UserWarning, match=re.escape(message)) as warned:
            answers = [reads_fused("fused", torch.empty(2, 3, 4, 5), 6) for _ in range(2)]
        assert answers == [False, False]
        assert len(warned) == 1

    def test_nor_is_one_used_that_is_wrong(self, monkeypatch):
        monkeypatch.setattr(point_reading, "read_at", lambda *sources: 2 * read_at(*sources))
        with pytest.warns(UserWarning, match=r"\(in a trial its results were off by [0-9.]+\)"):
            assert not passes_trial(torch.device("cpu"))

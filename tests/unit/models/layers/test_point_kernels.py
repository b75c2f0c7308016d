"""The readout's Triton kernels: in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import os

import pytest
import torch

from december_plugin.models.layers.point_reading import passes_trial, read_at, reads_fused
from helpers.devices import NoWaiting
from helpers.reading import largest_error, reading_problem, sampled, with_gradients

pytest.importorskip("triton")
interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter")
TOLERANCES = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def by_kernels(maps, positions, vectors, *, align_corners=True):
    from december_plugin.models.layers.point_kernels import KernelReading

    return KernelReading.apply(maps.permute(0, 2, 3, 1), positions, vectors, align_corners)


def fused(maps, positions, vectors):
    return read_at(maps.permute(0, 2, 3, 1), positions, vectors)


@interpreted
class TestInterpreted:
    @pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
    @pytest.mark.parametrize("align_corners", [True, False])
    def test_is_grid_sample_and_a_product(self, dtype, tolerance, align_corners):
        sources = reading_problem(dtype, images=2, channels=3, size=(2, 3), n=13)
        expected = with_gradients(sampled, sources, align_corners=align_corners)
        found = with_gradients(by_kernels, sources, align_corners=align_corners)
        assert largest_error(found, expected) < tolerance

    def test_neurons_and_pixels_of_several_programs(self, monkeypatch):
        from december_plugin.models.layers import point_kernels

        for name, number in (("TILE", 8), ("POINTS", 2), ("SORTED", 4), ("PROGRAMS", 4)):
            monkeypatch.setattr(point_kernels, name, number)
        sources = reading_problem(torch.float64, images=3, channels=4, size=(1, 2), n=5)
        assert largest_error(with_gradients(by_kernels, sources), with_gradients(sampled, sources)) < 1e-10

    def test_the_host_waits_for_nothing_and_the_bytes_are_the_same_each_time(self):
        sources = reading_problem(torch.float32, images=2, channels=2, size=(2, 2), n=11)
        with NoWaiting():
            first, second = with_gradients(by_kernels, sources), with_gradients(by_kernels, sources)
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_maps_in_half_precision_are_read_in_full(self):
        maps, positions, vectors = reading_problem(torch.float32, images=1, channels=2, size=(2, 2), n=5)
        halved = maps.detach().bfloat16().requires_grad_()
        responses = by_kernels(halved, positions, vectors)
        torch.testing.assert_close(responses, sampled(halved.float(), positions, vectors), rtol=1e-5, atol=1e-5)
        responses.sum().backward()
        assert halved.grad.dtype == torch.bfloat16

    def test_a_position_that_is_not_a_number_spoils_its_neuron_alone(self):
        sources = reading_problem(torch.float32, images=1, channels=2, size=(2, 2), n=5)
        sources[1].data[0, 3, 1] = float("nan")
        assert by_kernels(*sources).isnan().nonzero().tolist() == [[0, 3]]


@pytest.mark.gpu
class TestOnAGpu:
    sizes = {"images": 9, "channels": 48, "size": (11, 14), "n": 700}  # noqa: RUF012

    def test_passes_its_trial_and_is_the_default(self):
        assert passes_trial(torch.device("cuda", torch.cuda.current_device()))
        assert reads_fused("auto", torch.empty(2, 3, 4, 5, device="cuda"), 6)

    @pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
    def test_is_grid_sample_and_a_product_in_float64_on_the_cpu(self, dtype, tolerance):
        expected = with_gradients(sampled, reading_problem(torch.float64, **self.sizes))
        found = with_gradients(fused, reading_problem(dtype, device="cuda", **self.sizes))
        assert largest_error(found, expected) < tolerance

    def test_same_bytes_each_time(self):
        sources = reading_problem(torch.float32, device="cuda", **self.sizes)
        first, second = with_gradients(fused, sources), with_gradients(fused, sources)
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_in_a_recorded_graph(self):
        sources = reading_problem(torch.float32, device="cuda", **self.sizes)
        expected = with_gradients(fused, sources)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = with_gradients(fused, sources)
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

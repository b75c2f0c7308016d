"""The readout's Triton kernels: in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from december_plugin.models.layers.point_reading import passes_trial, read_at, reads_fused

TESTS = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def results():
    done = subprocess.run(
        [sys.executable, "-m", "helpers.interpreted_kernels"],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    # It fails as well where the host would wait for a GPU.
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.slow(6)
class TestInterpreted:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
    def test_is_grid_sample_and_a_product(self, results, dtype, tolerance):
        assert max(results[dtype]["off"].values()) < tolerance

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_same_bytes_each_time(self, results, dtype):
        assert results[dtype]["again"]

    def test_maps_in_half_precision_are_read_in_full(self, results):
        assert results["half"] < 1e-5


def problem(device, dtype=torch.float32):
    """Return maps (images, channels, height, width), positions in and beyond them, and vectors."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((9, 48, 11, 14), (9, 700, 2), (700, 48))
    drawn = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [each.to(device, dtype).requires_grad_() for each in drawn]


def with_gradients(maps, positions, vectors):
    responses = read_at(maps.permute(0, 2, 3, 1), positions, vectors)
    upstream = torch.linspace(-1, 1, responses.numel(), dtype=responses.dtype, device=responses.device)
    return [responses, *torch.autograd.grad(responses, (maps, positions, vectors), upstream.view_as(responses))]


@pytest.mark.gpu
class TestOnAGpu:
    def test_passes_its_trial_and_is_the_default(self):
        assert passes_trial(torch.device("cuda", torch.cuda.current_device()))
        assert reads_fused("auto", torch.empty(2, 3, 4, 5, device="cuda"), 6)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    def test_is_the_reading_of_the_cpu_in_float64(self, dtype, tolerance):
        expected = with_gradients(*problem("cpu", torch.float64))
        found = with_gradients(*problem("cuda", dtype))
        for one, other in zip(found, expected, strict=True):
            off = (one.detach().cpu().double() - other.detach()).abs().max() / other.detach().abs().max()
            assert off < tolerance

    def test_same_bytes_each_time(self):
        first, second = with_gradients(*problem("cuda")), with_gradients(*problem("cuda"))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_in_a_recorded_graph(self):
        sources = problem("cuda")
        expected = [each.detach().clone() for each in with_gradients(*sources)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = with_gradients(*sources)
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(one.detach(), other) for one, other in zip(found, expected, strict=True))

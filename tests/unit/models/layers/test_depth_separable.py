"""Depth-separable convolutions by other ways than torch's: in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import pytest
import torch
from neuralpredictors.layers.conv import DepthSeparableConv2d as OfNeuralpredictors
from torch import Tensor, nn

from december_plugin.models.layers import depth_separable
from december_plugin.models.layers.depth_separable import (
    DepthSeparableConv2d,
    depthwise,
    is_plain_depthwise,
    passes_trial,
    pointwise,
)
from december_plugin.models.layers.stacked_core import StackedCore
from helpers.devices import NoWaiting
from helpers.reading import largest_error

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter")


def convolutions(*, side=3, bias=True, kind=DepthSeparableConv2d) -> nn.Module:
    torch.manual_seed(0)
    return kind(3, 2, side, padding=side // 2, bias=bias)


def by_parts(layers: nn.Module, maps: Tensor) -> Tensor:
    """Compute what a GPU computes."""
    return pointwise(layers[2], depthwise(layers[1], pointwise(layers[0], maps)))


def differentiated(compute: Callable[[Tensor], Tensor], layers: nn.Module, maps: Tensor) -> list[Tensor]:
    """Return the output and the gradients of maps and parameters."""
    maps = maps.clone().requires_grad_()
    output = compute(maps)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, [maps, *layers.parameters()], upstream)]


def expected_of(layers: nn.Module, maps: Tensor) -> list[Tensor]:
    exact = copy.deepcopy(layers).double().cpu()
    return differentiated(exact, exact, maps.double().cpu())


@pytest.fixture
def without_tf32(monkeypatch):
    """Convolutions of one pixel are products, as they are not where TF32 is allowed."""
    monkeypatch.setattr(depth_separable, "_tf32_is_allowed", lambda: False)


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_one_pixel_are_products(without_tf32, monkeypatch, bias):
    layers, maps = nn.Sequential(convolutions(bias=bias)[0]), torch.randn(3, 3, 4, 5)
    by_product = differentiated(lambda given: pointwise(layers[0], given), layers, maps)
    assert largest_error(by_product, expected_of(layers, maps)) < 1e-5
    monkeypatch.setattr(depth_separable, "_tf32_is_allowed", lambda: True)
    assert torch.equal(pointwise(layers[0], maps), layers(maps))


@pytest.mark.usefixtures("without_tf32")
@interpreted
class TestInterpreted:
    @pytest.mark.parametrize(("side", "size", "images", "bias"), [(3, (3, 4), 3, True), (5, (1, 2), 1, False)])
    def test_is_torchs_convolution(self, monkeypatch, side, size, images, bias):
        from december_plugin.models.layers import depthwise_kernels

        for name, number in (("PIXELS", 8), ("GRADIENT_PIXELS", 8), ("IMAGES", 2)):
            monkeypatch.setattr(depthwise_kernels, name, number)
        layers, maps = convolutions(side=side, bias=bias), torch.randn(images, 3, *size)
        found = differentiated(lambda given: by_parts(layers, given), layers, maps)
        assert largest_error(found, expected_of(layers, maps)) < 1e-5

    def test_the_host_waits_for_nothing_and_the_bytes_are_the_same_each_time(self):
        layers, maps = convolutions(), torch.randn(1, 3, 1, 2)
        passes_trial(maps.device)  # which waits
        with NoWaiting():
            first, second = (differentiated(lambda given: by_parts(layers, given), layers, maps) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_only_plain_depthwise_convolutions_are_replaced():
    def plain(*, channels=4, side=3, **settings) -> bool:
        return is_plain_depthwise(nn.Conv2d(channels, channels, side, **{"groups": 4, "padding": 1, **settings}))

    assert plain()
    assert plain(side=7, padding=3)
    assert plain(padding="same") is False  # of a name, not a number
    others = [{"groups": 1}, {"padding": 0}, {"stride": 2}, {"dilation": 2}, {"padding_mode": "circular"}]
    others += [{"channels": 8}, {"side": 4}, {"side": (3, 5)}, {"side": 17, "padding": 8}]
    assert not any(plain(**other) for other in others)


def test_a_kernel_that_does_not_run_is_told_and_not_used(monkeypatch):
    monkeypatch.setattr(depth_separable.importlib, "import_module", lambda name: 1 / 0)
    message = (
        r"^The kernels for depthwise convolutions cannot be used on cpu \(ZeroDivisionError: .*\); torch's are used"
    )
    with pytest.warns(UserWarning, match=message):
        assert not passes_trial.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(depth_separable, "passes_trial", lambda device: False)
    layers, maps = convolutions(), torch.randn(2, 3, 4, 5)
    assert torch.equal(depthwise(layers[1], layers[0](maps)), layers[1](layers[0](maps)))


def test_on_the_cpu_it_is_neuralpredictors_to_the_last_bit():
    ours, theirs = convolutions(), convolutions(kind=OfNeuralpredictors)
    maps = torch.randn(2, 3, 4, 5)
    found, expected = (differentiated(each, each, maps) for each in (ours, theirs))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.fixture(autouse=True)
    def _without_tf32(self, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def test_passes_its_trial(self):
        assert passes_trial(torch.device("cuda", torch.cuda.current_device()))

    @pytest.mark.parametrize("side", [3, 7])
    def test_is_torchs_convolution_in_float64_on_the_cpu(self, side):
        layers, maps = convolutions(side=side).cuda(), torch.randn(20, 3, 19, 33, device="cuda")
        found = differentiated(layers, layers, maps)
        assert largest_error(found, expected_of(layers, maps)) < 1e-5
        again = differentiated(layers, layers, maps)
        assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))

    def test_a_core_in_bfloat16_has_its_channels_last(self):
        torch.manual_seed(0)
        core = StackedCore(1, 8, 5, 3, layers=3, gamma_input=0.0, stack=-1, depth_separable=True).cuda().eval()
        images = torch.randn(4, 1, 14, 15, device="cuda")
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            output = core(images)
        assert output.is_contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = core.double().cpu()(images.double().cpu())
        torch.testing.assert_close(output.double().cpu(), expected, rtol=0.1, atol=0.1)

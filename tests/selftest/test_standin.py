"""Stand-in weights: what an image shows must reach the last layer."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness.stages import standin


def depthwise(width: int, size: int) -> list[torch.nn.Module]:
    """One inverted residual's branch: depthwise, then a linear bottleneck."""
    return [
        torch.nn.Conv2d(width, width, size, padding=size // 2, groups=width, bias=False),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 1, bias=False),
        torch.nn.BatchNorm2d(width),
    ]


@pytest.mark.parametrize("size", [3, 5])
def test_colours_stay_apart_through_many_depthwise_convolutions(size):
    torch.manual_seed(standin.SEED)
    blocks = itertools.chain.from_iterable(depthwise(24, size) for _ in range(10))
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 3, bias=False), *blocks).eval()
    standin._initialise(torch, module)
    colours = torch.rand(16, 3, 1, 1)
    shots = [colours + 0.2 * torch.randn(16, 3, 10, 10) for _ in range(2)]
    with torch.inference_mode():
        standin._calibrate(torch, module, iter([shots[0]]))
        first, second = (module(shot).mean((2, 3)) for shot in shots)
    nearest = torch.cdist(second, first).argmin(1)
    print((nearest == torch.arange(10)).sum())
    assert (nearest == torch.arange(10)).sum() >= 12


def test_other_convolutions_are_plainly_random():
    for groups in (1, 2):
        part = torch.nn.Conv2d(4, 8, 3, groups=groups)
        torch.manual_seed(1)
        standin._initialise(torch, part)
        torch.manual_seed(1)
        plain = torch.nn.init.kaiming_normal_(torch.empty_like(part.weight))
        assert torch.equal(part.weight, plain)

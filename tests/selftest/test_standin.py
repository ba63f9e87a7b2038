"""Stand-in weights: what an image shows must reach the last layer."""

from __future__ import annotations

import pytest
import torch

from harness.stages import standin


class Block(torch.nn.Module):
    """A residual block with a depthwise convolution; `after` is done to the sum."""

    def __init__(self, after: type[torch.nn.Module], *, inplace: bool = False) -> None:
        super().__init__()
        self.branch = torch.nn.Sequential(
            *(torch.nn.Conv2d(12, 48, 1), torch.nn.BatchNorm2d(48), torch.nn.ReLU()),
            *(torch.nn.Conv2d(48, 48, 5, padding=2, groups=48), torch.nn.BatchNorm2d(48)),
            *(torch.nn.ReLU(), torch.nn.Conv2d(48, 12, 1), torch.nn.BatchNorm2d(12)),
        )
        self.after, self.inplace = after(), inplace

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        branch = self.branch(value)
        total = branch.add_(value) if self.inplace else value + branch
        activated: torch.Tensor = self.after(total)
        return activated


def network(after: type[torch.nn.Module], blocks: int, *, inplace: bool = False) -> torch.nn.Module:
    torch.manual_seed(standin.SEED)
    module = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 12, 3, bias=False), torch.nn.BatchNorm2d(12)),
        *(Block(after, inplace=inplace) for _ in range(blocks)),
        torch.nn.Conv2d(12, 12, 1),
    ).eval()
    standin._initialise(torch, module)
    return module


def gains(module: torch.nn.Module) -> list[float]:
    standin._damp(torch, module, torch.ones(1, 3, 10, 10))
    norms = [one for one in module.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert all(len(norm.weight.unique()) == 1 for norm in norms)
    return [float(norm.weight[0].detach()) for norm in norms]


@pytest.mark.parametrize("inplace", [False, True])
def test_only_branches_of_a_trunk_without_activations_are_damped(inplace):
    linear = network(torch.nn.Identity, 2, inplace=inplace)
    assert gains(linear) == [1.0, *[1.0, 1.0, standin._RESIDUAL_GAIN] * 2]
    assert gains(network(torch.nn.ReLU, 2, inplace=inplace)) == [1.0] * 7


def test_colours_stay_apart_on_a_trunk_without_activations():
    module = network(torch.nn.Identity, 14)
    colours = torch.rand(16, 3, 1, 1)
    shots = [colours + 0.3 * torch.randn(16, 3, 10, 10) for _ in range(2)]
    standin._damp(torch, module, shots[0][:1])
    with torch.inference_mode():
        standin._calibrate(torch, module, iter([shots[0]]))
        first, second = (module(shot).mean((2, 3)) for shot in shots)
    nearest = torch.cdist(second, first).argmin(1)
    assert (nearest == torch.arange(16)).sum() >= 12

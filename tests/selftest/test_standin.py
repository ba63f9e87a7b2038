"""Stand-in weights: what an image shows must reach the last layer."""

from __future__ import annotations

import pytest
import torch

from harness.catalog.load import load_catalog
from harness.stages import standin
from tests.selftest.running import TINY


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


class Kept(torch.nn.Module):
    """A classifier that keeps a tensor of its first pass, as LeViT keeps its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(12, 1, 1))
        self.body, self.head = network(torch.nn.Identity, 2), torch.nn.Linear(12, 1000)
        self.kept: torch.Tensor | None = None

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = 1.0 * self.scale
        logits: torch.Tensor = self.head((self.body(value) * self.kept).mean((2, 3)))
        return logits


@pytest.fixture
def torch_as_it_was():
    yield
    torch.use_deterministic_algorithms(False)


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


def test_norms_that_the_network_has_frozen_are_left_as_they_are():
    module = network(torch.nn.Identity, 2)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.requires_grad_(False)
    assert gains(module) == [1.0] * 7


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


def test_a_stand_in_of_a_network_that_keeps_tensors_is_made_and_damped(
    tmp_path, monkeypatch, torch_as_it_was
):
    monkeypatch.setattr(standin, "IMAGES_PER_CLASS", 1)
    tiny = load_catalog(TINY).models["tiny"]
    standin.make_standin(
        network=f"python:{__name__}:Kept",
        arguments={},
        layout="plain",
        preprocessing=tiny.preprocessing.model_dump(),
        classes=1000,
        label_offset=0,
        output=str(tmp_path / "kept.pth"),
    )
    state = torch.load(tmp_path / "kept.pth", weights_only=True)
    last = state["body.3.branch.7.weight"]
    assert torch.equal(last, torch.full((12,), standin._RESIDUAL_GAIN))

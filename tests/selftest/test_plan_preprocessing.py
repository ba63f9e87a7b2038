"""`plan` notes preprocessing that no rehearsal can judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.base import jobs, scratch
from harness.base.environment import ROOT
from harness.base.errors import NetworkError
from harness.catalog.load import load_catalog
from harness.catalog.schema import Model
from harness.cli.preprocessing import preprocessing_lines

GUIDES = load_catalog(ROOT / "baselines.yaml").models
IMAGENET = GUIDES["squeezenet1_1"]


def changed(network: str = "torchvision:squeezenet1_1", **steps: dict[str, Any]) -> Model:
    """A model whose preprocessing is ImageNet's usual but for `steps`, from no document."""
    preprocessing = IMAGENET.preprocessing
    parts = {
        name: getattr(preprocessing, name).model_copy(update=update)
        for name, update in steps.items()
    }
    return IMAGENET.model_copy(
        update={
            "network": IMAGENET.network.model_copy(update={"source": network}),
            "preprocessing": preprocessing.model_copy(update={"source": None, **parts}),
        }
    )


def test_the_guides_models_are_not_compared_and_import_nothing(monkeypatch):
    monkeypatch.setattr(jobs, "call", None)
    assert preprocessing_lines(GUIDES.values()) == []


def test_what_it_leaves_when_it_is_killed_is_found_by_the_sweep(monkeypatch):
    folders = []

    def call(*_: object, log: Path, **__: object) -> list[None]:
        folders.append(log.parent)
        return [None]

    monkeypatch.setattr(jobs, "call", call)
    assert preprocessing_lines([changed()]) == []
    assert [folder.name.startswith(scratch.PREFIX) for folder in folders] == [True]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (changed(), ""),
        (changed(resize={"size": 232}), "resize short side 232 and not short side 256"),
        (changed(resize={"op": "resize_square"}), "resize square 256 and not short side 256"),
        (changed(crop={"size": 192}), "crop 192 and not 224"),
        (changed(normalize={"std": (0.5, 0.5, 0.5)}), "std 0.5/0.5/0.5 and not 0.229/"),
        (changed("timm:resnest50d"), ""),
        (changed("timm:inception_v4"), "crop 224 and not 299; resize short side 256 and not short"),
        (changed("timm:seresnext101_32x4d"), "interpolation bilinear and not bicubic"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_differs_from_the_networks_default_is_noted(model, said):
    lines = preprocessing_lines([model])
    assert bool(lines) == bool(said)
    assert said in "".join(lines)


def test_a_file_that_the_library_names_has_its_own_configuration():
    newer = changed("torchvision:resnet50", resize={"size": 232})
    file = newer.checkpoint.model_copy(update={"file": "resnet50-0676ba61.pth"})
    assert preprocessing_lines([newer]) == []
    assert "not short side 256" in "".join(
        preprocessing_lines([newer.model_copy(update={"checkpoint": file})])
    )


def test_a_mean_in_the_order_bgr_is_noted_whatever_says_so():
    model = changed(normalize={"mean": (0.406, 0.456, 0.485)})
    steps = model.preprocessing.model_copy(update={"source": "guide-000"})
    (line,) = preprocessing_lines([model.model_copy(update={"preprocessing": steps})])
    assert "in the order BGR" in line


def test_without_the_libraries_that_is_said(monkeypatch):
    def absent(*_: Any, **__: Any) -> None:
        raise NetworkError("torch is not installed")

    monkeypatch.setattr(jobs, "call", absent)
    (line,) = preprocessing_lines([changed()])
    assert "torch is not installed" in line

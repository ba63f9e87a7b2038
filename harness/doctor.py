"""What a machine has and lacks for each target, and how to get it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness import host
from harness.catalog import Catalog
from harness.errors import HarnessError
from harness.settings import Settings
from harness.targets.onnxruntime import cores, processor

_INSTALL = "pip install -r requirements.txt"
_WHOLE_SET = 50_000
# Artifacts of the five models at two batch sizes, with stand-ins, measured with `cache ls`.
_ARTIFACTS_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that a target needs: there or not."""

    group: str
    what: str
    ok: bool
    found: str
    remedy: str = ""


def examine(settings: Settings, catalog: Catalog) -> tuple[Finding, ...]:
    """Look at this machine. Nothing heavy is imported, nothing is run on a device."""
    return (
        *_python(),
        *_disk(settings, catalog),
        *_real_inputs(settings, catalog),
        *_ascend(),
    )


def _python() -> Iterator[Finding]:
    group = "rehearsal, and target cpu"
    version = sys.version_info[:2]
    yield Finding(
        group,
        "Python 3.11 or 3.12",
        version in ((3, 11), (3, 12)),
        f"{version[0]}.{version[1]}",
        "" if version in ((3, 11), (3, 12)) else "make accept PYTHON=/path/to/python3.12",
    )
    for name, module, why in (
        ("onnxruntime", "onnxruntime", "runs the compiled models"),
        ("onnx", "onnx", "reads ONNX files"),
        ("onnxsim", "onnxsim", "simplifies them"),
        ("torch", "torch", "exports; eager references"),
        ("torchvision", "torchvision", "networks"),
        ("timm", "timm", "networks"),
    ):
        there = importlib.util.find_spec(module) is not None
        needed = "" if there else _INSTALL
        if not there and name in ("torch", "torchvision", "timm"):
            needed += " (not needed with --onnx=MODEL=FILE)"
        yield Finding(group, f"{name}: {why}", there, host.package_version(name), needed)
    name, _ = processor()
    yield Finding(group, "processor", True, f"{name}, {cores()} cores")


def _disk(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    group = "disk"
    place = settings.store
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    enough = free >= _ARTIFACTS_GB
    yield Finding(
        group,
        f"store: about {_ARTIFACTS_GB:g} GB of artifacts",
        enough,
        f"{free:.1f} GB free at {settings.store}",
        "" if enough else "--store=DIR on a larger disk, or python -m harness cache gc",
    )
    for geometry, models in _geometries(catalog).items():
        size = catalog.models[models[0]].preprocessing.size
        need = _WHOLE_SET * size * size * 3 / 1e9
        yield Finding(
            group,
            f"crops of 50,000 images for {', '.join(models)}: {need:.1f} GB",
            free >= need,
            geometry,
            "" if free >= need else "--store=DIR on a larger disk",
        )


def _geometries(catalog: Catalog) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model in catalog.models.values():
        text = model.preprocessing.describe().partition(", mean")[0]
        found.setdefault(text, []).append(model.id)
    return found


def _real_inputs(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    group = "real inputs"
    if settings.imagenet is None:
        yield Finding(
            group,
            "ImageNet validation set",
            False,
            "no folder given",
            "--imagenet=DIR or $IMAGENET_DIR: ILSVRC2012_val_*.JPEG and val_label.txt "
            "(image-net.org, after registration)",
        )
    else:
        from harness.images import dataset

        try:
            images = dataset.find_image_set(settings.imagenet, settings.labels)
        except HarnessError as error:
            yield Finding(group, "ImageNet validation set", False, error.message, error.remedy)
        else:
            yield Finding(
                group,
                "ImageNet validation set",
                True,
                images.describe(),
            )
    for model in catalog.models.values():
        spec = model.checkpoint
        cache = settings.checkpoint_cache or settings.store / "checkpoints"
        places = [folder / spec.file for folder in (settings.checkpoints, cache) if folder]
        path = next((place for place in places if place.is_file()), None)
        there = path is not None
        yield Finding(
            group,
            f"checkpoint of {model.id}: {spec.file}",
            there,
            str(path) if there else f"not in {' or '.join(str(p.parent) for p in places)}",
            "" if there else f"--checkpoints=DIR, or --checkpoint-cache=DIR to fetch {spec.url}",
        )


def _ascend() -> Iterator[Finding]:
    group = "targets ascend310 and ascend310p3"
    yield Finding(
        group,
        "support in this version",
        False,
        "not there yet",
        "this version rehearses and runs the target cpu",
    )
    for tool, why in (("npu-smi", "the driver's tool"), ("atc", "CANN's compiler")):
        found = shutil.which(tool)
        yield Finding(
            group,
            f"{tool}: {why}",
            found is not None,
            found or "not on PATH",
            "" if found else "install the driver and CANN, then source its set_env.sh",
        )

"""The preprocessing for which timm or torchvision supplies a network: its default configuration.

A job (`harness.base.jobs`): it imports the libraries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from harness.networks import library


def default_preprocessing(*, networks: Iterable[tuple[str, str]]) -> list[dict[str, Any] | None]:
    """Return the default preprocessing of each network in the form of the catalog; None where its
    library has none.

    networks: source and checkpoint file of each. A file that the library names has its own.

    Raises `NetworkError`: a library is absent.
    """
    return [_default(source, file) for source, file in networks]


def _default(source: str, file: str) -> dict[str, Any] | None:
    supplier, _, name = source.partition(":")
    if supplier == "torchvision":
        models = library.import_torchvision().models
        weights = list(models.get_model_weights(name))
        chosen = next((one for one in weights if _file(one.url) == file), None)
        if chosen is None and weights:
            chosen = models.get_model_weights(name).DEFAULT
        return None if chosen is None else _of_torchvision(chosen.transforms())
    timm = library.import_timm()
    known = timm.models.get_arch_pretrained_cfgs(name).values()
    config = next((one for one in known if _file(one.url) == file), timm.get_pretrained_cfg(name))
    return None if config is None else _of_timm(config)


def default_steps(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's own preprocessing in the form of the catalog; `given` are options of timm
    in its place: `img_size`, `crop_pct`, `mean` and others. Any network has those that are usual.
    """
    supplier, _, name = source.partition(":")
    steps = _default(source, "") if supplier == "torchvision" else None
    if steps is not None and not any(given.values()):
        return steps
    timm = library.import_timm()
    config = timm.get_pretrained_cfg(name) if supplier == "timm" else None
    known = {} if config is None else {k: v for k, v in vars(config).items() if v is not None}
    if steps is not None:
        size, interpolation = steps["crop"]["size"], steps["resize"]["interpolation"]
        known = {"input_size": (3, size, size), "interpolation": interpolation}
        known |= steps["normalize"]
    return _of_timm(SimpleNamespace(**timm.data.resolve_data_config(given, known)))


def _file(url: Any) -> str:
    return str(url or "").rpartition("/")[2]


def _of_torchvision(steps: Any) -> dict[str, Any]:
    resize = {"op": "resize_short", "size": steps.resize_size[0]}
    return _steps({**resize, "interpolation": steps.interpolation.value}, steps.crop_size[0], steps)


def _of_timm(config: Any) -> dict[str, Any]:
    size = config.input_size[-1]
    resize = {
        "op": "resize_square" if config.crop_mode == "squash" else "resize_short",
        "size": math.floor(size / config.crop_pct),
        "interpolation": config.interpolation,
    }
    return _steps(resize, size, config)


def _steps(resize: dict[str, Any], size: int, config: Any) -> dict[str, Any]:
    return {
        "resize": resize,
        "crop": {"size": size, "offset": "round"},
        "normalize": {"mean": list(config.mean), "std": list(config.std)},
    }

"""What `plan` says of preprocessing that a rehearsal cannot judge: both of its sides share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.base import jobs, scratch
from harness.base.errors import HarnessError, NetworkError
from harness.catalog.schema import Model
from harness.catalog.steps import IMAGENET_MEAN, Preprocessing, Resize

DEADLINE_S = 120.0  # importing PyTorch, timm and torchvision, on a slow disk


def preprocessing_lines(models: Iterable[Model]) -> list[str]:
    """Return a note for each model with a mean in BGR order, or with another preprocessing than the
    default configuration of its network where it names no source of its own.
    """
    chosen = tuple(models)
    lines = [
        f"\nnote: the mean of {model.id} is ImageNet's in the order BGR, and images are fed as RGB"
        for model in chosen
        if _close(model.preprocessing.normalize.mean[::-1], IMAGENET_MEAN)
    ]
    # A draft says itself what it took for granted.
    unsourced = [one for one in chosen if one.preprocessing.source is None and not one.assumed]
    if not unsourced:  # importing the libraries takes seconds
        return lines
    try:
        defaults = _defaults(unsourced)
    except HarnessError as error:
        return [*lines, f"\nnote: preprocessing was not compared with timm's: {error.message}"]
    for model, default in zip(unsourced, defaults, strict=True):
        if default is not None and (differences := _differences(model.preprocessing, default)):
            lines.append(
                f"\nnote: the preprocessing of {model.id} is not the default of "
                f"{model.network.source}: {'; '.join(differences)}; no rehearsal can tell which is "
                "right\n  what to do: correct it, or name its `source` (docs/baselines.md)"
            )
    return lines


def _defaults(models: Iterable[Model]) -> list[dict[str, Any] | None]:
    networks = [(model.network.source, model.checkpoint.file) for model in models]
    with scratch.folder("plan") as folder:
        answer: list[dict[str, Any] | None] = jobs.call(
            "harness.networks.defaults:default_preprocessing",
            {"networks": networks},
            deadline_s=DEADLINE_S,
            log=folder / "job.log",
            error=NetworkError,
            what="looking up default configurations",
        )
    return answer


def _differences(ours: Preprocessing, theirs: Mapping[str, Any]) -> list[str]:
    """Return what differs, e.g. `crop 64 and not 160`."""
    resize, normalize = Resize.model_construct(**theirs["resize"]), theirs["normalize"]
    pairs = {
        "crop": (ours.size, theirs["crop"]["size"]),
        "resize": (ours.resize.describe(), resize.describe()),
        "interpolation": (ours.resize.interpolation, resize.interpolation),
        "mean": (ours.normalize.mean, normalize["mean"]),
        "std": (ours.normalize.std, normalize["std"]),
    }
    return [
        f"{name} {_shown(own)} and not {_shown(other)}"
        for name, (own, other) in pairs.items()
        if not _close(own, other)
    ]


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _shown(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple | list) else str(value)

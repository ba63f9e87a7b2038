"""Usual mistakes in what a network is fed, each as a way to make its input from the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.catalog.schema import Catalog, Model
from harness.catalog.steps import Normalize, Preprocessing
from harness.images import preprocess
from harness.images.preprocess import UInt8
from harness.targets.protocol import Float32

_KNOWN = {
    "ImageNet's mean and std": Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "no mean and std": Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "mean and std of 0.5": Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "pixels of 0 to 255, not scaled": Normalize(
        mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)
    ),
}
_RESIZES = {
    "resize_short": "the short side resized",
    "resize_height": "the height resized",
    "resize_square": "resized to a square",
}


@dataclass(frozen=True)
class Suspect:
    """A mistake: its name, and the input `float32[N, 3, S, S]` that it makes of image files."""

    name: str
    make: Callable[[Pictures], Float32]


class Pictures:
    """A few image files, decoded as often as there are geometries to try.

    `fed` is what the run feeds for them, `float32[N, 3, S, S]`.
    """

    def __init__(self, paths: Sequence[Path], fed: Float32) -> None:
        self.fed = fed
        self._paths = tuple(paths)
        self._crops: dict[tuple[object, object], UInt8] = {}

    def crops(self, steps: Preprocessing) -> UInt8:
        """`uint8[N, S, S, 3]` of the geometry, decoded anew and not from the store.

        Raises:
            DataError: an image that cannot be decoded, by name.
        """
        key = (steps.resize, steps.crop)
        if key not in self._crops:
            while len(self._crops) > 1:  # the catalog's own, which is asked for first, stays
                self._crops.popitem()
            rows = [preprocess.load_crop(path, steps) for path in self._paths]
            self._crops[key] = np.stack(rows)
        return self._crops[key]

    def inputs(self, steps: Preprocessing) -> Float32:
        """`float32[N, 3, S, S]`: the images as `steps` say."""
        table = preprocess.normalization_table(steps.normalize)
        return preprocess.normalize(self.crops(steps), table)


def suspects(model: Model, catalog: Catalog) -> Iterator[Suspect]:
    """What may be wrong with a model's input, the likelier first; each mistake alone."""
    own = model.preprocessing
    yield Suspect("channels swapped (BGR for RGB)", lambda p: p.fed[:, ::-1].copy())
    yield Suspect("channels swapped before the mean and std", lambda p: _bgr_pixels(p, own))
    yield Suspect(
        "mean and std in BGR order",
        lambda p: p.inputs(_with(own, normalize=_reversed(own.normalize))),
    )
    for name, normalize in _normalizations(model, catalog):
        yield Suspect(name, _making(_with(own, normalize=normalize)))
    for name, steps in _geometries(model, catalog):
        yield Suspect(name, _making(steps))
    for other in catalog.models.values():
        if other.id != model.id:
            steps = _scaled(other.preprocessing, own.size)
            yield Suspect(f"the whole preprocessing of {other.id}", _making(steps))


def _making(steps: Preprocessing) -> Callable[[Pictures], Float32]:
    return lambda pictures: pictures.inputs(steps)


def _bgr_pixels(pictures: Pictures, own: Preprocessing) -> Float32:
    table = preprocess.normalization_table(own.normalize)
    return preprocess.normalize(np.ascontiguousarray(pictures.crops(own)[..., ::-1]), table)


def _reversed(normalize: Normalize) -> Normalize:
    mean, std = normalize.mean, normalize.std
    return Normalize(mean=(mean[2], mean[1], mean[0]), std=(std[2], std[1], std[0]))


def _with(steps: Preprocessing, **changes: object) -> Preprocessing:
    return steps.model_copy(update=changes)


def _normalizations(model: Model, catalog: Catalog) -> Iterator[tuple[str, Normalize]]:
    seen = {model.preprocessing.normalize}
    others = [
        (f"mean and std of {other.id}", other.preprocessing.normalize)
        for other in catalog.models.values()
    ]
    for name, one in [*_KNOWN.items(), *others]:
        if one not in seen:
            seen.add(one)
            yield name, one


def _geometries(model: Model, catalog: Catalog) -> Iterator[tuple[str, Preprocessing]]:
    own = model.preprocessing
    resize, crop = own.resize, own.crop
    filters = [one for one in ("bilinear", "bicubic") if one != resize.interpolation]
    for one in filters:
        yield f"{one} interpolation", _with(own, resize=resize.model_copy(update=_filter(one)))
    for op, name in _RESIZES.items():
        if op != resize.op:
            yield name, _with(own, resize=resize.model_copy(update={"op": op}))
    offset = "floor" if crop.offset == "round" else "round"
    yield (
        f"odd margins of the crop by {offset}",
        _with(own, crop=crop.model_copy(update={"offset": offset})),
    )
    for name, size in _sizes(model, catalog.models.values()):
        yield name, _with(own, resize=resize.model_copy(update={"size": size}))


def _scaled(steps: Preprocessing, size: int) -> Preprocessing:
    """Another model's steps in proportion to a crop of `size`."""
    resized = round(size * steps.resize.size / steps.size)
    return _with(
        steps,
        resize=steps.resize.model_copy(update={"size": resized}),
        crop=steps.crop.model_copy(update={"size": size}),
    )


def _filter(name: str) -> dict[str, str]:
    return {"interpolation": name}


def _sizes(model: Model, others: Iterable[Model]) -> Iterator[tuple[str, int]]:
    """Other sizes of the resize: those that other models have in proportion to their crop."""
    own = model.preprocessing
    seen = {own.resize.size}
    found = [(other.id, _scaled(other.preprocessing, own.size).resize.size) for other in others]
    for name, size in [*found, ("", own.size)]:
        if size not in seen:
            seen.add(size)
            by = f", in proportion as {name}" if name else ", the crop's own size"
            yield f"resized to {size}{by}", size

"""Usual mistakes in what a network is fed, each as a way to make its input from the same images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.catalog.schema import Catalog, Model
from harness.catalog.steps import (
    Normalize,
    Preprocessing,
)
from harness.images import preprocess
from harness.images.preprocess import UInt8
from harness.targets.protocol import Float32, Images

_NORMALIZATIONS = {
    "ImageNet's mean and std": Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "no mean and std": Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "mean and std of 0.5": Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "pixels of 0 to 255, not scaled": Normalize(
        mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)
    ),
}


class Pictures:
    """A few image files, decoded as often as there are geometries to try."""

    fed: Images  # what the run feeds for them, in the form of the compiled model's input

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._crops: dict[tuple[object, object], UInt8] = {}

    def crops(self, steps: Preprocessing) -> UInt8:
        """Return `uint8[N, S, S, 3]` of the geometry, decoded anew and not from the store. Raises
        `DataError`: an image that cannot be decoded, by name.
        """
        key = (steps.resize, steps.crop)
        if key not in self._crops:
            while len(self._crops) > 1:  # the catalog's own, which is asked for first, stays
                self._crops.popitem()
            rows = [preprocess.load_crop(path, steps) for path in self._paths]
            self._crops[key] = np.stack(rows)
        return self._crops[key]

    def inputs(self, steps: Preprocessing, *, bgr: bool = False) -> Float32:
        """Return `float32[N, 3, S, S]`: the images as `steps` say; `bgr`: channels swapped."""
        crops = self.crops(steps)
        table = preprocess.normalization_table(steps.normalize)
        return preprocess.normalize(np.ascontiguousarray(crops[..., ::-1]) if bgr else crops, table)


# A mistake: its name, and the input that it makes of image files: `float32[N, 3, S, S]`, or crops
# `uint8[N, S, S, 3]` for a model that normalises them.
Suspect = tuple[str, Callable[[Pictures], Images]]


def suspects(model: Model, catalog: Catalog, *, crops: bool = False) -> Iterator[Suspect]:
    """Yield what may be wrong with a model's input, the likelier first; each mistake alone.

    `crops`: mistakes that crops can show come as crops, those in a mean or std as they are.
    """
    own = model.preprocessing
    exchanged, swapped = (
        "channels swapped (BGR for RGB)",
        "channels swapped before the mean and std",
    )
    if crops:
        yield exchanged, lambda pictures: pictures.inputs(own)[:, ::-1].copy()
        yield swapped, lambda pictures: pictures.crops(own)[..., ::-1].copy()
    else:
        yield exchanged, lambda pictures: pictures.fed[:, ::-1].copy()
        yield swapped, lambda pictures: pictures.inputs(own, bgr=True)
    seen = {own}
    for name, steps in _other_steps(model, catalog):
        if steps in seen:
            continue
        seen.add(steps)
        if crops and steps.normalize == own.normalize:
            yield name, functools.partial(Pictures.crops, steps=steps)
        else:
            yield name, functools.partial(Pictures.inputs, steps=steps)


def _other_steps(model: Model, catalog: Catalog) -> Iterator[tuple[str, Preprocessing]]:
    own = model.preprocessing
    normalize, resize, crop = own.normalize, own.resize, own.crop

    def changed(**parts: object) -> Preprocessing:
        return own.model_copy(update=parts)

    def resized(**changes: object) -> Preprocessing:
        return changed(resize=resize.model_copy(update=changes))

    others = [one for one in catalog.models.values() if one.id != model.id]
    scaled = {one.id: _scaled(one.preprocessing, own.size) for one in others}
    in_bgr = Normalize(mean=normalize.mean[::-1], std=normalize.std[::-1])
    yield "mean and std in BGR order", changed(normalize=in_bgr)
    for name, known in _NORMALIZATIONS.items():
        yield name, changed(normalize=known)
    for one in others:
        yield f"mean and std of {one.id}", changed(normalize=one.preprocessing.normalize)
    for interpolation in ("bilinear", "bicubic"):
        yield f"{interpolation} interpolation", resized(interpolation=interpolation)
    for op, name in (
        ("resize_short", "the short side resized"),
        ("resize_height", "the height resized"),
        ("resize_square", "resized to a square"),
    ):
        yield name, resized(op=op)
    for offset in ("floor", "round"):
        other_crop = crop.model_copy(update={"offset": offset})
        yield f"odd margins of the crop by {offset}", changed(crop=other_crop)
    for id_, steps in scaled.items():
        size = steps.resize.size
        yield f"resized to {size}, in proportion as {id_}", resized(size=size)
    yield f"resized to {own.size}, the crop's own size", resized(size=own.size)
    for id_, steps in scaled.items():
        yield f"the whole preprocessing of {id_}", steps


def _scaled(steps: Preprocessing, size: int) -> Preprocessing:
    """Return another model's steps in proportion to a crop of `size`."""
    resized = round(size * steps.resize.size / steps.size)
    return steps.model_copy(
        update={
            "resize": steps.resize.model_copy(update={"size": resized}),
            "crop": steps.crop.model_copy(update={"size": size}),
        }
    )

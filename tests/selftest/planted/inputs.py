"""Faults in what a network is fed: preprocessing in `baselines.yaml`, in the code, in the feed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageOps

from harness.catalog.steps import Normalize, Preprocessing
from harness.images import preprocess
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.records.measurements import ProblemCode
from harness.targets.protocol import Float32
from tests.selftest.planted import guides
from tests.selftest.planted.altered import Altered
from tests.selftest.planted.guides import ConformanceError
from tests.selftest.planted.rows import Fault, Found, Row, judged, said
from tests.selftest.planted.world import BATCH, World

FLOAT16_BOUND = 3e-2  # what a target that computes in float16 is allowed

Change = Callable[[Preprocessing], Preprocessing]
Patch = Callable[[], contextlib.AbstractContextManager[object]]


def _resize(**changes: Any) -> Change:
    return lambda steps: steps.model_copy(
        update={"resize": steps.resize.model_copy(update=changes)}
    )


def _short(steps: Preprocessing) -> Preprocessing:
    resize = steps.resize.model_copy(update={"op": "resize_short"})
    return steps.model_copy(update={"resize": resize})


def _offset(rule: str) -> Change:
    return lambda steps: steps.model_copy(
        update={"crop": steps.crop.model_copy(update={"offset": rule})}
    )


def _normalize(steps: Preprocessing, mean: Any, std: Any) -> Preprocessing:
    return steps.model_copy(update={"normalize": Normalize(mean=mean, std=std)})


def _reversed(steps: Preprocessing) -> Preprocessing:
    rule = steps.normalize
    return _normalize(steps, rule.mean[::-1], rule.std[::-1])


def _rounded_mean(steps: Preprocessing) -> Preprocessing:
    rule = steps.normalize
    return _normalize(steps, [round(value, 2) for value in rule.mean], rule.std)


def _halves(steps: Preprocessing) -> Preprocessing:
    return _normalize(steps, *guides.HALVES)


def _imagenet(steps: Preprocessing) -> Preprocessing:
    return _normalize(steps, *guides.IMAGENET)


# Conformance: `baselines.yaml` and the code against the guides' scripts ----------------------


def _conform(world: World, models: Mapping[str, Change]) -> Found:
    """Each model with its steps changed, against its script; one that agrees settles a row."""
    files = world.once("photos", lambda: guides.write_photos(world.new_folder()))
    alike, other = [], []
    for name, change in models.items():
        steps = change(world.catalog(name).models[name].preprocessing)
        try:
            alike.append(guides.conform(name, guides.SCRIPTS[name], steps, files))
        except ConformanceError as error:
            other.append(error.message)
    if not alike:
        raise ConformanceError("; ".join(other))
    return said("accepted", "; ".join([*alike, *other]), "preprocessing conformance")


def _as_it_is(steps: Preprocessing) -> Preprocessing:
    return steps


def _declared(change: Change, *models: str) -> Row:
    """The steps of models changed in `baselines.yaml`."""

    def row(world: World, planted: bool) -> Found:
        return _conform(world, dict.fromkeys(models, change if planted else _as_it_is))

    return row


def _code(patch: Patch, model: str) -> Row:
    """The code that carries the steps out changed."""

    def row(world: World, planted: bool) -> Found:
        with patch() if planted else contextlib.nullcontext():
            return _conform(world, {model: _as_it_is})

    return row


def _bilinear_for_bicubic(world: World, planted: bool) -> Found:
    """No guide's script is bicubic: SqueezeNet's with the other filter stands in for one."""
    script = replace(guides.SCRIPTS["squeezenet1_1"], filter=Image.Resampling.BICUBIC)
    filters = {**preprocess._FILTERS, "bicubic": Image.Resampling.BILINEAR}
    with (
        mock.patch.dict(guides.SCRIPTS, {"squeezenet1_1": script}),
        mock.patch.object(preprocess, "_FILTERS", filters) if planted else contextlib.nullcontext(),
    ):
        return _conform(world, {"squeezenet1_1": _resize(interpolation="bicubic")})


@contextlib.contextmanager
def _turned_by_exif() -> Iterator[None]:
    real = preprocess._crop

    def turning(image: Image.Image, steps: Preprocessing) -> Any:
        return real(ImageOps.exif_transpose(image), steps)

    with mock.patch.object(preprocess, "_crop", turning):
        yield


@contextlib.contextmanager
def _rounded_sizes() -> Iterator[None]:
    """The long side rounded, not cut."""
    real = preprocess._resized

    def rounding(steps: Preprocessing, width: int, height: int) -> tuple[int, int]:
        sides = real(steps, width, height)
        scale = steps.resize.size / min(width, height)
        if width > height:
            return round(width * scale), sides[1]
        return sides[0], round(height * scale)

    with mock.patch.object(preprocess, "_resized", rounding):
        yield


# Fidelity: the same faults in the compiled model's path alone -------------------------------


def _feed(model: str, change: Change, bound: float | None = None) -> Row:
    """What the compiled model is fed changed; the eager reference has the catalog's steps.

    `bound`: the relative L2 that is allowed, in place of the CPU's.
    """

    def row(world: World, planted: bool) -> Found:
        case, _ = world.prepared(model)
        steps = case.model.preprocessing
        if planted:
            steps = change(steps)
        feed = Feed(Crops(case.bench.store, case.images(), steps), steps.normalize, BATCH)
        target = case.bench.target
        traits = replace(target.traits, fidelity_bound=bound or target.traits.fidelity_bound)
        with mock.patch.object(target, "traits", traits):
            return judged(world.judge(model, feed=feed))

    return row


def _input(model: str, change: Callable[[Float32], Float32]) -> Row:
    """Each batch changed before it reaches the compiled model."""

    def row(world: World, planted: bool) -> Found:
        session = Altered(world.session(model), inputs=change if planted else None)
        return judged(world.judge(model, session=session))

    return row


def _unscaled(images: Float32) -> Float32:
    return images * np.float32(255)


_LOGITS = ProblemCode.LOGITS_DIFFER
_FEED = "the feed of the compiled model"
_FILE = "`baselines.yaml`"
_CODE = "`preprocess.py`"

FAULTS = (
    Fault("Swapped channels", _FEED, "fidelity", "FAIL", _LOGITS,
          _input("tiny", lambda images: images[:, ::-1].copy())),
    Fault("Mean and std in BGR order", _FEED, "fidelity", "FAIL", _LOGITS,
          _feed("tiny", _reversed)),
    Fault("Mean and std in BGR order, for both sides", _FILE, "preprocessing conformance",
          "error", "squeezenet1_1: 6 of 6 images",
          _declared(_reversed, "squeezenet1_1", "fixres"), "accepted"),
    Fault("Mean and std of another model", _FEED, "fidelity", "FAIL", _LOGITS,
          _feed("tiny", _halves)),
    Fault("Mean and std of another model, for both sides", _FILE, "preprocessing conformance",
          "error", "inceptionv4: 6 of 6 images", _declared(_imagenet, "inceptionv4"), "accepted"),
    Fault("Pixels of 0 to 255", _FEED, "fidelity", "FAIL", _LOGITS,
          _input("tiny", _unscaled)),
    Fault("Bicubic for bilinear", _FEED, "fidelity", "FAIL", _LOGITS,
          _feed("tiny", _resize(interpolation="bicubic"))),
    Fault("Bicubic for bilinear, for both sides", _FILE, "preprocessing conformance", "error",
          "images are not what its guide's script feeds",
          _declared(_resize(interpolation="bicubic"), *guides.SCRIPTS), "accepted"),
    # The stand-in's logits move by less than the 3e-2 that float16 is allowed: no output shows it.
    Fault("Mean rounded to two digits, at float16's bound", _FEED, "preprocessing conformance",
          "FAIL", ProblemCode.OTHER_INPUT, _feed("tiny", _rounded_mean, FLOAT16_BOUND)),
    Fault("Bilinear for bicubic", _FEED, "fidelity", "FAIL", _LOGITS,
          _feed("odd", _resize(interpolation="bilinear"))),
    Fault("Bilinear for bicubic, for both sides", _CODE, "preprocessing conformance", "error",
          "images are not what its guide's script feeds", _bilinear_for_bicubic, "accepted"),
    Fault("Crop rounded the other way", _FEED, "fidelity", "FAIL", _LOGITS,
          _feed("odd", _offset("round"))),
    Fault("Crop rounded the other way, for both sides", _FILE, "preprocessing conformance",
          "error", "inceptionv4: ", _declared(_offset("round"), "inceptionv4"), "accepted"),
    Fault("Short side for height", _FEED, "fidelity", "FAIL", _LOGITS, _feed("odd", _short)),
    Fault("Short side for height, for both sides", _FILE, "preprocessing conformance", "error",
          "upright by", _declared(_short, "fixres"), "accepted"),
    Fault("Short side for a square, for both sides", _FILE, "preprocessing conformance", "error",
          "resnest50: ", _declared(_short, "resnest50"), "accepted"),
    Fault("341 for 342, for both sides", _FILE, "preprocessing conformance", "error",
          "inceptionv4: ", _declared(_resize(size=341), "inceptionv4"), "accepted"),
    Fault("The long side rounded, not cut", _CODE, "preprocessing conformance", "error",
          "seresnext101: ", _code(_rounded_sizes, "seresnext101"), "accepted"),
    Fault("Images turned as EXIF says", _CODE, "preprocessing conformance", "error",
          "1 of 6 images are not what its guide's script feeds: turned",
          _code(_turned_by_exif, "squeezenet1_1"), "accepted"),
)  # fmt: skip

"""Preprocessing against torchvision where both agree, against independent arithmetic elsewhere."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from harness.base.errors import DataError
from harness.catalog.steps import Normalize, Preprocessing
from harness.images.preprocess import (
    crop,
    geometry,
    normalization_table,
    normalize,
    normalize_into,
)

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def steps(
    op: str,
    size: int,
    crop_size: int,
    offset: str = "round",
    interpolation: str = "bilinear",
    normalize: Normalize = IMAGENET,
) -> Preprocessing:
    return Preprocessing.model_validate(
        {
            "resize": {"op": op, "size": size, "interpolation": interpolation},
            "crop": {"size": crop_size, "offset": offset},
            "normalize": normalize,
        }
    )


SHORT = steps("resize_short", 256, 224)
FIXRES = steps("resize_height", 438, 384)


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


# Geometry: figures that were worked out from the guides' scripts by hand.


SIDES = st.integers(1, 400)


@settings(max_examples=300)
@given(SIDES, SIDES, st.integers(8, 40), st.integers(8, 40), st.sampled_from(["round", "floor"]))
def test_geometry_keeps_its_promises(w: int, h: int, size: int, side: int, offset: str) -> None:
    assume(max(w, h) <= 8 * min(w, h))
    for kind in ("resize_short", "resize_height", "resize_square"):
        plan = geometry(steps(kind, size, side, offset), w, h)
        if kind == "resize_square":
            assert plan.resized == (size, size)
        elif kind == "resize_height" or w > h:
            # The exact quotient, cut: no float in between.
            assert plan.resized == (Fraction(size * w, h).__floor__(), size)
        else:
            assert plan.resized == (size, Fraction(size * h, w).__floor__())
        for axis in (0, 1):
            half = Fraction(plan.resized[axis] - side, 2)
            cut = half.__ceil__() if half < 0 else half.__floor__()
            assert plan.crop[axis] == (round(half) if half > 0 and offset == "round" else cut)


def test_geometry_refuses_what_no_guide_was_made_for() -> None:
    assert geometry(SHORT, 8, 1).resized == (2048, 256)
    with pytest.raises(DataError, match="past 8:1"):
        geometry(SHORT, 801, 100)
    with pytest.raises(DataError, match="past 8:1"):
        geometry(FIXRES, 2, 3000)
    with pytest.raises(DataError, match="leaves nothing"):
        geometry(steps("resize_height", 3, 2), 10, 80)
    with pytest.raises(DataError, match="past 8:1"):
        geometry(SHORT, 0, 0)


# Pixels.


def by_hand(image: Image.Image, pre: Preprocessing) -> np.ndarray[Any, Any]:
    """The same by other means: padding by `ImageOps.expand`, the crop by slicing an array."""
    plan = geometry(pre, *image.size)
    method = (
        Image.Resampling.BILINEAR
        if pre.resize.interpolation == "bilinear"
        else Image.Resampling.BICUBIC
    )
    resized = image.convert("RGB").resize(plan.resized, method)
    missing = [max(pre.size - side, 0) for side in plan.resized]
    padding = (*(n // 2 for n in missing), *((n + 1) // 2 for n in missing))
    padded = np.asarray(ImageOps.expand(resized, padding, fill=0))
    left, top = (max(at, 0) for at in plan.crop)
    return padded[top : top + pre.size, left : left + pre.size]


@settings(max_examples=60)
@given(
    SIDES,
    SIDES,
    st.sampled_from(["resize_short", "resize_height", "resize_square"]),
    st.integers(8, 30),
    st.integers(8, 30),
    st.sampled_from(["round", "floor"]),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_crop_is_resize_pad_and_slice(w, h, kind, size, side, offset, interpolation):
    assume(max(w, h) <= 8 * min(w, h))
    pre = steps(kind, size, side, offset, interpolation)
    image = noise_image(w, h, seed=w * 1000 + h)
    got = crop(image, pre)
    assert got.shape == (side, side, 3)
    assert got.dtype == np.uint8
    assert np.array_equal(got, by_hand(image, pre))


def same_bits(left: Any, right: Any) -> bool:
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    both = left.dtype == right.dtype == np.float32
    return bool(both and left.tobytes() == right.tobytes())


# Normalising.


@pytest.mark.parametrize("rule", [IMAGENET, HALF])
def test_the_table_is_the_arithmetic_of_the_guides_scripts(rule: Normalize) -> None:
    image = np.repeat(np.arange(256, dtype=np.float32)[None], 3, axis=0) / 255.0
    image -= np.array(rule.mean, dtype=np.float32)[:, None]
    image /= np.array(rule.std, dtype=np.float32)[:, None]
    assert same_bits(normalization_table(rule), image)


def test_normalize_writes_every_value_of_the_table_into_a_given_buffer() -> None:
    table = normalization_table(IMAGENET)
    crops = (
        np.random.default_rng(0)
        .permutation(np.repeat(np.arange(256, dtype=np.uint8), 3 * 2))
        .reshape(2, 16, 16, 3)
    )
    buffer = np.full((4, 3, 16, 16), np.nan, np.float32)
    normalize_into(crops, table, buffer[1:3])
    for channel in range(3):
        assert same_bits(buffer[1:3, channel], table[channel][crops[..., channel]])
    assert np.isnan(buffer[[0, 3]]).all()
    assert same_bits(buffer[1:3], normalize(crops, table))

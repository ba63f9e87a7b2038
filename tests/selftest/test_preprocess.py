"""Preprocessing against torchvision where both agree, against independent arithmetic elsewhere."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from pydantic import ValidationError

from harness.base.errors import DataError
from harness.images import preprocess
from harness.images.preprocess import (
    MAX_PIXELS,
    Geometry,
    crop,
    geometry,
    load_crop,
    normalization_table,
    normalize,
    normalize_into,
)
from harness.images.steps import (
    CenterCrop,
    Normalize,
    Preprocessing,
    ResizeHeight,
    ResizeShort,
    ResizeSquare,
)

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def steps(
    resize: type[ResizeShort] | type[ResizeHeight] | type[ResizeSquare],
    size: int,
    crop_size: int,
    offset: str = "round",
    interpolation: str = "bilinear",
    normalize: Normalize = IMAGENET,
) -> Preprocessing:
    return Preprocessing.model_validate(
        {
            "resize": resize(size=size, interpolation=interpolation),  # type: ignore[arg-type]
            "crop": CenterCrop(size=crop_size, offset=offset),  # type: ignore[arg-type]
            "normalize": normalize,
        }
    )


SHORT = steps(ResizeShort, 256, 224)
FIXRES = steps(ResizeHeight, 438, 384)
RESNEST = steps(ResizeSquare, 256, 224, "floor")
INCEPTION = steps(ResizeShort, 342, 299, "floor", normalize=HALF)


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


# Geometry: figures that were worked out from the guides' scripts by hand.


@pytest.mark.parametrize(
    ("pre", "size", "expected"),
    [
        (SHORT, (500, 375), Geometry((341, 256), (0, 0, 0, 0), (58, 16))),
        (SHORT, (375, 500), Geometry((256, 341), (0, 0, 0, 0), (16, 58))),
        (SHORT, (256, 300), Geometry((256, 300), (0, 0, 0, 0), (16, 38))),
        (SHORT, (9, 12), Geometry((256, 341), (0, 0, 0, 0), (16, 58))),
        (SHORT, (10, 80), Geometry((256, 2048), (0, 0, 0, 0), (16, 912))),
        (FIXRES, (500, 375), Geometry((584, 438), (0, 0, 0, 0), (100, 27))),
        (FIXRES, (375, 500), Geometry((328, 438), (28, 0, 28, 0), (0, 27))),
        (FIXRES, (333, 500), Geometry((291, 438), (46, 0, 47, 0), (0, 27))),
        (RESNEST, (500, 375), Geometry((256, 256), (0, 0, 0, 0), (16, 16))),
        (INCEPTION, (500, 375), Geometry((456, 342), (0, 0, 0, 0), (78, 21))),
    ],
)
def test_geometry_of_the_guides(
    pre: Preprocessing, size: tuple[int, int], expected: Geometry
) -> None:
    assert geometry(pre, *size) == expected


SIDES = st.integers(1, 400)


@settings(max_examples=300)
@given(SIDES, SIDES, st.integers(8, 40), st.integers(8, 40), st.sampled_from(["round", "floor"]))
def test_geometry_keeps_its_promises(w: int, h: int, size: int, side: int, offset: str) -> None:
    assume(max(w, h) <= 8 * min(w, h))
    for kind in (ResizeShort, ResizeHeight, ResizeSquare):
        plan = geometry(steps(kind, size, side, offset), w, h)
        if kind is ResizeSquare:
            assert plan.resized == (size, size)
        elif kind is ResizeHeight or w > h:
            # The exact quotient, cut: no float in between.
            assert plan.resized == (Fraction(size * w, h).__floor__(), size)
        else:
            assert plan.resized == (size, Fraction(size * h, w).__floor__())
        for axis in (0, 1):
            before, after = plan.padding[axis], plan.padding[axis + 2]
            padded = plan.resized[axis] + before + after
            assert padded == max(plan.resized[axis], side)
            assert 0 <= after - before <= 1
            spare = padded - side
            halves = {"floor": spare // 2, "round": round(Fraction(spare, 2))}
            assert plan.crop[axis] == halves[offset]


def test_geometry_refuses_what_no_guide_was_made_for() -> None:
    assert geometry(SHORT, 8, 1).resized == (2048, 256)
    with pytest.raises(DataError, match="past 8:1"):
        geometry(SHORT, 801, 100)
    with pytest.raises(DataError, match="past 8:1"):
        geometry(FIXRES, 2, 3000)
    with pytest.raises(DataError, match="leaves nothing"):
        geometry(steps(ResizeHeight, 3, 2), 10, 80)
    with pytest.raises(DataError, match="nothing in it"):
        geometry(SHORT, 0, 10)


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
    padded = np.asarray(ImageOps.expand(resized, plan.padding, fill=0))
    left, top = plan.crop
    return padded[top : top + pre.size, left : left + pre.size]


@settings(max_examples=60)
@given(
    SIDES,
    SIDES,
    st.sampled_from([ResizeShort, ResizeHeight, ResizeSquare]),
    st.integers(8, 30),
    st.integers(8, 30),
    st.sampled_from(["round", "floor"]),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_crop_is_resize_pad_and_slice(
    w: int, h: int, kind: Any, size: int, side: int, offset: str, interpolation: str
) -> None:
    assume(max(w, h) <= 8 * min(w, h))
    pre = steps(kind, size, side, offset, interpolation)
    image = noise_image(w, h, seed=w * 1000 + h)
    got = crop(image, pre)
    assert got.shape == (side, side, 3)
    assert got.dtype == np.uint8
    assert np.array_equal(got, by_hand(image, pre))


def test_missing_columns_are_black_before_normalising() -> None:
    white = Image.new("RGB", (375, 500), (255, 255, 255))
    got = crop(white, FIXRES)
    assert (got[:, 28:356] == 255).all()
    assert (got[:, :28] == 0).all()
    assert (got[:, 356:] == 0).all()
    # 56 columns of 384 pixels: the figure of a portrait of 375 x 500 under FixRes' own script.
    assert int((got[..., 0] == 0).sum()) == 21504


@pytest.fixture(scope="module")
def transforms() -> Any:
    from harness.networks.library import import_torchvision

    return import_torchvision().transforms


def torchvision_result(transforms: Any, image: Image.Image, resize: Any, pre: Preprocessing) -> Any:
    rule = pre.normalize
    pipeline = transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(pre.size),
            transforms.ToTensor(),
            transforms.Normalize(rule.mean, rule.std),
        ]
    )
    return pipeline(image).numpy()


def ours(image: Image.Image, pre: Preprocessing) -> Any:
    return normalize(crop(image, pre)[None], normalization_table(pre.normalize))[0]


def same_bits(left: Any, right: Any) -> bool:
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    both = left.dtype == right.dtype == np.float32
    return bool(both and left.tobytes() == right.tobytes())


@pytest.mark.parametrize(
    "size", [(500, 375), (333, 500), (256, 300), (61, 47), (9, 12), (224, 224)]
)
def test_short_side_and_height_equal_torchvision(transforms: Any, size: tuple[int, int]) -> None:
    image = noise_image(*size)
    assert same_bits(ours(image, SHORT), torchvision_result(transforms, image, 256, SHORT))
    explicit = (438, int(438 * size[0] / size[1]))
    assert same_bits(ours(image, FIXRES), torchvision_result(transforms, image, explicit, FIXRES))


@settings(max_examples=40)
@given(SIDES, SIDES, st.integers(8, 30), st.integers(8, 30))
def test_short_side_equals_torchvision(
    transforms: Any, w: int, h: int, size: int, side: int
) -> None:
    assume(max(w, h) <= 8 * min(w, h))
    pre = steps(ResizeShort, size, side)
    image = noise_image(w, h, seed=w * 1000 + h)
    assert same_bits(ours(image, pre), torchvision_result(transforms, image, size, pre))


# Normalising.


@pytest.mark.parametrize("rule", [IMAGENET, HALF])
def test_the_table_equals_torchvision(transforms: Any, rule: Normalize) -> None:
    every = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    tensor = transforms.Normalize(rule.mean, rule.std)(transforms.ToTensor()(every))
    assert same_bits(normalization_table(rule), tensor.numpy()[:, 0])
    # And the arithmetic of the guides' scripts that use NumPy.
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


def test_normalize_takes_views_and_runs_in_threads() -> None:
    table = normalization_table(HALF)
    crops = np.random.default_rng(1).integers(0, 256, (8, 20, 20, 3), np.uint8)
    whole = normalize(crops, table)
    spread = np.empty((8, 3, 20, 40), np.float32)[..., ::2]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: normalize_into(crops[i::4], table, spread[i::4]), range(4)))
    assert same_bits(spread, whole)


@pytest.mark.parametrize(
    ("crops", "table", "out"),
    [
        (((1, 4, 4, 3), np.int16), ((3, 256), np.float32), ((1, 3, 4, 4), np.float32)),
        (((1, 3, 4, 4), np.uint8), ((3, 256), np.float32), ((1, 3, 4, 4), np.float32)),
        (((1, 4, 4, 3), np.uint8), ((3, 256), np.float64), ((1, 3, 4, 4), np.float32)),
        (((1, 4, 4, 3), np.uint8), ((256, 3), np.float32), ((1, 3, 4, 4), np.float32)),
        (((1, 4, 4, 3), np.uint8), ((3, 256), np.float32), ((1, 3, 4, 4), np.float64)),
        (((1, 4, 4, 3), np.uint8), ((3, 256), np.float32), ((2, 3, 4, 4), np.float32)),
    ],
)
def test_normalize_refuses_what_does_not_fit(crops: Any, table: Any, out: Any) -> None:
    with pytest.raises(ValueError, match="not "):
        normalize_into(*(np.zeros(*case) for case in (crops, table, out)))


# Files.


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


SMALL = steps(ResizeShort, 32, 28)


@pytest.mark.parametrize(
    ("format", "mode"),
    [("JPEG", "L"), ("JPEG", "CMYK"), *(("PNG", mode) for mode in ("RGB", "RGBA", "P", "1"))],
)
def test_any_mode_and_format_becomes_rgb(tmp_path: Path, format: str, mode: str) -> None:
    path = tmp_path / "a.JPEG"  # whatever the file calls itself
    path.write_bytes(encoded(noise_image(60, 50).convert(mode), format))
    with Image.open(path) as image:
        assert image.mode == mode
        expected = by_hand(image.convert("RGB"), SMALL)
    assert np.array_equal(load_crop(path, SMALL), expected)


def test_the_orientation_in_exif_is_ignored(tmp_path: Path) -> None:
    image = noise_image(60, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "plain.JPEG").write_bytes(encoded(image))
    (tmp_path / "turned.JPEG").write_bytes(encoded(image, exif=exif))
    with Image.open(tmp_path / "turned.JPEG") as turned:
        upright = crop(ImageOps.exif_transpose(turned), SMALL)
    got = load_crop(tmp_path / "turned.JPEG", SMALL)
    assert np.array_equal(got, load_crop(tmp_path / "plain.JPEG", SMALL))
    assert not np.array_equal(got, upright)


def header_only(width: int, height: int) -> bytes:
    """A JPEG whose header states another size than its data have."""
    data = bytearray(encoded(noise_image(16, 16)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def deep_image(kind: Any) -> Image.Image:
    """A dark grey picture of more than 8 bits, which Pillow's `convert("RGB")` makes white."""
    image = Image.fromarray(np.full((40, 40), 3000, kind))
    assert np.asarray(image.convert("RGB")).min() == 255
    return image


WHOLE = encoded(noise_image(200, 150))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, 0 bytes"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2), r"its last [\d,]+ bytes are zeros"),
        (b"no image at all", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (encoded(noise_image(90, 10)), "past 8:1"),
        (encoded(noise_image(20, 20), "PNG")[:-30], "cannot be decoded|cannot be read"),
        (WHOLE[:2] + b"\xff\xe1\x00\x02" + WHOLE[30:60], "not an image|cannot be"),
        (encoded(deep_image(np.uint16), "PNG"), r"more than 8 bits \(Pillow's mode I;16\)"),
        (encoded(deep_image(np.int32), "TIFF"), r"more than 8 bits \(Pillow's mode I\)"),
        (encoded(deep_image(np.float32), "TIFF"), r"more than 8 bits \(Pillow's mode F\)"),
    ],
    ids=[
        *(
            "empty",
            "truncated",
            "sparse",
            "text",
            "postscript",
            "sliver",
            "short-png",
            "damaged-header",
        ),
        *("16-bit-grey", "32-bit-grey", "float-grey"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ILSVRC2012_val_00000007.JPEG"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_crop(path, SMALL)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_zeros_behind_the_end_of_an_image_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    right = load_crop(path, SMALL)
    path.write_bytes(WHOLE + bytes(4096))
    assert np.array_equal(load_crop(path, SMALL), right)


def test_a_file_of_another_digest_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    right = hashlib.sha256(WHOLE).hexdigest()
    assert np.array_equal(load_crop(path, SMALL, right), load_crop(path, SMALL))
    path.write_bytes(encoded(noise_image(200, 150), quality=20))
    with pytest.raises(DataError, match="changed while the run used it"):
        load_crop(path, SMALL, right)


def test_a_file_too_large_for_an_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    monkeypatch.setattr(preprocess, "MAX_BYTES", len(WHOLE))
    load_crop(path, SMALL)
    monkeypatch.setattr(preprocess, "MAX_BYTES", len(WHOLE) - 1)
    with pytest.raises(DataError, match="which no image has"):
        load_crop(path, SMALL)


def test_large_images_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    decode = preprocess._crop

    def alone(patience_s: float) -> int:
        """How many of two threads met nobody in the decoder."""
        together, lonely = threading.Barrier(2), []

        def met(image: Image.Image, pre: Preprocessing) -> Any:
            try:
                together.wait(patience_s)
            except threading.BrokenBarrierError:
                lonely.append(image)
            return decode(image, pre)

        monkeypatch.setattr(preprocess, "_crop", met)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: load_crop(path, SMALL), range(2)))
        return len(lonely)

    monkeypatch.setattr(preprocess, "LARGE_PIXELS", 200 * 150)
    assert alone(20.0) == 0
    monkeypatch.setattr(preprocess, "LARGE_PIXELS", 200 * 150 - 1)
    assert alone(0.2) == 2


@settings(max_examples=60)
@given(st.data())
def test_damaged_bytes_never_end_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(encoded(noise_image(24, 24)))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.JPEG"
    path.write_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = load_crop(path, SMALL)
        except DataError:
            return
    assert got.shape == (28, 28, 3)


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("size", [(9500, 9500), (20000, 20000)], ids=["band", "bomb"])
def test_a_decompression_bomb_is_an_error_whatever_the_filters(
    tmp_path: Path, size: tuple[int, int], action: Any
) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(header_only(*size))
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match="more than 89,478,485 pixels"):
            load_crop(path, SMALL)


@pytest.mark.parametrize("case", ["damaged EXIF", "transparent palette"])
def test_a_warning_of_pillow_changes_nothing_whatever_the_filters(
    tmp_path: Path, case: str
) -> None:
    path = tmp_path / "a.JPEG"
    if case == "damaged EXIF":
        exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01"
        path.write_bytes(encoded(noise_image(60, 50), exif=exif))
    else:
        palette = noise_image(60, 50).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
        path.write_bytes(encoded(palette, "PNG", transparency=bytes(range(16))))
    with pytest.warns(UserWarning):
        plain = load_crop(path, SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: load_crop(path, SMALL), range(16)):
                assert np.array_equal(got, plain)
        assert warnings.filters == filters


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.JPEG"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DataError, match=r"a\.JPEG"):
        load_crop(path, SMALL)


def test_a_decoder_that_stumbles_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(self: ImageFile.ImageFile) -> None:
        raise IndexError("tuple index out of range")

    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    monkeypatch.setattr(ImageFile.ImageFile, "load", stumble)
    with pytest.raises(DataError, match="tuple index out of range"):
        load_crop(path, SMALL)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        load_crop(path, SMALL)


def test_steps_take_lists_and_refuse_what_cannot_be_divided_by() -> None:
    assert Normalize.model_validate({"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}).std == (1, 1, 1)
    for std in ([0.5, 0.5, 0], [0.5, 0.5, float("nan")], [0.5, 0.5], ["0.5", 0.5, 0.5]):
        with pytest.raises(ValidationError):
            Normalize.model_validate({"mean": [0.5, 0.5, 0.5], "std": std})

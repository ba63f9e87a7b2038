"""Image files: any mode and format becomes RGB; what cannot be decoded is named."""

from __future__ import annotations

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from harness.base.errors import DataError
from harness.images import preprocess
from harness.images.preprocess import (
    MAX_PIXELS,
    load_crop,
)
from tests.selftest.test_preprocess import by_hand, noise_image, steps


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


SMALL = steps("resize_short", 32, 28)


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
        (encoded(deep_image(np.float32), "TIFF"), r"more than 8 bits \(Pillow's mode F\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
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


def test_a_file_too_large_for_an_image_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.JPEG"
    path.write_bytes(WHOLE)
    monkeypatch.setattr(preprocess, "MAX_BYTES", len(WHOLE))
    load_crop(path, SMALL)
    monkeypatch.setattr(preprocess, "MAX_BYTES", len(WHOLE) - 1)
    with pytest.raises(DataError, match="which no image has"):
        load_crop(path, SMALL)


@settings(max_examples=60)
@given(st.data())
def test_damaged_bytes_never_end_in_another_error(tmp_path_factory, data):
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
def test_a_decompression_bomb_is_an_error_whatever_the_filters(tmp_path, size, action):
    path = tmp_path / "a.JPEG"
    path.write_bytes(header_only(*size))
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match="more than 89,478,485 pixels"):
            load_crop(path, SMALL)


@pytest.mark.parametrize("case", ["damaged EXIF", "transparent palette"])
def test_a_warning_of_pillow_changes_nothing_whatever_the_filters(tmp_path, case):
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


def test_a_decoder_that_stumbles_is_a_data_error(tmp_path, monkeypatch):
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

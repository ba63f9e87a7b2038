"""Preprocessing: from an image file to the numbers that a network is fed.

Executes a `steps.Preprocessing` with Pillow and NumPy alone, bit for bit as the guides' scripts
do (`docs/preprocessing.md`). It is done in two halves. The first, `load_crop`, is slow and gives
`uint8[S, S, 3]`, a quarter of the size of the result: this is what is worth keeping. The second,
`normalize_into`, is one look-up in a table of 256 values for each channel; a model that normalises
itself does without.
"""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from harness.base.errors import DataError
from harness.catalog.steps import Normalize, Preprocessing

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# A sliver costs seconds and gigabytes once its short side is 256 pixels (2 x 3000 becomes
# 256 x 384000), and FixRes' rule leaves it no width at all. ImageNet has none.
MAX_ASPECT = 8

# Pillow's own limit, where it begins to warn. It fails at twice as much only. Whether a warning
# stops a program depends on the interpreter's filters; a measurement must not, so one pixel
# above the limit is an error here.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

# A file is read whole before it is decoded; no photograph comes near this size.
MAX_BYTES = 256 * 1024 * 1024

# A file whose end is this many zeros and no marker of its end was cut off, whatever its size says.
LOST_TAIL = 16

# What ImageNet and its copies hold. Pillow would also start other programs (Ghostscript, for a
# PostScript file) for what only calls itself an image.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")

_COPY_AGAIN = "copy the file again, or take it out of the set"
_END = b"\xff\xd9"  # the marker that ends a JPEG file

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Geometry(NamedTuple):
    """The origin of a crop's pixels, in pixels.

    resized: width and height after the resize.
    crop: left and top of the square crop within that; negative where the image is smaller, and
        black columns or rows are added on both sides, the odd one on the right or the bottom.
    """

    resized: tuple[int, int]
    crop: tuple[int, int]


def geometry(pre: Preprocessing, width: int, height: int) -> Geometry:
    """Compute what `pre` does to an image of `width` x `height` pixels; no pixel is touched.

    Raises `DataError` past `MAX_ASPECT` to one, or where the resized image has no width left.
    """
    if not 0 < max(width, height) <= MAX_ASPECT * min(width, height):
        raise DataError(
            f"{width} x {height} pixels is past {MAX_ASPECT}:1, which no preprocessing of the "
            "guides was made for",
            remedy="take the image out of the set, or replace a damaged file",
        )
    resized = _resized(pre, width, height)
    if min(resized) < 1:
        raise DataError(
            f"{width} x {height} pixels resized to {resized[0]} x {resized[1]} leaves nothing",
            remedy="take the image out of the set",
        )
    left, top = (_offset(side - pre.size, pre.crop.offset) for side in resized)
    return Geometry(resized, (left, top))


def _offset(spare: int, rule: str) -> int:
    if spare < 0:
        return -(-spare // 2)
    return round(spare / 2) if rule == "round" else spare // 2


def crop(image: Image.Image, pre: Preprocessing) -> UInt8:
    """Crop an image in any mode of 8 bits to `uint8[S, S, 3]`, RGB.

    The EXIF orientation is ignored, as in the guides' scripts and in the published figures.
    Raises `DataError` as `geometry`, or for pixels that cannot be decoded or have more than 8 bits.
    """
    return _despite_warnings(lambda: _crop(image, pre))


def load_crop(path: Path, pre: Preprocessing, sha256: str = "") -> UInt8:
    """Crop an image file to `uint8[S, S, 3]`, RGB. What the file calls itself is ignored.

    sha256: what is known of the file, in hex: the bytes that are decoded must be these. Raises
    `DataError`: names the file that cannot be used, or is no longer what `sha256` says.
    """
    try:
        data = _bytes(path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(
                "changed while the run used it", remedy="leave the data set alone, and run again"
            )
        return _despite_warnings(lambda: _load(data, pre))
    except DataError as error:
        raise DataError(
            f"image {path}: {error.message}", remedy=error.remedy or _COPY_AGAIN
        ) from error
    except OSError as error:
        raise DataError(
            f"image {path}: cannot be read: {_reason(error)}", remedy=_COPY_AGAIN
        ) from error


def normalization_table(normalize: Normalize) -> Float32:
    """`float32[3, 256]`: what each byte of each channel becomes.

    Each of the three operations is rounded to float32, in the order of the guides' scripts, which
    is that of torchvision's `ToTensor` and `Normalize`.
    """
    mean = np.asarray(normalize.mean, np.float32)[:, None]
    std = np.asarray(normalize.std, np.float32)[:, None]
    return np.asarray((np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std)


def normalize_into(crops: UInt8, table: Float32, out: Float32) -> None:
    """Write `uint8[N, S, S, 3]` as `float32[N, 3, S, S]` into a buffer of the caller.

    Every value comes from the table, so the result is exact on any processor. Runs in threads:
    NumPy holds the interpreter's lock for little of the time.
    """
    # `take` wants wide indices. Widening into one small buffer that stays in the cache is faster
    # than letting it make a new one for each plane. No byte is past 255: `wrap`, the mode with
    # the cheapest check, never wraps.
    index = np.empty(crops.shape[1:3], np.intp)
    for image, planes in zip(crops, out, strict=True):
        for channel in range(3):
            np.copyto(index, image[:, :, channel])
            table[channel].take(index, mode="wrap", out=planes[channel])


def write_into(crops: UInt8, table: Float32, out: npt.NDArray[np.float32 | np.uint8]) -> None:
    """Write crops into a model's input: as they lie where it is `uint8[N, S, S, 3]` and the model
    normalises, else as `normalize_into`. Raises `ValueError` for shapes that do not fit together.
    """
    if out.dtype == np.float32:
        normalize_into(crops, table, out.view(np.float32))
    elif out.shape == crops.shape:
        np.copyto(out, crops, casting="no")
    else:
        raise ValueError(f"crops of {crops.shape} for an input of {out.shape}")


def normalize(crops: UInt8, table: Float32) -> Float32:
    """`float32[N, 3, S, S]` from `uint8[N, S, S, 3]`: `normalize_into` with a buffer of its own."""
    out = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
    normalize_into(crops, table, out)
    return out


def _resized(pre: Preprocessing, width: int, height: int) -> tuple[int, int]:
    # The products are formed before the division, and the division is Python's, as in every
    # script: another order can round to the next pixel.
    resize = pre.resize
    if resize.op == "resize_square":
        return resize.size, resize.size
    if resize.op == "resize_short" and width <= height:
        return resize.size, int(resize.size * height / width)
    return int(resize.size * width / height), resize.size


def _crop(image: Image.Image, pre: Preprocessing) -> UInt8:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow cuts them at 255: 16 bits of grey would become a nearly white picture.
        raise DataError(
            f"pixels of more than 8 bits (Pillow's mode {image.mode}), which no image of ImageNet "
            "has",
            remedy="replace the image with the original, or take it out of the set",
        )
    plan = geometry(pre, *image.size)
    try:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        # The whole image is resized, then cropped: resizing only the part that is kept rounds
        # the filter's positions in another way and changes bytes.
        resized = rgb.resize(plan.resized, _FILTERS[pre.resize.interpolation])
        # Pillow gives zeros for what lies outside: this is the padding.
        left, top = plan.crop
        return np.array(resized.crop((left, top, left + pre.size, top + pre.size)))
    except Warning:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parsers stumble over.
        raise DataError(f"pixels that cannot be decoded: {_reason(error)}") from error


def _bytes(path: Path) -> bytes:
    # Opening a pipe would wait for a writer for ever.
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError("not a regular file", remedy="take it out of the set")
    if status.st_size == 0:
        raise DataError("empty, 0 bytes", remedy="copy the file again")
    if status.st_size > MAX_BYTES:
        raise DataError(
            f"{status.st_size:,} bytes, which no image has", remedy="take it out of the set"
        )
    return path.read_bytes()


def _load(data: bytes, pre: Preprocessing) -> UInt8:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except UnidentifiedImageError as error:
        raise DataError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except (OSError, Warning):
        raise
    except Exception as error:  # Pillow's parsers of headers raise whatever they stumble over.
        raise DataError(f"a header that cannot be read: {_reason(error)}") from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large()
        lost = len(data) - len(data.rstrip(b"\0"))
        # Zeros decode to some picture: neither libjpeg nor Pillow says a word.
        if image.format == "JPEG" and lost >= LOST_TAIL and not data.endswith(_END, 0, -lost):
            raise DataError(f"its last {lost:,} bytes are zeros: a copy that was cut off")
        return _crop(image, pre)


_WARNINGS = threading.Lock()


def _despite_warnings(step: Callable[[], UInt8]) -> UInt8:
    """`step`, also where the interpreter's filters make errors of warnings, as pytest's do.

    Pillow warns of what harms no pixel: damaged EXIF, a transparent palette. The filters belong
    to the whole process, so they are changed only for an image that needs it, by one thread at a
    time.
    """
    try:
        return step()
    except Warning:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return step()


def _too_large() -> DataError:
    return DataError(
        f"more than {MAX_PIXELS:,} pixels, Pillow's limit against decompression bombs",
        remedy="take the image out of the set",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

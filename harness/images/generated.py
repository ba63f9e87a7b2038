"""Generated images in ImageNet's layout, for a machine that has no ImageNet.

Each of 40 classes is a grating of its own: two colours, an orientation and a spatial frequency.
Two images of a class differ in phase, noise, shading, size and a little in everything else, so
that a network with random features and a fitted last layer tells the classes apart but not
always. The kinds of file that trip a pipeline (portrait, tiny, greyscale, CMYK, an orientation
in EXIF) come at fixed places, so that a set of 50 images has all of them.

Pixels are computed with integers, and every image has its own random stream, named by the seed
and its index: neither the order, nor the number of workers, nor the processor changes a byte.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.base.errors import DataError, on_disk

Kind = Literal["landscape", "portrait", "tiny", "grey", "cmyk", "blend", "noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CLASSES: tuple[int, ...] = tuple(round(slot * 999 / 39) for slot in range(40))
"""Class indices, the first and the last of ImageNet's thousand among them."""

VERSION = 1
"""Raised with every change that alters a byte: it belongs in the key of a stored set."""

FOLDER = "val"
LABELS = "val_label.txt"

# In every 50 images: 10 % portrait, 6 % tiny, 4 % each of greyscale and CMYK, and 6 % that are
# hard on purpose, so that no network gets all of even 50 images right.
_SCHEDULE: dict[int, Kind] = {
    **dict.fromkeys((3, 13, 23, 33, 43), "portrait"),
    **dict.fromkeys((6, 24, 41), "tiny"),
    **dict.fromkeys((9, 34), "grey"),
    **dict.fromkeys((11, 37), "cmyk"),
    **dict.fromkeys((16, 46), "blend"),
    28: "noise",
}
_PERIOD = 50
_EXIF_EVERY, _EXIF_AT = 40, 17
_EXIF_ORIENTATION, _EXIF_ROTATE_90 = 0x0112, 6

_TINY_SIZES = ((9, 12), (32, 24), (24, 32), (40, 10))
_QUALITY = 92

# Streams of random numbers that must not meet.
_VALIDATION, _TRAINING, _ORDER = 0, 1, 2

_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 1024  # of one period of a grating
_FRACTION = 12  # bits below one step


def kind_of(index: int) -> Kind:
    """Return the kind of the image at `index`, by a schedule that repeats every 50 images."""
    return _SCHEDULE.get(index % _PERIOD, "landscape")


def label_slots(count: int, seed: int) -> tuple[int, ...]:
    """Position in `CLASSES` of each of `count` images: every 40 in a row hold every class once."""
    slots: list[int] = []
    for cycle in range(-(-count // len(CLASSES))):
        slots.extend(int(slot) for slot in _stream(seed, _ORDER, cycle).permutation(len(CLASSES)))
    return tuple(slots[:count])


def make_image(seed: int, index: int, label_slot: int, kind: Kind | None = None) -> Image.Image:
    """Draw image `index` of the set of `seed`: class `CLASSES[label_slot]`, `kind` by schedule.

    Its mode is RGB, or L or CMYK for the kinds `grey` and `cmyk`.
    """
    return _draw(_stream(seed, _VALIDATION, index), index, label_slot, kind or kind_of(index))


def training_images(per_class: int, seed: int) -> Iterator[tuple[Image.Image, int]]:
    """`per_class` images of each class with their class index, none of them in any set.

    Landscape and, one in ten, portrait: the kinds whose class can be learnt.
    """
    for index in range(per_class * len(CLASSES)):
        slot = index % len(CLASSES)
        kind: Kind = "portrait" if index // len(CLASSES) % 10 == 3 else "landscape"
        yield _draw(_stream(seed, _TRAINING, index), index, slot, kind), CLASSES[slot]


def write_set(root: Path, count: int, seed: int, workers: int = 1) -> None:
    """Write `count` images as `root/val/ILSVRC2012_val_%08d.JPEG` and `root/val_label.txt`.

    The label list is written last. `workers` threads share the work; the bytes do not depend on
    them. Raises `DataError`: nothing can be written.
    """
    folder = root / FOLDER
    slots = label_slots(count, seed)
    names = [f"ILSVRC2012_val_{index + 1:08d}.JPEG" for index in range(count)]

    def write(index: int) -> None:
        image = make_image(seed, index, slots[index])
        exif = Image.Exif()
        if index % _EXIF_EVERY == _EXIF_AT:
            exif[_EXIF_ORIENTATION] = _EXIF_ROTATE_90
        image.save(folder / names[index], "JPEG", quality=_QUALITY, exif=exif)

    remedy = "free disk space, or name a folder that can be written"
    with on_disk(DataError, f"cannot write a generated set to {root}", remedy):
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for _ in pool.map(write, range(count)):
                pass
        lines = (f"{name} {CLASSES[slot]}\n" for name, slot in zip(names, slots, strict=True))
        (root / LABELS).write_text("".join(lines), encoding="ascii")


def _stream(seed: int, purpose: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, purpose, index]))


def _draw(rng: np.random.Generator, index: int, slot: int, kind: Kind) -> Image.Image:
    width, height = _TINY_SIZES[index % len(_TINY_SIZES)] if kind == "tiny" else _size(rng, kind)
    pixels = _grating(rng, slot, width, height)
    noise = int(rng.integers(8, 20))
    if kind == "blend":
        # The other class is the stronger one, as in a photograph that shows two things and is
        # named after the smaller.
        other = int(slot + rng.integers(1, len(CLASSES))) % len(CLASSES)
        share = int(rng.integers(70, 115))  # of 256
        pixels = (pixels * share + _grating(rng, other, width, height) * (256 - share)) >> 8
    elif kind == "noise":
        pixels = 128 + ((pixels - 128) >> 2)
        noise = 120
    # Noise of brightness alone, the same in the three channels, as a sensor's mostly is.
    raw = rng.integers(0, 256, (height, width, 1), np.uint8).astype(np.int32)
    pixels = pixels + ((raw - 128) * noise >> 7)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if kind == "grey":
        return image.convert("L")
    return image.convert("CMYK") if kind == "cmyk" else image


def _size(rng: np.random.Generator, kind: Kind) -> tuple[int, int]:
    long = int(rng.integers(260, 521))
    short = max(160, long * int(rng.integers(60, 101)) // 100)
    return (short, long) if kind == "portrait" else (long, short)


def _grating(rng: np.random.Generator, slot: int, width: int, height: int) -> npt.NDArray[np.int32]:
    """`int32[height, width, 3]`: one image of a class, without noise."""
    hue = slot * _GOLDEN
    partner = hue + 0.3 + 0.4 * (slot * 7 % 10) / 10
    angle = math.pi * (slot * 11 % 40 / 40) + math.radians(rng.uniform(-3, 3))
    # Cycles along the short side: the resize keeps it, whatever the size of the image.
    cycles = (5, 8, 12, 17)[slot % 4] * rng.uniform(0.96, 1.04)

    unit = cycles * _STEPS * (1 << _FRACTION) / min(width, height)
    along_x = np.arange(width, dtype=np.int64) * round(math.cos(angle) * unit)
    along_y = np.arange(height, dtype=np.int64) * round(math.sin(angle) * unit)
    start = int(rng.integers(_STEPS << _FRACTION))
    phase = (((along_x + start)[None, :] + along_y[:, None]) >> _FRACTION) & (_STEPS - 1)

    ends = np.array([_colour(rng, hue, 0.85), _colour(rng, partner, 0.55)])
    palette = np.empty((_STEPS, 3), np.int32)
    for step in range(_STEPS):
        share = (1 + math.sin(2 * math.pi * step / _STEPS)) / 2
        palette[step] = np.rint(ends[0] * share + ends[1] * (1 - share))

    # One side in more light than the other.
    tilt = int(rng.integers(-30, 31))
    light: npt.NDArray[np.int32] = (
        (np.arange(width, dtype=np.int32) * 2 - width) * tilt // (2 * width)
    )
    pixels: npt.NDArray[np.int32] = palette[phase] + light[None, :, None]
    return pixels


def _colour(rng: np.random.Generator, hue: float, value: float) -> list[float]:
    """Red, green and blue in 0..255, near the given hue (in turns) and value."""
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + rng.uniform(-0.012, 0.012)) % 1.0,
        0.75 + rng.uniform(-0.06, 0.06),
        value + rng.uniform(-0.06, 0.06),
    )
    return [255 * red, 255 * green, 255 * blue]

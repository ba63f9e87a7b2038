"""What the guides' scripts feed, by means of our own: the preprocessing is held against this.

Written from the scripts that `docs/preprocessing.md` names, not from `baselines.yaml` and not with
`harness.images`: each script's figures stand here once more, the padding is `ImageOps.expand`'s,
the crop a slice, the arithmetic plain NumPy. Where torchvision does the same, test_preprocess.py
holds both against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.catalog.steps import Preprocessing
from harness.images import preprocess
from harness.images.preprocess import Float32

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class ConformanceError(HarnessError):
    """What is fed is not what the guide's script feeds."""

    stage = Stage.DATA


@dataclass(frozen=True)
class Script:
    """A guide's script: `resize` is of the short side, the height, or both sides."""

    resize: Literal["short", "height", "both"]
    to: int
    size: int
    odd_margin: Literal["half to even", "down"]
    rule: tuple[tuple[float, ...], tuple[float, ...]]
    filter: Image.Resampling = Image.Resampling.BILINEAR


SCRIPTS: dict[str, Script] = {
    "seresnext101": Script("short", 256, 224, "half to even", IMAGENET),
    "fixres": Script("height", 438, 384, "half to even", IMAGENET),
    "resnest50": Script("both", 256, 224, "down", IMAGENET),
    "squeezenet1_1": Script("short", 256, 224, "half to even", IMAGENET),
    "inceptionv4": Script("short", 342, 299, "down", HALVES),
}


def fed(script: Script, file: Path) -> Float32:
    """`float32[3, S, S]` of an image file, as the script makes it."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if script.resize == "both":
        sides = (script.to, script.to)
    elif script.resize == "height" or height < width:
        sides = (int(script.to * width / height), script.to)
    else:
        sides = (script.to, int(script.to * height / width))
    image = image.resize(sides, script.filter)
    lacking = [max(0, script.size - side) for side in sides]
    image = ImageOps.expand(
        image,
        (lacking[0] // 2, lacking[1] // 2, (lacking[0] + 1) // 2, (lacking[1] + 1) // 2),
        fill=0,
    )
    spare = [side - script.size for side in image.size]
    if script.odd_margin == "down":
        left, top = (int(one / 2) for one in spare)
    else:
        left, top = (round(one / 2.0) for one in spare)
    pixels = np.asarray(image)[top : top + script.size, left : left + script.size]
    mean, std = (np.array(values, np.float32) for values in script.rule)
    values = (pixels.astype(np.float32) / np.float32(255.0) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def write_photos(folder: Path) -> tuple[Path, ...]:
    """Image files in which each rule matters: wide, upright, small, square, grey, turned by EXIF.

    Noise over a slope: no filter and no shift by a pixel leaves it as it is.
    """
    random = np.random.default_rng(6)
    files = []
    for name, (width, height) in {
        "wide": (500, 375),
        "upright": (333, 500),
        "small": (90, 125),
        "square": (256, 256),
        "grey": (320, 211),
        "turned": (401, 300),
    }.items():
        slope = np.linspace(0, 120, width)[None, :, None] + np.zeros((height, 1, 3))
        noise = random.integers(0, 136, (height, width, 3))
        image = Image.fromarray((slope + noise).astype(np.uint8))
        exif = Image.Exif()
        if name == "turned":
            exif[0x0112] = 6  # the orientation: shown by viewers turned to the right
        file = folder / f"{name}.JPEG"
        (image.convert("L") if name == "grey" else image).save(file, "JPEG", quality=90, exif=exif)
        files.append(file)
    return tuple(files)


def conform(model: str, script: Script, steps: Preprocessing, files: Sequence[Path]) -> str:
    """What the harness feeds for `steps` is, bit for bit, what the script feeds.

    Returns a sentence. Raises `ConformanceError` with the images for which it is not so.
    """
    table = preprocess.normalization_table(steps.normalize)
    other = []
    for file in files:
        ours = preprocess.normalize(preprocess.load_crop(file, steps)[None], table)[0]
        theirs = fed(script, file)
        if ours.shape != theirs.shape:
            other.append(f"{file.stem} has the shape {ours.shape}")
        elif not np.array_equal(ours, theirs):
            largest = float(np.max(np.abs(ours - theirs)))
            other.append(f"{file.stem} by up to {largest:.3g}")
    if other:
        raise ConformanceError(
            f"{model}: {len(other)} of {len(files)} images are not what its guide's script feeds: "
            f"{', '.join(other)} ({steps.describe()})",
            remedy="docs/preprocessing.md says what each script does",
        )
    return f"{model}: {len(files)} images are bit for bit its guide's ({steps.describe()})"

"""The preprocessing that `baselines.yaml` declares, as typed values: what each step does.

Every preprocessing is resize -> centre crop -> normalise; the result is `float32[3, S, S]`, RGB.
Sources of the five guides' rules: `docs/preprocessing.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.catalog.fields import Section

Side = Annotated[int, Field(ge=1, le=4096)]
Shift = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
Scale = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Resize(Section):
    """Scale the image; quotients are truncated.

    `resize_short`: short side to `size`, the other to `int(size * long / short)`.
    `resize_height`: height to `size`, width to `int(size * width / height)`; FixRes measured its
        79.0 so.
    `resize_square`: both sides to `size`, the aspect ratio lost; guide 002's script does so.
    """

    op: Literal["resize_short", "resize_height", "resize_square"]
    size: Side
    interpolation: Literal["bilinear", "bicubic"]

    def describe(self) -> str:
        """What is scaled to which size: `short side 256`."""
        how = {"resize_short": "short side", "resize_height": "height", "resize_square": "square"}
        return f"{how[self.op]} {self.size}"


class CenterCrop(Section):
    """A centred square of `size` pixels; missing pixels are zero (black) before normalising.

    `offset` is the rule for an odd margin: `round` is Python's `int(round((n - size) / 2.0))`
    (half to even, as torchvision), `floor` is `int((n - size) / 2)`. A smaller image is padded
    first, `d // 2` pixels on the left and top, `(d + 1) // 2` on the right and bottom
    (torchvision 0.9).
    """

    size: Side
    offset: Literal["round", "floor"]


class Normalize(Section):
    """`(value / 255 - mean) / std` for each channel, in float32."""

    # YAML has lists, no tuples: the outside of the value is not strict, its three numbers are.
    mean: Annotated[tuple[Shift, Shift, Shift], Field(strict=False)]
    std: Annotated[tuple[Scale, Scale, Scale], Field(strict=False)]


class Preprocessing(Section):
    """What is done to an image file before it is fed to a network.

    `source`: the document that says so, where it need not be the library's default.
    """

    resize: Resize
    crop: CenterCrop
    normalize: Normalize
    source: Annotated[str | None, Field(exclude=True)] = None  # no part of a key

    @property
    def size(self) -> int:
        """Side of the crop in pixels."""
        return self.crop.size

    def describe(self) -> str:
        """One line for records and reports."""
        r, c, n = self.resize, self.crop, self.normalize
        return (
            f"resize {r.describe()} {r.interpolation}, centre crop {c.size} ({c.offset}), "
            f"mean {'/'.join(map(str, n.mean))}, std {'/'.join(map(str, n.std))}"
        )

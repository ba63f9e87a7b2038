"""The preprocessing steps that `baselines.yaml` can declare, as typed values (no Pillow here).

Sources of the five guides' rules: `docs/preprocessing.md`. Every list of steps is
resize -> centre crop -> normalise; the result is `float32[3, S, S]`, RGB.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Interpolation = Literal["bilinear", "bicubic"]
Side = Annotated[int, Field(ge=1, le=4096)]
Shift = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ResizeShort(_Step):
    """Short side to `size`, the other to `int(size * long / short)` (truncated)."""

    op: Literal["resize_short"] = "resize_short"
    size: Side
    interpolation: Interpolation


class ResizeHeight(_Step):
    """Height to `size`, width to `int(size * width / height)`: FixRes measured its 79.0 so."""

    op: Literal["resize_height"] = "resize_height"
    size: Side
    interpolation: Interpolation


class ResizeSquare(_Step):
    """Both sides to `size`, the aspect ratio lost: guide 002's script does so."""

    op: Literal["resize_square"] = "resize_square"
    size: Side
    interpolation: Interpolation


class CenterCrop(_Step):
    """A centred square of `size` pixels; missing pixels are zero (black) before normalising.

    `offset` is the rule for an odd margin: `round` is Python's `int(round((n - size) / 2.0))`
    (half to even, as torchvision), `floor` is `int((n - size) / 2)`. A smaller image is padded
    first, `d // 2` pixels on the left and top, `(d + 1) // 2` on the right and bottom
    (torchvision 0.9).
    """

    op: Literal["center_crop"] = "center_crop"
    size: Side
    offset: Literal["round", "floor"]


class Normalize(_Step):
    """`(value / 255 - mean) / std` for each channel, in float32."""

    op: Literal["normalize"] = "normalize"
    # YAML has lists, no tuples: the outside of the value is not strict, its three numbers are.
    mean: Annotated[tuple[Shift, Shift, Shift], Field(strict=False)]
    std: Annotated[tuple[Scale, Scale, Scale], Field(strict=False)]


Resize = Annotated[ResizeShort | ResizeHeight | ResizeSquare, Field(discriminator="op")]


class Preprocessing(BaseModel):
    """What is done to an image file before it is fed to a network."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    resize: Resize
    crop: CenterCrop
    normalize: Normalize

    @property
    def size(self) -> int:
        """Side of the crop in pixels."""
        return self.crop.size

    def describe(self) -> str:
        """One line for records and reports."""
        r, c, n = self.resize, self.crop, self.normalize
        how = {
            "resize_short": "short side",
            "resize_height": "height",
            "resize_square": "square",
        }[r.op]
        return (
            f"resize {how} {r.size} {r.interpolation}, centre crop {c.size} ({c.offset}), "
            f"mean {'/'.join(map(str, n.mean))}, std {'/'.join(map(str, n.std))}"
        )

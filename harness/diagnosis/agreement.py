"""How far two sets of logits of the same images agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.targets.protocol import Float32


@dataclass(frozen=True)
class Agreement:
    """Logits `float32[N, C]` against others of the same N images.

    relative_l2: |logits - expected| / |expected| over all of them; NaN where either is not finite.
    cosine: the lowest cosine similarity of an image.
    largest: the largest difference of a logit.
    equal: images with the same best class.
    """

    images: int
    relative_l2: float
    cosine: float
    largest: float
    equal: int

    def within(self, bound: float) -> bool:
        """Return whether the logits differ by no more than `bound`; never with NaN or infinity."""
        return self.relative_l2 <= bound

    @property
    def share(self) -> float:
        """Fraction of images with the same best class."""
        return self.equal / self.images if self.images else 0.0

    def cells(self) -> list[str]:
        """Return relative L2, cosine, largest difference, equal predictions, as text."""
        return [
            number(self.relative_l2),
            "NaN" if math.isnan(self.cosine) else f"{self.cosine:.6f}",
            number(self.largest),
            f"{self.equal} of {self.images}",
        ]


CELLS = ("relative L2", "cosine, lowest", "largest difference", "equal predictions")


def number(value: float) -> str:
    """Return a difference as text."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.2e}" if value else "0"


def agree(logits: Float32, expected: Float32) -> Agreement:
    """Compare logits, row by row; other shapes agree in nothing."""
    if logits.shape != expected.shape:
        return Agreement(len(expected), math.inf, math.nan, math.inf, 0)
    a, b = logits.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        norm = float(np.linalg.norm(b))
        delta = float(np.linalg.norm(a - b))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.where(norms > 0, np.sum(a * b, axis=1) / norms, 0.0)
        finite = np.isfinite(a).all(axis=1)
        equal = (a.argmax(axis=1) == b.argmax(axis=1)) & finite
        return Agreement(
            images=len(b),
            relative_l2=delta / norm if norm else (math.inf if delta else 0.0),
            cosine=float(np.min(cosines, initial=1.0)),
            largest=float(np.max(np.abs(a - b), initial=0.0)),
            equal=int(np.count_nonzero(equal)),
        )

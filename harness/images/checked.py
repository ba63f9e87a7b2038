"""A real image set as a run uses it: found, held against ImageNet, a part chosen, its files seen.

One way for whoever runs, plans or only looks, so that none calls fine what another refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.images import dataset
from harness.images.dataset import Findings, ImageSet
from harness.images.selection import Selection


@dataclass(frozen=True)
class CheckedImages:
    """`whole`: all that the folder holds; `chosen`: what a run uses; `findings`: of the whole."""

    whole: ImageSet
    chosen: ImageSet
    findings: Findings


def find_checked(root: Path, labels: Path | None, selection: Selection) -> CheckedImages:
    """Everything that can be told before an image is decoded. Takes a look at each chosen file.

    Raises:
        DataError: as `dataset.find_image_set`, `dataset.check`, `Selection.apply` and
            `dataset.check_files`.
    """
    whole = dataset.find_image_set(root, labels)
    findings = dataset.check(whole)  # before a part is chosen: counts tell more about all
    chosen = selection.apply(whole)
    dataset.check_files(chosen)
    return CheckedImages(whole, chosen, findings)

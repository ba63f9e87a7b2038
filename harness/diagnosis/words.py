"""What a diagnosis found, and the sentence that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.base.stages import Stage
from harness.diagnosis.agreement import Agreement, number
from harness.judge.accuracy import REFERENCES
from harness.judge.wording import one_device

EXPORTED, GIVEN = "exported ONNX", "given ONNX"
SIMPLIFIED, COMPILED = "simplified ONNX", "compiled model"
STAGES = {
    **dict.fromkeys((EXPORTED, GIVEN), Stage.EXPORT),
    SIMPLIFIED: Stage.SIMPLIFY,
    COMPILED: Stage.COMPILE,
}
RIGHT = "the catalog's preprocessing"


class About(Enum):
    """What a suspect is a mistake in."""

    INPUT = "input"
    ORDER = "order of results"
    LABELS = "labels"


@dataclass(frozen=True)
class Restored:
    """A suspect that puts the result right, and what it restores, in words."""

    name: str
    what: str
    about: About


@dataclass
class Findings:
    """What was found, until it is put into words."""

    stage: Stage | None = None  # the first that departs
    departs: str = ""  # its name, and that of the one before it
    before: str = ""
    difference: Agreement | None = None
    # The device of the run, and another on which the same compiled file is right.
    devices: tuple[str, str] | None = None
    # The mistake that makes what is fed: "" of none that is usual, None where nothing is wrong.
    fed: str | None = None
    restored: Restored | None = None
    unrepeatable: int = 0  # images with another result now than in the run


def words(findings: Findings, count: int, bound: float) -> tuple[Stage | None, str, str]:
    """Return stage, suspect and summary, by what weighs most."""
    stage, restored, fed = findings.stage, findings.restored, findings.fed
    if findings.devices is not None:
        return Stage.DEVICE, "", one_device(*findings.devices) + "."
    restores = "" if restored is None else f"{restored.name} {restored.what}"
    suspect = fed or ""
    # The catalog's own preprocessing puts right, but is no mistake.
    if restored is not None and restored.name != RIGHT:
        suspect = fed if fed and restored.about is About.INPUT else restored.name
    if stage in (Stage.EXPORT, Stage.SIMPLIFY):
        more = f" Of the usual suspects, {restores}." if restores else ""
        return stage, suspect, _departs(findings) + more
    if restored is not None and restored.about is About.ORDER:
        return Stage.INFER, suspect, f"Results belong to other images: {restores}."
    if restored is not None and restored.about is About.LABELS:
        text = f"Labels and outputs do not belong together: {restores}."
        return stage or Stage.DATA, suspect, text
    if stage is Stage.COMPILE and (fed is None or restored is None):
        # What is fed is right, or rights nothing: the compiled model itself has the mistake.
        more = (
            f"Of the usual suspects, {restores}." if restores else "No usual suspect restores it."
        )
        return stage, suspect, f"{_departs(findings)} {more}"
    if fed is not None:
        how = f"but: {fed}" if fed else "and no usual mistake makes them so"
        text = f"The images are not fed as the catalog says, {how}"
        return Stage.DATA, suspect, f"{text}; {restores}." if restores else f"{text}."
    if restored is not None:
        return Stage.DATA, suspect, f"Of the usual suspects, {restores}."
    if findings.unrepeatable:
        return (
            Stage.INFER,
            "",
            f"The stages agree, but {findings.unrepeatable} of {count} images are classified "
            "otherwise now than in the run: it cannot be repeated.",
        )
    return (
        None,
        "",
        f"The stages agree on {count} images (bound {bound:g}) and no usual suspect restores the "
        "score: what is common to all of them is left, the weights, the labels or the images.",
    )


def _departs(findings: Findings) -> str:
    difference = findings.difference
    assert difference is not None
    article = "" if findings.before in REFERENCES.values() else "the "
    return (
        f"The {findings.departs} departs from {article}{findings.before} on the same input: "
        f"relative L2 {number(difference.relative_l2)}, "
        f"{difference.equal} of {difference.images} predictions equal."
    )

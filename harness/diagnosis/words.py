"""What a diagnosis found, and the sentence that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.base.stages import Stage
from harness.diagnosis.agreement import Agreement, number

EAGER, EXPORTED = "eager PyTorch", "exported ONNX"
SIMPLIFIED, COMPILED = "simplified ONNX", "compiled model"
STAGES = {EXPORTED: Stage.EXPORT, SIMPLIFIED: Stage.SIMPLIFY, COMPILED: Stage.COMPILE}
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
    difference: Agreement | None = None
    # The mistake that makes what is fed: "" of none that is usual, None where nothing is wrong.
    fed: str | None = None
    restored: Restored | None = None
    unrepeatable: int = 0  # images with another result now than in the run


def words(findings: Findings, count: int, bound: float) -> tuple[Stage | None, str, str]:
    """Return stage, suspect and summary, by what weighs most."""
    if findings.stage in (Stage.EXPORT, Stage.SIMPLIFY):
        text = _departs(findings)
        if findings.restored is not None:
            text += f" Of the usual suspects, {_restores(findings.restored)}."
        return findings.stage, _suspect(findings), text
    if findings.restored is not None:
        return _suspected(findings, findings.restored)
    if findings.stage is Stage.COMPILE:
        text = f"{_departs(findings)} No usual suspect restores it."
        return Stage.COMPILE, _suspect(findings), text
    if findings.fed is not None:
        return Stage.DATA, findings.fed, f"{_fed(findings.fed)}."
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


def _suspected(findings: Findings, restored: Restored) -> tuple[Stage | None, str, str]:
    suspect, restores = _suspect(findings), _restores(restored)
    if restored.about is About.ORDER:
        return Stage.INFER, suspect, f"Results belong to other images: {restores}."
    if restored.about is About.LABELS:
        text = f"Labels and outputs do not belong together: {restores}."
        return findings.stage, suspect, text
    if findings.fed is not None:
        return Stage.DATA, suspect, f"{_fed(findings.fed)}; {restores}."
    return Stage.DATA, suspect, f"Of the usual suspects, {restores}."


def _suspect(findings: Findings) -> str:
    """Return the mistake's name; the catalog's own preprocessing puts right, but is none."""
    restored = findings.restored
    if restored is None or restored.name == RIGHT:
        return findings.fed or ""
    return findings.fed if findings.fed and restored.about is About.INPUT else restored.name


def _restores(restored: Restored) -> str:
    return f"{restored.name} {restored.what}"


def _departs(findings: Findings) -> str:
    difference, here, before = findings.difference, SIMPLIFIED, EXPORTED
    assert difference is not None
    if findings.stage is Stage.EXPORT:
        here, before = EXPORTED, EAGER
    elif findings.stage is Stage.COMPILE:
        here, before = COMPILED, f"the {SIMPLIFIED} on the same input"
    return (
        f"The {here} departs from {before}: relative L2 {number(difference.relative_l2)}, "
        f"{difference.equal} of {difference.images} predictions equal."
    )


def _fed(mistake: str) -> str:
    text = "The images are not fed as the catalog says"
    return f"{text}, but: {mistake}" if mistake else f"{text}, and no usual mistake makes them so"

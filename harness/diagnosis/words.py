"""What a diagnosis found, and how it is put into a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from harness.diagnosis.agreement import Agreement, number

EAGER, EXPORTED = "eager PyTorch", "exported ONNX"
SIMPLIFIED, COMPILED = "simplified ONNX", "compiled model"
STAGES = {EXPORTED: "export", SIMPLIFIED: "simplify", COMPILED: "compile"}
RIGHT = "the catalog's preprocessing"
ORDER, LABELS, INPUT = "order", "labels", "input"  # what a suspect is about


@dataclass
class Findings:
    """What was found, until it is put into words."""

    stage: str = ""  # the first that departs
    difference: Agreement | None = None
    operator: str = ""
    # The mistake that makes what is fed: "" of none that is usual, None where nothing is wrong.
    fed: str | None = None
    restored: tuple[str, str] | None = None  # a suspect, and what it restores, in words
    kind: str = ""  # of that suspect: INPUT, ORDER or LABELS
    unrepeatable: int = 0  # images with another result now than in the run


def words(found: Findings, count: int, bound: float) -> tuple[str, str, str]:
    """Stage, suspect and summary, by what weighs most."""
    difference = found.difference
    if found.stage in ("export", "simplify"):
        before = EAGER if found.stage == "export" else EXPORTED
        here = EXPORTED if found.stage == "export" else SIMPLIFIED
        assert difference is not None
        text = (
            f"The {here} departs from {before}: relative L2 {number(difference.relative_l2)}, "
            f"{difference.equal} of {difference.images} predictions equal."
        )
        if found.operator:
            text += f" The first operator that departs is {found.operator}."
        return found.stage, "", text
    if found.restored is not None:
        name, what = found.restored
        if found.kind == ORDER:
            return "run", name, f"Results belong to other images: {name} {what}."
        if found.kind == LABELS:
            return (
                found.stage,
                name,
                f"Labels and outputs do not belong together: {name} {what}.",
            )
        if found.fed is not None:
            # What puts it right is no mistake, and so explains nothing.
            suspect = found.fed or ("" if name == RIGHT else name)
            return "input", suspect, f"{_fed(found.fed)}; {name} {what}."
        return "input", name, f"Of the usual suspects, {name} {what}."
    if found.stage == "compile":
        assert difference is not None
        text = (
            f"The {COMPILED} departs from the {SIMPLIFIED} on the same input: relative L2 "
            f"{number(difference.relative_l2)}, {difference.equal} of {difference.images} "
            f"predictions equal; no usual suspect restores it."
        )
        if found.operator:
            text += f" The first operator that departs is {found.operator}."
        return "compile", "", text
    if found.fed is not None:
        return "input", found.fed, f"{_fed(found.fed)}."
    if found.unrepeatable:
        return (
            "run",
            "",
            f"The stages agree, but {found.unrepeatable} of {count} images are classified "
            "otherwise now than in the run: it cannot be repeated.",
        )
    return (
        "",
        "",
        f"The stages agree on {count} images (bound {bound:g}) and no usual suspect restores the "
        "score: what is common to all of them is left, the weights, the labels or the images.",
    )


def _fed(mistake: str) -> str:
    text = "The images are not fed as the catalog says"
    return f"{text}, but: {mistake}" if mistake else f"{text}, and no usual mistake makes them so"

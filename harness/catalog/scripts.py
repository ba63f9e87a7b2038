"""A proposal for preprocessing, out of the script that lies beside a guide.

Only what a script says in one way is taken: torchvision's transforms, or the family of scripts with
`resize`, `center_crop`, `mean` and `std`. Two different values leave a blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base.errors import CatalogError
from harness.catalog.guide import Guide, read_guide
from harness.catalog.written import Cited, Digits, blank

_ONE = r"([01](?:\.\d+)?|\.\d+)"  # of 0..1: AIPP's means are of 0..255
_THREE = rf"[\[(]\s*{_ONE}\s*,\s*{_ONE}\s*,\s*{_ONE}\s*[\])]"
_SQUARE = r"(?:Resize|input_size\s*=)\s*\(?\s*\(\s*(\d+)\s*,\s*\1\s*\)"
_SHORT = (
    r"transforms\.(?:Resize|Scale)\(\s*(?:size=)?(\d+)\b|'resize'\s*:\s*(\d+)|resize_size\s*=\s*(\d+)"
    r"|\bresize\(\w+,\s*(\d+)\)"
)
_CROP = (
    r"CenterCrop\(\s*(?:size=)?\(?\s*(\d+)\b|'centercrop'\s*:\s*(\d+)|center_crop\(\w+,\s*(\d+)\b"
)
_INTERPOLATION = r"bicubic|bilinear|interpolation=3\b|Resize\(\s*\d+\s*\)"
_OFFSET = r"CenterCrop\(|int\(round\(|(?:left|top)\w*\s*=\s*int\(\("
_MODE = re.compile(r"'(\w+)'\s*:\s*\{(?:[^{}]*\n?)*?\}")


def propose(guide: Guide, folder: Path) -> dict[str, Any]:
    """Return a catalog's `preprocessing`: values with the line of the script, or blanks."""
    for path in sorted(folder.glob("*pre*process*.py")):
        if "post" not in path.name:
            try:
                script = read_guide(path)
            except CatalogError:
                continue
            return _of_script(_of_mode(guide, script, path.name), path.name)
    return _of_script(Guide(("",)), "")


def network_of(folder: Path) -> Cited | None:
    """Return the network that the script of the export builds with timm or torchvision."""
    for path in sorted(folder.glob("*onnx*.py")):
        try:
            script = read_guide(path)
        except CatalogError:
            continue
        timm = script.find(r"\btimm\.create_model\(\s*['\"](\w+)")
        vision = script.find(r"(?:^|=\s*)(?:torchvision\.)?models\.(?:mnasnet\.)?([a-z]\w+)\(")
        imported = script.find(r"^\s*(?:import torchvision|from torchvision import models)")
        if timm:
            return Cited(f"timm:{timm[1][1]}", f"{path.name} {script.origin(timm[0])}")
        if vision and imported:
            return Cited(f"torchvision:{vision[1][1]}", f"{path.name} {script.origin(vision[0])}")
    return None


def _of_mode(guide: Guide, script: Guide, name: str) -> Guide:
    """Return a script without the blocks for models that the guide's command does not name."""
    text = "\n".join(script.lines)
    blocks = [match for match in _MODE.finditer(text) if "'resize'" in match[0]]
    command = guide.find(rf"{re.escape(name)}\s+(?:--?\w+[ =])?(\w+)")
    named = command[1][1] if command and len(blocks) > 1 else ""
    for block in blocks:
        if named and block[1] != named:
            blanked = re.sub(r"[^\n]", " ", block[0])
            text = text[: block.start()] + blanked + text[block.end() :]
    return Guide(tuple(text.split("\n")))


def _of_script(script: Guide, name: str) -> dict[str, Any]:
    code = Guide(tuple(line.partition("#")[0] for line in script.lines))

    def only(pattern: str, value: Callable[[re.Match[str]], Any]) -> Cited | None:
        """Return the value that all matches agree on, with the line of the first."""
        found = [(line, value(match)) for line, match in code.find_all(pattern)]
        if not found or any(one != found[0][1] for _, one in found):
            return None
        return Cited(found[0][1], f"proposed: {name} {script.origin(found[0][0])}")

    square, short = only(_SQUARE, _number), only(_SHORT, _number)
    size = square or short
    op = size and Cited("resize_square" if square else "resize_short", size.origin)
    return {
        "resize": {
            "op": op or blank("resize_short, resize_square or resize_height"),
            "size": size or blank("the size that images are scaled to"),
            "interpolation": only(_INTERPOLATION, _interpolation) or blank("bilinear or bicubic"),
        },
        "crop": {
            "size": only(_CROP, _number) or blank("the side of the input in pixels"),
            "offset": only(_OFFSET, _offset) or blank("round or floor"),
        },
        "normalize": {
            "mean": only(rf"\bmean'?\s*[=:]\s*{_THREE}", _three) or blank("three numbers of 0..1"),
            "std": only(rf"\bstd'?\s*[=:]\s*{_THREE}", _three) or blank("three numbers of 0..1"),
        },
    }


def _number(match: re.Match[str]) -> Digits:
    return Digits(next(one for one in match.groups() if one))


def _three(match: re.Match[str]) -> list[Digits]:
    return [Digits(one) for one in match.groups()]


def _interpolation(match: re.Match[str]) -> str:
    """Return PIL's number 3 and every cubic as bicubic; torchvision's default is bilinear."""
    return "bicubic" if "cubic" in match[0].lower() or match[0].endswith("3") else "bilinear"


def _offset(match: re.Match[str]) -> str:
    return "floor" if match[0].endswith("int((") else "round"

"""No room but a family's own knows its targets or its tools by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from harness.base.environment import ROOT
from harness.base.families import PACKAGES, families

HOUSE = ROOT / "harness"
OWN = ("targets/ascend/", "targets/cuda/", "simulator/")
GUIDES = ("catalog/draft.py", "catalog/figures.py")  # read guides, which are full of such names
TARGETS = [name for family in families() for name in family.targets if not family.rehearses]
TOOLS = ("npu-smi", "atc", "ais_bench", "aclruntime", "msprobe", "msit", "nvidia-smi")
NAMES = re.compile(rf"(?<![a-z0-9])({'|'.join((*TARGETS, *TOOLS))})(?![a-z0-9])", re.IGNORECASE)


def words(tree: ast.AST) -> Iterator[str]:
    """Every name and every string of a module but its docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                yield text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name
            case ast.ImportFrom(module=str(name)):
                yield name


def foreign(text: str) -> list[str]:
    return [one for one in words(ast.parse(text)) if NAMES.search(one) and one not in PACKAGES]


def test_names_of_targets_and_tools_stay_in_their_folders() -> None:
    modules = {path.relative_to(HOUSE).as_posix(): path for path in HOUSE.rglob("*.py")}
    assert {
        name: found
        for name, path in modules.items()
        if not name.startswith((*OWN, *GUIDES)) and (found := foreign(Path(path).read_text()))
    } == {}

"""Builders of artifacts for tests of the store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.base.stages import Stage
from harness.base.store import Builder

ROOT = Path(__file__).parents[2]
KIND = Stage.EXPORT
INPUTS = {"model": "tiny", "batch_size": 4, "flags": ["--a", "--b"], "target": {"os": "x"}}


def writes(text: str = "bytes", name: str = "model.onnx") -> Builder:
    def build(staging: Path) -> str:
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_text(text)
        return "the tool's log"

    return build


def raises(error: BaseException) -> Builder:
    def build(staging: Path) -> str:
        (staging / "model.onnx").write_text("half")
        raise error

    return build


def forbidden(staging: Path) -> str:
    raise AssertionError("built although the store has it")


def files_below(root: Path) -> list[str]:
    """Published, staged and damaged files, as paths below the root."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def refuse(number: int) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return call

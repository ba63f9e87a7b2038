"""The names of stages and artifacts on a page.

A name that is not listed (of a later harness) is shown as it was recorded.
"""

from __future__ import annotations

from harness.base.stages import ARTIFACTS, STAGES
from harness.report import figures

__all__ = ["ARTIFACTS", "STAGES", "artifact_name", "stage_name"]


def stage_name(recorded: str) -> str:
    """What was done in a stage: `simplified` -> `simplify`."""
    return STAGES.get(recorded) or figures.line(recorded, 60)


def artifact_name(recorded: str) -> str:
    """What an artifact is: `onnx` -> `ONNX file`."""
    return ARTIFACTS.get(recorded) or figures.line(recorded, 60)

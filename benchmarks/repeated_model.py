"""A backend of the device worker that computes a model several times for each execution.

For `busy_neighbours.py`: a compiled model that is so many times as slow as it should be.
"""

from __future__ import annotations

from typing import Any

from harness.targets.worker import OnnxRuntimeModel


class RepeatedModel(OnnxRuntimeModel):
    """ONNX Runtime's model on one thread; `times`: how often it computes."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        super().__init__(path, {"threads": 1})
        self._repeats = int(options["times"])

    def run(self, arrays: list[Any]) -> list[Any]:
        """One execution."""
        for _ in range(self._repeats - 1):
            super().run(arrays)
        return super().run(arrays)


def open_model(path: str, options: dict[str, Any]) -> RepeatedModel:
    """The worker's entry."""
    return RepeatedModel(path, options)

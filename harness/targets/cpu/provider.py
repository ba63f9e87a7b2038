"""What the family `cpu` offers a run: a target that every host has."""

from __future__ import annotations

from pathlib import Path

from harness.settings import Settings
from harness.targets.protocol import Target
from harness.targets.provider import Provider


class CpuProvider(Provider):
    """The host's processor."""

    def make(self, name: str, settings: Settings, folder: Path) -> Target:
        from harness.targets.cpu.target import CpuTarget

        return CpuTarget(settings.deadline_factor)


PROVIDER = CpuProvider()

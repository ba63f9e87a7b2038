"""A diagnosis apart from the measurement: a time of its own, and nothing of the record touched."""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from harness.base.errors import DeviceError, HarnessError
from harness.stages.pipeline import CaseBench
from harness.targets.pool import DevicePool
from harness.targets.protocol import Device


@dataclass
class Clock:
    """The time that a diagnosis has."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.began + self.seconds - time.monotonic()

    def check(self) -> None:
        """Raises `HarnessError` when no further step may begin."""
        if self.left <= 0:
            raise HarnessError(
                f"the diagnosis has taken its {self.seconds:g} s",
                remedy="a slow machine needs --deadline-factor",
            )


class BoundedPool(DevicePool):
    """Devices that are waited for no longer than the diagnosis has time."""

    def __init__(self, case: CaseBench, clock: Clock) -> None:
        bench = case.bench
        folder = bench.settings.leases_of(bench.run_dir)
        super().__init__(bench.target, folder, bench.run_dir, self._wait)
        self._clock = clock
        self._say = bench.progress.say

    def usable(self, without: Any = ()) -> list[Device]:
        self._clock.check()  # between two rounds over several devices
        return super().usable(without)

    def _wait(self, who: str) -> None:
        self._say(f"waiting: {who}")
        if self._clock.left <= 0:
            raise DeviceError(f"no device became free for the diagnosis: {who}")


def apart(case: CaseBench, clock: Clock) -> CaseBench:
    """The case with lists of its own: what a diagnosis opens is no part of the measurement."""
    mine = dataclasses.replace(
        case,
        artifacts=list(case.artifacts),
        stages=[],
        checkpoint_info={},
        image_info={},
        device_info={},
        lease_fds=(),
    )
    mine.bench = copy.copy(case.bench)
    mine.bench.pool = BoundedPool(mine, clock)
    return mine

"""Looks at a device before, while and after it measures."""

from __future__ import annotations

import threading
import time
from typing import Self

from harness.base.errors import DeviceError
from harness.records.conditions import Condition, Moment
from harness.targets.protocol import Device, Session, Target

WATCH_S = 1.0
# Until a look has met the device at work (it may rest at that moment), the next comes sooner.
HURRY_S = 0.2
HURRIED_LOOKS = 8


def look(
    target: Target, device: Device, moment: Moment, seconds: float, session: Session | None
) -> Condition:
    """Look at the device now; one that cannot be looked at is unknown, and the note says why."""
    try:
        return target.look(device, moment, seconds, session)
    except DeviceError as error:
        return Condition(moment, seconds, note=error.message)


class Watcher:
    """Looks at a device every second while it measures, from a thread of its own: between two
    rounds it rests, and a resting chip lowers its frequency.
    """

    def __init__(self, target: Target, device: Device, session: Session) -> None:
        self.seen: list[Condition] = []
        self._target, self._device, self._session = target, device, session
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def _watch(self) -> None:
        begin = time.monotonic()
        pause = HURRY_S
        while not self._ended.wait(pause):
            seconds = round(time.monotonic() - begin, 3)
            self.seen.append(look(self._target, self._device, "during", seconds, self._session))
            pause = WATCH_S if self._seen_enough else HURRY_S

    @property
    def _seen_enough(self) -> bool:
        met_at_work = any(look.throttled != "unknown" for look in self.seen)
        return met_at_work or len(self.seen) >= HURRIED_LOOKS

    def ready(self) -> bool:
        """Return whether a look met the device at work, or enough of them tried.

        Before, a figure may be that of a throttled device.
        """
        return self._seen_enough or not self._thread.is_alive()

    def __enter__(self) -> Self:
        if not self._target.traits.runs_on_host:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(60.0)

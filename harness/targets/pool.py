"""The devices that a run may use: which is free, which was set aside, and the lease of one.

A device that fails as a device (lost, unhealthy, a worker that would not die) is set aside for the
rest of the run, for all of its processes: the note lies in the run directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.base.errors import DeviceError, some
from harness.base.files import regular_text, replace_file
from harness.base.locks import OnWait
from harness.base.terms import Check
from harness.records.observed import HeldLease
from harness.targets import leases
from harness.targets.protocol import Device, Target

TIMEOUT_S = 8 * 3600.0  # longer than tuning holds a device
TURN_S = 5.0  # in line for one device before the others are looked at again


class DevicePool:
    """Devices of one target, seen from one process of a run."""

    def __init__(
        self,
        target: Target,
        leases_dir: Path,
        run_dir: Path,
        on_wait: OnWait,
        *,
        shares_host: bool = False,
    ) -> None:
        """`shares_host`: what is timed on the host's CPU does without having it alone."""
        self._target = target
        self._shares_host = shares_host
        self._leases = leases_dir
        self._aside = run_dir / "set-aside"
        self._on_wait = on_wait
        self.held: list[HeldLease] = []  # leases that ended; the case of this process has the list

    def usable(self, without: Collection[str] = ()) -> list[Device]:
        """Devices that were not set aside, the one to try first in front. Raises `DeviceError`:
        there is none, with what became of each.
        """
        devices = self._target.devices()
        aside = self.set_aside()
        usable = [one for one in devices if one.id not in aside and one.id not in without]
        if not usable:
            why = [f"{name}: {text}" for name, text in aside.items()]
            raise DeviceError(
                f"no device of {self._target.name} is left in this run "
                f"({some(why) or 'each was tried'})",
                remedy="the driver's own tool says how they are; a new run tries them again",
            )
        # Workers of xdist begin with different devices.
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        first = int(worker) % len(usable)
        return usable[first:] + usable[:first]

    def quarantine(self, device: Device, why: str) -> None:
        """Set a device aside for the rest of the run."""
        self._aside.mkdir(parents=True, exist_ok=True)
        replace_file(self._aside / f"{device.id}.txt", why)

    def set_aside(self) -> dict[str, str]:
        """Return the ids of the devices that were set aside, with the reason."""
        files = sorted(self._aside.glob("*.txt"))
        return {path.stem: regular_text(path) for path in files}

    @contextlib.contextmanager
    def for_case(
        self,
        check: Check,
        what: str,
        without: Collection[str] = (),
        *,
        timeout_s: float = TIMEOUT_S,
        alone: bool = False,
    ) -> Iterator[tuple[Device, leases.Lease]]:
        """Lease the first device that is free, for a case: throughput takes the whole card,
        accuracy a device alone, or a share of it where the device is the host's CPU. So does a
        rehearsal's throughput, which is judged by CPU time. `alone`: neither is shared. Raises
        `DeviceError`: none is usable, or none became free within `timeout_s` seconds.
        """
        limit = time.monotonic() + timeout_s
        shares = not alone and (check == "accuracy" or self._shares_host)
        exclusive = not (shares and self._target.traits.runs_on_host)
        turn_s = 0.0
        while True:
            places = self._places(check, what, without)
            only = len(places) == 1
            for device, group in places:
                left = max(0.0, limit - time.monotonic())
                with contextlib.ExitStack() as stack:
                    try:
                        lease = stack.enter_context(
                            leases.lease(
                                device,
                                self._leases,
                                exclusive=exclusive,
                                timeout_s=left if only else min(turn_s, left),
                                what=what,
                                on_wait=self._on_wait,
                                group=group,
                            )
                        )
                    except leases.NotFree:
                        if only or not left:
                            raise
                        continue
                    since = time.time()
                    try:
                        yield device, lease
                    finally:  # while it is still held: two that follow each other do not overlap
                        names = tuple(one.id for one in lease.devices)
                        held = HeldLease(names, lease.exclusive, since, time.time())
                        self.held.append(held)
                    return
            # Whose turn ends gives back the chips that it has of a card: turns get longer, or
            # cases that follow each other on its chips could keep it from them for ever.
            turn_s = 2 * turn_s if turn_s and check == "throughput" else TURN_S

    def _places(
        self, check: Check, what: str, without: Collection[str]
    ) -> list[tuple[Device, Sequence[Device]]]:
        """Return where a case may run, the place to try first in front: a device and its card, of
        which accuracy needs no more than the device. Raises `DeviceError`: there is none.
        """
        usable = self.usable(without)
        if check != "throughput":
            return [(device, ()) for device in usable]
        aside = self.set_aside()
        cards = {device.group: device for device in reversed(usable)}  # the first chip of each
        places: list[tuple[Device, Sequence[Device]]] = []
        undead: list[str] = []
        for device in sorted(cards.values(), key=usable.index):
            shared = self._target.card(device)
            holders = [
                f"{one.id} was set aside ({aside[one.id]}) and is held by {holder}"
                for one in shared
                if one.id in aside and (holder := leases.undead_on(one, self._leases))
            ]
            undead += holders
            if not holders:
                places.append((device, shared))
        if not places:
            raise DeviceError(
                f"{what}: no card of {self._target.name} can be had alone: {some(undead)}",
                remedy="end that process, or reset the card; accuracy can be run on its other "
                "chips: -m accuracy",
            )
        return places

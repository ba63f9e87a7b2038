"""Host-wide leases of devices: who may use an NPU, a GPU or the host's CPU now.

A lease is a shared or an exclusive lock on `<target>-<index>.lock`. The device worker inherits
its descriptors, so a device is free exactly when the last process that could touch it is dead,
also after `kill -9` of the harness. Whoever wants a lease passes through `<target>-<index>.gate`
first: one who waits for an exclusive lease keeps the gate, so that a stream of shared holders
cannot starve it. One directory for all who share the devices, other users and containers
included (`harness.base.locks.lease_folder`): root's, or one of our own, so that nobody else can
remove a lock that is held. A run by root makes one that is open to everybody.

Take a lease last: builds are done, and no lock of the store is waited for, while one is held.
Chunks of images are the exception, with an order of their own: lease first, then the chunk's lock
(`harness.images.crops`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import DeviceError
from harness.base.locks import NOTICE_S, FileLock, LockTimeout, OnWait, holder_of, left_behind
from harness.targets.protocol import Device


class NotFree(DeviceError):
    """Somebody else held the device for as long as there was time to wait."""


@dataclass(frozen=True)
class Lease:
    """The right to use `devices`, for as long as this process or an heir of `fds` lives.

    Give `fds` to every process that may touch a device (`pass_fds`).
    """

    devices: tuple[Device, ...]
    exclusive: bool
    fds: tuple[int, ...]
    waited_s: float


@contextlib.contextmanager
def lease(
    device: Device,
    directory: Path,
    *,
    exclusive: bool,
    timeout_s: float,
    what: str,
    on_wait: OnWait | None = None,
    group: Sequence[Device] = (),
) -> Iterator[Lease]:
    """Hold `device` for the length of a `with` block.

    Throughput is measured under an exclusive lease, with all devices that share power and memory
    (`Device.group`) given as `group`. Accuracy, builds, decoding and eager passes share. `what`
    is what others read while they wait, e.g. a case's name; `on_wait` gets the same of the holder
    from time to time.

    Not re-entrant: an exclusive lease within a lease of the same device waits for itself.

    Raises:
        NotFree: not free within `timeout_s` seconds.
        DeviceError: the lock cannot be used.
    """
    by_id = {one.id: one for one in (device, *group)}
    devices = tuple(sorted(by_id.values(), key=lambda one: one.index))
    began = time.monotonic()
    fds = []
    with contextlib.ExitStack() as stack:
        # In one order for everybody: two who want the same card cannot wait for each other.
        for one in devices:
            left_s = max(0.0, began + timeout_s - time.monotonic())
            lock = _take(one, directory, exclusive, left_s, what, on_wait)
            # Left, not released: a worker that would not die keeps its device.
            stack.callback(lock.leave)
            fds.append(lock.fd)
        yield Lease(devices, exclusive, tuple(fds), time.monotonic() - began)


def undead_on(device: Device, directory: Path) -> str:
    """Whose worker still has `device` although its case is over, in words; empty if none has."""
    try:
        return left_behind(directory / f"{device.id}.lock")
    except OSError:
        return ""  # who takes the lease says what is wrong with the lock


def _take(
    device: Device,
    directory: Path,
    exclusive: bool,
    timeout_s: float,
    what: str,
    on_wait: OnWait | None,
) -> FileLock:
    gate = FileLock(directory / f"{device.id}.gate", for_all=True)
    main = FileLock(directory / f"{device.id}.lock", for_all=True)
    limit = time.monotonic() + timeout_s

    def tell(_: str) -> None:
        # Who waits at the gate waits for the holder of the device all the same.
        if on_wait is not None:
            on_wait(f"{device.id} is held by {holder_of(main.path)}")

    try:
        for lock in (gate, main):
            lock.acquire(
                exclusive=exclusive,
                timeout_s=max(0.0, limit - time.monotonic()),
                what=what,
                on_wait=tell,
                notice_s=NOTICE_S,
            )
    except LockTimeout as error:
        kind = "alone" if exclusive else "shared"
        line = f"; next in line is {error.holder}" if error.path == gate.path else ""
        raise NotFree(
            f"{what}: {device.id} ({device.name}) was not free ({kind}) within {timeout_s:.0f} s: "
            f"held by {holder_of(main.path)}{line}",
            remedy=f"wait for the holder or end it; the lock is {main.path}",
        ) from error
    except OSError as error:
        raise DeviceError(
            f"{what}: the lease of {device.id} cannot be taken in {directory}: "
            f"{error.strerror or error}",
            remedy=f"as root: install -d -m 1777 {directory}; or --leases=DIR, a directory of "
            "root's or your own, on a file system that supports flock, the same for all who share "
            "the device",
        ) from error
    finally:
        gate.release()
    return main

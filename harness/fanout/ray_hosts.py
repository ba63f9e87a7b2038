"""Hosts of a Ray cluster, which knows NPUs as a resource (requirements/ray.txt)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.base import processes, scratch
from harness.base.environment import ROOT, with_entries
from harness.base.errors import DeviceError, HarnessError
from harness.fanout.node import Ended, Task

PATIENCE_S = 120.0  # for a host to come (back) that has what is needed, and for the cluster
LEAVE_S = 20.0  # for Ray to end what runs and leave the cluster

Event = tuple[int, Ended | None, str]


@dataclass(frozen=True)
class Needs:
    """What a task takes of a host while it runs: Ray's resources by name, CPUs, bytes of memory.

    `build_cpus`: of a host that need not have a device, to build on; 0: where the task runs.
    """

    resources: Mapping[str, float]
    cpus: float = 1.0
    memory: int = 0
    build_cpus: float = 0.0

    def options(self) -> dict[str, Any]:
        """Return them as Ray takes them."""
        others = {name: amount for name, amount in self.resources.items() if name != "GPU"}
        asked = {"num_cpus": self.cpus, "num_gpus": self.resources.get("GPU", 0)}
        return {**asked, "resources": others, "memory": self.memory or None}


class RayHosts:
    """The cluster at an address; see `driver.Hosts`.

    Ray runs in a process of its own (`ray_cluster`): it ends the one that it runs in when the head
    of the cluster is lost, with its own words, and answers nothing until then.
    """

    def __init__(self, address: str, needs: Needs, log: Path) -> None:
        """Join the cluster. `log` gets what Ray printed, if it is lost; where it cannot, the error.

        Raises:
            ConfigError: Ray is not installed, or no cluster answers there.
            DeviceError: none of its hosts has what is needed.
            StoreError: there is no usable temporary folder.
        """
        self._address, self._log = address, log
        self._started = self._running = 0
        self._kept = contextlib.ExitStack()
        self._printed = self._kept.enter_context(scratch.folder("ray")) / "ray.log"
        ours, theirs = socket.socketpair()
        self._pipe = self._kept.enter_context(Connection(ours.detach()))
        with theirs, self._printed.open("wb") as out:
            given = map(str, (theirs.fileno(), os.getpid()))
            self._process = processes.start(
                [sys.executable, "-P", "-m", "harness.fanout.ray_cluster", *given],
                stdout=out,
                env=with_entries(os.environ, "PYTHONPATH", first=[ROOT]),
                pass_fds=[theirs.fileno()],
            )
        try:
            self._pipe.send((address, needs))
            self._hear()
        except HarnessError:
            self.stop()
            raise

    def start(self, task: Task) -> int:
        """Start a task; Ray runs it as soon as a host has what it needs."""
        self._started += 1
        self._running += 1
        with contextlib.suppress(OSError):  # it is lost, says `events`, after what it said before
            self._pipe.send((self._started, task))
        return self._started

    def events(self) -> Iterator[Event]:
        """Yield what happens; see `driver.Hosts`."""
        while self._running:
            if event := self._hear():
                self._running -= event[1] is None
                yield event

    def stop(self) -> None:
        """End what still runs, and leave the cluster."""
        self._pipe.close()
        processes.wait_ended(self._process, LEAVE_S)
        processes.kill_group(self._process)
        self._kept.close()

    def _hear(self) -> Event | None:
        """Return what happened, None for nothing so far. Raises `HarnessError` of that process, or
        `DeviceError`: the cluster is lost.
        """
        try:
            said: Any = self._pipe.recv() if self._pipe.poll(PATIENCE_S) else self._lost()
        except (EOFError, OSError):
            said = self._lost()
        if isinstance(said, HarnessError):
            raise said
        event: Event | None = said
        return event

    def _lost(self) -> DeviceError:
        ended = processes.wait_ended(self._process, 1.0)
        processes.kill_group(self._process, 0.0)
        why, log = f"Ray said nothing for {PATIENCE_S:g} s", ""
        if ended:
            why = f"Ray {processes.describe_exit(self._process.returncode)}"
        try:
            self._log.parent.mkdir(exist_ok=True)
            shutil.copyfile(self._printed, self._log)
        except OSError:  # there is no run yet, or no room
            log = processes.tail(self._printed)
        return DeviceError(
            f"the Ray cluster at {self._address} is lost, its head does not answer ({why})",
            remedy="start it again (ray start --head, and the other hosts)",
            log=log,
        )

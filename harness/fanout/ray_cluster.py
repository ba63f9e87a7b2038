"""Ray's side of a fan-out, in the process that `ray_hosts` starts.

Tasks come through a socket, with numbers that name them; what happens to them goes back.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from harness.base import signals
from harness.base.errors import ConfigError, DeviceError, HarnessError
from harness.base.text import first_line
from harness.fanout import node
from harness.fanout.node import Task
from harness.fanout.ray_hosts import PATIENCE_S, Event, Needs

TURN_S = 1.0


class Cluster:
    """The cluster at an address, which this process has joined."""

    def __init__(self, address: str, needs: Needs) -> None:
        """Join it.

        Raises:
            ConfigError: Ray is not installed, or no cluster answers there.
            DeviceError: none of its hosts has what is needed.
        """
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            remedy = "pip install -r requirements/ray.txt; or --shard=I/N on each host, and merge"
            raise ConfigError("Ray is not installed here", remedy=remedy) from None
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            remedy = "start one: ray start --head, and ray start --address=HOST:6379 on the others"
            raise ConfigError(f"no Ray cluster at {address}: {error}", remedy=remedy) from None
        self._needs = needs
        self._running: dict[Any, int] = {}
        if not self._has_host():
            raise self._no_host()

    def events(self, tasks: queue.SimpleQueue[tuple[int, Task] | None]) -> Iterator[Event | None]:
        """Run the tasks that come until None comes; yield what happens, and None in each turn.
        Raises `DeviceError`: no host is left that has what the tasks need.
        """
        seen = time.monotonic()
        while True:
            # With nothing to do it waits for a task.
            while not (tasks.empty() and self._running):
                if (given := tasks.get()) is None:
                    return
                self._start(*given)
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=TURN_S)
            yield None
            if ready or self._has_host():
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE_S:
                raise self._no_host()
            for handle in ready:
                try:
                    ended = self._ray.get(next(handle))
                except StopIteration:
                    why = "it ended before its last case"
                except self._ray.exceptions.RayError as error:
                    why = first_line(getattr(error, "cause", None) or error)
                    self._has_host()  # without the head no host is to blame, and this never returns
                else:
                    yield self._running[handle], ended, ""
                    continue
                yield self._running.pop(handle), None, why

    def leave(self) -> None:
        """End what still runs, and leave the cluster."""
        for handle in self._running:
            self._ray.cancel(handle, force=True)
        self._ray.shutdown()

    def _start(self, number: int, task: Task) -> None:
        """Start a task; Ray runs it as soon as a host has what it needs."""
        built: Any = ()
        if self._needs.build_cpus:
            builder = self._ray.remote(node.build).options(num_cpus=self._needs.build_cpus)
            built = builder.remote(task)  # Ray waits for it before it gives the task a device
        runner = self._ray.remote(node.perform).options(
            num_returns="streaming", max_retries=0, **self._needs.options()
        )
        self._running[runner.remote(task, built)] = number

    def _has_host(self) -> bool:
        wanted = {"CPU": self._needs.cpus, **self._needs.resources}
        return any(
            one["Alive"] and all(one["Resources"].get(k, 0) >= v for k, v in wanted.items())
            for one in self._ray.nodes()
        )

    def _no_host(self) -> DeviceError:
        wanted = ", ".join(f"{name}: {n:g}" for name, n in self._needs.resources.items())
        has = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        found = sorted({name for one in has for name in one if not name.startswith("node:")})
        return DeviceError(
            f"no host of the cluster has what a case needs ({wanted or 'a CPU'})",
            remedy=f"the hosts have {', '.join(found)}; ray start --resources, or --need=NAME=N",
        )


def main(fd: int, parent: int) -> None:
    """Serve the process at the other end of the socket until it closes it."""
    signals.end_with_parent(parent)
    tasks: queue.SimpleQueue[tuple[int, Task] | None] = queue.SimpleQueue()
    with Connection(fd) as pipe:

        def receive() -> None:
            """Take at once what comes: neither side waits for ever for the other one to read."""
            with contextlib.suppress(EOFError, OSError):
                while True:
                    tasks.put(pipe.recv())
            tasks.put(None)

        try:
            cluster = Cluster(*pipe.recv())
        except HarnessError as error:
            pipe.send(error)
            return
        pipe.send(None)
        threading.Thread(target=receive, name="tasks", daemon=True).start()
        try:
            for event in cluster.events(tasks):
                pipe.send(event)
        except HarnessError as error:
            pipe.send(error)
        except OSError:  # the other end was closed meanwhile
            pass
        cluster.leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Hosts of a Ray cluster, which knows NPUs as a resource (requirements/ray.txt)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.base.errors import ConfigError, DeviceError
from harness.base.text import first_line
from harness.fanout import node
from harness.fanout.node import Ended, Task

PATIENCE_S = 120.0  # for a host to come (back) that has what is needed
TURN_S = 1.0


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
    """The cluster at an address; see `driver.Hosts`."""

    def __init__(self, address: str, needs: Needs) -> None:
        """Join the cluster.

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
        self._running: list[Any] = []
        if not self._has_host():
            raise self._no_host()

    def start(self, task: Task) -> Any:
        """Start a task; Ray runs it as soon as a host has what it needs."""
        built: Any = ()
        if self._needs.build_cpus:
            builder = self._ray.remote(node.build).options(num_cpus=self._needs.build_cpus)
            built = builder.remote(task)  # Ray waits for it before it gives the task a device
        runner = self._ray.remote(node.perform).options(
            num_returns="streaming", max_retries=0, **self._needs.options()
        )
        self._running.append(runner.remote(task, built))
        return self._running[-1]

    def events(self) -> Iterator[tuple[Any, Ended | None, str]]:
        """Yield what happens; see `driver.Hosts`."""
        seen = time.monotonic()
        while self._running:
            ready, _ = self._ray.wait(self._running, num_returns=1, timeout=TURN_S)
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
                else:
                    yield handle, ended, ""
                    continue
                self._running.remove(handle)
                yield handle, None, why

    def stop(self) -> None:
        """End what still runs, and leave the cluster."""
        for handle in self._running:
            self._ray.cancel(handle, force=True)
        self._ray.shutdown()

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

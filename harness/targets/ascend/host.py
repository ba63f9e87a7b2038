"""An Ascend host: CANN's tools and what npu-smi shows, looked up when first needed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.base import scratch
from harness.base.errors import ConfigError, DeviceError
from harness.targets.ascend import simulation
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.npu_info import Chip, NpuInfo
from harness.targets.ascend.npu_smi import NpuSmi
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.toolkit import Toolkit, find_toolkit

LOCK = "npu-smi.lock"  # in the folder of leases
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
TEMPLATE = "ASCEND_VNPU_SPECS"  # of a container that the vendor's runtime made with a vNPU


@dataclass(frozen=True)
class Place:
    """Where a run keeps what its tools write, and the host-wide lock of npu-smi."""

    logs: Path
    work: Path
    locks: Path


class AscendHost:
    """The host as its environment and the options show it. Where no npu-smi is (a container, a
    build host) everything that it tells is unknown.

    `query_s`: seconds for one call of npu-smi; `wait_s`: for others who hold it.
    """

    def __init__(
        self,
        options: AscendOptions,
        place: Place,
        environment: Mapping[str, str],
        *,
        query_s: float = 30.0,
        wait_s: float = 300.0,
    ) -> None:
        self._options = options
        self._place = place
        self._environment = environment
        self._query_s, self._wait_s = query_s, wait_s
        self._last_info: NpuInfo | None = None
        self._boards: dict[int, Mapping[str, str]] = {}

    @cached_property
    def toolkit(self) -> Toolkit:
        """CANN's tools and their environment. Raises `ConfigError`: an option names nothing, or a
        simulated host would stand behind a real run.
        """
        log = self._place.logs / "toolkit.log"
        toolkit = find_toolkit(self._options, self._environment, log=log)
        if self._options.simulate_ascend:
            return simulation.only_simulated(toolkit)
        return simulation.refuse(toolkit)

    @cached_property
    def npu_smi(self) -> NpuSmi | None:
        if self.toolkit.npu_smi is None:
            return None
        return NpuSmi(
            self.toolkit.npu_smi,
            env=self.toolkit.env,
            lock=self._place.locks / LOCK,
            log=self._place.logs / "npu-smi.log",
            deadline_s=self._query_s,
            wait_s=self._wait_s,
        )

    def info(self) -> NpuInfo | None:
        """Return npu-smi's table now; None where there is no npu-smi. Raises `DeviceError`."""
        if self.npu_smi is not None:
            self._last_info = self.npu_smi.info()
        return self._last_info

    @property
    def known_info(self) -> NpuInfo | None:
        """The last table that could be had: no failure is remembered."""
        if self._last_info is None:
            # A build host with a driver and no card; `devices` says it when it counts.
            with contextlib.suppress(DeviceError):
                self.info()
        return self._last_info

    def name(self, soc_version: str, chip: Chip | None) -> str:
        """Return a device's name: its chip, or that it is a slice of one, as npu-smi's name or the
        container's variable tells.
        """
        template = chip.template if chip else ""
        if not template and not self._options.simulate_ascend:
            template = self._environment.get(TEMPLATE, "")
        return f"vNPU {template} of an {soc_version}" if template else soc_version

    def firmware(self, npu_id: int) -> str:
        """Return a card's firmware version; empty where nothing tells it."""
        if npu_id not in self._boards:
            self._boards[npu_id] = {} if self.npu_smi is None else self.npu_smi.board(npu_id)
        return self._boards[npu_id].get("Firmware Version", "")


@contextlib.contextmanager
def looked_at(
    options: AscendOptions, locks: Path, environment: Mapping[str, str], seconds: float = 30.0
) -> Iterator[AscendHost]:
    """Give the host to a look, which keeps no logs; `seconds` for each wait for npu-smi."""
    with scratch.folder("look") as folder:
        place = Place(folder, folder, locks)
        yield AscendHost(options, place, environment, query_s=seconds, wait_s=seconds)


def chips_of(info: NpuInfo | None, soc_version: str) -> list[Chip]:
    """Return the chips of one kind and slices of such, in npu-smi's order."""
    return [chip for chip in (info.chips if info else ()) if chip.soc_version == soc_version]


def chip_at(info: NpuInfo | None, logical_id: int) -> Chip | None:
    """Return the chip of a logical id; None where npu-smi shows none."""
    return next(
        (chip for chip in (info.chips if info else ()) if chip.logical_id == logical_id), None
    )


def soc_name(text: str) -> str:
    """Return atc's name of a chip: `310P3` and `ascend 310p3` are `Ascend310P3`."""
    name = re.sub(r"\s", "", text)
    return "Ascend" + re.sub(r"(?i)^ascend", "", name).upper()


def require_chip(given: str | None, target: str) -> None:
    """Raise `ConfigError` where `--soc-version` is not the chip of the target."""
    chip = CHIPS[target]
    if given is not None and soc_name(given) != chip:
        raise ConfigError(
            f"--soc-version={given} is not the chip of the target {target}, {chip}",
            remedy=f"--soc-version={chip}, or the target of the other chip",
        )

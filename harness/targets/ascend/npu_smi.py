"""Queries of npu-smi, and what its failures mean.

Vendor's rule: npu-smi must not run twice at the same time. Every call here holds one lock file
of the host. `npu-smi info watch` never ends and is never called.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import DeviceError
from harness.base.files import open_log
from harness.base.locks import LockTimeout, locked
from harness.base.processes import Completed, run
from harness.targets.ascend.chips import SERIES_ONLY
from harness.targets.ascend.npu_info import (
    Chip,
    Clock,
    NpuInfo,
    has_rows,
    parse_clock,
    parse_fields,
    parse_info,
)

TRIES = 3  # of a query that fails at once: mostly somebody else's call at the same moment
RETRY_S = 0.5


@dataclass
class NpuSmi:
    """Queries of npu-smi, one at a time on this host.

    `lock` is the same file for everybody who shares the devices; `log` gets every call and its
    answer. `deadline_s` bounds one call; its process group is killed then. A call waits for
    others' calls for `wait_s` seconds.
    """

    program: Path
    env: Mapping[str, str]
    lock: Path
    log: Path
    deadline_s: float = 30.0
    wait_s: float = 300.0
    _names: dict[int, str] = field(default_factory=dict, init=False)  # by NPU, as its board says

    def info(self) -> NpuInfo:
        """All chips now.

        A failure that may pass is tried again first. Raises `DeviceError`: npu-smi cannot be
        started, fails, hangs, crashes, is held by others for too long, or shows no chip. Its own
        text is in the error.
        """
        info = parse_info(self._answer("info", table=True))
        return replace(info, chips=tuple(map(self._named, info.chips)))

    def _named(self, chip: Chip) -> Chip:
        """Return the chip with the name that atc takes, where the table has only its series."""
        if chip.name not in SERIES_ONLY:
            return chip
        if chip.npu_id not in self._names:
            with contextlib.suppress(DeviceError):  # the next call asks again
                npu = self._fields("board", chip.npu_id, chip.chip_id).get("NPU Name", "")
                self._names[chip.npu_id] = f"{chip.name}_{npu}" if npu else chip.name
        return replace(chip, name=self._names.get(chip.npu_id, chip.name))

    def board(self, npu_id: int) -> Mapping[str, str]:
        """`info -t board`: "Firmware Version", "Software Version", "Product Name", ...

        Only what the tool knows; empty where it has no such query, or not for us. Raises
        `DeviceError`: the query fails all the same.
        """
        try:
            return self._fields("board", npu_id)
        except DeviceError as error:
            problem = failure_of(error.log)
            if problem is not None and problem.final:
                return {}
            raise

    def product(self, npu_id: int) -> str:
        """The card's name, e.g. for the record of a card's figure; empty when it has none."""
        for kind, key in (("product", "Product Type"), ("board", "Product Name")):
            with contextlib.suppress(DeviceError):  # the log has it; a record can do without
                if name := self._fields(kind, npu_id).get(key, ""):
                    return name
        return ""

    def clock(self, npu_id: int, chip_id: int) -> Clock | None:
        """The clock of a chip's AI cores; `None` where it is not told."""
        try:
            text = self._answer("info", "-t", "common", "-i", str(npu_id))
        except DeviceError:
            return None
        return parse_clock(text, chip_id)

    def _fields(self, kind: str, npu_id: int, chip_id: int | None = None) -> Mapping[str, str]:
        of_chip = () if chip_id is None else ("-c", str(chip_id))
        text = self._answer("info", "-t", kind, "-i", str(npu_id), *of_chip)
        return parse_fields(text.splitlines())

    def _answer(self, *arguments: str, table: bool = False) -> str:
        """Return what a query printed; ask again where it failed at once and may not the next time.

        A `table` counts more than the exit code, which is the low byte of some code.
        """
        for left in reversed(range(TRIES)):
            done, text = self._call(*arguments)
            problem = failure_of(text)
            crashed = done.timed_out or done.returncode < 0
            if problem is None and (done.ok or (table and not crashed and has_rows(text))):
                return text
            if not left or done.timed_out or (problem is not None and problem.final):
                raise _failed(f"npu-smi {' '.join(arguments)}", done, text, problem)
            time.sleep(RETRY_S)
        raise AssertionError("unreachable")

    def _call(self, *arguments: str) -> tuple[Completed, str]:
        command = f"npu-smi {' '.join(arguments)}"
        try:
            with locked(self.lock, timeout_s=self.wait_s, what=command, for_all=True) as lock:
                with open_log(self.log) as file:
                    file.write(f"$ {command}\n".encode())
                done = run(
                    [str(self.program), *arguments],
                    deadline_s=self.deadline_s,
                    log=self.log,
                    env=self.env,
                    # Should we be killed meanwhile, the next call waits for this one's end.
                    pass_fds=(lock.fd,),
                    dies_with_us=True,
                )
                return done, done.output()
        except LockTimeout as error:
            raise DeviceError(
                f"{command} was not run: npu-smi was not free within {error.seconds:g} s, "
                f"held by {error.holder}",
                remedy=f"end the holder; the lock is {self.lock}",
            ) from error
        except OSError as error:
            raise DeviceError(
                f"{command} was not run: its lock or its log cannot be written: "
                f"{error.strerror or error}",
                remedy=f"make {self.lock} and {self.log} writable; see --leases=DIR",
            ) from error


_DRIVER = (
    "check the driver: `lsmod | grep drv`, `ls /dev/davinci*`, and run `npu-smi info` by hand as "
    "the same user, in the same container"
)
_ACCESS = (
    "run as a member of the driver's group (HwHiAiUser) or as root; in a container map "
    "/dev/davinciN, /dev/davinci_manager, /dev/devmm_svm, /dev/hisi_hdc and /usr/local/dcmi"
)


class Failure(NamedTuple):
    """A failure that npu-smi prints: what its line has, what that means, what to do.

    `final`: it is as true at the next try: no such query, no right to it, nothing to be asked.
    """

    sign: str
    meaning: str = ""
    remedy: str = _DRIVER
    final: bool = False


# DCMI's codes after the vendor's list of return codes; then lines whose code is not known.
_FAILURES = (
    Failure("ret is -8001", "invalid parameter"),
    Failure("ret is -8002", "not permitted", _ACCESS, final=True),
    Failure("ret is -8005", "an inner error: mostly no access to the device", _ACCESS),
    Failure("ret is -8006", "the device did not answer in time"),
    Failure("ret is -8007", "no such device"),
    Failure("ret is -8008", "the device does not exist"),
    Failure("ret is -8009", "a call into the driver failed", _ACCESS),
    Failure("ret is -8012", "the device is not ready", "wait; if it stays so, reset the device"),
    Failure("ret is -8013", "not supported in a container", "run it on the host", final=True),
    Failure("ret is -8015", "a reset of the device failed", "restart the host"),
    Failure("ret is -8017", "the device's firmware is being upgraded", "try again afterwards"),
    Failure(
        "ret is -8020",
        "another container has the device",
        "give each container devices of its own, or start it privileged",
    ),
    Failure("ret is -8255", "this device does not support the query", final=True),
    Failure("ret is -9005", "this npu-smi does not know the board", "use the driver's npu-smi"),
    Failure("dcmi module initialize failed"),
    Failure("dcmi model initialized failed"),
    Failure("npu get board type failed"),
    Failure("Failed to execute npu-smi"),
    Failure("There is no NPU card", "the driver sees no card", final=True),
    Failure("does not support query", final=True),
    Failure("Command or option is not found", "it has no such query", "update the driver", True),
    Failure(
        "error while loading shared libraries",
        "a library of the driver is not found",
        "add /usr/local/Ascend/driver/lib64, its common and its driver folder to "
        "LD_LIBRARY_PATH; in a container mount /usr/local/Ascend/driver/lib64",
        final=True,
    ),
)


def failure_of(text: str) -> Failure | None:
    """Return the known failure in what npu-smi printed; `None` when there is none.

    Its exit code is the low byte of a code and says less than the line: -8005 becomes 187.
    """
    # In a table the name of a process may be anything.
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("|")]
    for line in lines:
        known = next((one for one in _FAILURES if one.sign in line), None)
        if known is not None:
            return known._replace(sign=line)
    return None


def _failed(command: str, done: Completed, text: str, problem: Failure | None) -> DeviceError:
    if problem is not None:
        meaning = f" ({problem.meaning})" if problem.meaning else ""
        return DeviceError(
            f"{command} failed: {problem.sign}{meaning}", remedy=problem.remedy, log=text
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), "it printed nothing")
    remedy = _DRIVER
    if done.timed_out:
        remedy = "the driver hangs, or a chip is lost: see dmesg, reset the device; " + _DRIVER
    return DeviceError(
        f"{command} failed: {done.describe()}: {first[:200]}", remedy=remedy, log=text
    )

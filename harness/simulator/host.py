"""The simulated host as its tools see it: chips, open sessions, faults; shared by all processes.

Everything that outlives a process lies in a folder: one file for each open session (as a driver
knows which processes hold a device), one counter for each limited fault, one line for each call
of a tool. Standard library only, except for what the configuration needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from harness.simulator.config import DRIVERS, FAULTS, Fault, SimulatorConfig, from_json

VARIABLE = "NPU_SIMULATOR"
FOREIGN_PID = 4_194_305  # one above Linux's largest: never a process of this machine
SESSION_MB = 101
# Faults that show in outputs alone.
_OF_OUTPUTS = ("missing-outputs", "nan", "wrong-dtype")
_thrown_away: ContextVar[bool] = ContextVar("_thrown_away", default=False)
# Why a tool met no fault, where it is no news that it was not called.
_IDLE = {"atc": "nothing was compiled, the artifacts were in the store"}


@dataclass(frozen=True)
class Chip:
    """One chip: `device` is the logical id, which `--device` takes."""

    device: int
    npu_id: int
    chip_id: int
    bus_id: str


@dataclass(frozen=True)
class Holder:
    """A process that has a session open on a device."""

    pid: int
    name: str
    device: int
    memory_mb: int
    running: bool


class Host:
    """What the tools of one simulated host share."""

    def __init__(self, config: SimulatorConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self._sessions = folder / "sessions"
        self._counters = folder / "counters"
        self._struck = folder / "struck"

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Host:
        """The host that the environment names."""
        environment = os.environ if environment is None else environment
        file = environment.get(VARIABLE)
        if not file:
            raise RuntimeError(f"${VARIABLE} is not set: this tool belongs to a simulated host")
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        return cls(from_json(data["config"]), Path(data["state"]))

    # --- chips --------------------------------------------------------------------------------

    def chips(self) -> list[Chip]:
        """Every chip, in the order of npu-smi's table."""
        found: list[Chip] = []
        for card, npu_id in enumerate(self.config.npu_ids):
            for chip in range(self.config.chips_per_card):
                bus = f"0000:{1 + 8 * card + chip:02X}:00.0"
                found.append(Chip(len(found), npu_id, chip, bus))
        return found

    def visible_device(self, device: int) -> int | None:
        """The logical id behind a runtime's device id; None when there is no such device.

        `ASCEND_RT_VISIBLE_DEVICES` renumbers the devices of a process; npu-smi ignores it.
        """
        known = [chip.device for chip in self.chips()]
        listed = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
        if listed:
            known = [int(n) for n in listed.split(",") if n.isdigit() and int(n) in known]
        return known[device] if 0 <= device < len(known) else None

    # --- sessions -----------------------------------------------------------------------------

    def register(self, device: int) -> OpenSession:
        """Enter this process in the device's process table."""
        self._sessions.mkdir(parents=True, exist_ok=True)
        pid = os.getpid()
        entry = {
            "pid": pid,
            "started": _start_of(pid),
            "name": _name_of(pid),
            "device": device,
            "memory_mb": SESSION_MB,
        }
        number = 0
        while True:
            path = self._sessions / f"{pid}-{number}"
            try:
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
                break
            except FileExistsError:
                number += 1
        os.write(fd, b"0" + json.dumps(entry).encode())
        return OpenSession(path, fd)

    def holders(self, device: int) -> list[Holder]:
        """The processes that have a session open on a device; those that died are dropped."""
        found: dict[int, Holder] = {}
        for path in sorted(self._sessions.glob("*-*")):
            try:
                data = path.read_bytes()
                entry = json.loads(data[1:])
            except (OSError, ValueError):  # closed meanwhile, or being written
                continue
            if _start_of(entry["pid"]) != entry["started"]:
                path.unlink(missing_ok=True)
                continue
            if entry["device"] == device:
                before = found.get(entry["pid"])
                found[entry["pid"]] = Holder(
                    entry["pid"],
                    entry["name"],
                    device,
                    entry["memory_mb"] + (before.memory_mb if before else 0),
                    data[:1] == b"1" or bool(before and before.running),
                )
        if self.has_fault("busy", device):
            found[FOREIGN_PID] = Holder(FOREIGN_PID, "python3", device, 1024, True)
        return list(found.values())

    # --- faults -------------------------------------------------------------------------------

    def has_fault(self, name: str, device: int | None = None) -> bool:
        """Whether a lasting fault is configured for a device, without counting this question."""
        found = [
            index for index, fault in enumerate(self.config.faults) if _matches(fault, name, device)
        ]
        for index in found:
            self._remember(index)
        return bool(found)

    def strikes(self, name: str, device: int | None = None) -> bool:
        """Whether a fault strikes now; a fault that is limited to some calls counts this one."""
        if name in _OF_OUTPUTS and _thrown_away.get():
            return False
        for index, fault in enumerate(self.config.faults):
            if not _matches(fault, name, device):
                continue
            if fault.count is None or self._count(f"{index}-{name}") < fault.count:
                self._remember(index)
                return True
        return False

    def _remember(self, index: int) -> None:
        """Leave a mark of a fault that struck."""
        self._struck.mkdir(parents=True, exist_ok=True)
        (self._struck / str(index)).touch()

    def never_struck(self) -> Iterator[tuple[Fault, str]]:
        """The faults that nothing came across, each with the reason where one is known."""
        called = self._called()
        for index, fault in enumerate(self.config.faults):
            if (self._struck / str(index)).exists():
                continue
            tools = [place for place in FAULTS[fault.name].places if place not in DRIVERS]
            idle = next((tool for tool in tools if tool not in called), None)
            yield fault, _IDLE.get(idle, f"{idle} was not called") if idle else ""

    def _count(self, name: str) -> int:
        """How often this was asked before."""
        self._counters.mkdir(parents=True, exist_ok=True)
        with (self._counters / name).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b".")
            return file.tell() - 1

    # --- the rest -----------------------------------------------------------------------------

    def log_call(self, tool: str, arguments: Sequence[str]) -> None:
        """Remember that a tool was called: one JSON line in `calls.jsonl`."""
        line = json.dumps({"tool": tool, "argv": list(arguments), "pid": os.getpid()}) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "calls.jsonl").open("ab") as file:
            file.write(line.encode())

    def _called(self) -> set[str]:
        """The tools that were called for more than their help."""
        found = set()
        try:
            for line in (self.folder / "calls.jsonl").read_text(encoding="utf-8").splitlines():
                call = json.loads(line)
                if "--help" not in call["argv"]:
                    found.add(str(call["tool"]))
        except (OSError, ValueError, KeyError):  # no call, or half a line of one that was killed
            pass
        return found

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Whether nobody else does `name` meanwhile; does not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


class OpenSession:
    """This process' entry in a device's process table; the kernel need not close it."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def running(self, flag: bool) -> None:
        """Say whether an execution is under way: the AI core's use."""
        os.pwrite(self._fd, b"1" if flag else b"0", 0)

    def close(self) -> None:
        """Leave the table; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)


@contextmanager
def outputs_thrown_away() -> Iterator[None]:
    """A model that is loaded within the block gives no outputs to anybody: a fault of outputs
    strikes nothing there, and is not counted as one that did.
    """
    token = _thrown_away.set(True)
    try:
        yield
    finally:
        _thrown_away.reset(token)


def never_struck(folder: Path) -> tuple[str, ...]:
    """A sentence for each fault of the host installed in `folder` that nothing came across.

    Empty where no host was installed. Whoever planted a fault would else take a run that was
    never harmed for one that bore it.
    """
    file = folder / "simulator.json"
    if not file.is_file():
        return ()
    try:
        host = Host.load({VARIABLE: str(file)})
    except (OSError, ValueError, KeyError, TypeError):  # half a file of a run that was killed
        return ()
    return tuple(
        f"fault {fault.text} never struck" + (f": {why}" if why else "")
        for fault, why in host.never_struck()
    )


def hang() -> None:
    """Never come back, whatever the signal handlers of the process say to a wait."""
    sys.stdout.flush()
    while True:
        time.sleep(3600)


def crash() -> None:
    """End this process as a fault of a native library does."""
    sys.stdout.flush()
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


def _matches(fault: Fault, name: str, device: int | None) -> bool:
    return fault.name == name and (fault.device is None or fault.device == device)


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty when it is dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else words[19]


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""

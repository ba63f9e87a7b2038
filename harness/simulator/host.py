"""The simulated host as its tools see it: chips, open sessions, faults; shared by all processes.

Everything that outlives a process lies in a folder: one file for each open session (as a driver
knows which processes hold a device), one counter for each limited fault, one line for each call
of a tool. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.simulator.config import SimulatorConfig, parse_config
from harness.simulator.faults import DRIVERS

VARIABLE = "NPU_SIMULATOR"
FOREIGN_PID = 4_194_305  # one above Linux's largest: never a process of this machine
SESSION_MB = 101
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
    memory_mb: int
    running: bool


class Host:
    """What the tools of one simulated host share."""

    def __init__(self, config: SimulatorConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self._sessions = folder / "sessions"
        self._struck = folder / "struck"

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Host:
        """Return the host that the environment names."""
        environment = os.environ if environment is None else environment
        file = environment.get(VARIABLE)
        if not file:
            raise RuntimeError(f"${VARIABLE} is not set: this tool belongs to a simulated host")
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        return cls(parse_config(data["text"]), Path(data["state"]))

    # --- chips --------------------------------------------------------------------------------

    def chips(self) -> list[Chip]:
        """Return every chip, in the order of npu-smi's table."""
        chips: list[Chip] = []
        for card in range(self.config.cards):
            for chip in range(self.config.chips_per_card):
                bus = f"0000:{1 + 8 * card + chip:02X}:00.0"
                chips.append(Chip(len(chips), card, chip, bus))
        return chips

    # --- sessions -----------------------------------------------------------------------------

    def register(self, device: int) -> OpenSession:
        """Enter this process in the device's process table."""
        self._sessions.mkdir(parents=True, exist_ok=True)
        pid, name = os.getpid(), Path("/proc/self/comm").read_text().strip()
        entry = {"pid": pid, "started": _start_of(pid), "name": name, "device": device}
        fd, path = tempfile.mkstemp(prefix=f"{pid}-", dir=self._sessions)
        os.write(fd, b"0" + json.dumps(entry).encode())
        return OpenSession(Path(path), fd)

    def holders(self, device: int) -> list[Holder]:
        """Return the processes that have a session open on a device; drop those that died."""
        holders: dict[int, Holder] = {}
        for path in sorted(self._sessions.glob("*-*")):
            try:
                data = path.read_bytes()
                entry = json.loads(data[1:])
            except (OSError, ValueError):  # closed meanwhile, or being written
                continue
            pid = entry["pid"]
            if _start_of(pid) != entry["started"]:
                path.unlink(missing_ok=True)
            elif entry["device"] == device:
                before = holders.get(pid, Holder(pid, entry["name"], 0, False))
                running = data[:1] == b"1" or before.running
                memory = SESSION_MB + before.memory_mb
                holders[pid] = Holder(pid, entry["name"], memory, running)
        if self.strikes("busy", device):
            holders[FOREIGN_PID] = Holder(FOREIGN_PID, "python3", 1024, True)
        return list(holders.values())

    # --- faults -------------------------------------------------------------------------------

    def strikes(self, name: str, device: int | None = None) -> bool:
        """Return whether a fault strikes now; one that is limited to some calls counts this one."""
        matching = (
            index for index, fault in enumerate(self.config.faults) if fault.matches(name, device)
        )
        return any(self._strikes(index) for index in matching)

    def _strikes(self, index: int) -> bool:
        """Mark a fault's strike, unless it struck as often as it may: a byte for each."""
        most = self.config.faults[index].count
        self._struck.mkdir(parents=True, exist_ok=True)
        with (self._struck / str(index)).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if most is not None and file.seek(0, os.SEEK_END) >= most:
                return False
            file.write(b".")
            return True

    # --- the rest -----------------------------------------------------------------------------

    def log_call(self, tool: str, arguments: Sequence[str]) -> None:
        """Log that a tool was called: one JSON line in `calls.jsonl`."""
        line = json.dumps({"tool": tool, "argv": list(arguments), "pid": os.getpid()}) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "calls.jsonl").open("ab") as file:
            file.write(line.encode())

    def called(self) -> set[str]:
        """Return the tools that were called."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        whole = [line for line in lines if line.endswith("}")]  # not half, of one that was killed
        return {json.loads(line)["tool"] for line in whole}

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Yield whether nobody else does `name` meanwhile; do not wait."""
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


class ToolError(Exception):
    """What a tool ends with: a text, which goes to stdout, and an exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


Tool = Callable[[Sequence[str], Host], int]


def play(name: str, tool: Tool, argv: Sequence[str], host: Host | None = None) -> int:
    """Call a tool of a host (default: the environment's) and return its exit code."""
    host = host or Host.load()
    host.log_call(name, argv)
    try:
        code = tool(argv, host)
    except ToolError as error:
        print(error)
        code = error.code
    sys.stdout.flush()
    return code


def parse_flags(argv: Sequence[str], known: str, code: int) -> dict[str, str]:
    """Parse `--name=value` and `--name value`; `known` are the names. Raises `ToolError`: an
    unknown flag, or one without its value.
    """
    flags: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        match = re.fullmatch(r"--?([A-Za-z_0-9]+)(=(.*))?", word, re.DOTALL)
        if not match or match[1] not in known.split():
            raise ToolError(f"[ERROR] unknown command line flag {word!r}", code)
        value = match[3] if match[2] else next(words, None)
        if value is None:
            raise ToolError(f"[ERROR] flag {word!r} is missing its argument", code)
        flags[match[1]] = value
    return flags


def never_struck(folder: Path) -> tuple[str, ...]:
    """Return a sentence for each fault of the host installed in `folder` that never fired.

    Otherwise a fault that never fired would count as survived. Empty where no host was installed.
    """
    file = folder / "simulator.json"
    if not file.is_file():
        return ()
    host, sentences = Host.load({VARIABLE: str(file)}), []
    called = host.called()
    for index, fault in enumerate(host.config.faults):
        if not (host.folder / "struck" / str(index)).exists():
            tools = [place for place in fault.kind.places if place not in DRIVERS]
            idle = next((tool for tool in tools if tool not in called), None)
            why = f": {_IDLE.get(idle, f'{idle} was not called')}" if idle else ""
            sentences.append(f"fault {fault.text} never struck{why}")
    return tuple(sentences)


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


def _start_of(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty when it is dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else words[19]

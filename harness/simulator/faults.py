"""The faults that a simulated host can be told to have: which tool shows each, and what it does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.base.errors import ConfigError

DRIVERS = ("api", "cli")  # those of the harness, in its order
MAX_DEVICES = 64
LASTS = "lasts"


@dataclass(frozen=True)
class FaultKind:
    """One kind of misbehaviour. `places` show it: tools, and drivers of the harness.

    `counted` is what a count counts; `LASTS` is what a device is, rather than what it does: that
    cannot be limited to the first few times.
    """

    does: str
    counted: str
    places: tuple[str, ...] = DRIVERS

    @property
    def lasts(self) -> bool:
        """Return whether it is a state of a device."""
        return self.counted == LASTS


_NPU_SMI = ("npu-smi",)
_ATC = ("atc",)
_A_LOAD, _AN_EXECUTION, _A_CALL = "a model is loaded", "an execution", "a call"

FAULTS: Mapping[str, FaultKind] = {
    "busy": FaultKind(
        "a foreign process is in npu-smi's table (none there in old drivers), the AI core is in "
        "use",
        LASTS,
        _NPU_SMI,
    ),
    "unhealthy": FaultKind("npu-smi says `Alarm`", LASTS, _NPU_SMI),
    "throttled": FaultKind(
        "the AI core's frequency is 60 % of the rated one, 97 degrees; executions are not slower "
        "(add `slow`)",
        LASTS,
        _NPU_SMI,
    ),
    "slow": FaultKind("every execution takes, or reports, twice its time", _A_LOAD),
    "hang-run": FaultKind("an execution never ends; SIGTERM ends the process", _AN_EXECUTION),
    "crash-open": FaultKind("SIGSEGV while a model is loaded", _A_LOAD),
    "crash-run": FaultKind("SIGSEGV in an execution", _AN_EXECUTION),
    "device-lost": FaultKind(
        "`EL0003 ... runtime result = 507033`, the device cannot be opened", "a device is opened"
    ),
    "missing-outputs": FaultKind(
        "ais_bench leaves out the last sample's file; the Python API returns one output too few; "
        "exit code 0",
        _A_LOAD,
    ),
    "nan": FaultKind("the first value of each output batch is NaN", _A_LOAD),
    "wrong-dtype": FaultKind("the session says and gives float16", _A_LOAD),
    "stale-files": FaultKind(
        "atc prints success and writes nothing; ais_bench leaves a file of an earlier run among "
        "the outputs",
        _A_CALL,
        ("atc", "cli"),
    ),
    "wrong-throughput": FaultKind(
        "the printed throughput is four times the real one; exit code 0; only throughput cases "
        "look at it",
        _A_CALL,
        ("cli",),
    ),
    "truncated-om": FaultKind("atc succeeds, and its file lacks its last two fifths", "atc", _ATC),
    "unsupported-operator": FaultKind("atc fails with EZ3002", "atc", _ATC),
    "atc-hang": FaultKind("atc never ends", "atc", _ATC),
    "npu-smi-hang": FaultKind("npu-smi never ends", "npu-smi", _NPU_SMI),
    "npu-smi-fails": FaultKind(
        "`dcmi module initialize failed. ret is -8005`, exit code 187", "npu-smi", _NPU_SMI
    ),
}


@dataclass(frozen=True)
class Fault:
    """One misbehaviour: on one device or (None) on all, for the first `count` times or always."""

    name: str
    device: int | None = None
    count: int | None = None

    @property
    def kind(self) -> FaultKind:
        return FAULTS[self.name]

    @property
    def text(self) -> str:
        """As it is written in a configuration."""
        device = "any" if self.device is None else str(self.device)
        if self.count is not None:
            return f"{self.name}:{device}:{self.count}"
        return self.name if self.device is None else f"{self.name}:{device}"

    def matches(self, name: str, device: int | None) -> bool:
        """Return whether it is the fault of this name for this device."""
        return self.name == name and self.device in (None, device)


def parse_fault(text: str) -> Fault:
    """Parse `NAME`, `NAME:DEVICE` or `NAME:DEVICE:COUNT`.

    Raises:
        ConfigError: no such fault (the closest one is named).
        ValueError: another form, or a count of a fault that lasts.
    """
    name, *rest = text.split(":")
    if name not in FAULTS:
        raise ConfigError(
            f"simulated Ascend host: no fault is called {name!r}" + closest(name, FAULTS),
            remedy="known faults: " + ", ".join(FAULTS),
        )
    if len(rest) > 2 or (len(rest) == 2 and FAULTS[name].lasts):
        raise ValueError
    device = whole(rest[0], 0, MAX_DEVICES - 1) if rest and rest[0] != "any" else None
    return Fault(name, device, whole(rest[1], 1, 1_000_000) if len(rest) == 2 else None)


def whole(text: str, least: int, most: int) -> int:
    """Parse a whole number. Raises `ValueError`."""
    if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise ValueError(f"{text!r} is not in [{least}, {most}]")


def closest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)`, or nothing where no known word is close."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""

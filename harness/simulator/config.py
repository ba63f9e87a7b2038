"""What a simulated host has, and how it misbehaves: `key=value,key=value` -> a value.

Standard library only: the installed tools read the same value from a JSON file.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError

# name -> chips on a card, card product, AI core frequency (MHz), memory of a chip (MB)
CHIPS: Mapping[str, tuple[int, str, int, int]] = {
    "310": (4, "Atlas 300I-3010", 680, 8192),
    "310P1": (1, "Atlas 300V Pro", 1080, 21527),
    "310P3": (1, "Atlas 300I Pro", 1080, 21527),
}
DUO = "Atlas 300I Duo"
GENERATIONS = ("v1", "v2", "v3", "v4", "v5")
TOOLS = ("npu-smi", "atc", "aoe", "ais_bench", "benchmark")
MAX_DEVICES = 64
MAX_TIMES_BYTES = 1_000_000
MAX_MS = 600_000.0
DRIVERS = ("api", "cli", "benchmark")  # those of the harness, in its order
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
        """Whether it is a state of a device."""
        return self.counted == LASTS

    def knows_devices(self, place: str) -> bool:
        """Whether the fault strikes there on one device and not on another."""
        return place in DRIVERS or self.lasts


_NPU_SMI = ("npu-smi",)
_ATC = ("atc",)

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
    "slow": FaultKind("every execution takes, or reports, twice its time", "a model is loaded"),
    "hang-open": FaultKind("loading never ends; SIGTERM ends the process", "a model is loaded"),
    "hang-run": FaultKind("an execution never ends; SIGTERM ends the process", "an execution"),
    "crash-open": FaultKind("SIGSEGV while a model is loaded", "a model is loaded"),
    "crash-run": FaultKind("SIGSEGV in an execution", "an execution"),
    "device-lost": FaultKind(
        "`EL0003 ... runtime result = 507033`, the device cannot be opened", "a device is opened"
    ),
    "missing-outputs": FaultKind(
        "ais_bench and benchmark leave out the last sample's file; the Python API returns one "
        "output too few; exit code 0",
        "a model is loaded",
    ),
    "nan": FaultKind("the first value of each output batch is NaN", "a model is loaded"),
    "wrong-dtype": FaultKind("the session says and gives float16", "a model is loaded"),
    "stale-files": FaultKind(
        "atc prints success and writes nothing; ais_bench and benchmark leave a file of an "
        "earlier run among the outputs",
        "a call",
        ("atc", "cli", "benchmark"),
    ),
    "wrong-throughput": FaultKind(
        "the printed throughput is four times the real one; exit code 0; the driver `cli` looks "
        "at it in throughput cases alone",
        "a call",
        ("cli", "benchmark"),
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
    def text(self) -> str:
        """As it is written in a configuration."""
        device = "any" if self.device is None else str(self.device)
        if self.count is not None:
            return f"{self.name}:{device}:{self.count}"
        return self.name if self.device is None else f"{self.name}:{device}"


@dataclass(frozen=True)
class SimulatorConfig:
    """A simulated host. `docs/ascend.md` says what each key means.

    `timing` is how long an execution takes: "real" (as long as computing takes), "given"
    (`time_ms` is reported, whatever computing took) or "spin" (the processor is kept busy for
    `time_ms`). `times` has milliseconds for a model's name, its input's shape ("4x3x224x224") or
    its batch size ("4"), which win over `time_ms` in this order.
    """

    chip: str = "310P3"
    cards: int = 1
    chips_per_card: int = 1
    npu_ids: tuple[int, ...] = (0,)
    product: str = "Atlas 300I Pro"
    driver: str = "23.0.0"
    generation: str = "v5"
    cann: str = "8.0.RC2"
    auto_tune: bool = False
    om_suffix: bool = False
    atc_seconds: float = 0.0
    compute: str = "onnx"
    float16: bool = False
    threads: int = 1
    timing: str = "real"
    time_ms: float | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def soc_version(self) -> str:
        """What atc calls the chip: `Ascend310P3`."""
        return "Ascend" + self.chip

    @property
    def frequency_mhz(self) -> int:
        """The AI core's rated frequency."""
        return CHIPS[self.chip][2]

    @property
    def memory_mb(self) -> int:
        """Memory of one chip."""
        return CHIPS[self.chip][3]

    @property
    def driver_version(self) -> tuple[int, int]:
        """Major and minor of the driver: the layout of npu-smi's tables hangs on them."""
        numbers = [int(part) for part in re.findall(r"\d+", self.driver)[:2]]
        return numbers[0], numbers[1] if len(numbers) > 1 else 0

    @property
    def cann_version(self) -> tuple[int, int]:
        """Major and minor of the toolkit."""
        numbers = [int(part) for part in re.findall(r"\d+", self.cann)[:2]]
        return numbers[0], numbers[1] if len(numbers) > 1 else 0

    def to_json(self) -> dict[str, Any]:
        """For a file; `from_json` reads it."""
        return asdict(self)


def from_json(data: Mapping[str, Any]) -> SimulatorConfig:
    """What `SimulatorConfig.to_json` wrote."""
    known = {one.name for one in fields(SimulatorConfig)}
    values = {name: value for name, value in data.items() if name in known}
    values["faults"] = tuple(Fault(**fault) for fault in data.get("faults", ()))
    for name in ("npu_ids", "without"):
        values[name] = tuple(data.get(name, ()))
    return SimulatorConfig(**values)


_KEYS: Mapping[str, str] = {
    "chip": "chip of the host: " + ", ".join(CHIPS),
    "cards": "number of cards, 0 to 16",
    "chips_per_card": "chips on a card (default: 4 for 310, 1 otherwise; 2 makes a 310P3 a Duo)",
    "npu_ids": "NPU ids of the cards, joined by +, e.g. 2+5",
    "driver": "driver version, e.g. 22.0.4, 23.0.0, 26.0.0: decides npu-smi's layout",
    "generation": "ais_bench: " + ", ".join(GENERATIONS),
    "cann": "toolkit version, e.g. 5.1.RC2, 8.0.RC2",
    "auto_tune": "1: atc takes --auto_tune_mode (default: for CANN 5 only)",
    "om": "plain: x.om; linux: x_linux_<arch>.om",
    "atc_seconds": "seconds that atc takes at least",
    "compute": "onnx: ONNX Runtime; none: zeros",
    "float16": "1: through float16, as atc's default precision does",
    "threads": "threads of ONNX Runtime",
    "time": "an execution takes: real, spin:MS (a core is kept busy for so long), spin; "
    "MS: so much is told, whatever it took, and the harness finds it out",
    "times": "JSON file with milliseconds for a model's name, input shape or batch size; "
    "add time=spin",
    "without": "a tool that the host lacks (may be repeated): " + ", ".join(TOOLS),
    "fault": "NAME, NAME:DEVICE or NAME:DEVICE:COUNT (may be repeated)",
}
_REPEATED = ("fault", "without")


def _closest(word: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def _bad(key: str, value: str, expected: str) -> ConfigError:
    return ConfigError(
        f"simulated Ascend host: {key}={value} is not {expected}", remedy=f"{key}: {_KEYS[key]}"
    )


def _whole(key: str, value: str, least: int, most: int) -> int:
    if value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most:
        return int(value)
    raise _bad(key, value, f"a whole number from {least} to {most}")


def _switch(key: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise _bad(key, value, "0 or 1")
    return value == "1"


def _milliseconds(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_MS:
        raise _bad(key, value, f"milliseconds, above 0 and at most {MAX_MS:.0f}")
    return number


def _version(key: str, value: str) -> str:
    if len(value) > 40 or not re.fullmatch(r"[0-9]{1,2}(\.[A-Za-z0-9]+)+", value):
        raise _bad(key, value, "a version such as 23.0.0")
    return value


def _fault(value: str) -> Fault:
    parts = value.split(":")
    if parts[0] not in FAULTS:
        raise ConfigError(
            f"simulated Ascend host: no fault is called {parts[0]!r}"
            + _closest(parts[0], list(FAULTS)),
            remedy="known faults: " + ", ".join(FAULTS),
        )
    if len(parts) > 3:
        raise _bad("fault", value, "NAME:DEVICE:COUNT")
    device = None
    if len(parts) > 1 and parts[1] != "any":
        device = _whole("fault", parts[1], 0, MAX_DEVICES - 1)
    count = _whole("fault", parts[2], 1, 1_000_000) if len(parts) > 2 else None
    if count is not None and FAULTS[parts[0]].lasts:
        raise _bad("fault", value, f"possible: {parts[0]} lasts, leave out the count")
    return Fault(parts[0], device, count)


def _times(value: str) -> Mapping[str, float]:
    path = Path(value).expanduser()
    try:
        if not path.is_file() or path.stat().st_size > MAX_TIMES_BYTES:
            raise OSError("not a file of at most a megabyte")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"simulated Ascend host: times={value} cannot be read: {error}",
            remedy=_KEYS["times"],
        ) from None
    if not isinstance(data, dict) or not data:
        raise _bad("times", value, 'a JSON object such as {"4": 2.67}')
    table = {}
    for name, ms in data.items():
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms <= MAX_MS:
            raise ConfigError(
                f"simulated Ascend host: times={value} has {ms!r} for {name!r}, not milliseconds",
                remedy=_KEYS["times"],
            )
        table[name] = float(ms)
    return table


def parse_config(text: str, *, usual_chip: str = "310P3") -> SimulatorConfig:
    """Parse `chip=310,cards=2,fault=busy:0`; an empty text is the host that most things need.

    `usual_chip` is that of a text which names none.

    Raises:
        ConfigError: an unknown key or fault (with the closest known one), a value out of range,
            keys that do not go together.
    """
    given: dict[str, list[str]] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, separator, value = (word.strip() for word in part.partition("="))
        if key not in _KEYS:
            raise ConfigError(
                f"simulated Ascend host: unknown key {key!r}" + _closest(key, list(_KEYS)),
                remedy="known keys: " + ", ".join(_KEYS),
            )
        if not separator or not value:
            raise _bad(key, value, "a value")
        if key in given and key not in _REPEATED:
            raise ConfigError(
                f"simulated Ascend host: {key} is given twice", remedy=f"{key}: {_KEYS[key]}"
            )
        given.setdefault(key, []).append(value)

    def one(key: str, default: str) -> str:
        return given.get(key, [default])[0]

    chip = one("chip", usual_chip)
    if chip not in CHIPS:
        raise _bad("chip", chip, "a chip that can be simulated")
    usual, product, _, _ = CHIPS[chip]
    cards = _whole("cards", one("cards", "1"), 0, 16)
    chips = _whole("chips_per_card", one("chips_per_card", str(usual)), 1, 4)
    if chip == "310P3" and chips == 2:
        product = DUO
    ids = tuple(range(cards))
    if "npu_ids" in given:
        ids = tuple(_whole("npu_ids", word, 0, 65535) for word in one("npu_ids", "").split("+"))
        if "cards" in given and len(ids) != cards:
            raise _bad("npu_ids", one("npu_ids", ""), f"one id for each of {cards} cards")
        if len(set(ids)) != len(ids) or len(ids) > 16:
            raise _bad("npu_ids", one("npu_ids", ""), "at most 16 different ids")
    generation = one("generation", "v5")
    if generation not in GENERATIONS:
        raise _bad("generation", generation, "a generation that can be simulated")
    cann = _version("cann", one("cann", "8.0.RC2"))
    om = one("om", "plain")
    if om not in ("plain", "linux"):
        raise _bad("om", om, "plain or linux")
    compute = one("compute", "onnx")
    if compute not in ("onnx", "none"):
        raise _bad("compute", compute, "onnx or none")
    seconds = one("atc_seconds", "0")
    if not re.fullmatch(r"\d{1,4}(\.\d+)?", seconds):
        raise _bad("atc_seconds", seconds, "seconds")
    for name in given.get("without", []):
        if name not in TOOLS:
            raise _bad("without", name, "a tool")
    times = _times(given["times"][0]) if "times" in given else {}
    timing, time_ms = _timing(given.get("time", [None])[0], bool(times))
    auto_tune = "1" if int(cann.split(".")[0]) == 5 else "0"
    return SimulatorConfig(
        chip=chip,
        cards=len(ids),
        chips_per_card=chips,
        npu_ids=ids,
        product=product,
        driver=_version("driver", one("driver", "23.0.0")),
        generation=generation,
        cann=cann,
        auto_tune=_switch("auto_tune", one("auto_tune", auto_tune)),
        om_suffix=om == "linux",
        atc_seconds=float(seconds),
        compute=compute,
        float16=_switch("float16", one("float16", "0")),
        threads=_whole("threads", one("threads", "1"), 1, 256),
        timing=timing,
        time_ms=time_ms,
        times=times,
        without=tuple(given.get("without", [])),
        faults=tuple(_fault(text) for text in given.get("fault", [])),
    )


def _timing(value: str | None, table: bool) -> tuple[str, float | None]:
    if value is None:
        return ("given" if table else "real"), None
    if value == "real":
        if table:
            raise _bad("time", value, "what goes with times=FILE")
        return "real", None
    kind, separator, number = value.partition(":")
    if kind == "spin":
        if not separator and not table:
            raise _bad("time", value, "spin:MS, or spin with times=FILE")
        return "spin", _milliseconds("time", number) if separator else None
    return "given", _milliseconds("time", value)


# --- faults that can strike ---------------------------------------------------------------------


def usual_driver(config: SimulatorConfig) -> str | None:
    """The driver that the harness takes on such a host when nobody names one."""
    if "ais_bench" not in config.without:
        return "cli" if config.generation == "v1" else "api"
    return None if "benchmark" in config.without else "benchmark"


_OF_AIS_BENCH = ("api", "cli")  # drivers that run models with it


def check_faults(config: SimulatorConfig, driver: str | None = None) -> None:
    """Refuse a fault that no run on this host can show.

    Args:
        driver: the one that was asked for; None for the first that is there.

    Raises:
        ConfigError: the fault's tool or device is not there, its tool knows no devices, or the
            driver is one that does not show it.
    """
    taken = driver or usual_driver(config)
    devices = config.cards * config.chips_per_card
    absent = {*config.without} | {place for place in _OF_AIS_BENCH if "ais_bench" in config.without}
    for fault in config.faults:
        places = FAULTS[fault.name].places
        if fault.device is not None and fault.device >= devices:
            raise _never(
                fault,
                f"there is no device {fault.device}, the host has {devices}",
                "devices are counted from 0",
            )
        here = [place for place in places if place not in absent]
        if not here and taken is None and {*places} <= {*DRIVERS}:
            raise _never(fault, "nothing on the host runs models", "leave out a without=")
        if not here:
            tool = "ais_bench" if places[0] in _OF_AIS_BENCH else places[0]
            raise _never(fault, f"the host has no {tool}", f"leave out without={tool}")
        if not devices and (FAULTS[fault.name].lasts or {*here} <= {*DRIVERS}):
            raise _never(fault, "the host has no device", "cards=1 or more")
        if fault.device is not None:
            here = [place for place in here if FAULTS[fault.name].knows_devices(place)]
        if not here:
            everywhere = Fault(fault.name, None, fault.count).text
            raise _never(fault, f"{places[0]} is not called for one device", f"fault={everywhere}")
        if taken in here or not {*here} <= {*DRIVERS}:
            continue
        if taken is None:
            raise _never(fault, "nothing on the host runs models", "leave out a without=")
        first = "" if driver else ", the first that is there,"
        raise _never(
            fault,
            f"the driver {taken}{first} does not show it",
            " or ".join(f"--driver={place}" for place in here),
        )


def _never(fault: Fault, why: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"simulated Ascend host: fault={fault.text} would never strike: {why}", remedy=remedy
    )


def fault_table() -> list[str]:
    """The faults as rows of Markdown, for `docs/ascend.md`."""
    rows = ["| name | what happens | drivers | counted at |", "| --- | --- | --- | --- |"]
    for name, kind in FAULTS.items():
        tools = [place for place in kind.places if place not in DRIVERS]
        drivers = [f"`{place}`" for place in kind.places if place in DRIVERS]
        shown = "all" if tools or len(drivers) == len(DRIVERS) else ", ".join(drivers)
        if tools:
            shown += f" ({tools[0]})"
            if drivers:
                shown += f"; on one device {', '.join(drivers)}"
        rows.append(f"| `{name}` | {kind.does} | {shown} | {kind.counted} |")
    return rows

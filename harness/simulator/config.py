"""What a simulated host has, and how it misbehaves: `key=value,key=value` -> a value.

Standard library only: the installed tools read the same value from a JSON file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.simulator.faults import (
    DRIVERS,
    FAULTS,
    OF_AIS_BENCH,
    Fault,
    closest,
    parse_fault,
    whole,
)

# name -> chips on a card, card product, AI core frequency (MHz), memory of a chip (MB)
CHIPS: Mapping[str, tuple[int, str, int, int]] = {
    "310": (4, "Atlas 300I-3010", 680, 8192),
    "310P1": (1, "Atlas 300V Pro", 1080, 21527),
    "310P3": (1, "Atlas 300I Pro", 1080, 21527),
}
TOOLS = ("npu-smi", "atc", "aoe", "ais_bench", "benchmark")
MAX_TIMES_BYTES = 1_000_000
MAX_MS = 600_000.0


@dataclass(frozen=True)
class SimulatorConfig:
    """A simulated host. `docs/simulator.md` says what each key means.

    `time` is how long an execution takes: "real" (as long as computing takes), "given" (its
    milliseconds are reported, whatever computing took) or "spin" (the processor is kept busy for
    so long). `times` has milliseconds for a model's name, its input's shape ("4x3x224x224") or
    its batch size ("4"), which win over those of `time` in this order.
    """

    chip: str = "310P3"
    chips_per_card: int = 1
    npu_ids: tuple[int, ...] = (0,)
    driver: str = "23.0.0"
    generation: str = "v5"
    cann: str = "8.0.RC2"
    auto_tune: bool = False
    om: str = "plain"
    atc_seconds: float = 0.0
    compute: str = "onnx"
    float16: bool = False
    threads: int = 1
    time: tuple[str, float | None] = ("real", None)
    times: Mapping[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def soc_version(self) -> str:
        """Return what atc calls the chip: `Ascend310P3`."""
        return "Ascend" + self.chip

    @property
    def product(self) -> str:
        """Return what npu-smi calls the card."""
        duo = self.chip == "310P3" and self.chips_per_card == 2
        return "Atlas 300I Duo" if duo else CHIPS[self.chip][1]

    @property
    def frequency_mhz(self) -> int:
        """Return the AI core's rated frequency."""
        return CHIPS[self.chip][2]

    @property
    def memory_mb(self) -> int:
        """Memory of one chip."""
        return CHIPS[self.chip][3]

    @property
    def devices(self) -> int:
        """Chips of all cards."""
        return len(self.npu_ids) * self.chips_per_card

    def usual_driver(self) -> str | None:
        """Return the driver that the harness takes here when nobody names one."""
        if "ais_bench" not in self.without:
            return "cli" if self.generation == "v1" else "api"
        return None if "benchmark" in self.without else "benchmark"


def major_minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, minor = [*re.findall(r"\d+", version), "0"][:2]
    return int(major), int(minor)


def from_json(data: Mapping[str, Any]) -> SimulatorConfig:
    """Read what `dataclasses.asdict` makes of a configuration, from JSON."""
    tuples = {name: tuple(data[name]) for name in ("npu_ids", "time", "without")}
    faults = tuple(Fault(**fault) for fault in data["faults"])
    return SimulatorConfig(**{**data, **tuples, "faults": faults})


# --- reading values: a ValueError where one cannot be ------------------------------------------


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


def _version(text: str) -> str:
    if len(text) > 40 or not re.fullmatch(r"[0-9]{1,2}(\.[A-Za-z0-9]+)+", text):
        raise ValueError
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text):
        raise ValueError
    return float(text)


def _ids(text: str) -> tuple[int, ...]:
    ids = tuple(whole(word, 0, 65535) for word in text.split("+"))
    if len(set(ids)) != len(ids) or len(ids) > 16:
        raise ValueError
    return ids


def _milliseconds(value: str | float) -> float:
    number = float(value)
    if not 0 < number <= MAX_MS:
        raise ValueError
    return number


def _time(text: str) -> tuple[str, float | None]:
    if text in ("real", "spin"):
        return text, None
    if text.startswith("spin:"):
        return "spin", _milliseconds(text.removeprefix("spin:"))
    return "given", _milliseconds(text)


def _times(text: str) -> Mapping[str, float]:
    path = Path(text).expanduser()
    if not path.is_file() or path.stat().st_size > MAX_TIMES_BYTES:
        raise ValueError
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not data:
        raise ValueError
    return {name: _milliseconds(ms) for name, ms in data.items()}


@dataclass(frozen=True)
class _Key:
    read: Callable[[str], Any]
    must_be: str


_KEYS: Mapping[str, _Key] = {
    "chip": _Key(_one_of(*CHIPS), "a chip that can be simulated: " + ", ".join(CHIPS)),
    "cards": _Key(lambda text: whole(text, 0, 16), "the number of cards, 0 to 16"),
    "chips_per_card": _Key(
        lambda text: whole(text, 1, 4),
        "1 to 4 (default: 4 for 310, 1 otherwise; 2 makes a 310P3 a Duo)",
    ),
    "npu_ids": _Key(_ids, "at most 16 different ids, joined by +: 2+5; one for each card"),
    "driver": _Key(_version, "a version such as 22.0.4, 23.0.0, 26.0.0: npu-smi's layout"),
    "generation": _Key(
        _one_of("v1", "v2", "v3", "v4", "v5"), "a generation of ais_bench: v1, v2, v3, v4, v5"
    ),
    "cann": _Key(_version, "a version of the toolkit such as 5.1.RC2, 8.0.RC2"),
    "auto_tune": _Key(_switch, "0 or 1: atc takes --auto_tune_mode (default: for CANN 5 only)"),
    "om": _Key(_one_of("plain", "linux"), "plain: x.om, or linux: x_linux_<arch>.om"),
    "atc_seconds": _Key(_seconds, "the seconds that atc takes at least"),
    "compute": _Key(_one_of("onnx", "none"), "onnx: ONNX Runtime, or none: zeros"),
    "float16": _Key(_switch, "0 or 1: through float16, as atc's default precision does"),
    "threads": _Key(lambda text: whole(text, 1, 256), "threads of ONNX Runtime, 1 to 256"),
    "time": _Key(
        _time,
        "real, spin:MS (an execution keeps a core busy for so many milliseconds), spin (with "
        "times), or MS: told, whatever it took, and the harness finds it out",
    ),
    "times": _Key(
        _times,
        'a file that can be read, with JSON such as {"4": 2.67}: milliseconds for a model\'s '
        "name, input shape or batch size; not with time=real",
    ),
    "without": _Key(_one_of(*TOOLS), "a tool that the host lacks: " + ", ".join(TOOLS)),
    "fault": _Key(
        parse_fault,
        "NAME, NAME:DEVICE or NAME:DEVICE:COUNT; one that lasts has no "
        "count. Names: " + ", ".join(FAULTS),
    ),
}
_REPEATED = ("fault", "without")


def _error(key: str, what: str) -> ConfigError:
    must_be = _KEYS[key].must_be
    return ConfigError(f"simulated Ascend host: {what}", remedy=f"{key} must be {must_be}")


def parse_config(text: str, *, usual_chip: str = "310P3") -> SimulatorConfig:
    """Parse `chip=310,cards=2,fault=busy:0`; an empty text is the host that most things need.

    `usual_chip` is that of a text which names none.

    Raises:
        ConfigError: an unknown key or fault (with the closest known one), a value out of range,
            keys that do not go together.
    """
    given: dict[str, Any] = {"chip": usual_chip}
    repeated: dict[str, list[Any]] = {key: [] for key in _REPEATED}
    seen = set()
    for part in filter(str.strip, text.split(",")):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in _KEYS:
            raise ConfigError(
                f"simulated Ascend host: unknown key {key!r}" + closest(key, _KEYS),
                remedy="known keys: " + ", ".join(_KEYS),
            )
        if key in seen and key not in _REPEATED:
            raise _error(key, f"{key} is given twice")
        seen.add(key)
        try:
            read = _KEYS[key].read(value)
        except (ValueError, TypeError, OSError, RecursionError):
            raise _error(key, f"{key}={value} is not possible") from None
        if key in _REPEATED:
            repeated[key].append(read)
        else:
            given[key] = read

    cards = given.pop("cards", None)
    if "npu_ids" not in given:
        given["npu_ids"] = tuple(range(1 if cards is None else cards))
    elif cards not in (None, len(given["npu_ids"])):
        raise _error("npu_ids", f"{len(given['npu_ids'])} NPU ids for {cards} cards")
    table = bool(given.get("times"))
    time = given.setdefault("time", ("given" if table else "real", None))
    if time[1] is None and (time[0] == "real") == table:
        raise _error("time", f"time={time[0]} {'with' if table else 'without'} times is no time")
    given.setdefault("chips_per_card", CHIPS[given["chip"]][0])
    given.setdefault("auto_tune", major_minor(given.get("cann", SimulatorConfig.cann))[0] == 5)
    return SimulatorConfig(
        without=tuple(repeated["without"]), faults=tuple(repeated["fault"]), **given
    )


def check_faults(config: SimulatorConfig, driver: str | None = None) -> None:
    """Refuse a fault that no run on this host can show; `driver` is the one that was asked for.

    Raises:
        ConfigError: the fault's tool or device is not there, its tool is not called for one
            device, or the driver is one that does not show it.
    """
    driver = driver or config.usual_driver()
    absent = {*config.without, *(OF_AIS_BENCH if "ais_bench" in config.without else ())}
    drivers = {driver} if config.devices else set()
    for fault in config.faults:
        kind = fault.kind
        there = [
            place
            for place in kind.places
            if place not in absent
            and (place not in DRIVERS or place in drivers)
            and (config.devices or not kind.lasts)
            and (fault.device is None or place in DRIVERS or kind.lasts)
        ]
        if there and (fault.device or 0) < max(1, config.devices):
            continue
        raise ConfigError(
            f"simulated Ascend host: fault={fault.text} would never strike: it shows in "
            f"{', '.join(kind.places)}; this host has {config.devices} devices, runs models "
            f"with {driver or 'nothing'} and lacks {', '.join(config.without) or 'no tool'}",
            remedy="choose --driver, without= and cards= to have what shows it; devices are "
            "counted from 0, and a tool that is not called for one device takes no device",
        )

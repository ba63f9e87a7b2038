"""What a simulated host has, and how it misbehaves: `key=value,key=value` -> a value.

Standard library only: the installed tools read the same value from a JSON file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from harness.base.errors import ConfigError
from harness.simulator.faults import OF_AIS_BENCH, Fault, check_fault, closest, parse_fault, whole

# name -> chips on a card, card product, AI core frequency (MHz), memory of a chip (MB)
CHIPS: Mapping[str, tuple[int, str, int, int]] = {
    "310": (4, "Atlas 300I-3010", 680, 8192),
    "310P1": (1, "Atlas 300V Pro", 1080, 21527),
    "310P3": (1, "Atlas 300I Pro", 1080, 21527),
}
DUO = "Atlas 300I Duo"
GENERATIONS = ("v1", "v2", "v3", "v4", "v5")
TOOLS = ("npu-smi", "atc", "aoe", "ais_bench", "benchmark")
MAX_TIMES_BYTES = 1_000_000
MAX_MS = 600_000.0

_T = TypeVar("_T")


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
        return _major_minor(self.driver)

    @property
    def cann_version(self) -> tuple[int, int]:
        """Major and minor of the toolkit."""
        return _major_minor(self.cann)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, which `from_json` reads."""
        return asdict(self)


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = [*re.findall(r"\d+", version), "0"][:2]
    return int(major), int(minor)


def from_json(data: Mapping[str, Any]) -> SimulatorConfig:
    """Read what `SimulatorConfig.to_json` wrote."""
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


def _error(what: str, key: str) -> ConfigError:
    return ConfigError(f"simulated Ascend host: {what}", remedy=f"{key}: {_KEYS[key]}")


def parse_config(text: str, *, usual_chip: str = "310P3") -> SimulatorConfig:
    """Parse `chip=310,cards=2,fault=busy:0`; an empty text is the host that most things need.

    `usual_chip` is that of a text which names none.

    Raises:
        ConfigError: an unknown key or fault (with the closest known one), a value out of range,
            keys that do not go together.
    """
    given = _split(text)

    def one(key: str, default: str, parse: Callable[[str], _T]) -> _T:
        return _parsed(key, given.get(key, [default])[0], parse)

    chip = one("chip", usual_chip, _one_of(CHIPS, "a chip that can be simulated"))
    usual_chips, product, _, _ = CHIPS[chip]
    cards = one("cards", "1", lambda text: whole(text, 0, 16))
    chips = one("chips_per_card", str(usual_chips), lambda text: whole(text, 1, 4))
    ids = tuple(range(cards))
    if "npu_ids" in given:
        ids = one("npu_ids", "", lambda text: _ids(text, cards if "cards" in given else None))
    cann = one("cann", "8.0.RC2", _version)
    times = one("times", "", _times) if "times" in given else {}
    timing, time_ms = one("time", "", lambda text: _timing(text, bool(times)))
    return SimulatorConfig(
        chip=chip,
        cards=len(ids),
        chips_per_card=chips,
        npu_ids=ids,
        product=DUO if chip == "310P3" and chips == 2 else product,
        driver=one("driver", "23.0.0", _version),
        generation=one("generation", "v5", _one_of(GENERATIONS, "a generation")),
        cann=cann,
        auto_tune=one("auto_tune", "1" if _major_minor(cann)[0] == 5 else "0", _switch),
        om_suffix=one("om", "plain", _one_of(("plain", "linux"), "plain or linux")) == "linux",
        atc_seconds=one("atc_seconds", "0", _seconds),
        compute=one("compute", "onnx", _one_of(("onnx", "none"), "onnx or none")),
        float16=one("float16", "0", _switch),
        threads=one("threads", "1", lambda text: whole(text, 1, 256)),
        timing=timing,
        time_ms=time_ms,
        times=times,
        without=tuple(
            _parsed("without", text, _one_of(TOOLS, "a tool")) for text in given.get("without", ())
        ),
        faults=tuple(_parsed("fault", text, parse_fault) for text in given.get("fault", ())),
    )


def _split(text: str) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for part in filter(str.strip, text.split(",")):
        key, separator, value = (word.strip() for word in part.partition("="))
        if key not in _KEYS:
            raise ConfigError(
                f"simulated Ascend host: unknown key {key!r}" + closest(key, list(_KEYS)),
                remedy="known keys: " + ", ".join(_KEYS),
            )
        if not separator or not value:
            raise _error(f"{key}={value} is not a value", key)
        if key in given and key not in _REPEATED:
            raise _error(f"{key} is given twice", key)
        given.setdefault(key, []).append(value)
    return given


def _parsed(key: str, value: str, parse: Callable[[str], _T]) -> _T:
    """Return the parsed value; a `ValueError` says what it must be."""
    try:
        return parse(value)
    except ValueError as error:
        raise _error(f"{key}={value} is not {error}", key) from None


def _one_of(known: Mapping[str, Any] | Sequence[str], expected: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            raise ValueError(expected)
        return text

    return parse


def _switch(text: str) -> bool:
    return _one_of(("0", "1"), "0 or 1")(text) == "1"


def _version(text: str) -> str:
    if len(text) > 40 or not re.fullmatch(r"[0-9]{1,2}(\.[A-Za-z0-9]+)+", text):
        raise ValueError("a version such as 23.0.0")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text):
        raise ValueError("seconds")
    return float(text)


def _ids(text: str, cards: int | None) -> tuple[int, ...]:
    ids = tuple(whole(word, 0, 65535) for word in text.split("+"))
    if cards is not None and len(ids) != cards:
        raise ValueError(f"one id for each of {cards} cards")
    if len(set(ids)) != len(ids) or len(ids) > 16:
        raise ValueError("at most 16 different ids")
    return ids


def _milliseconds(value: str | float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_MS:
        raise ValueError(f"milliseconds, above 0 and at most {MAX_MS:.0f}")
    return number


def _times(value: str) -> Mapping[str, float]:
    path = Path(value).expanduser()
    try:
        if not path.is_file() or path.stat().st_size > MAX_TIMES_BYTES:
            raise OSError("not a file of at most a megabyte")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"a file that can be read: {error}") from None
    numbers = (
        isinstance(data, dict) and data and all(type(ms) in (int, float) for ms in data.values())
    )
    if not numbers:
        raise ValueError('a JSON object such as {"4": 2.67}')
    return {name: _milliseconds(ms) for name, ms in data.items()}


def _timing(value: str, table: bool) -> tuple[str, float | None]:
    if not value:
        return ("given" if table else "real"), None
    if value == "real":
        if table:
            raise ValueError("what goes with times=FILE")
        return "real", None
    kind, separator, number = value.partition(":")
    if kind == "spin":
        if not separator and not table:
            raise ValueError("spin:MS, or spin with times=FILE")
        return "spin", _milliseconds(number) if separator else None
    return "given", _milliseconds(value)


def usual_driver(config: SimulatorConfig) -> str | None:
    """Return the driver that the harness takes on such a host when nobody names one."""
    if "ais_bench" not in config.without:
        return "cli" if config.generation == "v1" else "api"
    return None if "benchmark" in config.without else "benchmark"


def check_faults(config: SimulatorConfig, driver: str | None = None) -> None:
    """Refuse a fault that no run on this host can show; `driver` is the one that was asked for.

    Raises:
        ConfigError: see `faults.check_fault`.
    """
    absent = {*config.without, *(OF_AIS_BENCH if "ais_bench" in config.without else ())}
    for fault in config.faults:
        check_fault(
            fault,
            absent=absent,
            devices=config.cards * config.chips_per_card,
            driver=driver or usual_driver(config),
            named=driver is not None,
        )

"""What a simulated host has, and how it misbehaves: `key=value,key=value` -> a value.

The installed tools read the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.base.errors import ConfigError
from harness.simulator.faults import FAULTS, Fault, closest, parse_fault, whole


@dataclass(frozen=True)
class Row:
    """A chip that can be played: chips on a card, the card, its AI core's MHz, a chip's MB.

    `name`: in npu-smi's table, where that is not its key. `hbm`: the table has a second pair of
    memory. `ids`: it has logical ids.
    """

    chips: int
    card: str
    mhz: int
    memory_mb: int
    name: str = ""
    hbm: bool = False
    ids: bool = True


# Frequencies of the 310B, the 910B and A3 are made up: no capture of them was at hand.
CHIPS: Mapping[str, Row] = {
    "310": Row(4, "Atlas 300I-3010", 680, 8192),
    "310P1": Row(1, "Atlas 300V Pro", 1080, 21527),
    "310P3": Row(1, "Atlas 300I Pro", 1080, 21527),
    "310B1": Row(1, "Atlas 500 A2", 1000, 7578),
    "310B4": Row(1, "Atlas 200I DK A2", 1000, 3513),
    **{f"910B{n}": Row(1, "Atlas 800 A2", 1000, 65536, hbm=True, ids=False) for n in range(1, 5)},
    **{
        f"910_{n}": Row(2, "Atlas 800 A3", 1000, 65536, "Ascend910", hbm=True)
        for n in (9362, 9372, 9381, 9382, 9391, 9392)
    },
}
TOOLS = ("npu-smi", "atc", "aoe", "ais_bench")
MAX_MS = 600_000.0


@dataclass(frozen=True)
class SimulatorConfig:
    """A simulated host. `docs/simulator.md` says what each key means.

    `time` is how long an execution takes: "real" (as long as computing takes), "given" (its
    milliseconds are reported, whatever computing took) or "spin" (it takes so long, the last 5 ms
    of it on a core of the host).
    """

    text: str
    chip: str = "310P3"
    chips_per_card: int = 1
    cards: int = 1
    driver: str = "23.0.0"
    generation: str = "v5"
    cann: str = "8.0.RC2"
    atc_seconds: float = 0.0
    atc_python: bool = False
    compute: str = "onnx"
    float16: bool = False
    time: tuple[str, float | None] = ("real", None)
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
        return "Atlas 300I Duo" if duo else CHIPS[self.chip].card

    @property
    def devices(self) -> int:
        """Chips of all cards."""
        return self.cards * self.chips_per_card


def major_minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, minor = [*re.findall(r"\d+", version), "0"][:2]
    return int(major), int(minor)


# --- reading values: a ValueError where one cannot be ------------------------------------------


def _one_of(*known: str) -> Callable[[str], str]:
    return _matching("|".join(map(re.escape, known)))


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return read


_version = _matching(r"(?=.{1,40}$)[0-9]{1,2}(\.[A-Za-z0-9]+)+")
_seconds = _matching(r"[0-9]{1,4}(\.[0-9]+)?")


def _switch(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


def _milliseconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= MAX_MS:
        raise ValueError
    return number


def _time(text: str) -> tuple[str, float | None]:
    if text == "real":
        return text, None
    if text.startswith("spin:"):
        return "spin", _milliseconds(text.removeprefix("spin:"))
    return "given", _milliseconds(text)


@dataclass(frozen=True)
class _Key:
    read: Callable[[str], Any]
    must_be: str


_KEYS: Mapping[str, _Key] = {
    "chip": _Key(_one_of(*CHIPS), "a chip that can be simulated: " + ", ".join(CHIPS)),
    "cards": _Key(lambda text: whole(text, 0, 16), "the number of cards, 0 to 16"),
    "chips_per_card": _Key(
        lambda text: whole(text, 1, 4),
        "1 to 4 (default: 4 for 310, 2 for 910_..., else 1; 2 makes a 310P3 a Duo)",
    ),
    "driver": _Key(_version, "a version such as 22.0.4, 23.0.0, 26.0.0: npu-smi's layout"),
    "generation": _Key(_one_of("v2", "v5"), "a generation of ais_bench: v2, v5"),
    "cann": _Key(_version, "a version of the toolkit such as 5.1.RC2, 8.0.RC2"),
    "atc_seconds": _Key(lambda text: float(_seconds(text)), "the seconds that atc takes at least"),
    "atc_python": _Key(_switch, "0 or 1: atc needs its modules in the first python3 on PATH"),
    "compute": _Key(_one_of("onnx", "none"), "onnx: ONNX Runtime, or none: zeros"),
    "float16": _Key(_switch, "0 or 1: through float16, as atc's default precision does"),
    "time": _Key(
        _time,
        "real, spin:MS (an execution takes so many milliseconds), or MS: told, "
        "whatever it took, and the harness finds it out",
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

    `usual_chip` is that of a text which names none. Raises `ConfigError`: an unknown key or fault
    (with the closest known one), a value out of range, keys that do not go together.
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
        except ValueError:
            raise _error(key, f"{key}={value} is not possible") from None
        if key in _REPEATED:
            repeated[key].append(read)
        else:
            given[key] = read

    given.setdefault("chips_per_card", CHIPS[given["chip"]].chips)
    if "chip" not in seen:
        text = f"chip={usual_chip},{text}"
    config = SimulatorConfig(
        text, without=tuple(repeated["without"]), faults=tuple(repeated["fault"]), **given
    )
    for fault in config.faults:
        if (fault.device or 0) >= max(1, config.devices):
            raise _error("fault", f"fault={fault.text}, and this host has {config.devices} devices")
    return config

"""What npu-smi prints, as values: chips, who is on them, clocks.

Layouts differ between chips (310, 310P3, 910) and drivers (20.2.2 to 26.1): five table widths,
columns that come and go, no process table before 22.1. Rows are therefore split on `|`, never at
columns, and what a driver does not print is `None` or "unknown", never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.base.errors import DeviceError
from harness.records.conditions import Answer

_ID = r"\d{1,9}"  # bounded: int() refuses thousands of digits
_NUMBER = re.compile(r"-?\d{1,12}(?:\.\d{1,6})?", re.ASCII)
_DRIVER = re.compile(r"npu-smi\s+\S+.*\bVersion\s*:\s*(\S+)", re.ASCII)
_FIRST_ROW = re.compile(rf"({_ID})\s+(\S.*)", re.ASCII)  # NPU, name
_SECOND_ROW = re.compile(rf"({_ID})(?:\s+(\S+))?", re.ASCII)  # chip, logical id
_BUS_ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]", re.ASCII)
_NOBODY = re.compile(rf"No running processes found in NPU\s+({_ID})\b", re.ASCII | re.IGNORECASE)
_OWNER = re.compile(rf"({_ID})(?:\s+({_ID}))?", re.ASCII)  # NPU, chip
_PHYSICAL_ID = "phy-id"  # in a container it is not what `--device` takes
_NOTHING = ("", "-", "NA", "N/A")
# Name of a vNPU, with the template that it was made by: `310Pvir02`.
_SLICE = re.compile(r"(.+?)(vir\d\w*)", re.ASCII | re.IGNORECASE)
_WHOLE = {"310P": "310P3"}  # of which chip npu-smi names a vNPU shorter

Row = Sequence[str]


@dataclass(frozen=True)
class NpuProcess:
    """A process on a chip. `pid` is the host's, 0 where it cannot be read."""

    pid: int
    name: str  # empty for processes of some containers
    container_pid: int | None


@dataclass(frozen=True)
class Chip:
    """One chip as `npu-smi info` shows it. `logical_id` is what tools take as `--device`.

    `processes` is `None` where the driver prints no process table.
    """

    npu_id: int
    chip_id: int
    logical_id: int
    name: str  # "310P3"; of a vNPU "310Pvir02"
    health: str  # "OK", "Warning", "Alarm", "Critical", "UNKNOWN"
    power_w: float | None
    temperature_c: float | None
    aicore_percent: float | None
    processes: tuple[NpuProcess, ...] | None

    @property
    def soc_version(self) -> str:
        """Return what atc takes as `--soc_version`: `Ascend310P3`, also of a slice of one."""
        name = self.name.replace(" ", "")
        if part := _SLICE.fullmatch(name):
            name = _WHOLE.get(part[1].removeprefix("Ascend"), part[1])
        return name if name.startswith("Ascend") else f"Ascend{name}"

    @property
    def template(self) -> str:
        """Return what a vNPU was made by, `vir02`: its slice of a chip; empty of a whole chip."""
        part = _SLICE.fullmatch(self.name.replace(" ", ""))
        return part[2] if part else ""

    @property
    def healthy(self) -> bool:
        return self.health.upper() == "OK"

    @property
    def idle(self) -> Answer:
        """Return whether nobody uses the chip.

        "no" with a process or with work on an AI core, "yes" when the process table was printed
        and has none, "unknown" without that table. Memory says nothing: an idle 310 shows 577 to
        5745 MB. In a container, processes of other containers may be invisible.
        """
        if self.processes or (self.aicore_percent or 0) > 0:
            return "no"
        return "unknown" if self.processes is None else "yes"


@dataclass(frozen=True)
class Clock:
    """The AI cores of one chip at one moment: their clock, and how much of them was used.

    A chip that rests may lower its clock: `current_mhz` means nothing where nothing is used.
    """

    rated_mhz: float
    current_mhz: float
    aicore_percent: float | None


@dataclass(frozen=True)
class NpuInfo:
    """All chips that one `npu-smi info` shows, in its order."""

    driver_version: str  # empty when it is not printed
    chips: tuple[Chip, ...]

    def on_npu(self, npu_id: int) -> tuple[Chip, ...]:
        """Return the chips of one NPU id: a card of several chips is one NPU (310: 4, Duo: 2)."""
        return tuple(chip for chip in self.chips if chip.npu_id == npu_id)


# The table ---------------------------------------------------------------------------------

# By NPU, where the table speaks of it: who is on it, and on which chip (None: any).
_Processes = Mapping[int, Sequence[tuple[int | None, NpuProcess]]]


def parse_info(text: str) -> NpuInfo:
    """Read what `npu-smi info` printed, of any generation. Raises `DeviceError`: there is no chip,
    or a row cannot be read: a chip that was passed over in silence would change how many chips a
    card has.
    """
    rows = [cells for line in text.splitlines() if (cells := _cells(line))]
    header = next((at for at, cells in enumerate(rows) if _heads_processes(cells)), len(rows))
    processes = _processes(rows[header + 1 :])
    data = [cells for cells in rows[:header] if _is_data(cells)]
    has_ids = not any(_PHYSICAL_ID in cells[0].lower() for cells in rows[:header])
    chips = []
    for at in range(0, len(data), 2):
        chip = _chip(data[at : at + 2], at // 2, processes, has_ids)
        if chip is None:
            pair = " and ".join(repr(" | ".join(cells)[:200]) for cells in data[at : at + 2])
            raise _unreadable(f"no pair of rows: {pair}", text)
        chips.append(chip)
    lines = text.splitlines()
    rulers = [at for at, line in enumerate(lines) if line.strip().startswith("+")]
    last = max((at for at, line in enumerate(lines) if _is_data(_cells(line))), default=0)
    if rulers and rulers[-1] < last:
        raise _unreadable("it ends after a row of its table", text)
    if not (chips or rulers):
        raise _unreadable("there is no table", text)
    if not chips:
        raise DeviceError(
            "npu-smi info shows no chip",
            remedy="run `npu-smi info` by hand: it must print two rows for each chip",
            log=text,
        )
    # Two leases would be for one device.
    if len({chip.logical_id for chip in chips}) < len(chips):
        raise _unreadable("two chips have one logical id", text)
    if len({(chip.npu_id, chip.chip_id) for chip in chips}) < len(chips):
        raise _unreadable("two chips have one NPU and chip id", text)
    titles = (_DRIVER.match(cells[0]) for cells in rows if len(cells) == 1)
    return NpuInfo(next((title[1] for title in titles if title), ""), tuple(chips))


def _unreadable(why: str, text: str) -> DeviceError:
    return DeviceError(
        f"npu-smi info cannot be read: {why}",
        remedy="run `npu-smi info` by hand, and report its output if it looks whole",
        log=text,
    )


def has_rows(text: str) -> bool:
    """Return whether a text has a row of a chip."""
    return any(_is_data(_cells(line)) for line in text.splitlines())


def _cells(line: str) -> Row:
    """Return the cells of a table's row, stripped; none of rulers and of lines of other kinds."""
    line = line.strip()
    if not line.startswith("|"):
        return ()
    return tuple(cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|"))


def _is_data(cells: Row) -> bool:
    return len(cells) == 3 and cells[0][:1].isdigit()


def _heads_processes(cells: Row) -> bool:
    return len(cells) >= 4 and cells[0].startswith("NPU") and "process id" in cells[1].lower()


def _processes(rows: Iterable[Row]) -> _Processes:
    table: dict[int, list[tuple[int | None, NpuProcess]]] = {}
    for cells in rows:
        if len(cells) == 1 and (nobody := _NOBODY.search(cells[0])):
            table.setdefault(int(nobody[1]), [])
        elif len(cells) >= 4 and (owner := _OWNER.fullmatch(cells[0])):
            process = NpuProcess(
                _integer(cells[1]) or 0,
                "" if cells[2] in _NOTHING else cells[2],
                _integer(cells[4]) if len(cells) > 4 else None,
            )
            chip = int(owner[2]) if owner[2] else None
            table.setdefault(int(owner[1]), []).append((chip, process))
    return table


def _chip(pair: Sequence[Row], at: int, processes: _Processes, has_ids: bool) -> Chip | None:
    """Return the chip of two rows, the `at`th of the table; None where they are none."""
    first, second = pair[0], pair[-1]
    upper, lower = _FIRST_ROW.fullmatch(first[0]), _SECOND_ROW.fullmatch(second[0])
    second_has_bus = _BUS_ID.fullmatch(second[1]) or second[1] in _NOTHING
    if len(pair) < 2 or not (upper and lower and second_has_bus) or _BUS_ID.fullmatch(first[1]):
        return None
    npu, chip = int(upper[1]), int(lower[1])
    logical = _integer(lower[2] or "") if has_ids else None
    measured = first[2].split()  # power, temperature, hugepages where there are any
    on_it = processes.get(npu)  # None: no table, or one that was cut short
    return Chip(
        npu_id=npu,
        chip_id=chip,
        # 910 prints no logical id, A3 the host's. They are given out in the order of the rows.
        logical_id=at if logical is None else logical,
        name=upper[2],
        health=first[1],
        power_w=_number(measured[0]) if measured else None,
        temperature_c=_number(measured[1]) if len(measured) > 1 else None,
        aicore_percent=_number(second[2].partition(" ")[0]),
        processes=None
        if on_it is None
        else tuple(one for place, one in on_it if place in (None, chip)),
    )


# Lists of `key : value` --------------------------------------------------------------------


def parse_fields(lines: Iterable[str]) -> dict[str, str]:
    """Read `key : value`; of two with one key the first, of the chip before its controller."""
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and key.strip() and value.strip() not in _NOTHING:
            fields.setdefault(key.strip(), value.strip())
    return fields


def parse_clock(text: str, chip_id: int) -> Clock | None:
    """Read the clock of one chip from `info -t common`; None where it is not told.

    310P and 910 have it in one block, between empty lines, with the use of the cores.
    """
    for block in re.split(r"\n\s*\n", text):
        fields = parse_fields(block.splitlines())
        rated = _number(fields.get("Aicore Freq(MHZ)", ""))
        current = _number(fields.get("Aicore curFreq(MHZ)", ""))
        # A capture without "Chip ID" is of a chip that is alone.
        chip = fields.get("Chip ID", "0")
        if rated is not None and current is not None and chip == str(chip_id):
            return Clock(rated, current, _number(fields.get("Aicore Usage Rate(%)", "")))
    return None


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(_ID, text, re.ASCII) else None

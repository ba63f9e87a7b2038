"""A stand-in for `npu-smi`: the table and the queries that the harness asks for.

Of several driver generations. All text goes to stdout, failures too, and a failure's exit code is
the driver's return value modulo 256. The vendor does not support concurrent calls: here the second
one fails, so that a caller that does not take turns is found out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from harness.simulator.host import Chip, Holder, Host, hang

NOT_FOUND = 215
NOT_SUPPORTED = 193
_MAX_PROCESSES = 8  # a chip's rows in the table

_HELP = """Usage: npu-smi info [Options...]

Options:
       -t <type>      Show information for type: board, common, product
       -i <id>        NPU id
"""


class SmiError(Exception):
    """What npu-smi ends with: its text and its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def main(argv: Sequence[str], host: Host | None = None) -> int:
    """Answer one query."""
    host = host or Host.load()
    host.log_call("npu-smi", argv)
    if host.strikes("npu-smi-hang"):
        hang()
    if host.strikes("npu-smi-fails"):
        print("dcmi module initialize failed. ret is -8005")
        return 187
    with host.alone("npu-smi") as alone:
        if not alone:
            print("dcmi model initialized failed, because the device is used. ret is -8020")
            return 172
        try:
            for line in _answer(argv, host):
                print(line)
        except SmiError as error:
            print(error.text)
            return error.code
        sys.stdout.flush()
    return 0


def _answer(argv: Sequence[str], host: Host) -> Iterator[str]:
    words = list(argv)
    unknown = SmiError(f"Command or option is not found.\n{_HELP}", NOT_FOUND)
    if not words or words.pop(0) != "info":
        raise unknown
    if not host.chips():
        # Its exit code is not known.
        raise SmiError("There is no NPU card on this server.", 1)
    if not words:
        return _table(host)
    if len(words) != 4 or words[0] != "-t" or words[2] != "-i":
        raise unknown
    query = {"board": _board, "common": _common, "product": _product}.get(words[1])
    if query is None or not words[3].isdigit():
        raise unknown
    chips = [chip for chip in host.chips() if chip.npu_id == int(words[3])]
    if not chips:
        raise SmiError("Failed to execute npu-smi info. ret is -8255.", NOT_SUPPORTED)
    return query(host, chips)


# --- values -----------------------------------------------------------------------------------


def _health_of(host: Host, chip: Chip) -> str:
    return "Alarm" if host.has_fault("unhealthy", chip.device) else "OK"


def _temperature(host: Host, chip: Chip) -> int:
    return 97 if host.has_fault("throttled", chip.device) else 42 + chip.device % 8


def _watts(host: Host) -> float:
    return 15.8 if host.config.chip != "310" else 12.8


def _frequency(host: Host, chip: Chip, holders: Sequence[Holder]) -> int:
    rated = host.config.frequency_mhz
    # Between two executions a chip rests, and clocks down: that is no throttling.
    resting = bool(holders) and not _aicore(holders)
    return rated * 3 // 5 if resting or host.has_fault("throttled", chip.device) else rated


def _used_mb(host: Host, holders: Sequence[Holder]) -> int:
    # Idle memory is never 0.
    idle = 577 if host.config.chip == "310" else 1074
    return idle + sum(holder.memory_mb for holder in holders)


def _aicore(holders: Sequence[Holder]) -> int:
    return 87 if any(holder.running for holder in holders) else 0


# --- the table --------------------------------------------------------------------------------


def _row(widths: Sequence[int], *cells: str) -> str:
    return (
        "| " + " | ".join(cell.ljust(w - 2) for cell, w in zip(cells, widths, strict=True)) + " |"
    )


def _rule(widths: Sequence[int], mark: str) -> str:
    return "+" + "+".join(mark * w for w in widths) + "+"


def _table(host: Host) -> Iterator[str]:
    config = host.config
    hugepages = config.driver_version[0] >= 22
    with_processes = config.driver_version > (22, 0)
    widths = (19, 17, 54) if hugepages else (19, 17, 40)
    yield _rule([sum(widths) + 2], "-")
    title = f"npu-smi {config.driver}"
    yield _row([sum(widths) + 2], f"{title:<49}Version: {config.driver}")
    yield _rule(widths, "-")
    head = "Power(W)     Temp(C)" + ("           Hugepages-Usage(page)" if hugepages else "")
    yield _row(widths, "NPU     Name", "Health", head)
    yield _row(widths, "Chip    Device", "Bus-Id", "AICore(%)    Memory-Usage(MB)")
    yield _rule(widths, "=")
    chips = host.chips()
    for i, chip in enumerate(chips):
        holders = host.holders(chip.device)
        pages = "                0    / 969" if hugepages else ""
        # A card's power is printed once, in the row of its first chip.
        watts = f"{_watts(host)}" if chip.chip_id == 0 else "NA"
        yield _row(
            widths,
            f"{chip.npu_id:<8}{config.chip}",
            _health_of(host, chip),
            f"{watts:<13}{_temperature(host, chip)}{pages}",
        )
        yield _row(
            widths,
            f"{chip.chip_id:<8}{chip.device}",
            chip.bus_id,
            f"{_aicore(holders):<13}{_used_mb(host, holders):<5}/ {config.memory_mb}",
        )
        last = i + 1 == len(chips)
        yield _rule(widths, "-" if not last and chips[i + 1].npu_id == chip.npu_id else "=")
    if with_processes:
        yield from _process_table(host)


def _process_table(host: Host) -> Iterator[str]:
    container = host.config.driver_version[0] >= 26
    widths = [19, 17, 26, 27] + [26] * container
    head = ["NPU     Chip", "Process id", "Process name", "Process memory(MB)"]
    yield _row(widths, *head, *["Process id in container"] * container)
    yield _rule(widths, "=")
    for npu_id in host.config.npu_ids:
        found = False
        for chip in host.chips():
            if chip.npu_id != npu_id:
                continue
            for holder in host.holders(chip.device)[:_MAX_PROCESSES]:
                found = True
                cells = [
                    f"{npu_id:<8}{chip.chip_id}",
                    str(holder.pid),
                    holder.name,
                    str(holder.memory_mb),
                ]
                yield _row(widths, *cells, *["NA"] * container)
        if not found:
            yield _row(
                [sum(widths) + len(widths) - 1], f"No running processes found in NPU {npu_id}"
            )
        yield _rule(widths, "=")


# --- lists ------------------------------------------------------------------------------------


def _line(name: str, value: object) -> str:
    return f"\t{name:<30} : {value}"


def _board(host: Host, chips: Sequence[Chip]) -> Iterator[str]:
    config = host.config
    yield _line("NPU ID", chips[0].npu_id)
    yield _line("Product Name", config.product)
    yield _line("Software Version", config.driver)
    yield _line("Firmware Version", "1.84.0.0" if config.chip == "310" else "7.1.0.3.220")
    yield _line("Chip Count", config.chips_per_card)


def _common(host: Host, chips: Sequence[Chip]) -> Iterator[str]:
    yield _line("NPU ID", chips[0].npu_id)
    yield _line("Chip Count", len(chips))
    for chip in chips:
        holders = host.holders(chip.device)
        yield ""
        yield _line("Chip ID", chip.chip_id)
        yield _line("Aicore Usage Rate(%)", _aicore(holders))
        yield _line("Aicore Freq(MHZ)", host.config.frequency_mhz)
        yield _line("Aicore curFreq(MHZ)", _frequency(host, chip, holders))
        yield _line("Temperature(C)", _temperature(host, chip))


def _product(host: Host, chips: Sequence[Chip]) -> Iterator[str]:
    yield _line("Product Type", host.config.product)

"""A stand-in for `npu-smi`: the table and the queries that the harness asks for.

Up to driver 22.0 it has no table of processes. All text goes to stdout, failures too, and a
failure's exit code is the driver's return value modulo 256. The vendor does not support concurrent
calls: here the second one fails, so that a caller that does not take turns is found out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.simulator.config import CHIPS, major_minor
from harness.simulator.host import Chip, Holder, Host, ToolError, hang

_HELP = "Usage: npu-smi info [-t board|common|product -i NPU]"


def main(argv: Sequence[str], host: Host) -> int:
    """Answer one query."""
    if host.strikes("npu-smi-hang"):
        hang()
    if host.strikes("npu-smi-fails"):
        raise ToolError("dcmi module initialize failed. ret is -8005", 187)
    with host.alone("npu-smi") as alone:
        if not alone:
            raise ToolError(
                "dcmi model initialized failed, because the device is used. ret is -8020", 172
            )
        for line in _answer(argv, host):
            print(line)
    return 0


def _answer(argv: Sequence[str], host: Host) -> Iterator[str]:
    if list(argv[:1]) == ["info"] and not host.chips():
        raise ToolError("There is no NPU card on this server.", 1)  # its exit code is not known
    if list(argv) == ["info"]:
        return _table(host)
    match argv:
        case ["info", "-t", ("board" | "common" | "product") as query, "-i", id] if id.isdigit():
            chips = [chip for chip in host.chips() if chip.npu_id == int(id)]
            if not chips:
                raise ToolError("Failed to execute npu-smi info. ret is -8255.", 193)
            return {"board": _board, "common": _common, "product": _product}[query](host, chips)
        case ["info", "-t", "board", "-i", id, "-c", chip_id]:
            named = [f"{chip.npu_id} {chip.chip_id}" for chip in host.chips()]
            if f"{id} {chip_id}" not in named:
                raise ToolError("Failed to execute npu-smi info. ret is -8255.", 193)
            return _chip_board(host, id, chip_id)
    raise ToolError(f"Command or option is not found.\n{_HELP}", 215)


# --- values -----------------------------------------------------------------------------------


def _temperature(host: Host, chip: Chip) -> int:
    return 97 if host.strikes("throttled", chip.device) else 42 + chip.device % 8


def _frequency(host: Host, chip: Chip, holders: Sequence[Holder]) -> int:
    rated = CHIPS[host.config.chip].mhz
    # Between two executions a chip rests, and clocks down: that is no throttling.
    resting = bool(holders) and not _aicore(holders)
    return rated * 3 // 5 if resting or host.strikes("throttled", chip.device) else rated


def _used_mb(host: Host, holders: Sequence[Holder]) -> int:
    # Idle memory is never 0.
    idle = 577 if host.config.chip == "310" else 1074
    return idle + sum(holder.memory_mb for holder in holders)


def _aicore(holders: Sequence[Holder]) -> int:
    return 87 if any(holder.running for holder in holders) else 0


# --- the table --------------------------------------------------------------------------------


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


_RULE = "+===============================================================+"


def _table(host: Host) -> Iterator[str]:
    config, row = host.config, CHIPS[host.config.chip]
    yield _row(f"npu-smi {config.driver}    Version: {config.driver}")
    yield _row("NPU     Name", "Health", "Power(W)     Temp(C)           Hugepages-Usage(page)")
    yield _row("Chip    Device", "Bus-Id", "AICore(%)    Memory-Usage(MB)")
    yield _RULE
    for chip in host.chips():
        holders = host.holders(chip.device)
        # A card's power is printed once, in the row of its first chip.
        watts = ("12.8" if config.chip == "310" else "15.8") if chip.chip_id == 0 else "NA"
        yield _row(
            f"{chip.npu_id:<8}{row.name or config.chip}",
            "Alarm" if host.strikes("unhealthy", chip.device) else "OK",
            f"{watts:<13}{_temperature(host, chip)}                0    / 969",
        )
        memory = f"{_used_mb(host, holders):<5}/ {row.memory_mb}"
        yield _row(
            f"{chip.chip_id:<8}{chip.device if row.ids else ''}",
            chip.bus_id,
            f"{_aicore(holders):<13}{'0    / 0          ' * row.hbm}{memory}",
        )
    yield _RULE
    if major_minor(config.driver) > (22, 0):
        yield from _process_table(host)


def _process_table(host: Host) -> Iterator[str]:
    yield _row("NPU     Chip", "Process id", "Process name", "Process memory(MB)")
    yield _RULE
    for npu_id in range(host.config.cards):
        rows = [
            _row(f"{npu_id:<8}{chip.chip_id}", str(one.pid), one.name, str(one.memory_mb))
            for chip in host.chips()
            if chip.npu_id == npu_id
            for one in host.holders(chip.device)
        ]
        yield from rows or [_row(f"No running processes found in NPU {npu_id}")]


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


def _chip_board(host: Host, npu_id: str, chip_id: str) -> Iterator[str]:
    series, _, npu = host.config.chip.partition("_")
    yield _line("NPU ID", npu_id)
    if npu:
        yield _line("NPU Name", npu)
    yield _line("Chip ID", chip_id)
    yield _line("Chip Name", f"Ascend{series}" if npu else series)


def _common(host: Host, chips: Sequence[Chip]) -> Iterator[str]:
    yield _line("NPU ID", chips[0].npu_id)
    yield _line("Chip Count", len(chips))
    for chip in chips:
        holders = host.holders(chip.device)
        yield ""
        yield _line("Chip ID", chip.chip_id)
        yield _line("Aicore Usage Rate(%)", _aicore(holders))
        yield _line("Aicore Freq(MHZ)", CHIPS[host.config.chip].mhz)
        yield _line("Aicore curFreq(MHZ)", _frequency(host, chip, holders))
        yield _line("Temperature(C)", _temperature(host, chip))


def _product(host: Host, chips: Sequence[Chip]) -> Iterator[str]:
    yield _line("Product Type", host.config.product)

"""What variables and a driver's table of processes say of devices, alike for each kind of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.base.errors import ConfigError
from harness.base.processes import is_ours


def visible_ids(environment: Mapping[str, str], variable: str) -> tuple[int, ...] | None:
    """Return the ids of e.g. `CUDA_VISIBLE_DEVICES=0,2`; None where it is not set.

    Such a variable renumbers devices for the runtime and not for the driver's tool: what it says is
    read as `--device`, and processes are shown their own device. Raises `ConfigError`: it names
    devices otherwise, or hides all of them.
    """
    text = environment.get(variable)
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(
            f"${variable}={text!r} is not a list of ids",
            remedy="unset it and name devices by the ids that the driver's tool prints: "
            "--device=0,2",
        )
    return tuple(int(part) for part in parts)


def strangers(processes: Sequence[Sequence[int | None]], *, measuring: bool) -> list[int]:
    """Return which of a device's processes are others', by their place; `processes` are the ids
    that each may have.

    What this process started is not others', whether it is one worker or a tool for each call.
    """
    others = [
        at
        for at, ids in enumerate(processes)
        if not any(pid is not None and is_ours(pid) for pid in ids)
    ]
    # A driver's tool prints the host's process ids; in a container ours is another number there.
    alone = measuring and len(others) == len(processes) == 1
    if alone and not Path(f"/proc/{processes[0][0]}").exists():
        return []
    return others

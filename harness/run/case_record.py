"""What the record of a case is made of: its error, its toolchain, the command that repeats it."""

from __future__ import annotations

import contextlib
import errno
import shlex
import traceback
from typing import Any

from harness.base import given, host
from harness.base.errors import ConfigError, HarnessError, of_machine
from harness.base.stages import Stage
from harness.base.text import first_line
from harness.plan import Case
from harness.records.observed import DeviceInfo, ErrorInfo
from harness.records.resumed import typed
from harness.settings import OPTIONS, Settings, resolve

_OWN = ("runs", "lang", "resume", "shard", "shard_by")  # of a run, of no case


def nodeid_of(case: Case) -> str:
    """Return the name that pytest gives a case, so that runs of both kinds can be merged."""
    return f"tests/acceptance/test_{case.check}.py::test_{case.check}[{case.id}]"


def versions_of(device: DeviceInfo | None) -> dict[str, str]:
    """Return the versions of the host's libraries and of the device's toolchain."""
    return host.versions() | (device.tools if device is not None else {})


def error_info(error: BaseException) -> ErrorInfo:
    """Return an error as a record keeps it; what is not a `HarnessError` is a fault of ours, unless
    the operating system refused something.
    """
    if isinstance(error, HarnessError):
        return ErrorInfo(
            type=type(error).__name__,
            stage=error.stage,
            message=error.message,
            remedy=error.remedy,
            log=error.log,
            full_disk=error.full_disk,
            killed=error.killed,
            remembered=error.remembered,
        )
    remedy = "this is a fault of the harness: please report it with the log"
    return ErrorInfo(
        type=type(error).__name__,
        stage=Stage.HARNESS,
        message=first_line(error),
        remedy="see to the host, then run again" if of_machine(error) else remedy,
        log="".join(traceback.format_exception(error))[-8000:],
        full_disk=isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT),
        killed=of_machine(error),
    )


def typed_options(settings: Settings) -> dict[str, Any]:
    """Return what is not as a command line that names only the kind of run has it here, by option,
    as it is typed: another host takes the rest from its own variables.
    """
    flags = {row.name: True for row in OPTIONS if row.kind == "flag" and settings.value(row)}
    here = resolve({row.name: True for row in OPTIONS if row.asks_for and row.name in flags})
    return flags | {
        row.name: typed(given.plain(settings.value(row), row))
        for row in OPTIONS
        if row.name not in (*flags, *_OWN) and settings.value(row) != here.value(row)
    }


def repeat_command(settings: Settings, case: Case) -> str:
    """Return the command that does one case again, with every setting that can change it."""
    flags = [row for row in OPTIONS if row.kind == "flag" and settings.value(row)]
    flags = [row for row in flags if row.name != "resume_undecided"]
    # What the settings are where only the kind of run is named, without and with the variables.
    kind = {row.name: True for row in flags}
    plain = here = resolve(kind, environment={})
    with contextlib.suppress(ConfigError):  # a variable that the command line replaced
        here = resolve(kind)
    words = ["pytest", "-m", case.check, *(row.flag for row in flags)]
    chosen: dict[str, Any] = {"models": case.model, "batch_sizes": case.batch_size}
    for row in OPTIONS:
        value = chosen.get(row.name, settings.value(row))
        if row.kind == "flag" or row.name in _OWN:
            continue
        if value in (None, "", ()) or value == plain.value(row) == here.value(row):
            continue
        if row.kind == "pairs":
            words += [f"{row.flag}={name}={path}" for name, path in value]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{row.flag}={text}")
    return shlex.join(words)

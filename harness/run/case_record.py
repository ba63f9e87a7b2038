"""The record of one case: its line, its error, and the command that does it again."""

from __future__ import annotations

import errno
import shlex
import traceback
from dataclasses import dataclass, field
from typing import Any

from harness.base import host
from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.base.terms import Outcome
from harness.catalog.schema import Catalog
from harness.plan import Case
from harness.records.lines import CaseLine
from harness.records.observed import ErrorInfo, Observed
from harness.settings import OPTIONS, Settings, resolve

# What of a toolchain a reader compares from run to run, beside the libraries of the host.
_VERSIONED = ("cann", "driver", "firmware")


@dataclass(frozen=True)
class CaseFacts:
    """What a case gathered until it ended. `worker`: the process that ran it, of several."""

    observed: Observed = field(default_factory=Observed)
    error: ErrorInfo | None = None
    worker: str = ""
    started: str = ""
    seconds: float = 0.0


def nodeid_of(case: Case) -> str:
    """Return the name that pytest gives a case, so that runs of both kinds can be merged."""
    return f"tests/acceptance/test_{case.check}.py::test_{case.check}[{case.id}]"


def case_line(
    run_id: str,
    settings: Settings,
    catalog: Catalog,
    case: Case,
    nodeid: str,
    outcome: Outcome,
    sentence: str,
    facts: CaseFacts,
) -> CaseLine:
    """Make the one line of a case, however it ended."""
    model, observed = catalog.models[case.model], facts.observed
    toolchain = observed.device.toolchain if observed.device is not None else {}
    versions = {name: str(toolchain[name]) for name in _VERSIONED if name in toolchain}
    return CaseLine(
        run=run_id,
        **case.planned(nodeid).model_dump(),
        title=model.title,
        provenance=settings.provenance,
        outcome=outcome,
        sentence=sentence,
        verdict=observed.verdict,
        error=facts.error,
        measurement=observed.measurement,
        checkpoint=observed.checkpoint,
        images=observed.images,
        preprocessing=model.preprocessing.describe(),
        artifacts=tuple(observed.artifacts),
        stages=tuple(observed.stages),
        device=observed.device,
        attempts=tuple(observed.attempts),
        machine=host.machine(),
        versions={**host.versions(), **versions},
        diagnosis=observed.diagnosis,
        worker=facts.worker,
        started=facts.started,
        seconds=round(facts.seconds, 3),
        repeat=(repeat_command(settings, case),),
    )


def error_info(error: BaseException) -> ErrorInfo:
    """Return an error as a record keeps it; what is not a `HarnessError` is a fault of ours."""
    if isinstance(error, HarnessError):
        return ErrorInfo(
            type=type(error).__name__,
            stage=error.stage,
            message=error.message,
            remedy=error.remedy,
            log=error.log,
            full_disk=error.full_disk,
            remembered=error.remembered,
        )
    lines = str(error).strip().splitlines() or ["no message"]
    return ErrorInfo(
        type=type(error).__name__,
        stage=Stage.HARNESS,
        message=f"{type(error).__name__}: {lines[0]}",
        remedy="this is a fault of the harness: please report it with the log",
        log="".join(traceback.format_exception(error))[-8000:],
        full_disk=isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT),
    )


def repeat_command(settings: Settings, case: Case) -> str:
    """Return the command that does one case again, with every setting that can change it."""
    flags = [row for row in OPTIONS if row.kind == "flag" and settings.value(row)]
    # What the settings are where only the kind of run is named.
    plain = resolve({row.name: True for row in flags}, environment={})
    words = ["pytest", "-m", case.check, *(row.flag for row in flags)]
    chosen: dict[str, Any] = {"models": case.model, "batch_sizes": case.batch_size}
    for row in OPTIONS:
        value = chosen.get(row.name, settings.value(row))
        if row.kind == "flag" or row.name == "runs" or value == plain.value(row):
            continue
        if row.kind == "pairs":
            words += [f"{row.flag}={name}={path}" for name, path in value]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{row.flag}={text}")
    return shlex.join(words)

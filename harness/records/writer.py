"""Writes a run's records: one JSON line at a time, appended and flushed; samples beside them.

Lines are appended under a lock with a single write, so that several processes can share the file
and a kill loses at most the case that was running.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic_core import PydanticSerializationError

from harness.base import locks
from harness.base.errors import RecordError, on_disk
from harness.base.files import open_regular
from harness.records.lines import CaseLine, Line
from harness.records.measurements import FLIPS_KEPT, AccuracyMeasurement, Rounds, Samples

RESULTS = "results.jsonl"
SAMPLES = "samples"
LOCK_TIMEOUT_S = 30.0
MORE_SPACE = "free disk space or choose another place with --runs=DIR"


def new_run_id() -> str:
    """`20261120-073000-1a2b`: sorts by time, unique on a host."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def append(directory: Path, *lines: Line) -> None:
    """Append lines to the run's records and flush them to disk. Raises `RecordError`: the file
    cannot be written.
    """
    payload = b"".join(_encoded(line) for line in lines)
    path = directory / RESULTS
    try:
        directory.stat()  # the lock must not make a run that is gone
        # Bounded: a process that was stopped while it wrote must not stop the others.
        with locks.locked(directory / ".results.lock", timeout_s=LOCK_TIMEOUT_S, what="a record"):
            fd = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                # A process killed in the middle of a write leaves half a line: the next line
                # must not be glued to it.
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    payload = b"\n" + payload
                view = memoryview(payload)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
    except locks.LockTimeout as error:
        raise RecordError(
            f"cannot append to {path}: {error}", remedy="end the process that holds the lock"
        ) from error
    except OSError as error:
        raise RecordError(f"cannot append to {path}: {error}", remedy=MORE_SPACE) from error


def write_samples(directory: Path, name: str, samples: Samples) -> str:
    """Keep the execution times (ms) of a case; returns the file's path relative to `directory`.

    JSON: `{"ours": [[ms, ...] of each round], ...}`, a key for each field of `Samples`. Raises
    `RecordError`: the file cannot be written.
    """
    path = directory / SAMPLES / f"{name}.json"

    def rounded(rounds: Rounds) -> list[list[float]]:
        return [[round(sample, 5) for sample in one] for one in rounds]

    data = {one.name: rounded(getattr(samples, one.name)) for one in fields(samples)}
    with on_disk(RecordError, f"cannot write {path}", MORE_SPACE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
    return path.relative_to(directory).as_posix()


def _encoded(line: Line) -> bytes:
    line = _shortened(line)
    try:
        text = line.model_dump_json()
    except PydanticSerializationError:
        # A name that is not UTF-8: Python holds its bytes as lone surrogates.
        text = json.dumps(line.model_dump(mode="json"), ensure_ascii=False)
    return f"{text}\n".encode(errors="replace")


def _shortened(line: Line) -> Line:
    """Without the flips that no reader needs: a bad model has as many as there are images."""
    if not isinstance(line, CaseLine) or not isinstance(line.measurement, AccuracyMeasurement):
        return line
    fidelity = line.measurement.fidelity
    if fidelity is None or len(fidelity.flips) <= FLIPS_KEPT:
        return line
    kept = replace(fidelity, flips=fidelity.flips[:FLIPS_KEPT])
    return line.model_copy(update={"measurement": replace(line.measurement, fidelity=kept)})

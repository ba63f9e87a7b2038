"""The index of the run directories: `runs/history.sqlite`, rebuilt from the records at any time.

The records stay the source. The index holds what is asked over time: one row for each run, case
and way of measuring (`docs/history.md` has the schema and queries). It is brought up to date by the
path, size and modification time of each `results.jsonl`, under a lock and in one transaction, so
that runs that end at the same moment do not disturb each other and a reader sees all or nothing.
A database that is damaged or of another version is set aside, never deleted, and built anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from harness.base import locks
from harness.base.errors import RecordError
from harness.base.terms import OUTCOMES, Check, Provenance
from harness.judge.verdicts import FIDELITY_BOUND
from harness.records.writer import RESULTS

DATABASE = "history.sqlite"
LOCK = ".history.lock"
VERSION = 2
LOCK_TIMEOUT_S = 120.0
BUSY_TIMEOUT_S = 60.0

# A change of one of these is marked in a series. Versions of what only tests or draws are not here.
WATCHED_VERSIONS = ("cann", "driver", "firmware", "onnxruntime", "harness")

_PROVENANCES: frozenset[str] = frozenset(get_args(Provenance))
_CHECKS: frozenset[str] = frozenset(get_args(Check))
_OUTCOMES: frozenset[str] = frozenset(OUTCOMES)

# No STRICT tables, and `sqlite_master`: SQLite before 3.37 and 3.33, as hosts with an NPU often
# have it, reads the file too. Every value has its type before it is bound.
_SCHEMA = """
CREATE TABLE runs (
  directory TEXT PRIMARY KEY,  -- name of the run directory, below the folder of runs
  size INTEGER NOT NULL,       -- of results.jsonl, in bytes, when it was read
  mtime_ns INTEGER NOT NULL,
  run TEXT NOT NULL,           -- id of the run; empty when its first line is lost
  provenance TEXT NOT NULL,    -- real, rehearsal, simulated; empty when unknown
  started TEXT NOT NULL,       -- ISO 8601, UTC
  finished TEXT NOT NULL,      -- empty while it runs, or when it was killed
  git TEXT NOT NULL,
  catalog_digest TEXT NOT NULL,
  hostname TEXT NOT NULL,
  planned INTEGER NOT NULL,
  exit_status INTEGER,         -- NULL when there is no end line
  damaged INTEGER NOT NULL     -- lines that could not be read
);
CREATE TABLE setups (          -- how a figure was made; shared by many cases
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  chip TEXT NOT NULL,
  card TEXT NOT NULL,
  chips INTEGER NOT NULL,
  device TEXT NOT NULL,        -- its name and id
  hostname TEXT NOT NULL,
  toolchain TEXT NOT NULL,
  driver TEXT NOT NULL,        -- api, cli, benchmark, onnxruntime
  method TEXT NOT NULL,
  tuning TEXT NOT NULL,
  versions TEXT NOT NULL       -- JSON object
);
CREATE TABLE cases (
  id INTEGER PRIMARY KEY,
  directory TEXT NOT NULL REFERENCES runs (directory) ON DELETE CASCADE,
  run TEXT NOT NULL,           -- the run that measured it; a merged run keeps it
  nodeid TEXT NOT NULL,
  case_name TEXT NOT NULL,
  model TEXT NOT NULL,
  batch_size INTEGER NOT NULL,
  target TEXT NOT NULL,
  check_name TEXT NOT NULL,    -- accuracy, throughput
  provenance TEXT NOT NULL,
  outcome TEXT NOT NULL,
  started TEXT NOT NULL,
  moment REAL NOT NULL,        -- started, seconds since 1970
  unit TEXT NOT NULL,          -- %, fps
  measured REAL,               -- NULL when nothing was measured
  half_width_percent REAL,     -- of the 99 % interval of a throughput
  executions INTEGER,
  images INTEGER,
  reference_kind TEXT NOT NULL,
  reference_value REAL,
  difference_percent REAL,
  trouble TEXT NOT NULL,       -- busy, throttled, unhealthy, wrong outputs; or empty
  error_stage TEXT NOT NULL,
  checkpoint TEXT NOT NULL,    -- sha256
  setup INTEGER NOT NULL REFERENCES setups (id)
);
CREATE INDEX cases_by_directory ON cases (directory);
CREATE INDEX cases_by_run ON cases (run, nodeid);
-- What was measured, each measurement once: a merged run repeats the cases of its parts.
CREATE VIEW figures AS
  SELECT c.*, s.chip, s.card, s.chips, s.device, s.hostname, s.toolchain, s.driver, s.method,
    s.tuning, s.versions
  FROM cases AS c JOIN setups AS s ON s.id = c.setup
  WHERE c.measured IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM cases AS o WHERE o.run = c.run AND o.nodeid = c.nodeid AND o.id < c.id);
"""
_CASE_COLUMNS = (
    "directory",
    "run",
    "nodeid",
    "case_name",
    "model",
    "batch_size",
    "target",
    "check_name",
    "provenance",
    "outcome",
    "started",
    "moment",
    "unit",
    "measured",
    "half_width_percent",
    "executions",
    "images",
    "reference_kind",
    "reference_value",
    "difference_percent",
    "trouble",
    "error_stage",
    "checkpoint",
    "setup",
)
_INSERT_CASE = (
    f"INSERT INTO cases ({', '.join(_CASE_COLUMNS)}) "  # noqa: S608 - names from above
    f"VALUES ({', '.join('?' * len(_CASE_COLUMNS))})"
)


@dataclass(frozen=True)
class Update:
    """What bringing the index up to date did; run directories are counted."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    damaged_lines: int = 0
    notes: tuple[str, ...] = field(default=())


class History:
    """An open index. Use it in a `with` block, or close it."""

    def __init__(self, connection: sqlite3.Connection, runs: Path, update: Update) -> None:
        self.runs = runs
        self.update = update
        self._connection = connection

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def provenances(self) -> dict[str, int]:
        """How many figures there are of each provenance."""
        rows = self._connection.execute(
            "SELECT provenance, COUNT(*) FROM figures GROUP BY provenance"
        )
        return {str(name): int(count) for name, count in rows}

    def figures(self, provenance: Provenance) -> Iterator[Mapping[str, Any]]:
        """Every figure of one provenance, oldest first: rows of the view `figures`."""
        yield from self._rows(
            "SELECT * FROM figures WHERE provenance = ? ORDER BY moment, id", provenance
        )

    def misses(self, provenance: Provenance) -> Iterator[Mapping[str, Any]]:
        """Every case of one provenance that gave no figure, oldest first: rows of `cases`, with
        the chip; each once, as in the view `figures`.
        """
        yield from self._rows(
            "SELECT c.*, s.chip FROM cases AS c JOIN setups AS s ON s.id = c.setup "
            "WHERE c.provenance = ? AND c.measured IS NULL AND NOT EXISTS (SELECT 1 FROM cases "
            "AS o WHERE o.run = c.run AND o.nodeid = c.nodeid AND o.id < c.id) "
            "ORDER BY c.moment, c.id",
            provenance,
        )

    def runs_of(self) -> dict[str, int]:
        """How many runs have a figure of each provenance."""
        rows = self._connection.execute(
            "SELECT provenance, COUNT(DISTINCT run) FROM figures GROUP BY provenance"
        )
        return {str(name): int(count) for name, count in rows}

    def _rows(self, query: str, provenance: Provenance) -> Iterator[Mapping[str, Any]]:
        cursor = self._connection.execute(query, (provenance,))
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


def open_history(runs: Path, *, rebuild: bool = False) -> History:
    """The index of a folder of runs, brought up to date.

    Where the folder cannot be written (an unpacked archive, another user's), the index is made in
    memory and a note says so.

    Raises:
        RecordError: there is no such folder, it cannot be read, or the index is held by another.
    """
    if not runs.is_dir():
        raise RecordError(
            f"{runs} is not a folder of run directories", remedy="name one with --runs DIR"
        )
    if not os.access(runs, os.W_OK):
        return _in_memory(runs, "it cannot be written")
    try:
        with locks.locked(runs / LOCK, timeout_s=LOCK_TIMEOUT_S, what="the history"):
            return _open_locked(runs, rebuild)
    except locks.LockTimeout as error:
        raise RecordError(
            f"the history of {runs} is not free: {error}",
            remedy="end the process that holds the lock",
        ) from error
    except sqlite3.Error as error:
        return _in_memory(runs, f"its database cannot be used: {error}")
    except OSError as error:
        return _in_memory(runs, f"it cannot be written: {error.strerror or error}")


def _in_memory(runs: Path, why: str) -> History:
    connection = _connect(":memory:")
    connection.executescript(_SCHEMA)
    return History(
        connection, runs, _update(connection, runs, [f"{runs}: {why}; the index is not kept"])
    )


def _open_locked(runs: Path, rebuild: bool) -> History:
    path = runs / DATABASE
    notes: list[str] = []
    if rebuild and path.exists():
        _remove(path)
    why = _fault(path)
    if why:
        notes.append(f"{path.name} {why}: set aside as {_set_aside(path).name} and built anew")
    for attempt in (1, 2):
        connection = _connect(path)
        try:
            if not path.stat().st_size:
                _create(connection)
            return History(connection, runs, _update(connection, runs, notes))
        except sqlite3.DatabaseError as error:
            connection.close()
            # Damage that the check at opening does not reach shows when a page is used.
            if attempt == 2 or _code(error) not in _DAMAGED:
                raise
            aside = _set_aside(path)
            notes.append(f"{path.name} is damaged: set aside as {aside.name} and built anew")
        except BaseException:
            connection.close()
            raise
    raise AssertionError("two attempts either return or raise")


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _code(error: sqlite3.Error) -> int:
    # The low byte is the primary code: SQLITE_CORRUPT_INDEX and its like are damage as well.
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def _fault(path: Path) -> str:
    """Why the database must not be used; empty when it may, or when there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not status.st_size:
        return ""
    try:
        with closing(_connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                return f"has version {version}, not {VERSION}"
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        if _code(error) in _DAMAGED:
            return "is damaged"
        raise
    if answer != "ok":
        return "is damaged"
    return "" if {"runs", "cases", "setups", "figures"} <= names else "lacks a table"


def _companions(path: Path) -> Iterator[Path]:
    for suffix in ("-journal", "-wal", "-shm"):
        yield path.with_name(path.name + suffix)


def _set_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    path.rename(aside)
    for companion in _companions(path):
        companion.unlink(missing_ok=True)  # SQLite would apply it to the new file
    return aside


def _remove(path: Path) -> None:
    path.unlink()
    for companion in _companions(path):
        companion.unlink(missing_ok=True)


# --- Records -> rows ------------------------------------------------------------------------


def _update(connection: sqlite3.Connection, runs: Path, notes: Iterable[str]) -> Update:
    found = dict(_results(runs))
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = {
            directory: (size, mtime)
            for directory, size, mtime in connection.execute(
                "SELECT directory, size, mtime_ns FROM runs"
            )
        }
        gone = [(name,) for name in known if name not in found]
        changed = [name for name, seen in found.items() if known.get(name) != seen]
        stale = [(name,) for name in changed if name in known]
        connection.executemany("DELETE FROM runs WHERE directory = ?", [*gone, *stale])
        setups = _Setups(connection)
        unreadable = []
        for name in sorted(changed):
            try:
                _index_run(connection, setups, runs / name / RESULTS, name)
            except OSError as error:
                unreadable.append(f"{name}: {error.strerror or error}")
        (damaged,) = connection.execute("SELECT COALESCE(SUM(damaged), 0) FROM runs").fetchone()
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return Update(
        len(changed),
        len(found) - len(changed),
        len(gone),
        damaged,
        (*notes, *(f"cannot read {text}" for text in unreadable)),
    )


def _results(runs: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name of each run directory with the size and time of its records.

    Links are not followed: `latest` would count its run twice, and a record must not make us open
    a pipe.
    """
    try:
        with os.scandir(runs) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                try:
                    status = os.lstat(os.path.join(entry.path, RESULTS))
                except OSError:
                    continue
                name = entry.name.encode(errors="replace").decode(errors="replace")
                if stat.S_ISREG(status.st_mode) and name == entry.name:
                    yield name, (status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise RecordError(
            f"cannot read {runs}: {error.strerror or error}", remedy="check who owns it"
        ) from error


class _Setups:
    """Ways of measuring, each stored once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = dict(
            connection.execute("SELECT digest, id FROM setups").fetchall()
        )

    def id_of(self, setup: tuple[str | int, ...]) -> int:
        digest = hashlib.sha256(repr(setup).encode(errors="replace")).hexdigest()[:32]
        if digest not in self._ids:
            cursor = self._connection.execute(
                "INSERT INTO setups (digest, chip, card, chips, device, hostname, toolchain, "
                "driver, method, tuning, versions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (digest, *setup),
            )
            self._ids[digest] = cursor.lastrowid or 0
        return self._ids[digest]


_SAMPLES = '"samples_ms":['


def _parse(raw: str) -> Any:
    """A line's JSON value, without the latency samples: they are most of its length.

    The samples are cut out of the text. `"samples_ms":[` can only be a key there: within a JSON
    string its quotes would be escaped. Should the rest be no JSON, the whole line is parsed.
    """
    short = raw
    begin = short.find(_SAMPLES)
    while begin >= 0:
        end = short.find("]", begin)
        if end < 0:
            break
        begin += len(_SAMPLES)
        short = short[:begin] + short[end:]
        begin = short.find(_SAMPLES, begin)
    try:
        return json.loads(short)
    except ValueError:
        return json.loads(raw)


@dataclass
class _RunRow:
    """What the run, plan and end lines of one file say."""

    run: str = ""
    provenance: str = ""
    started: str = ""
    finished: str = ""
    git: str = ""
    catalog_digest: str = ""
    hostname: str = ""
    planned: int = 0
    exit_status: int | None = None
    damaged: int = 0


def _index_run(connection: sqlite3.Connection, setups: _Setups, path: Path, name: str) -> None:
    # The size and time are those of the bytes that are read: a run that goes on changes both,
    # and is read again.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        text = file.read(status.st_size).decode(errors="replace")
    row = _RunRow()
    cases: dict[str, dict[str, Any]] = {}
    for raw in text.split("\n"):
        if not raw.strip():
            continue
        try:
            data = _parse(raw)
            kind = data["kind"]
            if kind == "case":
                cases.setdefault(_checked_case(data), data)
            elif kind == "run":
                if not row.run:
                    _read_run(row, data)
            elif kind == "plan":
                row.planned += len(data["cases"])
            elif kind == "end":
                row.finished = _text(data.get("finished"))
                row.exit_status = _whole(data.get("exit_status"))
            elif kind != "check":  # of the run as a whole: no figure of a case
                row.damaged += 1
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            row.damaged += 1
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            status.st_size,
            status.st_mtime_ns,
            row.run,
            row.provenance,
            row.started,
            row.finished,
            row.git,
            row.catalog_digest,
            row.hostname,
            row.planned,
            row.exit_status,
            row.damaged,
        ),
    )
    connection.executemany(
        _INSERT_CASE, [_case_row(data, row, name, status, setups) for data in cases.values()]
    )


def _read_run(row: _RunRow, data: Mapping[str, Any]) -> None:
    if data["provenance"] not in _PROVENANCES:
        raise ValueError("unknown provenance")
    row.run, row.provenance = _text(data["run"]), data["provenance"]
    row.started, row.git = _text(data.get("started")), _text(data.get("git"))
    row.catalog_digest = _text(data.get("catalog_digest"))
    row.hostname = _text(_mapping(data.get("machine")).get("hostname"))


def _checked_case(data: Mapping[str, Any]) -> str:
    """The node id of a case line whose keys are those that a series stands on."""
    batch_size = data["batch_size"]
    if (
        data["check"] not in _CHECKS
        or data["provenance"] not in _PROVENANCES
        or data["outcome"] not in _OUTCOMES
        or type(batch_size) is not int
        or not 0 < batch_size < 1 << 31
    ):
        raise ValueError("not a case")
    for key in ("nodeid", "model", "target", "case"):
        if not isinstance(data[key], str):
            raise TypeError(key)
    return _text(data["nodeid"])


def _case_row(
    data: Mapping[str, Any],
    row: _RunRow,
    directory: str,
    status: os.stat_result,
    setups: _Setups,
) -> tuple[Any, ...]:
    measurement = _mapping(data.get("measurement"))
    reference = _mapping(data.get("reference"))
    provenance = data["provenance"]
    if provenance == "real" and row.provenance:
        provenance = row.provenance  # nothing is real in a run that is not
    started = _text(data.get("started")) or row.started
    moment = moment_of(started)
    if moment is None:
        moment = status.st_mtime
    return (
        directory,
        _text(data.get("run")) or row.run or directory,
        _text(data["nodeid"]),
        _text(data["case"]),
        _text(data["model"]),
        data["batch_size"],
        _text(data["target"]),
        data["check"],
        provenance,
        data["outcome"],
        started,
        moment,
        _text(data.get("unit")),
        _number(data.get("measured")),
        _number(measurement.get("half_width_percent")),
        _whole(measurement.get("loops")),
        _whole(measurement.get("images")),
        _text(reference.get("kind")),
        _number(reference.get("value")),
        _number(data.get("difference_percent")),
        trouble_of(measurement),
        _text(_mapping(data.get("error")).get("stage")),
        _text(_mapping(data.get("checkpoint")).get("sha256")),
        setups.id_of(_setup(data, measurement)),
    )


def _setup(data: Mapping[str, Any], measurement: Mapping[str, Any]) -> tuple[str | int, ...]:
    setup = _mapping(measurement.get("setup"))
    device = _mapping(data.get("device"))
    versions = {
        _text(key): _text(value)
        for key, value in _mapping(data.get("versions")).items()
        if key in WATCHED_VERSIONS and (key != "onnxruntime" or data["target"] == "cpu")
    }
    name, number = _text(device.get("name")), _text(device.get("id"))
    return (
        chip_of(measurement, device),
        _text(setup.get("card")),
        _whole(setup.get("chips")) or 0,  # nobody counted them
        " ".join(part for part in (name, f"({number})" if number else "") if part),
        _text(_mapping(data.get("machine")).get("hostname")),
        toolchain_of(data["target"], measurement, versions),
        _text(setup.get("driver")),
        _text(setup.get("method")),
        _text(setup.get("tuning")),
        json.dumps(versions, sort_keys=True),
    )


def chip_of(measurement: Mapping[str, Any], device: Mapping[str, Any]) -> str:
    """The chip that a case ran on: as its setup says, or else the device's name."""
    return _text(_mapping(measurement.get("setup")).get("chip")) or _text(device.get("name"))


def toolchain_of(target: str, measurement: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    """The compiler or runtime with its version; empty when a record does not say."""
    said = _text(_mapping(measurement.get("setup")).get("toolchain"))
    cann, runtime = _text(versions.get("cann")), _text(versions.get("onnxruntime"))
    if said or cann:
        return said or f"CANN {cann.removeprefix('CANN ')}"
    return f"onnxruntime {runtime}" if runtime and target == "cpu" else ""


def trouble_of(measurement: Mapping[str, Any]) -> str:
    """What speaks against a measurement: its device (`harness.records.conditions`), or wrong
    outputs.
    """
    found = []
    conditions = measurement.get("conditions")
    for condition in conditions if isinstance(conditions, list) else []:
        seen = _mapping(condition)
        health = _text(seen.get("health"))
        if health and health.upper() != "OK":
            found.append("unhealthy")
        found += [word for word in ("busy", "throttled") if seen.get(word) == "yes"]
    # The speed of a wrong model counts for nothing, in the history too.
    check = _mapping(measurement.get("outputs_check"))
    outputs, bound = _number(check.get("relative_l2")), _number(check.get("bound"))
    allowed = FIDELITY_BOUND if bound is None else bound
    if measurement.get("problems") or (outputs is not None and not outputs <= allowed):
        found.append("wrong outputs")
    return ", ".join(dict.fromkeys(found))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    # Half a surrogate pair is JSON, but no text that SQLite takes.
    return str(value)[:400].encode(errors="replace").decode()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 1 << 62 else None


def moment_of(text: str) -> float | None:
    """An ISO 8601 moment in seconds since 1970; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
